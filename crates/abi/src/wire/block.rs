//! The header of a compressed block: what `hde` writes before the coded bytes, and reads back.
//!
//! ```text
//!  0         1       2       3       4              8              12          16           20
//!  ┌─────────┬───────┬───────┬───────┬──────────────┬──────────────┬───────────┬────────────┐
//!  │ version │ codec │ flags │ level │ plain length │ coded length │ plain CRC │ header CRC │
//!  └─────────┴───────┴───────┴───────┴──────────────┴──────────────┴───────────┴────────────┘
//!  then, where a flag says so, the 16 bytes of a [`ContentId`], then `coded length` bytes.
//!  Integers are little-endian, CRCs are CRC-32C (RFC 3720 B.4).
//! ```
//! A block carries its own checksum of the plain bytes: a decoder that is fed the wrong bytes, or bytes that are not what
//! the encoder had, may succeed. A flag that this version does not know is refused.
use super::checksum;
use crate::codec::{CodecError, Encoded, Reader, Writer, codes};

codes! {
    /// How the bytes of a block are coded.
    pub enum BlockCodec: u8 {
        /// As they are.
        Raw = 0,
        /// LZ4 block format, without a length before it.
        Lz4 = 1,
        /// Snappy raw format.
        Snappy = 2,
        /// One Zstandard frame (RFC 8878) with its content size.
        Zstd = 3,
        /// A part of the baseline as it is: the coded bytes are its offset, a `u64`.
        Same = 4,
        /// Differences to parts of the baseline (see [`super::DeltaHead`]).
        Delta = 5,
        /// One Zstandard frame whose window begins with the whole baseline.
        Reference = 6,
    }
}

impl BlockCodec {
    /// Levels that the codec has; 0 where there is no choice.
    #[must_use]
    pub const fn levels(self) -> core::ops::RangeInclusive<u8> {
        match self {
            Self::Raw | Self::Lz4 | Self::Snappy | Self::Same => 0..=0,
            Self::Zstd | Self::Delta | Self::Reference => 1..=ZSTD_LEVEL_MAX,
        }
    }

    /// Most plain bytes of a block: [`BLOCK_PLAIN_MAX`], but for the codec whose work per block grows with the baseline.
    #[must_use]
    pub const fn plain_length_max(self) -> u32 {
        match self {
            Self::Raw | Self::Lz4 | Self::Snappy | Self::Zstd | Self::Same | Self::Delta => BLOCK_PLAIN_MAX,
            Self::Reference => REFERENCE_PLAIN_MAX,
        }
    }

    /// What a block of this codec may name besides its own bytes, and must name unless that is a dictionary.
    #[must_use]
    pub const fn names(self) -> Names {
        match self {
            Self::Raw | Self::Lz4 | Self::Snappy => Names::Nothing,
            Self::Zstd => Names::Dictionary,
            Self::Same | Self::Delta | Self::Reference => Names::Baseline,
        }
    }
}

/// What a block needs besides its own bytes. The values are the header's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// Nothing.
    #[default]
    Nothing = 0,
    /// A trained dictionary.
    Dictionary = 1,
    /// Content that the decoder's side has.
    Baseline = 2,
}

impl Names {
    /// Bytes between the header and the coded bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Dictionary | Self::Baseline => CONTENT_ID_BYTES,
        }
    }

    const fn from_flags(flags: u8) -> Option<Self> {
        match flags {
            0 => Some(Self::Nothing),
            1 => Some(Self::Dictionary),
            2 => Some(Self::Baseline),
            _ => None,
        }
    }
}

/// Names content by itself: the first half of its BLAKE3 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub [u8; CONTENT_ID_BYTES]);

impl<'a> Encoded<'a> for ContentId {
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        Ok(Self(reader.array()?))
    }
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.bytes(&self.0)
    }
}

/// Bytes of a [`ContentId`].
pub const CONTENT_ID_BYTES: usize = 16;

