//! Trees of jobs, each on a thread of its own, because file systems block: scanning and packing at the sender
//! ([`sending`]), unpacking and committing at the receiver ([`receiving`]). Workers send orders by descriptor and
//! number, and get replies in their inbox; no payload of large objects comes by here.
mod first_seen;
mod receiving;
mod sending;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use dwcp_abi::wire::{Code, Held};
use dwcp_engine::{FileId, FinalCheck, FoundObject, Hash, JobKey, Leftovers, OpenedObject, TaskId};

pub use first_seen::FirstSeen;
pub use receiving::{Destination, ReceiveTree, nothing_unpacked, start_receiver};
pub use sending::{SendTree, exported_sources, start_scanner};

/// An order to the thread of a sending job.
#[expect(missing_docs, reason = "fields have the names of what the variant's sentence speaks of")]
#[derive(Debug)]
pub enum ScanOrder {
    /// Fill the next pack into this room.
    Fill(Vec<u8>),
    /// Fill the next pack of closing entries.
    Finals(Vec<u8>),
    /// Look at an object's source once more.
    Check(u64),
    /// See whether what the receiver has is here as well, so that the file's chunks can be sent as differences to it.
    Prepare { object: u64, file: FileId, baseline: Held },
    /// The object is over. With `keep`, the receiver has this content of it, and so should this node.
    Forget { object: u64, keep: Option<Hash> },
}

/// An order to the thread of a receiving job.
#[expect(missing_docs, reason = "fields have the names of what the variant's sentence speaks of")]
#[derive(Debug)]
pub enum ReceiveOrder {
    /// Unpack for this worker, if the pack is of the tree's attempt.
    Unpack { worker: u16, task: TaskId, attempt: u32, pack: Vec<u8> },
    /// Make an object durable under its name. With `verify`, only after reading it again: it must have this digest.
    Commit { object: u64, digest: Hash, verify: bool },
    /// Nothing of the object remains, because of `text`.
    Discard { object: u64, text: String },
    /// Close the tree.
    Finish,
    /// Remove what is incomplete: no attempt will come back for it.
    Abandon,
}

/// An error with what a program and what a person needs of it.
pub type Refusal = (Code, String);

/// What the threads answer.
#[expect(missing_docs, reason = "fields have the names of what the variant's sentence speaks of")]
#[derive(Debug)]
pub enum TreeReply {
    /// The scanner is ready, or cannot be.
    ScannerOpened { job: JobKey, result: Result<(), Refusal> },
    /// A pack is filled. `failures` are lines for a person.
    Filled {
        job: JobKey,
        pack: Vec<u8>,
        entries: u64,
        bytes: u64,
        objects: Vec<FoundObject>,
        failures: Vec<String>,
        end: bool,
    },
    /// A pack of closing entries is filled.
    FinalsFilled { job: JobKey, pack: Vec<u8>, entries: u64, end: bool },
    /// What the receiver has was looked for.
    Prepared { job: JobKey, object: u64 },
    /// A source was looked at.
    Checked { job: JobKey, object: u64, check: FinalCheck },
    /// The receiving tree is ready, or cannot be.
    ReceiverOpened { job: JobKey, result: Result<(), Refusal> },
    /// A pack is unpacked.
    Unpacked {
        task: TaskId,
        entries: u64,
        bytes: u64,
        opened: Vec<OpenedObject>,
        failures: u64,
        fatal: Option<Refusal>,
    },
    /// An early pack has waited long enough for its job.
    Unclaimed { task: TaskId },
    /// An object is committed, or cannot be.
    Committed { job: JobKey, object: u64, result: Result<(), Refusal> },
    /// The tree is closed. `text` has a line per failure, `changes` are [`dwcp_abi::wire::JobChanges`] or empty.
    Finished { job: JobKey, result: Result<(), Refusal>, failures: u64, text: String, changes: Vec<u8> },
}

/// Whether somebody will unpack a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in good hands.
    Yes,
    /// Its job is not here.
    NoJob,
    /// Its job may come, but too many packs wait for theirs.
    NoRoom,
}

