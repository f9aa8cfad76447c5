//! Statistics of one worker. The worker counts in its own [`WorkerFigures`] and publishes them once per turn; control
//! reads a [`WorkerSnapshot`] when somebody asks. Every value read is hostile: it is a number and nothing else.
//!
//! ```text
//! word  0 … 63   counters, by WorkerCounter
//!      64        send latency: observations
//!      65        send latency: sum in nanoseconds
//!      66 … 97   send latency: observations per bucket, not cumulative; above the last bound = word 64 - their sum
//! ```
use super::atomic::Memory;
use super::counters::counters;
use super::page::{PAGE_HEADER_BYTES, PageError, PageReader, PageWriter};

counters! {
    /// The figures of a worker.
    pub enum WorkerCounter {
        /// Lanes open now.
        Lanes = 0, "lanes", Level;
        /// Bytes handed to sockets, frames and encryption included.
        BytesSent = 1, "bytes_sent", Total;
        /// Bytes taken from sockets, frames and encryption included.
        BytesReceived = 2, "bytes_received", Total;
        /// Chunks sent, repeats included.
        ChunksSent = 3, "chunks_sent", Total;
        /// Chunks received, repeats included.
        ChunksReceived = 4, "chunks_received", Total;
        /// Frames of any kind sent.
        FramesSent = 5, "frames_sent", Total;
        /// Frames of any kind received.
        FramesReceived = 6, "frames_received", Total;
        /// Time spent working rather than waiting, in nanoseconds.
        BusyNs = 7, "busy_ns", Total;
        /// Completions reaped from the ring of the kernel.
        Completions = 8, "completions", Total;
        /// Times that the kernel's submission queue was full.
        QueueFull = 9, "queue_full", Total;
        /// Operations submitted to the kernel.
        Submissions = 10, "submissions", Total;
        /// Lanes that came up.
        LanesOpened = 11, "lanes_opened", Total;
        /// Lanes that were lost by an error.
        LanesLost = 12, "lanes_lost", Total;
        /// Chunks whose checksum did not match.
        CrcFailures = 13, "crc_failures", Total;
        /// Frames that broke the protocol; each costs its lane.
        ProtocolErrors = 14, "protocol_errors", Total;
        /// Chunks sent again.
        ChunksResent = 15, "chunks_resent", Total;
        /// Plain bytes sent again.
        BytesResent = 16, "bytes_resent", Total;
        /// Plain bytes that the receiver acknowledged.
        PlainBytesSent = 17, "plain_bytes_sent", Total;
        /// Plain bytes received and written.
        PlainBytesReceived = 18, "plain_bytes_received", Total;
        /// Objects that are complete at the receiver.
        ObjectsSent = 19, "objects_sent", Total;
        /// Objects received, verified and durable.
        ObjectsReceived = 20, "objects_received", Total;
        /// Objects whose digest did not match.
        IntegrityFailures = 21, "integrity_failures", Total;
        /// Jobs that run now.
        JobsActive = 22, "jobs_active", Level;
        /// Jobs that ended well.
        JobsDone = 23, "jobs_done", Total;
        /// Jobs that failed, wholly or in part.
        JobsFailed = 24, "jobs_failed", Total;
        /// Requests: jobs and objects begun.
        Requests = 25, "requests", Total;
        /// Buffers of the pool that are free now.
        BuffersFree = 26, "buffers_free", Level;
        /// When the worker last published, in nanoseconds of the monotonic clock.
        HeartbeatNs = 27, "heartbeat_ns", Level;
        /// Turns of the worker's loop.
        Turns = 28, "turns", Total;
        /// Bytes given to compression.
        CompressBytesIn = 29, "compress_bytes_in", Total;
        /// Bytes that compression made of them.
        CompressBytesOut = 30, "compress_bytes_out", Total;
        /// Times that the command ring held something impossible and was emptied.
        RingResets = 31, "ring_resets", Total;
        /// Events dropped because the event ring was full.
        EventsDropped = 32, "events_dropped", Total;
        /// The core that the worker is pinned to, plus one; 0 = none.
        Core = 33, "core", Level;
        /// Plain bytes of chunks that were sent as differences to what the peer has.
        DeltaBytesIn = 34, "delta_bytes_in", Total;
        /// Bytes of those differences.
        DeltaBytesOut = 35, "delta_bytes_out", Total;
        /// Chunks that could not be made of what is here, and were asked for as they are.
        DeltaChunksUnmade = 36, "delta_chunks_unmade", Total;
        /// Lanes over RDMA queue pairs that stand now.
        RdmaLanes = 37, "rdma_lanes", Level;
        /// Bytes of frames that were sent over queue pairs.
        RdmaBytesSent = 38, "rdma_bytes_sent", Total;
        /// Bytes of frames that came over queue pairs.
        RdmaBytesReceived = 39, "rdma_bytes_received", Total;
        /// Lanes over queue pairs that were lost by an error.
        RdmaLanesLost = 40, "rdma_lanes_lost", Total;
    }
}

