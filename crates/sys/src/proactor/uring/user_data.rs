//! What the ring carries through the kernel for us: which operation or doorbell a completion belongs to.

use crate::proactor::operations::{GENERATION_MASK, Key};

/// ```text
/// 63    60 59          32 31        0
/// +-------+--------------+----------+
/// | kind  | generation   | index    |
/// +-------+--------------+----------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserData {
    /// An operation of the ledger.
    Operation(Key),
    /// The poll of the doorbell in this place.
    Doorbell(u32),
    /// A cancellation: what it did shows in the completion of its target.
    Ignored,
}

impl UserData {
    pub(super) fn encode(self) -> u64 {
        match self {
            UserData::Operation(Key { index, generation }) => {
                u64::from(generation & GENERATION_MASK) << 32 | u64::from(index)
            }
            UserData::Doorbell(place) => KIND_DOORBELL << 60 | u64::from(place),
            UserData::Ignored => KIND_IGNORED << 60,
        }
    }

    pub(super) fn decode(bits: u64) -> UserData {
        let index = bits as u32;
        match bits >> 60 {
            KIND_OPERATION => {
                UserData::Operation(Key { index, generation: (bits >> 32) as u32 & GENERATION_MASK })
            }
            KIND_DOORBELL => UserData::Doorbell(index),
            _ => UserData::Ignored,
        }
    }
}

const KIND_OPERATION: u64 = 0;
const KIND_DOORBELL: u64 = 1;
const KIND_IGNORED: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let key = Key { index: u32::MAX, generation: GENERATION_MASK };
        for data in [UserData::Operation(key), UserData::Doorbell(63), UserData::Ignored] {
            assert_eq!(UserData::decode(data.encode()), data);
        }
    }
}
