//! Super-packets of every kind cut into runs, runs cut again, and what a receiver would check of each.
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Made {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

const ALL: [Made; 4] = [Made::Tcp4, Made::Tcp6, Made::Udp4, Made::Udp6];
const OPTIONS_BYTES: usize = 12;

/// As the kernel hands it over.
fn super_packet(made: Made, segment_bytes: u16, payload_bytes: usize, sequence: u32) -> Vec<u8> {
    let is_six = matches!(made, Made::Tcp6 | Made::Udp6);
    let is_tcp = matches!(made, Made::Tcp4 | Made::Tcp6);
    let transport = if is_six { IPV6_BYTES } else { IPV4_BYTES };
    let transport_bytes = if is_tcp { TCP_BYTES + OPTIONS_BYTES } else { UDP_BYTES };
    let total = transport + transport_bytes + payload_bytes;
    let mut packet = vec![0; transport + transport_bytes];
    let protocol = if is_tcp { 6 } else { 17 };
    if is_six {
        packet[0] = 0x60;
        put(&mut packet, 4, (total - IPV6_BYTES) as u16);
        (packet[6], packet[7], packet[8], packet[24]) = (protocol, 64, 0xfd, 0xfd);
    } else {
        packet[0] = 0x45;
        put(&mut packet, 2, total as u16);
        put(&mut packet, 4, 0xfffe);
        (packet[8], packet[9], packet[12], packet[16]) = (64, protocol, 10, 10);
    }
    if is_tcp {
        packet[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
        packet[transport + 12] = ((transport_bytes / 4) << 4) as u8;
        packet[transport + 13] = 0x10 | TCP_CWR | TCP_PSH | TCP_FIN;
    } else {
        put(&mut packet, transport + 4, (UDP_BYTES + payload_bytes) as u16);
    }
    let header = VirtualHeader {
        flags: 1,
        segmentation: if !is_tcp {
            5
        } else if is_six {
            4
        } else {
            1
        },
        header_bytes: 0,
        segment_bytes,
        checksum_start: transport as u16,
        checksum_offset: if is_tcp { 16 } else { 6 },
    };
    let payload = (0..payload_bytes).map(|index| (index * 31 % 251) as u8);
    header.encode().into_iter().chain(packet).chain(payload).collect()
}

fn run(bytes: &[u8], first: u16, count: u16) -> Vec<u8> {
    let Seen::Packet(shape) = look(bytes) else { panic!("not a packet") };
    let (headers, payload) = Headers::of_run(bytes, &shape, first, count);
    [headers.as_slice(), &bytes[payload]].concat()
}

fn shape_of(bytes: &[u8]) -> Shape {
    match look(bytes) {
        Seen::Packet(shape) => shape,
        other => panic!("{other:?}"),
    }
}

/// What a receiver checks of a packet of one segment, once a device has completed its checksum.
fn check(bytes: &[u8]) {
    let header = VirtualHeader::parse(bytes.first_chunk().unwrap());
    let packet = &bytes[VirtualHeader::BYTES..];
    let transport = usize::from(header.checksum_start);
    let (length, protocol, addresses) = if packet[0] >> 4 == 6 {
        (IPV6_BYTES + words(&packet[4..6]) as usize, packet[6], &packet[8..40])
    } else {
        assert_eq!(folded(words(&packet[..IPV4_BYTES])), 0xffff, "checksum of IP");
        (words(&packet[2..4]) as usize, packet[9], &packet[12..20])
    };
    assert_eq!(length, packet.len());
    // The device sums from the start to the end, over what stands in the field, and puts the complement there.
    let mut completed = packet.to_vec();
    let sum = !folded(words(&packet[transport..]));
    put(&mut completed, transport + usize::from(header.checksum_offset), sum);
    let whole = words(addresses)
        + u64::from(protocol)
        + (packet.len() - transport) as u64
        + words(&completed[transport..]);
    assert_eq!(folded(whole), 0xffff, "checksum of the transport");
    if protocol == 17 {
        assert_eq!(words(&packet[transport + 4..transport + 6]) as usize, packet.len() - transport);
    }
}

#[test]
fn every_segment_is_a_sound_packet() {
    for made in ALL {
        let bytes = super_packet(made, 1_400, 10_000, 0xffff_f000);
        let shape = shape_of(&bytes);
        assert_eq!(shape.segments(), 8, "{made:?}");
        let mut payload: Vec<u8> = Vec::new();
        for segment in 0..8 {
            let single = run(&bytes, segment, 1);
            check(&single);
            assert_eq!((single[1], single.len() as u64), (0, 10 + shape.segment_bytes(segment)), "{made:?}");
            payload.extend(&single[10 + usize::from(shape.header_bytes)..]);
        }
        assert_eq!(payload, bytes[10 + usize::from(shape.header_bytes)..], "{made:?}");
    }
}

#[test]
fn flags_of_tcp_stay_with_their_segment() {
    let bytes = super_packet(Made::Tcp4, 1_000, 3_000, 0xffff_ff00);
    let flags = |first, count| run(&bytes, first, count)[10 + IPV4_BYTES + 13];
    assert_eq!(flags(0, 1), 0x10 | TCP_CWR);
    assert_eq!(flags(1, 1), 0x10);
    assert_eq!(flags(1, 2), 0x10 | TCP_PSH | TCP_FIN);
    assert_eq!(flags(0, 3), 0x10 | TCP_CWR | TCP_PSH | TCP_FIN);
    let second = run(&bytes, 1, 1);
    assert_eq!(second[10 + IPV4_BYTES + 4..][..4], 0xffff_ff00_u32.wrapping_add(1_000).to_be_bytes());
    assert_eq!(second[10 + 4..][..2], 0xffff_u16.to_be_bytes());
}

#[test]
fn a_packet_of_one_segment_passes_untouched() {
    let mut bytes = super_packet(Made::Udp4, 0, 700, 0);
    bytes[1] = SEGMENTATION_NONE;
    assert_eq!(run(&bytes, 0, 1), bytes);
    assert_eq!((shape_of(&bytes).segments(), shape_of(&bytes).segment_bytes(0)), (1, 728));
}

#[test]
fn groups_of_hosts_are_told_apart() {
    let mut bytes = super_packet(Made::Udp4, 1_000, 3_000, 0);
    bytes[10 + 16] = 224;
    assert_eq!(look(&bytes), Seen::Multicast);
    let mut bytes = super_packet(Made::Udp6, 1_000, 3_000, 0);
    bytes[10 + 24] = 0xff;
    assert_eq!(look(&bytes), Seen::Multicast);
}

proptest! {
    #[test]
    fn runs_of_runs_are_runs(
        made in 0..4_usize,
        segment_bytes in 8..9_000_u16,
        payload_bytes in 100..60_000_usize,
        sequence: u32,
        places: [prop::sample::Index; 4],
    ) {
        let bytes = super_packet(ALL[made], segment_bytes, payload_bytes, sequence);
        let segments = usize::from(shape_of(&bytes).segments());
        let first = places[0].index(segments);
        let count = 1 + places[1].index(segments - first);
        let outer = run(&bytes, first as u16, count as u16);
        prop_assert_eq!(usize::from(shape_of(&outer).segments()), count);
        let inner_first = places[2].index(count);
        let inner_count = 1 + places[3].index(count - inner_first);
        // One of a run's own segments is what it would have been of the whole.
        let direct = run(&bytes, (first + inner_first) as u16, inner_count as u16);
        prop_assert_eq!(run(&outer, inner_first as u16, inner_count as u16), direct);
    }

    #[test]
    fn any_bytes_are_looked_at_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Seen::Packet(shape) = look(&bytes) {
            for segment in 0..shape.segments().min(50) {
                run(&bytes, segment, 1);
            }
        }
    }
}
