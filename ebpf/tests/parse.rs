//! Packets, whole and damaged, against the header reader of the kernel programs.
use dwcp_abi::bpf::mapped;
use dwcp_ebpf::parse::{
    EXTENSIONS_MAX, Kind, Oddity, PROTOCOL_TCP, PROTOCOL_UDP, Packet, Reading, Segment, VLAN_TAGS_MAX,
};

/// A packet in memory. It reads like the kernel's `bpf_skb_load_bytes`: all of the bytes or none.
struct Frame(Vec<u8>);

impl Packet for Frame {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        self.0.get(offset..end)?.try_into().ok()
    }
}

/// What is read: the ends only where they are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Segment(Segment),
    Ip { dscp: u8 },
    Fragment,
    NotIp,
    Odd(Oddity),
}

fn read(packet: &Frame) -> Found {
    let Reading { kind, segment } = dwcp_ebpf::parse::read(packet);
    match kind {
        Kind::Segment => Found::Segment(segment),
        Kind::Ip => Found::Ip { dscp: segment.dscp },
        Kind::Fragment => Found::Fragment,
        Kind::NotIp => Found::NotIp,
        Kind::Odd(oddity) => Found::Odd(oddity),
    }
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPV4_ENDS: [[u32; 4]; 2] =
    [mapped(u32::from_ne_bytes([10, 0, 0, 1])), mapped(u32::from_ne_bytes([10, 0, 0, 2]))];
const IPV6_ENDS: [[u32; 4]; 2] = [[0x0101_0101; 4], [0x0202_0202; 4]];
const TCP: Found = segment(PROTOCOL_TCP, IPV4_ENDS);
const TCP6: Found = segment(PROTOCOL_TCP, IPV6_ENDS);

const fn segment(protocol: u8, [source, destination]: [[u32; 4]; 2]) -> Found {
    Found::Segment(Segment {
        protocol,
        dscp: 10,
        source_port: 40000,
        destination_port: 7000,
        source,
        destination,
    })
}

fn ethernet(tags: &[u16], ether_type: u16, payload: &[u8]) -> Frame {
    let mut bytes = vec![0x02; 12];
    for tag in tags {
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0x00, 0x2a]);
    }
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(payload);
    Frame(bytes)
}

fn tcp() -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&40000_u16.to_be_bytes());
    header[2..4].copy_from_slice(&7000_u16.to_be_bytes());
    header[12] = 5 << 4;
    header
}

fn ipv4(protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let length = 20 + options;
    let mut header = vec![0; length];
    header[0] = 0x40 | (length / 4) as u8;
    header[1] = 10 << 2;
    header[2..4].copy_from_slice(&((length + payload.len()) as u16).to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&[10, 0, 0, 1]);
    header[16..20].copy_from_slice(&[10, 0, 0, 2]);
    header.extend(payload);
    header
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 40];
    let class: u16 = 10 << 2;
    header[0] = 0x60 | (class >> 4) as u8;
    header[1] = (class << 4) as u8;
    header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    header[6] = next;
    header[7] = 64;
    header[8..24].fill(1);
    header[24..40].fill(2);
    header.extend(payload);
    header
}

/// `headers` one after the other (protocol number, length in bytes), then `last`.
fn extended(headers: &[(u8, usize)], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (place, &(_, length)) in headers.iter().enumerate() {
        let next = headers.get(place + 1).map_or(last, |&(number, _)| number);
        let mut header = vec![0; length];
        header[0] = next;
        header[1] = (length / 8 - 1) as u8;
        bytes.extend(header);
    }
    bytes.extend(payload);
    ipv6(headers.first().map_or(last, |&(number, _)| number), &bytes)
}

#[test]
fn tcp_over_both_versions() {
    assert_eq!(read(&ethernet(&[], IPV4, &ipv4(6, 0, &tcp()))), TCP);
    assert_eq!(read(&ethernet(&[], IPV4, &ipv4(6, 40, &tcp()))), TCP);
    assert_eq!(read(&ethernet(&[], IPV6, &ipv6(6, &tcp()))), TCP6);
}

#[test]
fn udp_has_ports_too() {
    let udp = |length: u16| {
        let mut header = vec![0; 8];
        header[..2].copy_from_slice(&40000_u16.to_be_bytes());
        header[2..4].copy_from_slice(&7000_u16.to_be_bytes());
        header[4..6].copy_from_slice(&length.to_be_bytes());
        header
    };
    for length in [8, 1400, 0] {
        let found = read(&ethernet(&[], IPV4, &ipv4(17, 0, &udp(length))));
        assert_eq!(found, segment(PROTOCOL_UDP, IPV4_ENDS), "{length}");
    }
    assert_eq!(read(&ethernet(&[0x8100], IPV6, &ipv6(17, &udp(8)))), segment(PROTOCOL_UDP, IPV6_ENDS));
    assert_eq!(read(&ethernet(&[], IPV4, &ipv4(17, 0, &udp(7)))), Found::Odd(Oddity::HeaderLength));
    assert_eq!(read(&ethernet(&[], IPV6, &ipv6(17, &udp(8)[..7]))), Found::Odd(Oddity::Truncated));
}

