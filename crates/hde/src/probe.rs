//! A cheap guess whether a block is worth compressing. Called by [`crate::Chooser`] for every block that is not skipped;
//! it looks at 8 KiB of it, so it says nothing about matches over longer distances.
use crate::codec::lz4::{Lz4Encoder, scratch_length};

/// Looks at samples of blocks. Holds LZ4's tables and room for one sample.
pub struct Probe {
    lz4: Lz4Encoder,
    scratch: Box<[u8]>,
}

/// What a probe saw: expected coded bytes per thousand plain ones, by two kinds of redundancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// By repeated strings: the samples under LZ4. Every codec gains from them.
    pub matches_thousandths: u32,
    /// By uneven byte frequencies: the samples' collision entropy. Only zstd gains from it.
    pub entropy_thousandths: u32,
}

impl Probe {
    /// Takes all memory that probing needs.
    #[must_use]
    pub fn new() -> Self {
        Self { lz4: Lz4Encoder::new(), scratch: vec![0; scratch_length(SAMPLE_BYTES)].into() }
    }

    /// True where some codec is likely to save more than 2 %.
    #[must_use]
    pub fn looks_compressible(&mut self, plain: &[u8]) -> bool {
        self.estimate(plain).is_compressible()
    }

    /// Looks at two samples of `plain`.
    #[must_use]
    pub fn estimate(&mut self, plain: &[u8]) -> Estimate {
        let samples = samples(plain);
        Estimate {
            matches_thousandths: self.matches_thousandths(samples),
            entropy_thousandths: entropy_thousandths(samples),
        }
    }

    fn matches_thousandths(&mut self, samples: [&[u8]; 2]) -> u32 {
        let plain: usize = samples.iter().map(|sample| sample.len()).sum();
        let coded: usize = samples.iter().map(|sample| self.coded_length(sample)).sum();
        (coded * 1000).checked_div(plain).map_or(INCOMPRESSIBLE, |ratio| ratio as u32).min(INCOMPRESSIBLE)
    }

    fn coded_length(&mut self, sample: &[u8]) -> usize {
        self.lz4.encode_to(sample, &mut self.scratch).unwrap_or(sample.len())
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

impl Estimate {
    /// True where zstd is likely to save more than 2 %.
    #[must_use]
    pub fn is_compressible(self) -> bool {
        self.matches_thousandths.min(self.entropy_thousandths) <= COMPRESSIBLE_THOUSANDTHS
    }

    /// True where LZ4 and Snappy are likely to save more than 2 %.
    #[must_use]
    pub fn has_matches(self) -> bool {
        self.matches_thousandths <= COMPRESSIBLE_THOUSANDTHS
    }
}

/// The whole of a small block; of others the parts that begin at a third and two thirds of what lies before the last.
fn samples(plain: &[u8]) -> [&[u8]; 2] {
    let Some(last) = plain.len().checked_sub(SAMPLE_BYTES) else { return [plain, &[]] };
    [last / 3, last * 2 / 3].map(|start| &plain[start..start + SAMPLE_BYTES])
}

/// Rényi entropy of order 2 of the first bytes of each sample, over the 8 bits of a byte. It needs one logarithm, lies
/// below Shannon's, and 2048 bytes of noise come within 1 % of 1000.
fn entropy_thousandths(samples: [&[u8]; 2]) -> u32 {
    let mut counts = [0_u32; 256];
    let heads = samples.map(|sample| &sample[..sample.len().min(HISTOGRAM_BYTES)]);
    heads.iter().copied().flatten().for_each(|byte| counts[usize::from(*byte)] += 1);
    let total: u32 = counts.iter().sum();
    let collisions: u32 = counts.iter().map(|count| count * count.saturating_sub(1)).sum();
    if collisions == 0 {
        return INCOMPRESSIBLE;
    }
    let chance = f64::from(collisions) / (f64::from(total) * f64::from(total - 1));
    ((-chance.log2() / 8.0 * 1000.0) as u32).min(INCOMPRESSIBLE)
}

const SAMPLE_BYTES: usize = 4096;
const HISTOGRAM_BYTES: usize = 1024;
const COMPRESSIBLE_THOUSANDTHS: u32 = 980;
const INCOMPRESSIBLE: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn noise_is_not_compressible() {
        let mut probe = Probe::new();
        for seed in 1..=500 {
            let plain = noise(64 * 1024, seed);
            assert!(!probe.looks_compressible(&plain), "seed {seed}: {:?}", probe.estimate(&plain));
        }
    }

    #[test]
    fn text_and_zeros_are() {
        let mut probe = Probe::new();
        let text = "A peer, disk or configuration may be wrong. ".repeat(2000).into_bytes();
        for plain in [text, vec![0; 1 << 20], vec![7; 100]] {
            let estimate = probe.estimate(&plain);
            assert!(estimate.has_matches() && estimate.is_compressible(), "{estimate:?}");
        }
    }

    #[test]
    fn uneven_bytes_without_matches_are_for_zstd_alone() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let plain: Vec<u8> = noise(1 << 16, 5).iter().map(|byte| alphabet[usize::from(byte & 63)]).collect();
        let estimate = Probe::new().estimate(&plain);
        assert!(estimate.is_compressible() && !estimate.has_matches(), "{estimate:?}");
        assert!((700..=800).contains(&estimate.entropy_thousandths), "{estimate:?}");
    }

    #[test]
    fn any_length_has_an_estimate() {
        let mut probe = Probe::new();
        for length in (0..300).chain(4000..4200).chain(8190..8200) {
            let estimate = probe.estimate(&noise(length, 9));
            assert!(estimate.matches_thousandths <= 1000 && estimate.entropy_thousandths <= 1000);
        }
    }
}
