//! The client: keeps so many transactions in flight at each replica, and sees how many each has applied.
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dwcp_benches::measure::process_cpu;
use dwcp_benches::setting;

use super::{PAYLOAD_BYTES, REPLICAS, wire};

/// What a window came to.
pub(super) struct Figures {
    pub(super) seconds: f64,
    /// Applied by the slowest replica within the window.
    pub(super) transactions: u64,
    /// Of all replicas and of this process.
    pub(super) cpu_s: f64,
    /// Transactions in a batch, on average.
    pub(super) batch: f64,
    latencies: Vec<Duration>,
}

impl Figures {
    pub(super) fn latency_ms(&self, per_mille: usize) -> f64 {
        let place = (self.latencies.len() * per_mille / 1000).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(place).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// One replica as its client sees it.
#[derive(Default)]
struct Seen {
    applied: AtomicU64,
    batches: AtomicU64,
    own: AtomicU64,
    refused: AtomicU64,
    /// When frames were sent, and how many transactions had been sent with each.
    sent: Mutex<VecDeque<(u64, Instant)>>,
    latencies: Mutex<Vec<Duration>>,
}

/// Drives all replicas for a window.
///
/// # Errors
/// A replica is gone, or refuses transactions: then nothing that was counted means anything.
pub(super) fn drive(window: Duration, cpu: impl Fn() -> Result<Duration>) -> Result<Figures> {
    let over = Arc::new(AtomicBool::new(false));
    let mut all = Vec::new();
    let mut threads = Vec::new();
    for number in 0..REPLICAS {
        let seen = Arc::new(Seen::default());
        let stream = wire::dial(number, 1)?;
        let (answers, reader, writer) = (stream.try_clone()?, Arc::clone(&seen), Arc::clone(&seen));
        std::thread::spawn(move || listen(answers, &reader));
        let over = Arc::clone(&over);
        threads.push(std::thread::spawn(move || submit(stream, &writer, &over)));
        all.push(seen);
    }
    std::thread::sleep(Duration::from_secs(2));
    all.iter().for_each(|seen| seen.latencies.lock().unwrap_or_else(PoisonError::into_inner).clear());
    let slowest = || all.iter().map(|seen| seen.applied.load(Ordering::Relaxed)).min().unwrap_or(0);
    let batches = || all[0].batches.load(Ordering::Relaxed);
    let own = || process_cpu(std::process::id());
    let (begin, before, cpu_before) = (Instant::now(), (slowest(), batches()), cpu()? + own()?);
    std::thread::sleep(window);
    let (seconds, after, cpu_after) =
        (begin.elapsed().as_secs_f64(), (slowest(), batches()), cpu()? + own()?);
    over.store(true, Ordering::Relaxed);
    let refused: u64 = all.iter().map(|seen| seen.refused.load(Ordering::Relaxed)).sum();
    ensure!(refused == 0, "{refused} transactions were refused");
    let mut latencies: Vec<Duration> = Vec::new();
    for seen in &all {
        latencies.extend(seen.latencies.lock().unwrap_or_else(PoisonError::into_inner).iter());
    }
    latencies.sort_unstable();
    // Threads end with their connections when the replicas do.
    drop(threads);
    let transactions = after.0 - before.0;
    let batch = transactions as f64 / (after.1 - before.1).max(1) as f64;
    Ok(Figures { seconds, transactions, cpu_s: (cpu_after - cpu_before).as_secs_f64(), batch, latencies })
}

fn submit(mut stream: std::net::TcpStream, seen: &Seen, over: &AtomicBool) -> Result<()> {
    let in_flight = setting("DWCP_BENCH_IN_FLIGHT", 16_384);
    let mut frame = Vec::new();
    wire::write_frame(&mut frame, &[7; PAYLOAD_BYTES * FRAME as usize])?;
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        if sent >= seen.own.load(Ordering::Relaxed) + in_flight {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        sent += FRAME;
        seen.sent.lock().unwrap_or_else(PoisonError::into_inner).push_back((sent, Instant::now()));
        stream.write_all(&frame)?;
    }
    Ok(())
}

fn listen(mut stream: std::net::TcpStream, seen: &Seen) -> Result<()> {
    loop {
        let mut bytes = [0; 32];
        stream.read_exact(&mut bytes)?;
        let count = |place: usize| {
            bytes[8 * place..8 * place + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        seen.applied.store(count(0), Ordering::Relaxed);
        seen.batches.store(count(1), Ordering::Relaxed);
        seen.own.store(count(2), Ordering::Relaxed);
        seen.refused.store(count(3), Ordering::Relaxed);
        // Batches of one author are applied in their order: so many applied are the first so many sent.
        let mut sent = seen.sent.lock().unwrap_or_else(PoisonError::into_inner);
        while sent.front().is_some_and(|(last, _)| *last <= count(2)) {
            let took = sent.pop_front().map(|(_, at)| at.elapsed());
            seen.latencies.lock().unwrap_or_else(PoisonError::into_inner).extend(took);
        }
    }
}

/// Transactions that are sent at a time.
const FRAME: u64 = 64;
