//! Blocks against baselines: any bytes come back, small changes take few bytes, and nothing that a liar writes decodes to
//! something else.
mod data;

use data::{limits, mixed, next, text};
use dwcp_abi::wire::{BLOCK_HEADER_BYTES, BlockCodec, BlockHeader, CONTENT_ID_BYTES, Names, checksum};
use dwcp_hde::{
    Against, Auto, Baseline, BaselineError, CoarseIndex, ContentId, DecodeError, Decoder, Dictionary,
    Encoder, Index, Known, Limits, MemoryBaseline, Window, encoded_length_max,
};
use proptest::prelude::*;

/// One baseline, which may be a lie.
struct One<'a> {
    id: ContentId,
    baseline: &'a dyn Baseline,
}

impl Known for One<'_> {
    fn baseline(&self, id: ContentId) -> Option<&dyn Baseline> {
        (self.id == id).then_some(self.baseline)
    }

    fn dictionary(&self, _id: ContentId) -> Option<&Dictionary> {
        None
    }
}

fn encode(plain: &[u8], baseline: &[u8], hint: u64) -> (BlockCodec, Vec<u8>) {
    let mut encoder = Encoder::new(limits());
    let known = MemoryBaseline::new(baseline);
    let index = Index::new(baseline);
    let against = Against::whole(&known, &index).unwrap();
    let mut block = vec![0xee; encoded_length_max(plain.len())];
    let delta = encoder.encode_delta(plain, &against, hint, 3, &mut block).unwrap();
    block.truncate(delta.encoded.length);
    (delta.encoded.codec, block)
}

fn encode_reference(plain: &[u8], baseline: &[u8]) -> Vec<u8> {
    let mut block = vec![0xee; encoded_length_max(plain.len())];
    let known = MemoryBaseline::new(baseline);
    let encoded = Encoder::new(limits()).encode_reference(plain, &known, 3, &mut block).unwrap().unwrap();
    block.truncate(encoded.length);
    block
}

fn decode(block: &[u8], expected: usize, baseline: &[u8]) -> Result<Vec<u8>, DecodeError> {
    decode_named(block, expected, dwcp_hde::content_id(baseline), baseline)
}

fn decode_named(
    block: &[u8],
    expected: usize,
    id: ContentId,
    baseline: &[u8],
) -> Result<Vec<u8>, DecodeError> {
    let baseline = MemoryBaseline::named(id, baseline);
    let mut out = vec![0xcd; expected + 64];
    let known = One { id, baseline: &baseline };
    let result = Decoder::new(limits()).decode_with(block, expected as u32, &known, &mut out);
    assert!(out[expected..].iter().all(|byte| *byte == 0xcd), "wrote past the block");
    out.truncate(result?);
    Ok(out)
}

/// A later version: parts moved, taken out, repeated, new, and single bytes changed.
fn edited(baseline: &[u8], seed: u64, edits: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut plain = baseline.to_vec();
    for _ in 0..edits {
        let at = (next(&mut state) % (plain.len() as u64 + 1)) as usize;
        let length = (next(&mut state) % 300) as usize;
        let end = (at + length).min(plain.len());
        match next(&mut state) % 5 {
            0 => drop(plain.drain(at..end)),
            1 => drop(plain.splice(at..at, mixed(length, next(&mut state)))),
            2 => {
                let part = plain[at..end].to_vec();
                let to = (next(&mut state) % (plain.len() as u64 + 1)) as usize;
                plain.splice(to..to, part);
            }
            3 => plain[at..end].iter_mut().step_by(7).for_each(|byte| *byte = byte.wrapping_add(3)),
            _ => plain[at..end].iter_mut().for_each(|byte| *byte ^= 0x55),
        }
    }
    plain
}

/// Blocks of every kind of delta that this baseline gives, with what they stand for.
fn blocks(baseline: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let plain = edited(baseline, 7, 40);
    let words: Vec<u8> = baseline
        .chunks(8)
        .flat_map(|word| {
            word.iter().enumerate().map(|(at, byte)| if at < 2 { byte.wrapping_add(77) } else { *byte })
        })
        .collect();
    let same = baseline[100..baseline.len() - 100].to_vec();
    let mut all = vec![(encode_reference(&plain, baseline), plain.clone())];
    for target in [plain, words, same] {
        all.push((encode(&target, baseline, 0).1, target));
    }
    all
}

