//! A worker: one thread, one ring, one engine, no locks. `turn` is the loop; `receive`, `transmit` and `files` drive
//! the engine's operations; `outputs` says which output goes where; `report` speaks with control.
mod coding;
mod differences;
mod files;
mod lane;
mod lanes;
mod layout;
mod outputs;
mod pace;
mod receive;
mod report;
mod timing;
mod token;
mod transmit;
mod turn;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, unbounded};
use dwcp_abi::shm::{WorkerCounter as Counter, WorkerFigures};
use dwcp_engine::{BufferId as Large, Config, Engine, Input, JobKey, LaneId, PeerId, TaskId, Time};
use dwcp_sys::link::WorkerLink;
use dwcp_sys::proactor::{BufferId, Completion, Features, OpenError, Options, Proactor};
use dwcp_sys::topology::pin_current_thread;

pub use files::FileTable;
use files::{FileTask, Handles};
use lane::Lane;
use report::Report;
use token::Token;

use crate::door::DoorHandle;
use crate::jobs::SendTree;
use crate::node::{Inbox, Node};
use crate::plan::Plan;

/// What a worker is made with.
pub struct WorkerConfig {
    /// Which one, from 0.
    pub worker: u16,
    /// How many there are.
    pub workers: u16,
    /// The core to run on; none = wherever the system puts it.
    pub core: Option<usize>,
    /// Shape of the proactor: backend and hugepages; the worker sets sizes.
    pub proactor: Options,
    /// Bytes of large buffers.
    pub buffer_bytes: u64,
    /// Most lanes of this worker.
    pub lanes_max: u16,
}

