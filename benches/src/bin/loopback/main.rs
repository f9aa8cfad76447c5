//! `bench loopback`: memory to memory over loopback, TLS off, one pinned thread a side, cubic. Hot buffers against the
//! best of `iperf3 -P 1` and `-P 8` (target: at least 0.95 with chunk checksums on), and data walked from 1 GiB against
//! a plain blocking sender and receiver of the same data (target: at least 1.0).
mod plain;
mod side;

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use dwcp_benches::measure::{Cost, process_cpu};
use dwcp_benches::report::{Report, Variant};
use dwcp_benches::{peers, setting};
use dwcp_engine::LaneEnd;
use dwcp_sys::topology::pin_current_thread;
use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};
use side::{Data, Side};

const LANES: &[usize] = &[1, 4, 8, 16];

fn main() -> Result<()> {
    let bytes = setting("DWCP_BENCH_MIB", 4096) << 20;
    let rounds = setting("DWCP_BENCH_ROUNDS", 5);
    let mut variants: Vec<Variant<'_>> = vec![
        ("iperf3 -P 1".to_owned(), Box::new(|| peers::iperf3(1, bytes))),
        ("iperf3 -P 8".to_owned(), Box::new(|| peers::iperf3(8, bytes))),
    ];
    for &lanes in LANES {
        let run = move || engine(lanes, Data::Hot, bytes).map(Some);
        variants.push((format!("dwcp hot, {lanes} lanes"), Box::new(run)));
    }
    let hot = Report::run("loopback-hot", rounds, variants)?;
    hot.print();
    for &lanes in LANES {
        let label = format!("dwcp hot, {lanes} lanes");
        println!("{label}: {:.2} of the best iperf3 (target 0.95)", hot.share_of_best(&label, "iperf3"));
    }
    let memory: Vec<u8> =
        (0..WALKED_BYTES / 8).flat_map(|word: u64| word.wrapping_mul(GOLDEN).to_le_bytes()).collect();
    let memory = memory.as_slice();
    let mut variants: Vec<Variant<'_>> =
        vec![("plain, 1 GiB walked".to_owned(), Box::new(move || reference(memory, bytes).map(Some)))];
    for &lanes in LANES {
        let run = move || engine(lanes, Data::Walked(memory), bytes).map(Some);
        variants.push((format!("dwcp walked, {lanes} lanes"), Box::new(run)));
    }
    let walked = Report::run("loopback-walked", rounds, variants)?;
    walked.print();
    for &lanes in LANES {
        let label = format!("dwcp walked, {lanes} lanes");
        println!("{label}: {:.2} of the plain program (target 1.0)", walked.share_of_best(&label, "plain"));
    }
    Ok(())
}

/// Two engines, a thread each.
fn engine(lanes: usize, data: Data<'_>, bytes: u64) -> Result<Cost> {
    let (near, far) = connections(lanes)?;
    measured(
        bytes,
        move || {
            let mut sender = Side::new(near, LaneEnd::Dialled, data, bytes)?;
            sender.order();
            sender.run()
        },
        move || Side::new(far, LaneEnd::Accepted, Data::Hot, bytes)?.run(),
    )
}

fn reference(memory: &[u8], bytes: u64) -> Result<Cost> {
    let (mut near, mut far) = connections(1)?;
    let (near, far) = near.pop().zip(far.pop()).context("a connection")?;
    measured(bytes, move || plain::send(near, memory, bytes), move || plain::receive(far))
}

/// Runs both ends, each on its core, until the receiver has everything.
fn measured(
    bytes: u64,
    send: impl FnOnce() -> Result<()> + Send,
    receive: impl FnOnce() -> Result<()> + Send,
) -> Result<Cost> {
    let pid = std::process::id();
    let (start, before) = (Instant::now(), process_cpu(pid)?);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| pinned(1, receive));
        let sent = scope.spawn(|| pinned(0, send)).join();
        let received = receiver.join();
        sent.and_then(|sent| received.map(|received| sent.and(received)))
    })
    .ok()
    .context("a thread panicked")??;
    let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), (process_cpu(pid)? - before).as_secs_f64());
    Ok(Cost { wall_s, cpu_s, bytes })
}

fn pinned(core: usize, work: impl FnOnce() -> Result<()>) -> Result<()> {
    // A host with one core runs both there; the ratios tell.
    drop(pin_current_thread(core));
    work()
}

fn connections(count: usize) -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        setsockopt(&stream, TcpCongestion, &"cubic".into())?;
        near.push(stream);
        far.push(listener.accept()?.0);
    }
    Ok((near, far))
}

const WALKED_BYTES: u64 = 1 << 30;
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
