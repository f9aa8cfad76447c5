//! Blocks from a peer that lies: an error that names the field, or exactly the bytes that were encoded.
mod common;
mod data;

use common::{choices, decode, encode};
use data::{PLAIN_MAX, limits, mixed, next, text};
use dwcp_abi::wire::{BLOCK_HEADER_BYTES, BlockCodec, BlockHeader, Names, checksum};
use dwcp_hde::{Choice, DecodeError, Decoder, Encoder, Limits};
use proptest::prelude::*;

const PLAIN_LENGTH: u32 = 3000;

/// A block of each codec that is coded as chosen.
fn blocks(plain: &[u8]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(limits());
    let coded = |choice: Choice| {
        let (encoded, block) = encode(&mut encoder, plain, choice);
        assert_eq!(encoded.codec, choice.codec());
        block
    };
    choices().into_iter().map(coded).collect()
}

/// A block whose header is in order, as a liar who knows the format would make it.
fn forge(codec: BlockCodec, plain_length: u32, plain: &[u8], coded: &[u8]) -> Vec<u8> {
    let coded_length = coded.len() as u32;
    let level = u8::from(codec == BlockCodec::Zstd);
    let (names, plain_crc) = (Names::Nothing, checksum(plain));
    let header = BlockHeader { codec, level, names, plain_length, coded_length, plain_crc };
    [&header.to_bytes()[..], coded].concat()
}

fn body(block: &[u8]) -> &[u8] {
    &block[BLOCK_HEADER_BYTES..]
}

fn zstd_frame(plain: &[u8]) -> Vec<u8> {
    let block = encode(&mut Encoder::new(limits()), plain, Choice::ZSTD_3).1;
    body(&block).to_vec()
}

fn decode_alone(block: &[u8], expected: u32) -> Result<Vec<u8>, DecodeError> {
    decode(&mut Decoder::new(limits()), block, expected)
}

#[test]
fn a_changed_byte_is_an_error() {
    let plain = text(PLAIN_LENGTH as usize);
    let mut decoder = Decoder::new(limits());
    for mut block in blocks(&plain) {
        for at in 0..block.len() {
            let original = block[at];
            for change in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                block[at] = original ^ change;
                let result = decode(&mut decoder, &block, PLAIN_LENGTH);
                assert!(result.is_err() || result == Ok(plain.clone()), "byte {at} ^ {change}");
            }
            block[at] = original;
        }
        assert!(decode(&mut decoder, &block, PLAIN_LENGTH) == Ok(plain.clone()), "the decoder is as before");
    }
}

#[test]
fn a_changed_byte_under_a_header_in_order_is_an_error() {
    let plain = text(PLAIN_LENGTH as usize);
    let mut decoder = Decoder::new(limits());
    for mut block in blocks(&plain) {
        for at in 0..16 {
            let original = block[at];
            for value in (0..=u8::MAX).filter(|value| *value != original) {
                block[at] = value;
                let crc = checksum(&block[..16]);
                block[16..20].copy_from_slice(&crc.to_le_bytes());
                let result = decode(&mut decoder, &block, PLAIN_LENGTH);
                assert!(result.is_err() || result == Ok(plain.clone()), "byte {at} = {value}");
            }
            block[at] = original;
        }
    }
}

#[test]
fn a_part_or_more_than_a_block_is_an_error() {
    let plain = text(PLAIN_LENGTH as usize);
    for block in blocks(&plain) {
        for end in 0..block.len() {
            assert!(decode_alone(&block[..end], PLAIN_LENGTH).is_err(), "first {end} bytes");
        }
        let longer = [&block[..], &[0]].concat();
        let corrupt = DecodeError::Corrupt { field: "block coded length" };
        assert_eq!(decode_alone(&longer, PLAIN_LENGTH), Err(corrupt));
    }
}