#[test]
fn what_is_there_is_named_by_its_place() {
    let baseline = mixed(300_000, 5);
    for (start, hint) in [(0, 0), (4096, 4096), (777, 0), (100_001, 5)] {
        let (codec, block) = encode(&baseline[start..start + 200_000 - start], &baseline, hint);
        assert_eq!(
            (codec, block.len()),
            (BlockCodec::Same, BLOCK_HEADER_BYTES + CONTENT_ID_BYTES + 8),
            "{start}"
        );
        assert!(decode(&block, 200_000 - start, &baseline).unwrap() == baseline[start..200_000]);
    }
}

#[test]
fn small_changes_take_few_bytes() {
    let baseline = mixed(1 << 20, 11);
    let plain = edited(&baseline, 3, 20);
    let plain = &plain[..plain.len().min(1 << 20)];
    let (codec, block) = encode(plain, &baseline, 0);
    assert_eq!(codec, BlockCodec::Delta);
    assert!(block.len() < 8_000, "{}", block.len());
    assert!(decode(&block, plain.len(), &baseline).unwrap() == plain);
}

#[test]
fn numbers_that_all_changed_a_little_are_found_out() {
    let mut state = 9;
    let mut value = 0_u64;
    let noisy = |state: &mut u64| (0..60_000).map(|_| next(state)).collect::<Vec<_>>();
    let old = noisy(&mut state);
    let new: Vec<u64> = old
        .iter()
        .map(|old| {
            old.wrapping_add({
                value = next(&mut state) % 50_000;
                value
            })
        })
        .collect();
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let (baseline, plain) = (bytes(&old), bytes(&new));
    let (codec, block) = encode(&plain, &baseline, 0);
    assert!(codec == BlockCodec::Delta && block.len() * 3 < plain.len(), "{codec:?} {}", block.len());
    assert!(decode(&block, plain.len(), &baseline).unwrap() == plain);
}

#[test]
fn what_has_nothing_in_common_goes_plain() {
    let noise: Vec<u8> = {
        let mut state = 3;
        (0..100_000).map(|_| next(&mut state) as u8).collect()
    };
    let other: Vec<u8> = {
        let mut state = 4;
        (0..100_000).map(|_| next(&mut state) as u8).collect()
    };
    let (codec, block) = encode(&noise, &other, 0);
    assert_eq!((codec, block.len()), (BlockCodec::Raw, BLOCK_HEADER_BYTES + noise.len()));
    assert!(decode(&block, noise.len(), &[]).unwrap() == noise);
    let (_, block) = encode(&[], &other, 0);
    assert!(decode(&block, 0, &other).unwrap().is_empty());
}

#[test]
fn a_changed_byte_is_an_error() {
    let baseline = [mixed(3000, 21), text(3000)].concat();
    for (mut block, plain) in blocks(&baseline) {
        for at in 0..block.len() {
            let original = block[at];
            for change in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                block[at] = original ^ change;
                let result = decode(&block, plain.len(), &baseline);
                assert!(result.is_err() || result.as_ref() == Ok(&plain), "byte {at} ^ {change}");
            }
            block[at] = original;
        }
        for end in 0..block.len() {
            assert!(decode(&block[..end], plain.len(), &baseline).is_err(), "first {end} bytes");
        }
        assert!(decode(&block, plain.len(), &baseline).unwrap() == plain);
    }
}

