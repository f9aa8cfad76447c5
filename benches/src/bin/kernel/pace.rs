//! How exactly a connection keeps to its class's rate over five seconds, and how soon it follows a change: one sender and
//! one receiver on a veth pair between two namespaces, the rate set from outside both.
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dwcp_abi::bpf::{Class, ClassPolicy};
use dwcp_benches::report::load;
use dwcp_benches::setting;
use dwcp_dataplane::bpf::{Interfaces, Options, Policy, Programs, Selector};
use nix::sched::{CloneFlags, setns};
use serde_json::json;

/// Prints the table and a line of JSON.
///
/// # Errors
/// No namespaces, or the kernel refuses the object.
pub(crate) fn run(object: PathBuf) -> Result<()> {
    let pair = Pair::new()?;
    let listener = pair.inside(Pair::FAR, || TcpListener::bind("10.78.0.2:0"))?.join().expect("thread")?;
    let address = listener.local_addr()?;
    let nowhere = Interfaces::Named(Vec::new());
    let options = Options { objects: vec![object], interfaces: nowhere, ports: Vec::new(), pins: None };
    let mut programs = Programs::load(options)?;
    let mut set = |bits_per_s: u64| programs.apply(&policy(address.port(), bits_per_s));
    set(10_000_000)?;
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    std::thread::spawn(move || receive(&listener, &count));
    let _sender = pair.inside(Pair::NEAR, move || send(address))?;
    let span = Duration::from_secs(setting("DWCP_BENCH_SECONDS", 5));
    println!("{:<14} {:>8} {:>16}", "rate", "share", "followed in ms");
    let mut rows = Vec::new();
    let mut before = 10_000_000_u64;
    for rate in [10_000_000_u64, 100_000_000, 1_000_000_000, 2_000_000_000, 5_000_000_000, 50_000_000] {
        set(rate)?;
        let followed = follow(&received, before, rate);
        sleep(Duration::from_millis(250));
        let (start, bytes) = (Instant::now(), received.load(Ordering::Relaxed));
        sleep(span);
        let bits = (received.load(Ordering::Relaxed) - bytes) as f64 * 8.0;
        let share = bits / start.elapsed().as_secs_f64() / rate as f64;
        let ms = followed.map_or(f64::NAN, |followed| followed.as_secs_f64() * 1000.0);
        println!("{:<14} {share:>8.3} {ms:>16.0}", format!("{} Mbit/s", rate / 1_000_000));
        rows.push(json!({ "bits_per_s": rate, "share": (share * 1000.0).round() / 1000.0,
            "followed_ms": ms.round(), "met": (share - 1.0).abs() < 0.02 }));
        before = rate;
    }
    println!(
        "{}",
        json!({ "bench": "kernel pace", "seconds": span.as_secs(), "load": load(), "rows": rows })
    );
    Ok(())
}

/// Until ten milliseconds in a row bring within a tenth of the new rate, or of its side of the middle; `None` after two
/// seconds.
fn follow(received: &AtomicU64, before: u64, rate: u64) -> Option<Duration> {
    if before == rate {
        return Some(Duration::ZERO);
    }
    let start = Instant::now();
    let (mut at, mut bytes) = (start, received.load(Ordering::Relaxed));
    while start.elapsed() < Duration::from_secs(2) {
        sleep(Duration::from_millis(10));
        let (now, more) = (Instant::now(), received.load(Ordering::Relaxed));
        let found = (more - bytes) as f64 * 8.0 / (now - at).as_secs_f64();
        let is_there = if rate > before { found > rate as f64 * 0.9 } else { found < rate as f64 * 1.1 };
        if is_there {
            return Some(now - start);
        }
        (at, bytes) = (now, more);
    }
    None
}

fn policy(port: u16, bits_per_s: u64) -> Policy {
    let mut policy = Policy::default();
    policy.selectors.push((Class::Tunnel, Selector::Port { protocol: 6, port }));
    policy.classes[Class::Tunnel as usize] =
        ClassPolicy { flow_bytes_per_s: bits_per_s / 8, congestion: 2, ..ClassPolicy::default() };
    policy
}

fn receive(listener: &TcpListener, count: &AtomicU64) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let mut buffer = vec![0; 1 << 18];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn send(address: std::net::SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let block = vec![7; 1 << 16];
    while stream.write_all(&block).is_ok() {}
}

/// Two namespaces and a veth pair; removed when dropped.
struct Pair;

impl Pair {
    const NEAR: &str = "dwcp-bench-near";
    const FAR: &str = "dwcp-bench-far";

    fn new() -> Result<Self> {
        let pair = Self;
        for namespace in [Self::NEAR, Self::FAR] {
            // What a killed bench left.
            drop(ip(&["netns", "delete", namespace]));
            ip(&["netns", "add", namespace])?;
        }
        ip(&[
            "-n",
            Self::NEAR,
            "link",
            "add",
            "v0",
            "type",
            "veth",
            "peer",
            "name",
            "v1",
            "netns",
            Self::FAR,
        ])?;
        for (namespace, link, host) in [(Self::NEAR, "v0", 1), (Self::FAR, "v1", 2)] {
            ip(&["-n", namespace, "address", "add", &format!("10.78.0.{host}/24"), "dev", link])?;
            ip(&["-n", namespace, "link", "set", link, "up"])?;
        }
        Ok(pair)
    }

    /// Runs `body` in a thread of its own inside a namespace.
    fn inside<T: Send + 'static>(
        &self,
        namespace: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let file = std::fs::File::open(format!("/run/netns/{namespace}")).context("namespace")?;
        Ok(std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            body()
        }))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [Self::NEAR, Self::FAR] {
            drop(ip(&["netns", "delete", namespace]));
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
