//! Headers: what a packet from the TUN driver looks like on the wire, and how a run of its segments becomes a packet of
//! its own. The kernel hands over super-packets: headers once, and payload that belongs into many segments
//! (`struct virtio_net_hdr` before it says of which size). Checksums of payload are never computed: both ends leave
//! them to a device that is not there. Called by `relay`; `direction` needs only the [`Shape`].
use std::ops::Range;

/// How a packet is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    header_bytes: u16,
    segment_payload_bytes: u16,
    payload_bytes: u32,
    kind: Kind,
}

/// What has to be rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing: a packet of one segment, passed on as it is.
    Whole,
    Tcp,
    Udp,
}

/// What a packet is to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// One or more segments from one end to the other.
    Packet(Shape),
    /// For a group of hosts.
    Multicast,
    /// Not IP, or headers that contradict each other.
    Malformed,
}

impl Shape {
    /// A packet of that many bytes of headers and of payload, and of segments of so much payload.
    #[must_use]
    pub fn new(header_bytes: u16, segment_payload_bytes: u16, payload_bytes: usize) -> Self {
        Self { header_bytes, segment_payload_bytes, payload_bytes: payload_bytes as u32, kind: Kind::Whole }
    }

    /// Segments on the wire, at least one.
    #[must_use]
    pub fn segments(&self) -> u16 {
        let segments = self.payload_bytes.div_ceil(u32::from(self.segment_payload_bytes).max(1));
        segments.clamp(1, u16::MAX.into()) as u16
    }

    /// Length of a segment on the wire, headers of IP included.
    #[must_use]
    pub fn segment_bytes(&self, segment: u16) -> u64 {
        u64::from(self.header_bytes) + self.payload(segment, 1).len() as u64
    }

    /// Which payload bytes a run of segments has.
    fn payload(&self, first: u16, count: u16) -> Range<usize> {
        let size = usize::from(self.segment_payload_bytes);
        let end = (usize::from(first) + usize::from(count)) * size;
        usize::from(first) * size..end.min(self.payload_bytes as usize)
    }
}

/// Looks at a packet behind its `virtio_net_hdr`.
#[must_use]
pub fn look(bytes: &[u8]) -> Seen {
    let Some((virtual_header, packet)) = bytes.split_first_chunk() else { return Seen::Malformed };
    let Some(is_multicast) = multicast(packet) else { return Seen::Malformed };
    if is_multicast {
        return Seen::Multicast;
    }
    shape(&VirtualHeader::parse(virtual_header), packet).map_or(Seen::Malformed, Seen::Packet)
}

/// Whether the destination is a group; `None` = no IP packet.
fn multicast(packet: &[u8]) -> Option<bool> {
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_BYTES => Some(packet[16] >= 224),
        6 if packet.len() >= IPV6_BYTES => Some(packet[24] == 0xff),
        _ => None,
    }
}

fn shape(virtual_header: &VirtualHeader, packet: &[u8]) -> Option<Shape> {
    let kind = match virtual_header.segmentation & !SEGMENTATION_ECN {
        SEGMENTATION_NONE => {
            let length = u16::try_from(packet.len()).ok()?;
            return Some(Shape {
                header_bytes: length,
                segment_payload_bytes: 0,
                payload_bytes: 0,
                kind: Kind::Whole,
            });
        }
        SEGMENTATION_TCP4 | SEGMENTATION_TCP6 => Kind::Tcp,
        SEGMENTATION_UDP => Kind::Udp,
        _ => return None,
    };
    let transport = usize::from(virtual_header.checksum_start);
    let transport_bytes = match kind {
        Kind::Tcp => usize::from(*packet.get(transport + 12)? >> 4) * 4,
        Kind::Udp | Kind::Whole => UDP_BYTES,
    };
    let smallest = if packet[0] >> 4 == 4 { IPV4_BYTES } else { IPV6_BYTES };
    let header_bytes = transport + transport_bytes;
    let payload_bytes = packet.len().checked_sub(header_bytes).filter(|&bytes| bytes > 0)?;
    let is_sound = transport >= smallest
        && header_bytes <= HEADERS_BYTES_MAX
        && transport_bytes >= UDP_BYTES
        && (kind == Kind::Udp || transport_bytes >= TCP_BYTES)
        && virtual_header.segment_bytes > 0;
    is_sound.then_some(Shape {
        header_bytes: header_bytes as u16,
        segment_payload_bytes: virtual_header.segment_bytes,
        payload_bytes: payload_bytes as u32,
        kind,
    })
}

/// The headers of a run of segments, to be sent before the payload.
#[derive(Debug)]
pub struct Headers {
    bytes: [u8; VirtualHeader::BYTES + HEADERS_BYTES_MAX],
    length: usize,
}

