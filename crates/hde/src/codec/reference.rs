//! One Zstandard frame whose window begins with a whole baseline: what `zstd --patch-from` writes. Called by
//! [`crate::Encoder`] and [`crate::Decoder`].
//!
//! It finds what repeats anywhere in baseline and block, however short, but reads the whole baseline for every block: for
//! large blocks against baselines that are not much longer. The baseline is a prefix, never a `CDict`: those find nothing
//! any more from 64 MiB on, without an error.
use dwcp_abi::wire::{REFERENCE_PLAIN_MAX, ZSTD_LEVEL_MAX};
use zstd_safe::{CCtx, CParameter, DCtx, DParameter};

use super::zstd::check_frame;
use crate::DecodeError;

/// Encodes into `coded`; none where it does not fit.
pub(crate) fn encode(baseline: &[u8], plain: &[u8], level: u8, coded: &mut [u8]) -> Option<usize> {
    if baseline.len() > REFERENCE_BASELINE_MAX {
        return None;
    }
    let mut context = CCtx::create();
    let mut set = |parameter| context.set_parameter(parameter).ok();
    set(CParameter::CompressionLevel(i32::from(level)))?;
    set(CParameter::WindowLog(window_log(baseline.len().max(plain.len()))))?;
    set(CParameter::EnableLongDistanceMatching(true))?;
    context.ref_prefix(baseline).ok()?;
    context.compress2(coded, plain).ok()
}

/// Fills `plain`, or fails.
pub(crate) fn decode(baseline: &[u8], coded: &[u8], plain: &mut [u8]) -> Result<(), DecodeError> {
    let max = REFERENCE_BASELINE_MAX as u64;
    if baseline.len() > REFERENCE_BASELINE_MAX {
        return Err(DecodeError::Bomb { field: "reference baseline", value: baseline.len() as u64, max });
    }
    check_frame(coded, plain.len() as u64, WINDOW_LOG_MAX)?;
    let mut context = DCtx::create();
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|_| CORRUPT)?;
    context.ref_prefix(baseline).map_err(|_| CORRUPT)?;
    match context.decompress(plain, coded) {
        Ok(length) if length == plain.len() => Ok(()),
        Ok(_) | Err(_) => Err(CORRUPT),
    }
}

/// As the command chooses it.
const fn window_log(length: usize) -> u32 {
    let log = usize::BITS - length.leading_zeros();
    if log < 10 { 10 } else { log }
}

/// Longest baseline: windows of 2^27 bytes are what every decoder of the format takes.
pub(crate) const REFERENCE_BASELINE_MAX: usize = (1 << WINDOW_LOG_MAX) - 1;

const WINDOW_LOG_MAX: u32 = 27;
const CORRUPT: DecodeError = DecodeError::Corrupt { field: "reference frame" };
const _: () = assert!((REFERENCE_PLAIN_MAX as usize) <= REFERENCE_BASELINE_MAX && ZSTD_LEVEL_MAX <= 22);
