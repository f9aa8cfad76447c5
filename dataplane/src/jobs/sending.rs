//! The thread of a sending job: walks the sources and fills packs when it is asked to.
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use dwcp_abi::wire::{CHUNK_BYTES, Code, Held, TreeOptions};
use dwcp_engine::{FileId, FinalCheck, FoundObject, Hash, JobKey};
use dwcp_hde::id_of_digest;

use super::{ScanOrder, TreeReply, add_line};
use crate::node::{Inbox, Node};
use crate::tree::{Filled, Filters, Fingerprint, Limits, Scanner, Source, holes, verify_unchanged};

/// A sending job's thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct SendTree {
    /// Tells its replies from those of a former attempt.
    pub serial: u64,
    orders: Sender<ScanOrder>,
}

impl SendTree {
    /// Gives an order; one to a thread that is gone goes nowhere, and the job has ended then.
    pub fn order(&self, order: ScanOrder) {
        // The thread only ends with this sender, or after a panic that the log shows.
        drop(self.orders.send(order));
    }
}

/// Starts the thread of a job. It answers `ScannerOpened` first.
///
/// # Errors
/// When the system gives no thread.
pub fn start_scanner(
    node: &Arc<Node>,
    worker: u16,
    job: JobKey,
    (sources, filters, tree): (Vec<Source>, Filters, TreeOptions),
) -> std::io::Result<SendTree> {
    let (orders, received) = unbounded();
    let (serial, node) = (node.next_serial(), Arc::clone(node));
    thread::Builder::new().name(format!("scan-{}", job.id)).spawn(move || {
        let mut thread = Scan {
            node,
            worker,
            job,
            serial,
            sources: HashMap::new(),
            scanner: Scanner::new(sources, filters, Limits::default()).treating(tree),
        };
        thread.reply(TreeReply::ScannerOpened { job, result: Ok(()) });
        thread.run(&received);
    })?;
    Ok(SendTree { serial, orders })
}

struct Scan {
    node: Arc<Node>,
    worker: u16,
    job: JobKey,
    serial: u64,
    scanner: Scanner,
    /// Objects that were found and are not over.
    sources: HashMap<u64, (Arc<OwnedFd>, Fingerprint)>,
}

impl Scan {
    fn run(&mut self, orders: &Receiver<ScanOrder>) {
        while let Ok(order) = orders.recv() {
            match order {
                ScanOrder::Fill(room) => self.fill(room),
                ScanOrder::Finals(room) => self.finals(room),
                ScanOrder::Check(object) => self.check(object),
                ScanOrder::Prepare { object, file, baseline } => self.prepare(object, file, baseline),
                ScanOrder::Forget { object, keep } => self.forget(object, keep),
            }
        }
    }

    fn reply(&self, reply: TreeReply) {
        self.node.post(self.worker, Inbox::Tree { serial: self.serial, reply });
    }

    fn fill(&mut self, mut room: Vec<u8>) {
        room.resize(CHUNK_BYTES as usize, 0);
        let filled = self.scanner.fill(&mut room);
        room.truncate(filled.length);
        let Filled { entries, bytes, objects, failures, end, .. } = filled;
        let mut lines = Vec::new();
        let failed = failures.len();
        for failure in failures {
            add_line(&mut lines, failure.text);
        }
        lines.resize(failed, String::new());
        let objects = objects.into_iter().map(|found| self.found(found)).collect();
        let (job, entries) = (self.job, u64::from(entries));
        self.reply(TreeReply::Filled { job, pack: room, entries, bytes, objects, failures: lines, end });
    }

    fn found(&mut self, found: crate::tree::FoundObject) -> FoundObject {
        let parts = holes(&found.file, found.size, u64::from(CHUNK_BYTES));
        let extents = parts.map(|part| (part.offset, part.offset + part.length)).collect();
        let file = Arc::new(found.file);
        self.sources.insert(found.object, (Arc::clone(&file), found.fingerprint));
        FoundObject {
            object: found.object,
            file: self.node.files.insert_source(file),
            size: found.size,
            extents,
        }
    }

    fn finals(&mut self, mut room: Vec<u8>) {
        room.resize(CHUNK_BYTES as usize, 0);
        let filled = self.scanner.fill_finals(&mut room);
        room.truncate(filled.length);
        let (job, entries, end) = (self.job, u64::from(filled.entries), filled.end);
        self.reply(TreeReply::FinalsFilled { job, pack: room, entries, end });
    }

    /// Looks for what the receiver has among what was sent before.
    fn prepare(&self, object: u64, file: FileId, baseline: Held) {
        if let Some(against) = self.node.kept.find(baseline) {
            self.node.files.set_against(file, Arc::new(against));
        }
        self.reply(TreeReply::Prepared { job: self.job, object });
    }

    fn forget(&mut self, object: u64, keep: Option<Hash>) {
        let Some((file, seen)) = self.sources.remove(&object) else { return };
        if let Some(digest) = keep {
            self.node.kept.keep(file, seen, id_of_digest(&digest));
        }
    }

    fn check(&mut self, object: u64) {
        let unchanged = self.sources.get(&object).is_some_and(|(file, seen)| verify_unchanged(file, seen));
        let check = if unchanged { FinalCheck::Unchanged } else { FinalCheck::Changed };
        self.reply(TreeReply::Checked { job: self.job, object, check });
    }
}

/// The sources of a peer's fetch, each below an export that the peer may read.
///
/// # Errors
/// What to tell the peer.
pub fn exported_sources(node: &Node, job: JobKey, list: &[u8]) -> Result<Vec<Source>, super::Refusal> {
    let mut sources = Vec::new();
    for path in dwcp_abi::link::strings(list) {
        let path = path.map_err(|error| (Code::Protocol, error.to_string()))?;
        sources.push(node.plan().source(&node.peer_name(job.peer), path)?);
    }
    if sources.is_empty() {
        return Err((Code::NotFound, "the fetch names no path".to_owned()));
    }
    Ok(sources)
}