#[test]
fn changes_under_headers_in_order_are_errors() {
    let baseline = [mixed(60_000, 2), text(60_000)].concat();
    let originals = blocks(&baseline);
    for seed in 1..=3_000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let (block, plain) = &originals[(next(&mut state) % originals.len() as u64) as usize];
        let mut block = block.clone();
        let body = BLOCK_HEADER_BYTES + CONTENT_ID_BYTES;
        for _ in 0..=next(&mut state) % 4 {
            // Heads and numbers are at the front.
            let reach = if seed % 2 == 0 { 80.min(block.len() - body) } else { block.len() - body };
            block[body + (next(&mut state) % reach as u64) as usize] = next(&mut state) as u8;
        }
        let result = decode(&block, plain.len(), &baseline);
        assert!(result.is_err() || result.as_ref() == Ok(plain), "seed {seed}");
    }
}

#[test]
fn another_baseline_than_the_named_one_is_found_out() {
    let baseline = mixed(200_000, 31);
    let id = dwcp_hde::content_id(&baseline);
    for (block, plain) in blocks(&baseline) {
        let missing = decode(&block, plain.len(), &mixed(200_000, 32));
        assert_eq!(missing, Err(DecodeError::BaselineMissing(id)));
        for at in [0, 4096, 150_000] {
            let mut damaged = baseline.clone();
            damaged[at..at + 4096].fill(0);
            let result = decode_named(&block, plain.len(), id, &damaged);
            assert!(result.is_err() || result.as_ref() == Ok(&plain), "damaged at {at}");
        }
        for length in [0, 1, 199_999] {
            assert!(decode_named(&block, plain.len(), id, &baseline[..length]).is_err() || length == 199_999);
        }
    }
}

