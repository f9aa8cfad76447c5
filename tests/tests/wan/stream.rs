//! Streams of TCP through everything that a link may do to them: every byte arrives, in order, once.
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use dwcp_sys::socket::set_congestion_control;
use dwcp_wan::emulator::Offload;
use dwcp_wan::{Emulator, Link, Snapshot};

use crate::{both_ways, start};

const BYTES: usize = 6 << 20;

#[test]
fn a_lossy_link_alters_nothing() {
    let spec = "rate=200mbit,delay=3ms,jitter=1ms,loss=1%,reorder=0.5%@2ms,duplicate=0.5%,outage=200ms+50ms";
    for offload in [Offload::On, Offload::Off] {
        let Some(emulator) = start(&Link { offload, ..both_ways(spec) }) else { return };
        let (sent, received) = through(&emulator, SocketAddr::new(Emulator::ADDRESSES[1], 0));
        assert_eq!(sent, received, "{offload:?}");
        let Some(Snapshot { there, .. }) = emulator.stop() else { return };
        assert!(there.lost > 20 && there.reordered > 5 && there.duplicated > 5, "{}", there.json());
    }
}

#[test]
fn ipv6_and_large_packets_pass() {
    let link = Link { mtu_bytes: 9_000, ..both_ways("rate=500mbit,delay=1ms,loss=0.5%") };
    let Some(emulator) = start(&link) else { return };
    let (sent, received) = through(&emulator, SocketAddr::new(Emulator::ADDRESSES_6[1], 0));
    assert_eq!(sent, received);
    let Some(snapshot) = emulator.stop() else { return };
    assert!(snapshot.there.lost > 0, "{}", snapshot.json());
}

/// Sends through the link; the digests of what was sent and of what arrived.
fn through(emulator: &Emulator, address: SocketAddr) -> (blake3::Hash, blake3::Hash) {
    let listener = emulator.second().run(|| TcpListener::bind(address)).unwrap();
    let target = listener.local_addr().unwrap();
    let mut sender = emulator.first().run(|| TcpStream::connect(target)).unwrap();
    // Cubic takes its time at these losses; where there is no bbr, it does.
    set_congestion_control(&sender, "bbr").unwrap_or_default();
    let sending = std::thread::spawn(move || -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        for number in 0..BYTES / (1 << 16) {
            let block: Vec<u8> =
                (0..1_usize << 16).map(|at| (at * 131 + number * 7 + (at >> 8)) as u8).collect();
            hasher.update(&block);
            sender.write_all(&block)?;
        }
        Ok(hasher.finalize())
    });
    let (mut receiver, _) = listener.accept().unwrap();
    let mut bytes = Vec::with_capacity(BYTES);
    receiver.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), BYTES);
    (sending.join().unwrap().unwrap(), blake3::hash(&bytes))
}
