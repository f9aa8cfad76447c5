//! `bench versions`: the next version of a file over an emulated link of 200 Mbit/s and 50 ms, from the order to the receipt,
//! where the former one is at the receiver: two dataplanes as they come out of the box that have sent the former version,
//! beside `rsync -z` and its daemon. Version pairs of `../shared/data/hde`; a word behind the name selects the pairs that
//! contain it.
//!
//! Targets: five times as fast as rsync over the set, and on no pair slower.
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dwcp_benches::data::{self, Pair};
use dwcp_benches::far::FarPair;
use dwcp_benches::measure::median;
use dwcp_benches::node::CUBIC;
use dwcp_benches::peers::installed;
use dwcp_benches::report::load;
use dwcp_benches::road::{Road, SECOND, SLOW_LINK, rsync_daemon, start};
use dwcp_benches::scratch::{Scratch, same};
use dwcp_benches::setting;
use dwcp_wan::{Emulator, unavailable};

/// One way to send one version.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    seconds: f64,
    /// What crossed the link in the payload's direction, with all headers.
    bytes: u64,
}

fn main() -> Result<()> {
    if let Some(reason) = unavailable() {
        println!("bench versions: skipped: {reason}");
        return Ok(());
    }
    let only = std::env::args().nth(1).unwrap_or_default();
    let Some(pairs) = data::pairs(&only)? else {
        println!("bench versions: skipped: there is no ../shared/data/hde");
        return Ok(());
    };
    let rounds = setting("DWCP_BENCH_ROUNDS", 3).max(1);
    println!(
        "{:<24} {:>6} {:>10} {:>8} {:>10} {:>8} {:>10} {:>8} {:>7}",
        "pair", "MB", "first B", "first s", "bytes", "s", "rsync B", "rsync s", "faster"
    );
    let mut all = [Sent::default(); 3];
    let (mut slower, mut rows) = (0, Vec::new());
    for pair in &pairs {
        let measured: Vec<[Sent; 3]> = (0..rounds).map(|_| measure(pair)).collect::<Result<_>>()?;
        let figures = [0, 1, 2].map(|way| Sent {
            seconds: median(measured.iter().map(|round| round[way].seconds).collect()),
            bytes: measured[0][way].bytes,
        });
        print(&pair.name, pair.target.len(), figures);
        for (sum, sent) in all.iter_mut().zip(figures) {
            sum.seconds += sent.seconds;
            sum.bytes += sent.bytes;
        }
        slower += usize::from(figures[1].seconds > figures[2].seconds);
        rows.push(serde_json::json!({
            "pair": pair.name, "seconds": figures[1].seconds, "bytes": figures[1].bytes,
            "rsync_seconds": figures[2].seconds, "rsync_bytes": figures[2].bytes,
        }));
    }
    print("all", pairs.iter().map(|pair| pair.target.len()).sum(), all);
    println!(
        "{slower} of {} pairs slower than rsync; {rounds} rounds, {}, load {}",
        pairs.len(),
        SLOW_LINK.name,
        load()
    );
    println!(
        "{}",
        serde_json::json!({
            "bench": "versions", "faster": all[2].seconds / all[1].seconds, "slower_pairs": slower, "rows": rows,
        })
    );
    Ok(())
}

fn print(name: &str, plain: usize, [first, ours, rsync]: [Sent; 3]) {
    println!(
        "{name:<24} {:>6.1} {:>10} {:>8.3} {:>10} {:>8.3} {:>10} {:>8.3} {:>7.2}",
        plain as f64 / 1e6,
        first.bytes,
        first.seconds,
        ours.bytes,
        ours.seconds,
        rsync.bytes,
        rsync.seconds,
        rsync.seconds / ours.seconds
    );
}

/// The former version for the first time, the next one, and the next one by rsync; each pair of nodes on a link of its own.
fn measure(pair: &Pair) -> Result<[Sent; 3]> {
    let scratch = Scratch::new()?;
    let road = Road::lay(&SLOW_LINK)?;
    let source = scratch.path().join(&pair.name);
    fs::write(&source, &pair.baseline)?;
    let mut nodes = FarPair::start(&scratch, (road.first(), road.second()), Emulator::ADDRESSES[1], CUBIC)?;
    nodes.send(&scratch.file("warm", 4_000_000)?)?;
    await_kept(&nodes, 1)?;
    let first = timed(&road, || nodes.send(&source))?;
    await_kept(&nodes, 2)?;
    fs::write(&source, &pair.target)?;
    sleep(PAUSE);
    let ours = timed(&road, || nodes.send(&source))?;
    same(&source, &nodes.arrived().join(&pair.name))?;
    drop(nodes);
    let rsync = if installed("rsync") { rsync(&road, &scratch, &source, pair)? } else { Sent::default() };
    road.close()?;
    Ok([first, ours, rsync])
}

fn await_kept(nodes: &FarPair, versions: u64) -> Result<()> {
    let begun = Instant::now();
    while nodes.kept()? < versions {
        ensure!(begun.elapsed() < Duration::from_secs(30), "what was sent is not kept");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn timed(road: &Road, work: impl FnOnce() -> Result<()>) -> Result<Sent> {
    let (seconds, counted) = road.count(|| {
        let begun = Instant::now();
        work()?;
        Ok(begun.elapsed().as_secs_f64())
    })?;
    Ok(Sent { seconds, bytes: counted.all.bytes })
}

fn rsync(road: &Road, scratch: &Scratch, source: &Path, pair: &Pair) -> Result<Sent> {
    let (_daemon, to) = rsync_daemon(road, scratch, PORT)?;
    let there = to.join(&pair.name);
    fs::write(&there, &pair.baseline)?;
    // Otherwise it may take two versions of the same second and size for the same.
    fs::File::options().write(true).open(&there)?.set_modified(std::time::UNIX_EPOCH)?;
    let sent = timed(road, || {
        let mut client = Command::new("rsync");
        client.args(["-a", "-z"]).arg(source).arg(format!("rsync://{SECOND}:{PORT}/data/"));
        let status = start(road.first(), client.stdout(Stdio::null()))?.0.wait()?;
        ensure!(status.success(), "rsync: {status}");
        Ok(())
    })?;
    same(source, &there)?;
    Ok(sent)
}

const PORT: u16 = 5_202;
/// Between two versions.
const PAUSE: Duration = Duration::from_millis(500);
