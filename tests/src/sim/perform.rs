//! Turns an engine's outputs into operations that end later.
use dwcp_abi::wire::TreeOptions;
use dwcp_engine::{BufferId, FileId, JobKey, LaneId, Output, Time};

use super::node::{Against, File, Scanner, Tree};
use super::op::{Op, Piece};
use super::worker::NO_BUFFER;
use super::world::{Event, World};

/// How often an early pack looks whether there is a tree for it.
const EARLY_LOOKS: u32 = 40;

impl World {
    pub(super) fn perform(&mut self, node: usize, worker: usize, output: Output) {
        match output {
            Output::WantLanes { peer, lanes } => {
                self.nodes[node].wants.insert((peer, worker as u16), lanes);
                self.dial(node);
            }
            Output::SendOutbox { lane } | Output::SendChunk { lane, .. } | Output::SendPack { lane, .. } => {
                self.send(node, worker, lane, &output);
            }
            Output::Receive { lane, buffer } => self.receive(node, worker, lane, buffer),
            Output::CloseLane { lane, .. } => {
                let state = self.nodes[node].workers[worker].lane_mut(lane);
                let state = state.expect("an engine closes a lane that it has");
                let (connection, side) = (state.connection, state.side);
                self.close(connection, side);
            }
            Output::Read { task, file, offset, length, source, buffer, digest } => {
                let object_size = digest.object_size;
                let piece = Piece { task, file, offset, length, source, buffer, object_size };
                self.use_buffer(node, worker, buffer);
                self.start(node, worker, Op::Read(piece));
            }
            Output::Write { task, file, offset, length, source, buffer, digest } => {
                let object_size = digest.object_size;
                let piece = Piece { task, file, offset, length, source, buffer, object_size };
                self.use_buffer(node, worker, buffer);
                if let Some(File::Partial { writes, committing, .. }) = self.nodes[node].files.get_mut(&file)
                {
                    assert!(!*committing, "a write starts on a file that is being committed");
                    *writes += 1;
                }
                self.start(node, worker, Op::Write(piece));
            }
            Output::OpenScanner { job, asked, .. } => {
                self.start_scanner(node, worker, job, asked.map(|asked| asked.sources));
            }
            Output::Fill { job } => self.on_scanner(node, worker, job, |serial| Op::Fill { job, serial }),
            Output::FillFinals { job } => {
                self.on_scanner(node, worker, job, |serial| Op::FillFinals { job, serial });
            }
            Output::DropPack { pack } => {
                let known = self.nodes[node].packs.remove(&pack);
                assert!(known.is_some(), "a pack is dropped twice");
            }
            Output::CheckSource { job, object, .. } => {
                let serial = self.nodes[node].scanners.get(&job).map(|scanner| scanner.serial);
                let serial = serial.expect("a source is checked while its scanner is open");
                self.start(node, worker, Op::CheckSource { job, serial, object });
            }
            Output::Prepare { job, object, file, .. } => {
                let serial = self.nodes[node].scanners.get(&job).map(|scanner| scanner.serial);
                let serial = serial.expect("an object is prepared while its scanner is open");
                self.start(node, worker, Op::Prepare { job, serial, object, file });
            }
            Output::SendPlain { file } => match self.nodes[node].files.get_mut(&file) {
                Some(File::Source { against, .. }) => *against = Against::NothingAnyMore,
                Some(File::Partial { .. }) | None => panic!("a source is sent plain that is not open"),
            },
            Output::CloseFile { file, .. } => self.close_source(node, file),
            Output::CloseScanner { job } => {
                let known = self.nodes[node].scanners.remove(&job);
                assert!(known.is_some(), "a scanner is closed that is not open");
            }
            Output::OpenReceiver { job, attempt, offered, options, baselines } => {
                let serial = self.nodes[node].number();
                let tree = Tree { baselines, ..Tree::new(serial, attempt, options) };
                let former = self.nodes[node].trees.insert(job, tree);
                assert!(former.is_none(), "a tree is opened that is open already");
                self.start(
                    node,
                    worker,
                    Op::OpenReceiver { job, serial, destination: offered.map(|offered| offered.destination) },
                );
            }
            Output::Unpack { task, job, attempt, early, buffer, length } => {
                self.use_buffer(node, worker, buffer);
                let patience = if early { EARLY_LOOKS } else { 0 };
                self.start(node, worker, Op::Unpack { task, job, attempt, patience, buffer, length });
            }
            Output::Commit { job, object, digest, verify } => {
                self.start_commit(node, worker, job, object, verify.then_some(digest));
            }
            Output::Discard { job, object, .. } => self.discard(node, job, object),
            Output::Finish { job } => {
                let serial = self.nodes[node].trees.get(&job).map(|tree| tree.serial);
                let serial = serial.expect("a tree is finished that is open");
                self.start(node, worker, Op::Finish { job, serial });
            }
            Output::CloseReceiver { job, leftovers } => self.nodes[node].close_tree(job, leftovers),
            Output::Progress { .. } => {}
            Output::Ended { job, attempt, outcome, counts, text, .. } => {
                self.ended(node, job, attempt, (outcome, counts), text);
            }
            Output::Tell { worker: to, tell } => {
                assert_ne!(usize::from(to), worker, "a worker tells itself");
                self.nodes[node].workers[usize::from(to)].tells.push_back((worker as u16, tell));
                self.wake(node, usize::from(to));
            }
        }
    }

