//! A lane's socket, its keys and its buffers: bytes into frames and frames into bytes. Used by [`super::peer`]; what the
//! frames mean is the core's business.
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use dwcp_abi::codec::CodecError;
use dwcp_abi::wire::{TUNNEL_HEADER_BYTES, TUNNEL_PAYLOAD_MAX, TunnelFrame};
use dwcp_engine::Violation;
use dwcp_sys::socket::{set_unsent_low_water, set_user_timeout};
use nix::sys::socket::{setsockopt, sockopt};

use super::coding::CodingError;
use crate::door::LaneReady;
use crate::record::{BODY_MAX, HEADER_LENGTH, Opened, Opener, RecordError, Sealer, sealed_length};

/// A lane.
pub(super) struct Lane {
    stream: TcpStream,
    pub(super) number: u64,
    keys: Option<Keys>,
    inbound: Buffer,
    plain: Buffer,
    /// Frames that were gathered, and what goes to the socket.
    gathered: Vec<u8>,
    outbound: Vec<u8>,
    outbound_at: usize,
    /// Sends since the socket was last full, counted down to 0: meanwhile the network is held to be slower than this node.
    pressed: u16,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

struct Keys {
    sealer: Sealer,
    opener: Opener,
}

/// Why a lane is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer closed it")]
    Closed,
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("{0}")]
    Frame(#[from] CodecError),
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("{0}")]
    Coding(#[from] CodingError),
    #[error("its keys have protected enough: another lane takes its place")]
    Retired,
}

/// Whether a bounded piece of work was all there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    All,
    Part,
}

