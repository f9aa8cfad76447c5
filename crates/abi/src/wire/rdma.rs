//! Lanes over RDMA: what each end says of its queue pair, and what the 32 bits mean that arrive with a write.
//!
//! Each end has a ring of slots in registered memory. The other end writes the lane's bytes into them, one slot after
//! the other from 0 on and round again, at most one slot a write; whoever has taken the bytes out gives slots back.
//!
//! ```text
//! bit 31    30 … 24      23 … 0
//!     0  │   slot    │   bytes     │  Data: so many bytes are in this slot
//!     1  │  slots taken out, of all  │  Returned: a running total, modulo 2^31, with a write of no bytes
//! ```
use crate::codec::{CodecError, records};

records! {
    /// One end's queue pair, said once by either end inside TLS when both have greeted with
    /// [`super::hello::FEATURE_RDMA`]. [`PairEnd::check`] before use.
    pub struct PairEnd {
        /// Number of the queue pair, 24 bits.
        pub queue_pair: u32,
        /// Number of its first packet, 24 bits, random.
        pub packet_sequence: u32,
        /// Address of its port.
        pub gid: [u8; 16],
        /// Local identifier of its port; 0 on Ethernet.
        pub lid: u16,
        /// Largest packet that the port carries, in bytes.
        pub mtu: u16,
        /// Where its slots begin.
        pub memory_address: u64,
        /// Key of that memory.
        pub memory_key: u32,
        /// How many slots it has: a power of two, so that their numbers go round evenly with the running totals.
        pub slots: u16,
        /// Size of each in bytes.
        pub slot_bytes: u32,
    }

    /// There will be no queue pair: TCP carries the lane.
    pub struct Unpaired<'a> {
        /// Why, for a person. UTF-8, at most [`UNPAIRED_TEXT_MAX`] bytes.
        pub text: &'a [u8],
    }
}

/// Most slots of an end: their number has seven bits.
pub const SLOTS_MAX: u16 = 128;
/// Fewest: one being filled, one being emptied.
pub const SLOTS_MIN: u16 = 2;
/// Largest slot in bytes.
pub const SLOT_BYTES_MAX: u32 = 1 << 20;
/// Smallest slot in bytes.
pub const SLOT_BYTES_MIN: u32 = 4096;
/// Longest text of an [`Unpaired`] that is sent.
pub const UNPAIRED_TEXT_MAX: usize = 512;
/// Packet sizes that a port may have, in bytes (InfiniBand Architecture Specification 1.4, 9.3.1).
pub const MTUS: [u16; 5] = [256, 512, 1024, 2048, 4096];

const NUMBER_24_MAX: u32 = (1 << 24) - 1;
const RETURNED: u32 = 1 << 31;

impl PairEnd {
    /// Looks whether the numbers are possible.
    ///
    /// # Errors
    /// [`CodecError`], naming the first field that is not.
    pub fn check(&self) -> Result<(), CodecError> {
        within("queue pair", self.queue_pair.into(), 1, NUMBER_24_MAX.into())?;
        within("packet sequence", self.packet_sequence.into(), 0, NUMBER_24_MAX.into())?;
        if !MTUS.contains(&self.mtu) {
            return Err(CodecError::Unknown { field: "mtu", value: self.mtu.into() });
        }
        within("slots", self.slots.into(), SLOTS_MIN.into(), SLOTS_MAX.into())?;
        if !self.slots.is_power_of_two() {
            return Err(CodecError::Unknown { field: "slots", value: self.slots.into() });
        }
        within("slot size", self.slot_bytes.into(), SLOT_BYTES_MIN.into(), SLOT_BYTES_MAX.into())?;
        let bytes = u64::from(self.slots) * u64::from(self.slot_bytes);
        within("memory address", self.memory_address, 1, u64::MAX - bytes)
    }
}

fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), CodecError> {
    if value < min {
        return Err(CodecError::Unknown { field, value });
    }
    if value > max {
        return Err(CodecError::TooLarge { field, value, max });
    }
    Ok(())
}

/// What a write says. Any 32 bits mean something; whether it is possible is for the receiver to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Immediate {
    /// Bytes are in a slot.
    Data {
        /// Which, below 128.
        slot: u16,
        /// How many, below 2^24.
        length: u32,
    },
    /// Slots are free again.
    Returned {
        /// How many were ever taken out, modulo 2^31.
        total: u32,
    },
}

impl Immediate {
    /// As it travels.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        match self {
            Self::Data { slot, length } => (slot as u32 & 0x7f) << 24 | length & NUMBER_24_MAX,
            Self::Returned { total } => RETURNED | total,
        }
    }

    /// As it arrived.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        if bits & RETURNED != 0 {
            return Self::Returned { total: bits & !RETURNED };
        }
        Self::Data { slot: (bits >> 24) as u16, length: bits & NUMBER_24_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoded;

    const END: PairEnd = PairEnd {
        queue_pair: 17,
        packet_sequence: 0x00ab_cdef,
        gid: [0xfe; 16],
        lid: 3,
        mtu: 1024,
        memory_address: 0x7f00_1122_3344_5000,
        memory_key: 0xdead_beef,
        slots: 32,
        slot_bytes: 65536,
    };

    #[test]
    fn the_layout_of_an_end_is_pinned() {
        let mut bytes = [0; 64];
        let length = END.encode(&mut bytes).unwrap();
        let golden = [
            &[17, 0, 0, 0, 0xef, 0xcd, 0xab, 0][..],
            &[0xfe; 16],
            &[3, 0, 0, 4, 0, 0x50, 0x44, 0x33, 0x22, 0x11, 0, 0x7f],
            &[0xef, 0xbe, 0xad, 0xde, 32, 0, 0, 0, 1, 0],
        ]
        .concat();
        assert_eq!(bytes[..length], golden);
        assert_eq!(PairEnd::decode(&golden), Ok(END));
    }

    #[test]
    fn impossible_ends_are_refused_by_name() {
        assert_eq!(END.check(), Ok(()));
        let wrong = [
            PairEnd { queue_pair: 0, ..END },
            PairEnd { queue_pair: 1 << 24, ..END },
            PairEnd { packet_sequence: 1 << 24, ..END },
            PairEnd { mtu: 1500, ..END },
            PairEnd { slots: 1, ..END },
            PairEnd { slots: 256, ..END },
            PairEnd { slots: 33, ..END },
            PairEnd { slot_bytes: 0, ..END },
            PairEnd { slot_bytes: (1 << 20) + 1, ..END },
            PairEnd { memory_address: 0, ..END },
            PairEnd { memory_address: u64::MAX - 5, ..END },
        ];
        for end in wrong {
            assert!(end.check().is_err(), "{end:?}");
        }
    }

    #[test]
    fn immediate_values_come_back() {
        for immediate in [
            Immediate::Data { slot: 0, length: 1 },
            Immediate::Data { slot: 127, length: NUMBER_24_MAX },
            Immediate::Returned { total: 0 },
            Immediate::Returned { total: u32::MAX >> 1 },
        ] {
            assert_eq!(Immediate::from_bits(immediate.to_bits()), immediate);
        }
        assert_eq!(Immediate::Data { slot: 1, length: 2 }.to_bits(), 0x0100_0002);
        assert_eq!(Immediate::Returned { total: 3 }.to_bits(), 0x8000_0003);
    }
}
