//! The engine: state of one worker's lanes, tasks and jobs. [`Engine::handle`] is the only mutation; its files
//! follow a task's way: `lanes` (what a lane may take), `pump` (work to lanes), `sending` and `objects` (the sender's
//! end of a job), `known` (what need not be sent), `receiving` and `storing` (the receiver's), `frames` (what the peer says), `team` (what the other
//! workers say), `liveness` (what is said again, and when to give up), `stall` (lanes that others wait for).
mod carry;
mod frames;
mod known;
mod lanes;
mod liveness;
mod objects;
mod pump;
mod receiving;
mod sending;
mod stall;
mod storing;
mod team;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::wire::{Ack, Code, FrameHeader, PackHead};

use crate::io::{
    Asked, BufferId, FileId, Input, JobKey, LaneId, Offered, Output, PackId, PeerId, Source, TaskId, Tell,
    Time,
};
use crate::slab::Slab;
use receiving::ReceiveJob;
use sending::SendJob;
use stall::Usual;

/// What an engine may use.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which worker this is, from 0.
    pub worker: u16,
    /// How many there are.
    pub workers: u16,
    /// Buffers for what is sent.
    pub send_buffers: Vec<BufferId>,
    /// Buffers for what is received. Apart from the others, so that two nodes sending to each other both get on.
    pub receive_buffers: Vec<BufferId>,
    /// Lanes for a large job that does not say.
    pub initial_streams: u16,
    /// Most lanes of a session.
    pub max_streams: u16,
    /// Packs of one job that are filled and not yet acknowledged.
    pub packs_max: u32,
    /// Objects of one job that are announced and not yet done.
    pub objects_max: u32,
    /// Jobs of this worker, both directions.
    pub jobs_max: usize,
    /// How long a job waits for a lane or for the peer's answer, in nanoseconds.
    pub patience: Time,
}

/// The decisions of one worker.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    now: Time,
    outputs: VecDeque<Output>,
    lanes: Vec<Option<Lane>>,
    peers: BTreeMap<PeerId, Peer>,
    tasks: Slab<Task>,
    /// Jobs whose home this is.
    sends: BTreeMap<JobKey, SendJob>,
    receives: BTreeMap<JobKey, ReceiveJob>,
    /// Jobs with another home that this worker carries chunks for.
    carried: BTreeMap<JobKey, Carried>,
    /// Where chunks of incoming objects go, whatever their job's home.
    targets: BTreeMap<(JobKey, u64), Target>,
    /// What was said at the end of past jobs, by attempt, to be said again if it got lost.
    past: VecDeque<(JobKey, u32, Vec<u8>)>,
    free_send: Vec<BufferId>,
    free_receive: Vec<BufferId>,
    /// Lanes whose task waits for a buffer.
    starving: VecDeque<LaneId>,
    next_generation: u64,
    /// Who got a task last when buffers were short.
    served: Option<PeerId>,
    next_report: Time,
    /// Reads under way of what receivers hold already.
    hashing: u32,
    /// How often a last word was said again: each time another lane gets it, if several are as good.
    said_again: usize,
}

/// Tasks that a lane may have beyond the one being sent: the next is read while one is sent.
const LANE_TASKS_MAX: u8 = 2;
/// Tasks that a sender may have unacknowledged on a lane before the first acknowledgement.
const CREDIT_INITIAL: u64 = 64;
/// Tasks that a lane may have unacknowledged, whatever credit the peer gives.
const UNACKNOWLEDGED_MAX: usize = 1024;
/// Small frames that may wait on a lane. A peer that reads none of them loses the lane.
const OUTBOX_BYTES_MAX: usize = 1 << 20;
/// Ends of past jobs that are remembered.
const PAST_MAX: usize = 256;
/// Between two progress reports.
const REPORT_INTERVAL: Time = 200_000_000;

#[derive(Debug)]
struct Lane {
    peer: PeerId,
    /// Tells it from former lanes of the same id, whose reads and writes may still be under way.
    generation: u64,
    instance: u64,
    closing: bool,
    /// Nothing may be sent before something is received.
    silent: bool,
    outbox: Vec<u8>,
    sending: Sending,
    /// Tasks that are read and wait for their turn on the wire.
    ready: VecDeque<TaskId>,
    /// Tasks being read, ready, or being sent.
    assigned: u8,
    /// In the peer's list of lanes that can take a task.
    listed: bool,
    /// The path has lanes enough without it: it takes no task.
    resting: bool,
    next_sequence: u64,
    credit: u64,
    unacknowledged: VecDeque<Owed>,
    /// Its oldest task is unacknowledged for longer than is usual: it gets no more.
    late: bool,
    /// Something was sent since it was last asked.
    used: bool,
    /// Since when it is asked whether it carries anything.
    asked: Option<Time>,
    /// When it last answered.
    answered: Time,
    /// It did not answer: what is said on it may be lost.
    deaf: bool,
    /// The task being sent was acknowledged before its send completed.
    acknowledged_early: bool,
    incoming: Incoming,
    expected_sequence: u64,
    granted: u64,
    ack: Option<Ack>,
}

