//! Blocks to plain bytes. Called by the dataplane's workers for chunks that arrive; everything in a block is hostile.
use dwcp_abi::codec::CodecError;
use dwcp_abi::wire::{
    BLOCK_HEADER_BYTES, BlockCodec, BlockHeader, ContentId, Names, REFERENCE_PLAIN_MAX, checksum,
};
use zstd_safe::DCtx;

use crate::codec::{lz4, reference, snappy, zstd};
use crate::delta::apply::Applier;
use crate::{Baseline, BaselineError, Dictionary, Limits};

/// Decodes blocks, one after another. Its memory does not depend on what is decoded, but for what buffers
/// take once there are delta blocks: up to four times the longest block and 1 MiB.
pub struct Decoder {
    limits: Limits,
    zstd: DCtx<'static>,
    delta: Applier,
}

/// What the decoder's side has, by name.
pub trait Known {
    /// A baseline whose bytes have been compared with its name.
    fn baseline(&self, id: ContentId) -> Option<&dyn Baseline>;

    /// A dictionary.
    fn dictionary(&self, id: ContentId) -> Option<&Dictionary>;
}

/// Neither baselines nor dictionaries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Known for Nothing {
    fn baseline(&self, _id: ContentId) -> Option<&dyn Baseline> {
        None
    }

    fn dictionary(&self, _id: ContentId) -> Option<&Dictionary> {
        None
    }
}

/// Why a block is refused. The block must be dropped and may be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Bytes that no encoder wrote, or wrote differently.
    #[error("block is corrupt: {field}")]
    Corrupt {
        /// Where it shows.
        field: &'static str,
    },
    /// It stands for more than it may.
    #[error("block is a bomb: {field} is {value}, above {max}")]
    Bomb {
        /// The field that says so.
        field: &'static str,
        /// What it says.
        value: u64,
        /// The largest that is allowed here.
        max: u64,
    },
    /// A version, codec, level or flag that this build does not know.
    #[error("block has an unknown {field}: {value}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// It was coded against a baseline that is not here, or not any more.
    #[error("block needs a baseline that is not here: {0:?}")]
    BaselineMissing(ContentId),
    /// It was coded with a dictionary that is not here.
    #[error("block needs a dictionary that is not here: {0:?}")]
    DictionaryMissing(ContentId),
    /// The baseline is here, but its storage fails.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// The block is in order, but the caller's buffer is too short for it.
    #[error("block needs {needed} bytes of room and was given {available}")]
    NoRoom {
        /// Plain bytes of the block.
        needed: usize,
        /// Bytes that were given.
        available: usize,
    },
}

