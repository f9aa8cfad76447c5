//! One end of a link: a network namespace without a name, which is gone when nobody is in it any more. Work is done in it
//! on threads of its own; processes that such a thread starts live in it too.
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new one, in which nothing is but a loopback device that is up.
    ///
    /// # Errors
    /// The system's error; `PermissionDenied` without CAP_SYS_ADMIN.
    pub fn new() -> io::Result<Self> {
        let made = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let namespace = Self { file: made };
        namespace.ip("link set dev lo up")?;
        Ok(namespace)
    }

    /// Does something inside, on a thread of its own.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` says so.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send, E: Send + From<io::Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        on_a_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            work()
        })
    }

    /// Runs `ip` of iproute2 inside, with arguments separated by spaces.
    ///
    /// # Errors
    /// It is not installed or complains; the error says what it said.
    pub fn ip(&self, arguments: &str) -> io::Result<()> {
        self.run(|| {
            let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output()?;
            if output.status.success() {
                return Ok(());
            }
            let complaint = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("ip {arguments}: {}", complaint.trim())))
        })
    }

    /// Sets a variable of the namespace, for example `net/ipv4/tcp_rmem`.
    ///
    /// # Errors
    /// The system's error.
    pub fn set(&self, variable: &str, value: &str) -> io::Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{variable}"), value))
    }

    /// What TCP counted inside so far.
    ///
    /// # Errors
    /// The system's error; `InvalidData` where the file reads differently.
    pub fn tcp_totals(&self) -> io::Result<TcpTotals> {
        let text: String = self.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
        TcpTotals::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Packets that a device dropped before anybody read them.
    ///
    /// # Errors
    /// The system's error; `InvalidData` where the file reads differently.
    pub(crate) fn device_drops(&self, device: &str) -> io::Result<u64> {
        let text: String = self.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        transmit_drops(&text, device).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Segments that TCP sent, as RFC 4022 counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpTotals {
    /// All that carry something, repeats excluded.
    pub sent: u64,
    /// Sent again.
    pub resent: u64,
}

impl TcpTotals {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next()?, lines.next()?);
        let value = |wanted: &str| {
            let place = names.split(' ').position(|name| name == wanted)?;
            values.split(' ').nth(place)?.parse::<u64>().ok()
        };
        Some(Self { sent: value("OutSegs")?, resent: value("RetransSegs")? })
    }
}

/// `name: 8 figures of reception, then bytes packets errors drops …` of transmission.
fn transmit_drops(text: &str, device: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    line.split_whitespace().nth(8 + 3)?.parse().ok()
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let snmp = "Ip: A B\nIp: 1 2\nTcp: RtoMin OutSegs RetransSegs\nTcp: 200 12 3\n";
        assert_eq!(TcpTotals::parse(snmp), Some(TcpTotals { sent: 12, resent: 3 }));
        assert_eq!(TcpTotals::parse("Tcp: A\n"), None);
        let devices = "Inter-| Receive\n  lo: 1 2 3 4 5 6 7 8 9 10 11 12 13\nwan0:1 2 3 4 5 6 7 8 9 10 11 99 13 14 15 16\n";
        assert_eq!(transmit_drops(devices, "wan0"), Some(99));
        assert_eq!(transmit_drops(devices, "wan1"), None);
    }
}
