//! What the engine decided, carried out.
use dwcp_abi::shm::WorkerCounter as Counter;
use dwcp_abi::wire::{Code, TreeOptions};
use dwcp_engine::{Asked, Input, JobKey, Leftovers, Offered, Output, Owner, PackId, PeerId, TaskId};
use dwcp_sys::proactor::Span;

use super::Worker;
use super::lane::Waiting;
use super::layout;
use crate::door::{DialOrder, Purpose};
use crate::jobs::{
    Destination, ReceiveOrder, ReceiveTree, ScanOrder, Taken, TreeReply, exported_sources, nothing_unpacked,
    start_receiver, start_scanner,
};
use crate::node::Inbox;
use crate::tree::{Base, Filters, Options, Source};

impl Worker {
    /// Carries out at most so many outputs; true = there may be more.
    pub(super) fn carry_out(&mut self, outputs_max: usize) -> bool {
        for _ in 0..outputs_max {
            let Some(output) = self.engine.poll_output() else { return false };
            self.carry_out_one(output);
        }
        true
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::WantLanes { peer, lanes } => self.want_lanes(peer, lanes),
            Output::SendOutbox { lane } => self.send_outbox(lane),
            Output::SendChunk { lane, job, flags, sequence, buffer, file, head } => {
                self.figures.add(Counter::PlainBytesSent, head.length);
                self.send_task(lane, Waiting::Chunk { job, flags, sequence, buffer, file, head });
            }
            Output::SendPack { lane, job, flags, sequence, pack, head } => {
                self.send_task(lane, Waiting::Pack { job, flags, sequence, pack, head });
            }
            Output::Receive { lane, buffer } => self.receive_into(lane, buffer),
            Output::CloseLane { lane, code, text } => {
                if code == Code::Protocol {
                    self.figures.add(Counter::ProtocolErrors, 1);
                }
                self.lose_lane(lane, code, text);
            }
            Output::Read { task, file, offset, length, source, buffer, digest } => {
                self.read_chunk(task, (file, offset, length), source, buffer, digest);
            }
            Output::Write { task, file, offset, length, source, buffer, digest } => {
                self.figures.add(Counter::PlainBytesReceived, u64::from(length));
                self.write_chunk(task, (file, offset, length), source, buffer, digest);
            }
            Output::OpenScanner { job, asked, options } => self.open_scanner(job, asked, options),
            Output::Fill { job } => self.order_scan(job, ScanOrder::Fill),
            Output::FillFinals { job } => self.order_scan(job, ScanOrder::Finals),
            Output::DropPack { pack } => self.drop_pack(pack),
            Output::Prepare { job, object, file, baseline } => {
                if let Some(tree) = self.send_trees.get(&job) {
                    tree.order(ScanOrder::Prepare { object, file, baseline });
                }
            }
            Output::SendPlain { file } => {
                if let Some(against) = self.node.files.against(file) {
                    against.give_up();
                }
            }
            Output::CheckSource { job, object, .. } => self.order_scan(job, |_| ScanOrder::Check(object)),
            Output::CloseFile { job, object, file, keep } => {
                self.close_file(file);
                self.figures.add(Counter::ObjectsSent, 1);
                if let Some(tree) = self.send_trees.get(&job) {
                    tree.order(ScanOrder::Forget { object, keep });
                }
            }
            Output::CloseScanner { job } => {
                drop(self.send_trees.remove(&job));
                if job.owner == Owner::Remote {
                    // Its owner has heard of them in the packs.
                    self.failures.remove(&job);
                }
            }
            Output::OpenReceiver { job, attempt, offered, options: tree, baselines } => {
                let baselines = baselines && self.node.plan().transport.deltas;
                let options = Options { baselines, ..Options::of(tree) };
                self.open_receiver((job, attempt), offered, options);
            }
            Output::Unpack { task, job, attempt, early, buffer, length } => {
                self.unpack(task, (job, attempt, early), layout::data(buffer, length));
            }
            Output::Commit { job, object, digest, verify } => {
                self.order_store(job, ReceiveOrder::Commit { object, digest, verify });
            }
            Output::Discard { job, object, text } => {
                self.order_store(job, ReceiveOrder::Discard { object, text });
            }
            Output::Finish { job } => self.order_store(job, ReceiveOrder::Finish),
            Output::CloseReceiver { job, leftovers } => self.node.receive_trees.remove(job, leftovers),
            Output::Progress { job, attempt, state, scanned, lanes, counts } => {
                self.report.progress(job.id, attempt, state, scanned, lanes, counts);
            }
            Output::Ended { job, attempt, outcome, lanes, counts, elapsed_ns, text, changes } => {
                self.local.remove(&job);
                let text = self.with_failures(job, text);
                let counter = if text.is_empty() { Counter::JobsDone } else { Counter::JobsFailed };
                self.figures.add(counter, 1);
                self.report.finished(job.id, attempt, outcome, lanes, counts, elapsed_ns, (&text, &changes));
            }
            Output::Tell { worker, tell } => self.node.post(worker, Inbox::Tell { worker: self.index, tell }),
        }
    }

    fn want_lanes(&mut self, peer: PeerId, lanes: u16) {
        let name = self.node.peer_name(peer);
        let now = self.now;
        let lanes = self.keeper(|keeper| keeper.want(&name, self.index, lanes, now));
        if lanes == 0 {
            return;
        }
        let order = DialOrder { peer: name.clone(), lanes, token: 0, purpose: Purpose::Jobs };
        if self.door.dial(order).is_err() {
            for _ in 0..lanes {
                self.keeper(|keeper| keeper.failed(&name, now));
            }
        }
    }

    fn open_scanner(&mut self, job: JobKey, asked: Option<Asked>, tree: TreeOptions) {
        let wanted = match (asked, self.local.get(&job)) {
            (Some(asked), _) => {
                exported_sources(&self.node, job, &asked.sources).map(|sources| (sources, asked.filters))
            }
            (None, Some(local)) => {
                let sources =
                    local.sources.iter().map(|path| Source { base: Base::Local, path: path.clone() });
                Ok((sources.collect(), local.filters.clone()))
            }
            (None, None) => Err((Code::NotFound, "the job's sources are gone".to_owned())),
        };
        self.figures.add(Counter::Requests, 1);
        let started = wanted.and_then(|(sources, filters)| {
            let filters = Filters::parse(&filters).map_err(|text| (Code::Protocol, text))?;
            start_scanner(&self.node, self.index, job, (sources, filters, tree))
                .map_err(|error| (Code::Busy, format!("no thread for the job: {error}")))
        });
        match started {
            Ok(tree) => drop(self.send_trees.insert(job, tree)),
            Err((code, text)) => self.engine_input(Input::ScannerOpened { job, result: Err((code, &text)) }),
        }
    }

    fn order_scan(&mut self, job: JobKey, order: impl FnOnce(Vec<u8>) -> ScanOrder) {
        let room = self.rooms.pop().unwrap_or_default();
        if let Some(tree) = self.send_trees.get(&job) {
            tree.order(order(room));
        }
    }

    fn drop_pack(&mut self, pack: PackId) {
        if let Some(room) = self.node.packs.remove(pack)
            && self.rooms.len() < ROOMS_MAX
        {
            self.rooms.push(room);
        }
    }

    fn open_receiver(&mut self, (job, attempt): (JobKey, u32), offered: Option<Offered>, options: Options) {
        self.figures.add(Counter::Requests, 1);
        let wanted = match (offered, self.local.get(&job)) {
            (Some(offered), _) => Ok((Destination::Exported(offered.destination), offered.filters)),
            (None, Some(local)) => Ok((Destination::Local(local.destination.clone()), local.filters.clone())),
            (None, None) => Err((Code::NotFound, "the job's destination is gone".to_owned())),
        };
        let started = wanted.and_then(|(destination, filters)| {
            let filters = Filters::parse(&filters).map_err(|text| (Code::Protocol, text))?;
            let tree = ReceiveTree { job, attempt, destination, filters, options };
            start_receiver(&self.node, self.index, tree)
                .map_err(|error| (Code::Busy, format!("no thread for the job: {error}")))
        });
        if let Err((code, text)) = started {
            self.engine_input(Input::ReceiverOpened { job, result: Err((code, &text)) });
        }
    }

    fn unpack(&mut self, task: TaskId, (job, attempt, early): (JobKey, u32, bool), span: Span) {
        let mut pack = self.rooms.pop().unwrap_or_default();
        pack.clear();
        pack.extend_from_slice(self.proactor.bytes(span));
        let (order, now) = (ReceiveOrder::Unpack { worker: self.index, task, attempt, pack }, self.now);
        match self.node.receive_trees.unpack(job, order, early.then_some(now)) {
            Taken::Yes => {}
            // The job is over; its last word says how.
            Taken::NoJob => self.hear_tree(nothing_unpacked(task)),
            Taken::NoRoom => self.hear_tree(TreeReply::Unclaimed { task }),
        }
    }

    /// Early packs whose job never came are not waited for any longer.
    pub(super) fn give_up_early_packs(&mut self) {
        for (worker, task) in self.node.receive_trees.take_late(self.now) {
            self.node.post(worker, Inbox::Tree { serial: 0, reply: TreeReply::Unclaimed { task } });
        }
    }

    fn order_store(&mut self, job: JobKey, order: ReceiveOrder) {
        if let Some(orders) = self.node.receive_trees.get(job) {
            // A thread that ended has said why.
            drop(orders.send(order));
        }
    }

    fn with_failures(&mut self, job: JobKey, text: String) -> String {
        let Some(mut lines) = self.failures.remove(&job) else { return text };
        lines.retain(|line| !text.contains(line.as_str()));
        if !text.is_empty() {
            lines.insert(0, text);
        }
        lines.join("\n")
    }

    /// A job's tree answers; one that is closed already is not heard any more.
    pub(super) fn tree_reply(&mut self, serial: u64, reply: TreeReply) {
        let current = match &reply {
            TreeReply::ScannerOpened { job, .. }
            | TreeReply::Filled { job, .. }
            | TreeReply::FinalsFilled { job, .. }
            | TreeReply::Prepared { job, .. }
            | TreeReply::Checked { job, .. } => self.send_trees.get(job).map(|tree| tree.serial),
            TreeReply::ReceiverOpened { job, .. }
            | TreeReply::Committed { job, .. }
            | TreeReply::Finished { job, .. } => self.node.receive_trees.serial(*job),
            // A task, which ends whatever became of its job.
            TreeReply::Unpacked { .. } | TreeReply::Unclaimed { .. } => Some(serial),
        };
        if current == Some(serial) {
            return self.hear_tree(reply);
        }
        if let TreeReply::Filled { objects, .. } = reply {
            for object in objects {
                self.node.files.remove(object.file);
            }
        }
    }

    fn hear_tree(&mut self, reply: TreeReply) {
        match reply {
            TreeReply::ScannerOpened { job, result } => {
                let result = result.as_ref().map(|_| ()).map_err(|(code, text)| (*code, text.as_str()));
                self.engine_input(Input::ScannerOpened { job, result });
            }
            TreeReply::Filled { job, pack, entries, bytes, objects, failures, end } => {
                let count = failures.len() as u64;
                let lines = self.failures.entry(job).or_default();
                lines.extend(failures.into_iter().filter(|line| !line.is_empty()));
                lines.truncate(FAILURE_LINES_MAX);
                self.figures.add(Counter::Requests, objects.len() as u64);
                let pack = self.keep_pack(pack);
                self.engine_input(Input::Filled { job, pack, entries, bytes, objects, failures: count, end });
            }
            TreeReply::FinalsFilled { job, pack, entries, end } => {
                let pack = self.keep_pack(pack);
                self.engine_input(Input::FinalsFilled { job, pack, entries, end });
            }
            TreeReply::Prepared { job, object } => self.engine_input(Input::Prepared { job, object }),
            TreeReply::Checked { job, object, check } => {
                self.engine_input(Input::SourceChecked { job, object, check });
            }
            TreeReply::ReceiverOpened { job, result } => {
                if result.is_err() {
                    self.node.receive_trees.remove(job, Leftovers::Keep);
                }
                let result = result.as_ref().map(|_| ()).map_err(|(code, text)| (*code, text.as_str()));
                self.engine_input(Input::ReceiverOpened { job, result });
            }
            TreeReply::Unpacked { task, entries, bytes, opened, failures, fatal } => {
                let fatal = fatal.as_ref().map(|(code, text)| (*code, text.as_str()));
                self.figures.add(Counter::PlainBytesReceived, bytes);
                self.engine_input(Input::Unpacked { task, entries, bytes, opened, failures, fatal });
            }
            TreeReply::Unclaimed { task } => self.engine_input(Input::Unclaimed { task }),
            TreeReply::Committed { job, object, result } => {
                self.figures.add(Counter::ObjectsReceived, u64::from(result.is_ok()));
                let result = result.as_ref().map(|_| ()).map_err(|(code, text)| (*code, text.as_str()));
                self.engine_input(Input::Committed { job, object, result });
            }
            TreeReply::Finished { job, result, failures, text, changes } => {
                self.node.receive_trees.remove(job, Leftovers::Keep);
                let result = result.as_ref().map(|_| ()).map_err(|(code, text)| (*code, text.as_str()));
                self.engine_input(Input::Finished { job, result, failures, text: &text, changes: &changes });
            }
        }
    }

    fn keep_pack(&self, pack: Vec<u8>) -> PackId {
        self.node.packs.insert(pack)
    }
}

/// Rooms that are kept for later packs.
const ROOMS_MAX: usize = 8;
/// Lines about failures that a job keeps.
const FAILURE_LINES_MAX: usize = 20;
