//! A node: its workers, and what they share: files, packs, scanners, receiving trees.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use dwcp_abi::wire::{FrameHeader, TASK_PAYLOAD_MAX, TreeOptions};
use dwcp_engine::{BufferId, Config, Engine, FileId, JobKey, LaneId, Leftovers, PackId, PeerId, Tell, Time};

use super::op::Completion;
use super::partial::Partial;
use super::scenario::{SECOND, Scenario};

/// One node of a run.
pub(super) struct Node {
    pub(super) up: bool,
    /// Counts its starts. Events of former lives are dropped.
    pub(super) epoch: u32,
    pub(super) instance: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) files: BTreeMap<FileId, File>,
    pub(super) packs: BTreeMap<PackId, Rc<Vec<u8>>>,
    pub(super) scanners: BTreeMap<JobKey, Scanner>,
    pub(super) trees: BTreeMap<JobKey, Tree>,
    /// Lanes that each worker wants, by peer.
    pub(super) wants: BTreeMap<(PeerId, u16), u16>,
    pub(super) dialling: BTreeMap<PeerId, u16>,
    /// What has its final name here, by job and entry.
    pub(super) visible: BTreeMap<(usize, usize), Rc<Vec<u8>>>,
    /// What is incomplete and waits for another attempt, by job and entry.
    pub(super) leftovers: BTreeMap<(usize, usize), Partial>,
    pub(super) next_number: u64,
}

/// One worker: its engine and the fake driver's state.
pub(super) struct Worker {
    pub(super) engine: Engine,
    pub(super) buffers: Vec<Vec<u8>>,
    /// Buffers that an operation uses now.
    pub(super) busy: BTreeSet<BufferId>,
    pub(super) lanes: Vec<Option<Lane>>,
    pub(super) completions: Vec<Completion>,
    pub(super) tells: VecDeque<(u16, Tell)>,
    pub(super) turn_at: Option<Time>,
}

/// The driver's end of a lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) connection: usize,
    pub(super) side: usize,
    pub(super) peer: PeerId,
    /// Its handshake is over, and the engine will hear of it.
    pub(super) announced: bool,
    /// The engine has heard of it.
    pub(super) up: bool,
    pub(super) closing: bool,
    /// `LaneDown` was fed: the id is free after this turn.
    pub(super) gone: bool,
    pub(super) sending: Option<(u64, Option<BufferId>)>,
    pub(super) inbox: VecDeque<u8>,
    pub(super) task: Option<FrameHeader>,
    pub(super) buffer: Option<BufferId>,
}

/// An open file.
#[derive(Debug)]
pub(super) enum File {
    Source { job: usize, entry: usize, against: Against },
    Partial { tree: JobKey, partial: Partial, writes: u32, committing: bool },
}

/// What a source's chunks are sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    /// Nothing: as they are.
    Nothing,
    /// What the receiver has: as differences, which it may not be able to use.
    Baseline,
    /// As they are, because the receiver said so.
    NothingAnyMore,
}

/// The sender's side of a job.
#[derive(Debug)]
pub(super) struct Scanner {
    pub(super) serial: u64,
    pub(super) job: Option<usize>,
    /// Entries in this attempt's order.
    pub(super) order: Vec<usize>,
    pub(super) next: usize,
    pub(super) next_object: u64,
    /// By object: its entry and the version that it had when it was found.
    pub(super) objects: BTreeMap<u64, (usize, usize)>,
    /// Objects whose source was found to have changed.
    pub(super) changed: BTreeSet<u64>,
    pub(super) finals: u64,
    pub(super) busy: bool,
}

/// The receiver's side of a job.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) serial: u64,
    pub(super) attempt: u32,
    pub(super) options: TreeOptions,
    /// The sender wants to know what there is.
    pub(super) baselines: bool,
    pub(super) job: Option<usize>,
    pub(super) ready: bool,
    pub(super) objects: BTreeMap<u64, TreeObject>,
    pub(super) packs: BTreeSet<u64>,
    pub(super) failures: u64,
    pub(super) text: String,
}

