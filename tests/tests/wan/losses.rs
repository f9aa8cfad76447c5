//! Losses: as many as asked, and the same ones for a seed, however the kernel packs the segments.
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dwcp_wan::emulator::Offload;
use dwcp_wan::{Emulator, Link};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{both_ways, start};

const DATAGRAM_BYTES: usize = 300;
/// As many as one send may hold with segmentation left to the kernel.
const TRAIN: usize = 20;

#[test]
fn losses_are_as_many_as_asked() {
    let link = both_ways("loss=1%");
    let Some((received, snapshot)) = datagrams(&link, 80_000, Packing::Trains) else { return };
    let share = snapshot.there.lost as f64 / snapshot.there.segments as f64;
    assert_eq!(snapshot.there.segments, 80_000);
    assert!((0.009..=0.011).contains(&share), "{share}");
    assert_eq!(received.len() as u64, 80_000 - snapshot.there.lost);
}

#[test]
fn a_seed_loses_the_same_datagrams_with_and_without_offload() {
    let on = Link { seed: 77, ..both_ways("loss=2%") };
    let off = Link { offload: Offload::Off, ..on.clone() };
    let other = Link { seed: 78, ..on.clone() };
    let run = |link: &Link, packing| datagrams(link, 10_000, packing).map(|(received, _)| received);
    let Some(trains) = run(&on, Packing::Trains) else { return };
    assert!((9_500..9_900).contains(&trains.len()), "{}", trains.len());
    for (link, packing) in [(&on, Packing::Single), (&off, Packing::Trains), (&off, Packing::Single)] {
        let Some(received) = run(link, packing) else { return };
        assert!(received == trains, "{:?}, {packing:?}", link.offload);
    }
    let Some(others) = run(&other, Packing::Trains) else { return };
    assert_ne!(others, trains);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Packing {
    /// Many datagrams to a send (UDP_SEGMENT, udp(7)).
    Trains,
    Single,
}

/// Sends numbered datagrams from the first end to the second; which arrived. `None` = there is no link, or it could not carry all.
fn datagrams(link: &Link, count: usize, packing: Packing) -> Option<(BTreeSet<u32>, dwcp_wan::Snapshot)> {
    let emulator = start(link)?;
    let bind = |end: usize| UdpSocket::bind(SocketAddr::new(Emulator::ADDRESSES[end], 0));
    let sender = emulator.first().run(|| bind(0)).unwrap();
    let receiver = emulator.second().run(|| bind(1)).unwrap();
    // Room for all of them: a receiver that comes late must not add losses of its own.
    setsockopt(&receiver, sockopt::RcvBufForce, &(256 << 20)).unwrap();
    receiver.set_nonblocking(true).unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    if packing == Packing::Trains {
        setsockopt(&sender, sockopt::UdpGsoSegment, &(DATAGRAM_BYTES as i32)).unwrap();
    }
    let per_send = if packing == Packing::Trains { TRAIN } else { 1 };
    let mut block = vec![0; per_send * DATAGRAM_BYTES];
    for first in (0..count).step_by(per_send) {
        for (place, number) in block.chunks_mut(DATAGRAM_BYTES).zip(first as u32..) {
            place[..4].copy_from_slice(&number.to_le_bytes());
        }
        sender.send(&block).unwrap();
        // The device holds thousands of packets, but not all of these.
        await_segments(&emulator, (first as u64).saturating_sub(4_000));
    }
    await_segments(&emulator, count as u64);
    let snapshot = emulator.stop()?;
    let mut received = BTreeSet::new();
    while let Ok(length) = receiver.recv(&mut block) {
        assert_eq!(length, DATAGRAM_BYTES);
        received.extend(block.first_chunk().map(|number| u32::from_le_bytes(*number)));
    }
    Some((received, snapshot))
}

/// Waits until the link has decided on so many segments.
fn await_segments(emulator: &Emulator, wanted: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let there = emulator.snapshot().there;
        if there.delivered + there.lost >= wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{wanted} segments: {:?}", there.segments);
        std::thread::yield_now();
    }
}