#[test]
fn vlan_tags_are_followed_up_to_two() {
    for tags in [&[0x8100][..], &[0x88a8, 0x8100], &[0x9100, 0x8100], &[0x8100, 0x8100]] {
        assert_eq!(read(&ethernet(tags, IPV4, &ipv4(6, 0, &tcp()))), TCP, "{tags:x?}");
        assert_eq!(read(&ethernet(tags, IPV6, &ipv6(6, &tcp()))), TCP6, "{tags:x?}");
    }
    let deep = vec![0x8100; VLAN_TAGS_MAX + 1];
    assert_eq!(read(&ethernet(&deep, IPV4, &ipv4(6, 0, &tcp()))), Found::Odd(Oddity::VlanDepth));
}

#[test]
fn fragments_have_no_ports() {
    for field in [0x2000_u16, 0x0001, 0x1fff, 0x2001] {
        let mut packet = ipv4(6, 0, &tcp());
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        assert_eq!(read(&ethernet(&[], IPV4, &packet)), Found::Fragment, "{field:x}");
    }
    let mut whole = ipv4(6, 0, &tcp());
    whole[6..8].copy_from_slice(&0x4000_u16.to_be_bytes());
    assert_eq!(read(&ethernet(&[], IPV4, &whole)), TCP, "don't-fragment is no fragment");
    assert_eq!(read(&ethernet(&[], IPV6, &extended(&[(44, 8)], 6, &tcp()))), Found::Fragment);
    assert_eq!(read(&ethernet(&[], IPV6, &extended(&[(0, 8), (44, 8)], 6, &tcp()))), Found::Fragment);
}

#[test]
fn extension_headers_are_followed_and_bounded() {
    assert_eq!(read(&ethernet(&[], IPV6, &extended(&[(0, 8), (60, 24), (43, 16)], 6, &tcp()))), TCP6);
    let most = vec![(60, 8); EXTENSIONS_MAX];
    assert_eq!(read(&ethernet(&[], IPV6, &extended(&most, 6, &tcp()))), TCP6);
    let more = vec![(60, 8); EXTENSIONS_MAX + 1];
    assert_eq!(read(&ethernet(&[], IPV6, &extended(&more, 6, &tcp()))), Found::Odd(Oddity::ExtensionDepth));
    // An authentication header is not followed: what comes after it is not read as ports.
    assert_eq!(read(&ethernet(&[], IPV6, &extended(&[(51, 24)], 6, &tcp()))), Found::Ip { dscp: 10 });
}

#[test]
fn other_protocols_have_their_dscp_only() {
    assert_eq!(read(&ethernet(&[], IPV4, &ipv4(132, 0, &tcp()))), Found::Ip { dscp: 10 });
    assert_eq!(read(&ethernet(&[], IPV6, &ipv6(58, &[0; 8]))), Found::Ip { dscp: 10 });
    assert_eq!(read(&ethernet(&[], 0x0806, &[0; 28])), Found::NotIp);
}

#[test]
fn contradictions_are_odd() {
    let odd = |payload: &[u8], ether_type| read(&ethernet(&[], ether_type, payload));
    assert_eq!(odd(&ipv6(6, &tcp()), IPV4), Found::Odd(Oddity::Version));
    assert_eq!(odd(&ipv4(6, 0, &tcp()), IPV6), Found::Odd(Oddity::Version));
    let mut short_header = ipv4(6, 0, &tcp());
    short_header[0] = 0x44;
    assert_eq!(odd(&short_header, IPV4), Found::Odd(Oddity::HeaderLength));
    let mut short_total = ipv4(6, 0, &tcp());
    short_total[2..4].copy_from_slice(&19_u16.to_be_bytes());
    assert_eq!(odd(&short_total, IPV4), Found::Odd(Oddity::HeaderLength));
    let mut short_tcp = tcp();
    short_tcp[12] = 4 << 4;
    assert_eq!(odd(&ipv4(6, 0, &short_tcp), IPV4), Found::Odd(Oddity::HeaderLength));
}

#[test]
fn offload_above_64_kib_writes_no_total_length() {
    let mut packet = ipv4(6, 0, &tcp());
    packet[2..4].copy_from_slice(&[0, 0]);
    assert_eq!(read(&ethernet(&[], IPV4, &packet)), TCP);
}

#[test]
fn every_cut_is_truncated_and_never_a_wrong_port() {
    let whole = [
        ethernet(&[0x88a8, 0x8100], IPV4, &ipv4(6, 8, &tcp())),
        ethernet(&[], IPV6, &extended(&[(0, 8), (60, 16)], 6, &tcp())),
    ];
    for (Frame(bytes), expected) in whole.into_iter().zip([TCP, TCP6]) {
        assert_eq!(read(&Frame(bytes.clone())), expected);
        // The last six bytes of the TCP header are not looked at.
        for length in 0..bytes.len() - 6 {
            let reading = read(&Frame(bytes[..length].to_vec()));
            assert_eq!(reading, Found::Odd(Oddity::Truncated), "{length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn noise_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200_000_u32 {
        let mut bytes = Vec::new();
        for _ in 0..(round % 96) / 8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend((state ^ (state >> 29)).to_le_bytes());
        }
        if bytes.len() > 15 {
            let kinds = [[0x08, 0x00, 0x45], [0x86, 0xdd, 0x60], [0x81, 0x00, 0x00], [0x08, 0x00, 0x4f]];
            bytes[12..15].copy_from_slice(&kinds[round as usize % kinds.len()]);
        }
        read(&Frame(bytes));
    }
}