#[test]
fn another_length_than_expected_is_refused_before_decoding() {
    for block in blocks(&text(PLAIN_LENGTH as usize)) {
        let field = "block plain length";
        let (value, max) = (u64::from(PLAIN_LENGTH), u64::from(PLAIN_LENGTH - 1));
        assert_eq!(decode_alone(&block, PLAIN_LENGTH - 1), Err(DecodeError::Bomb { field, value, max }));
        assert_eq!(decode_alone(&block, PLAIN_LENGTH + 1), Err(DecodeError::Corrupt { field }));
        let mut narrow = Decoder::new(Limits::new(100, 1000).unwrap());
        let bomb = DecodeError::Bomb { field, value, max: 100 };
        assert_eq!(narrow.decode(&block, PLAIN_LENGTH, &mut [0; 4000]), Err(bomb));
    }
}

#[test]
fn lengths_that_lie_are_found() {
    let plain = text(PLAIN_LENGTH as usize);
    for block in blocks(&plain).iter().skip(1) {
        let codec = BlockHeader::from_bytes(block.first_chunk().unwrap()).unwrap().codec;
        for lie in [PLAIN_LENGTH - 1, PLAIN_LENGTH + 1, PLAIN_LENGTH * 2, PLAIN_MAX] {
            let forged = forge(codec, lie, &plain, body(block));
            assert!(decode_alone(&forged, lie).is_err(), "{codec:?} {lie}");
        }
    }
}

#[test]
fn more_than_declared_is_a_bomb() {
    let zeros = vec![0; PLAIN_MAX as usize];
    let mut encoder = Encoder::new(limits());
    for choice in [Choice::LZ4, Choice::SNAPPY, Choice::ZSTD_3] {
        let (_, block) = encode(&mut encoder, &zeros, choice);
        let expected = body(&block).len() as u32 + 1;
        let forged = forge(choice.codec(), expected, &zeros, body(&block));
        assert!(decode_alone(&forged, expected).is_err(), "{choice:?}");
    }
}

#[test]
fn a_declared_size_beyond_the_block_is_a_bomb() {
    // Single segment, eight bytes of content size.
    let huge = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &[0xff; 7], &[0x7f], &[1, 0, 0]].concat();
    let result = decode_alone(&forge(BlockCodec::Zstd, 4096, &[], &huge), 4096);
    assert!(matches!(result, Err(DecodeError::Bomb { field: "zstd content size", .. })), "{result:?}");
    // A varint of 2^32 - 1.
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let result = decode_alone(&forge(BlockCodec::Snappy, 4096, &[], &huge), 4096);
    assert!(matches!(result, Err(DecodeError::Bomb { field: "snappy length", .. })), "{result:?}");
}

#[test]
fn a_wide_window_is_a_bomb_and_a_dictionary_is_unknown() {
    let frame = |descriptor: u8, rest: &[u8]| {
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd, descriptor][..], rest, &[1, 0, 0]].concat();
        decode_alone(&forge(BlockCodec::Zstd, 4096, &[], &frame), 4096)
    };
    // Window of 2^24, four bytes of content size.
    let max = 1 << 23;
    let bomb = DecodeError::Bomb { field: "zstd window", value: 1 << 24, max };
    assert_eq!(frame(0x80, &[14 << 3, 0, 16, 0, 0]), Err(bomb));
    let bomb = DecodeError::Bomb { field: "zstd window", value: max + max / 8, max };
    assert_eq!(frame(0x80, &[13 << 3 | 1, 0, 16, 0, 0]), Err(bomb));
    let unknown = DecodeError::Unknown { field: "zstd dictionary", value: 1 };
    assert_eq!(frame(0x81, &[13 << 3, 9, 0, 16, 0, 0]), Err(unknown));
}

