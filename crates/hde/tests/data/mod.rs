//! Data that all tests share.
use dwcp_hde::Limits;

/// Longest block of the tests.
pub(crate) const PLAIN_MAX: u32 = 1 << 20;

pub(crate) fn limits() -> Limits {
    Limits::new(PLAIN_MAX, 1100).unwrap()
}

/// xorshift64 (Marsaglia 2003).
pub(crate) fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Runs of repeated strings, single bytes and noise, in shares that depend on the seed.
pub(crate) fn mixed(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut plain: Vec<u8> = Vec::with_capacity(length + 600);
    while plain.len() < length {
        let run = 1 + (next(&mut state) % 512) as usize;
        match next(&mut state) % (2 + seed % 3) {
            0 if !plain.is_empty() => {
                let start = (next(&mut state) % plain.len() as u64) as usize;
                let end = (start + run).min(plain.len());
                plain.extend_from_within(start..end);
            }
            1 => plain.resize(plain.len() + run, next(&mut state) as u8),
            _ => plain.extend((0..run).map(|_| next(&mut state) as u8)),
        }
    }
    plain.truncate(length);
    plain
}

/// A text that every codec makes smaller.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let words = (0_u32..)
        .map(|n| format!("line {} of a log that says much {:x}\n", n % 977, n.wrapping_mul(2_654_435_761)));
    let mut plain: Vec<u8> = words.flat_map(String::into_bytes).take(length).collect();
    plain.shrink_to_fit();
    plain
}
