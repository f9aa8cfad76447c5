//! A codec and its level: what configuration or a [`crate::Selector`] asks an encoder for.
use dwcp_abi::wire::BlockCodec;

/// A codec with a level that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Choice {
    codec: BlockCodec,
    level: u8,
}

/// A level that the codec does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{codec:?} has no level {level}")]
pub struct ChoiceError {
    /// The codec.
    pub codec: BlockCodec,
    /// The level that was asked for.
    pub level: u8,
}

impl Choice {
    /// The bytes as they are.
    pub const RAW: Self = Self { codec: BlockCodec::Raw, level: 0 };
    /// LZ4.
    pub const LZ4: Self = Self { codec: BlockCodec::Lz4, level: 0 };
    /// Snappy.
    pub const SNAPPY: Self = Self { codec: BlockCodec::Snappy, level: 0 };
    /// Zstandard at its default level.
    pub const ZSTD_3: Self = Self { codec: BlockCodec::Zstd, level: 3 };

    /// A codec and one of [`BlockCodec::levels`].
    ///
    /// # Errors
    /// A level that the codec does not have.
    pub fn new(codec: BlockCodec, level: u8) -> Result<Self, ChoiceError> {
        if !codec.levels().contains(&level) {
            return Err(ChoiceError { codec, level });
        }
        Ok(Self { codec, level })
    }

    /// The codec.
    #[must_use]
    pub const fn codec(self) -> BlockCodec {
        self.codec
    }

    /// The level; 0 where the codec has none.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.level
    }

    /// Zstandard at a level of our own tables.
    pub(crate) const fn zstd(level: u8) -> Self {
        assert!(level >= 1 && level <= dwcp_abi::wire::ZSTD_LEVEL_MAX);
        Self { codec: BlockCodec::Zstd, level }
    }
}
