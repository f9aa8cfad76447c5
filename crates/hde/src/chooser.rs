//! Which codec a block gets. The dataplane asks a [`Chooser`] before it encodes a block, with an [`ObjectMemory`] per
//! object and the [`Conditions`] of the moment. What decides is a [`Selector`]: features in, choice out. Nothing here
//! reads a clock, waits, or knows where figures come from.
use dwcp_abi::wire::BlockCodec;

use crate::{Choice, Encoded, Estimate, Probe};

/// What the configuration says (`compression.algorithm` and `compression.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configured {
    /// This codec for everything that compresses.
    Fixed(Choice),
    /// Whatever makes the transfer end soonest.
    Auto,
}

/// What holds for the session, whatever the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// What the link carries for this session, where it is known.
    pub link_bytes_per_s: Option<u64>,
    /// Cores that may encode for this session at once, in thousandths.
    pub cores_thousandths: u32,
    /// What the configuration says.
    pub configured: Configured,
}

/// All that a selector knows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// What the probe saw.
    pub estimate: Estimate,
    /// Bytes of the block.
    pub plain_length: usize,
    /// What holds for the session.
    pub conditions: Conditions,
}

/// Decides on a codec. Must answer at once and the same for the same features: what it has learned is replaced from
/// outside, between blocks.
pub trait Selector {
    /// The codec for a block with these features. A choice that the estimate rules out is not tried.
    fn select(&self, features: &Features) -> Choice;
}

/// Chooses by link rate per core alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkTable;

impl Selector for LinkTable {
    fn select(&self, features: &Features) -> Choice {
        match features.conditions.configured {
            Configured::Fixed(choice) => choice,
            Configured::Auto => by_link(&features.conditions),
        }
    }
}

fn by_link(conditions: &Conditions) -> Choice {
    let Some(rate_bytes_per_s) = conditions.link_bytes_per_s else { return Choice::ZSTD_3 };
    let cores_thousandths = u64::from(conditions.cores_thousandths.max(1));
    let rate_mbit_per_s = rate_bytes_per_s.saturating_mul(1000) / cores_thousandths / 125_000;
    let row = LINK_TABLE.iter().find(|(below_mbit_per_s, _)| rate_mbit_per_s < *below_mbit_per_s);
    row.map_or(Choice::RAW, |(_, choice)| *choice)
}

/// Choices by link rate per core. Measured best on mixed files: level 12 at 10 Mbit/s, 9 at 50, 6 at 100, 3 at 300, 1
/// at 1000, LZ4 at 2500, none at 10000; a row ends at the geometric mean of its rate and the next.
const LINK_TABLE: [(u64, Choice); 6] = [
    (22, Choice::zstd(12)),
    (71, Choice::zstd(9)),
    (173, Choice::zstd(6)),
    (548, Choice::zstd(3)),
    (1581, Choice::zstd(1)),
    (5000, Choice::LZ4),
];

/// Chooses for one block after another.
pub struct Chooser<S = LinkTable> {
    probe: Probe,
    selector: S,
}

impl Chooser<LinkTable> {
    /// A chooser that goes by link rate.
    #[must_use]
    pub fn new() -> Self {
        Self::with_selector(LinkTable)
    }
}

impl Default for Chooser<LinkTable> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Selector> Chooser<S> {
    /// A chooser that asks `selector`.
    #[must_use]
    pub fn with_selector(selector: S) -> Self {
        Self { probe: Probe::new(), selector }
    }

    /// What decides, to be told of outcomes or replaced between blocks.
    pub const fn selector_mut(&mut self) -> &mut S {
        &mut self.selector
    }

    /// What the selector is asked about a block.
    pub fn features(&mut self, plain: &[u8], conditions: &Conditions) -> Features {
        let estimate = self.probe.estimate(plain);
        Features { estimate, plain_length: plain.len(), conditions: *conditions }
    }

    /// The choice for a block of the object that `memory` stands for. Raw at no cost while that says to skip; tell
    /// [`ObjectMemory::record`] what came of it.
    pub fn choose(&mut self, plain: &[u8], conditions: &Conditions, memory: &mut ObjectMemory) -> Choice {
        if conditions.configured == Configured::Fixed(Choice::RAW) || memory.skips() {
            return Choice::RAW;
        }
        let features = self.features(plain, conditions);
        let choice = self.selector.select(&features);
        if pays(choice.codec(), features.estimate) {
            return choice;
        }
        memory.miss();
        Choice::RAW
    }
}

fn pays(codec: BlockCodec, estimate: Estimate) -> bool {
    match codec {
        BlockCodec::Raw | BlockCodec::Same | BlockCodec::Delta | BlockCodec::Reference => false,
        BlockCodec::Lz4 | BlockCodec::Snappy => estimate.has_matches(),
        BlockCodec::Zstd => estimate.is_compressible(),
    }
}

/// What is remembered of an object: whether its latest blocks compressed. After one that did not, the next is not
/// looked at; after each further one in a row, twice as many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectMemory {
    skips_left: u8,
    skips_next: u8,
}

