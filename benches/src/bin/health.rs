//! `bench health`: how control answers `/health` while a real transfer keeps the dataplanes' cores busy, whether its
//! answers cost the transfer anything, and how many it gives on one core. Targets: 99 of 100 within 1 ms, goodput within
//! 1 % at 1,000 requests per second, 10,000 requests per second.
//!
//! One worker a side, on cores 0 and 1: every core that control may run on is a worker's. The client asks
//! by a clock and runs ahead of everything else (SCHED_FIFO, where it may). Beside control it asks a thread that only sends the same bytes back: what that one
//! takes on this machine at this moment is the floor that no server gets below.
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dwcp_benches::http::Connection;
use dwcp_benches::measure::{median, process_cpu};
use dwcp_benches::report::load;
use dwcp_benches::scratch::Scratch;
use dwcp_benches::setting;
use dwcp_benches::site::Site;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

fn main() -> Result<()> {
    let scratch = Scratch::new()?;
    let source = scratch.file("source", setting("DWCP_BENCH_MIB", 1024) << 20)?;
    let root = scratch.fresh("sites")?;
    let sender = Site::start(root.join("a"), "left", 0)?;
    let receiver = Site::start(root.join("b"), "right", 1)?;
    receiver.meet(&sender, "")?;
    sender.meet(&receiver, &receiver.peer_address)?;
    // The first one opens the lanes and touches the buffers.
    transfer(&sender, &receiver, &source, &Asking::Not)?;

    let floor = floor()?;
    let mut idle = ask_for(&sender, &floor, IDLE)?;
    let (mut busy, mut ratios) = (Answers::default(), Vec::new());
    for _ in 0..setting("DWCP_BENCH_ROUNDS", 5) {
        let (undisturbed, _) = transfer(&sender, &receiver, &source, &Asking::Not)?;
        let (disturbed, answers) = transfer(&sender, &receiver, &source, &Asking::Steadily(floor.clone()))?;
        ratios.push(undisturbed / disturbed);
        busy.health.extend(answers.health);
        busy.floor.extend(answers.floor);
    }
    let (per_s, per_cpu_s) = most(&sender)?;

    print("nothing else: floor", &mut idle.floor);
    print("nothing else: /health", &mut idle.health);
    let floor_p99 = print("every core busy: floor", &mut busy.floor);
    let p99 = print("every core busy: /health", &mut busy.health);
    let goodput = median(ratios);
    let (ms, floor_ms) = (p99 * 1e3, floor_p99 * 1e3);
    println!(
        "/health p99 while cores are saturated: {ms:.3} ms (target 1), {:.2} of the floor's {floor_ms:.3} ms",
        ms / floor_ms
    );
    println!("goodput with {PER_S} requests per second: {goodput:.3} of that without (target 0.99)");
    println!(
        "one core: {per_s:.0} requests per second (target 10000), {per_cpu_s:.0} per CPU-second of control"
    );
    println!("load {}", load());
    println!(
        "{}",
        serde_json::json!({
            "bench": "health", "p99_ms": ms, "floor_p99_ms": floor_ms, "goodput_ratio": goodput, "requests_per_s": per_s,
            "requests_per_cpu_s": per_cpu_s,
        })
    );
    Ok(())
}

/// Whether somebody asks for `/health` during a transfer, and for what the thread at that address sends back.
#[derive(Debug)]
enum Asking {
    Not,
    Steadily(String),
}

/// Seconds of every answer.
#[derive(Debug, Default)]
struct Answers {
    health: Vec<f64>,
    floor: Vec<f64>,
}

/// A thread that answers every request with as many bytes as `/health` has, and does nothing else; its address.
fn floor() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || -> Result<()> {
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {FLOOR_BYTES}\r\n\r\n{}", " ".repeat(FLOOR_BYTES));
        loop {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut request = [0; 1024];
            // One request is one segment; at its end comes the next connection.
            while stream.read(&mut request).is_ok_and(|length| length > 0) {
                stream.write_all(answer.as_bytes())?;
            }
        }
    });
    Ok(address)
}

