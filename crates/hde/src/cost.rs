//! Chooses what makes a transfer end soonest: a [`crate::Selector`] that compares codecs by expected time. The dataplane
//! gives it what it measured ([`CostModel::record`]) and the conditions of the moment; a learned selector takes its place
//! by the same trait, and this one is what answers while that has nothing to say.
//!
//! Encoding, the link and decoding run at the same time for different blocks, so a stream moves at the pace of the
//! slowest; a tenth of the encoding time is added, because cores have other work too. With the figures below this gives
//! what was measured best on mixed files at each rate (see `LinkTable`), and follows the data where it is not mixed.
use crate::{BlockCodec, Choice, Configured, Features, Selector};

/// What a codec costs on this machine and gains on data so far.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    choice: Choice,
    /// Per plain byte, on one core.
    encode_ns: f64,
    decode_ns: f64,
    /// Coded bytes for each that the probe expected; follows what is recorded.
    factor: f64,
}

/// Compares codecs by expected time.
#[derive(Debug, Clone, PartialEq)]
pub struct CostModel {
    rows: Vec<Row>,
}

/// What one block took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes of the block.
    pub plain_length: usize,
    /// Bytes that it became.
    pub coded_length: usize,
    /// Nanoseconds of processor time.
    pub encode_ns: u64,
}

impl CostModel {
    /// With figures of another machine, which adapt to this one as blocks are recorded.
    #[must_use]
    pub fn new() -> Self {
        let row = |(choice, encode_mb_per_s, decode_mb_per_s, factor): (Choice, f64, f64, f64)| Row {
            choice,
            encode_ns: 1000.0 / encode_mb_per_s,
            decode_ns: 1000.0 / decode_mb_per_s,
            factor,
        };
        Self { rows: CODECS.into_iter().map(row).collect() }
    }

    /// Takes note of what encoding a block with these features took.
    pub fn record(&mut self, choice: Choice, features: &Features, outcome: Outcome) {
        let expected = probed_share(features) * outcome.plain_length as f64;
        let Some(row) = self.rows.iter_mut().find(|row| row.choice == choice) else { return };
        if choice == Choice::RAW || outcome.plain_length == 0 || expected <= 0.0 {
            return;
        }
        let follow = |known: &mut f64, seen: f64| *known += (seen - *known) * LEARNING_RATE;
        follow(&mut row.encode_ns, outcome.encode_ns as f64 / outcome.plain_length as f64);
        follow(&mut row.factor, (outcome.coded_length as f64 / expected).min(FACTOR_MAX));
    }

    /// Expected nanoseconds per plain byte of a long stream of such blocks.
    fn expected_ns(row: &Row, features: &Features, link_ns: f64) -> f64 {
        let cores = f64::from(features.conditions.cores_thousandths.max(1)) / 1000.0;
        let share = match row.choice.codec() {
            BlockCodec::Raw => 1.0,
            BlockCodec::Lz4 | BlockCodec::Snappy if !features.estimate.has_matches() => 1.0,
            _ => (probed_share(features) * row.factor).clamp(0.001, 1.0),
        };
        let encode_ns = row.encode_ns / cores;
        encode_ns.max(share * link_ns).max(row.decode_ns / cores) + encode_ns * OTHER_WORK
    }
}

impl Default for CostModel {
    fn default() -> Self {
        Self::new()
    }
}

impl Selector for CostModel {
    fn select(&self, features: &Features) -> Choice {
        let conditions = &features.conditions;
        if let Configured::Fixed(choice) = conditions.configured {
            return choice;
        }
        let Some(rate_bytes_per_s) = conditions.link_bytes_per_s else { return Choice::ZSTD_3 };
        let link_ns = 1e9 / rate_bytes_per_s.max(1) as f64;
        let cost = |row: &&Row| Self::expected_ns(row, features, link_ns);
        let best = self.rows.iter().min_by(|left, right| cost(left).total_cmp(&cost(right)));
        best.map_or(Choice::RAW, |row| row.choice)
    }
}

/// The smaller of what matches and byte frequencies promise.
fn probed_share(features: &Features) -> f64 {
    let estimate = features.estimate;
    f64::from(estimate.matches_thousandths.min(estimate.entropy_thousandths)) / 1000.0
}

