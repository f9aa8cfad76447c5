//! The thread of a receiving job: puts packs in place, and objects once they are complete.
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver as Orders, unbounded};
use dwcp_abi::wire::{Code, Held};
use dwcp_engine::{FileId, Hash, JobKey, OpenedObject, Place, TaskId};
use dwcp_hde::{Baseline as _, id_of_digest};

use super::{ReceiveOrder, Refusal, TreeReply, add_line};
use crate::baselines::FileBaseline;
use crate::node::{Inbox, Node};
use crate::tree::{
    Failure, Filters, Opening, Options, Partly, Receiver, Root, TreeError, Unpacked, digest_of,
};

/// Where a job's entries go.
#[derive(Debug)]
pub enum Destination {
    /// The peer chose it: below an export.
    Exported(Vec<u8>),
    /// The local operator chose it.
    Local(Vec<u8>),
}

/// What a receiving job's thread is made with.
#[derive(Debug)]
pub struct ReceiveTree {
    /// The job.
    pub job: JobKey,
    /// Its attempt: packs of another one are not for this tree.
    pub attempt: u32,
    /// Where to.
    pub destination: Destination,
    /// What is spared where it deletes.
    pub filters: Filters,
    /// How it is received.
    pub options: Options,
}

/// Starts the thread of a job and makes it known. It answers `ReceiverOpened` first.
///
/// # Errors
/// When the system gives no thread.
pub fn start_receiver(node: &Arc<Node>, worker: u16, tree: ReceiveTree) -> std::io::Result<()> {
    let (orders, received) = unbounded();
    let (job, attempt, tells_changes) = (tree.job, tree.attempt, tree.options.delete || tree.options.dry_run);
    let serial = node.next_serial();
    let former = node.receive_trees.take_ending(job);
    let shared = Arc::clone(node);
    let thread = thread::Builder::new().name(format!("store-{}", job.id)).spawn(move || {
        // It removes files that have the same names as ours. A panic of it is in the log.
        former.map(thread::JoinHandle::join);
        let (receiver, result) = match open(&shared, tree) {
            Ok(receiver) => (Some(receiver), Ok(())),
            Err(refusal) => (None, Err(refusal)),
        };
        let mut thread = Store {
            node: shared,
            worker,
            job,
            attempt,
            serial,
            receiver,
            tells_changes,
            files: HashMap::new(),
            lines: Vec::new(),
            failures: 0,
        };
        thread.reply(worker, TreeReply::ReceiverOpened { job, result });
        thread.run(&received);
    })?;
    node.receive_trees.insert(job, serial, orders, thread);
    Ok(())
}

fn open(node: &Node, tree: ReceiveTree) -> Result<Receiver, Refusal> {
    let (root, readable, privileged) = match tree.destination {
        Destination::Exported(path) => {
            let (plan, peer) = (node.plan(), node.peer_name(tree.job.peer));
            let (root, privileged) = plan.destination(&peer, &path)?;
            (root, plan.source(&peer, &path).is_ok(), privileged)
        }
        // The operator has asked for what the peer sends.
        Destination::Local(destination) => (Root::Local { destination }, true, true),
    };
    let refused = !privileged && tree.options.needs_privilege();
    let options = if privileged { tree.options } else { tree.options.unprivileged() };
    // Who may not read there may not hear what is there either.
    let baselines = tree.options.baselines && readable;
    let tag = node.job_tag(tree.job);
    let placed_since = node.first_seen.attempt(tag, tree.attempt);
    let mut receiver = Receiver::open(root, tag, Options { placed_since, baselines, ..options })
        .map_err(|error| (error.code(), error.to_string()))?;
    if refused {
        receiver.note(UNPRIVILEGED);
    }
    Ok(receiver.sparing(tree.filters))
}

struct Store {
    node: Arc<Node>,
    worker: u16,
    job: JobKey,
    attempt: u32,
    serial: u64,
    receiver: Option<Receiver>,
    /// The job's end says what was changed.
    tells_changes: bool,
    files: HashMap<u64, (FileId, Arc<OwnedFd>, u64)>,
    lines: Vec<String>,
    failures: u64,
}

