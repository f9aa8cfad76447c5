//! What the tunnel core is told and tells: names, limits, events. Used by its driver and its simulation.
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::codec::CodecError;
use dwcp_abi::wire::{Code, TUNNEL_WINDOW_FIRST};

use crate::Time;

/// A lane, as the driver numbers it. A number is not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelLane(pub u64);

/// Which end numbered a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Opener {
    /// This one.
    Local,
    /// The other one.
    Peer,
}

/// Name of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// Who numbered it.
    pub opener: Opener,
    /// Its number.
    pub number: u32,
}

/// What the driver has to do or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields have the names of what the variant's sentence speaks of")]
pub enum TunnelEvent {
    /// The peer asks for a connection to `target`: see to it, then `accept` or `reset`. Any bytes.
    Asked { key: ConnectionKey, target: Vec<u8> },
    /// The peer has connected the target.
    Opened { key: ConnectionKey },
    /// The peer has not, or was never asked.
    Refused { key: ConnectionKey, code: Code, text: String },
    /// There are bytes, or the end, to pass on.
    Readable { key: ConnectionKey },
    /// There is room again.
    Writable { key: ConnectionKey },
    /// The connection broke off: so must what it is connected to.
    Reset { key: ConnectionKey, code: Code, text: String },
    /// Both directions have ended and the peer knows.
    Closed { key: ConnectionKey },
    /// The answer to a `probe`: its number and the round trip in nanoseconds.
    Probed { number: u64, rtt_ns: Time },
    /// Nothing came on the lane for too long: it is down already, and has to be closed.
    Silent { lane: TunnelLane },
    /// The lane belongs to a former life of the peer: it is down already, and has to be closed.
    Stale { lane: TunnelLane },
}

/// Bounds. Times are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelLimits {
    /// Connections that each end may begin.
    pub connections_max: usize,
    /// Largest window of a connection in bytes, and most that is kept of what was sent.
    pub window_max: u64,
    /// All windows together, beyond the first window that every connection begins with; and all that is kept of what
    /// was sent, likewise.
    pub windows_total_max: u64,
    /// A lane that brought nothing for so long is pinged.
    pub ping_after: Time,
    /// A lane that then brought nothing for so long is given up.
    pub silence_max: Time,
    /// Connections are given up after so long without any lane.
    pub alone_max: Time,
    /// The peer must say so soon what became of a target.
    pub answer_max: Time,
}

/// The peer broke the protocol: the lane must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A payload that is none.
    Codec(CodecError),
    /// A frame that has no place here.
    Order(&'static str),
}

impl From<CodecError> for Violation {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Codec(error) => write!(f, "tunnel frame: {error}"),
            Self::Order(what) => write!(f, "tunnel frame: {what}"),
        }
    }
}

impl core::error::Error for Violation {}

/// 1024 connections of either end, windows up to 8 MiB (670 Mbit/s over 100 ms), 128 MiB of them beyond the 128 MiB that
/// the connections begin with; half a minute for a peer that is away.
impl Default for TunnelLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            window_max: 8 << 20,
            windows_total_max: 2 * 1024 * TUNNEL_WINDOW_FIRST,
            ping_after: 5 * SECOND,
            silence_max: 10 * SECOND,
            alone_max: 30 * SECOND,
            answer_max: 40 * SECOND,
        }
    }
}

const SECOND: Time = 1_000_000_000;
