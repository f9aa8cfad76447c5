//! Regions: what one worker's and the node's shared memory is made of, and the header that says so. Written by the
//! dataplane when it creates a region, checked by control before it uses one. There is one layout per version, so a
//! reader demands equality and never follows an offset that it was given.
use super::atomic::{AtomicU64, Ordering};
use super::flows::FLOWS_PAGE_BYTES;
use super::node::{FEATURES_PAGE_BYTES, NODE_PAGE_BYTES};
use super::ring::RING_HEADER_BYTES;
use super::stats::WORKER_PAGE_BYTES;
use super::traces::TRACES_PAGE_BYTES;

/// A part of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Name, for errors and golden files.
    pub name: &'static str,
    /// Where it begins, in bytes from the start of the region.
    pub offset_bytes: usize,
    /// How long it is in bytes.
    pub length_bytes: usize,
}

impl Section {
    const fn after(name: &'static str, previous: &Self, length_bytes: usize) -> Self {
        let end = previous.offset_bytes + previous.length_bytes;
        Self { name, offset_bytes: end.next_multiple_of(REGION_PAGE_BYTES), length_bytes }
    }

    /// Indices of its words within the region's words.
    #[must_use]
    pub const fn words(&self) -> core::ops::Range<usize> {
        self.offset_bytes / 8..(self.offset_bytes + self.length_bytes) / 8
    }
}

/// Which of the two layouts a region has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// Rings and statistics of the worker with this index.
    Worker(u16),
    /// Statistics and features of the node.
    Node,
}

impl RegionKind {
    /// The sections, in order.
    #[must_use]
    pub const fn sections(self) -> &'static [Section] {
        match self {
            Self::Worker(_) => &WORKER_SECTIONS,
            Self::Node => &NODE_SECTIONS,
        }
    }

    /// Size of the whole region in bytes, a multiple of the page size.
    #[must_use]
    pub const fn region_bytes(self) -> usize {
        let sections = self.sections();
        let last = &sections[sections.len() - 1];
        (last.offset_bytes + last.length_bytes).next_multiple_of(REGION_PAGE_BYTES)
    }

    const fn code(self) -> u64 {
        match self {
            Self::Worker(_) => 1,
            Self::Node => 2,
        }
    }

    const fn index(self) -> u64 {
        match self {
            Self::Worker(index) => index as u64,
            Self::Node => 0,
        }
    }
}

/// Why a region is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionError {
    /// The memory is not as large as the layout says.
    Size {
        /// Bytes that were given.
        found: usize,
        /// Bytes of the layout.
        expected: usize,
    },
    /// A field of the header differs.
    Header {
        /// Its name.
        field: &'static str,
        /// What was found.
        found: u64,
        /// What the layout demands.
        expected: u64,
    },
}

impl core::fmt::Display for RegionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Size { found, expected } => write!(f, "region has {found} bytes instead of {expected}"),
            Self::Header { field, found, expected } => {
                write!(f, "region's {field} is {found:#x} instead of {expected:#x}")
            }
        }
    }
}

impl core::error::Error for RegionError {}

/// Writes the header of a new, zeroed region.
///
/// # Errors
/// [`RegionError::Size`] where `words` is not a region of this kind.
pub fn write_header(words: &[AtomicU64], kind: RegionKind, instance: u64) -> Result<(), RegionError> {
    demand_size(words, kind)?;
    for (index, (_, value)) in header(kind, instance).enumerate() {
        // Relaxed: the descriptor of the region is sent after this, and the socket orders the two.
        words[index].store(value, Ordering::Relaxed);
    }
    Ok(())
}

/// Checks size and header of a region that another process made.
///
/// # Errors
/// Any [`RegionError`].
pub fn check_header(words: &[AtomicU64], kind: RegionKind, instance: u64) -> Result<(), RegionError> {
    demand_size(words, kind)?;
    for (index, (field, expected)) in header(kind, instance).enumerate() {
        let found = words[index].load(Ordering::Relaxed);
        if found != expected {
            return Err(RegionError::Header { field, found, expected });
        }
    }
    Ok(())
}

fn demand_size(words: &[AtomicU64], kind: RegionKind) -> Result<(), RegionError> {
    let (found, expected) = (words.len() * 8, kind.region_bytes());
    if found == expected { Ok(()) } else { Err(RegionError::Size { found, expected }) }
}

/// The header's words in order, each with its name.
fn header(kind: RegionKind, instance: u64) -> impl Iterator<Item = (&'static str, u64)> {
    let sections = kind.sections();
    let fixed = [
        ("magic", REGION_MAGIC),
        ("version", SHM_VERSION),
        ("kind", kind.code()),
        ("index", kind.index()),
        ("instance", instance),
        ("size", kind.region_bytes() as u64),
        ("section count", sections.len() as u64),
        ("reserved word", 0),
    ];
    let table = sections.iter().flat_map(|section| {
        [("section offset", section.offset_bytes as u64), ("section length", section.length_bytes as u64)]
    });
    fixed.into_iter().chain(table)
}