/// Highest level of Zstandard.
pub const ZSTD_LEVEL_MAX: u8 = 22;

/// First byte of every block. The low half counts versions.
pub const BLOCK_VERSION: u8 = 0xb1;

/// Bytes of a [`BlockHeader`].
pub const BLOCK_HEADER_BYTES: usize = 20;

/// Most plain bytes of a block of most codecs.
pub const BLOCK_PLAIN_MAX: u32 = 8 * 1024 * 1024;

/// Most plain bytes of a [`BlockCodec::Reference`] block.
pub const REFERENCE_PLAIN_MAX: u32 = 64 * 1024 * 1024;

/// A block's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// How the bytes are coded.
    pub codec: BlockCodec,
    /// With which of [`BlockCodec::levels`]; for figures, decoders need it not.
    pub level: u8,
    /// What is named after the header.
    pub names: Names,
    /// Bytes that it stands for.
    pub plain_length: u32,
    /// Bytes after header and name: as many as plain ones where raw, fewer otherwise.
    pub coded_length: u32,
    /// CRC-32C of the plain bytes.
    pub plain_crc: u32,
}

impl BlockHeader {
    /// Writes the header with its own checksum.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[0] = BLOCK_VERSION;
        bytes[1] = self.codec as u8;
        bytes[2] = self.names as u8;
        bytes[3] = self.level;
        bytes[4..8].copy_from_slice(&self.plain_length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.coded_length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.plain_crc.to_le_bytes());
        let crc = checksum(&bytes[..16]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// An unknown version, a checksum that does not match, an unknown codec, flag or level, or a length that the
    /// codec cannot have.
    pub fn from_bytes(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != BLOCK_VERSION {
            return Err(CodecError::Unknown { field: "block version", value: u64::from(version) });
        }
        let codec = reader.u8()?;
        let flags = reader.u8()?;
        let level = reader.u8()?;
        let plain_length = reader.u32()?;
        let coded_length = reader.u32()?;
        let plain_crc = reader.u32()?;
        if reader.u32()? != checksum(&bytes[..16]) {
            return Err(CodecError::Checksum { what: "block header" });
        }
        let unknown = CodecError::Unknown { field: "block flags", value: u64::from(flags) };
        let names = Names::from_flags(flags).ok_or(unknown)?;
        let codec = BlockCodec::decode(&[codec])?;
        let optional = names == Names::Nothing && codec.names() == Names::Dictionary;
        if names != codec.names() && !optional {
            return Err(unknown);
        }
        let header = Self { codec, level, names, plain_length, coded_length, plain_crc };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), CodecError> {
        if !self.codec.levels().contains(&self.level) {
            return Err(CodecError::Unknown { field: "block level", value: u64::from(self.level) });
        }
        at_most("block plain length", self.plain_length, self.codec.plain_length_max())?;
        let coded = u64::from(self.coded_length);
        match self.codec {
            BlockCodec::Raw if self.coded_length == self.plain_length => Ok(()),
            BlockCodec::Raw => Err(CodecError::Unknown { field: "block coded length", value: coded }),
            BlockCodec::Same if self.coded_length == 8 => Ok(()),
            BlockCodec::Same => Err(CodecError::Unknown { field: "block coded length", value: coded }),
            BlockCodec::Lz4
            | BlockCodec::Snappy
            | BlockCodec::Zstd
            | BlockCodec::Delta
            | BlockCodec::Reference
                if self.coded_length == 0 =>
            {
                Err(CodecError::Unknown { field: "block coded length", value: coded })
            }
            BlockCodec::Lz4
            | BlockCodec::Snappy
            | BlockCodec::Zstd
            | BlockCodec::Delta
            | BlockCodec::Reference => {
                at_most("block coded length", self.coded_length, self.plain_length.saturating_sub(1))
            }
        }
    }
}

fn at_most(field: &'static str, value: u32, max: u32) -> Result<(), CodecError> {
    if value <= max {
        return Ok(());
    }
    Err(CodecError::TooLarge { field, value: u64::from(value), max: u64::from(max) })
}

const _: () = assert!(size_of::<BlockHeader>() <= BLOCK_HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: BlockHeader = BlockHeader {
        codec: BlockCodec::Zstd,
        level: 3,
        names: Names::Nothing,
        plain_length: 512 * 1024,
        coded_length: 0x1_2345,
        plain_crc: 0x8899_aabb,
    };

    #[test]
    fn layout_is_pinned() {
        let golden = [
            0xb1, 3, 0, 3, // version, codec, flags, level
            0, 0, 8, 0, // plain_length
            0x45, 0x23, 1, 0, // coded_length
            0xbb, 0xaa, 0x99, 0x88, // plain_crc
            0xc2, 0xf3, 0x12, 0x3b, // header CRC
        ];
        assert_eq!(HEADER.to_bytes(), golden);
        assert_eq!(BlockHeader::from_bytes(&golden), Ok(HEADER));
    }

    #[test]
    fn codes_are_pinned() {
        let codes: Vec<_> =
            BlockCodec::ALL.iter().map(|codec| (*codec as u8, *codec.levels().end())).collect();
        assert_eq!(codes, [(0, 0), (1, 0), (2, 0), (3, 22), (4, 0), (5, 22), (6, 22)]);
    }

    #[test]
    fn every_other_byte_is_refused() {
        let bytes = HEADER.to_bytes();
        for at in 0..bytes.len() {
            for value in (0..=u8::MAX).filter(|value| *value != bytes[at]) {
                let mut mutated = bytes;
                mutated[at] = value;
                assert!(BlockHeader::from_bytes(&mutated).is_err(), "byte {at} = {value}");
            }
        }
    }

    #[test]
    fn checked_headers_still_cannot_lie_about_lengths() {
        let refused = |change: fn(&mut BlockHeader)| {
            let mut header = HEADER;
            change(&mut header);
            BlockHeader::from_bytes(&header.to_bytes()).is_err()
        };
        assert!(refused(|header| header.plain_length = BLOCK_PLAIN_MAX + 1));
        assert!(refused(|header| header.plain_length = u32::MAX));
        assert!(refused(|header| header.coded_length = header.plain_length));
        assert!(refused(|header| header.coded_length = 0));
        assert!(refused(|header| header.level = 0));
        assert!(refused(|header| header.level = 23));
        assert!(refused(|header| header.codec = BlockCodec::Lz4));
        assert!(refused(|header| (header.codec, header.level) = (BlockCodec::Raw, 0)));
        assert!(refused(|header| header.codec = BlockCodec::Delta));
        assert!(refused(|header| header.names = Names::Baseline));
        let delta = |header: &mut BlockHeader| {
            (header.codec, header.names) = (BlockCodec::Delta, Names::Baseline);
        };
        let same = |header: &mut BlockHeader| {
            (header.codec, header.names, header.level) = (BlockCodec::Same, Names::Baseline, 0);
        };
        let changed = |change: &dyn Fn(&mut BlockHeader)| {
            let mut header = HEADER;
            change(&mut header);
            BlockHeader::from_bytes(&header.to_bytes()).is_err()
        };
        assert!(!changed(&delta));
        assert!(changed(&same), "an offset has eight bytes");
        assert!(changed(&|header| {
            delta(header);
            header.names = Names::Dictionary;
        }));
        assert!(!changed(&|header| header.names = Names::Dictionary));
        assert!(refused(|header| (header.plain_length, header.coded_length) = (0, 0)));
    }

    #[test]
    fn a_flag_of_a_later_version_is_refused() {
        let mut bytes = HEADER.to_bytes();
        bytes[2] = 4;
        let crc = checksum(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
        let unknown = CodecError::Unknown { field: "block flags", value: 4 };
        assert_eq!(BlockHeader::from_bytes(&bytes), Err(unknown));
    }
}
