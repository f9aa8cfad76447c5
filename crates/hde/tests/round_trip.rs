//! Blocks decode to what was encoded, whatever it was, and are never longer than promised.
mod common;
mod data;

use common::{choices, decode, encode};
use data::{PLAIN_MAX, limits, mixed, text};
use dwcp_hde::{
    BLOCK_HEADER_BYTES, BlockCodec, Choice, ChoiceError, DecodeError, Decoder, EncodeError, Encoder, Limits,
    encoded_length_max,
};
use proptest::prelude::*;

#[test]
fn every_codec_and_size_comes_back() {
    let (mut encoder, mut decoder) = (Encoder::new(limits()), Decoder::new(limits()));
    let sizes = [0, 1, 2, 12, 13, 19, 20, 21, 255, 256, 4096, 65_534, 65_535, 65_536, 131_073, 1 << 20];
    for choice in choices() {
        for length in sizes {
            for plain in [mixed(length, length as u64 + 3), vec![0; length]] {
                let (encoded, block) = encode(&mut encoder, &plain, choice);
                assert!(encoded.length <= encoded_length_max(length));
                assert!(encoded.codec == choice.codec() || encoded.codec == BlockCodec::Raw);
                let again = decode(&mut decoder, &block, length as u32);
                assert!(again == Ok(plain), "{choice:?}, {length} bytes");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_comes_back(
        length in prop_oneof![0..2_000_usize, 0..70_000_usize, 0..=PLAIN_MAX as usize],
        seed: u64,
        which in 0..13_usize,
        ratio in 1000..2000_u32,
    ) {
        let limits = Limits::new(PLAIN_MAX, ratio).unwrap();
        let plain = mixed(length, seed);
        let (encoded, block) = encode(&mut Encoder::new(limits), &plain, choices()[which]);
        let coded = encoded.length - BLOCK_HEADER_BYTES;
        match encoded.codec {
            BlockCodec::Raw => prop_assert_eq!(coded, length),
            _ => {
                prop_assert!(coded as u64 * u64::from(ratio) < length as u64 * 1000);
            }
        }
        prop_assert!(decode(&mut Decoder::new(limits), &block, length as u32) == Ok(plain));
    }

    #[test]
    fn any_bytes_come_back(plain in proptest::collection::vec(any::<u8>(), 0..5000), which in 0..13_usize) {
        let (_, block) = encode(&mut Encoder::new(limits()), &plain, choices()[which]);
        prop_assert!(decode(&mut Decoder::new(limits()), &block, plain.len() as u32) == Ok(plain));
    }
}

#[test]
fn what_compresses_is_compressed_and_noise_goes_raw() {
    let mut encoder = Encoder::new(limits());
    let noise: Vec<u8> = {
        let mut state = 7;
        (0..300_000).map(|_| data::next(&mut state) as u8).collect()
    };
    for choice in choices() {
        assert_eq!(encode(&mut encoder, &text(300_000), choice).0.codec, choice.codec());
        assert_eq!(encode(&mut encoder, &noise, choice).0.codec, BlockCodec::Raw);
    }
}

#[test]
fn what_gains_less_than_the_ratio_goes_raw() {
    let plain = text(100_000);
    let mut any = Encoder::new(Limits::new(PLAIN_MAX, 1000).unwrap());
    let (encoded, _) = encode(&mut any, &plain, Choice::LZ4);
    let ratio_thousandths = (plain.len() * 1000 / (encoded.length - BLOCK_HEADER_BYTES)) as u32;
    for (ratio, codec) in [(ratio_thousandths - 1, BlockCodec::Lz4), (ratio_thousandths + 1, BlockCodec::Raw)]
    {
        let mut encoder = Encoder::new(Limits::new(PLAIN_MAX, ratio).unwrap());
        assert_eq!(encode(&mut encoder, &plain, Choice::LZ4).0.codec, codec);
    }
}

#[test]
fn same_input_gives_the_same_block_whatever_came_before() {
    let plain = text(200_000);
    let mut used = Encoder::new(limits());
    for choice in choices() {
        encode(&mut used, &mixed(150_000, 5), choice);
        let fresh = encode(&mut Encoder::new(limits()), &plain, choice).1;
        assert!(encode(&mut used, &plain, choice).1 == fresh, "{choice:?}");
    }
}

#[test]
fn memory_does_not_grow_with_blocks() {
    let mut encoder = Encoder::new(limits());
    let mut decoder = Decoder::new(limits());
    let before = decoder.memory_bytes();
    for choice in choices() {
        let (_, block) = encode(&mut encoder, &text(512 * 1024), choice);
        let first = encoder.memory_bytes();
        for seed in 0..2 {
            encode(&mut encoder, &mixed(512 * 1024, seed), choice);
        }
        assert_eq!(encoder.memory_bytes(), first, "{choice:?}");
        decode(&mut decoder, &block, 512 * 1024).unwrap();
    }
    assert_eq!(decoder.memory_bytes(), before);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut encoder = Encoder::new(Limits::new(1000, 1100).unwrap());
    let too_long = encoder.encode(&[0; 1001], Choice::LZ4, &mut [0; 2000]);
    assert_eq!(too_long, Err(EncodeError::TooLong { length: 1001, max: 1000 }));
    for available in [0, 1, BLOCK_HEADER_BYTES, 1000 + BLOCK_HEADER_BYTES - 1] {
        let no_room = encoder.encode(&[0; 1000], Choice::LZ4, &mut vec![0; available]);
        assert_eq!(no_room, Err(EncodeError::NoRoom { needed: 1000 + BLOCK_HEADER_BYTES, available }));
    }
    let (_, block) = encode(&mut encoder, &[0; 1000], Choice::LZ4);
    let no_room = Decoder::new(limits()).decode(&block, 1000, &mut [0; 999]);
    assert_eq!(no_room, Err(DecodeError::NoRoom { needed: 1000, available: 999 }));
}

#[test]
fn levels_that_do_not_exist_cannot_be_chosen() {
    for (codec, level) in
        [(BlockCodec::Zstd, 0), (BlockCodec::Zstd, 23), (BlockCodec::Lz4, 1), (BlockCodec::Raw, 1)]
    {
        assert_eq!(Choice::new(codec, level), Err(ChoiceError { codec, level }));
    }
}
