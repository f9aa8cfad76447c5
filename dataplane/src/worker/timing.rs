//! Where the time of chunks goes: one chunk of [`SAMPLE`] in each direction is timed from stage to stage. Always on: a timed
//! chunk costs seven looks at the clock, which need no system call, and every other one a look at a list that is mostly empty.
//!
//! Nothing here changes what happens to a chunk, and no caller has to know whether its chunk is timed. A chunk is known
//! by its buffer while it has one, by its lane while it is the only one there, at last by its lane and number.
use std::time::Instant;

use dwcp_abi::codec::Encoded;
use dwcp_abi::shm::{RECEIVED_STAGES, SENT_STAGES, TraceFigures, TraceRecord};
use dwcp_abi::wire::{Ack, FLAG_OWNER};
use dwcp_engine::{BufferId, LaneId};

use super::turn::monotonic_ns;

/// One chunk of so many is timed.
const SAMPLE: u32 = 16;
/// Chunks that are timed at the same time; while there are more, none is begun.
const OPEN_MAX: usize = 32;

/// Places in `SENT_STAGES`.
const READ: usize = 0;
const HASH_READ: usize = 1;
const QUEUE: usize = 2;
const CODE: usize = 3;
const SOCKET: usize = 4;
const ACKNOWLEDGEMENT: usize = 5;
/// Places in `RECEIVED_STAGES`.
const BUFFER: usize = 0;
const RECEIVE: usize = 1;
const CHECK: usize = 2;
const DECODE: usize = 3;
const PLACE: usize = 4;
const HASH_WRITTEN: usize = 5;
const WRITE: usize = 6;

/// A stage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The file's bytes are in the buffer.
    Read,
    /// They are hashed and may be sent.
    HashRead,
    /// All bytes that were received are the chunk that was sent.
    Check,
    /// They are plain.
    Decode,
    /// It is known where they go.
    Place,
    /// They are hashed and may be written.
    HashWritten,
    /// They are written.
    Write,
}

/// What a chunk belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub(super) lane: LaneId,
    pub(super) peer_crc: u32,
    pub(super) job: u64,
    pub(super) flags: u8,
    pub(super) sequence: u64,
    pub(super) bytes: u64,
}

/// The chunks that are being timed, and those that were.
#[derive(Debug)]
pub(super) struct Timing {
    open: Vec<Open>,
    reads: u32,
    receptions: u32,
    figures: TraceFigures,
    changed: bool,
}

#[derive(Debug)]
struct Open {
    buffer: Option<BufferId>,
    lane: Option<LaneId>,
    sequence: u64,
    stage: usize,
    since: Instant,
    record: TraceRecord,
}

impl Default for Timing {
    fn default() -> Self {
        let open = Vec::with_capacity(OPEN_MAX);
        Self { open, reads: 0, receptions: 0, figures: TraceFigures::default(), changed: false }
    }
}

impl Timing {
    /// A chunk is about to be read into `buffer`.
    pub(super) fn reads(&mut self, buffer: BufferId) {
        self.forget(buffer);
        if is_due(&mut self.reads) {
            self.begin(Some(buffer), None, false);
        }
    }

    /// A chunk is announced on `lane`.
    pub(super) fn announced(&mut self, lane: LaneId) {
        self.open.retain(|open| !(open.record.received && open.lane == Some(lane) && open.stage <= RECEIVE));
        if is_due(&mut self.receptions) {
            self.begin(None, Some(lane), true);
        }
    }

    /// What is announced on `lane` goes into `buffer`.
    pub(super) fn received_into(&mut self, lane: LaneId, buffer: BufferId) {
        self.forget(buffer);
        if let Some(open) = self.on_lane(lane, true, BUFFER) {
            open.buffer = Some(buffer);
            open.end(BUFFER);
        }
    }

    /// All bytes of it are there.
    pub(super) fn received(&mut self, lane: LaneId) {
        if let Some(open) = self.on_lane(lane, true, RECEIVE) {
            open.end(RECEIVE);
        }
    }

    /// The chunk in `buffer` is through with a stage.
    pub(super) fn over(&mut self, buffer: BufferId, over: Over) {
        let (received, stage) = match over {
            Over::Read => (false, READ),
            Over::HashRead => (false, HASH_READ),
            Over::Check => (true, CHECK),
            Over::Decode => (true, DECODE),
            Over::Place => (true, PLACE),
            Over::HashWritten => (true, HASH_WRITTEN),
            Over::Write => (true, WRITE),
        };
        let matches = |open: &Open| {
            open.buffer == Some(buffer) && open.record.received == received && open.stage == stage
        };
        let Some(index) = self.open.iter().position(matches) else { return };
        self.open[index].end(stage);
        if over == Over::Write {
            self.finish(index);
        }
    }

