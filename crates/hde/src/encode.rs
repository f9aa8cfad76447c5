//! Plain bytes to blocks. Called by the dataplane's workers and helper threads for chunks that leave the node; chooses
//! nothing itself (see [`crate::Chooser`]) but to send raw what did not get small enough.
use dwcp_abi::wire::{BLOCK_HEADER_BYTES, BlockCodec, BlockHeader, checksum};
use zstd_safe::CCtx;

use crate::codec::{lz4, snappy, zstd};
use crate::{Choice, Limits};

/// Encodes blocks, one after another. Holds every codec's tables: about 1.2 times the longest block, and what zstd
/// takes for the levels that were used.
pub struct Encoder {
    limits: Limits,
    scratch: Vec<u8>,
    lz4: lz4::Lz4Encoder,
    snappy: snap::raw::Encoder,
    zstd: CCtx<'static>,
}

/// What an encoder made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of the block, header included.
    pub length: usize,
    /// How they are coded: as chosen, or raw.
    pub codec: BlockCodec,
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
        }
    }

    /// Writes a block that stands for `plain` to the front of `out`. It is raw where it was chosen so, where the choice
    /// did not gain the limits' ratio, and where a codec failed.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] above the limits, [`EncodeError::NoRoom`] where `out` is shorter than
    /// [`encoded_length_max`].
    pub fn encode(&mut self, plain: &[u8], choice: Choice, out: &mut [u8]) -> Result<Encoded, EncodeError> {
        let max = self.limits.plain_length_max();
        if plain.len() > max {
            return Err(EncodeError::TooLong { length: plain.len(), max });
        }
        let available = out.len();
        let needed = encoded_length_max(plain.len());
        let Some((head, body)) = out.get_mut(..needed).and_then(<[u8]>::split_first_chunk_mut) else {
            return Err(EncodeError::NoRoom { needed, available });
        };
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
            plain_length: plain.len() as u32,
            coded_length: coded_length as u32,
            plain_crc: checksum(plain),
        };
        *head = header.to_bytes();
        Ok(Encoded { length: BLOCK_HEADER_BYTES + coded_length, codec: choice.codec() })
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.scratch.len() + self.zstd.sizeof()
    }

    fn code(&mut self, plain: &[u8], choice: Choice, body: &mut [u8]) -> Option<usize> {
        let room = self.limits.coded_length_max(plain.len());
        let coded = body.get_mut(..room).filter(|room| !room.is_empty())?;
        match choice.codec() {
            BlockCodec::Raw => None,
            BlockCodec::Lz4 => self.lz4.encode(plain, &mut self.scratch, coded),
            BlockCodec::Snappy => snappy::encode(&mut self.snappy, plain, &mut self.scratch, coded),
            BlockCodec::Zstd => zstd::encode(&mut self.zstd, plain, choice.level(), coded),
        }
    }
}
