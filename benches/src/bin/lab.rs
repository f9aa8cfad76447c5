//! `lab`: two dataplanes as they come out of the box, with a router between them that delays, loses and limits (netem),
//! one file from the order to the receipt, on hosts whose own choice is cubic and whose buffers nobody tuned. Meant to run
//! where the clock counts instructions, by `cargo xtask lab`: there the figures do not depend on how busy the machine is.
//!
//! Words are links, `RATE,RTT,LOSS` in Mbit/s, ms and per cent (`100,80,0.1`); none = [`LINKS`]. `--gate` fails where a
//! figure is below its target. `--bytes N` is the size of the file.
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_benches::far::FarPair;
use dwcp_benches::node::AUTO;
use dwcp_benches::scratch::{Scratch, same};
use dwcp_wan::Namespace;

fn main() -> Result<ExitCode> {
    let asked = Asked::parse(std::env::args().skip(1))?;
    println!("{HEAD}");
    let mut missed = 0;
    for link in &asked.links {
        let measured = measure(link, asked.bytes)?;
        let share = |sent: &Sent| asked.bytes as f64 * 8.0 / sent.seconds / (link.mbit_per_s * 1e6);
        for (name, sent) in [("first", &measured[0]), ("next", &measured[1])] {
            let share = share(sent);
            // What is promised is a transfer's whole time, with the first one's lanes still to be made.
            let target = link.target();
            let verdict = if share < target { "MISSED" } else { "" };
            missed += usize::from(share < target);
            println!(
                "{:<18} {name:<6} {:>8.2} {share:>7.3} {target:>7.2} {:>7.2} % {:>6.2} {verdict}",
                link.to_string(),
                sent.seconds,
                sent.resent * 100.0,
                sent.busy
            );
        }
    }
    let failed = asked.is_gate && missed > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

const HEAD: &str = "link Mbit,ms,%     order   seconds   share  target    resent   busy";

struct Asked {
    links: Vec<Link>,
    bytes: u64,
    is_gate: bool,
}

impl Asked {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut asked = Self { links: Vec::new(), bytes: 60_000_000, is_gate: false };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--gate" => asked.is_gate = true,
                "--bytes" => asked.bytes = words.next().context("--bytes needs a number")?.parse()?,
                word => asked.links.push(Link::parse(word)?),
            }
        }
        if asked.links.is_empty() {
            asked.links = LINKS.into();
        }
        Ok(asked)
    }
}

/// One direction; the other has the same delay and nothing else.
#[derive(Debug, Clone, Copy)]
struct Link {
    mbit_per_s: f64,
    rtt_ms: f64,
    loss_percent: f64,
}

/// The host's default, cubic, gives one connection 0.90, 0.20 and 0.02 of these.
const LINKS: [Link; 3] = [
    Link { mbit_per_s: 100.0, rtt_ms: 80.0, loss_percent: 0.0 },
    Link { mbit_per_s: 100.0, rtt_ms: 80.0, loss_percent: 0.1 },
    Link { mbit_per_s: 100.0, rtt_ms: 80.0, loss_percent: 1.0 },
];

impl Link {
    fn parse(word: &str) -> Result<Self> {
        let numbers: Vec<f64> = word.split(',').map(str::parse).collect::<Result<_, _>>().context(USAGE)?;
        let [mbit_per_s, rtt_ms, loss_percent] = numbers[..] else { bail!(USAGE) };
        ensure!(mbit_per_s > 0.0 && rtt_ms > 0.0 && (0.0..100.0).contains(&loss_percent), USAGE);
        Ok(Self { mbit_per_s, rtt_ms, loss_percent })
    }

    /// Share of the link that a transfer is to have from the order to the receipt.
    fn target(&self) -> f64 {
        if self.loss_percent == 0.0 { 0.85 } else { 0.8 }
    }

    /// Packets that fly and wait before the bottleneck: two and a quarter round trips, or a hundred more than fly.
    fn queue_packets(&self) -> u64 {
        let flying = self.mbit_per_s * 1e6 / 8.0 * self.rtt_ms / 1e3 / 1500.0;
        (flying * 2.25).max(flying + 100.0) as u64
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{},{},{}", self.mbit_per_s, self.rtt_ms, self.loss_percent)
    }
}

