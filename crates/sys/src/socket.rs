//! Options and figures of TCP sockets. Lanes are tuned with these by the dataplane's door and workers; which values
//! are right is the plan's business.
#![expect(unsafe_code, reason = "socket options that nix does not know")]
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt, listen, setsockopt,
    socket, sockopt,
};

/// Sends small writes at once (TCP_NODELAY).
///
/// # Errors
/// The system's error.
pub fn set_no_delay(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::TcpNoDelay, &true)?)
}

/// Chooses the congestion control by its kernel name, for example `bbr`.
///
/// # Errors
/// The system's error; `NotFound` where the kernel has none of that name, `PermissionDenied` where it is restricted.
pub fn set_congestion_control(socket: &impl AsFd, name: &str) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::TcpCongestion, &OsString::from(name))?)
}

/// Name of the congestion control in use.
///
/// # Errors
/// The system's error.
pub fn congestion_control(socket: &impl AsFd) -> io::Result<String> {
    let name = getsockopt(socket, sockopt::TcpCongestion)?;
    Ok(name.to_string_lossy().trim_end_matches('\0').to_owned())
}

/// Limits the rate at which the socket sends (SO_MAX_PACING_RATE, socket(7)); `None` = no limit. TCP paces itself
/// where the `fq` queueing discipline is absent.
///
/// # Errors
/// The system's error.
pub fn set_pacing_rate(socket: &impl AsFd, rate_bytes_per_s: Option<u64>) -> io::Result<()> {
    let rate = rate_bytes_per_s.unwrap_or(u64::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &rate.to_ne_bytes())
}

/// Bounds what waits in the socket without having been sent (TCP_NOTSENT_LOWAT, tcp(7)), so that what is written next is
/// chosen late; `None` = no bound but the buffer's.
///
/// # Errors
/// The system's error.
pub fn set_unsent_bound(socket: &impl AsFd, bytes: Option<u32>) -> io::Result<()> {
    let bound = bytes.unwrap_or(u32::MAX);
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &bound.to_ne_bytes())
}

/// Asks for a send buffer; the kernel doubles it and caps it at `net.core.wmem_max`. Ends autotuning.
///
/// # Errors
/// The system's error.
pub fn set_send_buffer(socket: &impl AsFd, size_bytes: usize) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::SndBuf, &size_bytes.min(BUFFER_BYTES_MAX))?)
}

/// Asks for a receive buffer; the kernel doubles it and caps it at `net.core.rmem_max`. Ends autotuning. The window
/// scale is agreed when the connection starts: set it before `connect` and before `listen`.
///
/// # Errors
/// The system's error.
pub fn set_receive_buffer(socket: &impl AsFd, size_bytes: usize) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::RcvBuf, &size_bytes.min(BUFFER_BYTES_MAX))?)
}

/// Says that the socket is writable only while fewer unsent bytes wait in it (TCP_NOTSENT_LOWAT, tcp(7)): data is
/// chosen late, memory stays small.
///
/// # Errors
/// The system's error.
pub fn set_unsent_low_water(socket: &impl AsFd, size_bytes: u32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &size_bytes.to_ne_bytes())
}

/// When a silent connection is probed and given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds, at least one.
    pub idle: Duration,
    /// Time between probes; whole seconds, at least one.
    pub interval: Duration,
    /// Probes without answer until the connection is lost.
    pub probes: u8,
}

/// Has the kernel probe a silent connection (tcp(7)).
///
/// # Errors
/// The system's error.
pub fn set_keepalive(socket: &impl AsFd, keepalive: Keepalive) -> io::Result<()> {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).clamp(1, 32_767);
    setsockopt(socket, sockopt::TcpKeepIdle, &seconds(keepalive.idle))?;
    setsockopt(socket, sockopt::TcpKeepInterval, &seconds(keepalive.interval))?;
    setsockopt(socket, sockopt::TcpKeepCount, &u32::from(keepalive.probes.clamp(1, 127)))?;
    Ok(setsockopt(socket, sockopt::KeepAlive, &true)?)
}