/// A task that the peer has not acknowledged.
#[derive(Debug, Clone, Copy)]
struct Owed {
    sequence: u64,
    task: TaskId,
    /// When its sending began.
    since: Time,
}

/// A lane that may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LaneRef {
    id: LaneId,
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Nothing,
    Outbox,
    Task(TaskId),
}

/// What a lane is receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Incoming {
    Nothing,
    /// A task whose header arrived, and that has no buffer yet.
    Starving,
    Into(BufferId),
}

#[derive(Debug, Default)]
struct Peer {
    /// Of the process that the lanes lead to.
    instance: Option<u64>,
    /// Of processes that are gone. They do not come back.
    former: VecDeque<u64>,
    /// Lanes came or went: the jobs shall say again what may have got lost.
    resync: bool,
    lanes: Vec<LaneId>,
    /// Lanes that can take a task, longest idle first.
    idle: VecDeque<LaneId>,
    /// Lanes on the other workers.
    elsewhere: BTreeMap<u16, u16>,
    wanted: u16,
    /// Lanes that are enough for the path; none = it is not known yet, or short.
    enough: Option<u16>,
    /// How long a task takes from its sending to its acknowledgement.
    usual: Usual,
    /// When the sending of the youngest task began that is acknowledged.
    youngest: Time,
    /// Differences to what it has are worth looking for.
    deltas: bool,
    /// When bytes went to it or came from it last.
    alive: Time,
    /// Jobs with chunks or packs to send, in turn.
    turns: VecDeque<JobKey>,
    /// Why the last dial failed.
    trouble: String,
}

impl Peer {
    fn lanes_everywhere(&self) -> u16 {
        let elsewhere = self.elsewhere.values().fold(0u16, |sum, &lanes| sum.saturating_add(lanes));
        elsewhere.saturating_add(self.lanes.len() as u16)
    }
}

/// Part of an object that one task carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    object: u64,
    file: FileId,
    size: u64,
    offset: u64,
    length: u64,
    source: Source,
}

/// Part of an object that is not cut into pieces yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    object: u64,
    file: FileId,
    size: u64,
    start: u64,
    end: u64,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
struct FullPack {
    pack: PackId,
    number: u64,
    /// Entries that are complete once the pack is unpacked: all but announced objects.
    entries: u64,
    bytes: u64,
}

/// What a job has for lanes to take.
#[derive(Debug, Default)]
struct Work {
    /// Came back from a lane that died. First, because the receiver waits for it longest.
    returned: VecDeque<Piece>,
    /// Sent already, on a lane that is late.
    raced: VecDeque<Piece>,
    packs: VecDeque<FullPack>,
    extents: VecDeque<Extent>,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.returned.is_empty() && self.raced.is_empty() && self.packs.is_empty() && self.extents.is_empty()
    }

    /// An object is over: nothing of it is to be sent any more.
    fn forget(&mut self, object: u64) {
        self.extents.retain(|extent| extent.object != object);
        self.returned.retain(|piece| piece.object != object);
        self.raced.retain(|piece| piece.object != object);
    }
}

