//! What both ends know of each other: chunks, inventories, sketches, versions, dictionaries.
mod data;

use std::time::Duration;

use data::{limits, mixed, next, text};
use dwcp_hde::{
    Baseline, CHUNK_BYTES_MAX, ChainError, Chunker, ContentId, DICTIONARY_BYTES_MAX, DecodeError, Decoder,
    Dictionary, DictionaryError, Encoder, Inventory, Known, PreparedDictionary, Sketch, StoreAs,
    VersionRecord, VersionRules, Versions, chunks_of, content_id, encoded_length_max, missing, train,
};
use proptest::prelude::*;

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length).map(|_| next(&mut state) as u8).collect()
}

#[test]
fn a_receiver_says_what_it_has_for_less_than_a_hundredth() {
    let old = noise(8 << 20, 1);
    let new = [&old[..3 << 20], &noise(100_000, 2), &old[3 << 20..]].concat();
    let mut inventory = Inventory::new(1000);
    inventory.insert(content_id(&old), chunks_of(&old), Sketch::new()).unwrap();
    let recipe = chunks_of(&new);
    let answer = inventory.answer(recipe.iter().map(|chunk| (chunk.id, chunk.length)));
    assert!(recipe.len() * 20 + answer.len() < new.len() / 1000);
    let ranges = missing(&recipe, &answer);
    let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert!((100_000..700_000).contains(&bytes) && ranges.len() == 1, "{ranges:?}");
    for chunk in &recipe {
        if let Some(there) = inventory.find(chunk.id, chunk.length) {
            let (from, to) = (there.offset as usize, chunk.offset as usize);
            let length = chunk.length as usize;
            assert!(old[from..from + length] == new[to..to + length]);
        }
    }
    assert_eq!(missing(&recipe, &[]), std::iter::once(0..new.len() as u64).collect::<Vec<_>>());
}

#[test]
fn an_inventory_forgets_what_is_gone_and_nothing_else() {
    let shared = noise(2 << 20, 3);
    let (one, two) = ([&shared[..], &noise(1 << 20, 4)].concat(), [&shared[..], &noise(1 << 20, 5)].concat());
    let mut inventory = Inventory::new(10_000);
    for object in [&one, &two] {
        inventory.insert(content_id(object), chunks_of(object), Sketch::new()).unwrap();
    }
    inventory.remove(content_id(&two));
    let there = |object: &[u8]| {
        chunks_of(object).iter().filter(|chunk| inventory.find(chunk.id, chunk.length).is_some()).count()
    };
    assert_eq!(there(&one), chunks_of(&one).len());
    assert!(there(&two) > 10 && there(&two) < chunks_of(&two).len());
    let mut small = Inventory::new(3);
    assert!(small.insert(content_id(&one), chunks_of(&one), Sketch::new()).is_err());
    assert_eq!(small.objects(), 0);
}

#[test]
fn like_objects_are_found_whatever_their_name() {
    let sketch = |bytes: &[u8]| {
        let mut sketch = Sketch::new();
        sketch.push(bytes);
        sketch
    };
    let old = noise(1 << 20, 6);
    let new = [&old[..700_000], &noise(300_000, 7)].concat();
    let other = noise(1 << 20, 8);
    assert_eq!(sketch(&old).likeness_thousandths(&sketch(&old)), 1000);
    assert!(sketch(&old).likeness_thousandths(&sketch(&new)) > 300);
    assert!(sketch(&other).likeness_thousandths(&sketch(&new)) < 100);
    assert_eq!(Sketch::new().likeness_thousandths(&Sketch::new()), 0);
    let mut inventory = Inventory::new(1000);
    for object in [&old, &other] {
        inventory.insert(content_id(object), chunks_of(object), sketch(object)).unwrap();
    }
    assert_eq!(inventory.most_like(&sketch(&new)), Some(content_id(&old)));
    assert_eq!(inventory.most_like(&sketch(&noise(1 << 20, 9))), None);
    assert_eq!(Sketch::from_bytes(&sketch(&old).to_bytes()), sketch(&old));
}