impl Lane {
    /// Takes over what the door made.
    pub(super) fn new(ready: LaneReady) -> Result<Self, LaneError> {
        let stream = TcpStream::from(ready.fd);
        stream.set_nonblocking(true)?;
        prefer(&stream);
        let keys = match &ready.secrets {
            None => None,
            Some(secrets) => {
                Some(Keys { sealer: Sealer::new(&secrets.send)?, opener: Opener::new(&secrets.receive)? })
            }
        };
        Ok(Self {
            stream,
            number: 0,
            keys,
            inbound: Buffer::new(INBOUND_BYTES),
            plain: Buffer::new(PLAIN_BYTES),
            gathered: Vec::with_capacity(GATHER_BYTES),
            outbound: Vec::new(),
            outbound_at: 0,
            pressed: 0,
            readable: false,
            writable: true,
        })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads what is there, up to a bound, and gives each whole frame to `take`.
    pub(super) fn receive(
        &mut self,
        mut take: impl FnMut(&TunnelFrame<'_>) -> Result<(), LaneError>,
    ) -> Result<Amount, LaneError> {
        for _ in 0..READS_PER_TURN {
            if !self.readable {
                return Ok(Amount::All);
            }
            match self.stream.read(self.inbound.room()) {
                Ok(0) => return Err(LaneError::Closed),
                Ok(count) => self.inbound.added(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            match &mut self.keys {
                Some(keys) => {
                    while open_record(&mut keys.opener, &mut self.inbound, &mut self.plain)? {
                        take_frames(&mut self.plain, &mut take)?;
                    }
                }
                None => take_frames(&mut self.inbound, &mut take)?,
            }
            self.inbound.compact();
        }
        Ok(Amount::Part)
    }

    /// Sends what `next` has to say, as far as the socket takes it and up to a bound. `next` writes one frame and says
    /// its length; it hears whether frames wait for the network.
    pub(super) fn send(
        &mut self,
        mut next: impl FnMut(&mut [u8], bool) -> Option<usize>,
    ) -> Result<Amount, LaneError> {
        for _ in 0..SENDS_PER_TURN {
            if !self.writable {
                return Ok(Amount::All);
            }
            if self.outbound_at == self.outbound.len() && !self.gather(&mut next)? {
                return Ok(Amount::All);
            }
            match self.stream.write(&self.outbound[self.outbound_at..]) {
                Ok(count) => self.outbound_at += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (self.writable, self.pressed) = (false, PRESSED_SENDS);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Amount::Part)
    }

    /// Fills the outbound buffer; false where there is nothing to say.
    fn gather(&mut self, next: &mut impl FnMut(&mut [u8], bool) -> Option<usize>) -> Result<bool, LaneError> {
        self.gathered.clear();
        self.pressed = self.pressed.saturating_sub(1);
        while self.gathered.len() + FRAME_BYTES_MAX <= GATHER_BYTES {
            let at = self.gathered.len();
            self.gathered.resize(at + FRAME_BYTES_MAX, 0);
            let length = next(&mut self.gathered[at..], self.pressed > 0);
            self.gathered.truncate(at + length.unwrap_or(0));
            if length.is_none() {
                break;
            }
        }
        (self.outbound_at, self.outbound) = (0, std::mem::take(&mut self.outbound));
        self.outbound.clear();
        match &mut self.keys {
            _ if self.gathered.is_empty() => {}
            Some(keys) if keys.sealer.needs_retirement() => return Err(LaneError::Retired),
            Some(keys) => {
                self.outbound.resize(sealed_length(self.gathered.len()), 0);
                keys.sealer.seal(&self.gathered, &mut self.outbound)?;
            }
            None => std::mem::swap(&mut self.outbound, &mut self.gathered),
        }
        Ok(!self.outbound.is_empty())
    }
}

/// One record into plain bytes; false where none is whole.
fn open_record(opener: &mut Opener, inbound: &mut Buffer, plain: &mut Buffer) -> Result<bool, LaneError> {
    let Some(header) = inbound.bytes().first_chunk::<HEADER_LENGTH>() else { return Ok(false) };
    let length = Opener::record_length(header)?;
    if inbound.bytes().len() < length {
        return Ok(false);
    }
    plain.compact();
    let opened = opener.open(&mut inbound.bytes_mut()[..length], plain.room())?;
    inbound.taken(length);
    match opened {
        Opened::Data(count) => plain.added(count),
        Opened::CloseNotify => return Err(LaneError::Closed),
    }
    Ok(true)
}

fn take_frames(
    bytes: &mut Buffer,
    take: &mut impl FnMut(&TunnelFrame<'_>) -> Result<(), LaneError>,
) -> Result<(), LaneError> {
    while let Some(frame) = TunnelFrame::decode_front(bytes.bytes())? {
        take(&frame)?;
        let length = frame.length();
        bytes.taken(length);
    }
    Ok(())
}

/// Small queues, and a place before bulk in this host's and, where anybody looks at it, the network's.
fn prefer(stream: &TcpStream) {
    let ipv4 = stream.local_addr().is_ok_and(|address| address.is_ipv4());
    let class = if ipv4 {
        setsockopt(stream, sockopt::Ipv4Tos, &TYPE_OF_SERVICE)
    } else {
        setsockopt(stream, sockopt::Ipv6TClass, &TYPE_OF_SERVICE)
    };
    let results = [
        ("IP_TOS", class.map_err(io::Error::from)),
        ("SO_PRIORITY", setsockopt(stream, sockopt::Priority, &PRIORITY).map_err(io::Error::from)),
        ("TCP_NOTSENT_LOWAT", set_unsent_low_water(stream, UNSENT_BYTES)),
        ("TCP_USER_TIMEOUT", set_user_timeout(stream, CONNECTION_DEAD)),
    ];
    // A lane without an option is slower, not wrong.
    for (option, result) in results {
        if let Err(error) = result {
            tracing::debug!(option, %error, "socket option refused");
        }
    }
}

/// Bytes with a front that was taken.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new(length: usize) -> Self {
        Self { bytes: vec![0; length].into(), start: 0, end: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    fn added(&mut self, count: usize) {
        self.end += count;
    }

    fn taken(&mut self, count: usize) {
        self.start += count;
    }

    /// Moves what is left to the front. What is left is less than a record or a frame.
    fn compact(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }
}

const FRAME_BYTES_MAX: usize = TUNNEL_HEADER_BYTES + TUNNEL_PAYLOAD_MAX;
/// Frames that are sealed together.
const GATHER_BYTES: usize = 4 * FRAME_BYTES_MAX;
const INBOUND_BYTES: usize = 128 * 1024;
/// A part of a frame and all of a record.
const PLAIN_BYTES: usize = FRAME_BYTES_MAX + BODY_MAX;
const READS_PER_TURN: usize = 8;
const SENDS_PER_TURN: usize = 8;
/// Some megabytes: a window's end makes a pause, and no faster network.
const PRESSED_SENDS: u16 = 64;
/// What waits unsent in the kernel cannot be overtaken.
const UNSENT_BYTES: u32 = 64 * 1024;
/// AF21, low-latency data (RFC 4594 §4.7), in the upper six bits.
const TYPE_OF_SERVICE: i32 = 18 << 2;
/// `TC_PRIO_INTERACTIVE`: the first band of pfifo_fast (tc-prio(8)).
const PRIORITY: i32 = 6;
/// Sent bytes that nobody acknowledges for so long mean that the connection is dead (RFC 5482).
const CONNECTION_DEAD: Duration = Duration::from_secs(15);
