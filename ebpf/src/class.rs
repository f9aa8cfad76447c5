//! Chooses the class of a packet or connection from what is known of it. Called per packet and per new connection; the
//! tables are the caller's.
use dwcp_abi::bpf::{Class, Direction, FlowKey, PORT_OWN, USES_CGROUPS, USES_DSCP, USES_MARKS, USES_TUPLES};

use crate::parse::{Kind, Reading, Segment};

/// Where the numbers of ports, connections and the like come from: maps in the kernel, plain tables in tests.
pub trait Tables {
    /// Which tables hold anything: `USES_…` bits. The others are not asked.
    fn uses(&self) -> u64;
    /// Class number of a connection, where one is set.
    fn tuple(&self, key: &FlowKey) -> Option<u32>;
    /// Class number of this packet's mark, where one is set.
    fn mark(&self) -> Option<u32>;
    /// Class number of this packet's control group, where one is set.
    fn cgroup(&self) -> Option<u32>;
    /// Value of a protocol's port, where one is set: class number, perhaps with `PORT_OWN`.
    fn port(&self, protocol: u8, port: u16) -> Option<u32>;
    /// Class number of a DSCP value, where one is set.
    fn dscp(&self, dscp: u8) -> Option<u32>;
}

/// What was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// The flow paces itself.
    pub is_own: bool,
}

impl Verdict {
    const OTHER: Self = Self { class: Class::Other, is_own: false };

    /// A number that this version does not know is [`Class::Other`].
    #[inline(always)]
    fn of(value: Option<u32>) -> Self {
        let Some(value) = value else { return Self::OTHER };
        match Class::from_number(value & !OWN) {
            Some(class) => Self { class, is_own: value & OWN != 0 },
            None => Self::OTHER,
        }
    }
}

/// The class of a packet: the most particular table that knows it decides. First the connection, then the mark, the
/// control group, the ports, at last the DSCP. Fragments and damaged packets are [`Class::Other`] whatever they say.
#[inline(always)]
pub fn class_of(reading: &Reading, direction: Direction, tables: &impl Tables) -> Verdict {
    let has_ports = match reading.kind {
        Kind::Segment => true,
        Kind::Ip => false,
        Kind::Fragment | Kind::NotIp | Kind::Odd(_) => return Verdict::OTHER,
    };
    let segment = &reading.segment;
    let uses = tables.uses();
    let mut found = None;
    if has_ports && uses & USES_TUPLES != 0 {
        found = tables.tuple(&flow_key(segment, direction));
    }
    if found.is_none() && uses & USES_MARKS != 0 {
        found = tables.mark();
    }
    if found.is_none() && uses & USES_CGROUPS != 0 {
        found = tables.cgroup();
    }
    if found.is_none() && has_ports {
        // The peer's port is the destination of what leaves and the source of what arrives.
        found = tables.port(segment.protocol, segment.destination_port);
        if found.is_none() {
            found = tables.port(segment.protocol, segment.source_port);
        }
    }
    if found.is_none() && uses & USES_DSCP != 0 {
        found = tables.dscp(segment.dscp);
    }
    Verdict::of(found)
}

/// The connection that a segment belongs to, as this host sees it.
#[inline(always)]
#[must_use]
pub fn flow_key(segment: &Segment, direction: Direction) -> FlowKey {
    let protocol = u32::from(segment.protocol);
    match direction {
        Direction::Egress => FlowKey {
            local: segment.source,
            remote: segment.destination,
            ports: FlowKey::join_ports(segment.source_port, segment.destination_port),
            protocol,
        },
        Direction::Ingress => FlowKey {
            local: segment.destination,
            remote: segment.source,
            ports: FlowKey::join_ports(segment.destination_port, segment.source_port),
            protocol,
        },
    }
}