/// What this worker carries of a job with another home.
#[derive(Debug, Default)]
struct Carried {
    attempt: u32,
    work: Work,
    asked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Target {
    attempt: u32,
    file: FileId,
    size: u64,
    /// Writes under way on this worker.
    writes: u32,
    /// No more chunks are taken.
    closed: bool,
}

#[derive(Debug)]
enum Task {
    Chunk {
        job: JobKey,
        attempt: u32,
        piece: Piece,
        lane: LaneRef,
        buffer: Option<BufferId>,
        read: bool,
        /// It is on another lane too.
        raced: bool,
        wire: u64,
    },
    /// A part that the receiver holds already: read for the digest, and not sent.
    Known {
        job: JobKey,
        attempt: u32,
        piece: Piece,
        buffer: Option<BufferId>,
    },
    Pack {
        job: JobKey,
        attempt: u32,
        pack: FullPack,
        wire: u64,
    },
    Write {
        job: JobKey,
        attempt: u32,
        object: u64,
        offset: u64,
        length: u64,
        from: (LaneRef, u64),
        buffer: BufferId,
    },
    Unpack {
        job: JobKey,
        head: PackHead,
        from: (LaneRef, u64),
        buffer: BufferId,
    },
}

impl Engine {
    /// An engine with nothing to do.
    #[must_use]
    pub fn new(config: Config) -> Self {
        // The last buffer that came back is the next to go out: it is still in the cache.
        let (free_send, free_receive) = (config.send_buffers.clone(), config.receive_buffers.clone());
        Self {
            config,
            now: 0,
            outputs: VecDeque::new(),
            lanes: Vec::new(),
            peers: BTreeMap::new(),
            tasks: Slab::new(),
            sends: BTreeMap::new(),
            receives: BTreeMap::new(),
            carried: BTreeMap::new(),
            targets: BTreeMap::new(),
            past: VecDeque::new(),
            free_send,
            free_receive,
            starving: VecDeque::new(),
            next_generation: 0,
            served: None,
            next_report: 0,
            hashing: 0,
            said_again: 0,
        }
    }

    /// Takes one input in. Call [`Engine::poll_output`] until it is empty afterwards, and [`Engine::flush`] before
    /// sleeping.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        self.now = self.now.max(now);
        match input {
            Input::Send { job, attempt, destination, filters, streams, options } => {
                let offered = Offered { destination: destination.to_vec(), filters: filters.to_vec() };
                self.start_send(job, attempt, offered, streams, options);
            }
            Input::Fetch { job, attempt, sources, filters, streams, options } => {
                let asked = Asked { sources: sources.to_vec(), filters: filters.to_vec() };
                self.start_fetch(job, attempt, asked, streams, options);
            }
            Input::Cancel { job } => self.stop(job, Code::Cancelled, "cancelled by the operator"),
            // The code of an attempt that another one follows: every peer keeps what it has.
            Input::Pause { job } => self.stop(job, Code::Again, "paused by the operator"),
            Input::Settings { initial_streams, max_streams, patience } => {
                self.config.initial_streams = initial_streams.max(1);
                self.config.max_streams = max_streams.max(1);
                self.config.patience = patience;
            }
            Input::PathLanes { peer, lanes } => self.path_lanes(peer, lanes),
            Input::Alive { peer } => self.peers.entry(peer).or_default().alive = self.now,
            Input::Deltas { peer, pay } => self.peers.entry(peer).or_default().deltas = pay,
            Input::DialFailed { peer, text } => self.dial_failed(peer, text),
            Input::LaneUp { lane, peer, instance, end } => self.lane_up(lane, peer, instance, end),
            Input::LaneClosing { lane } => self.lane_closing(lane),
            Input::LaneDown { lane } => self.lane_down(lane),
            Input::Sent { lane, bytes } => self.sent(lane, bytes),
            Input::Frame { lane, header, payload } => self.frame(lane, header, payload),
            Input::TaskHeader { lane, header } => self.task_header(lane, header),
            Input::Chunk { lane, header, head, buffer } => self.chunk(lane, header, head, buffer),
            Input::Unmade { lane, header, head, buffer } => self.unmade(lane, header, head, buffer),
            Input::Pack { lane, header, head, buffer } => self.pack(lane, header, head, buffer),
            Input::Read { task, result } => self.read(task, result),
            Input::Written { task, result, text } => self.written(task, result, text),
            Input::ScannerOpened { job, result } => self.scanner_opened(job, result),
            Input::Filled { job, pack, entries, bytes, objects, failures, end } => {
                self.filled(job, pack, (entries, bytes, failures), objects, end);
            }
            Input::FinalsFilled { job, pack, entries, end } => self.finals_filled(job, pack, entries, end),
            Input::Prepared { job, object } => self.object_prepared(job, object),
            Input::SourceChecked { job, object, check } => self.source_checked(job, object, check),
            Input::ReceiverOpened { job, result } => self.receiver_opened(job, result),
            Input::Unpacked { task, entries, bytes, opened, failures, fatal } => {
                self.unpacked(task, (entries, bytes, failures), opened, fatal);
            }
            Input::Unclaimed { task } => self.pack_unclaimed(task),
            Input::Committed { job, object, result } => self.committed(job, object, result),
            Input::Finished { job, result, failures, text, changes } => {
                self.finished(job, result, (failures, text, changes));
            }
            Input::Told { worker, tell } => self.told(worker, tell),
            Input::Tick => self.tick(),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `Tick` is due at the latest; none while nothing can time out.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.jobs_here().next().is_some().then(|| self.next_report.max(self.now))
    }