/// First word of every region: `DWCPSHM` and a zero byte.
pub const REGION_MAGIC: u64 = u64::from_le_bytes(*b"DWCPSHM\0");

/// Version of every layout in this module and below: any change of one raises it.
pub const SHM_VERSION: u64 = 4;

/// Most workers of a dataplane: their descriptors, three each and one for the node, fit one message of at most 253
/// (SCM_MAX_FD, include/net/scm.h).
pub const WORKERS_MAX: u16 = 64;

/// Sections begin at multiples of this, in bytes.
pub const REGION_PAGE_BYTES: usize = 4096;

/// Data of a command ring in bytes.
pub const COMMAND_RING_BYTES: usize = 128 * 1024;

/// Data of an event ring in bytes.
pub const EVENT_RING_BYTES: usize = 256 * 1024;

const HEADER: Section = Section { name: "header", offset_bytes: 0, length_bytes: REGION_PAGE_BYTES };

/// Statistics page of a worker; the worker writes.
pub const WORKER_STATS: Section = Section::after("stats", &HEADER, WORKER_PAGE_BYTES);
/// Commands, control to worker.
pub const COMMAND_RING: Section =
    Section::after("commands", &WORKER_STATS, RING_HEADER_BYTES + COMMAND_RING_BYTES);
/// Events, worker to control.
pub const EVENT_RING: Section = Section::after("events", &COMMAND_RING, RING_HEADER_BYTES + EVENT_RING_BYTES);
/// Chunks that a worker timed; the worker writes.
pub const WORKER_TRACES: Section = Section::after("traces", &EVENT_RING, TRACES_PAGE_BYTES);

/// Statistics page of the node; the dataplane's main thread writes.
pub const NODE_STATS: Section = Section::after("stats", &HEADER, NODE_PAGE_BYTES);
/// Feature texts of the node; the dataplane's main thread writes.
pub const NODE_FEATURES: Section = Section::after("features", &NODE_STATS, FEATURES_PAGE_BYTES);

/// What is in the kernel, and what is wrong there; the dataplane's main thread writes.
pub const NODE_KERNEL: Section = Section::after("kernel", &NODE_FEATURES, FEATURES_PAGE_BYTES);
/// Busiest flows; the dataplane's main thread writes.
pub const NODE_FLOWS: Section = Section::after("flows", &NODE_KERNEL, FLOWS_PAGE_BYTES);

const WORKER_SECTIONS: [Section; 4] = [WORKER_STATS, COMMAND_RING, EVENT_RING, WORKER_TRACES];
const NODE_SECTIONS: [Section; 4] = [NODE_STATS, NODE_FEATURES, NODE_KERNEL, NODE_FLOWS];

const _: () = assert!(RegionKind::Worker(0).region_bytes() == 425_984);
const _: () = assert!(RegionKind::Node.region_bytes() == 61_440);
const _: () = assert!(3 * WORKERS_MAX < 253);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn words(bytes: usize) -> Vec<AtomicU64> {
        (0..bytes / 8).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_written_header_passes_and_every_changed_word_is_refused() {
        for kind in [RegionKind::Worker(3), RegionKind::Node] {
            let words = words(kind.region_bytes());
            write_header(&words, kind, 77).unwrap();
            check_header(&words, kind, 77).unwrap();
            for index in 0..header(kind, 77).count() {
                let before = words[index].fetch_xor(1 << 17, Ordering::Relaxed);
                assert!(matches!(check_header(&words, kind, 77), Err(RegionError::Header { .. })));
                words[index].store(before, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn another_worker_instance_or_size_is_refused() {
        let words = words(RegionKind::Worker(0).region_bytes());
        write_header(&words, RegionKind::Worker(1), 5).unwrap();
        let refused = |kind, instance| check_header(&words, kind, instance).unwrap_err();
        assert_eq!(
            refused(RegionKind::Worker(2), 5),
            RegionError::Header { field: "index", found: 1, expected: 2 }
        );
        assert_eq!(
            refused(RegionKind::Worker(1), 6),
            RegionError::Header { field: "instance", found: 5, expected: 6 }
        );
        assert!(matches!(refused(RegionKind::Node, 5), RegionError::Size { .. }));
        assert!(matches!(check_header(&words[1..], RegionKind::Worker(1), 5), Err(RegionError::Size { .. })));
        assert!(matches!(write_header(&words[1..], RegionKind::Worker(1), 5), Err(RegionError::Size { .. })));
    }

    #[test]
    fn sections_lie_apart_inside_the_region() {
        for kind in [RegionKind::Worker(0), RegionKind::Node] {
            let mut end = REGION_PAGE_BYTES;
            for section in kind.sections() {
                assert!(section.offset_bytes >= end, "{}", section.name);
                assert_eq!(section.offset_bytes % REGION_PAGE_BYTES, 0);
                end = section.offset_bytes + section.length_bytes;
            }
            assert!(end <= kind.region_bytes());
        }
    }
}
