//! Where connections come in: a listener that backs off when the process has no descriptors left, and the rule that
//! says what counts as one source. Used by [`super::turn`].
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::plan::SocketOptions;
use super::socket;
use crate::listeners::Listeners;

/// One listening address.
#[derive(Debug)]
pub(super) struct Gate {
    listener: TcpListener,
    pause: Option<Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

/// What a turn at a gate came to.
#[derive(Debug)]
pub(super) enum Arrival {
    Connection(TcpStream, SocketAddr),
    /// Nobody waits.
    Nobody,
    /// One came and went, or its socket could not be prepared.
    Lost(io::Error),
    /// The process cannot take connections at present; the gate is closed for a while.
    Paused(io::Error),
}

impl Gate {
    pub(super) fn open(address: SocketAddr, listeners: &Listeners) -> io::Result<Self> {
        Ok(Self { listener: listeners.listen(address)?, pause: None })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn set_options(&self, options: &SocketOptions) {
        socket::set_buffers(&self.listener, options);
    }

    /// Until when nothing is accepted.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.pause.map(|pause| pause.until).filter(|until| *until > now)
    }

    pub(super) fn accept(&mut self, now: Instant, options: &SocketOptions) -> Arrival {
        match self.listener.accept() {
            Ok((stream, remote)) => {
                self.pause = None;
                match socket::prepare_accepted(&stream, options) {
                    Ok(()) => Arrival::Connection(stream, remote),
                    Err(error) => Arrival::Lost(error),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Arrival::Nobody,
            Err(error) if is_shortage(&error) => {
                let length = self.pause.map_or(PAUSE_MIN, |pause| (pause.length * 2).min(PAUSE_MAX));
                self.pause = Some(Pause { until: now + length, length });
                Arrival::Paused(error)
            }
            // accept(2): errors of the connection itself are reported here, and the next one may be well.
            Err(error) => Arrival::Lost(error),
        }
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Whom a remote address counts as: an IPv4 address, or an IPv6 /64, all of which one host may have.
pub(super) fn source_of(remote: SocketAddr) -> IpAddr {
    match remote.ip().to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|code| shortages.contains(&Errno::from_raw(code)))
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_addresses_and_prefixes() {
        let source = |text: &str| source_of(text.parse().expect("address"));
        assert_eq!(source("192.0.2.1:1"), source("192.0.2.1:2"));
        assert_eq!(source("192.0.2.1:1"), source("[::ffff:192.0.2.1]:1"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.2:1"));
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::ffff:0:0:1]:1"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
    }
}