    /// Puts what was gathered while handling a batch into the lanes' outboxes: what jobs say again after lanes came or
    /// went, and acknowledgements, one per lane and batch however many chunks it covers.
    pub fn flush(&mut self) {
        self.resync_all();
        for index in 0..self.lanes.len() {
            let lane = LaneId(index as u32);
            if self.lanes[index].as_ref().is_some_and(|lane| lane.ack.is_some() && !lane.closing) {
                self.send_ack(lane);
            }
        }
    }

    /// Takes the small frames that wait for a lane. `SendOutbox` asks for them.
    pub fn outbox(&mut self, lane: LaneId, bytes: &mut [u8]) -> usize {
        let Some(lane) = self.lane_mut(lane) else { return 0 };
        let length = lane.outbox.len().min(bytes.len());
        bytes[..length].copy_from_slice(&lane.outbox[..length]);
        lane.outbox.drain(..length);
        length
    }

    /// The file that a chunk of this object on this lane is for, while it is welcome.
    #[must_use]
    pub fn target_file(&self, lane: LaneId, header: &FrameHeader, object: u64) -> Option<FileId> {
        let job = self.key_of(lane, header)?;
        self.targets.get(&(job, object)).filter(|target| !target.closed).map(|target| target.file)
    }

    /// Lanes of a peer over all workers, as far as known here.
    #[must_use]
    pub fn lanes_of(&self, peer: PeerId) -> u16 {
        self.peers.get(&peer).map_or(0, Peer::lanes_everywhere)
    }

    /// Jobs of this worker that are not over.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.sends.len() + self.receives.len()
    }

    /// Jobs that live here, or that this worker carries something of.
    fn jobs_here(&self) -> impl Iterator<Item = &JobKey> {
        let at_home = self.sends.keys().chain(self.receives.keys());
        at_home.chain(self.carried.keys()).chain(self.targets.keys().map(|(job, _)| job))
    }

    /// Buffers that are free: sending, receiving.
    #[must_use]
    pub fn buffers_free(&self) -> (usize, usize) {
        (self.free_send.len(), self.free_receive.len())
    }

    /// Chunks and packs that are being read, sent, written or unpacked, or wait for an acknowledgement.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Whether nothing is left of any job, lane or operation.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.jobs() == 0
            && self.tasks.len() == 0
            && self.carried.is_empty()
            && self.targets.is_empty()
            && self.starving.is_empty()
            && self.lanes.iter().all(Option::is_none)
    }

    fn home(&self, job: JobKey) -> u16 {
        (job.id % u64::from(self.config.workers)) as u16
    }

    fn is_home(&self, job: JobKey) -> bool {
        self.home(job) == self.config.worker
    }

    fn tell(&mut self, worker: u16, tell: Tell) {
        self.outputs.push_back(Output::Tell { worker, tell });
    }

    fn tell_others(&mut self, tell: &Tell) {
        for worker in (0..self.config.workers).filter(|&worker| worker != self.config.worker) {
            self.outputs.push_back(Output::Tell { worker, tell: tell.clone() });
        }
    }

    fn lane_mut(&mut self, lane: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(lane.0 as usize)?.as_mut()
    }

    fn lane_ref(&self, id: LaneId) -> Option<LaneRef> {
        let generation = self.lanes.get(id.0 as usize)?.as_ref()?.generation;
        Some(LaneRef { id, generation })
    }

    /// The lane, if it is still that one.
    fn lane_at(&mut self, lane: LaneRef) -> Option<&mut Lane> {
        self.lane_mut(lane.id).filter(|state| state.generation == lane.generation)
    }

    fn release_send(&mut self, buffer: BufferId) {
        self.free_send.push(buffer);
        self.hash_known();
    }

    fn release_receive(&mut self, buffer: BufferId) {
        self.free_receive.push(buffer);
        self.feed_starving();
    }

    fn tick(&mut self) {
        if self.now < self.next_report {
            return;
        }
        self.next_report = self.now + REPORT_INTERVAL;
        self.watch_lanes();
        self.watch_sends();
        self.watch_receives();
        self.hash_known();
        self.pump_all();
    }
}
