//! Compression of chunks: what a chunk is coded with is decided by what the path carries, what the data promise, and what
//! a core can do (`hde`'s cost model); by the configuration alone where it says so. Where nothing is known of a path, a long
//! one counts as slow and a short one as fast.
use std::collections::HashMap;
use std::time::Instant;

use dwcp_abi::link::Transport;
use dwcp_abi::wire::{BlockCodec, CHUNK_BYTES};
use dwcp_hde::{
    Choice, Chooser, Conditions, Configured, CostModel, Decoder, Encoder, Known, Limits, ObjectMemory,
    Outcome,
};

/// A worker's codecs.
pub(super) struct Coding {
    encoder: Encoder,
    decoder: Decoder,
    chooser: Chooser<CostModel>,
    /// What is known of objects under way; forgotten when there are many.
    memories: HashMap<(u64, u64), ObjectMemory>,
    configured: Option<Choice>,
    adaptive: bool,
    workers: u16,
    coded: u32,
}

/// A path to a peer, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Its round trip is not that of a local network.
    pub(super) is_long: bool,
    /// Most that it was seen to carry lately, all lanes and workers together.
    pub(super) bytes_per_s: Option<u64>,
}

impl Link {
    /// Whether looking for differences to what a peer has takes less time than sending everything would.
    pub(super) fn differences_pay(self, workers: u16) -> bool {
        let found = DELTA_BYTES_PER_S.saturating_mul(u64::from(workers.max(1)));
        self.bytes_per_s.map_or(self.is_long, |carried| carried < found)
    }
}

/// In how many bytes a second one core finds differences: measured over version pairs, at Zstandard's third level.
const DELTA_BYTES_PER_S: u64 = 250_000_000;
/// Objects whose compressibility is remembered.
const MEMORIES_MAX: usize = 256;
/// One in so many coded chunks is timed, for the cost model.
const TIMED_SHARE: u32 = 8;
/// Bytes per second below which differences are worth Zstandard's level 9; level 3 is four times as fast.
const SLOW_BYTES_PER_S: u64 = 12_500_000;

impl Coding {
    pub(super) fn new(transport: &Transport, workers: u16) -> Self {
        let ratio = u32::from(transport.codec_ratio_min_thousandths).max(1000);
        let Ok(limits) = Limits::new(CHUNK_BYTES, ratio) else {
            unreachable!("a chunk is shorter than the longest block, and the ratio is within its bounds");
        };
        Self {
            encoder: Encoder::new(limits),
            decoder: Decoder::new(limits),
            chooser: Chooser::with_selector(CostModel::new()),
            memories: HashMap::new(),
            configured: configured(transport),
            adaptive: transport.codec_adaptive,
            workers: workers.max(1),
            coded: 0,
        }
    }

    /// Whether chunks for this path may become smaller before they are sent.
    pub(super) fn is_on(&self, link: Link) -> bool {
        let Some(choice) = self.configured else { return false };
        if !self.adaptive {
            return true;
        }
        let share = link.bytes_per_s.map(|rate| rate / u64::from(self.workers));
        share.map_or(link.is_long, |share| share < hopeless_from(choice))
    }

    /// The encoder, and Zstandard's level for what a baseline does not have.
    pub(super) fn for_differences(&mut self, link: Link) -> (&mut Encoder, u8) {
        let level = match self.configured {
            Some(choice) if !self.adaptive && choice.codec() == BlockCodec::Zstd => choice.level(),
            _ if link.bytes_per_s.is_some_and(|rate| rate < SLOW_BYTES_PER_S) => 9,
            _ => 3,
        };
        (&mut self.encoder, level)
    }

    /// Codes a chunk of an object into `out`; none where it is better sent as it is.
    pub(super) fn encode(
        &mut self,
        link: Link,
        object: (u64, u64),
        plain: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let conditions = self.conditions(link)?;
        if self.memories.len() >= MEMORIES_MAX && !self.memories.contains_key(&object) {
            self.memories.clear();
        }
        let memory = self.memories.entry(object).or_default();
        let choice = self.chooser.choose(plain, &conditions, memory);
        if choice == Choice::RAW {
            return None;
        }
        self.coded = self.coded.wrapping_add(1);
        let since = self.coded.is_multiple_of(TIMED_SHARE).then(Instant::now);
        let encoded = self.encoder.encode(plain, choice, out).ok()?;
        memory.record(choice, encoded);
        if let Some(since) = since {
            let outcome = Outcome {
                plain_length: plain.len(),
                coded_length: encoded.length,
                encode_ns: since.elapsed().as_nanos() as u64,
            };
            let features = self.chooser.features(plain, &conditions);
            self.chooser.selector_mut().record(choice, &features, outcome);
        }
        (encoded.codec != BlockCodec::Raw).then_some(encoded.length)
    }