/// An object that a pack announced.
#[derive(Debug)]
pub(super) struct TreeObject {
    pub(super) entry: usize,
    pub(super) file: Option<FileId>,
    pub(super) place: dwcp_engine::Place,
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            up: false,
            epoch: 0,
            instance: 0,
            workers: Vec::new(),
            files: BTreeMap::new(),
            packs: BTreeMap::new(),
            scanners: BTreeMap::new(),
            trees: BTreeMap::new(),
            wants: BTreeMap::new(),
            dialling: BTreeMap::new(),
            visible: BTreeMap::new(),
            leftovers: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Starts the process anew: only what is on disk is left.
    pub(super) fn boot(&mut self, instance: u64, workers: u16, scenario: &Scenario) {
        let (visible, leftovers) = (std::mem::take(&mut self.visible), std::mem::take(&mut self.leftovers));
        let (epoch, next_number) = (self.epoch, self.next_number);
        *self = Self { up: true, epoch, instance, visible, leftovers, next_number, ..Self::new() };
        self.workers = (0..workers).map(|worker| Worker::new(worker, workers, scenario)).collect();
    }

    pub(super) fn crash(&mut self) {
        self.up = false;
        self.epoch += 1;
        self.leave(|_| true);
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Most lanes that any worker wants with a peer.
    pub(super) fn wanted(&self, peer: PeerId) -> u16 {
        let wants = self.wants.iter().filter(|((other, _), _)| *other == peer);
        wants.map(|(_, &lanes)| lanes).max().unwrap_or(0)
    }

    pub(super) fn lanes_with(&self, peer: PeerId) -> u16 {
        let lanes = self.workers.iter().flat_map(|worker| worker.lanes.iter().flatten());
        lanes.filter(|lane| lane.peer == peer && !lane.closing).count() as u16
    }
}

impl Worker {
    fn new(worker: u16, workers: u16, scenario: &Scenario) -> Self {
        let buffers = scenario.buffers;
        let config = Config {
            worker,
            workers,
            send_buffers: (0..buffers).map(BufferId).collect(),
            receive_buffers: (buffers..2 * buffers).map(BufferId).collect(),
            initial_streams: scenario.streams,
            max_streams: scenario.lanes_max.max(scenario.streams),
            packs_max: scenario.packs_max,
            objects_max: scenario.objects_max,
            jobs_max: JOBS_MAX,
            patience: PATIENCE,
        };
        Self {
            engine: Engine::new(config),
            buffers: (0..2 * buffers).map(|_| Vec::with_capacity(TASK_PAYLOAD_MAX as usize)).collect(),
            busy: BTreeSet::new(),
            lanes: Vec::new(),
            completions: Vec::new(),
            tells: VecDeque::new(),
            turn_at: None,
        }
    }

    pub(super) fn lane_mut(&mut self, lane: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(lane.0 as usize)?.as_mut()
    }

    /// The first number that no lane has.
    pub(super) fn add_lane(&mut self, lane: Lane) -> LaneId {
        let index = self.lanes.iter().position(Option::is_none).unwrap_or(self.lanes.len());
        if index == self.lanes.len() {
            self.lanes.push(None);
        }
        self.lanes[index] = Some(lane);
        LaneId(index as u32)
    }
}

/// Jobs of a worker.
pub(super) const JOBS_MAX: usize = 16;
/// How long jobs wait for lanes and answers.
pub(super) const PATIENCE: Time = 10 * SECOND;

impl Node {
    /// Forgets a tree. What of it is incomplete waits for the next attempt, or goes.
    pub(super) fn close_tree(&mut self, key: JobKey, leftovers: Leftovers) {
        let tree = self.trees.remove(&key);
        match leftovers {
            Leftovers::Keep => self.leave(|tree| tree == key),
            Leftovers::Remove => {
                self.files.retain(|_, file| !matches!(file, File::Partial { tree, .. } if *tree == key));
                let job = tree.and_then(|tree| tree.job);
                self.leftovers.retain(|&(other, _), _| Some(other) != job);
            }
        }
    }

    /// Keeps what is incomplete of some trees.
    fn leave(&mut self, of: impl Fn(JobKey) -> bool) {
        let left =
            self.files.extract_if(.., |_, file| matches!(file, File::Partial { tree, .. } if of(*tree)));
        for (_, file) in left {
            if let File::Partial { partial, .. } = file {
                self.leftovers.insert(partial.place, partial);
            }
        }
    }
}