const USAGE: &str = "a link is RATE,RTT,LOSS: Mbit/s, ms and per cent, for example 100,80,0.1";

#[derive(Debug, Clone, Copy)]
struct Sent {
    seconds: f64,
    /// Share of segments that were sent again.
    resent: f64,
    /// Share of the processors' time that anything ran, programs and kernel.
    busy: f64,
}

/// The first transfer between two nodes that never spoke, and the next one a second later.
fn measure(link: &Link, bytes: u64) -> Result<[Sent; 2]> {
    let scratch = Scratch::new()?;
    let (sender, _router, receiver) = lay(link)?;
    let mut pair = FarPair::start(&scratch, (&sender, &receiver), SECOND, AUTO)?;
    let mut send = |name: &str| -> Result<Sent> {
        let source = scratch.path().join(name);
        std::io::copy(&mut File::open("/dev/urandom")?.take(bytes), &mut File::create(&source)?)?;
        let sent = timed(&sender, || pair.send(&source))?;
        same(&source, &pair.arrived().join(name))?;
        Ok(sent)
    };
    let first = send("first")?;
    std::thread::sleep(Duration::from_secs(1));
    Ok([first, send("next")?])
}

fn timed(sender: &Namespace, work: impl FnOnce() -> Result<()>) -> Result<Sent> {
    let before = sender.tcp_totals()?;
    let (begun, idle) = (Instant::now(), Ticks::now()?);
    work()?;
    let seconds = begun.elapsed().as_secs_f64();
    let busy = Ticks::now()?.busy_since(idle);
    let after = sender.tcp_totals()?;
    let (sent, resent) = (after.sent - before.sent, after.resent - before.resent);
    Ok(Sent { seconds, resent: resent as f64 / (sent + resent).max(1) as f64, busy })
}

/// Clock ticks of all processors together since the start.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    all: u64,
    idle: u64,
}

impl Ticks {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat")?;
        // `cpu user nice system idle iowait …`
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        Ok(Self { all: ticks.iter().sum(), idle: ticks.get(3..5).context("/proc/stat")?.iter().sum() })
    }

    fn busy_since(self, before: Self) -> f64 {
        1.0 - (self.idle - before.idle) as f64 / (self.all - before.all).max(1) as f64
    }
}

/// Sender, router, receiver.
fn lay(link: &Link) -> Result<(Namespace, Namespace, Namespace)> {
    let [sender, router, receiver] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
    for (end, name, address) in [(&sender, "near", "10.79.0"), (&receiver, "far", "10.79.1")] {
        // A device sees single segments: netem would lose a whole train of them at once.
        router.ip(&format!("link add {name} gso_max_segs 1 type veth peer name wan0"))?;
        router.ip(&format!("address add {address}.254/24 dev {name}"))?;
        router.ip(&format!("link set {name} up"))?;
        move_to(&router, "wan0", end)?;
        end.ip("link set wan0 gso_max_segs 1")?;
        end.ip(&format!("address add {address}.1/24 dev wan0"))?;
        end.ip("link set wan0 up")?;
        end.ip(&format!("route add default via {address}.254"))?;
        end.set("net/ipv4/tcp_congestion_control", "cubic")?;
    }
    router.set("net/ipv4/ip_forward", "1")?;
    let delay = link.rtt_ms / 2.0;
    let loss = if link.loss_percent > 0.0 { format!(" loss {}%", link.loss_percent) } else { String::new() };
    let there = format!("delay {delay}ms rate {}mbit limit {}{loss}", link.mbit_per_s, link.queue_packets());
    netem(&router, "far", &there)?;
    netem(&router, "near", &format!("delay {delay}ms limit 100000"))?;
    Ok((sender, router, receiver))
}

/// Gives a device to another namespace, which is named by a descriptor of this process.
fn move_to(from: &Namespace, device: &str, to: &Namespace) -> Result<()> {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let place = format!("/proc/{}/fd/{}", std::process::id(), to.as_fd().as_raw_fd());
    Ok(from.ip(&format!("link set {device} netns {place}"))?)
}

fn netem(router: &Namespace, device: &str, how: &str) -> Result<()> {
    let line = format!("qdisc add dev {device} root netem {how}");
    let output = router.run(|| Command::new("tc").args(line.split(' ')).output())?;
    ensure!(output.status.success(), "tc {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 1, 1));
