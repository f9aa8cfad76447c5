//! Statistics of the node: what belongs to no worker, the kernel programs' figures per core, and the texts that say
//! which features are in use and why others are not. The dataplane's main thread writes, control reads.
//!
//! ```text
//! statistics, word  0 … 31    counters, by NodeCounter
//!                  32 … 1311  per core 0 … 63, per slot of bpf::counter_index: packets, bytes
//!
//! features, word    0         length of the text in bytes
//!                   1 … 1024  UTF-8 text, little-endian; one line each: name TAB state TAB reason
//! ```
use super::atomic::Memory;
use super::counters::counters;
use super::page::{PAGE_HEADER_BYTES, PageError, PageReader, PageWriter};
use crate::bpf::{COUNTERS_LENGTH, Class, Counter, Direction, counter_index};
use crate::codec::codes;

counters! {
    /// The figures of the node.
    pub enum NodeCounter {
        /// When the dataplane started, in nanoseconds since 1970.
        StartUnixNs = 0, "start_unix_ns", Level;
        /// Resident memory of the dataplane in bytes.
        ResidentBytes = 1, "resident_bytes", Level;
        /// Generation of the plan in use; 0 = none yet.
        PlanGeneration = 2, "plan_generation", Level;
        /// Handshakes of lanes that succeeded.
        HandshakesOk = 3, "handshakes_ok", Total;
        /// Handshakes that failed: wrong version, garbage, broken connection.
        HandshakesFailed = 4, "handshakes_failed", Total;
        /// Handshakes that took too long.
        HandshakesTimedOut = 5, "handshakes_timed_out", Total;
        /// Handshakes refused: unknown identity, or too many.
        HandshakesRefused = 6, "handshakes_refused", Total;
        /// Connections that are in their handshake now.
        HalfOpen = 7, "half_open", Level;
        /// Kernel programs that are loaded: a set of ProgramFlag bits.
        Programs = 8, "programs", Level;
        /// Workers of the dataplane.
        Workers = 9, "workers", Level;
        /// When the page was last published, in nanoseconds of the monotonic clock.
        HeartbeatNs = 10, "heartbeat_ns", Level;
        /// Packets whose headers the kernel programs found damaged or cut short.
        OddPackets = 11, "odd_packets", Total;
        /// Versions of what was sent that are kept.
        BaselinesKept = 12, "baselines_kept", Level;
        /// Bytes of them.
        BaselineBytes = 13, "baseline_bytes", Level;
        /// Files for which a receiver named what it has.
        BaselinesNamed = 14, "baselines_named", Total;
        /// Those of them that this node has as well.
        BaselinesFound = 15, "baselines_found", Total;
        /// Packets to the peer port that the guard let pass.
        GuardPassed = 16, "guard_passed", Total;
        /// Packets to the peer port that the guard dropped.
        GuardDropped = 17, "guard_dropped", Total;
        /// Packets whose departure was put off for their class.
        DeparturesDelayed = 18, "departures_delayed", Total;
        /// Packets dropped because their class was too far behind.
        DeparturesDropped = 19, "departures_dropped", Total;
    }
}

codes! {
    /// A kernel program; the value is its bit in [`NodeCounter::Programs`].
    pub enum ProgramFlag: u8 {
        /// Classifier of incoming packets.
        ClassifyIngress = 0,
        /// Classifier of outgoing packets.
        ClassifyEgress = 1,
        /// Pacing and congestion control per flow.
        SocketOperations = 2,
        /// Guard of the peer port.
        Guard = 3,
    }
}

impl ProgramFlag {
    /// Name, as a metric's label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClassifyIngress => "classify_ingress",
            Self::ClassifyEgress => "classify_egress",
            Self::SocketOperations => "sock_ops",
            Self::Guard => "guard",
        }
    }

    /// Its bit in [`NodeCounter::Programs`].
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// The node's figures: what the dataplane counts in, and what a reader gets as one consistent copy. 10 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFigures {
    values: [u64; VALUES],
}

impl Default for NodeFigures {
    fn default() -> Self {
        Self { values: [0; VALUES] }
    }
}

impl NodeFigures {
    /// Reads the node's page.
    ///
    /// # Errors
    /// Any [`PageError`].
    pub fn read<M: Memory>(memory: M) -> Result<Self, PageError> {
        let mut figures = Self::default();
        PageReader::attach(memory).read(&mut figures.values)?;
        Ok(figures)
    }

    /// Adds to a counter; wraps, as counters do.
    pub fn add(&mut self, counter: NodeCounter, amount: u64) {
        let value = &mut self.values[counter.index()];
        *value = value.wrapping_add(amount);
    }

