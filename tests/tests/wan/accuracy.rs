//! Delay and rate.
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use dwcp_sys::socket::tcp_figures;
use dwcp_wan::Emulator;

use crate::{both_ways, start};

/// Handshakes of TCP, which the kernel makes and times by itself: no thread has to be woken up. A busy machine delays
/// some of them, but not each of so many.
const EXCHANGES_MAX: usize = 150;
const ERROR_MAX: Duration = Duration::from_micros(250);
/// The kernel counts microseconds.
const ROUNDING: Duration = Duration::from_micros(2);
/// Two directions that are later than this cannot keep to the error.
const LATE_MAX: Duration = Duration::from_micros(100);

#[test]
fn round_trips_take_what_was_asked() {
    for round_trip_ms in [10, 50, 100, 200] {
        let one_way_us = round_trip_ms * 500;
        let Some(emulator) = start(&both_ways(&format!("rate=1gbit,delay={one_way_us}us"))) else { return };
        let wanted = Duration::from_millis(round_trip_ms);
        let mut best = Duration::MAX;
        let listener = listening(&emulator);
        let target = listener.local_addr().unwrap();
        for _ in 0..EXCHANGES_MAX {
            let caller = emulator.first().run(|| TcpStream::connect(target)).unwrap();
            let taken = Duration::from_micros(u64::from(tcp_figures(&caller).unwrap().rtt_min_us));
            assert!(taken + ROUNDING >= wanted, "{round_trip_ms} ms took {taken:?}");
            best = best.min(taken);
            if best.saturating_sub(wanted) <= ERROR_MAX {
                break;
            }
        }
        let Some(snapshot) = emulator.stop() else { return };
        let late = Duration::from_nanos(snapshot.there.late.mean_ns().max(snapshot.back.late.mean_ns()));
        if best > wanted + ERROR_MAX && late > LATE_MAX {
            println!("skipped: this machine is too busy, segments left {late:?} late in the mean");
            return;
        }
        assert!(best <= wanted + ERROR_MAX, "{round_trip_ms} ms took at least {best:?}");
    }
}

fn listening(emulator: &Emulator) -> TcpListener {
    emulator.second().run(|| TcpListener::bind(SocketAddr::new(Emulator::ADDRESSES[1], 0))).unwrap()
}

/// The rate is that of the bottleneck, which was never idle: 1448 of 1500 bytes of each segment are payload.
#[test]
fn a_stream_fills_the_link_and_no_more() {
    let Some(emulator) = start(&both_ways("rate=200mbit,delay=5ms")) else { return };
    let listener = listening(&emulator);
    let target = listener.local_addr().unwrap();
    let mut sender = emulator.first().run(|| TcpStream::connect(target)).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    // Ends by the reset that closing the receiver's socket brings.
    let sending = std::thread::spawn(move || -> io::Result<()> {
        let block = vec![7; 1 << 18];
        loop {
            sender.write_all(&block)?;
        }
    });
    let mut block = vec![0; 1 << 18];
    let mut read_for = |time: Duration| {
        let (begun, mut bytes) = (Instant::now(), 0);
        while begun.elapsed() < time {
            bytes += receiver.read(&mut block).unwrap();
        }
        (bytes as f64, begun.elapsed())
    };
    read_for(Duration::from_millis(700));
    let before = emulator.snapshot();
    let (bytes, taken) = read_for(Duration::from_millis(1_500));
    let after = emulator.snapshot();
    drop(receiver);
    assert!(sending.join().unwrap().is_err());
    let Some(total) = emulator.stop() else { return };
    let share = bytes * 8.0 / taken.as_secs_f64() / 200e6;
    // What was in the receiver's buffer when the window began is not of the link's making, but it is bounded.
    assert!(share < 0.985, "{share:.4} of the rate");
    let idle = after.there.since(&before.there).idle_ns;
    if total.void().is_some() || idle > 0 {
        println!("skipped: the link was idle for {} us, this machine was too busy to fill it", idle / 1_000);
        return;
    }
    let window_ns = (after.at_ns - before.at_ns) as f64;
    let wire = after.there.since(&before.there).delivered_bytes as f64 * 8.0 / window_ns * 1e9;
    assert!((wire / 200e6 - 1.0).abs() < 0.02, "{wire} bit/s left a link that was never idle");
    assert!((share - 0.965).abs() < 0.02, "{share:.4} of the rate");
}