/// What a worker counts in, outside the shared memory.
#[derive(Debug, Clone)]
pub struct WorkerFigures {
    values: [u64; VALUES],
}

impl Default for WorkerFigures {
    fn default() -> Self {
        Self { values: [0; VALUES] }
    }
}

impl WorkerFigures {
    /// Adds to a counter; wraps, as counters do.
    #[inline]
    pub fn add(&mut self, counter: WorkerCounter, amount: u64) {
        let value = &mut self.values[counter.index()];
        *value = value.wrapping_add(amount);
    }

    /// Sets a level, or a total that is counted elsewhere.
    #[inline]
    pub fn set(&mut self, counter: WorkerCounter, value: u64) {
        self.values[counter.index()] = value;
    }

    /// Current value.
    #[must_use]
    pub fn value(&self, counter: WorkerCounter) -> u64 {
        self.values[counter.index()]
    }

    /// Counts one send that took so long from queue to completion.
    pub fn observe_send_latency_ns(&mut self, latency_ns: u64) {
        let latency_us = latency_ns.div_ceil(1_000);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < latency_us);
        if bucket < LATENCY_BUCKETS {
            self.values[LATENCY_BUCKETS_AT + bucket] += 1;
        }
        self.values[LATENCY_COUNT_AT] += 1;
        self.values[LATENCY_SUM_AT] = self.values[LATENCY_SUM_AT].wrapping_add(latency_ns);
    }
}

/// The worker's end of its page.
#[derive(Debug)]
pub struct WorkerStatsWriter<M> {
    page: PageWriter<M>,
}

impl<M: Memory> WorkerStatsWriter<M> {
    /// Becomes the page's only writer.
    #[must_use]
    pub fn attach(memory: M) -> Self {
        Self { page: PageWriter::attach(memory) }
    }

    /// Shows the figures to readers, all at once.
    pub fn publish(&mut self, figures: &WorkerFigures) {
        self.page.publish(&figures.values);
    }
}

/// One consistent copy of a worker's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSnapshot {
    values: [u64; VALUES],
}

impl WorkerSnapshot {
    /// Reads a worker's page.
    ///
    /// # Errors
    /// Any [`PageError`].
    pub fn read<M: Memory>(memory: M) -> Result<Self, PageError> {
        let mut values = [0; VALUES];
        PageReader::attach(memory).read(&mut values)?;
        Ok(Self { values })
    }

    /// Value of a counter.
    #[must_use]
    pub fn value(&self, counter: WorkerCounter) -> u64 {
        self.values[counter.index()]
    }

    /// The send latencies.
    #[must_use]
    pub fn send_latency(&self) -> Latency<'_> {
        let count = self.values[LATENCY_COUNT_AT];
        let sum_ns = self.values[LATENCY_SUM_AT];
        Latency { count, sum_ns, buckets: &self.values[LATENCY_BUCKETS_AT..] }
    }
}

