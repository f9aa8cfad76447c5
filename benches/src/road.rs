//! The links of the benches `wan` and `versions`, and one of them laid: the emulator, the settings of its ends, and what is counted around a
//! piece of work.
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dwcp_wan::{Counters, Emulator, Link, Namespace, Snapshot};

use crate::scratch::Scratch;

/// A link of the bench.
#[derive(Debug)]
pub struct LinkRow {
    /// For people.
    pub name: &'static str,
    /// For the emulator, one direction.
    pub spec: &'static str,
    /// Its rate.
    pub rate_bits_per_s: u64,
    /// Share of segments that it loses.
    pub loss: f64,
}

/// What versions are sent over.
pub const SLOW_LINK: LinkRow = LinkRow {
    name: "200 Mbit/s 50 ms",
    spec: "rate=200mbit,delay=25ms",
    rate_bits_per_s: GBIT / 5,
    loss: 0.0,
};

/// Alike in both directions; the buffer before each bottleneck holds one round trip.
pub const LINKS: &[LinkRow] = &[
    LinkRow { name: "1 Gbit/s 20 ms 0%", spec: "rate=1gbit,delay=10ms", rate_bits_per_s: GBIT, loss: 0.0 },
    LinkRow { name: "1 Gbit/s 100 ms 0%", spec: "rate=1gbit,delay=50ms", rate_bits_per_s: GBIT, loss: 0.0 },
    LinkRow {
        name: "1 Gbit/s 100 ms 0.1%",
        spec: "rate=1gbit,delay=50ms,loss=0.1%",
        rate_bits_per_s: GBIT,
        loss: 0.001,
    },
    LinkRow {
        name: "1 Gbit/s 100 ms 1%",
        spec: "rate=1gbit,delay=50ms,loss=1%",
        rate_bits_per_s: GBIT,
        loss: 0.01,
    },
    LinkRow {
        name: "100 Mbit/s 200 ms 2%",
        spec: "rate=100mbit,delay=100ms,loss=2%",
        rate_bits_per_s: GBIT / 10,
        loss: 0.02,
    },
];

/// Small files cross 100 ms without loss.
pub const LINK_FOR_TREES: usize = 1;

const GBIT: u64 = 1_000_000_000;

/// Congestion control of a row's sockets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Congestion {
    /// RFC 9438.
    Cubic,
    /// Version 1 of BBR.
    Bbr,
}

impl Congestion {
    /// As the kernel calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What somebody did to the hosts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tuning {
    /// Nothing: the kernel's defaults.
    None,
    /// Buffers of TCP may grow to 64 MiB at both ends.
    ByHand,
}

impl fmt::Display for Tuning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => ", untuned",
            Self::ByHand => ", tuned",
        })
    }
}

/// A link that stands.
pub struct Road {
    /// Which.
    pub link: &'static LinkRow,
    emulator: Emulator,
}

/// What the kernel and the link counted during a piece of work.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Segments sent again by the first end's TCP, of all that it sent.
    pub resent: f64,
    /// The direction of the payload once [`SETTLED`] was over, or all of it where it took no longer.
    pub settled: Counters,
    /// The same direction from the beginning.
    pub all: Counters,
}

impl Road {
    /// Lays a link.
    ///
    /// # Errors
    /// No rights, or no tunnel device.
    pub fn lay(link: &'static LinkRow) -> Result<Self> {
        Ok(Self { link, emulator: Emulator::start(&Link::both_ways(link.spec)?)? })
    }

    /// The end that payload leaves.
    #[must_use]
    pub fn first(&self) -> &Namespace {
        self.emulator.first()
    }

    /// The end that it arrives at.
    #[must_use]
    pub fn second(&self) -> &Namespace {
        self.emulator.second()
    }

    /// Gives both ends the tuning.
    ///
    /// # Errors
    /// A setting is not there.
    pub fn tune(&self, tuning: Tuning) -> io::Result<()> {
        if tuning == Tuning::ByHand {
            for end in [self.first(), self.second()] {
                end.set("net/ipv4/tcp_rmem", "4096 131072 67108864")?;
                end.set("net/ipv4/tcp_wmem", "4096 65536 67108864")?;
            }
        }
        Ok(())
    }

