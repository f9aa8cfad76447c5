//! Codecs that the tests of plain blocks share.
use dwcp_hde::{BlockCodec, Choice, Decoder, Encoded, Encoder, encoded_length_max};

/// Every codec, zstd at a level of each of its strategies.
pub(crate) fn choices() -> Vec<Choice> {
    let levels = [1, 2, 3, 5, 7, 9, 12, 16, 19, 22];
    let zstd = levels.into_iter().map(|level| Choice::new(BlockCodec::Zstd, level).unwrap());
    [Choice::RAW, Choice::LZ4, Choice::SNAPPY].into_iter().chain(zstd).collect()
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
