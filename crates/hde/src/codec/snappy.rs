//! Snappy raw format.
use snap::raw;

use super::keep;
use crate::DecodeError;

/// Bytes of scratch that [`encode`] needs for `plain_length` bytes: snappy's `MaxCompressedLength`.
pub(crate) const fn scratch_length(plain_length: usize) -> usize {
    32 + plain_length + plain_length / 6
}

/// Encodes by way of `scratch`, because the format's encoder asks for room for its worst case.
pub(crate) fn encode(
    encoder: &mut raw::Encoder,
    plain: &[u8],
    scratch: &mut [u8],
    coded: &mut [u8],
) -> Option<usize> {
    let length = encoder.compress(plain, scratch).ok()?;
    keep(scratch.get(..length)?, coded)
}

pub(crate) fn decode(coded: &[u8], plain: &mut [u8]) -> Result<(), DecodeError> {
    let corrupt = DecodeError::Corrupt { field: "snappy bytes" };
    let declared = raw::decompress_len(coded).map_err(|_| corrupt)?;
    if declared > plain.len() {
        let (value, max) = (declared as u64, plain.len() as u64);
        return Err(DecodeError::Bomb { field: "snappy length", value, max });
    }
    match raw::Decoder::new().decompress(coded, plain) {
        Ok(length) if length == plain.len() => Ok(()),
        Ok(_) | Err(_) => Err(corrupt),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn scratch_is_what_the_codec_asks_for() {
        for length in [0, 1, 5, 6, 4096, 1 << 20, 8 << 20] {
            assert!(super::scratch_length(length) >= snap::raw::max_compress_len(length));
        }
    }
}