    /// Sets a counter.
    pub fn set(&mut self, counter: NodeCounter, value: u64) {
        self.values[counter.index()] = value;
    }

    /// Value of a counter.
    #[must_use]
    pub fn value(&self, counter: NodeCounter) -> u64 {
        self.values[counter.index()]
    }

    /// Sets what the kernel programs counted; cores from [`FLOW_CORES_MAX`] on are left out.
    pub fn set_flow(&mut self, core: usize, direction: Direction, class: Class, flow: Counter) {
        let Some(at) = flow_at(core, direction, class) else { return };
        self.values[at] = flow.packets;
        self.values[at + 1] = flow.bytes;
    }

    /// What the kernel programs counted on a core; zero from [`FLOW_CORES_MAX`] on.
    #[must_use]
    pub fn flow(&self, core: usize, direction: Direction, class: Class) -> Counter {
        let Some(at) = flow_at(core, direction, class) else { return Counter::default() };
        Counter { packets: self.values[at], bytes: self.values[at + 1] }
    }

    /// Whether a kernel program is loaded.
    #[must_use]
    pub fn has_program(&self, program: ProgramFlag) -> bool {
        self.value(NodeCounter::Programs) & program.bit() != 0
    }
}

fn flow_at(core: usize, direction: Direction, class: Class) -> Option<usize> {
    let slot = counter_index(direction, class) as usize;
    (core < FLOW_CORES_MAX).then_some(NODE_COUNTERS_MAX + (core * FLOW_SLOTS + slot) * FLOW_WORDS)
}

/// The dataplane's end of the node's page.
#[derive(Debug)]
pub struct NodeStatsWriter<M> {
    page: PageWriter<M>,
}

impl<M: Memory> NodeStatsWriter<M> {
    /// Becomes the page's only writer.
    #[must_use]
    pub fn attach(memory: M) -> Self {
        Self { page: PageWriter::attach(memory) }
    }

    /// Shows the figures to readers, all at once.
    pub fn publish(&mut self, figures: &NodeFigures) {
        self.page.publish(&figures.values);
    }
}

/// The dataplane's end of the feature texts.
#[derive(Debug)]
pub struct FeaturesWriter<M> {
    page: PageWriter<M>,
}

impl<M: Memory> FeaturesWriter<M> {
    /// Becomes the texts' only writer.
    #[must_use]
    pub fn attach(memory: M) -> Self {
        Self { page: PageWriter::attach(memory) }
    }

    /// Replaces the texts; what lies beyond [`FEATURES_BYTES_MAX`] is cut at a character's border.
    pub fn publish(&mut self, text: &str) {
        let text = &text.as_bytes()[..text.floor_char_boundary(FEATURES_BYTES_MAX)];
        let mut words = [0; 1 + FEATURES_WORDS];
        words[0] = text.len() as u64;
        for (word, chunk) in words[1..].iter_mut().zip(text.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(bytes);
        }
        self.page.publish(&words);
    }
}

/// One consistent copy of the feature texts. 8 KiB.
#[derive(Debug, Clone)]
pub struct Features {
    bytes: [u8; FEATURES_BYTES_MAX],
    length: usize,
}

/// One feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature<'a> {
    /// What it is.
    pub name: &'a str,
    /// Whether it is in use.
    pub state: &'a str,
    /// Why, or why not.
    pub reason: &'a str,
}

impl Features {
    /// Reads the node's feature texts.
    ///
    /// # Errors
    /// Any [`PageError`]; [`PageError::Corrupt`] where the length is impossible.
    pub fn read<M: Memory>(memory: M) -> Result<Self, PageError> {
        let mut words = [0; 1 + FEATURES_WORDS];
        PageReader::attach(memory).read(&mut words)?;
        let corrupt = PageError::Corrupt { what: "text length", value: words[0] };
        let length = usize::try_from(words[0]).map_err(|_| corrupt)?;
        if length > FEATURES_BYTES_MAX {
            return Err(corrupt);
        }
        let mut bytes = [0; FEATURES_BYTES_MAX];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(&words[1..]) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Ok(Self { bytes, length })
    }

    /// The whole text, as far as it is UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        let bytes = &self.bytes[..self.length];
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        }
    }

    /// The features; a line without a state or reason has empty ones. The fields are the dataplane's words: show
    /// them with control characters escaped.
    pub fn lines(&self) -> impl Iterator<Item = Feature<'_>> {
        self.text().lines().map(|line| {
            let mut fields = line.splitn(3, '\t');
            let mut field = || fields.next().unwrap_or_default();
            Feature { name: field(), state: field(), reason: field() }
        })
    }
}