impl Headers {
    /// Makes a packet of a run of segments. `bytes` begins with the packet's `virtio_net_hdr`; the range is that of the
    /// payload in it.
    #[must_use]
    pub fn of_run(bytes: &[u8], shape: &Shape, first: u16, count: u16) -> (Self, Range<usize>) {
        let mut headers = Self { bytes: [0; _], length: VirtualHeader::BYTES };
        let packet = &bytes[VirtualHeader::BYTES..];
        if shape.kind == Kind::Whole {
            headers.bytes[..VirtualHeader::BYTES].copy_from_slice(&bytes[..VirtualHeader::BYTES]);
            return (headers, VirtualHeader::BYTES..VirtualHeader::BYTES + usize::from(shape.header_bytes));
        }
        let header_bytes = usize::from(shape.header_bytes);
        let payload = shape.payload(first, count);
        headers.length += header_bytes;
        let (virtual_header, rest) = headers.bytes.split_at_mut(VirtualHeader::BYTES);
        let target = &mut rest[..header_bytes];
        target.copy_from_slice(&packet[..header_bytes]);
        let original = bytes.first_chunk().map(VirtualHeader::parse).unwrap_or_default();
        let transport = usize::from(original.checksum_start);
        match shape.kind {
            Kind::Tcp => rewrite_tcp(&mut target[transport..], shape, first, count),
            Kind::Udp => put(target, transport + 4, (UDP_BYTES + payload.len()) as u16),
            Kind::Whole => {}
        }
        rewrite_ip(target, header_bytes + payload.len(), first);
        let sum = pseudo_sum(target, shape.kind, header_bytes - transport + payload.len());
        put(target, transport + usize::from(original.checksum_offset), sum);
        let is_single = count == 1;
        let rebuilt = VirtualHeader {
            segmentation: if is_single { SEGMENTATION_NONE } else { original.segmentation },
            header_bytes: shape.header_bytes,
            segment_bytes: if is_single { 0 } else { original.segment_bytes },
            ..original
        };
        virtual_header.copy_from_slice(&rebuilt.encode());
        let start = VirtualHeader::BYTES + header_bytes;
        (headers, start + payload.start..start + payload.end)
    }

    /// Their bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The sequence number moves on; what is said once per train stays with its first or last segment (RFC 9293, RFC 3168).
fn rewrite_tcp(tcp: &mut [u8], shape: &Shape, first: u16, count: u16) {
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let moved = sequence.wrapping_add(u32::from(first) * u32::from(shape.segment_payload_bytes));
    tcp[4..8].copy_from_slice(&moved.to_be_bytes());
    if first > 0 {
        tcp[13] &= !TCP_CWR;
    }
    if first + count < shape.segments() {
        tcp[13] &= !(TCP_FIN | TCP_PSH);
    }
}

/// Lengths, the identification (which segmentation counts up) and the checksum of IP itself.
fn rewrite_ip(headers: &mut [u8], total_bytes: usize, first: u16) {
    if headers[0] >> 4 == 6 {
        put(headers, 4, (total_bytes - IPV6_BYTES) as u16);
        return;
    }
    put(headers, 2, total_bytes as u16);
    let identification = u16::from_be_bytes([headers[4], headers[5]]).wrapping_add(first);
    put(headers, 4, identification);
    put(headers, 10, 0);
    let header_bytes = usize::from(headers[0] & 15) * 4;
    let sum = !folded(words(&headers[..header_bytes.min(headers.len())]));
    put(headers, 10, sum);
}

/// What stands in the field of a checksum that is left to the device: the sum over the pseudo-header (RFC 9293 §3.1).
fn pseudo_sum(headers: &[u8], kind: Kind, transport_bytes: usize) -> u16 {
    let addresses = if headers[0] >> 4 == 6 { &headers[8..40] } else { &headers[12..20] };
    let protocol = if kind == Kind::Tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
    folded(words(addresses) + protocol + transport_bytes as u64)
}

fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h), little endian:
/// `flags:1 gso_type:1 hdr_len:2 gso_size:2 csum_start:2 csum_offset:2`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct VirtualHeader {
    flags: u8,
    segmentation: u8,
    header_bytes: u16,
    segment_bytes: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl VirtualHeader {
    const BYTES: usize = dwcp_sys::tun::Tun::HEADER_BYTES;

    fn parse(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            segmentation: bytes[1],
            header_bytes: word(2),
            segment_bytes: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }

    fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [self.flags, self.segmentation, 0, 0, 0, 0, 0, 0, 0, 0];
        let fields = [self.header_bytes, self.segment_bytes, self.checksum_start, self.checksum_offset];
        bytes[2..]
            .chunks_mut(2)
            .zip(fields)
            .for_each(|(place, field)| place.copy_from_slice(&field.to_le_bytes()));
        bytes
    }
}

const SEGMENTATION_NONE: u8 = 0;
const SEGMENTATION_TCP4: u8 = 1;
const SEGMENTATION_TCP6: u8 = 4;
const SEGMENTATION_UDP: u8 = 5;
const SEGMENTATION_ECN: u8 = 0x80;
const PROTOCOL_TCP: u64 = 6;
const PROTOCOL_UDP: u64 = 17;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// IPv6 with some extensions, and the longest header of TCP.
const HEADERS_BYTES_MAX: usize = 256;

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