/// Encoding and decoding in MB/s of one core, and coded bytes for each that the probe expects. Speeds of LZ4, Snappy and
/// levels 1, 3 and 9 were measured over version pairs and single objects on a quiet machine, LZ4's and Snappy's factors by
/// `cargo xtask bench codecs`; the other factors follow from the codecs' sizes relative to LZ4's. Levels 6, 12 and 15 lie
/// between and beyond those that were measured. All of them follow what is recorded.
const CODECS: [(Choice, f64, f64, f64); 9] = [
    (Choice::RAW, 30_000.0, 30_000.0, 1.0),
    (Choice::LZ4, 750.0, 1266.0, 1.436),
    (Choice::SNAPPY, 736.0, 1111.0, 1.427),
    (Choice::zstd(1), 640.0, 1044.0, 1.05),
    (Choice::zstd(3), 271.0, 1063.0, 0.95),
    (Choice::zstd(6), 110.0, 900.0, 0.90),
    (Choice::zstd(9), 63.0, 741.0, 0.87),
    (Choice::zstd(12), 30.0, 741.0, 0.845),
    (Choice::zstd(15), 15.0, 741.0, 0.835),
];

/// A codec's time and gain follow the latest hundred blocks or so.
const LEARNING_RATE: f64 = 0.02;

/// Share of encoding time that other work waits for.
const OTHER_WORK: f64 = 0.1;

/// A codec never makes more of a block than this many times what the probe expected.
const FACTOR_MAX: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conditions, Estimate};

    fn features(mbit_per_s: u64, cores_thousandths: u32, matches: u32, entropy: u32) -> Features {
        Features {
            estimate: Estimate { matches_thousandths: matches, entropy_thousandths: entropy },
            plain_length: 512 * 1024,
            conditions: Conditions {
                link_bytes_per_s: Some(mbit_per_s * 125_000),
                cores_thousandths,
                configured: Configured::Auto,
            },
        }
    }

    #[test]
    fn mixed_data_get_what_was_measured_best() {
        let model = CostModel::new();
        for (mbit_per_s, level) in [(10, 12), (50, 9), (100, 6), (300, 3), (1000, 1)] {
            let choice = model.select(&features(mbit_per_s, 1000, 270, 800));
            assert_eq!(choice, Choice::zstd(level), "{mbit_per_s} Mbit/s");
        }
        assert_eq!(model.select(&features(2500, 1000, 270, 800)), Choice::LZ4);
        assert_eq!(model.select(&features(20_000, 1000, 270, 800)), Choice::RAW);
    }

    #[test]
    fn more_cores_and_slower_links_raise_the_level() {
        let model = CostModel::new();
        let level = |mbit_per_s, cores| model.select(&features(mbit_per_s, cores, 270, 800)).level();
        assert!(level(1000, 8000) > level(1000, 1000));
        let levels: Vec<u8> = [1, 10, 30, 100, 300, 1000].map(|rate| level(rate, 1000)).into();
        assert!(levels.windows(2).all(|pair| pair[0] >= pair[1]), "{levels:?}");
    }

    #[test]
    fn data_without_matches_never_get_lz4() {
        let model = CostModel::new();
        for mbit_per_s in [10, 100, 1000, 2500, 10_000] {
            assert_ne!(model.select(&features(mbit_per_s, 1000, 1000, 700)).codec(), BlockCodec::Lz4);
        }
    }

    #[test]
    fn a_slow_machine_is_noticed() {
        let mut model = CostModel::new();
        let features = features(300, 1000, 270, 800);
        assert_eq!(model.select(&features), Choice::zstd(3));
        let outcome = Outcome { plain_length: 512 * 1024, coded_length: 133_000, encode_ns: 20_000_000 };
        for _ in 0..200 {
            model.record(Choice::zstd(3), &features, outcome);
        }
        assert_eq!(model.select(&features), Choice::zstd(1));
    }

    #[test]
    fn figures_that_make_no_sense_do_no_harm() {
        let mut model = CostModel::new();
        let nothing = features(0, 0, 0, 0);
        let outcome = Outcome { plain_length: 0, coded_length: usize::MAX, encode_ns: u64::MAX };
        model.record(Choice::zstd(3), &nothing, outcome);
        assert_eq!(model, CostModel::new());
        model.select(&nothing);
    }
}
