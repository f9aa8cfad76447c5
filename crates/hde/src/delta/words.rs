//! Differences of whole words, for arrays of numbers that all changed a little. Words of the baseline are subtracted,
//! zigzag-coded, and their bytes are ordered by place, so that the high ones, which are nearly all zero, stand together.
//! Both directions are called by the delta codec for one segment at a time.
use super::streams::unzigzag;

/// Writes the differences of as many whole words as `out` has, which are all there are.
pub(crate) fn split(target: &[u8], base: &[u8], out: &mut [u8]) {
    let words = out.len() / WORD;
    let pairs = target.as_chunks::<WORD>().0.iter().zip(base.as_chunks::<WORD>().0);
    for (at, (target, base)) in pairs.enumerate() {
        let difference = u64::from_le_bytes(*target).wrapping_sub(u64::from_le_bytes(*base)) as i64;
        let coded = ((difference << 1) ^ (difference >> 63)) as u64;
        for (place, byte) in coded.to_le_bytes().into_iter().enumerate() {
            out[place * words + at] = byte;
        }
    }
}

/// Adds differences to the words of the baseline that `target` holds.
pub(crate) fn join(planes: &[u8], target: &mut [u8]) {
    let words = planes.len() / WORD;
    for (at, target) in target.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
        let mut coded = [0; WORD];
        for (place, byte) in coded.iter_mut().enumerate() {
            *byte = planes[place * words + at];
        }
        let difference = unzigzag(u64::from_le_bytes(coded)) as u64;
        *target = u64::from_le_bytes(*target).wrapping_add(difference).to_le_bytes();
    }
}

/// Bytes of a word.
pub(crate) const WORD: usize = 8;