impl Store {
    fn run(&mut self, orders: &Orders<ReceiveOrder>) {
        let mut next = orders.recv().ok();
        while let Some(order) = next.take() {
            match order {
                ReceiveOrder::Unpack { worker, task, attempt, pack } => {
                    next = self.unpack_many((worker, task, attempt, pack), orders);
                }
                ReceiveOrder::Commit { object, digest, verify } => self.commit(object, digest, verify),
                ReceiveOrder::Discard { object, text } => self.discard(object, &text),
                ReceiveOrder::Finish => self.finish(),
                ReceiveOrder::Abandon => {
                    if let Some(receiver) = self.receiver.take() {
                        receiver.abandon();
                        self.node.first_seen.forget(self.node.job_tag(self.job));
                    }
                }
            }
            if next.is_none() {
                next = orders.recv().ok();
            }
        }
        for (file, _, _) in self.files.values() {
            self.node.files.remove(*file);
        }
    }

    fn reply(&self, worker: u16, reply: TreeReply) {
        self.node.post(worker, Inbox::Tree { serial: self.serial, reply });
    }

    /// Unpacks a pack and those that wait behind it, with one flush for all of them. The first other order that was
    /// met is handed back.
    fn unpack_many(&mut self, first: Pack, orders: &Orders<ReceiveOrder>) -> Option<ReceiveOrder> {
        let mut staged = Vec::with_capacity(PACKS_PER_FLUSH_MAX);
        let mut other = None;
        staged.push(self.stage(first));
        while staged.len() < PACKS_PER_FLUSH_MAX && other.is_none() {
            match orders.try_recv() {
                Ok(ReceiveOrder::Unpack { worker, task, attempt, pack }) => {
                    staged.push(self.stage((worker, task, attempt, pack)));
                }
                Ok(order) => other = Some(order),
                Err(_) => break,
            }
        }
        let published = self.receiver.as_mut().map_or(Ok(Vec::new()), Receiver::publish);
        let fatal = match published {
            Ok(failures) => {
                let failed: Vec<OpenedObject> =
                    failures.into_iter().filter_map(|failure| self.failed(failure)).collect();
                debug_assert!(failed.is_empty(), "objects are committed, not published");
                None
            }
            Err(error) => Some((error.code(), error.to_string())),
        };
        for (worker, mut reply) in staged {
            if let (TreeReply::Unpacked { fatal: slot @ None, .. }, Some(fatal)) = (&mut reply, &fatal) {
                *slot = Some(fatal.clone());
            }
            self.reply(worker, reply);
        }
        other
    }

    fn stage(&mut self, (worker, task, attempt, pack): Pack) -> (u16, TreeReply) {
        let receiver = self.receiver.as_mut().filter(|_| attempt == self.attempt);
        let staged = receiver.map_or(Ok(Unpacked::default()), |receiver| receiver.stage(&pack));
        let reply = match staged {
            Ok(unpacked) => {
                let failures = unpacked.failures.len() as u64;
                let mut opened = Vec::new();
                for object in unpacked.opened {
                    opened.push(self.place(object));
                }
                for failure in unpacked.failures {
                    opened.extend(self.failed(failure));
                }
                let (entries, bytes) = (unpacked.entries, unpacked.bytes);
                TreeReply::Unpacked { task, entries, bytes, opened, failures, fatal: None }
            }
            Err(error) => {
                let fatal = Some((error.code(), error.to_string()));
                TreeReply::Unpacked { task, entries: 0, bytes: 0, opened: Vec::new(), failures: 0, fatal }
            }
        };
        (worker, reply)
    }

    fn place(&mut self, opened: crate::tree::OpenedObject) -> OpenedObject {
        let crate::tree::OpenedObject { object, size, opening } = opened;
        let (mut held, mut baseline) = (Vec::new(), Held::NOTHING);
        let place = match opening {
            Opening::Unchanged | Opening::Committed => Place::Held,
            Opening::Write(partly) => {
                let known = self.files.get(&object).map(|(id, _, _)| *id);
                Place::Open(known.unwrap_or_else(|| {
                    let Partly { file, partial, keeps, held: found, former } = partly;
                    let former = former.and_then(|former| self.name(former));
                    if let Some(former) = &former {
                        baseline = Held { content: former.id(), length: former.length() };
                    }
                    held = found;
                    if let Some(partial) = partial.as_ref().filter(|_| keeps)
                        && let Err(error) = self.node.flusher.add(partial)
                    {
                        tracing::warn!(%error, "nothing is flushed while it is received");
                    }
                    let path = self.receiver.as_ref().and_then(|receiver| receiver.path(object));
                    let (path, files) = (path.unwrap_or_default(), &self.node.files);
                    let id = files.insert_target(Arc::clone(&file), path, partial, former);
                    self.files.insert(object, (id, file, size));
                    id
                }))
            }
        };
        OpenedObject { object, place, size, held, baseline }
    }

