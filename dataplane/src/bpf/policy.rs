//! What control wants of the kernel programs, as the plan says it. Built by the link, carried out by [`super::Programs`].
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use dwcp_abi::bpf::{Class, ClassPolicy, FlowKey, address_words};
use dwcp_abi::codec::CodecError;
use dwcp_abi::link;

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

impl Policy {
    /// Takes the message that begins the kernel's part of a plan.
    pub fn begin(&mut self, message: &link::Kernel<'_>) {
        self.is_off = !message.enabled;
        self.cgroup = (!message.cgroup.is_empty()).then(|| path(message.cgroup));
        self.guard = GuardPolicy {
            mode: match message.guard {
                link::GuardMode::Off => GuardMode::Off,
                link::GuardMode::On => GuardMode::On,
                link::GuardMode::Force => GuardMode::Forced,
            },
            source_per_s: message.guard_source_per_s,
            total_per_s: message.guard_total_per_s,
        };
    }

    /// Takes what holds for a class.
    ///
    /// # Errors
    /// A class that this version does not know.
    pub fn set_class(&mut self, message: &link::Class) -> Result<(), CodecError> {
        self.classes[class(message.class)? as usize] = ClassPolicy {
            flow_bytes_per_s: message.flow_bytes_per_s,
            peer_bytes_per_s: message.peer_bytes_per_s,
            congestion: u64::from(message.congestion),
            priority: u64::from(message.priority),
        };
        Ok(())
    }

    /// Takes something that belongs to a class.
    ///
    /// # Errors
    /// A class that this version does not know, a number that its kind does not have.
    pub fn add_selector(&mut self, message: &link::Selector<'_>) -> Result<(), CodecError> {
        let selector = match message.kind {
            link::SelectorKind::Port => {
                Selector::Port { protocol: message.protocol, port: message.local_port }
            }
            link::SelectorKind::Connection => Selector::Connection(FlowKey {
                local: address_words(message.local),
                remote: address_words(message.remote),
                ports: FlowKey::join_ports(message.local_port, message.remote_port),
                protocol: u32::from(message.protocol),
            }),
            link::SelectorKind::Dscp => {
                let unknown = CodecError::Unknown { field: "dscp", value: u64::from(message.value) };
                let code = u8::try_from(message.value).ok().filter(|&code| code < 64);
                Selector::Dscp(code.ok_or(unknown)?)
            }
            link::SelectorKind::Mark => Selector::Mark(message.value),
            link::SelectorKind::Cgroup => Selector::Cgroup(path(message.path)),
        };
        self.selectors.push((class(message.class)?, selector));
        Ok(())
    }
}

fn class(number: u8) -> Result<Class, CodecError> {
    let unknown = CodecError::Unknown { field: "class", value: u64::from(number) };
    Class::from_number(u32::from(number)).ok_or(unknown)
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
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