/// A histogram of latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency<'a> {
    /// Observations, those above the last bound included.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
    /// Observations per bucket of [`LATENCY_BOUNDS_US`], not cumulative.
    pub buckets: &'a [u64],
}

/// Upper bounds of the latency buckets in microseconds, each inclusive: factor √2 below 10 ms, at most 2 above, with
/// the thresholds that alerts use (5, 10, 50, 60, 100, 200, 500 ms and 1 s) as exact bounds.
pub const LATENCY_BOUNDS_US: [u64; LATENCY_BUCKETS] = [
    50, 71, 100, 141, 200, 283, 400, 566, 800, 1_131, 1_600, 2_263, 3_200, 4_525, 5_000, 6_400, 9_051,
    10_000, 20_000, 40_000, 50_000, 60_000, 80_000, 100_000, 200_000, 400_000, 500_000, 1_000_000, 2_000_000,
    4_000_000, 8_000_000, 10_000_000,
];

/// Number of latency buckets.
pub const LATENCY_BUCKETS: usize = 32;

/// Room for counters; raising it moves the histogram and is a new version.
pub const WORKER_COUNTERS_MAX: usize = 64;

const LATENCY_COUNT_AT: usize = WORKER_COUNTERS_MAX;
const LATENCY_SUM_AT: usize = LATENCY_COUNT_AT + 1;
const LATENCY_BUCKETS_AT: usize = LATENCY_SUM_AT + 1;
const VALUES: usize = LATENCY_BUCKETS_AT + LATENCY_BUCKETS;

/// Size of a worker's page in bytes.
pub const WORKER_PAGE_BYTES: usize = PAGE_HEADER_BYTES + VALUES * 8;

const _: () = assert!(WorkerCounter::ALL.len() <= WORKER_COUNTERS_MAX);
const _: () = assert!(WORKER_PAGE_BYTES == 848);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::AtomicU64;
    use std::vec::Vec;

    #[test]
    fn positions_are_the_order_of_declaration_and_names_differ() {
        for (position, counter) in WorkerCounter::ALL.iter().enumerate() {
            assert_eq!(counter.index(), position);
            assert!(!counter.help().is_empty() && counter.help().ends_with('.'));
        }
        let mut names: Vec<_> = WorkerCounter::ALL.iter().map(|counter| counter.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WorkerCounter::ALL.len());
    }

    #[test]
    fn bounds_grow_by_at_most_two_and_contain_the_thresholds() {
        assert!(LATENCY_BOUNDS_US.windows(2).all(|pair| pair[0] < pair[1] && pair[1] <= 2 * pair[0]));
        for threshold in [50, 5_000, 10_000, 50_000, 60_000, 100_000, 200_000, 500_000, 1_000_000, 10_000_000]
        {
            assert!(LATENCY_BOUNDS_US.contains(&threshold), "{threshold}");
        }
    }

    #[test]
    fn what_a_worker_publishes_is_what_a_reader_gets() {
        let words: Vec<_> = (0..WORKER_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
        let mut figures = WorkerFigures::default();
        figures.add(WorkerCounter::BytesSent, 5);
        figures.add(WorkerCounter::BytesSent, 6);
        figures.set(WorkerCounter::Lanes, 9);
        for latency_ns in [0, 50_000, 50_001, 10_000_000_000, 10_000_000_001, u64::MAX] {
            figures.observe_send_latency_ns(latency_ns);
        }
        WorkerStatsWriter::attach(&words[..]).publish(&figures);

        let snapshot = WorkerSnapshot::read(&words[..]).unwrap();
        assert_eq!(snapshot.value(WorkerCounter::BytesSent), 11);
        assert_eq!(snapshot.value(WorkerCounter::Lanes), 9);
        let latency = snapshot.send_latency();
        assert_eq!((latency.count, latency.buckets.len()), (6, LATENCY_BUCKETS));
        assert_eq!((latency.buckets[0], latency.buckets[1], latency.buckets[31]), (2, 1, 1));
    }
}