    fn conditions(&self, link: Link) -> Option<Conditions> {
        let configured = match self.configured? {
            choice if self.adaptive && choice.codec() == BlockCodec::Zstd => Configured::Auto,
            choice => Configured::Fixed(choice),
        };
        let cores_thousandths = u32::from(self.workers) * 1000;
        Some(Conditions { link_bytes_per_s: link.bytes_per_s, cores_thousandths, configured })
    }

    /// Decodes a block that must have so many plain bytes, and may be made of what is `known`.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        plain_length: u32,
        known: &dyn Known,
        out: &mut [u8],
    ) -> Result<usize, dwcp_hde::DecodeError> {
        self.decoder.decode_with(block, plain_length, known, out)
    }
}

fn configured(transport: &Transport) -> Option<Choice> {
    match transport.codec {
        1 => Some(Choice::LZ4),
        2 => Some(Choice::SNAPPY),
        3 => Some(Choice::new(BlockCodec::Zstd, transport.codec_level).unwrap_or(Choice::ZSTD_3)),
        _ => None,
    }
}

/// Bytes per second of a worker's share of a path from which on coding is not even tried: half of what one core encodes
/// at the fastest (measured over version pairs and single objects: LZ4 750 MB/s, Snappy 736, Zstandard's first level 640).
/// Nearer to its own speed a codec could win a little only where data is very compressible.
const fn hopeless_from(choice: Choice) -> u64 {
    match choice.codec() {
        BlockCodec::Lz4 | BlockCodec::Snappy | BlockCodec::Zstd => 370_000_000,
        // The first codes nothing; the others need a baseline and are not configured.
        BlockCodec::Raw | BlockCodec::Same | BlockCodec::Delta | BlockCodec::Reference => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    const FAST: Link = Link { is_long: false, bytes_per_s: Some(2_000_000_000) };
    const SLOW: Link = Link { is_long: true, bytes_per_s: Some(10_000_000) };
    const UNKNOWN_SHORT: Link = Link { is_long: false, bytes_per_s: None };
    const UNKNOWN_LONG: Link = Link { is_long: true, bytes_per_s: None };

    fn coding(codec: u8, codec_adaptive: bool) -> Coding {
        let plan = Plan::default();
        Coding::new(&Transport { codec, codec_level: 3, codec_adaptive, ..plan.transport }, 2)
    }

    fn length(coding: &mut Coding, link: Link, plain: &[u8]) -> Option<usize> {
        coding.encode(link, (1, 1), plain, &mut vec![0; plain.len() + 4096])
    }

    #[test]
    fn what_the_path_carries_decides() {
        let adaptive = coding(3, true);
        let on = [FAST, SLOW, UNKNOWN_SHORT, UNKNOWN_LONG].map(|link| adaptive.is_on(link));
        assert_eq!(on, [false, true, false, true]);
        assert!(
            [FAST, SLOW].into_iter().all(|link| coding(3, false).is_on(link)),
            "as the configuration says"
        );
        assert!([FAST, SLOW].into_iter().all(|link| !coding(0, true).is_on(link)));
    }

    #[test]
    fn a_slow_path_is_worth_more_time() {
        let mut coding = coding(3, true);
        // Words that come again in ever other company.
        let mut state = 7u64;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (state >> 33) % 3000;
            format!("{:x} ", number * number * 7_919)
        };
        let text: Vec<u8> = (0..60_000).flat_map(|_| word().into_bytes()).collect();
        let plain = &text[..CHUNK_BYTES as usize / 2];
        let fast = Link { is_long: true, bytes_per_s: Some(500_000_000) };
        let slow = length(&mut coding, SLOW, plain).expect("text gets smaller");
        let fast = length(&mut coding, fast, plain).unwrap_or(plain.len());
        assert!(slow < fast, "{slow} {fast}");
    }
}
