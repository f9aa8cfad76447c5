//! Reads the headers of one Ethernet frame as far as the ports. Called per packet by the classifier and the guard. It follows at
//! most two VLAN tags and four IPv6 extension headers, reads nothing that the packet does not hold, and gives up
//! rather than guess: a fragment has no ports, not even the first one.
use dwcp_abi::bpf::{address_words, mapped};

/// Bytes of a packet, from the link layer's header on.
pub trait Packet {
    /// `N` bytes at `offset`; `None` where the packet ends before.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// What the headers say. Every field is always written, also where it means nothing: the verifier refuses programs that
/// copy what was never set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// How far the headers could be read.
    pub kind: Kind,
    /// Its ends; whole where the kind is [`Kind::Segment`].
    pub segment: Segment,
}

/// How far the headers of a packet could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP, whole.
    Segment,
    /// IP without ports that we read: other protocols, unknown extension headers. Its DSCP is known.
    Ip,
    /// Part of an IP packet.
    Fragment,
    /// ARP, LLDP and the like.
    NotIp,
    /// A header contradicts itself or is cut short.
    Odd(Oddity),
}

/// Where a packet comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    pub protocol: u8,
    /// Differentiated services code point.
    pub dscp: u8,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// Sender's address, as in `FlowKey`.
    pub source: [u32; 4],
    /// Receiver's address.
    pub destination: [u32; 4],
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
    let mut segment = Segment::default();
    let kind = read_into(packet, &mut segment);
    Reading { kind, segment }
}

#[inline(always)]
fn read_into(packet: &impl Packet, segment: &mut Segment) -> Kind {
    let Ok((kind, offset)) = ether_type(packet) else {
        return Kind::Odd(Oddity::VlanDepth);
    };
    let kind = match kind {
        Some(ETHER_TYPE_IPV4) => ipv4(packet, offset, segment),
        Some(ETHER_TYPE_IPV6) => ipv6(packet, offset, segment),
        Some(_) => Some(Kind::NotIp),
        None => None,
    };
    kind.unwrap_or(Kind::Odd(Oddity::Truncated))
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
fn ipv4(packet: &impl Packet, offset: usize, segment: &mut Segment) -> Option<Kind> {
    let header: [u8; IPV4_HEADER_LENGTH_MIN] = packet.bytes(offset)?;
    if header[0] >> 4 != 4 {
        return Some(Kind::Odd(Oddity::Version));
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < IPV4_HEADER_LENGTH_MIN {
        return Some(Kind::Odd(Oddity::HeaderLength));
    }
    // A total length of 0 is legal here: the kernel writes it for segmentation offload above 64 KiB (BIG TCP).
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_length != 0 && total_length < header_length {
        return Some(Kind::Odd(Oddity::HeaderLength));
    }
    segment.dscp = header[1] >> 2;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) != 0 {
        return Some(Kind::Fragment);
    }
    let address =
        |at: usize| mapped(u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
    segment.source = address(12);
    segment.destination = address(16);
    transport(packet, offset + header_length, header[9], segment)
}

#[inline(always)]
fn ipv6(packet: &impl Packet, offset: usize, segment: &mut Segment) -> Option<Kind> {
    let header: [u8; 8] = packet.bytes(offset)?;
    if header[0] >> 4 != 6 {
        return Some(Kind::Odd(Oddity::Version));
    }
    segment.dscp = (u16::from_be_bytes([header[0], header[1]]) >> 6) as u8 & 0x3f;
    segment.source = address_words(packet.bytes(offset + 8)?);
    segment.destination = address_words(packet.bytes(offset + 24)?);
    let mut next = header[6];
    let mut offset = offset + IPV6_HEADER_LENGTH;
    for _ in 0..=EXTENSIONS_MAX {
        match next {
            PROTOCOL_FRAGMENT => return Some(Kind::Fragment),
            PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_DESTINATION_OPTIONS => {
                let extension: [u8; 2] = packet.bytes(offset)?;
                next = extension[0];
                offset += (usize::from(extension[1]) + 1) * 8;
            }
            protocol => return transport(packet, offset, protocol, segment),
        }
    }
    Some(Kind::Odd(Oddity::ExtensionDepth))
}

#[inline(always)]
fn transport(packet: &impl Packet, offset: usize, protocol: u8, segment: &mut Segment) -> Option<Kind> {
    let ports: [u8; 4] = match protocol {
        PROTOCOL_TCP => {
            let header: [u8; 14] = packet.bytes(offset)?;
            if header[12] >> 4 < TCP_HEADER_WORDS_MIN {
                return Some(Kind::Odd(Oddity::HeaderLength));
            }
            [header[0], header[1], header[2], header[3]]
        }
        PROTOCOL_UDP => {
            let header: [u8; UDP_HEADER_LENGTH] = packet.bytes(offset)?;
            // A length of 0 is a jumbogram's (RFC 2675); shorter than the header it is impossible.
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if length != 0 && length < UDP_HEADER_LENGTH {
                return Some(Kind::Odd(Oddity::HeaderLength));
            }
            [header[0], header[1], header[2], header[3]]
        }
        _ => return Some(Kind::Ip),
    };
    segment.protocol = protocol;
    segment.source_port = u16::from_be_bytes([ports[0], ports[1]]);
    segment.destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    Some(Kind::Segment)
}

/// Transmission control protocol.
pub const PROTOCOL_TCP: u8 = 6;
/// User datagram protocol.
pub const PROTOCOL_UDP: u8 = 17;
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
const UDP_HEADER_LENGTH: usize = 8;
const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;
