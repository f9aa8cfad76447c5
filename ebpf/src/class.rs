//! Chooses the class of a packet from what [`crate::parse`] found. Called per packet; the tables are the caller's.
use dwcp_abi::bpf::Class;

use crate::parse::Reading;

/// Where the numbers of ports and DSCP values come from: maps in the kernel, plain tables in tests.
pub trait Tables {
    /// Class number of a TCP port, where one is set.
    fn port(&self, port: u16) -> Option<u32>;
    /// Class number of a DSCP value, where one is set.
    fn dscp(&self, dscp: u8) -> Option<u32>;
}

/// The class of a packet: by its destination port, else its source port, else its DSCP. Both ports are asked because
/// the peer's port is the destination of what leaves and the source of what arrives. A number that this version does
/// not know is [`Class::Other`].
#[inline(always)]
pub fn class_of(reading: &Reading, tables: &impl Tables) -> Class {
    let number = match *reading {
        Reading::Tcp { source_port, destination_port, dscp } => {
            tables.port(destination_port).or_else(|| tables.port(source_port)).or_else(|| tables.dscp(dscp))
        }
        Reading::Ip { dscp } => tables.dscp(dscp),
        Reading::Fragment | Reading::NotIp | Reading::Odd(_) => None,
    };
    number.and_then(Class::from_number).unwrap_or(Class::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Oddity;

    struct Fixed;

    impl Tables for Fixed {
        fn port(&self, port: u16) -> Option<u32> {
            match port {
                7000 => Some(Class::Bulk.number()),
                7001 => Some(Class::Control.number()),
                7002 => Some(99),
                _ => None,
            }
        }

        fn dscp(&self, dscp: u8) -> Option<u32> {
            (dscp == 10).then_some(Class::Tunnel.number())
        }
    }

    fn tcp(source_port: u16, destination_port: u16, dscp: u8) -> Class {
        class_of(&Reading::Tcp { source_port, destination_port, dscp }, &Fixed)
    }

    #[test]
    fn either_port_decides_and_the_destination_wins() {
        assert_eq!(tcp(40000, 7000, 0), Class::Bulk);
        assert_eq!(tcp(7000, 40000, 0), Class::Bulk);
        assert_eq!(tcp(7000, 7001, 0), Class::Control);
    }

    #[test]
    fn dscp_decides_where_no_port_does() {
        assert_eq!(tcp(1, 2, 10), Class::Tunnel);
        assert_eq!(tcp(1, 7000, 10), Class::Bulk);
        assert_eq!(class_of(&Reading::Ip { dscp: 10 }, &Fixed), Class::Tunnel);
        assert_eq!(class_of(&Reading::Ip { dscp: 11 }, &Fixed), Class::Other);
    }

    #[test]
    fn what_cannot_be_told_is_other() {
        assert_eq!(tcp(1, 7002, 0), Class::Other);
        for reading in [Reading::Fragment, Reading::NotIp, Reading::Odd(Oddity::Truncated)] {
            assert_eq!(class_of(&reading, &Fixed), Class::Other);
        }
    }
}
