//! The coded bytes of a [`super::BlockCodec::Delta`] block: a head, then seven streams, each in pieces.
//!
//! ```text
//!  0      1           4          8                             36
//!  ┌──────┬─── ─ ─ ───┬──────────┬───────────────────────────────┐
//!  │ kind │     0     │ segments │ plain lengths of the streams  │   then of each stream its pieces:
//!  └──────┴─── ─ ─ ───┴──────────┴───────────────────────────────┘
//!  ┌────────────────────────────────────────┬──────────────┐
//!  │ length, and in the highest bit: coded? │ that many    │   a Zstandard frame, or the bytes as they are
//!  └────────────────────────────────────────┴──────────────┘
//! ```
//! A piece stands for [`DELTA_PIECE_BYTES`] of its stream, the last for what is left; literals are one piece. What the
//! streams mean is said in `hde` (`crates/hde/src/delta/streams.rs`).
use crate::codec::{CodecError, Encoded as _, Reader, codes};

codes! {
    /// What stands between a segment and its part of the baseline.
    pub enum DeltaKind: u8 {
        /// Runs of bytes to add to those of the baseline.
        Difference = 0,
        /// Runs of bytes in place of those of the baseline, among the literals.
        Exact = 1,
        /// Differences of all 64-bit words, ordered by their bytes' place.
        Words = 2,
    }
}

codes! {
    /// The streams in their order. Numbers are LEB128.
    pub enum Stream: u8 {
        /// Literal bytes before each segment.
        Gaps = 0,
        /// Length of each segment.
        Lengths = 1,
        /// Where each segment's part of the baseline begins, relative to where it was expected; zigzag.
        Seeks = 2,
        /// Equal bytes before each run.
        Skips = 3,
        /// Length of each run.
        Runs = 4,
        /// Bytes of the runs, or words.
        Values = 5,
        /// Bytes that no segment covers.
        Literals = 6,
    }
}

/// Number of streams.
pub const STREAMS: usize = 7;

/// Bytes of a [`DeltaHead`].
pub const DELTA_HEAD_BYTES: usize = 8 + 4 * STREAMS;

/// Bytes of a stream that a piece stands for.
pub const DELTA_PIECE_BYTES: usize = 128 * 1024;

/// Fewest bytes of a segment: shorter ones cost more to name than to send.
pub const DELTA_SEGMENT_BYTES_MIN: u32 = 16;

/// The first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaHead {
    /// How differences are written.
    pub kind: DeltaKind,
    /// Number of segments.
    pub segments: u32,
    /// Plain bytes of each stream.
    pub lengths: [u32; STREAMS],
}

impl DeltaHead {
    /// Writes the head.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; DELTA_HEAD_BYTES] {
        let mut bytes = [0; DELTA_HEAD_BYTES];
        bytes[0] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.segments.to_le_bytes());
        for (room, length) in bytes[8..].chunks_exact_mut(4).zip(self.lengths) {
            room.copy_from_slice(&length.to_le_bytes());
        }
        bytes
    }

    /// Reads the head of a block that stands for `plain_length` bytes, and checks that each stream may be that long.
    ///
    /// # Errors
    /// A kind or a byte without a meaning; more segments than fit the plain bytes; streams that are together longer than twice
    /// the plain bytes, or literals that are longer than them.
    pub fn read(reader: &mut Reader<'_>, plain_length: u32) -> Result<Self, CodecError> {
        let kind = DeltaKind::decode(&[reader.u8()?])?;
        let zeros = reader.array::<3>()?;
        if zeros != [0; 3] {
            return Err(CodecError::Unknown { field: "delta flags", value: u64::from(zeros[0]) });
        }
        let segments = reader.u32()?;
        let segments_max = plain_length / DELTA_SEGMENT_BYTES_MIN;
        at_most("delta segments", u64::from(segments), u64::from(segments_max))?;
        let mut lengths = [0; STREAMS];
        for length in &mut lengths {
            *length = reader.u32()?;
        }
        let streams = lengths.iter().map(|length| u64::from(*length)).sum();
        at_most("delta streams", streams, 2 * u64::from(plain_length))?;
        let literals = u64::from(lengths[Stream::Literals as usize]);
        at_most("delta literals", literals, u64::from(plain_length))?;
        Ok(Self { kind, segments, lengths })
    }
}

/// The four bytes before a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHead {
    /// Bytes that follow.
    pub length: u32,
    /// Whether they are a Zstandard frame.
    pub coded: bool,
}

impl PieceHead {
    /// Writes it.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        (self.length | (self.coded as u32) << 31).to_le_bytes()
    }

    /// Reads it for a piece that stands for `plain_length` bytes.
    ///
    /// # Errors
    /// A length that such a piece cannot have: only a coded one is shorter than its plain bytes.
    pub fn read(reader: &mut Reader<'_>, plain_length: u32) -> Result<Self, CodecError> {
        let word = reader.u32()?;
        let head = Self { length: word & !CODED, coded: word & CODED != 0 };
        let field = "delta piece length";
        if head.coded && head.length >= plain_length {
            let (value, max) = (u64::from(head.length), u64::from(plain_length.saturating_sub(1)));
            return Err(CodecError::TooLarge { field, value, max });
        }
        if !head.coded && head.length != plain_length {
            return Err(CodecError::Unknown { field, value: u64::from(head.length) });
        }
        Ok(head)
    }
}

const CODED: u32 = 1 << 31;

fn at_most(field: &'static str, value: u64, max: u64) -> Result<(), CodecError> {
    if value <= max { Ok(()) } else { Err(CodecError::TooLarge { field, value, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: DeltaHead =
        DeltaHead { kind: DeltaKind::Exact, segments: 0x102, lengths: [1, 2, 3, 4, 5, 0x600, 7] };

    #[test]
    fn layout_is_pinned() {
        let golden = [
            1, 0, 0, 0, 2, 1, 0, 0, // kind, segments
            1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0, 6, 0, 0, 7, 0, 0, 0,
        ];
        assert_eq!(HEAD.to_bytes(), golden);
        assert_eq!(DeltaHead::read(&mut Reader::new(&golden), 0x1020), Ok(HEAD));
        let piece = PieceHead { length: 0x1_0203, coded: true };
        assert_eq!(piece.to_bytes(), [3, 2, 1, 0x80]);
        assert_eq!(PieceHead::read(&mut Reader::new(&piece.to_bytes()), 0x1_0204), Ok(piece));
    }

    #[test]
    fn lengths_that_a_block_cannot_have_are_refused() {
        let read = |head: DeltaHead, plain| DeltaHead::read(&mut Reader::new(&head.to_bytes()), plain);
        assert!(read(HEAD, 0x101f).is_err());
        assert!(read(DeltaHead { lengths: [0, 0, 0, 0, 0, 0, 0x1021], ..HEAD }, 0x1020).is_err());
        assert!(read(DeltaHead { lengths: [u32::MAX; STREAMS], ..HEAD }, u32::MAX).is_err());
        let piece = |length, coded, plain| {
            PieceHead::read(&mut Reader::new(&PieceHead { length, coded }.to_bytes()), plain)
        };
        assert!(piece(10, false, 11).is_err() && piece(11, true, 11).is_err() && piece(0, true, 0).is_err());
        assert!(piece(11, false, 11).is_ok() && piece(0, false, 0).is_ok());
    }
}
