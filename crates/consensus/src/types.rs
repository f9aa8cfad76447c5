//! Names of replicas and digests, and who forms a quorum. Used by everything here; decides nothing.
use alloc::vec::Vec;
use core::fmt;

use crate::wire::{Reader, Wire, WireError, wire_struct};

/// A point in time: nanoseconds since the driver's own start. Never compared between replicas.
pub type Time = u64;

/// A replica's number within its epoch, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u16);

/// Most replicas of an epoch.
pub const REPLICAS_MAX: usize = 128;

impl Wire for ReplicaId {
    const LIST_MAX: usize = REPLICAS_MAX;

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = u16::read(input)?;
        if usize::from(id) < REPLICAS_MAX { Ok(Self(id)) } else { Err(WireError::Invalid) }
    }
}

/// BLAKE3-256 of something, with a tag for what it is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of bytes in a domain: the same bytes in two roles never have the same digest.
    #[must_use]
    pub fn of(domain: u8, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[domain]);
        hasher.update(bytes);
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(formatter, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl Wire for Digest {
    const LIST_MAX: usize = 256;

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(Wire::read(input)?))
    }
}

/// What a digest is of.
pub(crate) mod domain {
    pub(crate) const BATCH: u8 = 1;
    pub(crate) const BLOCK: u8 = 2;
    pub(crate) const CHAIN: u8 = 3;
    pub(crate) const SNAPSHOT: u8 = 4;
    pub(crate) const CONTEXT: u8 = 5;
    pub(crate) const HEADER: u8 = 6;
    pub(crate) const NEW_VIEW: u8 = 7;
    pub(crate) const PLAN: u8 = 8;
    pub(crate) const LOTS: u8 = 9;
    pub(crate) const BOUNDARY: u8 = 10;
    pub(crate) const SAMPLE: u8 = 11;
}

/// The replicas whose votes count, and how many of them are enough.
///
/// With `c` members of which at most `f = (c - 1) / 3` are faulty in any way, two quorums of
/// `ceil((c + f + 1) / 2)` share a correct member (Castro and Liskov, OSDI 1999, for `c = 3f + 1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committee {
    members: Vec<ReplicaId>,
    /// How many may do anything at all. Others may stop.
    liars_max: usize,
}

impl Committee {
    /// A committee of these members, in the order in which they lead. `None` where there are none, too many, or one twice.
    #[must_use]
    pub fn new(members: Vec<ReplicaId>) -> Option<Self> {
        let mut sorted = members.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let sound = !members.is_empty() && members.len() <= REPLICAS_MAX && sorted.len() == members.len();
        let liars_max = members.len().saturating_sub(1) / 3;
        sound.then_some(Self { members, liars_max })
    }

    /// The same members, none of whom is assumed to lie: a majority is a quorum, and one member's word is enough.
    #[must_use]
    pub fn that_never_lies(self) -> Self {
        Self { liars_max: 0, ..self }
    }

    /// All of replicas 0 to `count`, exclusive.
    #[must_use]
    pub fn of_all(count: u16) -> Option<Self> {
        Self::new((0..count).map(ReplicaId).collect())
    }

    /// Its members, in the order in which they lead.
    #[must_use]
    pub fn members(&self) -> &[ReplicaId] {
        &self.members
    }

    /// Whether a replica's votes count.
    #[must_use]
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.members.contains(&replica)
    }

    /// How many members may be faulty.
    #[must_use]
    pub fn faulty_max(&self) -> usize {
        self.liars_max
    }

    /// How many votes make a quorum.
    #[must_use]
    pub fn quorum(&self) -> usize {
        (self.members.len() + self.faulty_max() + 2) / 2
    }

    /// So many votes that one of them is a correct member's.
    #[must_use]
    pub fn one_correct(&self) -> usize {
        self.faulty_max() + 1
    }

    /// Who leads the view or the wave of a number.
    #[must_use]
    pub fn leader(&self, number: u64) -> ReplicaId {
        self.members[(number % self.members.len() as u64) as usize]
    }
}

wire_struct! {
    /// A transaction's name: which client's, and which of its own. What makes it apply once.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct TransactionId {
        /// The client, as it was admitted by the driver.
        pub client: u64,
        /// The client's own count, from 1.
        pub sequence: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_intersect_in_a_correct_member() {
        for count in 1..=100_u16 {
            let committee = Committee::of_all(count).expect("sound");
            let (n, f, quorum) = (usize::from(count), committee.faulty_max(), committee.quorum());
            assert!(2 * quorum > n + f, "{n}: two quorums share more than the faulty");
            assert!(quorum <= n - f, "{n}: the correct alone are a quorum");
        }
        assert_eq!(Committee::of_all(10).expect("sound").quorum(), 7);
    }

    #[test]
    fn a_majority_is_enough_where_nobody_lies() {
        let quorum = |count| Committee::of_all(count).expect("sound").that_never_lies().quorum();
        assert_eq!([1, 2, 3, 4, 5, 7].map(quorum), [1, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn nobody_sits_twice() {
        assert!(Committee::new(alloc::vec![ReplicaId(1), ReplicaId(1)]).is_none());
        assert!(Committee::new(Vec::new()).is_none());
    }
}