const OWN: u32 = PORT_OWN as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Oddity, PROTOCOL_TCP, PROTOCOL_UDP};
    use dwcp_abi::bpf::mapped;

    #[derive(Default)]
    struct Fixed {
        uses: u64,
        tuple: Option<FlowKey>,
        mark: Option<u32>,
        cgroup: Option<u32>,
    }

    impl Tables for Fixed {
        fn uses(&self) -> u64 {
            self.uses
        }

        fn tuple(&self, key: &FlowKey) -> Option<u32> {
            (self.tuple.as_ref() == Some(key)).then_some(Class::Consensus.number())
        }

        fn mark(&self) -> Option<u32> {
            self.mark
        }

        fn cgroup(&self) -> Option<u32> {
            self.cgroup
        }

        fn port(&self, protocol: u8, port: u16) -> Option<u32> {
            match (protocol, port) {
                (PROTOCOL_TCP, 7000) => Some(Class::Bulk.number() | OWN),
                (PROTOCOL_TCP, 7001) => Some(Class::Control.number()),
                (PROTOCOL_TCP, 7002) => Some(99),
                (PROTOCOL_UDP, 7000) => Some(Class::Tunnel.number()),
                _ => None,
            }
        }

        fn dscp(&self, dscp: u8) -> Option<u32> {
            (dscp == 10).then_some(Class::Tunnel.number())
        }
    }

    fn segment(protocol: u8, source_port: u16, destination_port: u16, dscp: u8) -> Reading {
        let (source, destination) = (mapped(1), mapped(2));
        let segment = Segment { protocol, dscp, source_port, destination_port, source, destination };
        Reading { kind: Kind::Segment, segment }
    }

    fn tcp(tables: &Fixed, source_port: u16, destination_port: u16, dscp: u8) -> Class {
        class_of(&segment(PROTOCOL_TCP, source_port, destination_port, dscp), Direction::Egress, tables).class
    }

    #[test]
    fn either_port_decides_and_the_destination_wins() {
        let tables = Fixed::default();
        assert_eq!(tcp(&tables, 40000, 7000, 0), Class::Bulk);
        assert_eq!(tcp(&tables, 7000, 40000, 0), Class::Bulk);
        assert_eq!(tcp(&tables, 7000, 7001, 0), Class::Control);
    }

    #[test]
    fn protocols_have_ports_of_their_own() {
        let tables = Fixed::default();
        let tcp = class_of(&segment(PROTOCOL_TCP, 1, 7000, 0), Direction::Egress, &tables);
        assert_eq!(tcp, Verdict { class: Class::Bulk, is_own: true });
        let udp = class_of(&segment(PROTOCOL_UDP, 1, 7000, 0), Direction::Egress, &tables);
        assert_eq!(udp, Verdict { class: Class::Tunnel, is_own: false });
    }

    #[test]
    fn dscp_decides_where_no_port_does_and_only_where_it_is_used() {
        let tables = Fixed { uses: USES_DSCP, ..Fixed::default() };
        assert_eq!(tcp(&tables, 1, 2, 10), Class::Tunnel);
        assert_eq!(tcp(&tables, 1, 7000, 10), Class::Bulk);
        let ip = |dscp, tables| {
            let segment = Segment { dscp, ..Segment::default() };
            class_of(&Reading { kind: Kind::Ip, segment }, Direction::Egress, tables).class
        };
        assert_eq!(ip(10, &tables), Class::Tunnel);
        assert_eq!(ip(11, &tables), Class::Other);
        assert_eq!(ip(10, &Fixed::default()), Class::Other);
    }

    #[test]
    fn the_most_particular_table_wins() {
        let mut tables = Fixed { uses: USES_CGROUPS, cgroup: Some(2), mark: Some(3), ..Fixed::default() };
        assert_eq!(tcp(&tables, 1, 7000, 0), Class::Tunnel);
        tables.uses |= USES_MARKS;
        assert_eq!(tcp(&tables, 1, 7000, 0), Class::Control);
        tables.uses |= USES_TUPLES;
        assert_eq!(tcp(&tables, 1, 7000, 0), Class::Control);
        let (local, remote) = (mapped(1), mapped(2));
        tables.tuple = Some(FlowKey { local, remote, ports: FlowKey::join_ports(1, 7000), protocol: 6 });
        assert_eq!(tcp(&tables, 1, 7000, 0), Class::Consensus);
        let answer = Segment {
            protocol: PROTOCOL_TCP,
            dscp: 0,
            source_port: 7000,
            destination_port: 1,
            source: remote,
            destination: local,
        };
        let answer = Reading { kind: Kind::Segment, segment: answer };
        let answer = class_of(&answer, Direction::Ingress, &tables);
        assert_eq!(answer.class, Class::Consensus, "both ways are one connection");
    }

    #[test]
    fn what_cannot_be_told_is_other() {
        let tables = Fixed { uses: USES_MARKS, mark: Some(1), ..Fixed::default() };
        assert_eq!(tcp(&Fixed::default(), 1, 7002, 0), Class::Other);
        for kind in [Kind::Fragment, Kind::NotIp, Kind::Odd(Oddity::Truncated)] {
            let reading = Reading { kind, segment: Segment::default() };
            assert_eq!(class_of(&reading, Direction::Ingress, &tables).class, Class::Other);
        }
    }
}
