//! Where the time of a chunk goes: the last chunks that a worker timed, stage by stage. The worker writes them a few times
//! a second, control reads; the stages of one chunk follow one another, so that they add up to its time.
//!
//! ```text
//! word 0          chunks that were timed since the worker started; the newest TRACES_MAX of them are here
//!      1 … 1536   per chunk 12 words, chunk number N in place N mod TRACES_MAX:
//!                 0  bit 0: received (else sent) · bit 1: the job was numbered by the other node
//!                 1  CRC-32C of the peer's name
//!                 2  job
//!                 3  when it ended, in nanoseconds of the monotonic clock
//!                 4  plain bytes
//!                 5  … 11  nanoseconds of each stage, in the order of SENT_STAGES or RECEIVED_STAGES
//! ```
use super::atomic::Memory;
use super::page::{PAGE_HEADER_BYTES, PageError, PageReader, PageWriter};

/// Stages of a chunk that is sent.
pub const SENT_STAGES: [&str; 6] = ["read", "hash", "queue", "code", "socket", "acknowledgement"];
/// Stages of a chunk that is received.
pub const RECEIVED_STAGES: [&str; 7] = ["buffer", "receive", "check", "decode", "place", "hash", "write"];

/// Most stages of a chunk.
pub const TRACE_STAGES_MAX: usize = 7;
/// Chunks that the page holds.
pub const TRACES_MAX: usize = 128;

/// One timed chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceRecord {
    /// It came from the peer; else it went there.
    pub received: bool,
    /// The other node numbered the job.
    pub foreign: bool,
    /// [`crate::wire::checksum`] of the peer's name, which would not fit.
    pub peer_crc: u32,
    /// Number of its job.
    pub job: u64,
    /// When its last stage ended, in nanoseconds of the monotonic clock.
    pub ended_ns: u64,
    /// Plain bytes of it.
    pub bytes: u64,
    /// Nanoseconds of each stage; unused places are 0.
    pub stages_ns: [u64; TRACE_STAGES_MAX],
}

/// The chunks that a worker timed, outside the shared memory.
#[derive(Debug)]
pub struct TraceFigures {
    words: [u64; WORDS],
}

impl Default for TraceFigures {
    fn default() -> Self {
        Self { words: [0; WORDS] }
    }
}

impl TraceFigures {
    /// Adds a chunk in place of the oldest.
    pub fn add(&mut self, record: &TraceRecord) {
        let place = HEAD_WORDS + self.words[0] as usize % TRACES_MAX * RECORD_WORDS;
        let words = &mut self.words[place..place + RECORD_WORDS];
        words[0] = u64::from(record.received) | u64::from(record.foreign) << 1;
        words[1] = u64::from(record.peer_crc);
        words[2..5].copy_from_slice(&[record.job, record.ended_ns, record.bytes]);
        words[5..].copy_from_slice(&record.stages_ns);
        self.words[0] += 1;
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct TracesWriter<M> {
    page: PageWriter<M>,
}

impl<M: Memory> TracesWriter<M> {
    /// Becomes the page's only writer.
    #[must_use]
    pub fn attach(memory: M) -> Self {
        Self { page: PageWriter::attach(memory) }
    }

    /// Shows the chunks to readers, all at once.
    pub fn publish(&mut self, figures: &TraceFigures) {
        self.page.publish(&figures.words);
    }
}

/// One consistent copy of the page. 12 KiB.
#[derive(Debug, Clone)]
pub struct Traces {
    words: [u64; WORDS],
}

impl Traces {
    /// Reads the page.
    ///
    /// # Errors
    /// Any [`PageError`].
    pub fn read<M: Memory>(memory: M) -> Result<Self, PageError> {
        let mut words = [0; WORDS];
        PageReader::attach(memory).read(&mut words)?;
        Ok(Self { words })
    }

    /// Chunks that were timed since the worker started.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.words[0]
    }

    /// The chunks, in no order. Every field is the dataplane's word.
    pub fn iter(&self) -> impl Iterator<Item = TraceRecord> {
        let count = usize::try_from(self.words[0]).unwrap_or(usize::MAX).min(TRACES_MAX);
        self.words[HEAD_WORDS..].chunks_exact(RECORD_WORDS).take(count).map(decode)
    }
}

fn decode(words: &[u64]) -> TraceRecord {
    let mut stages_ns = [0; TRACE_STAGES_MAX];
    stages_ns.copy_from_slice(&words[5..RECORD_WORDS]);
    TraceRecord {
        received: words[0] & 1 != 0,
        foreign: words[0] & 2 != 0,
        peer_crc: words[1] as u32,
        job: words[2],
        ended_ns: words[3],
        bytes: words[4],
        stages_ns,
    }
}

const HEAD_WORDS: usize = 1;
const RECORD_WORDS: usize = 5 + TRACE_STAGES_MAX;
const WORDS: usize = HEAD_WORDS + TRACES_MAX * RECORD_WORDS;

/// Size of the page in bytes.
pub const TRACES_PAGE_BYTES: usize = PAGE_HEADER_BYTES + WORDS * 8;

const _: () = assert!(TRACES_PAGE_BYTES == 12_360);
const _: () = assert!(SENT_STAGES.len() <= TRACE_STAGES_MAX && RECEIVED_STAGES.len() <= TRACE_STAGES_MAX);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::{AtomicU64, Ordering};
    use std::vec::Vec;

    fn record(number: u64) -> TraceRecord {
        TraceRecord {
            received: number.is_multiple_of(2),
            foreign: number.is_multiple_of(3),
            peer_crc: u32::MAX - number as u32,
            job: number + 1,
            ended_ns: number + 2,
            bytes: number + 3,
            stages_ns: core::array::from_fn(|index| number * 10 + index as u64),
        }
    }

    #[test]
    fn the_newest_chunks_come_back() {
        let words: Vec<_> = (0..TRACES_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
        assert_eq!(Traces::read(&words[..]).unwrap().iter().count(), 0);
        let mut figures = TraceFigures::default();
        let count = TRACES_MAX as u64 + 5;
        (0..3).for_each(|number| figures.add(&record(number)));
        TracesWriter::attach(&words[..]).publish(&figures);
        assert!(Traces::read(&words[..]).unwrap().iter().eq((0..3).map(record)));

        (3..count).for_each(|number| figures.add(&record(number)));
        TracesWriter::attach(&words[..]).publish(&figures);
        let read = Traces::read(&words[..]).unwrap();
        assert_eq!(read.total(), count);
        let mut numbers: Vec<u64> = read.iter().map(|read| read.job - 1).collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(5..count));
        assert!(read.iter().all(|read| read == record(read.job - 1)));
    }

    #[test]
    fn an_impossible_number_of_chunks_is_no_reason_to_read_beyond_the_page() {
        let words: Vec<_> = (0..TRACES_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
        words[PAGE_HEADER_BYTES / 8].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(Traces::read(&words[..]).unwrap().iter().count(), TRACES_MAX);
    }
}