/// Sends the source, and gives the seconds that the job itself took and those of every answer meanwhile.
fn transfer(from: &Site, to: &Site, source: &Path, asking: &Asking) -> Result<(f64, Answers)> {
    let arrived = to.export().join("source");
    if arrived.exists() {
        std::fs::remove_file(&arrived)?;
    }
    let id = from.order("right", source, LANES)?;
    let mut answers = Answers::default();
    loop {
        match asking {
            Asking::Not => std::thread::sleep(LOOK),
            Asking::Steadily(floor) => {
                let more = ask_for(from, floor, LOOK)?;
                answers.health.extend(more.health);
                answers.floor.extend(more.floor);
            }
        }
        let now = from.transfer(id)?;
        match now["state"].as_str() {
            Some("done") => return Ok((now["elapsed_seconds"].as_f64().unwrap_or(f64::NAN), answers)),
            Some("failed" | "partial" | "cancelled") => anyhow::bail!("the transfer ended: {now}"),
            _ => {}
        }
    }
}

/// Asks by the clock for so long, control and floor in turn.
fn ask_for(site: &Site, floor: &str, time: Duration) -> Result<Answers> {
    let (address, floor) = (site.api().to_owned(), floor.to_owned());
    let client = std::thread::spawn(move || -> Result<Answers> {
        ahead_of_everything();
        let (mut health, mut plain) = (Connection::open(&address)?, Connection::open(&floor)?);
        health.time("/health")?;
        plain.time("/")?;
        let start = Instant::now();
        let mut answers = Answers::default();
        for turn in 0.. {
            let due = start + Duration::from_secs(1) / (2 * PER_S) * turn;
            if due >= start + time {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Counted from the request on: a late one must not make the other's next one late.
            if turn % 2 == 0 {
                answers.health.push(health.time("/health")?.as_secs_f64());
            } else {
                answers.floor.push(plain.time("/")?.as_secs_f64());
            }
        }
        Ok(answers)
    });
    client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
}

/// As many requests as there is time for, over some connections, control alone on its core.
fn most(site: &Site) -> Result<(f64, f64)> {
    let pid = Pid::from_raw(site.control() as i32);
    sched_setaffinity(pid, &core(1)?)?;
    sched_setaffinity(Pid::from_raw(0), &core(0)?)?;
    let mut connections =
        (0..CONNECTIONS).map(|_| Connection::open(site.api())).collect::<Result<Vec<_>>>()?;
    let (start, before, mut count) = (Instant::now(), process_cpu(site.control())?, 0);
    while start.elapsed() < MOST {
        for connection in &mut connections {
            connection.send("GET", "/health", "")?;
        }
        for connection in &mut connections {
            ensure!(connection.receive()?.0 == 200, "/health does not answer 200");
            count += 1;
        }
    }
    let cpu_s = (process_cpu(site.control())? - before).as_secs_f64();
    Ok((f64::from(count) / start.elapsed().as_secs_f64(), f64::from(count) / cpu_s))
}

fn core(number: usize) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(number)?;
    Ok(set)
}

/// Without the right to, the client's own waiting is in the figures.
fn ahead_of_everything() {
    if let Err(error) = dwcp_sys::scheduling::run_ahead() {
        println!("bench health: the client waits for its turn like everybody else: {error}");
    }
}

/// Prints a line of percentiles, and gives the 99th in seconds.
fn print(label: &str, answers: &mut [f64]) -> f64 {
    answers.sort_by(f64::total_cmp);
    let at = |share: f64| answers.get((answers.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    let worst = answers.last().copied().unwrap_or(f64::NAN);
    println!(
        "{label:<24} {:>7} answers  p50 {:>7.3} ms  p99 {:>7.3} ms  p99.9 {:>7.3} ms  most {:>7.3} ms",
        answers.len(),
        p50 * 1e3,
        p99 * 1e3,
        p999 * 1e3,
        worst * 1e3
    );
    p99
}

const LANES: u16 = 4;
const FLOOR_BYTES: usize = 2560;
const PER_S: u32 = 1000;
const CONNECTIONS: usize = 32;
const IDLE: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(3);
/// How often the transfer is looked at.
const LOOK: Duration = Duration::from_millis(100);
