//! Reads the headers of one Ethernet frame as far as the TCP ports. Called per packet by the classifier. It follows at
//! most two VLAN tags and four IPv6 extension headers, reads nothing that the packet does not hold, and gives up
//! rather than guess: a fragment has no ports, not even the first one.

/// Bytes of a packet, from the link layer's header on.
pub trait Packet {
    /// `N` bytes at `offset`; `None` where the packet ends before.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// What the headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A whole TCP segment.
    Tcp {
        /// Sender's port.
        source_port: u16,
        /// Receiver's port.
        destination_port: u16,
        /// Differentiated services code point.
        dscp: u8,
    },
    /// IP without ports that we read: other protocols, unknown extension headers.
    Ip {
        /// Differentiated services code point.
        dscp: u8,
    },
    /// Part of an IP packet.
    Fragment,
    /// ARP, LLDP and the like.
    NotIp,
    /// A header contradicts itself or is cut short.
    Odd(Oddity),
}

/// What is wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Oddity {
    /// It ends inside a header.
    Truncated = 1,
    /// More VLAN tags than [`VLAN_TAGS_MAX`].
    VlanDepth = 2,
    /// EtherType and IP version differ.
    Version = 3,
    /// A header length is impossible.
    HeaderLength = 4,
    /// More IPv6 extension headers than [`EXTENSIONS_MAX`].
    ExtensionDepth = 5,
}

/// Reads the headers of `packet`.
#[inline(always)]
pub fn read(packet: &impl Packet) -> Reading {
    let Ok((kind, offset)) = ether_type(packet) else {
        return Reading::Odd(Oddity::VlanDepth);
    };
    let reading = match kind {
        Some(ETHER_TYPE_IPV4) => ipv4(packet, offset),
        Some(ETHER_TYPE_IPV6) => ipv6(packet, offset),
        Some(_) => Some(Reading::NotIp),
        None => None,
    };
    reading.unwrap_or(Reading::Odd(Oddity::Truncated))
}

/// More tags than allowed.
struct TooDeep;

/// EtherType behind all VLAN tags (`None`: truncated) and the offset of what follows it. The outermost tag is often
/// not in the packet but beside it (`skb->vlan_tci`); nothing needs to be done for that one.
#[inline(always)]
fn ether_type(packet: &impl Packet) -> Result<(Option<u16>, usize), TooDeep> {
    let mut offset = ETHER_TYPE_OFFSET;
    for _ in 0..=VLAN_TAGS_MAX {
        let Some(bytes) = packet.bytes(offset) else {
            return Ok((None, offset));
        };
        let kind = u16::from_be_bytes(bytes);
        if !matches!(kind, ETHER_TYPE_VLAN | ETHER_TYPE_SERVICE_VLAN | ETHER_TYPE_OLD_DOUBLE_VLAN) {
            return Ok((Some(kind), offset + 2));
        }
        offset += VLAN_TAG_LENGTH;
    }
    Err(TooDeep)
}

#[inline(always)]
fn ipv4(packet: &impl Packet, offset: usize) -> Option<Reading> {
    let header: [u8; 10] = packet.bytes(offset)?;
    if header[0] >> 4 != 4 {
        return Some(Reading::Odd(Oddity::Version));
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < IPV4_HEADER_LENGTH_MIN {
        return Some(Reading::Odd(Oddity::HeaderLength));
    }
    // A total length of 0 is legal here: the kernel writes it for segmentation offload above 64 KiB (BIG TCP).
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_length != 0 && total_length < header_length {
        return Some(Reading::Odd(Oddity::HeaderLength));
    }
    let dscp = header[1] >> 2;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) != 0 {
        return Some(Reading::Fragment);
    }
    if header[9] != PROTOCOL_TCP {
        return Some(Reading::Ip { dscp });
    }
    tcp(packet, offset + header_length, dscp)
}

#[inline(always)]
fn ipv6(packet: &impl Packet, offset: usize) -> Option<Reading> {
    let header: [u8; 8] = packet.bytes(offset)?;
    if header[0] >> 4 != 6 {
        return Some(Reading::Odd(Oddity::Version));
    }
    let dscp = (u16::from_be_bytes([header[0], header[1]]) >> 6) as u8 & 0x3f;
    let mut next = header[6];
    let mut offset = offset + IPV6_HEADER_LENGTH;
    for _ in 0..=EXTENSIONS_MAX {
        match next {
            PROTOCOL_TCP => return tcp(packet, offset, dscp),
            PROTOCOL_FRAGMENT => return Some(Reading::Fragment),
            PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_DESTINATION_OPTIONS => {
                let extension: [u8; 2] = packet.bytes(offset)?;
                next = extension[0];
                offset += (usize::from(extension[1]) + 1) * 8;
            }
            _ => return Some(Reading::Ip { dscp }),
        }
    }
    Some(Reading::Odd(Oddity::ExtensionDepth))
}

#[inline(always)]
fn tcp(packet: &impl Packet, offset: usize, dscp: u8) -> Option<Reading> {
    let header: [u8; 14] = packet.bytes(offset)?;
    if header[12] >> 4 < TCP_HEADER_WORDS_MIN {
        return Some(Reading::Odd(Oddity::HeaderLength));
    }
    Some(Reading::Tcp {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        dscp,
    })
}

/// Most VLAN tags that are followed.
pub const VLAN_TAGS_MAX: usize = 2;
/// Most IPv6 extension headers that are followed.
pub const EXTENSIONS_MAX: usize = 4;

const ETHER_TYPE_OFFSET: usize = 12;
const VLAN_TAG_LENGTH: usize = 4;
const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
const ETHER_TYPE_VLAN: u16 = 0x8100;
const ETHER_TYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHER_TYPE_OLD_DOUBLE_VLAN: u16 = 0x9100;
const IPV4_HEADER_LENGTH_MIN: usize = 20;
const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;
const IPV6_HEADER_LENGTH: usize = 40;
const TCP_HEADER_WORDS_MIN: u8 = 5;
const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;
