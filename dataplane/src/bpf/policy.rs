//! What control wants of the kernel programs, as the plan says it. Built by the link, carried out by [`super::Programs`].
use std::path::PathBuf;

use dwcp_abi::bpf::{Class, ClassPolicy, FlowKey};

/// Classes, what belongs to them, and the guard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The programs are not wanted at all.
    pub is_off: bool,
    /// By class number; that of [`Class::Other`] holds for what has no class.
    pub classes: [ClassPolicy; Class::COUNT],
    /// What belongs to which class, beside the ports that the node listens at.
    pub selectors: Vec<(Class, Selector)>,
    /// The control group whose sockets are paced; `None` = the node's own.
    pub cgroup: Option<PathBuf>,
    /// The guard of the peer port.
    pub guard: GuardPolicy,
}

impl Policy {
    /// Whether it holds anything in force that has to outlive this process.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        !self.is_off
            && (self.classes.iter().any(|class| !class.is_empty()) || self.guard.mode != GuardMode::Off)
    }
}

/// One thing that packets are told by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// A port of TCP (6) or UDP (17), at either end.
    Port {
        /// IP protocol number.
        protocol: u8,
        /// The port.
        port: u16,
    },
    /// A differentiated services code point, where nothing else says so.
    Dscp(u8),
    /// A mark of the firewall.
    Mark(u32),
    /// Sockets of a control group, by its path below the mount point of cgroup2.
    Cgroup(PathBuf),
    /// One connection.
    Connection(FlowKey),
}

/// What the guard may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuardPolicy {
    /// Whether it is wanted.
    pub mode: GuardMode,
    /// Packets per second from one unknown address.
    pub source_per_s: u32,
    /// Packets per second from all unknown addresses together.
    pub total_per_s: u32,
}

/// Whether the guard is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuardMode {
    /// No.
    #[default]
    Off,
    /// Yes, unless it could cut somebody else off.
    On,
    /// Yes.
    Forced,
}
