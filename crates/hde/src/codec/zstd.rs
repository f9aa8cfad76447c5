//! One Zstandard frame with its content size and without a checksum, by itself or with a trained dictionary.
use zstd_safe::{CCtx, CDict, DCtx};

use crate::{DecodeError, Dictionary};

/// Windows above 2^23 bytes are refused: no plain block needs one.
pub(crate) const WINDOW_LOG_MAX: u32 = 23;

/// Encodes into `coded` at once; the frame's encoder gives up where it is full.
pub(crate) fn encode(
    context: &mut CCtx<'static>,
    plain: &[u8],
    level: u8,
    coded: &mut [u8],
) -> Option<usize> {
    context.compress(coded, plain, i32::from(level)).ok()
}

pub(crate) fn decode(context: &mut DCtx<'static>, coded: &[u8], plain: &mut [u8]) -> Result<(), DecodeError> {
    check_frame(coded, plain.len() as u64, WINDOW_LOG_MAX)?;
    match context.decompress(plain, coded) {
        Ok(length) if length == plain.len() => Ok(()),
        Ok(_) | Err(_) => Err(CORRUPT),
    }
}

/// Encodes with a prepared dictionary. The frame does not name it: the block does.
pub(crate) fn encode_with(
    context: &mut CCtx<'static>,
    plain: &[u8],
    dictionary: &CDict<'static>,
    coded: &mut [u8],
) -> Option<usize> {
    context.compress_using_cdict(coded, plain, dictionary).ok()
}

/// Decodes what [`encode_with`] made.
pub(crate) fn decode_with(
    context: &mut DCtx<'static>,
    dictionary: &Dictionary,
    coded: &[u8],
    plain: &mut [u8],
) -> Result<(), DecodeError> {
    let frame = Frame::read(coded)?;
    Frame { dictionary: false, ..frame }.check(coded, plain.len() as u64, WINDOW_LOG_MAX)?;
    match context.decompress_using_ddict(plain, coded, dictionary.decoder()) {
        Ok(length) if length == plain.len() => Ok(()),
        Ok(_) | Err(_) => Err(CORRUPT),
    }
}

/// Compares all that a frame says with what was promised, before anything is decoded.
pub(crate) fn check_frame(coded: &[u8], plain_length: u64, window_log_max: u32) -> Result<(), DecodeError> {
    Frame::read(coded)?.check(coded, plain_length, window_log_max)
}

/// What the frame's header says (RFC 8878, 3.1.1.1). Decoding in one step never looks at the window, since the
/// output is the window, so it is read here.
struct Frame {
    window_length: Option<u64>,
    dictionary: bool,
}

impl Frame {
    fn read(coded: &[u8]) -> Result<Self, DecodeError> {
        let Some((magic, [descriptor, rest @ ..])) = coded.split_first_chunk() else { return Err(CORRUPT) };
        if u32::from_le_bytes(*magic) != zstd_safe::MAGICNUMBER {
            return Err(CORRUPT);
        }
        let dictionary = descriptor & 0b11 != 0;
        if descriptor & SINGLE_SEGMENT != 0 {
            return Ok(Self { window_length: None, dictionary });
        }
        let window = rest.first().ok_or(CORRUPT)?;
        let base = 1_u64 << (10 + (window >> 3));
        Ok(Self { window_length: Some(base + base / 8 * u64::from(window & 7)), dictionary })
    }

    fn check(&self, coded: &[u8], plain_length: u64, window_log_max: u32) -> Result<(), DecodeError> {
        if self.dictionary {
            return Err(DecodeError::Unknown { field: "zstd dictionary", value: 1 });
        }
        let max = 1 << window_log_max;
        if let Some(value) = self.window_length.filter(|window| *window > max) {
            return Err(DecodeError::Bomb { field: "zstd window", value, max });
        }
        let declared = zstd_safe::get_frame_content_size(coded).map_err(|_| CORRUPT)?.ok_or(CORRUPT)?;
        if declared > plain_length {
            return Err(DecodeError::Bomb { field: "zstd content size", value: declared, max: plain_length });
        }
        let whole = zstd_safe::find_frame_compressed_size(coded).map_err(|_| CORRUPT)?;
        if declared != plain_length || whole != coded.len() {
            return Err(CORRUPT);
        }
        Ok(())
    }
}

const SINGLE_SEGMENT: u8 = 1 << 5;
const CORRUPT: DecodeError = DecodeError::Corrupt { field: "zstd frame" };