impl Decoder {
    /// Takes all memory that decoding needs.
    ///
    /// # Panics
    /// Where the allocator has no memory for zstd's context.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, zstd: DCtx::create(), delta: Applier::default() }
    }

    /// Decodes the whole of `block`, which names nothing, to the front of `out` and says how many bytes that is: always
    /// `plain_length_expected`. Bytes of `out` after those are never touched; what it holds after an error has no
    /// meaning.
    ///
    /// # Errors
    /// Any [`DecodeError`]. Lengths are compared with each other, with the limits and with `plain_length_expected`
    /// before anything is decoded; the checksum after.
    pub fn decode(
        &mut self,
        block: &[u8],
        plain_length_expected: u32,
        out: &mut [u8],
    ) -> Result<usize, DecodeError> {
        self.decode_with(block, plain_length_expected, &Nothing, out)
    }

    /// As [`Self::decode`], for blocks that may name baselines and dictionaries.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode_with(
        &mut self,
        block: &[u8],
        plain_length_expected: u32,
        known: &dyn Known,
        out: &mut [u8],
    ) -> Result<usize, DecodeError> {
        let (header, rest) = self.open(block, plain_length_expected)?;
        let needed = header.plain_length as usize;
        let available = out.len();
        let Some(plain) = out.get_mut(..needed) else {
            return Err(DecodeError::NoRoom { needed, available });
        };
        match header.names {
            Names::Nothing => self.decode_alone(header.codec, rest, plain)?,
            Names::Dictionary => {
                let (id, coded) = named(rest)?;
                let dictionary = known.dictionary(id).ok_or(DecodeError::DictionaryMissing(id))?;
                zstd::decode_with(&mut self.zstd, dictionary, coded, plain)?;
            }
            Names::Baseline => {
                let (id, coded) = named(rest)?;
                let baseline = known.baseline(id).ok_or(DecodeError::BaselineMissing(id))?;
                self.decode_against(header.codec, baseline, coded, plain)?;
            }
        }
        if checksum(plain) != header.plain_crc {
            return Err(DecodeError::Corrupt { field: "plain checksum" });
        }
        Ok(needed)
    }

    fn decode_alone(&mut self, codec: BlockCodec, coded: &[u8], plain: &mut [u8]) -> Result<(), DecodeError> {
        match codec {
            BlockCodec::Raw => plain.copy_from_slice(coded),
            BlockCodec::Lz4 => lz4::decode(coded, plain)?,
            BlockCodec::Snappy => snappy::decode(coded, plain)?,
            BlockCodec::Zstd => zstd::decode(&mut self.zstd, coded, plain)?,
            BlockCodec::Same | BlockCodec::Delta | BlockCodec::Reference => return Err(UNNAMED),
        }
        Ok(())
    }

    fn decode_against(
        &mut self,
        codec: BlockCodec,
        baseline: &dyn Baseline,
        coded: &[u8],
        plain: &mut [u8],
    ) -> Result<(), DecodeError> {
        match codec {
            BlockCodec::Same => {
                let offset = coded.try_into().map(u64::from_le_bytes).map_err(|_| SAME)?;
                let end = offset.checked_add(plain.len() as u64).ok_or(SAME)?;
                if end > baseline.length() {
                    return Err(SAME);
                }
                Ok(baseline.read(offset, plain)?)
            }
            BlockCodec::Delta => self.delta.apply(&mut self.zstd, coded, baseline, plain),
            BlockCodec::Reference => {
                let bytes = baseline.bytes().ok_or(DecodeError::BaselineMissing(baseline.id()))?;
                reference::decode(bytes, coded, plain)
            }
            BlockCodec::Raw | BlockCodec::Lz4 | BlockCodec::Snappy | BlockCodec::Zstd => Err(UNNAMED),
        }
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.zstd.sizeof() + self.delta.memory_bytes()
    }

    /// Checks all that the header alone can show. The bytes after it are as many as it says.
    fn open<'a>(&self, block: &'a [u8], expected: u32) -> Result<(BlockHeader, &'a [u8]), DecodeError> {
        let Some((head, coded)) = block.split_first_chunk::<BLOCK_HEADER_BYTES>() else {
            return Err(DecodeError::Corrupt { field: "block header" });
        };
        let header = BlockHeader::from_bytes(head)?;
        let field = "block plain length";
        let limit = match header.codec {
            BlockCodec::Reference => u64::from(REFERENCE_PLAIN_MAX),
            BlockCodec::Raw
            | BlockCodec::Lz4
            | BlockCodec::Snappy
            | BlockCodec::Zstd
            | BlockCodec::Same
            | BlockCodec::Delta => self.limits.plain_length_max() as u64,
        };
        let max = u64::from(expected).min(limit);
        let value = u64::from(header.plain_length);
        if value > max {
            return Err(DecodeError::Bomb { field, value, max });
        }
        if header.plain_length != expected {
            return Err(DecodeError::Corrupt { field });
        }
        if header.names.length() + header.coded_length as usize != coded.len() {
            return Err(DecodeError::Corrupt { field: "block coded length" });
        }
        Ok((header, coded))
    }
}

/// The name and the coded bytes after it.
fn named(rest: &[u8]) -> Result<(ContentId, &[u8]), DecodeError> {
    let (id, coded) = rest.split_first_chunk().ok_or(DecodeError::Corrupt { field: "block name" })?;
    Ok((ContentId(*id), coded))
}

const UNNAMED: DecodeError = DecodeError::Corrupt { field: "block codec" };
const SAME: DecodeError = DecodeError::Corrupt { field: "offset in the baseline" };

impl From<CodecError> for DecodeError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Unknown { field, value } => Self::Unknown { field, value },
            CodecError::TooLarge { field, value, max } => Self::Bomb { field, value, max },
            CodecError::Checksum { what } => Self::Corrupt { field: what },
            CodecError::Truncated | CodecError::Trailing | CodecError::NoRoom => {
                Self::Corrupt { field: "block header" }
            }
        }
    }
}
