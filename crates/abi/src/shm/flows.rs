//! The busiest flows of the kernel's table. The dataplane's main thread writes them about once a second, control reads.
//!
//! ```text
//! word 0          flows that follow, at most FLOWS_SHOWN_MAX
//!      1          flows that were read out of the kernel's table
//!      2          when, in nanoseconds of the monotonic clock
//!      3 … 2434   per flow 19 words: 5 of the key (two of its words in each, the first in the low half),
//!                 13 as in bpf::Flow, bytes per second lately
//! ```
use super::atomic::Memory;
use super::page::{PAGE_HEADER_BYTES, PageError, PageReader, PageWriter};
use crate::bpf::{Flow, FlowKey};

/// One flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowRecord {
    /// Its ends.
    pub key: FlowKey,
    /// What the kernel knows of it.
    pub flow: Flow,
    /// Bytes per second sent and received since the reading before.
    pub bytes_per_s: u64,
}

/// The dataplane's end.
#[derive(Debug)]
pub struct FlowsWriter<M> {
    page: PageWriter<M>,
}

impl<M: Memory> FlowsWriter<M> {
    /// Becomes the page's only writer.
    #[must_use]
    pub fn attach(memory: M) -> Self {
        Self { page: PageWriter::attach(memory) }
    }

    /// Shows the first [`FLOWS_SHOWN_MAX`] of `flows`, of `total` that were read at `now_ns`.
    pub fn publish(&mut self, flows: impl Iterator<Item = FlowRecord>, total: u64, now_ns: u64) {
        let mut words = [0; WORDS];
        let mut count = 0;
        for (place, flow) in words[HEAD_WORDS..].chunks_exact_mut(FLOW_WORDS).zip(flows) {
            encode(&flow, place);
            count += 1;
        }
        (words[0], words[1], words[2]) = (count, total, now_ns);
        self.page.publish(&words);
    }
}

/// One consistent copy of the page. 19 KiB.
#[derive(Debug, Clone)]
pub struct Flows {
    words: [u64; WORDS],
    count: usize,
}

impl Flows {
    /// Reads the page.
    ///
    /// # Errors
    /// Any [`PageError`]; [`PageError::Corrupt`] where the number of flows is impossible.
    pub fn read<M: Memory>(memory: M) -> Result<Self, PageError> {
        let mut words = [0; WORDS];
        PageReader::attach(memory).read(&mut words)?;
        let count = usize::try_from(words[0]).unwrap_or(usize::MAX);
        if count > FLOWS_SHOWN_MAX {
            return Err(PageError::Corrupt { what: "number of flows", value: words[0] });
        }
        Ok(Self { words, count })
    }

    /// The flows, busiest first. Every field is the dataplane's word.
    pub fn iter(&self) -> impl Iterator<Item = FlowRecord> {
        self.words[HEAD_WORDS..].chunks_exact(FLOW_WORDS).take(self.count).map(decode)
    }

    /// Flows that were read.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.words[1]
    }

    /// When, in nanoseconds of the monotonic clock; 0 = never.
    #[must_use]
    pub fn read_ns(&self) -> u64 {
        self.words[2]
    }
}

fn encode(record: &FlowRecord, place: &mut [u64]) {
    let key = record.key.words();
    for (word, pair) in place.iter_mut().zip(key.chunks_exact(2)) {
        *word = u64::from(pair[0]) | u64::from(pair[1]) << 32;
    }
    place[KEY_WORDS..FLOW_WORDS - 1].copy_from_slice(&record.flow.words());
    place[FLOW_WORDS - 1] = record.bytes_per_s;
}

fn decode(place: &[u64]) -> FlowRecord {
    let mut key = [0; 2 * KEY_WORDS];
    for (pair, word) in key.chunks_exact_mut(2).zip(place) {
        (pair[0], pair[1]) = (*word as u32, (*word >> 32) as u32);
    }
    let mut flow = [0; FLOW_WORDS - KEY_WORDS - 1];
    flow.copy_from_slice(&place[KEY_WORDS..FLOW_WORDS - 1]);
    FlowRecord { key: FlowKey::from(key), flow: Flow::from(flow), bytes_per_s: place[FLOW_WORDS - 1] }
}

/// Flows that fit the page.
pub const FLOWS_SHOWN_MAX: usize = 128;

const HEAD_WORDS: usize = 3;
const KEY_WORDS: usize = size_of::<FlowKey>() / 8;
const FLOW_WORDS: usize = KEY_WORDS + size_of::<Flow>() / 8 + 1;
const WORDS: usize = HEAD_WORDS + FLOWS_SHOWN_MAX * FLOW_WORDS;

/// Size of the page in bytes.
pub const FLOWS_PAGE_BYTES: usize = PAGE_HEADER_BYTES + WORDS * 8;

const _: () = assert!(FLOW_WORDS == 19);
const _: () = assert!(FLOWS_PAGE_BYTES == 19_544);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::{AtomicU64, Ordering};
    use std::vec::Vec;

    fn words() -> Vec<AtomicU64> {
        (0..FLOWS_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect()
    }

    fn record(number: u32) -> FlowRecord {
        let key = FlowKey::from(core::array::from_fn(|index| number * 100 + index as u32));
        let flow = Flow::from(core::array::from_fn(|index| u64::from(number) * 1000 + index as u64));
        FlowRecord { key, flow, bytes_per_s: u64::MAX - u64::from(number) }
    }

    #[test]
    fn flows_come_back_and_the_rest_is_only_counted() {
        let words = words();
        assert_eq!(Flows::read(&words[..]).unwrap().iter().count(), 0);
        FlowsWriter::attach(&words[..]).publish((0..200).map(record), 200, 7);
        let read = Flows::read(&words[..]).unwrap();
        assert_eq!((read.total(), read.read_ns()), (200, 7));
        assert!(read.iter().eq((0..FLOWS_SHOWN_MAX as u32).map(record)));
        FlowsWriter::attach(&words[..]).publish(core::iter::once(record(9)), 1, 8);
        assert!(Flows::read(&words[..]).unwrap().iter().eq([record(9)]));
    }

    #[test]
    fn an_impossible_number_is_refused() {
        let words = words();
        words[PAGE_HEADER_BYTES / 8].store(FLOWS_SHOWN_MAX as u64 + 1, Ordering::Relaxed);
        assert!(matches!(Flows::read(&words[..]), Err(PageError::Corrupt { .. })));
    }
}
