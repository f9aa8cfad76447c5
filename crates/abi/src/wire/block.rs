//! The header of a compressed block: what `hde` writes before the coded bytes, and reads back.
//!
//! ```text
//!  0         1       2       3       4              8              12          16           20
//!  ┌─────────┬───────┬───────┬───────┬──────────────┬──────────────┬───────────┬────────────┐
//!  │ version │ codec │ flags │ level │ plain length │ coded length │ plain CRC │ header CRC │
//!  └─────────┴───────┴───────┴───────┴──────────────┴──────────────┴───────────┴────────────┘
//!  then `coded length` bytes. Integers are little-endian, CRCs are CRC-32C (RFC 3720 B.4).
//! ```
//! A block carries its own checksum of the plain bytes: a decoder that is fed the wrong bytes may succeed. A flag that
//! this version does not know is refused; dictionaries and baselines will be announced by flags.
use super::checksum;
use crate::codec::{CodecError, Encoded, Reader, codes};

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
    }
}

impl BlockCodec {
    /// Levels that the codec has; 0 where there is no choice.
    #[must_use]
    pub const fn levels(self) -> core::ops::RangeInclusive<u8> {
        match self {
            Self::Raw | Self::Lz4 | Self::Snappy => 0..=0,
            Self::Zstd => 1..=ZSTD_LEVEL_MAX,
        }
    }
}

/// Highest level of Zstandard.
pub const ZSTD_LEVEL_MAX: u8 = 22;

/// First byte of every block. The low half counts versions.
pub const BLOCK_VERSION: u8 = 0xb1;

/// Bytes of a [`BlockHeader`].
pub const BLOCK_HEADER_BYTES: usize = 20;

/// Most plain bytes of a block.
pub const BLOCK_PLAIN_MAX: u32 = 8 * 1024 * 1024;

/// A block's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// How the bytes are coded.
    pub codec: BlockCodec,
    /// With which of [`BlockCodec::levels`]; for figures, decoders need it not.
    pub level: u8,
    /// Bytes that it stands for.
    pub plain_length: u32,
    /// Bytes after the header: as many as plain ones where raw, fewer otherwise.
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
        if flags != 0 {
            return Err(CodecError::Unknown { field: "block flags", value: u64::from(flags) });
        }
        let header =
            Self { codec: BlockCodec::decode(&[codec])?, level, plain_length, coded_length, plain_crc };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), CodecError> {
        if !self.codec.levels().contains(&self.level) {
            return Err(CodecError::Unknown { field: "block level", value: u64::from(self.level) });
        }
        at_most("block plain length", self.plain_length, BLOCK_PLAIN_MAX)?;
        let coded = u64::from(self.coded_length);
        match self.codec {
            BlockCodec::Raw if self.coded_length == self.plain_length => Ok(()),
            BlockCodec::Raw => Err(CodecError::Unknown { field: "block coded length", value: coded }),
            BlockCodec::Lz4 | BlockCodec::Snappy | BlockCodec::Zstd if self.coded_length == 0 => {
                Err(CodecError::Unknown { field: "block coded length", value: coded })
            }
            BlockCodec::Lz4 | BlockCodec::Snappy | BlockCodec::Zstd => {
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

const _: () = assert!(size_of::<BlockHeader>() == BLOCK_HEADER_BYTES - 4);

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: BlockHeader = BlockHeader {
        codec: BlockCodec::Zstd,
        level: 3,
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
        assert_eq!(codes, [(0, 0), (1, 0), (2, 0), (3, 22)]);
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
        assert!(refused(|header| (header.plain_length, header.coded_length) = (0, 0)));
    }

    #[test]
    fn a_flag_of_a_later_version_is_refused() {
        let mut bytes = HEADER.to_bytes();
        bytes[2] = 1;
        let crc = checksum(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
        let unknown = CodecError::Unknown { field: "block flags", value: 1 };
        assert_eq!(BlockHeader::from_bytes(&bytes), Err(unknown));
    }
}
