//! Plain bytes to blocks. Called by the dataplane's workers and helper threads for chunks that leave the node; chooses
//! nothing itself (see [`crate::Chooser`]) but to send raw what did not get small enough.
use dwcp_abi::wire::{
    BLOCK_HEADER_BYTES, BlockCodec, BlockHeader, CONTENT_ID_BYTES, ContentId, Names, checksum,
};
use zstd_safe::CCtx;

use crate::codec::{lz4, reference, snappy, zstd};
use crate::delta::Against;
use crate::delta::encode::{Coded, DeltaEncoder};
use crate::{Baseline, Choice, Limits, PreparedDictionary};

/// Encodes blocks, one after another. Holds every codec's tables: about 1.2 times the longest block, and what zstd
/// takes for the levels that were used.
pub struct Encoder {
    limits: Limits,
    scratch: Vec<u8>,
    lz4: lz4::Lz4Encoder,
    snappy: snap::raw::Encoder,
    zstd: CCtx<'static>,
    delta: DeltaEncoder,
}

/// What an encoder made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of the block, header included.
    pub length: usize,
    /// How they are coded: as chosen, or raw.
    pub codec: BlockCodec,
}

/// What an encoder made of a block and a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedDelta {
    /// The block.
    pub encoded: Encoded,
    /// Where in the baseline the bytes after this block are expected.
    pub hint_next: u64,
    /// Plain bytes that are not in the baseline.
    pub literals: usize,
}

/// Why there is no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More plain bytes than the limits allow.
    #[error("a block of {length} plain bytes is above the limit of {max}")]
    TooLong {
        /// Plain bytes given.
        length: usize,
        /// Most that are taken.
        max: usize,
    },
    /// The output is shorter than [`encoded_length_max`].
    #[error("the block may need {needed} bytes and was given {available}")]
    NoRoom {
        /// Bytes that must be there.
        needed: usize,
        /// Bytes that are.
        available: usize,
    },
}

/// Longest block that `plain_length` bytes can become: what does not get smaller is stored.
#[must_use]
pub const fn encoded_length_max(plain_length: usize) -> usize {
    BLOCK_HEADER_BYTES + plain_length
}

