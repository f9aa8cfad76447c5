//! LZ4 block format, without a length before it.
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use super::keep;
use crate::DecodeError;

/// Bytes of scratch that [`Lz4Encoder::encode`] needs for `plain_length` bytes.
pub(crate) const fn scratch_length(plain_length: usize) -> usize {
    get_maximum_output_size(plain_length)
}

/// Holds the match tables: the small one is cleared faster and does for blocks below 64 KiB.
pub(crate) struct Lz4Encoder {
    small: CompressTable,
    large: CompressTable,
}

impl Lz4Encoder {
    pub(crate) fn new() -> Self {
        Self { small: CompressTable::small(), large: CompressTable::large() }
    }

    /// Encodes by way of `scratch`, because the format's encoder asks for room for its worst case.
    pub(crate) fn encode(&mut self, plain: &[u8], scratch: &mut [u8], coded: &mut [u8]) -> Option<usize> {
        let length = self.encode_to(plain, scratch)?;
        keep(scratch.get(..length)?, coded)
    }

    /// Encodes into [`scratch_length`] bytes.
    pub(crate) fn encode_to(&mut self, plain: &[u8], scratch: &mut [u8]) -> Option<usize> {
        let table = if plain.len() < usize::from(u16::MAX) { &mut self.small } else { &mut self.large };
        compress_into_with_table(plain, scratch, table).ok()
    }
}

pub(crate) fn decode(coded: &[u8], plain: &mut [u8]) -> Result<(), DecodeError> {
    match decompress_into(coded, plain) {
        Ok(length) if length == plain.len() => Ok(()),
        Ok(_) | Err(_) => Err(DecodeError::Corrupt { field: "lz4 bytes" }),
    }
}
