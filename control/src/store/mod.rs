//! The durable store of jobs: SQLite in one file or a PostgreSQL server, written by one thread. Called by the app through
//! channels; knows rows and nothing of what they mean. Writes that wait together are made durable together.
mod access;
mod backup;
mod database;
mod jobs;
mod layout;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;
mod thread;
mod tunnels;

use std::path::PathBuf;
use std::sync::mpsc;

use dwcp_api::TransferState;
use tokio::sync::oneshot;

use crate::access::{ApiKey, AuditRecord};
use crate::jobs::JobRecord;
pub(crate) use backup::{inspect, pending};
use database::{Database, Fault};
pub(crate) use postgres::Server;

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
        /// What the database or the system says.
        reason: String,
    },
    /// It was written by a later version.
    #[error(
        "the job store {file} has layout {found}, this version knows {known}: start the newer version again, or move the file away"
    )]
    Newer {
        /// The file.
        file: String,
        /// Number of migrations that it has seen.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The server cannot be used.
    #[error(
        "the job store at {server} cannot be used: {reason}. Look at `state.postgres_url`, at the server and at what it logs; \
         `state.backend: embedded` needs no server, and knows nothing of what is there"
    )]
    Server {
        /// Where, without secrets.
        server: String,
        /// What it says, or why it says nothing.
        reason: String,
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

impl StoreError {
    fn unusable(file: &str, fault: &Fault) -> Self {
        Self::Unusable { file: file.to_owned(), reason: fault.to_string() }
    }
}

/// Where the store is.
pub(crate) enum Place {
    /// A file of our own.
    File(PathBuf),
    /// Somebody's server; copies that wait to be restored lie beside the file that would be the store without it.
    Server { server: Server, copies: PathBuf },
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

type Work = Box<dyn FnOnce(&mut dyn Database) + Send>;

enum Request {
    Write { record: JobRecord, change: Change, done: Done },
    Probe { done: Done },
    Prune { before_ms: u64 },
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
    pub(crate) fn open(place: Place) -> Result<(Self, Recovered), StoreError> {
        let (mut database, name): (Box<dyn Database>, String) = match place {
            Place::File(file) => {
                report(backup::adopt_pending(&file, now_ms()));
                (Box::new(sqlite::Sqlite::open(&file)?), file.display().to_string())
            }
            Place::Server { server, copies } => {
                let name = server.name();
                let mut database = postgres::Postgres::open(server)?;
                report(backup::import_pending(&mut database, &copies, now_ms()));
                (Box::new(database), name)
            }
        };
        let unusable = |fault: Fault| StoreError::unusable(&name, &fault);
        let recovered = jobs::recover(&mut *database).map_err(unusable)?;
        let (requests, inbox) = mpsc::channel();
        let start =
            std::thread::Builder::new().name("store".into()).spawn(move || thread::run(database, inbox));
        start.map_err(|error| unusable(Fault::Refused(error.to_string())))?;
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

    /// Removes transfers that ended before `before_ms`, when the store comes to it.
    pub(crate) fn prune(&self, before_ms: u64) {
        // A store that is closed removes nothing, and everybody else says so.
        drop(self.requests.send(Request::Prune { before_ms }));
    }

    /// Keeps an API key.
    pub(crate) async fn insert_key(&self, key: ApiKey) -> Result<(), StoreError> {
        self.ask(move |database| access::insert_key(database, &key)).await
    }

    /// Forgets an API key.
    pub(crate) async fn delete_key(&self, id: String) -> Result<(), StoreError> {
        self.ask(move |database| access::delete_key(database, &id)).await
    }

    /// Keeps a tunnel.
    pub(crate) async fn insert_tunnel(&self, tunnel: dwcp_config::Tunnel) -> Result<(), StoreError> {
        self.ask(move |database| tunnels::insert(database, &tunnel)).await
    }

    /// Forgets the tunnel at an address.
    pub(crate) async fn delete_tunnel(&self, listen: String) -> Result<(), StoreError> {
        self.ask(move |database| tunnels::delete(database, &listen)).await
    }

    /// The newest lines of the audit log, newest first.
    pub(crate) async fn audited(&self, limit: u16) -> Result<Vec<AuditRecord>, StoreError> {
        self.ask(move |database| access::audited(database, limit)).await
    }

    /// Adds a line to the audit log; `done` hears whether it is durable.
    pub(crate) fn audit(
        &self,
        record: AuditRecord,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        let work = move |database: &mut dyn Database| {
            done(access::audit(database, &record).map_err(thread::operation));
        };
        if self.requests.send(Request::Do { work: Box::new(work) }).is_err() {
            tracing::error!(component = "audit", "the store is closed");
        }
    }

    /// Does something in the store's thread.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Database) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let work = move |database: &mut dyn Database| {
            let result = work(database).map_err(thread::operation);
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

/// What became of a copy that waited for this start.
fn report(adopted: Result<Option<PathBuf>, StoreError>) {
    match adopted {
        Ok(None) => {}
        Ok(Some(kept)) => {
            let kept = kept.display().to_string();
            tracing::warn!(component = "store", kept, "state restored from a copy; the former one is kept");
        }
        Err(error) => tracing::error!(component = "store", %error, "copy not used; the state is as it was"),
    }
}

fn now_ms() -> u64 {
    dwcp_api::Timestamp::from(std::time::SystemTime::now()).unix_ms()
}
