//! Which delta method an object gets (`delta_algorithm: auto`). Called by the dataplane's helper threads with an object's
//! bytes in segments; decides by what the bytes become, never by their name.
//!
//! Blocks against anchors are nearly always the smaller and the faster way, and can be made and read in any order. They
//! miss what new content repeats of other new content far away. Whether an object does that shows in the anchors of its
//! literals: where blocks have many in common, the segment is tried as one frame, and the way that won is tried first
//! from then on.
use std::collections::HashMap;

use super::{Against, anchor_hashes};
use crate::{BlockCodec, EncodeError, Encoded, Encoder, REFERENCE_PLAIN_MAX, encoded_length_max};

/// A way to write a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Independent blocks of [`DELTA_BLOCK_BYTES`].
    Blocks,
    /// One frame whose window begins with the baseline.
    Reference,
}

/// Encodes an object's segments and remembers what suited it.
#[derive(Debug)]
pub struct Auto {
    method: Method,
    level: u8,
    hint: u64,
    scratch: Vec<u8>,
}

/// A block in a segment's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Plain bytes that it stands for.
    pub plain_length: usize,
    /// Bytes of the block.
    pub length: usize,
    /// How they are coded.
    pub codec: BlockCodec,
}

impl Auto {
    /// Begins an object, which is coded with Zstandard's `level` for what its baseline does not have.
    #[must_use]
    pub const fn new(level: u8) -> Self {
        Self { method: Method::Blocks, level, hint: 0, scratch: Vec::new() }
    }

    /// The method that is tried first.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Appends the blocks that stand for `plain`, the next bytes of the object and at most
    /// [`SEGMENT_BYTES_MAX`], to `out`, and what they are to `spans`.
    ///
    /// # Errors
    /// As [`Encoder::encode_delta`]; what `out` and `spans` then hold of this segment has no meaning.
    pub fn encode(
        &mut self,
        encoder: &mut Encoder,
        plain: &[u8],
        against: &Against<'_>,
        out: &mut Vec<u8>,
        spans: &mut Vec<Span>,
    ) -> Result<(), EncodeError> {
        let hint = self.hint;
        if self.method == Method::Reference
            && let Some(span) = self.reference(encoder, plain, against, usize::MAX, out)?
        {
            spans.push(span);
            self.hint = hint.saturating_add(plain.len() as u64);
            return Ok(());
        }
        self.method = Method::Blocks;
        let (start, spans_start) = (out.len(), spans.len());
        let mut literals = Literals::default();
        let mut coded = 0;
        for block in plain.chunks(DELTA_BLOCK_BYTES) {
            self.block(encoder, block, against, out, spans)?;
            coded += block.len();
            literals.add(encoder.delta_literals());
            if !literals.repeat_each_other() {
                continue;
            }
            // What the blocks would come to, by those that there are, less a twentieth.
            let blocks_bytes = (out.len() - start) as u64 * plain.len() as u64 / coded as u64;
            let below = (blocks_bytes / 20 * 19) as usize;
            let blocks_end = out.len();
            if let Some(span) = self.reference(encoder, plain, against, below, out)? {
                out.drain(start..blocks_end);
                spans.truncate(spans_start);
                spans.push(span);
                self.method = Method::Reference;
                self.hint = hint.saturating_add(plain.len() as u64);
                return Ok(());
            }
            literals.settle();
        }
        Ok(())
    }

    fn block(
        &mut self,
        encoder: &mut Encoder,
        block: &[u8],
        against: &Against<'_>,
        out: &mut Vec<u8>,
        spans: &mut Vec<Span>,
    ) -> Result<(), EncodeError> {
        let room = room(&mut self.scratch, encoded_length_max(block.len()));
        let delta = encoder.encode_delta(block, against, self.hint, self.level, room)?;
        let Encoded { length, codec } = delta.encoded;
        out.extend_from_slice(&room[..length]);
        spans.push(Span { plain_length: block.len(), length, codec });
        self.hint = delta.hint_next;
        Ok(())
    }

    /// Appends one frame. None, and nothing, where it is not below `below`.
    fn reference(
        &mut self,
        encoder: &mut Encoder,
        plain: &[u8],
        against: &Against<'_>,
        below: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Span>, EncodeError> {
        // At low levels the fast strategy loses nothing here: most matches are long ones.
        let level = if self.level <= 3 { 1 } else { self.level };
        let room = room(&mut self.scratch, encoded_length_max(plain.len()));
        let encoded = encoder.encode_reference(plain, against.baseline, level, room)?;
        let Some(Encoded { length, codec }) = encoded.filter(|encoded| encoded.length < below) else {
            return Ok(None);
        };
        out.extend_from_slice(&room[..length]);
        Ok(Some(Span { plain_length: plain.len(), length, codec }))
    }
}

/// The front of a buffer that grows to what was ever needed.
fn room(scratch: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if scratch.len() < length {
        *scratch = vec![0; length];
    }
    &mut scratch[..length]
}

/// Anchors of what blocks of a segment could not copy.
#[derive(Default)]
struct Literals {
    /// The first block that each was seen in.
    seen: HashMap<u32, u32, Spread>,
    blocks: u32,
    anchors: usize,
    repeated: usize,
    settled: bool,
}

impl Literals {
    fn add(&mut self, literals: &[u8]) {
        if self.settled {
            return;
        }
        let block = self.blocks;
        anchor_hashes(&literals[..literals.len().min(LITERALS_MAX)], |hash| {
            let first = *self.seen.entry(hash).or_insert(block);
            self.anchors += 1;
            self.repeated += usize::from(first != block);
        });
        self.blocks += 1;
    }

    /// Whether enough of them were in other blocks already.
    fn repeat_each_other(&self) -> bool {
        !self.settled && self.anchors >= ANCHORS_MIN && self.repeated * REPEATED_SHARE >= self.anchors
    }

    /// It has been tried: not again in this segment.
    fn settle(&mut self) {
        *self = Self { settled: true, ..Self::default() };
    }
}

/// Anchors' hashes are spread well enough already.
#[derive(Default, Clone)]
struct Spread(u64);

impl std::hash::BuildHasher for Spread {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(*byte);
        }
        self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u32(&mut self, hash: u32) {
        self.0 = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Plain bytes of a delta block, where the caller is free to choose.
pub const DELTA_BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// Most plain bytes that are decided on at once.
pub const SEGMENT_BYTES_MAX: usize = REFERENCE_PLAIN_MAX as usize;

/// Literals of a block that are looked at.
const LITERALS_MAX: usize = 1024 * 1024;

/// So many anchors are looked at before anything is concluded, and one in so many must have been seen in another block.
const ANCHORS_MIN: usize = 4096;
const REPEATED_SHARE: usize = 8;
