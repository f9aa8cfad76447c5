//! The head of a file that is sealed with a passphrase, such as a copy of the state.
//!
//! ```text
//!  0          8            12      16      32
//!  ┌──────────┬────────────┬───────┬───────┬─────────────┬─────────────┬─ ─
//!  │ DWCPSEAL │ iterations │ 0     │ salt  │ segment 0   │ segment 1   │
//!  └──────────┴────────────┴───────┴───────┴─────────────┴─────────────┴─ ─
//! ```
//! Numbers are little-endian. The key is PBKDF2-HMAC-SHA256 (RFC 8018) of the passphrase. A segment is 64 KiB of the file
//! under ChaCha20-Poly1305 (RFC 8439), 16 bytes longer than that; the last one is shorter, and may be empty. The nonce is the
//! segment's number and whether it is the last one, the head is authenticated with each: no segment can be left out,
//! moved or taken from another file (the STREAM construction, Hoang and others, CRYPTO 2015).
use crate::codec::{CodecError, Reader, Writer};

/// Bytes of a [`SealedHeader`].
pub const SEALED_HEADER_BYTES: usize = 32;
/// Plain bytes of every segment but the last.
pub const SEALED_SEGMENT_BYTES: usize = 64 << 10;
/// Bytes by which a segment grows.
pub const SEALED_TAG_BYTES: usize = 16;
/// Iterations that are believed: fewer protect nobody, and more make a forged file a trap.
pub const SEALED_ITERATIONS: core::ops::RangeInclusive<u32> = 100_000..=20_000_000;

const MAGIC: [u8; 8] = *b"DWCPSEAL";

/// How the key follows from the passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedHeader {
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Random for each file.
    pub salt: [u8; 16],
}

impl SealedHeader {
    /// Whether a file begins as a sealed one does.
    #[must_use]
    pub fn is_of(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Writes the head.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SEALED_HEADER_BYTES] {
        let mut bytes = [0; SEALED_HEADER_BYTES];
        let mut writer = Writer::new(&mut bytes);
        let fields =
            [writer.bytes(&MAGIC), writer.u32(self.iterations), writer.u32(0), writer.bytes(&self.salt)];
        debug_assert!(fields.iter().all(Result::is_ok), "the fields are 32 bytes");
        bytes
    }

    /// Reads and checks a head.
    ///
    /// # Errors
    /// Another magic number, iterations that are not believed, or bits where there should be none.
    pub fn from_bytes(bytes: &[u8; SEALED_HEADER_BYTES]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.array::<8>()?;
        if magic != MAGIC {
            return Err(CodecError::Unknown { field: "magic number", value: u64::from_le_bytes(magic) });
        }
        let (iterations, reserved) = (reader.u32()?, reader.u32()?);
        if !SEALED_ITERATIONS.contains(&iterations) {
            return Err(CodecError::Unknown { field: "iterations", value: iterations.into() });
        }
        match reserved {
            0 => Ok(Self { iterations, salt: reader.array()? }),
            value => Err(CodecError::Unknown { field: "reserved", value: value.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        let header = SealedHeader { iterations: 600_000, salt: [7; 16] };
        let bytes = header.to_bytes();
        assert!(SealedHeader::is_of(&bytes));
        assert_eq!(SealedHeader::from_bytes(&bytes), Ok(header));
        for (at, value) in [(0, b'X'), (11, 0xff), (10, 0), (12, 1)] {
            let mut other = bytes;
            other[at] = value;
            assert!(SealedHeader::from_bytes(&other).is_err(), "byte {at}");
        }
    }
}
