//! The TLS 1.3 record layer (RFC 8446 §5.2) of a lane after its handshake: [`Sealer`] for one direction,
//! [`Opener`] for the other.
//!
//! The door makes the handshake with rustls and hands over the traffic secrets; workers seal and open with their
//! own buffers, so that no byte is copied that need not be and nothing is allocated per record. It moves no bytes
//! over sockets, and it speaks of TLS only what lanes use: application data and alerts. Keys are never updated
//! within a lane; [`Sealer::needs_retirement`] says when a lane must be replaced instead.
mod open;
mod seal;
mod secrets;

pub use open::{Opened, Opener};
pub use seal::{CLOSE_NOTIFY_LENGTH, Sealer, sealed_length};
pub use secrets::{DirectionSecrets, LaneSecrets, Suite};

/// Bytes before the protected part: type, version, length.
pub const HEADER_LENGTH: usize = 5;

/// Most plain bytes in a record (RFC 8446 §5.1).
pub const PLAIN_MAX: usize = 1 << 14;

/// Most bytes behind a record's header (RFC 8446 §5.2).
pub const BODY_MAX: usize = PLAIN_MAX + 256;

/// What a record adds to its plain bytes: header, inner content type, tag.
pub const OVERHEAD: usize = HEADER_LENGTH + 1 + TAG_LENGTH;

/// Bytes of the authentication tag of either suite.
pub const TAG_LENGTH: usize = 16;

/// Records after which a lane should be retired: below the 2^24.5 of RFC 8446 §5.5.
pub const RETIREMENT_RECORDS: u64 = 1 << 24;

/// Records that a key may protect at all: 2^24.5, RFC 8446 §5.5.
const RECORDS_MAX: u64 = 23_726_566;

const TYPE_ALERT: u8 = 21;
const TYPE_APPLICATION_DATA: u8 = 23;
const ALERT_LEVEL_WARNING: u8 = 1;
const ALERT_CLOSE_NOTIFY: u8 = 0;

/// Why a record cannot be sealed or opened. Every one of them ends the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The output slice is shorter than the result.
    #[error("output of {room} bytes is too short for {needed}")]
    NoRoom {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        room: usize,
    },
    /// The header is not that of a protected record.
    #[error("record header {header:02x?} is not that of an encrypted record")]
    Header {
        /// What was found.
        header: [u8; HEADER_LENGTH],
    },
    /// The header and the number of bytes given do not agree.
    #[error("record has {found} bytes, its header says {expected}")]
    Length {
        /// By the header.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// The record was changed, lost its place in the stream, or belongs to another lane.
    #[error("record cannot be authenticated")]
    Forged,
    /// The peer broke off.
    #[error("peer sent the TLS alert {code}")]
    Alert {
        /// Alert description (RFC 8446 §6).
        code: u8,
    },
    /// Neither data nor an alert: nothing that a lane carries.
    #[error("record carries the unexpected content type {content_type}")]
    ContentType {
        /// Inner content type; 0 where there is none at all.
        content_type: u8,
    },
    /// The key has protected as many records as it may.
    #[error("the lane has carried all the records that its key may protect")]
    Exhausted,
    /// The cryptographic library refused; nothing that input can cause.
    #[error("the cryptographic library refused")]
    Library,
}

/// How far a direction has come: its nonces, and how many records remain.
#[derive(Debug)]
struct Sequence {
    iv: [u8; 12],
    next: u64,
}

impl Sequence {
    /// Nonce of the next record: the sequence number, big-endian, over the IV (RFC 8446 §5.3).
    fn nonce(&self) -> Result<ring::aead::Nonce, RecordError> {
        if self.next >= RECORDS_MAX {
            return Err(RecordError::Exhausted);
        }
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.next.to_be_bytes()) {
            *byte ^= number;
        }
        Ok(ring::aead::Nonce::assume_unique_for_key(nonce))
    }

    /// The record of the last nonce was used.
    fn advance(&mut self) {
        self.next += 1;
    }

    fn needs_retirement(&self) -> bool {
        self.next >= RETIREMENT_RECORDS
    }
}

#[cfg(test)]
mod tests;
