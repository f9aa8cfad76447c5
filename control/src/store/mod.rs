//! The durable store of jobs: SQLite in one file, written by one thread. Called by the app through channels; knows
//! rows and nothing of what they mean. Writes that wait together are made durable together.
mod access;
mod backup;
mod schema;
mod thread;
mod tunnels;

use std::path::PathBuf;
use std::sync::mpsc;

use dwcp_api::TransferState;
use tokio::sync::oneshot;

use crate::access::{ApiKey, AuditRecord};
use crate::jobs::JobRecord;
pub(crate) use backup::{adopt_pending, inspect, pending};

/// Why the store does not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// It cannot be used at all.
    #[error(
        "the job store {file} cannot be used: {reason}. Free the disk or mend its rights if that is the reason; \
         otherwise move it away (mv {file} {file}.broken) and start again: the history of transfers is lost then, \
         and unfinished ones have to be ordered again"
    )]
    Unusable {
        /// The file.
        file: String,
        /// What SQLite or the system says.
        reason: String,
    },
    /// It was written by a later version.
    #[error(
        "the job store {file} has layout {found}, this version knows {known}: start the newer version again, or move the file away"
    )]
    Newer {
        /// The file.
        file: String,
        /// Its `user_version`.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A copy of a store cannot be used.
    #[error("{file} cannot be used as the job store: {reason}")]
    Copy {
        /// The copy.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// One operation failed.
    #[error("the job store did not take a change: {0}")]
    Operation(String),
    /// Its thread is gone.
    #[error("the job store is closed")]
    Closed,
}

/// One change.
pub(crate) enum Change {
    /// A new job.
    Insert,
    /// What changed of a job.
    Update,
}

/// What one page of history asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageQuery {
    pub(crate) state: Option<TransferState>,
    /// Only ids below.
    pub(crate) below: Option<u64>,
    pub(crate) limit: u16,
}

type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

type Work = Box<dyn FnOnce(&rusqlite::Connection) + Send>;

enum Request {
    Write { record: JobRecord, change: Change, done: Done },
    Probe { done: Done },
    One { id: u64, reply: oneshot::Sender<Result<Option<JobRecord>, StoreError>> },
    Do { work: Work },
    Copy { target: PathBuf, reply: oneshot::Sender<Result<(), StoreError>> },
    ByKey { key: String, reply: oneshot::Sender<Result<Option<JobRecord>, StoreError>> },
    Page { query: PageQuery, reply: oneshot::Sender<Result<Vec<JobRecord>, StoreError>> },
}

/// Handle of the store's thread; the thread ends when the last handle is gone.
#[derive(Clone)]
pub(crate) struct Store {
    requests: mpsc::Sender<Request>,
}

/// What the store knew when it was opened.
pub(crate) struct Recovered {
    /// Jobs that had not ended.
    pub(crate) unfinished: Vec<JobRecord>,
    /// Ids below were used.
    pub(crate) next_id: u64,
    pub(crate) keys: Vec<ApiKey>,
    /// Tunnels that operators added.
    pub(crate) tunnels: Vec<dwcp_config::Tunnel>,
}

impl Store {
    /// Opens or creates the store, and starts its thread.
    pub(crate) fn open(file: PathBuf) -> Result<(Self, Recovered), StoreError> {
        let (connection, recovered) = schema::open(&file)?;
        let (requests, inbox) = mpsc::channel();
        let start =
            std::thread::Builder::new().name("store".into()).spawn(move || thread::run(connection, inbox));
        start.map_err(|error| StoreError::Unusable {
            file: file.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok((Self { requests }, recovered))
    }

    /// Writes; `done` is called in the store's thread once it is durable or has failed, in the order of the calls.
    pub(crate) fn write(
        &self,
        record: JobRecord,
        change: Change,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        if let Err(mpsc::SendError(request)) =
            self.requests.send(Request::Write { record, change, done: Box::new(done) })
            && let Request::Write { done, .. } = request
        {
            done(Err(StoreError::Closed));
        }
    }

    /// Writes something that changes nothing; `done` hears whether the store takes writes.
    pub(crate) fn probe(&self, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        if let Err(mpsc::SendError(request)) = self.requests.send(Request::Probe { done: Box::new(done) })
            && let Request::Probe { done } = request
        {
            done(Err(StoreError::Closed));
        }
    }

    /// Keeps an API key.
    pub(crate) async fn insert_key(&self, key: ApiKey) -> Result<(), StoreError> {
        self.ask(move |connection| access::insert_key(connection, &key)).await
    }

    /// Forgets an API key.
    pub(crate) async fn delete_key(&self, id: String) -> Result<(), StoreError> {
        self.ask(move |connection| access::delete_key(connection, &id)).await
    }

    /// Keeps a tunnel.
    pub(crate) async fn insert_tunnel(&self, tunnel: dwcp_config::Tunnel) -> Result<(), StoreError> {
        self.ask(move |connection| tunnels::insert(connection, &tunnel)).await
    }

    /// Forgets the tunnel at an address.
    pub(crate) async fn delete_tunnel(&self, listen: String) -> Result<(), StoreError> {
        self.ask(move |connection| tunnels::delete(connection, &listen)).await
    }

    /// The newest lines of the audit log, newest first.
    pub(crate) async fn audited(&self, limit: u16) -> Result<Vec<AuditRecord>, StoreError> {
        self.ask(move |connection| access::audited(connection, limit)).await
    }

    /// Adds a line to the audit log; `done` hears whether it is durable.
    pub(crate) fn audit(
        &self,
        record: AuditRecord,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        let work = move |connection: &rusqlite::Connection| {
            let result = access::audit(connection, &record);
            done(result.map_err(|error| StoreError::Operation(error.to_string())));
        };
        if self.requests.send(Request::Do { work: Box::new(work) }).is_err() {
            tracing::error!(component = "audit", "the store is closed");
        }
    }

    /// Does something in the store's thread.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let work = move |connection: &rusqlite::Connection| {
            let result = work(connection).map_err(|error| StoreError::Operation(error.to_string()));
            // A requester that went away does not need its answer.
            drop(reply.send(result));
        };
        self.requests.send(Request::Do { work: Box::new(work) }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Writes a consistent copy to `target`, which must not exist.
    pub(crate) async fn copy(&self, target: PathBuf) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Copy { target, reply }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// One job.
    pub(crate) async fn one(&self, id: u64) -> Result<Option<JobRecord>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::One { id, reply }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// The job that was ordered under this key.
    pub(crate) async fn by_key(&self, key: String) -> Result<Option<JobRecord>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::ByKey { key, reply }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Jobs, newest first.
    pub(crate) async fn page(&self, query: PageQuery) -> Result<Vec<JobRecord>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Page { query, reply }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}
