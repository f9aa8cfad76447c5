//! What control decides about classes, as the kernel programs read it, and the tables that say what belongs to which
//! class. The dataplane writes them while flows run; a program sees the old or the new value of an entry.
use super::Class;

/// What holds for a class: an entry of [`POLICY_MAP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ClassPolicy {
    /// Ceiling of each flow in bytes per second (SO_MAX_PACING_RATE); 0 = none.
    pub flow_bytes_per_s: u64,
    /// Ceiling of all packets to one remote address together, in bytes per second on the wire; 0 = none. Works where
    /// the interface has the queueing discipline `fq`.
    pub peer_bytes_per_s: u64,
    /// Congestion control of new flows: 0 = as it is, 1 = bbr, 2 = cubic, 3 = reno.
    pub congestion: u64,
    /// `skb->priority` of its packets; 0 = as it is.
    pub priority: u64,
}

/// A [`ClassPolicy`] as it lies in the map.
pub type ClassPolicyWords = [u64; 4];

const _: () = assert!(size_of::<ClassPolicy>() == size_of::<ClassPolicyWords>());

impl ClassPolicy {
    /// As it lies in the map.
    #[must_use]
    pub const fn words(&self) -> ClassPolicyWords {
        [self.flow_bytes_per_s, self.peer_bytes_per_s, self.congestion, self.priority]
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The state of all tables: the one entry of [`SWITCH_MAP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Switch {
    /// Which tables hold anything: [`USES_MARKS`] and the like. What is empty is not looked up.
    pub uses: u64,
    /// Raised after each change of a table: flows are classed anew.
    pub generation: u64,
}

/// A [`Switch`] as it lies in the map.
pub type SwitchWords = [u64; 2];

/// Some entry of [`TUPLES_MAP`].
pub const USES_TUPLES: u64 = 1;
/// Some entry of [`MARKS_MAP`].
pub const USES_MARKS: u64 = 2;
/// Some entry of [`CGROUPS_MAP`].
pub const USES_CGROUPS: u64 = 4;
/// Some entry of [`DSCP_MAP`](super::DSCP_MAP).
pub const USES_DSCP: u64 = 8;
/// Some class has a ceiling per peer: departure times are stamped.
pub const USES_DEPARTURE: u64 = 16;

/// Array of [`ClassPolicy`], index by class.
pub const POLICY_MAP: &str = "DWCP_POLICY";
/// Slots of [`POLICY_MAP`].
pub const POLICY_LENGTH: u32 = Class::COUNT as u32;
/// Array of one [`Switch`].
pub const SWITCH_MAP: &str = "DWCP_SWITCH";
/// Hash from [`FlowKey`](super::FlowKey) to class number: single connections.
pub const TUPLES_MAP: &str = "DWCP_TUPLES";
/// Hash from `skb->mark` (`u32`) to class number; 0 is no mark.
pub const MARKS_MAP: &str = "DWCP_MARKS";
/// Hash from the id of a cgroup (`u64`, the inode of its directory) to class number.
pub const CGROUPS_MAP: &str = "DWCP_CGROUPS";
/// Most entries of each of the three.
pub const SELECTORS_LENGTH_MAX: u32 = 256;

/// In a port's byte in [`PORTS_MAP`](super::PORTS_MAP), beside the class number: flows of this port pace themselves, the
/// policy only watches them.
pub const PORT_OWN: u8 = 0x80;

/// Where a port of TCP (6) or UDP (17) stands in [`PORTS_MAP`](super::PORTS_MAP): the word and how far its byte is to be
/// shifted down. Other protocols share the place of TCP; they are not asked for.
#[inline(always)]
#[must_use]
pub const fn port_place(protocol: u8, port: u16) -> (u32, u32) {
    let number = ((protocol == PROTOCOL_UDP) as u32) << 16 | port as u32;
    (number / 8, number % 8 * 8)
}

/// IP protocol number of UDP.
const PROTOCOL_UDP: u8 = 17;

/// The departure clock of one class at one remote address: key of [`DEPARTURES_MAP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct AggregateKey {
    /// Remote address, as in [`FlowKey`](super::FlowKey).
    pub remote: [u32; 4],
    /// Class number.
    pub class: u32,
}

/// LRU hash from [`AggregateKey`] to the time (`u64`, nanoseconds, monotonic) at which its next packet may leave.
pub const DEPARTURES_MAP: &str = "DWCP_DEPARTURES";
/// Most entries of [`DEPARTURES_MAP`].
pub const DEPARTURES_LENGTH_MAX: u32 = 1024;
/// Array of one `u64` per [`DepartureCounter`], per CPU.
pub const DEPARTURE_COUNTS_MAP: &str = "DWCP_DEPARTED";
/// Array of interface indices (`u32`), each in the slot [`fq_slot`]: where `fq` keeps departure times. Elsewhere none are
/// stamped, as nothing would hold the packets back. Of two in one slot only one is served.
pub const FQ_MAP: &str = "DWCP_FQ";
/// Slots of [`FQ_MAP`].
pub const FQ_LENGTH: u32 = 1024;

/// The slot of an interface in [`FQ_MAP`].
#[inline(always)]
#[must_use]
pub const fn fq_slot(interface: u32) -> u32 {
    interface % FQ_LENGTH
}

/// What the departure stamps did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DepartureCounter {
    /// Packets that were given a time in the future.
    Delayed = 0,
    /// Packets that would have left after the horizon, dropped.
    Dropped = 1,
}

impl DepartureCounter {
    /// Number of counters.
    pub const COUNT: u32 = 2;
}
