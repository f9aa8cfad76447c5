//! The end of a connection that came to nothing. Closing a socket with unread bytes resets the connection, and the
//! other end would never see the alert or refusal that says why (RFC 9293 §3.6.1, RFC 1122 §4.2.2.13): so what still comes is
//! read and dropped, for a short while. Used by [`super::turn`].
use std::io::{ErrorKind, Read as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// One connection on its way out.
#[derive(Debug)]
pub(super) struct Parting {
    bytes_left: usize,
}

impl Parting {
    /// Ends the sending direction. `None` where there is nothing to wait for.
    pub(super) fn begin(stream: &TcpStream) -> Option<Self> {
        stream.shutdown(Shutdown::Write).ok()?;
        Some(Self { bytes_left: BYTES_MAX })
    }

    /// Drops what has come; true when the connection may be closed.
    pub(super) fn drain(&mut self, stream: &mut TcpStream) -> bool {
        let mut dropped = [0; 4096];
        while self.bytes_left > 0 {
            match stream.read(&mut dropped) {
                Ok(0) => return true,
                Ok(count) => self.bytes_left = self.bytes_left.saturating_sub(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        true
    }
}

/// How long the other end may take to close.
pub(super) const PARTING_TIME: Duration = Duration::from_secs(1);

const BYTES_MAX: usize = 64 * 1024;
