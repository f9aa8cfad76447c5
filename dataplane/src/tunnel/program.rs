//! A program's socket: bytes from it into the core and from the core into it. Used by [`super::peer`] for both ends of a
//! tunnel: what connected to a listener here, and what was connected to a target here.
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use dwcp_abi::wire::Code;
use dwcp_engine::{ConnectionKey, Mux};
use dwcp_sys::socket::{Keepalive, set_keepalive, set_no_delay};
use nix::sys::socket::{setsockopt, sockopt};

use super::lane::Amount;
use super::sources::Ready;

/// A program's socket.
pub(super) struct Program {
    stream: TcpStream,
    pub(super) number: u64,
    /// The listener that it came by; none = it is a target.
    pub(super) listener: Option<u64>,
    readable: bool,
    writable: bool,
    has_finished: bool,
    is_broken: bool,
}

/// What was moved.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Moved {
    /// From the program to the peer.
    pub(super) sent_bytes: u64,
    /// From the peer to the program.
    pub(super) received_bytes: u64,
}

impl Program {
    pub(super) fn new(stream: TcpStream, listener: Option<u64>) -> Self {
        tune(&stream);
        Self {
            stream,
            number: 0,
            listener,
            readable: true,
            writable: true,
            has_finished: false,
            is_broken: false,
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn handle_ready(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
        self.is_broken |= ready.broken;
    }

    /// Moves what can be moved, up to a bound. An error is the program's: the connection is to be reset.
    pub(super) fn pump(
        &mut self,
        mux: &mut Mux,
        key: ConnectionKey,
        scratch: &mut [u8],
        moved: &mut Moved,
    ) -> Result<Amount, io::Error> {
        if self.is_broken
            && let Some(error) = self.stream.take_error()?
        {
            return Err(error);
        }
        let mut amount = Amount::All;
        if self.read_into(mux, key, scratch, moved)? == Amount::Part
            || self.write_from(mux, key, moved)? == Amount::Part
        {
            amount = Amount::Part;
        }
        Ok(amount)
    }

    fn read_into(
        &mut self,
        mux: &mut Mux,
        key: ConnectionKey,
        scratch: &mut [u8],
        moved: &mut Moved,
    ) -> io::Result<Amount> {
        for _ in 0..READS_PER_TURN {
            let room = mux.room(key).min(scratch.len());
            if self.has_finished || !self.readable || room == 0 {
                return Ok(Amount::All);
            }
            match self.stream.read(&mut scratch[..room]) {
                Ok(0) => {
                    self.has_finished = true;
                    mux.finish(key);
                }
                Ok(count) => moved.sent_bytes += mux.write(key, &scratch[..count]) as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Amount::Part)
    }

    fn write_from(&mut self, mux: &mut Mux, key: ConnectionKey, moved: &mut Moved) -> io::Result<Amount> {
        for _ in 0..WRITES_PER_TURN {
            let bytes = mux.readable(key);
            if bytes.is_empty() && mux.take_end(key) {
                // The program may have closed already: then there is nobody to tell.
                drop(self.stream.shutdown(Shutdown::Write));
                return Ok(Amount::All);
            }
            let bytes = mux.readable(key);
            if !self.writable || bytes.is_empty() {
                return Ok(Amount::All);
            }
            match self.stream.write(bytes) {
                Ok(count) => {
                    mux.consume(key, count);
                    moved.received_bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Amount::Part)
    }

    /// Closes so that the program sees that the connection broke off (RST), and not that it ended.
    pub(super) fn break_off(self) {
        break_off(&self.stream);
    }
}

/// Makes the socket's close a reset.
pub(super) fn break_off(stream: &TcpStream) {
    let linger = libc_linger();
    if let Err(error) = setsockopt(stream, sockopt::Linger, &linger) {
        tracing::debug!(%error, "a connection ends where it should break off");
    }
}

fn libc_linger() -> nix::libc::linger {
    nix::libc::linger { l_onoff: 1, l_linger: 0 }
}

/// What the code and text of a reset are for an error of a program's socket.
pub(super) fn reset_words(error: &io::Error) -> (Code, String) {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            (Code::Cancelled, "the program at the other end broke the connection off".to_owned())
        }
        _ => (Code::Io, format!("the program's connection at the other end failed: {error}")),
    }
}

fn tune(stream: &TcpStream) {
    let keepalive = Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 6 };
    for result in [set_no_delay(stream), set_keepalive(stream, keepalive)] {
        if let Err(error) = result {
            tracing::debug!(%error, "socket option of a program's connection refused");
        }
    }
}

const READS_PER_TURN: usize = 4;
const WRITES_PER_TURN: usize = 16;
