//! Loading the kernel's classifier, following the interfaces, reading its counters. One thread of the dataplane calls
//! it, a few times a second at most; no worker does. Without the rights, the object or the kernel for it there is one
//! line that says why ([`Unavailable`]), and everything else works.
mod classifier;
mod interfaces;
mod log;

use std::path::PathBuf;

pub use classifier::Classifier;
use dwcp_abi::bpf::{Class, Counter, Direction};

/// What to load and where to attach it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the object may be, best first; [`object_candidates`] for the usual places.
    pub objects: Vec<PathBuf>,
    /// Where to count.
    pub interfaces: Interfaces,
    /// TCP ports and what they carry; at most `abi::bpf::PORTS_LENGTH_MAX`.
    pub ports: Vec<(u16, Class)>,
    /// DSCP values (0 to 63) and what they carry where no port says so.
    pub dscp: Vec<(u8, Class)>,
}

/// Which interfaces are counted. Only those with Ethernet headers can be, and only while they are up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interfaces {
    /// All but loopback.
    External,
    /// All and loopback, where every packet is counted once as egress and once as ingress.
    All,
    /// These.
    Named(Vec<String>),
}

/// Why packets are not counted. One line each.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No object in any of the places.
    #[error("no kernel object at {tried}; `cargo xtask build-ebpf` makes it")]
    NoObject {
        /// The places.
        tried: String,
    },
    /// The kernel says that we may not.
    #[error("not permitted: needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN ({detail})")]
    NotPermitted {
        /// Which step.
        detail: String,
    },
    /// The kernel refuses the object, or the object is not ours.
    #[error("kernel refused {object}: {detail}")]
    Refused {
        /// The object.
        object: String,
        /// First line of the complaint; the rest is in the log at debug level.
        detail: String,
    },
    /// A map that was there cannot be read or written.
    #[error("map {map}: {detail}")]
    Map {
        /// The map.
        map: &'static str,
        /// The complaint.
        detail: String,
    },
}

/// All counters at one moment (not at one instant: cores go on counting meanwhile).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// One entry for each core that the kernel can have, by its number.
    pub cores: Vec<CoreCounters>,
}

/// Counters of one core since the classifier was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CoreCounters {
    /// By direction, then by class, both by number.
    pub traffic: [[Counter; Class::COUNT]; Direction::ALL.len()],
    /// Packets with damaged headers, counted as [`Class::Other`] too.
    pub odd: u64,
}

impl CoreCounters {
    /// The counter of one direction and class.
    #[must_use]
    pub fn counter(&self, direction: Direction, class: Class) -> Counter {
        self.traffic[direction as usize][class as usize]
    }
}

impl Snapshot {
    /// Sum over all cores.
    #[must_use]
    pub fn total(&self, direction: Direction, class: Class) -> Counter {
        self.cores.iter().map(|core| core.counter(direction, class)).fold(
            Counter::default(),
            |sum, counter| Counter {
                packets: sum.packets.wrapping_add(counter.packets),
                bytes: sum.bytes.wrapping_add(counter.bytes),
            },
        )
    }

    /// Packets with damaged headers on all cores.
    #[must_use]
    pub fn odd(&self) -> u64 {
        self.cores.iter().fold(0, |sum, core| sum.wrapping_add(core.odd))
    }
}

/// The usual places of the object: `DWCP_EBPF_OBJECT` alone where it is set, else beside this program, else where
/// packages put it.
#[must_use]
pub fn object_candidates() -> Vec<PathBuf> {
    if let Some(chosen) = std::env::var_os("DWCP_EBPF_OBJECT") {
        return vec![chosen.into()];
    }
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("dwcp-ebpf.o"));
    beside.into_iter().chain([PathBuf::from(PACKAGED_OBJECT)]).collect()
}

const PACKAGED_OBJECT: &str = "/usr/libexec/dwcp/dwcp-ebpf.o";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sums_over_cores() {
        let mut core = CoreCounters { odd: 2, ..CoreCounters::default() };
        core.traffic[Direction::Egress as usize][Class::Bulk as usize] = Counter { packets: 3, bytes: 4000 };
        let snapshot = Snapshot { cores: vec![core, core] };
        assert_eq!(snapshot.total(Direction::Egress, Class::Bulk), Counter { packets: 6, bytes: 8000 });
        assert_eq!(snapshot.total(Direction::Ingress, Class::Bulk), Counter::default());
        assert_eq!(snapshot.odd(), 4);
    }

    #[test]
    fn reasons_are_one_line() {
        let reason = Unavailable::Refused { object: "x".into(), detail: "y".into() };
        assert_eq!(reason.to_string().lines().count(), 1);
    }
}