    /// It is known what the received chunk in `buffer` is.
    pub(super) fn is_of(&mut self, buffer: BufferId, about: About) {
        if let Some(open) = self.open.iter_mut().find(|open| open.buffer == Some(buffer)) {
            open.set(about);
        }
    }

    /// The chunk in `buffer` is about to be coded for its lane.
    pub(super) fn codes(&mut self, buffer: BufferId, about: About) {
        let waiting = |open: &&mut Open| open.buffer == Some(buffer) && open.stage == QUEUE;
        if let Some(open) = self.open.iter_mut().find(waiting) {
            open.set(about);
            (open.lane, open.sequence) = (Some(about.lane), about.sequence);
            open.end(QUEUE);
        }
    }

    /// The kernel is given what `lane` sends.
    pub(super) fn sends(&mut self, lane: LaneId) {
        if let Some(open) = self.on_lane(lane, false, CODE) {
            open.end(CODE);
        }
    }

    /// The kernel has taken what `lane` sent; the buffer is free again.
    pub(super) fn sent(&mut self, lane: LaneId) {
        if let Some(open) = self.on_lane(lane, false, SOCKET) {
            open.buffer = None;
            open.end(SOCKET);
        }
    }

    /// The payload of an `Ack` frame came over `lane`. The peer may be faster than our kernel's word that it has all bytes.
    pub(super) fn acknowledged(&mut self, lane: LaneId, payload: &[u8]) {
        let sent = |open: &Open| {
            open.lane == Some(lane) && !open.record.received && matches!(open.stage, SOCKET | ACKNOWLEDGEMENT)
        };
        if !self.open.iter().any(sent) {
            return;
        }
        let Ok(ack) = Ack::decode(payload) else { return };
        let covers = |number: u64| {
            ack.ranges()
                .iter()
                .any(|range| number.checked_sub(range.start).is_some_and(|at| at < u64::from(range.count)))
        };
        while let Some(index) = self.open.iter().position(|open| sent(open) && covers(open.sequence)) {
            let stage = self.open[index].stage;
            self.open[index].end(stage);
            self.finish(index);
        }
    }

    /// The chunk in `buffer` goes no further.
    pub(super) fn forget(&mut self, buffer: BufferId) {
        self.open.retain(|open| open.buffer != Some(buffer));
    }

    /// No chunk of `lane` goes any further.
    pub(super) fn forget_lane(&mut self, lane: LaneId) {
        self.open.retain(|open| open.lane != Some(lane));
    }

    /// What was timed, if anything was since the last call.
    pub(super) fn take_news(&mut self) -> Option<&TraceFigures> {
        std::mem::take(&mut self.changed).then_some(&self.figures)
    }

    fn begin(&mut self, buffer: Option<BufferId>, lane: Option<LaneId>, received: bool) {
        if self.open.len() < OPEN_MAX {
            let record = TraceRecord { received, ..TraceRecord::default() };
            self.open.push(Open { buffer, lane, sequence: 0, stage: 0, since: Instant::now(), record });
        }
    }

    /// The chunk at a stage that only one of a lane can be at.
    fn on_lane(&mut self, lane: LaneId, received: bool, stage: usize) -> Option<&mut Open> {
        self.open
            .iter_mut()
            .find(|open| open.lane == Some(lane) && open.record.received == received && open.stage == stage)
    }

    fn finish(&mut self, index: usize) {
        let mut record = self.open.swap_remove(index).record;
        record.ended_ns = monotonic_ns();
        self.figures.add(&record);
        self.changed = true;
    }
}

impl Open {
    fn end(&mut self, stage: usize) {
        let now = Instant::now();
        self.record.stages_ns[stage] = now.saturating_duration_since(self.since).as_nanos() as u64;
        (self.stage, self.since) = (stage + 1, now);
    }

    /// Frames say by a flag whether their sender has numbered the job.
    fn set(&mut self, about: About) {
        let by_sender = about.flags & FLAG_OWNER != 0;
        self.record.foreign = by_sender == self.record.received;
        (self.record.peer_crc, self.record.job, self.record.bytes) = (about.peer_crc, about.job, about.bytes);
    }
}

fn is_due(count: &mut u32) -> bool {
    let due = count.is_multiple_of(SAMPLE);
    *count = count.wrapping_add(1);
    due
}