/// How long sent data may stay unacknowledged until the connection is lost (TCP_USER_TIMEOUT, RFC 5482); zero = the
/// system's default.
///
/// # Errors
/// The system's error.
pub fn set_user_timeout(socket: &impl AsFd, timeout: Duration) -> io::Result<()> {
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).min(i32::MAX.cast_unsigned());
    Ok(setsockopt(socket, sockopt::TcpUserTimeout, &timeout_ms)?)
}

/// Listens with SO_REUSEADDR and SO_REUSEPORT, so that several workers may listen on one address. Close-on-exec,
/// blocking.
///
/// # Errors
/// The system's error.
pub fn listen_shared(address: SocketAddr, backlog: u16) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let listener = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    setsockopt(&listener, sockopt::ReusePort, &true)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    let backlog = Backlog::new(i32::from(backlog)).unwrap_or(Backlog::MAXCONN);
    listen(&listener, backlog)?;
    Ok(listener.into())
}

/// What the kernel knows of a connection (TCP_INFO, include/uapi/linux/tcp.h). Figures that an older kernel lacks
/// are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpFigures {
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Its mean deviation in microseconds.
    pub rtt_variance_us: u32,
    /// Least round-trip time seen lately, in microseconds; `u32::MAX` = none yet.
    pub rtt_min_us: u32,
    /// Congestion window in segments.
    pub window_segments: u32,
    /// Size of a sent segment in bytes.
    pub segment_bytes: u32,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Data segments sent, repeats included.
    pub segments_sent: u32,
    /// Bytes in the socket that were not sent yet.
    pub unsent_bytes: u32,
    /// Latest measured rate of delivery in bytes per second.
    pub delivery_bytes_per_s: u64,
    /// Rate at which the kernel paces now in bytes per second; `u64::MAX` = not at all.
    pub pacing_bytes_per_s: u64,
    /// Bytes that the peer acknowledged, all before them included.
    pub acked_bytes: u64,
    /// Bytes that came from the peer.
    pub received_bytes: u64,
    /// Segments behind a gap that the peer has too (RFC 2018).
    pub sacked_segments: u32,
    /// Bytes sent again.
    pub resent_bytes: u64,
    /// Time with data to send in microseconds.
    pub busy_us: u64,
    /// Part of it in which the peer's window was the limit, in microseconds.
    pub receiver_limited_us: u64,
    /// Part of it in which our send buffer was the limit, in microseconds.
    pub buffer_limited_us: u64,
}

impl TcpFigures {
    /// Bytes that are at the peer's kernel, those behind a gap included.
    #[must_use]
    pub fn arrived_bytes(&self) -> u64 {
        self.acked_bytes + u64::from(self.sacked_segments) * u64::from(self.segment_bytes)
    }
}

/// Reads a connection's figures.
///
/// # Errors
/// The system's error.
pub fn tcp_figures(socket: &impl AsFd) -> io::Result<TcpFigures> {
    let mut bytes = [0; TCP_INFO_BYTES];
    get_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
    Ok(parse_tcp_info(&bytes))
}

fn parse_tcp_info(bytes: &[u8; TCP_INFO_BYTES]) -> TcpFigures {
    let small = |at: usize| bytes[at..].first_chunk().map_or(0, |chunk| u32::from_ne_bytes(*chunk));
    let large = |at: usize| bytes[at..].first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk));
    TcpFigures {
        segment_bytes: small(16),
        sacked_segments: small(28),
        rtt_us: small(68),
        rtt_variance_us: small(72),
        window_segments: small(80),
        retransmits: small(100),
        pacing_bytes_per_s: large(104),
        acked_bytes: large(120),
        received_bytes: large(128),
        unsent_bytes: small(144),
        rtt_min_us: small(148),
        segments_sent: small(156),
        delivery_bytes_per_s: large(160),
        busy_us: large(168),
        receiver_limited_us: large(176),
        buffer_limited_us: large(184),
        resent_bytes: large(208),
    }
}

fn set_option(socket: &impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: `value` is readable for `length` bytes during the call, which keeps no pointer.
    let done = unsafe { libc::setsockopt(descriptor, level, name, value.as_ptr().cast(), length) };
    Ok(Errno::result(done).map(drop)?)
}

fn get_option(socket: &impl AsFd, level: i32, name: i32, value: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: `value` is writable for `length` bytes during the call, `length` itself too; neither pointer is kept.
    let done =
        unsafe { libc::getsockopt(descriptor, level, name, value.as_mut_ptr().cast(), &raw mut length) };
    Ok(Errno::result(done).map(drop)?)
}