/// Most blocks in a row that are not looked at.
pub const SKIP_BLOCKS_MAX: u8 = 32;

impl ObjectMemory {
    /// Takes note of a block that was encoded as `choice` said.
    pub fn record(&mut self, choice: Choice, encoded: Encoded) {
        match (choice.codec(), encoded.codec) {
            (BlockCodec::Raw, _) => {}
            (_, BlockCodec::Raw) => self.miss(),
            (
                _,
                BlockCodec::Lz4
                | BlockCodec::Snappy
                | BlockCodec::Zstd
                | BlockCodec::Same
                | BlockCodec::Delta
                | BlockCodec::Reference,
            ) => *self = Self::default(),
        }
    }

    fn skips(&mut self) -> bool {
        let skips = self.skips_left > 0;
        self.skips_left = self.skips_left.saturating_sub(1);
        skips
    }

    fn miss(&mut self) {
        self.skips_next = (self.skips_next * 2).clamp(1, SKIP_BLOCKS_MAX);
        self.skips_left = self.skips_next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = &[b'x'; 8192];

    fn conditions(mbit_per_s: u64, cores_thousandths: u32) -> Conditions {
        let link_bytes_per_s = Some(mbit_per_s * 125_000);
        Conditions { link_bytes_per_s, cores_thousandths, configured: Configured::Auto }
    }

    fn choose(conditions: Conditions) -> Choice {
        Chooser::new().choose(TEXT, &conditions, &mut ObjectMemory::default())
    }

    #[test]
    fn link_rate_per_core_decides() {
        let levels = [(1, 12), (10, 12), (50, 9), (100, 6), (300, 3), (1000, 1)];
        for (mbit_per_s, level) in levels {
            assert_eq!(choose(conditions(mbit_per_s, 1000)), Choice::zstd(level), "{mbit_per_s} Mbit/s");
        }
        assert_eq!(choose(conditions(2500, 1000)), Choice::LZ4);
        assert_eq!(choose(conditions(10_000, 1000)), Choice::RAW);
        assert_eq!(choose(conditions(10_000, 8000)), Choice::zstd(1));
        assert_eq!(choose(conditions(100, 100)), Choice::zstd(1));
        assert_eq!(choose(conditions(1, 0)), Choice::zstd(1));
        assert_eq!(choose(conditions(u64::MAX / 125_000, 0)), Choice::RAW);
    }

    #[test]
    fn an_unknown_link_gets_the_balanced_level() {
        assert_eq!(choose(Conditions { link_bytes_per_s: None, ..conditions(1, 1) }), Choice::ZSTD_3);
    }

    #[test]
    fn configuration_wins_over_the_table() {
        let fixed = |choice| Conditions { configured: Configured::Fixed(choice), ..conditions(10_000, 1000) };
        for choice in [Choice::RAW, Choice::LZ4, Choice::SNAPPY, Choice::zstd(22)] {
            assert_eq!(choose(fixed(choice)), choice);
        }
    }

    fn raw() -> Encoded {
        Encoded { length: 1, codec: BlockCodec::Raw }
    }

    /// Blocks that are looked at among `count` blocks that never compress.
    fn looked_at(count: usize, compressed: Option<usize>) -> Vec<usize> {
        let (mut chooser, mut memory) = (Chooser::new(), ObjectMemory::default());
        let mut looked_at = Vec::new();
        for block in 0..count {
            let choice = chooser.choose(TEXT, &conditions(100, 1000), &mut memory);
            let smaller = compressed == Some(block);
            let encoded = if smaller { Encoded { codec: choice.codec(), ..raw() } } else { raw() };
            memory.record(choice, encoded);
            if choice != Choice::RAW {
                looked_at.push(block);
            }
        }
        looked_at
    }

    #[test]
    fn blocks_that_do_not_compress_are_looked_at_ever_more_rarely() {
        assert_eq!(looked_at(170, None), [0, 2, 5, 10, 19, 36, 69, 102, 135, 168]);
    }

    #[test]
    fn one_that_compresses_ends_the_skipping() {
        assert_eq!(looked_at(30, Some(19)), [0, 2, 5, 10, 19, 20, 22, 25]);
    }

    #[test]
    fn noise_is_skipped_without_being_encoded() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as u8
        };
        let noise: Vec<u8> = (0..8192).map(|_| next()).collect();
        let mut memory = ObjectMemory::default();
        assert_eq!(Chooser::new().choose(&noise, &conditions(10, 1000), &mut memory), Choice::RAW);
        assert_ne!(memory, ObjectMemory::default());
    }

    #[test]
    fn another_selector_plugs_in() {
        struct Always(Choice);
        impl Selector for Always {
            fn select(&self, features: &Features) -> Choice {
                assert_eq!(features.plain_length, TEXT.len());
                self.0
            }
        }
        let mut chooser = Chooser::with_selector(Always(Choice::SNAPPY));
        assert_eq!(chooser.choose(TEXT, &conditions(1, 1), &mut ObjectMemory::default()), Choice::SNAPPY);
    }
}