    /// For programs that choose no congestion control of their own: the route does (ip-route(8), `congctl`).
    ///
    /// # Errors
    /// A setting is not there.
    pub fn prepare(&self, congestion: Congestion, tuning: Tuning) -> io::Result<()> {
        self.tune(tuning)?;
        for (end, peer) in [(self.first(), SECOND), (self.second(), FIRST)] {
            end.ip(&format!("route change {peer} dev wan0 congctl {}", congestion.name()))?;
        }
        Ok(())
    }

    /// Does the work and says what was counted meanwhile.
    ///
    /// # Errors
    /// The work's.
    pub fn count<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Counted)> {
        let tcp = self.first().tcp_totals()?;
        let (over, is_over) = mpsc::channel::<()>();
        let before = self.emulator.snapshot();
        let (done, settled) = std::thread::scope(|scope| {
            let at_settled = scope.spawn(move || match is_over.recv_timeout(SETTLED) {
                Err(mpsc::RecvTimeoutError::Timeout) => Some(self.emulator.snapshot()),
                Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => None,
            });
            let done = work();
            drop(over);
            (done, at_settled.join().unwrap_or_default())
        });
        let (tcp_end, end) = (self.first().tcp_totals()?, self.emulator.snapshot());
        let (sent, resent) = (tcp_end.sent - tcp.sent, tcp_end.resent - tcp.resent);
        let resent = resent as f64 / (sent + resent).max(1) as f64;
        Ok((
            done?,
            Counted {
                resent,
                settled: end.there.since(&settled.unwrap_or_else(|| before.clone()).there),
                all: end.there.since(&before.there),
            },
        ))
    }

    /// Takes it away; what it counted.
    ///
    /// # Errors
    /// The emulator has failed meanwhile.
    pub fn close(self) -> Result<Snapshot> {
        Ok(self.emulator.stop()?)
    }
}

/// Starts a program at an end. It ends with the value.
///
/// # Errors
/// It is not there.
pub fn start(end: &Namespace, command: &mut Command) -> Result<Running> {
    let child = end.run(|| command.spawn()).with_context(|| format!("{command:?}"))?;
    Ok(Running(child))
}

/// A program that is killed when nobody wants it any more.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended before.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until somebody listens on a port at an end, without connecting: some servers take one client only.
///
/// # Errors
/// Nobody does in time.
pub fn await_listener(end: &Namespace, port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    // `sl local_address rem_address st …`; state 0A is LISTEN.
    let wanted = format!(":{port:04X}");
    loop {
        let mut tables: String = end.run(|| fs::read_to_string("/proc/thread-self/net/tcp"))?;
        tables += &end
            .run(|| fs::read_to_string("/proc/thread-self/net/tcp6"))
            .unwrap_or_else(|_: io::Error| String::new());
        let listens = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&wanted)) && fields.nth(1) == Some("0A")
        };
        if tables.lines().any(listens) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts rsync's daemon at the second end; where things arrive.
///
/// # Errors
/// It does not come up.
pub fn rsync_daemon(road: &Road, scratch: &Scratch, port: u16) -> Result<(Running, PathBuf)> {
    let to = scratch.fresh("to")?;
    let configuration = scratch.path().join("rsyncd.conf");
    let text =
        format!("use chroot = no\nuid = 0\ngid = 0\n[data]\npath = {}\nread only = no\n", to.display());
    fs::write(&configuration, text)?;
    let mut daemon = Command::new("rsync");
    daemon.args(["--daemon", "--no-detach", &format!("--port={port}")]);
    daemon.arg(format!("--config={}", configuration.display()));
    let daemon = start(road.second(), &mut daemon)?;
    await_listener(road.second(), port)?;
    Ok((daemon, to))
}

/// When a stream's start is over.
pub const SETTLED: Duration = Duration::from_secs(2);
/// Address of the end that payload leaves.
pub const FIRST: &str = "10.78.0.1";
/// Address of the other.
pub const SECOND: &str = "10.78.0.2";