/// Up to and with `tcpi_bytes_retrans`.
const TCP_INFO_BYTES: usize = 216;

/// The kernel takes an `int` and doubles it.
const BUFFER_BYTES_MAX: usize = i32::MAX as usize / 2;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = listen_shared((Ipv4Addr::LOCALHOST, 0).into(), 8).unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    #[test]
    fn two_listeners_share_an_address() {
        for host in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
            let first = match listen_shared(host, 1) {
                Err(error) if host.is_ipv6() && error.kind() == io::ErrorKind::AddrNotAvailable => continue,
                first => first.unwrap(),
            };
            let second = listen_shared(first.local_addr().unwrap(), 1).unwrap();
            assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
        }
    }

    #[test]
    fn options_hold() {
        let (socket, _peer) = pair();
        set_no_delay(&socket).unwrap();
        assert!(socket.nodelay().unwrap());
        set_send_buffer(&socket, 1 << 17).unwrap();
        set_receive_buffer(&socket, 1 << 17).unwrap();
        assert_eq!(getsockopt(&socket, sockopt::SndBuf).unwrap(), 1 << 18);
        assert_eq!(getsockopt(&socket, sockopt::RcvBuf).unwrap(), 1 << 18);
        set_send_buffer(&socket, usize::MAX).unwrap();
        set_unsent_low_water(&socket, 1 << 16).unwrap();
        set_user_timeout(&socket, Duration::from_millis(1_500)).unwrap();
        assert_eq!(getsockopt(&socket, sockopt::TcpUserTimeout).unwrap(), 1_500);
        set_user_timeout(&socket, Duration::MAX).unwrap();
        let (idle, interval) = (Duration::from_secs(30), Duration::from_millis(10));
        set_keepalive(&socket, Keepalive { idle, interval, probes: 4 }).unwrap();
        assert!(getsockopt(&socket, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&socket, sockopt::TcpKeepIdle).unwrap(), 30);
        assert_eq!(getsockopt(&socket, sockopt::TcpKeepInterval).unwrap(), 1);
        assert_eq!(getsockopt(&socket, sockopt::TcpKeepCount).unwrap(), 4);
    }

    #[test]
    fn congestion_control_is_chosen_by_name() {
        let (socket, _peer) = pair();
        set_congestion_control(&socket, "reno").unwrap();
        assert_eq!(congestion_control(&socket).unwrap(), "reno");
        let unknown = set_congestion_control(&socket, "no-such-thing").unwrap_err();
        assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
        assert_eq!(congestion_control(&socket).unwrap(), "reno");
    }

    #[test]
    fn pacing_is_set_above_32_bits_and_lifted() {
        let (socket, _peer) = pair();
        for rate in [Some(125_000_000), Some(12_500_000_000), None] {
            set_pacing_rate(&socket, rate).unwrap();
            let mut bytes = [0; 8];
            get_option(&socket, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &mut bytes).unwrap();
            assert_eq!(u64::from_ne_bytes(bytes), rate.unwrap_or(u64::MAX));
        }
    }

    #[test]
    fn figures_follow_the_data() {
        let (mut socket, mut peer) = pair();
        socket.write_all(&[7; 5_000]).unwrap();
        peer.read_exact(&mut [0; 5_000]).unwrap();
        peer.write_all(&[1]).unwrap();
        socket.read_exact(&mut [0]).unwrap();
        let figures = tcp_figures(&socket).unwrap();
        assert!(figures.rtt_us > 0 && figures.rtt_us < 10_000_000, "{figures:?}");
        assert!(figures.segment_bytes >= 500 && figures.window_segments > 0, "{figures:?}");
        // The SYN counts as one.
        assert_eq!((figures.acked_bytes, figures.unsent_bytes), (5_001, 0), "{figures:?}");
        assert!(figures.segments_sent >= 1 && figures.rtt_min_us <= figures.rtt_us * 8, "{figures:?}");
    }

    #[test]
    fn a_socket_that_is_not_tcp_is_an_error() {
        let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(tcp_figures(&left).is_err());
        assert!(set_unsent_low_water(&left, 1).is_err());
    }
}