fn id(n: u8) -> ContentId {
    ContentId([n; 16])
}

fn record(n: u8, parent: Option<u8>, used_s: u64) -> VersionRecord {
    VersionRecord {
        content: id(n),
        parent: parent.map(id),
        stored_bytes: 100,
        used_at: Duration::from_secs(used_s),
    }
}

fn versions(chain_max: u32, bytes_max: u64, records: &[VersionRecord]) -> Versions {
    let mut versions =
        Versions::new(VersionRules { chain_max, interval: Duration::from_secs(300), bytes_max });
    records.iter().for_each(|record| versions.insert(*record));
    versions
}

#[test]
fn chains_end_where_the_rules_say() {
    let mut versions = versions(2, 10_000, &[]);
    let mut newest = 0;
    versions.insert(record(0, None, 0));
    for next in 1..12 {
        let parent = match versions.store_previous_as(id(newest), id(next)) {
            StoreAs::Whole => None,
            StoreAs::DeltaTo(parent) => Some(parent),
        };
        versions.insert(record(next, None, 0));
        versions.insert(VersionRecord { parent, ..record(newest, None, 0) });
        newest = next;
        for known in 0..=next {
            assert!(versions.chain(id(known)).unwrap().len() <= 3, "{known} of {next}");
        }
    }
    assert_eq!(versions.chain(id(11)), Ok(vec![id(11)]));
    assert!(!versions.stream_baseline_due(Duration::from_secs(10), Duration::from_secs(309)));
    assert!(versions.stream_baseline_due(Duration::from_secs(10), Duration::from_secs(310)));
}

#[test]
fn chains_that_lie_are_errors() {
    let cyclic = versions(10, 10_000, &[record(1, Some(2), 0), record(2, Some(3), 0), record(3, Some(1), 0)]);
    assert_eq!(cyclic.chain(id(1)), Err(ChainError::Cycle(id(1))));
    assert_eq!(versions(9, 9, &[record(1, Some(1), 0)]).chain(id(1)), Err(ChainError::Cycle(id(1))));
    let broken = versions(10, 10_000, &[record(1, Some(2), 0)]);
    assert_eq!(broken.chain(id(1)), Err(ChainError::Missing(id(2))));
    let long: Vec<_> = (0..20).map(|n| record(n, (n < 19).then_some(n + 1), 0)).collect();
    let long = versions(10, 10_000, &long);
    assert_eq!(long.chain(id(0)), Err(ChainError::TooLong { content: id(0), chain_max: 10 }));
    assert!(long.chain(id(9)).is_ok());
}

#[test]
fn pruning_keeps_what_is_leased_or_built_upon() {
    let mut store = versions(
        10,
        250,
        &[record(1, None, 1), record(2, Some(1), 2), record(3, None, 3), record(4, None, 4)],
    );
    store.lease(id(3)).unwrap();
    store.touch(id(2), Duration::from_secs(9));
    assert_eq!(store.prune(), [id(4), id(2)]);
    assert_eq!(store.stored_bytes(), 200);
    let mut leased = versions(10, 50, &[record(1, None, 1)]);
    leased.lease(id(1)).unwrap();
    assert_eq!(leased.prune(), []);
    leased.release(id(1));
    assert_eq!(leased.prune(), [id(1)]);
    assert_eq!(leased.lease(id(1)), Err(ChainError::Missing(id(1))));
}

#[test]
fn a_broken_version_takes_with_it_what_builds_on_it() {
    let mut store = versions(
        10,
        1000,
        &[record(1, None, 1), record(2, Some(1), 2), record(3, Some(2), 3), record(4, None, 4)],
    );
    let mut gone = store.remove_broken(id(1));
    gone.sort();
    assert_eq!(gone, [id(1), id(2), id(3)]);
    assert_eq!(store.stored_bytes(), 100);
}

fn documents(count: u64, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed;
    let mut document = || {
        let (a, b, c) = (next(&mut state) % 10_000, next(&mut state) % 500, next(&mut state) % 97);
        format!(
            "{{\"host\":\"node-{c}\",\"service\":\"replication\",\"lag_bytes\":{a},\"lane\":{b},\"state\":\"streaming\"}}"
        )
    };
    (0..count).map(|_| document().into_bytes()).collect()
}