/// What a worker said when it came up.
#[derive(Debug)]
pub struct WorkerUp {
    /// What the kernel granted.
    pub features: Features,
    /// The core that it is pinned to.
    pub core: Option<usize>,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No thread.
    #[error("cannot start a worker's thread: {0}")]
    Thread(#[from] std::io::Error),
    /// No proactor.
    #[error("a worker cannot have its buffers or its kernel interface: {0}")]
    Proactor(#[from] OpenError),
    /// Its rings are unusable.
    #[error("a worker cannot use its shared memory: {0}")]
    Ring(#[from] dwcp_abi::shm::RingError),
    /// A descriptor was refused.
    #[error("a worker's doorbell was refused: {0}")]
    Doorbell(#[from] dwcp_sys::proactor::AddError),
    /// It ended before it was ready.
    #[error("a worker ended before it was ready")]
    Gone,
}

/// The state of one worker's thread.
pub(crate) struct Worker {
    node: Arc<Node>,
    door: DoorHandle,
    index: u16,
    proactor: Proactor,
    engine: Engine,
    inbox: Receiver<Inbox>,
    lanes: HashMap<LaneId, Lane>,
    lanes_max: u16,
    free_lanes: Vec<LaneId>,
    free_small: Vec<BufferId>,
    /// Large buffers for packs and ciphertext.
    staging: Vec<BufferId>,
    starved: VecDeque<LaneId>,
    /// Rooms of packs that were sent, to be filled again.
    rooms: Vec<Vec<u8>>,
    file_tasks: HashMap<TaskId, FileTask>,
    handles: Handles,
    /// Local jobs: what only their driver needs to know.
    local: HashMap<JobKey, LocalJob>,
    send_trees: HashMap<JobKey, SendTree>,
    /// Lines about failures, for the end of a job.
    failures: HashMap<JobKey, Vec<String>>,
    coding: coding::Coding,
    differences: differences::Differences,
    /// What is known of the paths to peers.
    links: HashMap<PeerId, coding::Link>,
    /// Bytes to and from each peer since that counted as a sign of life.
    moved: HashMap<PeerId, u64>,
    /// The plan that the codecs were made for.
    coding_generation: u64,
    figures: WorkerFigures,
    timing: timing::Timing,
    report: Report,
    scratch: Vec<u8>,
    completions: Vec<Completion>,
    clock: Clock,
    now: Instant,
    next_chores: Instant,
    next_pace: Instant,
    plan_generation: u64,
    stopping: bool,
}

/// What control ordered and the engine does not need.
struct LocalJob {
    sources: Vec<Vec<u8>>,
    filters: Vec<u8>,
    destination: Vec<u8>,
}

/// Instants as the engine counts them.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn nanoseconds(&self, now: Instant) -> Time {
        now.saturating_duration_since(self.start).as_nanos() as Time
    }
}

/// Starts a worker and waits until it is ready.
///
/// # Errors
/// [`WorkerError`].
pub fn start(
    config: WorkerConfig,
    node: &Arc<Node>,
    door: DoorHandle,
    link: &WorkerLink,
) -> Result<(WorkerUp, JoinHandle<()>), WorkerError> {
    let report = Report::new(link)?;
    let node = Arc::clone(node);
    let (ready, is_ready) = crossbeam_channel::bounded(1);
    let thread = thread::Builder::new().name(format!("worker-{}", config.worker)).spawn(move || {
        let pinned = config.core.filter(|&core| match pin_current_thread(core) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(core, %error, "a worker stays unpinned");
                false
            }
        });
        match Worker::new(config, node, door, report) {
            Ok(mut worker) => {
                worker.figures.set(Counter::Core, pinned.map_or(0, |core| core as u64 + 1));
                let features = worker.proactor.features().clone();
                // Whoever waits for this has started us; it cannot be gone.
                drop(ready.send(Ok(WorkerUp { features, core: pinned })));
                worker.run();
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    let up = is_ready.recv().map_err(|_| WorkerError::Gone)??;
    Ok((up, thread))
}

impl Worker {
    fn new(
        config: WorkerConfig,
        node: Arc<Node>,
        door: DoorHandle,
        report: Report,
    ) -> Result<Self, WorkerError> {
        let large_count =
            (config.buffer_bytes / u64::from(layout::LARGE_BYTES)).clamp(LARGE_MIN, LARGE_MAX) as u32;
        let small_count = u32::from(config.lanes_max) * 2;
        let options = Options {
            large_count,
            large_bytes: layout::LARGE_BYTES,
            small_count,
            small_bytes: layout::SMALL_BYTES,
            ..config.proactor
        };
        let mut proactor = Proactor::open(&options)?;
        let large: Vec<BufferId> = proactor.large().collect();
        let (receive, rest) = large.split_at(large.len() * 3 / 8);
        let (send, staging) = rest.split_at(rest.len() * 2 / 5);
        let named = |buffers: &[BufferId]| buffers.iter().map(|buffer| Large(buffer.0)).collect();
        let engine = Engine::new(Config {
            worker: config.worker,
            workers: config.workers,
            send_buffers: named(send),
            receive_buffers: named(receive),
            initial_streams: node.plan().transport.initial_streams,
            max_streams: node.plan().transport.max_streams,
            packs_max: PACKS_MAX,
            objects_max: OBJECTS_MAX,
            jobs_max: JOBS_MAX,
            patience: PATIENCE_NS,
        });
        let (sender, inbox) = unbounded();
        node.add_worker(sender, proactor.waker());
        report.listen(&mut proactor)?;
        let now = Instant::now();
        let free_small = proactor.small().collect();
        Ok(Self {
            node,
            door,
            index: config.worker,
            engine,
            inbox,
            lanes: HashMap::new(),
            lanes_max: config.lanes_max,
            free_lanes: (0..u32::from(config.lanes_max)).rev().map(LaneId).collect(),
            free_small,
            staging: staging.to_vec(),
            starved: VecDeque::new(),
            rooms: Vec::new(),
            file_tasks: HashMap::new(),
            handles: Handles::default(),
            local: HashMap::new(),
            send_trees: HashMap::new(),
            failures: HashMap::new(),
            coding: coding::Coding::new(&Plan::default().transport, config.workers),
            differences: differences::Differences::default(),
            links: HashMap::new(),
            moved: HashMap::new(),
            coding_generation: 0,
            figures: WorkerFigures::default(),
            timing: timing::Timing::default(),
            report,
            scratch: vec![0; SCRATCH_BYTES],
            completions: Vec::with_capacity(256),
            clock: Clock { start: now },
            now,
            next_chores: now,
            next_pace: now,
            plan_generation: 0,
            stopping: false,
            proactor,
        })
    }

    fn engine_input(&mut self, input: Input<'_>) {
        let now = self.clock.nanoseconds(self.now);
        self.engine.handle(now, input);
    }

    /// Lets the engine know of a new plan. A job waits for a peer that is gone as long as a connection may take.
    fn follow_plan(&mut self) {
        let plan = self.node.plan();
        if plan.generation == self.plan_generation {
            return;
        }
        self.plan_generation = plan.generation;
        let transport = &plan.transport;
        self.engine_input(Input::Settings {
            initial_streams: transport.initial_streams,
            max_streams: transport.max_streams,
            patience: Time::from(transport.connect_timeout_ms.clamp(100, 600_000)) * 1_000_000,
        });
    }

    fn level_figures(&mut self) {
        let (send, receive) = self.engine.buffers_free();
        let counters = self.proactor.counters();
        self.figures.set(Counter::Lanes, self.lanes.values().filter(|lane| !lane.closing).count() as u64);
        let is_rdma = |lane: &&Lane| lane.rdma && !lane.closing;
        self.figures.set(Counter::RdmaLanes, self.lanes.values().filter(is_rdma).count() as u64);
        self.figures.set(Counter::JobsActive, self.engine.jobs() as u64);
        self.figures.set(Counter::BuffersFree, (send + receive + self.staging.len()) as u64);
        self.figures.set(Counter::Completions, counters.completions);
        self.figures.set(Counter::Submissions, counters.submissions);
        self.figures.set(Counter::QueueFull, counters.queue_full);
    }
}

/// A coded chunk with its headers, or a pack with its: both below a large buffer's size.
const SCRATCH_BYTES: usize = layout::LARGE_BYTES as usize;
/// Large buffers of a worker: enough for a few lanes, and no more than anybody keeps hot.
const LARGE_MIN: u64 = 16;
const LARGE_MAX: u64 = 1024;
/// Packs of a job that are filled and not acknowledged; each has up to 512 KiB.
const PACKS_MAX: u32 = 32;
/// Objects of a job that are announced and not done; each is an open file at both ends.
const OBJECTS_MAX: u32 = 128;
/// Jobs of a worker.
const JOBS_MAX: usize = 64;
/// How long a job waits for a peer that is gone before it is interrupted, until the first plan says.
const PATIENCE_NS: Time = 30_000_000_000;
