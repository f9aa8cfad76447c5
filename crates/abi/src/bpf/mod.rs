//! Maps and records shared with the kernel programs: classes of traffic, directions, counters, and the names and
//! indices of the maps. Used by `ebpf` (writes) and by the dataplane's loader (reads, fills the tables).
//! It holds no `unsafe`: records cross the border as arrays of integers with the same layout.
mod flow;
mod guard;
mod policy;

pub use flow::{
    FLOWS_LENGTH_MAX, FLOWS_MAP, Flow, FlowKey, FlowKeyWords, FlowState, FlowWords, address_bytes,
    address_words, mapped,
};
pub use guard::{
    Bucket, BucketWords, GUARD_COUNTS_MAP, GUARD_MAP, GUARD_PROGRAM, GuardRules, GuardRulesWords, Guarded,
    KNOWN_LENGTH, KNOWN_MAP, MORE_KNOWN_LENGTH_MAX, MORE_KNOWN_MAP, SOURCES_LENGTH_MAX, SOURCES_MAP,
    TOTAL_MAP, known_slots,
};
pub use policy::{
    AggregateKey, CGROUPS_MAP, ClassPolicy, ClassPolicyWords, DEPARTURE_COUNTS_MAP, DEPARTURES_LENGTH_MAX,
    DEPARTURES_MAP, DepartureCounter, FQ_LENGTH, FQ_MAP, MARKS_MAP, POLICY_LENGTH, POLICY_MAP, PORT_OWN,
    SELECTORS_LENGTH_MAX, SWITCH_MAP, Switch, SwitchWords, TUPLES_MAP, USES_CGROUPS, USES_DEPARTURE,
    USES_DSCP, USES_MARKS, USES_TUPLES, fq_slot, port_place,
};

/// Version of every map and record here, and the name of the folder that pinned ones lie in: any change of one raises
/// it, so that no program ever reads a map of another layout.
pub const LAYOUT_VERSION: u32 = 1;

/// What a packet belongs to. The numbers are the values of [`PORTS_MAP`] and [`DSCP_MAP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Class {
    /// Nothing of ours, or not to be told: fragments, damaged headers, protocols without ports.
    Other = 0,
    /// Payload between nodes.
    Bulk = 1,
    /// Traffic that is carried for others.
    Tunnel = 2,
    /// Management between nodes.
    Control = 3,
    /// Agreement between nodes.
    Consensus = 4,
}

impl Class {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Other, Self::Bulk, Self::Tunnel, Self::Control, Self::Consensus];
    /// Number of classes.
    pub const COUNT: usize = Self::ALL.len();

    /// The class with this number; `None` for a number of a later version.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Other),
            1 => Some(Self::Bulk),
            2 => Some(Self::Tunnel),
            3 => Some(Self::Control),
            4 => Some(Self::Consensus),
            _ => None,
        }
    }

    /// Its number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Its name in metrics and in text for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Bulk => "bulk",
            Self::Tunnel => "tunnel",
            Self::Control => "control",
            Self::Consensus => "consensus",
        }
    }
}

/// Which way a packet goes, seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Direction {
    /// Into this host.
    Ingress = 0,
    /// Out of this host.
    Egress = 1,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Its name in metrics and in text for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The kernel program that counts this direction.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Ingress => "dwcp_ingress",
            Self::Egress => "dwcp_egress",
        }
    }
}

/// One slot of [`COUNTERS_MAP`]. Wraps around after 2⁶⁴.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    /// Packets; a segmentation-offload packet counts as the segments that it becomes.
    pub packets: u64,
    /// Bytes from the link layer's header on; a segmentation-offload packet's headers count once.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counter>() == size_of::<[u64; 2]>());
const _: () = assert!(align_of::<Counter>() == align_of::<[u64; 2]>());

impl From<[u64; 2]> for Counter {
    fn from([packets, bytes]: [u64; 2]) -> Self {
        Self { packets, bytes }
    }
}

/// Slot of a direction and class in [`COUNTERS_MAP`].
#[inline(always)]
#[must_use]
pub const fn counter_index(direction: Direction, class: Class) -> u32 {
    direction as u32 * Class::COUNT as u32 + class as u32
}

/// Per-CPU array of [`Counter`], [`COUNTERS_LENGTH`] slots, index by [`counter_index`].
pub const COUNTERS_MAP: &str = "DWCP_COUNTERS";
/// Slots of [`COUNTERS_MAP`].
pub const COUNTERS_LENGTH: u32 = (Direction::ALL.len() * Class::COUNT) as u32;
/// Array of words of eight ports, one byte each: class number, perhaps with [`PORT_OWN`]; 0 says nothing. A port's place is
/// [`port_place`]. An array and no hash: looking into a hash costs half of all that is done for a packet.
pub const PORTS_MAP: &str = "DWCP_PORTS";
/// Words of [`PORTS_MAP`]: every port of TCP, then every port of UDP.
pub const PORTS_LENGTH: u32 = 2 * 65_536 / 8;
/// Array from DSCP to class number (`u32`), asked where no port decides; 0 says nothing.
pub const DSCP_MAP: &str = "DWCP_DSCP";
/// Slots of [`DSCP_MAP`]: every value of the six-bit field of RFC 2474.
pub const DSCP_LENGTH: u32 = 64;
/// The program that paces flows and keeps the flow table.
pub const SOCKET_PROGRAM: &str = "dwcp_socket";
/// Per-CPU array of one `u64`: packets whose headers are damaged or cut short.
pub const ODD_MAP: &str = "DWCP_ODD";
/// One odd packet in this many, per core, is described in the log.
pub const ODD_LOG_INTERVAL: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_classes_agree() {
        for (number, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.number() as usize, number);
            assert_eq!(Class::from_number(class.number()), Some(class));
        }
        assert_eq!(Class::from_number(Class::COUNT as u32), None);
        assert_eq!(Class::from_number(u32::MAX), None);
    }

    #[test]
    fn every_port_has_its_own_byte() {
        let mut seen = [0_u64; PORTS_LENGTH as usize];
        for protocol in [6, 17] {
            for port in 0..=u16::MAX {
                let (word, shift) = port_place(protocol, port);
                assert_eq!(seen[word as usize] >> shift & 0xff, 0);
                seen[word as usize] |= 0xff << shift;
            }
        }
        assert!(seen.iter().all(|&word| word == u64::MAX));
    }

    #[test]
    fn every_pair_has_its_own_slot() {
        let mut seen = [false; COUNTERS_LENGTH as usize];
        for direction in Direction::ALL {
            for class in Class::ALL {
                let slot = &mut seen[counter_index(direction, class) as usize];
                assert!(!*slot);
                *slot = true;
            }
        }
        assert!(seen.iter().all(|&slot| slot));
    }
}
