//! Loading the kernel programs, following the interfaces, writing the policy, reading counters and flows. One thread
//! loads ([`Loading`]), the main thread does the rest, a few times a second at most; no worker does. Without the rights, the object or the kernel for
//! it there is one line that says why ([`Unavailable`]), and everything else works.
mod cgroup;
mod flows;
mod guard;
mod interfaces;
mod links;
mod loading;
mod log;
mod pins;
mod policy;
mod programs;
mod report;
mod socket;
mod tables;

use std::error::Error;
use std::io;
use std::path::PathBuf;

use dwcp_abi::bpf::{Class, Counter, Direction};
pub use flows::FlowReading;
pub use loading::Loading;
pub use policy::{GuardMode, GuardPolicy, Policy, Selector};
pub use programs::Programs;
pub use report::Report;

/// What to load and where to attach it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the object may be, best first; [`object_candidates`] for the usual places.
    pub objects: Vec<PathBuf>,
    /// Where to count.
    pub interfaces: Interfaces,
    /// TCP ports that the node's own lanes use and what they carry. The first is guarded.
    pub ports: Vec<(u16, Class)>,
    /// Folder on a bpf file system for what has to outlive this process, and the name of this node in it.
    pub pins: Option<(PathBuf, String)>,
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
        /// First line of the complaint.
        detail: String,
        /// The end of what the verifier said; empty where it was not asked.
        verifier: String,
    },
    /// The thread that loads could not.
    #[error("the thread that loads the kernel programs: {detail}")]
    NoThread {
        /// The complaint.
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

impl Unavailable {
    /// The same for `dwcp debug ebpf`, with what the verifier said.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = Report::default();
        report.line("trouble", "programs", &self.to_string());
        if let Self::Refused { verifier, .. } = self {
            verifier.lines().for_each(|line| report.line("verifier", "", line));
        }
        report
    }
}

/// Removes what an earlier life of this node pinned, and so takes its policy out of force.
pub fn forget_pins((root, node): &(PathBuf, String)) {
    if let Ok(pins) = pins::Pins::new(root, node) {
        pins.remove();
    }
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

fn refusal(object: &str, error: &(dyn Error + 'static)) -> Unavailable {
    tracing::debug!(%error, object, "kernel programs were refused");
    let whole = error.to_string();
    let tail = whole.len().saturating_sub(VERIFIER_BYTES_MAX);
    let verifier = match whole.contains('\n') {
        true => whole[whole.ceil_char_boundary(tail)..].to_owned(),
        false => String::new(),
    };
    if verifier.is_empty() && is_permission(error) {
        return Unavailable::NotPermitted { detail: first_line(error) };
    }
    Unavailable::Refused { object: object.to_owned(), detail: first_line(error), verifier }
}

/// Whether the kernel's answer at the root of this error is "not permitted". The verifier says so as well, of what a
/// program does, but at length.
fn is_permission(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The error and what caused it, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The verifier's complaints are pages long; people get the first line.
fn first_line(error: &(dyn Error + 'static)) -> String {
    let last = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let whole = error.to_string();
    let first = whole.lines().next().unwrap_or_default().to_owned();
    if last.is_empty() || first.contains(&last) || last.contains('\n') {
        first
    } else {
        format!("{first}: {last}")
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// How much of the verifier's words is kept: the reason stands at the end.
const VERIFIER_BYTES_MAX: usize = 2048;
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
        let reason = Unavailable::Refused { object: "x".into(), detail: "y".into(), verifier: "a\nb".into() };
        assert_eq!(reason.to_string().lines().count(), 1);
    }
}
