//! Blocks to plain bytes. Called by the dataplane's workers for chunks that arrive; everything in a block is hostile.
use dwcp_abi::codec::CodecError;
use dwcp_abi::wire::{BLOCK_HEADER_BYTES, BlockCodec, BlockHeader, checksum};
use zstd_safe::DCtx;

use crate::Limits;
use crate::codec::{lz4, snappy, zstd};

/// Decodes blocks, one after another. Its memory does not depend on what is decoded.
pub struct Decoder {
    limits: Limits,
    zstd: DCtx<'static>,
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
        Self { limits, zstd: DCtx::create() }
    }

    /// Decodes the whole of `block` to the front of `out` and says how many bytes that is: always
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
        let (header, coded) = self.open(block, plain_length_expected)?;
        let needed = header.plain_length as usize;
        let available = out.len();
        let Some(plain) = out.get_mut(..needed) else {
            return Err(DecodeError::NoRoom { needed, available });
        };
        match header.codec {
            BlockCodec::Raw => plain.copy_from_slice(coded),
            BlockCodec::Lz4 => lz4::decode(coded, plain)?,
            BlockCodec::Snappy => snappy::decode(coded, plain)?,
            BlockCodec::Zstd => zstd::decode(&mut self.zstd, coded, plain)?,
        }
        if checksum(plain) != header.plain_crc {
            return Err(DecodeError::Corrupt { field: "plain checksum" });
        }
        Ok(needed)
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.zstd.sizeof()
    }

    /// Checks all that the header alone can show. The coded bytes are as many as it says.
    fn open<'a>(&self, block: &'a [u8], expected: u32) -> Result<(BlockHeader, &'a [u8]), DecodeError> {
        let Some((head, coded)) = block.split_first_chunk::<BLOCK_HEADER_BYTES>() else {
            return Err(DecodeError::Corrupt { field: "block header" });
        };
        let header = BlockHeader::from_bytes(head)?;
        let field = "block plain length";
        let max = u64::from(expected).min(self.limits.plain_length_max() as u64);
        let value = u64::from(header.plain_length);
        if value > max {
            return Err(DecodeError::Bomb { field, value, max });
        }
        if header.plain_length != expected {
            return Err(DecodeError::Corrupt { field });
        }
        if header.coded_length as usize != coded.len() {
            return Err(DecodeError::Corrupt { field: "block coded length" });
        }
        Ok((header, coded))
    }
}

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