struct Dictionaries(Option<Dictionary>);

impl Known for Dictionaries {
    fn baseline(&self, _id: ContentId) -> Option<&dyn Baseline> {
        None
    }

    fn dictionary(&self, id: ContentId) -> Option<&Dictionary> {
        self.0.as_ref().filter(|dictionary| dictionary.id() == id)
    }
}

#[test]
fn a_dictionary_is_learned_named_and_used() {
    let documents = documents(6000, 3);
    let samples: Vec<&[u8]> = documents.iter().map(Vec::as_slice).collect();
    let dictionary = train(&samples, None).unwrap();
    let again = Dictionary::new(dictionary.bytes()).unwrap();
    assert_eq!(again.id(), dictionary.id());
    let prepared = PreparedDictionary::new(&dictionary, 3).unwrap();
    let mut encoder = Encoder::new(limits());
    let (mut with, mut without) = (0, 0);
    let known = Dictionaries(Some(again));
    for document in &documents[..50] {
        let mut block = vec![0; encoded_length_max(document.len())];
        without += encoder.encode(document, dwcp_hde::Choice::ZSTD_3, &mut block).unwrap().length;
        let length = encoder.encode_with_dictionary(document, &prepared, &mut block).unwrap().length;
        with += length;
        let (block, expected) = (&mut block[..length], document.len() as u32);
        let mut out = vec![0; document.len()];
        let mut decoder = Decoder::new(limits());
        decoder.decode_with(block, expected, &known, &mut out).unwrap();
        assert_eq!(&out, document);
        let missing = decoder.decode_with(block, expected, &Dictionaries(None), &mut out);
        assert_eq!(missing, Err(DecodeError::DictionaryMissing(dictionary.id())));
        for at in 0..block.len() {
            block[at] ^= 0x41;
            let result = decoder.decode_with(block, expected, &known, &mut out);
            assert!(result.is_err() || &out == document, "byte {at}");
            block[at] ^= 0x41;
        }
    }
    assert!(with < without, "{with} {without}");
    let no_gain = train(&samples, Some(&dictionary));
    assert!(matches!(no_gain, Err(DictionaryError::NoGain { .. })), "{no_gain:?}");
}

#[test]
fn dictionaries_are_not_made_of_too_little_or_of_noise() {
    let documents = documents(20, 3);
    let samples: Vec<&[u8]> = documents.iter().map(Vec::as_slice).collect();
    assert!(matches!(train(&samples, None), Err(DictionaryError::TooFew { .. })));
    let noise: Vec<Vec<u8>> = (0..2000).map(|seed| noise(400, seed + 1)).collect();
    let samples: Vec<&[u8]> = noise.iter().map(Vec::as_slice).collect();
    assert!(train(&samples, None).is_err());
    for bytes in [&[][..], b"no dictionary", &vec![0; DICTIONARY_BYTES_MAX + 1]] {
        assert!(matches!(Dictionary::new(bytes), Err(DictionaryError::Invalid { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_do_not_depend_on_how_they_are_given(length in 0..2_000_000_usize, seed: u64, part in 1..500_000_usize) {
        let object = if seed % 2 == 0 { mixed(length, seed) } else { text(length) };
        let (mut chunker, mut chunks) = (Chunker::new(), Vec::new());
        object.chunks(part).for_each(|part| chunker.push(part, &mut chunks));
        chunker.finish(&mut chunks);
        prop_assert!(chunks == chunks_of(&object));
        let mut at = 0;
        for chunk in &chunks {
            let bytes = &object[at as usize..at as usize + chunk.length as usize];
            prop_assert!(chunk.offset == at && chunk.id == content_id(bytes));
            prop_assert!(chunk.length > 0 && chunk.length as usize <= CHUNK_BYTES_MAX);
            at += u64::from(chunk.length);
        }
        prop_assert_eq!(at, object.len() as u64);
    }
}
