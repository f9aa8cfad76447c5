//! Sockets of lanes: how they are opened, and their options. Used by [`super::turn`] and [`super::accept`].
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};

use dwcp_sys::socket::{set_congestion_control, set_no_delay, set_receive_buffer, set_send_buffer};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use super::plan::SocketOptions;

/// Starts to connect; the socket does not block, and becomes writable when it stands or has failed.
pub(crate) fn start_connect(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
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
pub(crate) fn connected(stream: &TcpStream) -> io::Result<()> {
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Makes an accepted connection a lane's socket.
pub(super) fn prepare_accepted(stream: &TcpStream, options: &SocketOptions) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    set_lane_options(stream, options);
    Ok(())
}

/// Buffer sizes; of a listener for what it will accept. Beyond `net.core.*mem_max` where the rights are there.
pub(super) fn set_buffers(socket: &impl AsFd, options: &SocketOptions) {
    if let Ok(bytes @ 1..) = usize::try_from(options.send_buffer_bytes.min(BUFFER_BYTES_MAX)) {
        let forced = setsockopt(socket, sockopt::SndBufForce, &bytes);
        report("SO_SNDBUF", forced.map_or_else(|_| set_send_buffer(socket, bytes), Ok));
    }
    if let Ok(bytes @ 1..) = usize::try_from(options.receive_buffer_bytes.min(BUFFER_BYTES_MAX)) {
        let forced = setsockopt(socket, sockopt::RcvBufForce, &bytes);
        report("SO_RCVBUF", forced.map_or_else(|_| set_receive_buffer(socket, bytes), Ok));
    }
}

fn set_lane_options(socket: &impl AsFd, options: &SocketOptions) {
    report("TCP_NODELAY", set_no_delay(socket));
    if let Some(congestion) = options.congestion {
        report("TCP_CONGESTION", set_congestion_control(socket, congestion));
    }
}

/// A lane without an option is slower, not wrong: it is used all the same.
fn report(option: &'static str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(option, %error, "socket option refused");
    }
}

/// The kernel takes an `int` and doubles it.
const BUFFER_BYTES_MAX: u32 = i32::MAX as u32 / 2;
