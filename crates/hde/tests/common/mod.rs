//! Data and codecs that the tests of blocks share.
use dwcp_hde::{BlockCodec, Choice, Decoder, Encoded, Encoder, Limits, encoded_length_max};

/// Longest block of the tests.
pub(crate) const PLAIN_MAX: u32 = 1 << 20;

pub(crate) fn limits() -> Limits {
    Limits::new(PLAIN_MAX, 1100).unwrap()
}

/// Every codec, zstd at a level of each of its strategies.
pub(crate) fn choices() -> Vec<Choice> {
    let levels = [1, 2, 3, 5, 7, 9, 12, 16, 19, 22];
    let zstd = levels.into_iter().map(|level| Choice::new(BlockCodec::Zstd, level).unwrap());
    [Choice::RAW, Choice::LZ4, Choice::SNAPPY].into_iter().chain(zstd).collect()
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

pub(crate) fn encode(encoder: &mut Encoder, plain: &[u8], choice: Choice) -> (Encoded, Vec<u8>) {
    let mut block = vec![0xee; encoded_length_max(plain.len())];
    let encoded = encoder.encode(plain, choice, &mut block).unwrap();
    block.truncate(encoded.length);
    (encoded, block)
}

/// Decodes into a buffer with room behind, which must stay as it is.
pub(crate) fn decode(
    decoder: &mut Decoder,
    block: &[u8],
    expected: u32,
) -> Result<Vec<u8>, dwcp_hde::DecodeError> {
    let room = 64;
    let mut out = vec![0xcd; expected as usize + room];
    let result = decoder.decode(block, expected, &mut out);
    assert!(out[expected as usize..].iter().all(|byte| *byte == 0xcd), "wrote past the block");
    let length = result?;
    assert_eq!(length, expected as usize);
    out.truncate(length);
    Ok(out)
}
