//! The guard of the peer port: what it is told and what it counts. It looks at TCP to one port only; whatever a known
//! address sends passes, and of all others so many packets a second.

/// What the guard is told: the one entry of [`GUARD_MAP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct GuardRules {
    /// The port that is guarded; 0 = none.
    pub port: u64,
    /// Packets per second from one unknown address.
    pub source_per_s: u64,
    /// Packets per second from all unknown addresses together, per core.
    pub total_per_s: u64,
    /// Known addresses in [`MORE_KNOWN_MAP`]; 0 = it is not looked into.
    pub more_known: u64,
}

/// [`GuardRules`] as they lie in the map.
pub type GuardRulesWords = [u64; 4];

const _: () = assert!(size_of::<GuardRules>() == size_of::<GuardRulesWords>());

impl GuardRules {
    /// As they lie in the map.
    #[must_use]
    pub const fn words(&self) -> GuardRulesWords {
        [self.port, self.source_per_s, self.total_per_s, self.more_known]
    }
}

/// A bucket of tokens, one per packet, that fills with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Bucket {
    /// When it was last filled, in nanoseconds of the monotonic clock.
    pub filled_ns: u64,
    /// Tokens in it, in thousandths.
    pub thousandths: u64,
}

/// A [`Bucket`] as it lies in the map.
pub type BucketWords = [u64; 2];

/// What the guard decided, by index in [`GUARD_COUNTS_MAP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Guarded {
    /// From a known address: passed.
    Known = 0,
    /// From an unknown one, within the rates: passed.
    Stranger = 1,
    /// Above the rate of one address: dropped.
    SourceRate = 2,
    /// Above the rate of all unknown addresses: dropped.
    TotalRate = 3,
}

impl Guarded {
    /// Every one, in the order of its number.
    pub const ALL: [Self; 4] = [Self::Known, Self::Stranger, Self::SourceRate, Self::TotalRate];
    /// Number of them.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Known => "passed, known",
            Self::Stranger => "passed, unknown",
            Self::SourceRate => "dropped, rate of one source",
            Self::TotalRate => "dropped, rate of all unknown",
        }
    }
}

/// The guard's program.
pub const GUARD_PROGRAM: &str = "dwcp_guard";
/// Array of one [`GuardRules`].
pub const GUARD_MAP: &str = "DWCP_GUARD";
/// Per-CPU array of `u64`, by [`Guarded`].
pub const GUARD_COUNTS_MAP: &str = "DWCP_GUARDED";
/// Array of addresses (as in [`FlowKey`](super::FlowKey)) that are never held back, each in one of its two
/// [`known_slots`]; zero = none. An array and no hash, which would cost as much as reading the packet.
pub const KNOWN_MAP: &str = "DWCP_KNOWN";
/// Slots of [`KNOWN_MAP`].
pub const KNOWN_LENGTH: u32 = 8192;
/// Hash from address to 1: those whose two slots were taken.
pub const MORE_KNOWN_MAP: &str = "DWCP_MORE_KNOWN";
/// Most entries of [`MORE_KNOWN_MAP`].
pub const MORE_KNOWN_LENGTH_MAX: u32 = 4096;

/// Where an address may stand in [`KNOWN_MAP`]: two places that are independent of each other, from one product
/// (multiplicative hashing; the constant is 2⁶⁴ by the golden ratio).
#[inline(always)]
#[must_use]
pub const fn known_slots(address: &[u32; 4]) -> [u32; 2] {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let high = (address[0] as u64) << 32 | address[1] as u64;
    let low = (address[2] as u64) << 32 | address[3] as u64;
    let mixed = (high.wrapping_mul(FACTOR) ^ low).wrapping_mul(FACTOR);
    [(mixed >> 51) as u32 % KNOWN_LENGTH, (mixed >> 38) as u32 % KNOWN_LENGTH]
}

/// LRU hash from address to [`Bucket`].
pub const SOURCES_MAP: &str = "DWCP_SOURCES";
/// Most entries of [`SOURCES_MAP`].
pub const SOURCES_LENGTH_MAX: u32 = 16_384;
/// Per-CPU array of one [`Bucket`]: all unknown addresses together.
pub const TOTAL_MAP: &str = "DWCP_TOTAL";