impl Encoder {
    /// Takes the memory that does not depend on the data.
    ///
    /// # Panics
    /// Where the allocator has no memory for zstd's context.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let plain = limits.plain_length_max();
        let scratch = lz4::scratch_length(plain).max(snappy::scratch_length(plain));
        Self {
            limits,
            scratch: vec![0; scratch],
            lz4: lz4::Lz4Encoder::new(),
            snappy: snap::raw::Encoder::new(),
            zstd: CCtx::create(),
            delta: DeltaEncoder::default(),
        }
    }

    /// Writes a block that stands for `plain` to the front of `out`. It is raw where it was chosen so, where the choice
    /// did not gain the limits' ratio, and where a codec failed.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] above the limits, [`EncodeError::NoRoom`] where `out` is shorter than
    /// [`encoded_length_max`].
    pub fn encode(&mut self, plain: &[u8], choice: Choice, out: &mut [u8]) -> Result<Encoded, EncodeError> {
        self.check(plain, out, self.limits.plain_length_max())?;
        let (head, body) = out.split_at_mut(BLOCK_HEADER_BYTES);
        let body = &mut body[..plain.len()];
        let (choice, coded_length) = match self.code(plain, choice, body) {
            Some(coded_length) => (choice, coded_length),
            None => {
                body.copy_from_slice(plain);
                (Choice::RAW, plain.len())
            }
        };
        let header = BlockHeader {
            codec: choice.codec(),
            level: choice.level(),
            names: Names::Nothing,
            plain_length: plain.len() as u32,
            coded_length: coded_length as u32,
            plain_crc: checksum(plain),
        };
        head.copy_from_slice(&header.to_bytes());
        Ok(Encoded { length: BLOCK_HEADER_BYTES + coded_length, codec: choice.codec() })
    }

    /// Writes a block that stands for `plain` as its differences to a baseline. `hint` is where in the baseline its first
    /// byte is expected: its own offset at first, then [`EncodedDelta::hint_next`] of the block before. `level` is
    /// Zstandard's for what remains. Where the baseline does not help the block is coded plain, at that level.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_delta(
        &mut self,
        plain: &[u8],
        against: &Against<'_>,
        hint: u64,
        level: u8,
        out: &mut [u8],
    ) -> Result<EncodedDelta, EncodeError> {
        self.check(plain, out, self.limits.plain_length_max())?;
        let level = level.clamp(1, dwcp_abi::wire::ZSTD_LEVEL_MAX);
        let coded = self.room(plain, out);
        match self.delta.encode(&mut self.zstd, plain, against, hint, level, coded) {
            Some(coded) => {
                let length = finish(plain, coded, level, against.baseline.id(), out);
                let encoded = Encoded { length, codec: coded.codec };
                Ok(EncodedDelta { encoded, hint_next: coded.hint_next, literals: coded.literals })
            }
            None => {
                let encoded = self.encode(plain, Choice::zstd(level), out)?;
                let literals = plain.len();
                Ok(EncodedDelta { encoded, hint_next: hint.saturating_add(plain.len() as u64), literals })
            }
        }
    }

    /// What the latest call of [`Self::encode_delta`] did not find in the baseline, and runs that stand for themselves.
    pub(crate) fn delta_literals(&self) -> &[u8] {
        self.delta.literals()
    }

    /// Writes a [`BlockCodec::Reference`] block of up to [`dwcp_abi::wire::REFERENCE_PLAIN_MAX`] bytes, whatever the
    /// limits say of others; none where it does not gain their ratio, or the baseline is not in memory or too long.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_reference(
        &mut self,
        plain: &[u8],
        baseline: &dyn Baseline,
        level: u8,
        out: &mut [u8],
    ) -> Result<Option<Encoded>, EncodeError> {
        self.check(plain, out, dwcp_abi::wire::REFERENCE_PLAIN_MAX as usize)?;
        let level = level.clamp(1, dwcp_abi::wire::ZSTD_LEVEL_MAX);
        let Some(bytes) = baseline.bytes() else { return Ok(None) };
        let Some(length) = reference::encode(bytes, plain, level, self.room(plain, out)) else {
            return Ok(None);
        };
        let codec = BlockCodec::Reference;
        let coded = Coded { codec, length, hint_next: 0, literals: 0 };
        Ok(Some(Encoded { length: finish(plain, coded, level, baseline.id(), out), codec }))
    }

    /// Writes a block that stands for `plain` with a dictionary; raw where that does not gain the limits' ratio.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_with_dictionary(
        &mut self,
        plain: &[u8],
        dictionary: &PreparedDictionary,
        out: &mut [u8],
    ) -> Result<Encoded, EncodeError> {
        self.check(plain, out, self.limits.plain_length_max())?;
        let coded = self.room(plain, out);
        let Some(coded_length) = zstd::encode_with(&mut self.zstd, plain, dictionary.encoder(), coded) else {
            return self.encode(plain, Choice::RAW, out);
        };
        let header = BlockHeader {
            codec: BlockCodec::Zstd,
            level: dictionary.level(),
            names: Names::Dictionary,
            plain_length: plain.len() as u32,
            coded_length: coded_length as u32,
            plain_crc: checksum(plain),
        };
        out[..BLOCK_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        out[BLOCK_HEADER_BYTES..DELTA_AT].copy_from_slice(&dictionary.id().0);
        Ok(Encoded { length: DELTA_AT + coded_length, codec: BlockCodec::Zstd })
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.scratch.len() + self.zstd.sizeof() + self.delta.memory_bytes()
    }

    /// Where the coded bytes of a block go that names something; as long as they may be.
    fn room<'a>(&self, plain: &[u8], out: &'a mut [u8]) -> &'a mut [u8] {
        let length = self.limits.coded_length_max(plain.len()).saturating_sub(CONTENT_ID_BYTES);
        out.get_mut(DELTA_AT..DELTA_AT + length).unwrap_or_default()
    }

    fn check(&self, plain: &[u8], out: &[u8], max: usize) -> Result<(), EncodeError> {
        if plain.len() > max {
            return Err(EncodeError::TooLong { length: plain.len(), max });
        }
        let (needed, available) = (encoded_length_max(plain.len()), out.len());
        if available < needed { Err(EncodeError::NoRoom { needed, available }) } else { Ok(()) }
    }

    fn code(&mut self, plain: &[u8], choice: Choice, body: &mut [u8]) -> Option<usize> {
        let room = self.limits.coded_length_max(plain.len());
        let coded = body.get_mut(..room).filter(|room| !room.is_empty())?;
        match choice.codec() {
            BlockCodec::Raw | BlockCodec::Same | BlockCodec::Delta | BlockCodec::Reference => None,
            BlockCodec::Lz4 => self.lz4.encode(plain, &mut self.scratch, coded),
            BlockCodec::Snappy => snappy::encode(&mut self.snappy, plain, &mut self.scratch, coded),
            BlockCodec::Zstd => zstd::encode(&mut self.zstd, plain, choice.level(), coded),
        }
    }
}

/// Writes what stands before the coded bytes of a block against a baseline. The length of the block.
fn finish(plain: &[u8], coded: Coded, level: u8, baseline: ContentId, out: &mut [u8]) -> usize {
    let header = BlockHeader {
        codec: coded.codec,
        level: if coded.codec == BlockCodec::Same { 0 } else { level },
        names: Names::Baseline,
        plain_length: plain.len() as u32,
        coded_length: coded.length as u32,
        plain_crc: checksum(plain),
    };
    out[..BLOCK_HEADER_BYTES].copy_from_slice(&header.to_bytes());
    out[BLOCK_HEADER_BYTES..DELTA_AT].copy_from_slice(&baseline.0);
    DELTA_AT + coded.length
}

/// Where the coded bytes begin.
const DELTA_AT: usize = BLOCK_HEADER_BYTES + CONTENT_ID_BYTES;
