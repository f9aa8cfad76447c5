//! How a job treats a tree: a bit for each option. The same word travels in orders to the dataplane, in a peer's
//! [`super::JobOpen`] and [`super::FetchRequest`], and lies in control's store. New options are appended.
use crate::codec::{CodecError, Encoded, Reader, Writer};

/// A set of options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeOptions(u32);

impl TreeOptions {
    /// Everything is sent, and nothing else happens.
    pub const NONE: Self = Self(0);
    /// The receiver keeps files whose size and time are equal already.
    pub const SKIP_UNCHANGED: Self = Self(1);
    /// What the source does not have is deleted inside the directories that were sent.
    pub const DELETE: Self = Self(2);

    /// Nothing is written, deleted or sent; what would be is counted and named.
    pub const DRY_RUN: Self = Self(4);
    /// The receiver keeps files whose content is equal already, whatever their time is.
    pub const CHECKSUM: Self = Self(8);
    /// Files with several names have them at the receiver, too.
    pub const HARD_LINKS: Self = Self(16);
    /// Extended attributes of users.
    pub const XATTRS: Self = Self(32);
    /// Access control lists.
    pub const ACLS: Self = Self(64);
    /// Owners, and the bits that let a program run as its owner.
    pub const OWNER: Self = Self(128);
    /// Groups.
    pub const GROUP: Self = Self(256);
    /// Owners and groups by number, whatever they are called.
    pub const NUMERIC_IDS: Self = Self(512);
    /// Devices.
    pub const DEVICES: Self = Self(1024);
    /// Named pipes and sockets.
    pub const SPECIALS: Self = Self(2048);

    /// Every bit that has a meaning.
    const KNOWN: u32 = 4095;

    /// Whether all of `options` are set.
    #[must_use]
    pub const fn has(self, options: Self) -> bool {
        self.0 & options.0 == options.0
    }

    /// These options, and those of `options` where `wanted`.
    #[must_use]
    pub const fn with(self, options: Self, wanted: bool) -> Self {
        if wanted { Self(self.0 | options.0) } else { self }
    }

    /// The bits, for a store.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From a store or a message.
    ///
    /// # Errors
    /// [`CodecError::Unknown`] where a bit has no meaning: what it would ask for must not be ignored.
    pub const fn from_bits(bits: u32) -> Result<Self, CodecError> {
        if bits & !Self::KNOWN == 0 {
            Ok(Self(bits))
        } else {
            Err(CodecError::Unknown { field: "option of a tree", value: bits as u64 })
        }
    }
}

impl<'a> Encoded<'a> for TreeOptions {
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        Self::from_bits(reader.u32()?)
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u32(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_without_a_meaning_are_refused() {
        let options = TreeOptions::NONE.with(TreeOptions::SKIP_UNCHANGED, true);
        assert!(options.has(TreeOptions::SKIP_UNCHANGED) && options.has(TreeOptions::NONE));
        assert!(!TreeOptions::NONE.with(TreeOptions::SKIP_UNCHANGED, false).has(TreeOptions::SKIP_UNCHANGED));
        let mut bytes = [0; 4];
        options.encode(&mut bytes).unwrap();
        assert_eq!(TreeOptions::decode(&bytes), Ok(options));
        assert!(TreeOptions::decode(&[0, 0, 0, 0x80]).is_err());
    }
}