    fn use_buffer(&mut self, node: usize, worker: usize, buffer: BufferId) {
        if buffer != NO_BUFFER {
            let free = self.nodes[node].workers[worker].busy.insert(buffer);
            assert!(free, "an operation starts on a buffer that another one uses");
        }
    }

    pub(super) fn start(&mut self, node: usize, worker: usize, op: Op) {
        let epoch = self.nodes[node].epoch;
        let most: Time = self.scenario.disk_delay;
        let after = if self.rng.chance(100) { self.rng.below(10 * most) } else { self.rng.below(most) };
        self.after(after, Event::Op { node, epoch, worker, op });
    }

    fn receive(&mut self, node: usize, worker: usize, id: LaneId, buffer: BufferId) {
        let state = &mut self.nodes[node].workers[worker];
        let Some(lane) = state.lane_mut(id) else { panic!("a receive names a lane that is gone") };
        if lane.closing {
            return;
        }
        assert!(lane.task.is_some() && lane.buffer.is_none(), "a receive that nobody asked for");
        lane.buffer = Some(buffer);
        self.use_buffer(node, worker, buffer);
        self.look_again(node, worker, id);
    }

    fn start_scanner(&mut self, node: usize, worker: usize, job: JobKey, sources: Option<Vec<u8>>) {
        let serial = self.nodes[node].number();
        let scanner = Scanner::new(serial);
        let former = self.nodes[node].scanners.insert(job, scanner);
        assert!(former.is_none(), "a scanner is opened that is open already");
        self.start(node, worker, Op::OpenScanner { job, serial, sources });
    }

    fn on_scanner(&mut self, node: usize, worker: usize, job: JobKey, op: impl FnOnce(u64) -> Op) {
        let scanner = self.nodes[node].scanners.get_mut(&job).expect("a pack is filled by an open scanner");
        assert!(!scanner.busy, "a scanner is asked for two packs at once");
        scanner.busy = true;
        let op = op(scanner.serial);
        self.start(node, worker, op);
    }

    fn close_source(&mut self, node: usize, file: FileId) {
        match self.nodes[node].files.remove(&file) {
            Some(File::Source { .. }) => {}
            Some(File::Partial { .. }) | None => panic!("a source is closed that is not open"),
        }
    }

    fn start_commit(
        &mut self,
        node: usize,
        worker: usize,
        job: JobKey,
        object: u64,
        verify: Option<dwcp_engine::Hash>,
    ) {
        let tree = self.nodes[node].trees.get(&job).expect("an object is committed to an open tree");
        let serial = tree.serial;
        let file = tree.objects.get(&object).and_then(|object| object.file);
        let file = file.expect("an object is committed that has a file");
        let Some(File::Partial { writes, committing, .. }) = self.nodes[node].files.get_mut(&file) else {
            panic!("an object is committed whose file is gone")
        };
        assert_eq!(*writes, 0, "an object is committed while it is written");
        assert!(!std::mem::replace(committing, true), "an object is committed twice");
        self.start(node, worker, Op::Commit { job, serial, object, verify });
    }

    fn discard(&mut self, node: usize, job: JobKey, object: u64) {
        let node = &mut self.nodes[node];
        let Some(tree) = node.trees.get_mut(&job) else { return };
        let Some(state) = tree.objects.get_mut(&object) else { return };
        tree.failures += 1;
        tree.text = format!("entry {}: given up", state.entry);
        if let Some(file) = state.file.take() {
            let file = node.files.remove(&file);
            let committing = matches!(file, Some(File::Partial { committing: true, .. }));
            assert!(!committing, "an object is given up while it is committed");
        }
    }
}

impl Scanner {
    fn new(serial: u64) -> Self {
        Self {
            serial,
            job: None,
            order: Vec::new(),
            next: 0,
            next_object: 0,
            objects: std::collections::BTreeMap::new(),
            changed: std::collections::BTreeSet::new(),
            finals: 0,
            busy: false,
        }
    }
}

impl Tree {
    fn new(serial: u64, attempt: u32, options: TreeOptions) -> Self {
        Self {
            serial,
            attempt,
            options,
            baselines: false,
            job: None,
            ready: false,
            objects: std::collections::BTreeMap::new(),
            packs: std::collections::BTreeSet::new(),
            failures: 0,
            text: String::new(),
        }
    }
}
