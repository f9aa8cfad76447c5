//! Sockets of lanes: how they are opened, and their options. Used by [`super::turn`] and [`super::accept`].
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SetSockOpt, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use super::plan::SocketOptions;

/// Starts to connect; the socket does not block, and becomes writable when it stands or has failed.
pub(super) fn start_connect(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    // Before the connection stands: the buffers decide the window scale of the SYN (RFC 7323 §2).
    set_buffers(&socket, options);
    set_lane_options(&socket, options);
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// What a socket of [`start_connect`] came to, once it is writable.
pub(super) fn connected(stream: &TcpStream) -> io::Result<()> {
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// A listener that does not block. What it accepts inherits its buffers.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Makes an accepted connection a lane's socket.
pub(super) fn prepare_accepted(stream: &TcpStream, options: &SocketOptions) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    set_lane_options(stream, options);
    Ok(())
}

/// Buffer sizes; of a listener for what it will accept. Beyond `net.core.*mem_max` where the rights are there.
pub(super) fn set_buffers(socket: &impl AsFd, options: &SocketOptions) {
    if let Ok(bytes @ 1..) = usize::try_from(options.send_buffer_bytes) {
        let forced = setsockopt(socket, sockopt::SndBufForce, &bytes);
        report("SO_SNDBUF", forced.or_else(|_| setsockopt(socket, sockopt::SndBuf, &bytes)));
    }
    if let Ok(bytes @ 1..) = usize::try_from(options.receive_buffer_bytes) {
        let forced = setsockopt(socket, sockopt::RcvBufForce, &bytes);
        report("SO_RCVBUF", forced.or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes)));
    }
}

fn set_lane_options(socket: &impl AsFd, options: &SocketOptions) {
    set(socket, "TCP_NODELAY", sockopt::TcpNoDelay, &true);
    if let Some(congestion) = options.congestion {
        set(socket, "TCP_CONGESTION", sockopt::TcpCongestion, &OsString::from(congestion));
    }
}

fn set<O: SetSockOpt>(socket: &impl AsFd, name: &'static str, option: O, value: &O::Val) {
    report(name, setsockopt(socket, option, value));
}

/// A lane without an option is slower, not wrong: it is used all the same.
fn report(option: &'static str, result: nix::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(option, %error, "socket option refused");
    }
}