const _: () = assert!(ACKNOWLEDGEMENT + 1 == SENT_STAGES.len() && WRITE + 1 == RECEIVED_STAGES.len());

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_abi::shm::AtomicU64;

    const LANE: LaneId = LaneId(3);

    fn about(sequence: u64) -> About {
        About { lane: LANE, peer_crc: 5, job: 6, flags: FLAG_OWNER, sequence, bytes: 7 }
    }

    fn send(timing: &mut Timing, buffer: BufferId, sequence: u64) {
        timing.reads(buffer);
        timing.over(buffer, Over::Read);
        timing.over(buffer, Over::HashRead);
        timing.codes(buffer, about(sequence));
        timing.sends(LANE);
    }

    fn acknowledge(timing: &mut Timing, sequence: u64) {
        let mut ack = Ack::new(9);
        assert!(ack.add(sequence));
        let mut payload = [0; 512];
        let length = ack.encode(&mut payload).unwrap();
        timing.acknowledged(LANE, &payload[..length]);
    }

    fn records(timing: &mut Timing) -> Vec<TraceRecord> {
        let Some(figures) = timing.take_news() else { return Vec::new() };
        let words: Vec<_> = (0..dwcp_abi::shm::TRACES_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
        dwcp_abi::shm::TracesWriter::attach(&words[..]).publish(figures);
        dwcp_abi::shm::Traces::read(&words[..]).unwrap().iter().collect()
    }

    #[test]
    fn the_stages_of_a_sent_chunk_add_up() {
        let mut timing = Timing::default();
        let begun = Instant::now();
        send(&mut timing, BufferId(1), 4);
        timing.sent(LANE);
        acknowledge(&mut timing, 3);
        assert!(records(&mut timing).is_empty(), "that was another chunk");
        std::thread::sleep(std::time::Duration::from_millis(2));
        acknowledge(&mut timing, 4);
        let whole = begun.elapsed().as_nanos() as u64;
        let [record] = records(&mut timing)[..] else { panic!("one chunk was timed") };
        assert_eq!(
            (record.received, record.foreign, record.peer_crc, record.job, record.bytes),
            (false, false, 5, 6, 7)
        );
        assert!(record.stages_ns[ACKNOWLEDGEMENT] >= 2_000_000);
        assert!(record.stages_ns.iter().sum::<u64>() <= whole);
        assert!(records(&mut timing).is_empty() && timing.open.is_empty());
    }

    #[test]
    fn the_stages_of_a_received_chunk_are_those_of_its_way() {
        let mut timing = Timing::default();
        timing.announced(LANE);
        timing.received_into(LANE, BufferId(2));
        timing.received(LANE);
        timing.over(BufferId(2), Over::Check);
        timing.over(BufferId(2), Over::Decode);
        timing.is_of(BufferId(2), about(0));
        timing.over(BufferId(2), Over::Place);
        timing.over(BufferId(2), Over::HashWritten);
        // The lane may announce the next chunk while this one is written.
        (0..SAMPLE).for_each(|_| timing.announced(LANE));
        timing.over(BufferId(2), Over::Write);
        let [record] = records(&mut timing)[..] else { panic!("one chunk was timed") };
        assert!(record.received && record.foreign);
        assert_eq!(timing.open.len(), 1);
    }

    #[test]
    fn an_acknowledgement_may_come_before_the_kernels_word() {
        let mut timing = Timing::default();
        send(&mut timing, BufferId(1), 4);
        acknowledge(&mut timing, 4);
        timing.sent(LANE);
        let [record] = records(&mut timing)[..] else { panic!("one chunk was timed") };
        assert_eq!(record.stages_ns[ACKNOWLEDGEMENT], 0);
    }

    #[test]
    fn chunks_that_go_no_further_leave_nothing() {
        let mut timing = Timing::default();
        // A buffer that is read into again, a lane that is lost, an acknowledgement that is nonsense.
        timing.reads(BufferId(1));
        (0..SAMPLE).for_each(|_| timing.reads(BufferId(1)));
        assert_eq!(timing.open.len(), 1);
        timing.over(BufferId(1), Over::Read);
        timing.over(BufferId(1), Over::HashRead);
        timing.codes(BufferId(1), about(u64::MAX));
        timing.sends(LANE);
        timing.sent(LANE);
        timing.acknowledged(LANE, &[0xff; 40]);
        timing.forget_lane(LANE);
        assert!(timing.open.is_empty() && records(&mut timing).is_empty());
    }

    #[test]
    fn no_more_are_timed_at_once_than_there_is_room_for() {
        let mut timing = Timing::default();
        let capacity = timing.open.capacity();
        (0..SAMPLE * 2 * OPEN_MAX as u32).for_each(|number| timing.reads(BufferId(number)));
        assert_eq!((timing.open.len(), timing.open.capacity()), (OPEN_MAX, capacity));
    }
}
