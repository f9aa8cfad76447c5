//! `bench consensus`: four replicas as processes of their own on loopback, one client process (this one) with a connection
//! to each. A transaction counts when the slowest of the four has applied it, by the order that is certain.
//!
//! Replicas use the crate as control does (one thread, one replica through epochs), without control's HTTP and its
//! commands: what is measured is agreement, the network between the replicas, and records as the row says. Clients
//! do not sign; the application only counts.
mod client;
mod replica;
mod wire;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dwcp_benches::measure::process_cpu;
use dwcp_benches::report::load;
use dwcp_benches::scratch::Scratch;
use dwcp_benches::setting;
use dwcp_consensus::ProtocolKind;

/// One row.
#[derive(Debug, Clone, Copy)]
struct Row {
    protocol: ProtocolKind,
    tls: bool,
    durability: Durability,
}

/// What becomes of records before anything leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Nothing: memory of a quorum.
    Memory,
    /// Written to a file, not flushed.
    PageCache,
    /// Written and flushed (fdatasync) once a turn.
    Flushed,
}

impl Durability {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Memory, "memory"), (Self::PageCache, "page-cache"), (Self::Flushed, "fdatasync")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }
}

/// Replicas of a row.
const REPLICAS: u16 = 4;
/// Bytes of a transaction's payload.
const PAYLOAD_BYTES: usize = 512;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--replica") {
        return replica::run(&arguments[1..]);
    }
    let scratch = Scratch::new()?;
    let window = Duration::from_secs(setting("DWCP_BENCH_SECONDS", 8));
    println!(
        "4 replicas, {PAYLOAD_BYTES}-byte transactions, batches of up to 500 kB or 10 ms, window {} s after 2 s, {} cores, load {}",
        window.as_secs(),
        std::thread::available_parallelism().map_or(0, usize::from),
        load()
    );
    println!("protocol   TLS  durability     tx/s  CPU-µs/tx  cores  p50 ms  p99 ms  batch tx");
    for protocol in [ProtocolKind::Bullshark, ProtocolKind::Pbft] {
        for (tls, durability) in [
            (false, Durability::Memory),
            (true, Durability::Memory),
            (true, Durability::PageCache),
            (true, Durability::Flushed),
        ] {
            let row = Row { protocol, tls, durability };
            let wanted = arguments.is_empty()
                || arguments.iter().all(|word| [protocol.name(), durability.name()].contains(&word.as_str()));
            if wanted {
                measure(row, &scratch, window)?;
            }
        }
    }
    Ok(())
}

fn measure(row: Row, scratch: &Scratch, window: Duration) -> Result<()> {
    let folder = scratch.fresh("replicas")?;
    std::fs::create_dir_all(&folder)?;
    let mut replicas = Vec::new();
    for number in 0..REPLICAS {
        replicas.push(Replica::start(row, number, &folder)?);
    }
    let pids: Vec<u32> = replicas.iter().map(|replica| replica.0.id()).collect();
    let figures = client::drive(window, || pids.iter().map(|pid| process_cpu(*pid)).sum())
        .with_context(|| format!("{row:?}"))?;
    ensure!(figures.transactions > 0, "nothing was applied: {row:?}");
    let (seconds, count) = (figures.seconds, figures.transactions as f64);
    println!(
        "{:<10} {:<4} {:<10} {:>8.0}  {:>9.2}  {:>5.2}  {:>6.1}  {:>6.1}  {:>8.0}",
        row.protocol.name(),
        if row.tls { "yes" } else { "no" },
        row.durability.name(),
        count / seconds,
        figures.cpu_s * 1e6 / count,
        figures.cpu_s / seconds,
        figures.latency_ms(500),
        figures.latency_ms(990),
        figures.batch,
    );
    Ok(())
}

/// A process that is ended with the row.
struct Replica(Child);

impl Replica {
    fn start(row: Row, number: u16, folder: &std::path::Path) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("--replica").arg(row.protocol.name()).arg(if row.tls { "tls" } else { "plain" });
        command.arg(row.durability.name()).arg(number.to_string()).arg(folder);
        Ok(Self(command.stdin(Stdio::null()).spawn().context("start a replica")?))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