/// The receiving threads of the process: packs arrive on any worker.
#[derive(Debug, Default)]
pub struct ReceiveTrees {
    trees: Mutex<HashMap<JobKey, Running>>,
    /// Packs that came before their job, and when.
    early: Mutex<Vec<(JobKey, Instant, ReceiveOrder)>>,
    /// Jobs that are over: nothing of them is early.
    over: Mutex<VecDeque<JobKey>>,
    /// Threads of jobs that are over, and may still be removing what is incomplete.
    ending: Mutex<HashMap<JobKey, JoinHandle<()>>>,
}

#[derive(Debug)]
struct Running {
    serial: u64,
    orders: Sender<ReceiveOrder>,
    thread: JoinHandle<()>,
}

impl ReceiveTrees {
    /// Makes a job's thread known to all workers.
    pub fn insert(&self, job: JobKey, serial: u64, orders: Sender<ReceiveOrder>, thread: JoinHandle<()>) {
        // Both at once: a pack finds the thread, or is found here.
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, _, order) in early.extract_if(.., |(other, _, _)| *other == job) {
            // The thread lives: its end of the channel is in its hands.
            drop(orders.send(order));
        }
        self.over.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != job);
        trees.insert(job, Running { serial, orders, thread });
    }

    /// Has a pack unpacked. One that is early, and came at this time, waits for its job where that is not here yet.
    pub fn unpack(&self, job: JobKey, order: ReceiveOrder, early: Option<Instant>) -> Taken {
        let trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = trees.get(&job) {
            return running.orders.send(order).map_or(Taken::NoJob, |()| Taken::Yes);
        }
        let is_over = || self.over.lock().unwrap_or_else(PoisonError::into_inner).contains(&job);
        let Some(now) = early.filter(|_| !is_over()) else { return Taken::NoJob };
        let mut waiting = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= EARLY_MAX {
            return Taken::NoRoom;
        }
        waiting.push((job, now, order));
        Taken::Yes
    }

    /// Workers and tasks of early packs that have waited long enough.
    pub fn take_late(&self, now: Instant) -> Vec<(u16, TaskId)> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        let late = early.extract_if(.., |(_, since, _)| now.saturating_duration_since(*since) > EARLY_WAIT);
        let task = |(_, _, order)| match order {
            ReceiveOrder::Unpack { worker, task, .. } => Some((worker, task)),
            _ => None,
        };
        late.filter_map(task).collect()
    }

    /// The thread of a former attempt that has not ended yet. Both use the same temporary names.
    pub fn take_ending(&self, job: JobKey) -> Option<JoinHandle<()>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).remove(&job)
    }

    /// Which of a job's threads this is, while it runs.
    pub fn serial(&self, job: JobKey) -> Option<u64> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(&job).map(|running| running.serial)
    }

    /// The thread of a job.
    pub fn get(&self, job: JobKey) -> Option<Sender<ReceiveOrder>> {
        self.trees
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&job)
            .map(|running| running.orders.clone())
    }

    /// Ends a job's thread once it has done what it was told.
    pub fn remove(&self, job: JobKey, leftovers: Leftovers) {
        let Some(running) = self.trees.lock().unwrap_or_else(PoisonError::into_inner).remove(&job) else {
            return;
        };
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.truncate(OVER_MAX - 1);
        over.push_front(job);
        drop(over);
        if leftovers == Leftovers::Remove {
            // A thread that ended has left nothing.
            drop(running.orders.send(ReceiveOrder::Abandon));
        }
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.retain(|_, thread| !thread.is_finished());
        ending.insert(job, running.thread);
    }
}

/// Packs that wait for their job: half a MiB each.
const EARLY_MAX: usize = 32;
/// Jobs that are remembered as over.
const OVER_MAX: usize = 256;
/// How long they do. A job that was sent before its packs comes within a round trip.
const EARLY_WAIT: Duration = Duration::from_secs(5);
/// Lines about failures that one message may have.
const FAILURE_LINES_MAX: usize = 20;

fn add_line(lines: &mut Vec<String>, line: String) {
    if lines.len() < FAILURE_LINES_MAX {
        lines.push(line);
    }
}