#[test]
fn a_baseline_that_cannot_be_read_is_an_error() {
    struct Broken(MemoryBaseline<'static>);
    impl Baseline for Broken {
        fn id(&self) -> ContentId {
            self.0.id()
        }
        fn length(&self) -> u64 {
            self.0.length()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), BaselineError> {
            Err(BaselineError { offset, length: out.len() })
        }
    }
    let baseline: &'static [u8] = text(50_000).leak();
    let broken = Broken(MemoryBaseline::new(baseline));
    for (block, plain) in blocks(baseline) {
        let known = One { id: broken.id(), baseline: &broken };
        let result =
            Decoder::new(limits()).decode_with(&block, plain.len() as u32, &known, &mut vec![0; plain.len()]);
        assert!(
            matches!(result, Err(DecodeError::Baseline(_) | DecodeError::BaselineMissing(_))),
            "{result:?}"
        );
    }
}

#[test]
fn a_lie_about_the_codec_or_its_name_is_an_error() {
    let baseline = mixed(50_000, 41);
    let originals = blocks(&baseline);
    for (block, plain) in &originals {
        let own = BlockHeader::from_bytes(block.first_chunk().unwrap()).unwrap();
        let body = &block[BLOCK_HEADER_BYTES + CONTENT_ID_BYTES..];
        for codec in [BlockCodec::Same, BlockCodec::Delta, BlockCodec::Reference] {
            if codec == own.codec {
                continue;
            }
            let level = *codec.levels().start();
            let plain_crc = checksum(plain);
            let header = BlockHeader { codec, level, names: Names::Baseline, plain_crc, ..own };
            let id = dwcp_hde::content_id(&baseline);
            let forged = [&header.to_bytes()[..], &id.0, body].concat();
            assert!(decode(&forged, plain.len(), &baseline).is_err(), "{:?} as {codec:?}", own.codec);
        }
        assert!(Decoder::new(limits()).decode(block, plain.len() as u32, &mut vec![0; plain.len()]).is_err());
    }
}

#[test]
fn baselines_that_are_only_read_in_parts_do() {
    let bytes = mixed(24 << 20, 51);
    let baseline = MemoryBaseline::new(&bytes);
    let coarse = CoarseIndex::new(&baseline).unwrap();
    let mut window = Window::default();
    let mut encoder = Encoder::new(limits());
    let known = One { id: baseline.id(), baseline: &baseline };
    for start in [23 << 20, 0, 12 << 20] {
        let plain = edited(&bytes[start..start + (1 << 19)], start as u64, 30);
        let against = window.against(&baseline, &coarse, &plain, 0).unwrap();
        let mut block = vec![0; encoded_length_max(plain.len())];
        let delta = encoder.encode_delta(&plain, &against, start as u64, 3, &mut block).unwrap();
        assert!(delta.encoded.length < 26_000, "{}", delta.encoded.length);
        let mut out = vec![0; plain.len()];
        let block = &block[..delta.encoded.length];
        Decoder::new(limits()).decode_with(block, plain.len() as u32, &known, &mut out).unwrap();
        assert!(out == plain);
    }
    assert!(window.memory_bytes() + coarse.memory_bytes() < 20 << 20);
}

#[test]
fn new_content_that_repeats_itself_far_away_becomes_one_frame() {
    let baseline = mixed(1 << 20, 61);
    let fresh: Vec<u8> = {
        let mut state = 8;
        (0..2 << 20).map(|_| next(&mut state) as u8).collect()
    };
    let target = [&fresh[..], &mixed(6 << 20, 62), &fresh, &mixed(2 << 20, 63), &fresh].concat();
    let whole = MemoryBaseline::new(&baseline);
    let index = Index::new(&baseline);
    let against = Against::whole(&whole, &index).unwrap();
    let limits = Limits::new(8 << 20, 1000).unwrap();
    let (mut out, mut spans) = (Vec::new(), Vec::new());
    let mut auto = Auto::new(3);
    auto.encode(&mut Encoder::new(limits), &target, &against, &mut out, &mut spans).unwrap();
    assert_eq!(spans.iter().map(|span| span.codec).collect::<Vec<_>>(), [BlockCodec::Reference]);
    let mut plain = vec![0; target.len()];
    let known = One { id: whole.id(), baseline: &whole };
    Decoder::new(limits).decode_with(&out, target.len() as u32, &known, &mut plain).unwrap();
    assert!(plain == target);
}

#[test]
fn an_index_is_an_eighth_of_its_baseline() {
    let baseline = mixed(4 << 20, 71);
    let index = Index::new(&baseline);
    assert!(index.memory_bytes() * 7 < baseline.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_version_of_any_baseline_comes_back(
        length in prop_oneof![0..200_usize, 0..5_000_usize, 0..200_000_usize],
        seed: u64,
        edits in 0..60_usize,
        hint in prop_oneof![Just(0), any::<u64>(), 0..200_000_u64],
        split in 1..200_000_usize,
    ) {
        let baseline = mixed(length, seed);
        let target = edited(&baseline, seed ^ 1, edits);
        let mut hint = hint;
        for plain in target.chunks(split) {
            let (codec, block) = encode(plain, &baseline, hint);
            prop_assert!(block.len() <= encoded_length_max(plain.len()), "{:?}", codec);
            prop_assert!(decode(&block, plain.len(), &baseline).as_deref() == Ok(plain));
            hint = hint.wrapping_add(plain.len() as u64);
        }
    }

    #[test]
    fn any_bytes_against_any_bytes_come_back(
        plain in proptest::collection::vec(any::<u8>(), 0..3000),
        baseline in proptest::collection::vec(any::<u8>(), 0..3000),
        hint: u64,
    ) {
        let (_, block) = encode(&plain, &baseline, hint);
        prop_assert!(decode(&block, plain.len(), &baseline).as_ref() == Ok(&plain));
    }

    #[test]
    fn random_coded_bytes_never_decode_to_something_else(
        coded in proptest::collection::vec(any::<u8>(), 1..300),
        which in 0..2_usize,
        more in 1..4000_u32,
    ) {
        let baseline = text(5000);
        let plain_length = coded.len() as u32 + more;
        let zeros = vec![0; plain_length as usize];
        let codec = [BlockCodec::Delta, BlockCodec::Reference][which];
        let coded_length = coded.len() as u32;
        let header = BlockHeader {
            codec, level: 3, names: Names::Baseline, plain_length, coded_length, plain_crc: checksum(&zeros),
        };
        let id = dwcp_hde::content_id(&baseline);
        let block = [&header.to_bytes()[..], &id.0, &coded].concat();
        let result = decode(&block, zeros.len(), &baseline);
        prop_assert!(result.is_err() || result == Ok(zeros));
    }
}