#[test]
fn only_one_frame_and_nothing_else_is_a_block() {
    let corrupt = Err(DecodeError::Corrupt { field: "zstd frame" });
    let (first, second) = (text(2000), text(1000));
    let both = [&first[..], &second].concat();
    let frames = [zstd_frame(&first), zstd_frame(&second)].concat();
    let forged = |coded: &[u8], plain: &[u8]| {
        let length = plain.len() as u32;
        decode_alone(&forge(BlockCodec::Zstd, length, plain, coded), length)
    };
    assert_eq!(forged(&frames, &both), corrupt);
    assert_eq!(forged(&frames, &first), corrupt);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
    let frame = zstd_frame(&first);
    assert_eq!(forged(&[&skippable[..], &frame].concat(), &first), corrupt);
    assert_eq!(forged(&[&frame[..], &skippable].concat(), &first), corrupt);
    assert_eq!(forged(&[&frame[..], &[0]].concat(), &first), corrupt);
    assert_eq!(forged(&frame[..frame.len() - 1], &first), corrupt);
    assert!(forged(&frame, &first) == Ok(first));
}

#[test]
fn bytes_after_the_last_sequence_are_an_error() {
    let plain = text(PLAIN_LENGTH as usize);
    for block in blocks(&plain).iter().skip(1) {
        let codec = BlockHeader::from_bytes(block.first_chunk().unwrap()).unwrap().codec;
        for trailing in [&[0][..], &[0x10], &[0, 0, 0, 0], &[0xff; 9]] {
            let forged = forge(codec, PLAIN_LENGTH, &plain, &[body(block), trailing].concat());
            let result = decode_alone(&forged, PLAIN_LENGTH);
            assert!(result.is_err(), "{codec:?} {trailing:?}");
        }
    }
}

#[test]
fn coded_bytes_of_another_codec_are_an_error() {
    let plain = text(PLAIN_LENGTH as usize);
    let codecs = [BlockCodec::Lz4, BlockCodec::Snappy, BlockCodec::Zstd];
    for block in blocks(&plain).iter().skip(1) {
        let own = BlockHeader::from_bytes(block.first_chunk().unwrap()).unwrap().codec;
        for codec in codecs.into_iter().filter(|codec| *codec != own) {
            let forged = forge(codec, PLAIN_LENGTH, &plain, body(block));
            assert!(decode_alone(&forged, PLAIN_LENGTH).is_err(), "{own:?} as {codec:?}");
        }
    }
}

#[test]
fn changes_in_the_coded_bytes_of_large_blocks_are_errors() {
    let plain = mixed(200_000, 6);
    let mut decoder = Decoder::new(limits());
    let originals = blocks(&plain);
    for seed in 1..=2_000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut block = originals[(next(&mut state) % originals.len() as u64) as usize].clone();
        for _ in 0..=next(&mut state) % 4 {
            let coded = (block.len() - BLOCK_HEADER_BYTES) as u64;
            let at = BLOCK_HEADER_BYTES + (next(&mut state) % coded) as usize;
            block[at] = next(&mut state) as u8;
        }
        let result = decode(&mut decoder, &block, plain.len() as u32);
        assert!(result.is_err() || result == Ok(plain.clone()), "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_an_error(block in proptest::collection::vec(any::<u8>(), 0..200), expected in 0..5000_u32) {
        prop_assert!(decode_alone(&block, expected).is_err());
    }

    #[test]
    fn random_coded_bytes_never_decode_to_something_else(
        coded in proptest::collection::vec(any::<u8>(), 1..200),
        which in 1..4_usize,
        more in 1..4000_u32,
    ) {
        let length = coded.len() as u32 + more;
        let codec = BlockCodec::ALL[which];
        let framed = [&[0x28, 0xb5, 0x2f, 0xfd][..], &coded].concat();
        let coded = if codec == BlockCodec::Zstd && more > 4 { framed } else { coded };
        let zeros = vec![0; length as usize];
        let result = decode_alone(&forge(codec, length, &zeros, &coded), length);
        prop_assert!(result.is_err() || result == Ok(zeros));
    }
}