    /// Finds out which content the file has that an object will replace.
    fn name(&self, former: Arc<OwnedFd>) -> Option<Arc<FileBaseline>> {
        let named = former.try_clone().and_then(|former| self.node.contents.of(former));
        let (file, held) =
            named.inspect_err(|error| tracing::debug!(%error, "what is replaced cannot be read")).ok()?;
        (held.length > 0).then(|| Arc::new(FileBaseline::new(file.into(), held.content, held.length)))
    }

    /// Notes a failure; one of an object must be answered, so that the sender does not wait for it.
    fn failed(&mut self, failure: Failure) -> Option<OpenedObject> {
        self.failures += 1;
        add_line(&mut self.lines, failure.text);
        let place = Place::Refused(failure.code);
        failure.object.map(|object| OpenedObject {
            object,
            place,
            size: 0,
            held: Vec::new(),
            baseline: Held::NOTHING,
        })
    }

    fn commit(&mut self, object: u64, digest: Hash, verify: bool) {
        let Some(receiver) = &mut self.receiver else { return };
        let known = self.files.remove(&object);
        let verified = match &known {
            Some((_, file, size)) if verify => verify_file(file, *size, digest),
            _ => Ok(()),
        };
        let result = verified.and_then(|()| {
            receiver.commit(object).map_err(|error: TreeError| (error.code(), error.to_string()))
        });
        if let Err((_, text)) = &result {
            receiver.discard(object);
            self.failures += 1;
            add_line(&mut self.lines, text.clone());
        }
        if let Some((file, descriptor, _)) = known {
            self.node.files.remove(file);
            if result.is_ok() {
                self.node.contents.note(&descriptor, id_of_digest(&digest));
            }
        }
        self.reply(self.worker, TreeReply::Committed { job: self.job, object, result });
    }

    fn discard(&mut self, object: u64, text: &str) {
        if let Some((file, _, _)) = self.files.remove(&object) {
            self.node.files.remove(file);
        }
        self.failures += 1;
        if let Some(path) = self.receiver.as_mut().and_then(|receiver| receiver.discard(object)) {
            add_line(&mut self.lines, format!("{}: {text}", String::from_utf8_lossy(&path)));
        }
    }

    fn finish(&mut self) {
        let Some(receiver) = self.receiver.take() else { return };
        let mut changes = Vec::new();
        let (result, failed) = match receiver.finish() {
            Ok(totals) => {
                let failed = totals.failed_at_end;
                if self.tells_changes || !totals.changes.notes.as_str().is_empty() {
                    changes = totals.changes.to_bytes();
                }
                for failure in totals.failures {
                    add_line(&mut self.lines, failure.text);
                }
                self.node.first_seen.forget(self.node.job_tag(self.job));
                (Ok(()), failed)
            }
            Err(error) => (Err((error.code(), error.to_string())), 0),
        };
        let (job, failures, text) = (self.job, self.failures + failed, self.lines.join("\n"));
        self.reply(self.worker, TreeReply::Finished { job, result, failures, text, changes });
    }
}

const UNPRIVILEGED: &str = "owners, set-user-ID bits and devices are not taken over: the export is not `privileged` (see \
    `exports` at the receiver)";
/// Packs that one flush makes durable: 16 MiB at most wait for it.
const PACKS_PER_FLUSH_MAX: usize = 32;
/// A pack with the worker that it came to, its task there, and the attempt that it is of.
type Pack = (u16, TaskId, u32, Vec<u8>);

/// The answer about a pack that belongs to no job, or to another attempt.
pub fn nothing_unpacked(task: TaskId) -> TreeReply {
    TreeReply::Unpacked { task, entries: 0, bytes: 0, opened: Vec::new(), failures: 0, fatal: None }
}

/// Reads a file again: what lies there must be what was hashed when it was written.
fn verify_file(file: &Arc<OwnedFd>, size: u64, expected: Hash) -> Result<(), Refusal> {
    let digest = digest_of(file, size)
        .map_err(|errno| (Code::Io, format!("reading a partial object again failed: {}", errno.desc())))?;
    if digest == Some(expected) {
        return Ok(());
    }
    Err((
        Code::Integrity,
        "an object on disk is not what was received: look for failing memory or storage".to_owned(),
    ))
}
