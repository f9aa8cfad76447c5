//! Bounds of encoders and decoders, as the configuration sets them.
use dwcp_abi::wire::BLOCK_PLAIN_MAX;

/// What an encoder or decoder may be asked to do; checked once, here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    plain_length_max: u32,
    ratio_min_thousandths: u32,
}

/// Why limits are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// No block can be that long.
    #[error("blocks of {plain_length_max} bytes: from 1 to {BLOCK_PLAIN_MAX} are possible")]
    PlainLength {
        /// What was asked for, in bytes.
        plain_length_max: u32,
    },
    /// Blocks would be kept that are longer than their plain bytes, or none would ever be.
    #[error(
        "compression ratio {ratio_min_thousandths}/1000: from 1000 to {RATIO_MAX_THOUSANDTHS} are possible"
    )]
    Ratio {
        /// What was asked for, in thousandths.
        ratio_min_thousandths: u32,
    },
}

impl Limits {
    /// Blocks of at most `plain_length_max` bytes, kept compressed where plain to coded length is more than
    /// `ratio_min_thousandths` (`compression.min_compression_ratio`: 1.1 is 1100).
    ///
    /// # Errors
    /// A length of 0 or above [`BLOCK_PLAIN_MAX`], a ratio under 1 or above a million.
    pub const fn new(plain_length_max: u32, ratio_min_thousandths: u32) -> Result<Self, LimitsError> {
        if plain_length_max == 0 || plain_length_max > BLOCK_PLAIN_MAX {
            return Err(LimitsError::PlainLength { plain_length_max });
        }
        if ratio_min_thousandths < 1000 || ratio_min_thousandths > RATIO_MAX_THOUSANDTHS {
            return Err(LimitsError::Ratio { ratio_min_thousandths });
        }
        Ok(Self { plain_length_max, ratio_min_thousandths })
    }

    /// Most plain bytes of a block.
    #[must_use]
    pub const fn plain_length_max(self) -> usize {
        self.plain_length_max as usize
    }

    /// Most coded bytes of a block that is kept compressed: less than `plain_length` over the ratio.
    #[must_use]
    pub(crate) const fn coded_length_max(self, plain_length: usize) -> usize {
        let below = (plain_length as u64 * 1000).saturating_sub(1);
        (below / self.ratio_min_thousandths as u64) as usize
    }
}

const RATIO_MAX_THOUSANDTHS: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coded_length_stays_below_the_ratio() {
        let limits = Limits::new(1 << 20, 1100).unwrap();
        assert_eq!([0, 1, 2, 11, 1100].map(|plain| limits.coded_length_max(plain)), [0, 0, 1, 9, 999]);
        let any = Limits::new(1 << 20, 1000).unwrap();
        assert_eq!([0, 1, 2, 1000].map(|plain| any.coded_length_max(plain)), [0, 0, 1, 999]);
    }

    #[test]
    fn senseless_limits_are_refused() {
        assert!(Limits::new(0, 1100).is_err());
        assert!(Limits::new(BLOCK_PLAIN_MAX + 1, 1100).is_err());
        assert!(Limits::new(1, 999).is_err());
        assert!(Limits::new(1, u32::MAX).is_err());
        assert!(Limits::new(BLOCK_PLAIN_MAX, 1000).is_ok());
    }
}