/// Cores whose kernel figures are kept.
pub const FLOW_CORES_MAX: usize = 64;

/// Longest feature text in bytes.
pub const FEATURES_BYTES_MAX: usize = FEATURES_WORDS * 8;

/// Room for counters; raising it moves the flows and is a new version.
pub const NODE_COUNTERS_MAX: usize = 32;

const FLOW_SLOTS: usize = COUNTERS_LENGTH as usize;
const FLOW_WORDS: usize = 2;
const FEATURES_WORDS: usize = 1024;
const VALUES: usize = NODE_COUNTERS_MAX + FLOW_CORES_MAX * FLOW_SLOTS * FLOW_WORDS;

/// Size of the node's page in bytes.
pub const NODE_PAGE_BYTES: usize = PAGE_HEADER_BYTES + VALUES * 8;

/// Size of the feature texts in bytes.
pub const FEATURES_PAGE_BYTES: usize = PAGE_HEADER_BYTES + 8 + FEATURES_BYTES_MAX;

const _: () = assert!(NodeCounter::ALL.len() <= NODE_COUNTERS_MAX);
const _: () = assert!(NODE_PAGE_BYTES == 10_560);
const _: () = assert!(FEATURES_PAGE_BYTES == 8_264);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::{AtomicU64, Ordering};
    use std::string::String;
    use std::vec::Vec;

    fn words(bytes: usize) -> Vec<AtomicU64> {
        (0..bytes / 8).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn every_flow_has_its_own_place() {
        let words = words(NODE_PAGE_BYTES);
        let mut figures = NodeFigures::default();
        let mut next = 1;
        let mut each = Vec::new();
        for core in 0..FLOW_CORES_MAX {
            for direction in Direction::ALL {
                for class in Class::ALL {
                    let flow = Counter { packets: next, bytes: next + 1 };
                    next += 2;
                    figures.set_flow(core, direction, class, flow);
                    each.push((core, direction, class, flow));
                }
            }
        }
        figures.set_flow(FLOW_CORES_MAX, Direction::Ingress, Class::Bulk, Counter { packets: 1, bytes: 1 });
        figures.set(NodeCounter::Programs, ProgramFlag::ClassifyEgress.bit());
        NodeStatsWriter::attach(&words[..]).publish(&figures);

        let read = NodeFigures::read(&words[..]).unwrap();
        assert_eq!(read, figures);
        for (core, direction, class, flow) in each {
            assert_eq!(read.flow(core, direction, class), flow);
        }
        assert_eq!(read.flow(FLOW_CORES_MAX, Direction::Ingress, Class::Bulk), Counter::default());
        assert!(read.has_program(ProgramFlag::ClassifyEgress));
        assert!(!read.has_program(ProgramFlag::ClassifyIngress));
    }

    #[test]
    fn feature_texts_come_back_as_lines() {
        let words = words(FEATURES_PAGE_BYTES);
        assert_eq!(Features::read(&words[..]).unwrap().lines().count(), 0);
        let mut writer = FeaturesWriter::attach(&words[..]);
        writer.publish("io_uring\ton\t\nhugepages\toff\tnone reserved: see vm.nr_hugepages\nodd");
        let features = Features::read(&words[..]).unwrap();
        let lines: Vec<_> = features.lines().map(|line| (line.name, line.state, line.reason)).collect();
        assert_eq!(
            lines,
            [
                ("io_uring", "on", ""),
                ("hugepages", "off", "none reserved: see vm.nr_hugepages"),
                ("odd", "", "")
            ]
        );
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let words = words(FEATURES_PAGE_BYTES);
        let mut text = String::from("x");
        text.extend(core::iter::repeat_n('ä', FEATURES_BYTES_MAX));
        FeaturesWriter::attach(&words[..]).publish(&text);
        let features = Features::read(&words[..]).unwrap();
        assert_eq!(features.text().len(), FEATURES_BYTES_MAX - 1);
        assert!(text.starts_with(features.text()));
    }

    #[test]
    fn hostile_texts_are_refused_or_cut() {
        let words = words(FEATURES_PAGE_BYTES);
        words[8].store(FEATURES_BYTES_MAX as u64 + 1, Ordering::Relaxed);
        let corrupt = PageError::Corrupt { what: "text length", value: FEATURES_BYTES_MAX as u64 + 1 };
        assert_eq!(Features::read(&words[..]).unwrap_err(), corrupt);
        words[8].store(5, Ordering::Relaxed);
        words[9].store(u64::from_le_bytes(*b"ab\xffcdefg"), Ordering::Relaxed);
        assert_eq!(Features::read(&words[..]).unwrap().text(), "ab");
    }
}
