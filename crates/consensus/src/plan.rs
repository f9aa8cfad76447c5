//! What an epoch is made of: protocol, members, whose votes count. The same at all replicas of the epoch; its digest is
//! part of every signature. Made by whoever wants the next epoch to be another one, by rotation, or at the very start.
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ed25519::PublicKeys;
use crate::trust::Trust;
use crate::types::{Committee, Digest, REPLICAS_MAX, ReplicaId, domain};
use crate::wire::{Reader, Wire, WireError, wire_struct};

/// The protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtocolKind {
    /// Practical Byzantine Fault Tolerance.
    Pbft,
    /// Bullshark over a certified DAG.
    Bullshark,
    /// PBFT among a committee that trust chooses anew, epoch by epoch.
    TPbft,
    /// PBFT over what samples of the members have decided beforehand.
    ProBft,
    /// Raft, for members that stop and never lie.
    Raft,
}

impl ProtocolKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pbft, Self::Bullshark, Self::TPbft, Self::ProBft, Self::Raft];

    /// As configuration and metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pbft => "pbft",
            Self::Bullshark => "bullshark",
            Self::TPbft => "tpbft",
            Self::ProBft => "probft",
            Self::Raft => "raft",
        }
    }
}

impl Wire for ProtocolKind {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let tag = u8::read(input)?;
        Self::ALL.into_iter().find(|kind| *kind as u8 == tag).ok_or(WireError::Invalid)
    }
}

wire_struct! {
    /// The composition of one epoch.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Plan list 128 {
        /// Which epoch, from 0.
        pub epoch: u64,
        /// Who decides the order.
        pub protocol: ProtocolKind,
        /// Everybody, by number, rising.
        pub members: Vec<Member>,
        /// Whose votes count, in the order in which they lead.
        pub committee: Vec<ReplicaId>,
        /// How the committee changes by itself; only for [`ProtocolKind::TPbft`], and there always.
        pub rotation: Option<Rotation>,
    }
}

wire_struct! {
    /// One replica of the cluster, whether its votes count or not.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Member list 128 {
        /// Its number: its own while it is a member, somebody else's perhaps afterwards.
        pub replica: ReplicaId,
        /// Its public keys.
        pub keys: PublicKeys,
        /// What the driver must know to reach it. At most [`ABOUT_BYTES_MAX`] bytes.
        pub about: Arc<[u8]>,
    }
}

wire_struct! {
    /// How a committee changes by itself.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Rotation {
        /// Positions after which an epoch ends.
        pub positions: u64,
        /// Seats in the committee, where there are so many members.
        pub seats: u16,
    }
}

/// Longest [`Member::about`].
pub const ABOUT_BYTES_MAX: usize = 512;

impl Plan {
    /// An epoch in which everybody votes, or, with a rotation, a committee that lots choose: nobody is trusted more than
    /// others yet. `None` where the members make no sound plan.
    #[must_use]
    pub fn composed(
        epoch: u64,
        protocol: ProtocolKind,
        members: Vec<Member>,
        rotation: Option<Rotation>,
    ) -> Option<Self> {
        let committee = members.iter().map(|member| member.replica).collect();
        let rotation = rotation.filter(|_| protocol == ProtocolKind::TPbft);
        let mut plan = Self { epoch, protocol, members, committee, rotation };
        if !plan.is_sound() {
            return None;
        }
        if plan.rotation.is_some() {
            let lots = Digest::of(domain::LOTS, &plan.encoded());
            plan.committee = Trust::default().next_committee(&plan, &lots);
        }
        Some(plan)
    }

    /// Whether it describes an epoch that can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let rising = self.members.windows(2).all(|pair| pair[0].replica < pair[1].replica);
        let short = self.members.iter().all(|member| member.about.len() <= ABOUT_BYTES_MAX);
        let seated = self.committee.iter().all(|seat| self.contains(*seat));
        let rotation = self.rotation.is_none_or(|rotation| rotation.positions > 0 && rotation.seats > 0);
        rising
            && short
            && seated
            && rotation
            && self.rotation.is_some() == (self.protocol == ProtocolKind::TPbft)
            && self.members.len() <= REPLICAS_MAX
            && Committee::new(self.committee.clone()).is_some()
    }

    /// Whether a replica is a member.
    #[must_use]
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.members.binary_search_by_key(&replica, |member| member.replica).is_ok()
    }

    /// Who votes, and how many of them may be faulty under its protocol. `None` where nobody does or one twice.
    #[must_use]
    pub fn voters(&self) -> Option<Committee> {
        let committee = Committee::new(self.committee.clone())?;
        Some(if self.protocol == ProtocolKind::Raft { committee.that_never_lies() } else { committee })
    }

    /// One above the highest number.
    #[must_use]
    pub fn numbers(&self) -> u16 {
        self.members.last().map_or(0, |member| member.replica.0 + 1)
    }

    /// Of the plan and the state that its epoch begins with: what every signature of the epoch is bound to.
    #[must_use]
    pub fn binding(&self, origin: &Digest) -> Digest {
        let mut bytes = self.encoded();
        origin.write(&mut bytes);
        Digest::of(domain::PLAN, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let member =
            |number| Member { replica: ReplicaId(number), keys: ([1; 32], [2; 32]), about: [][..].into() };
        Plan::composed(0, ProtocolKind::Pbft, (0..4).map(member).collect(), None).expect("sound")
    }

    #[test]
    fn plans_that_cannot_be_are_refused() {
        let sound = plan();
        let spoil = |change: fn(&mut Plan)| {
            let mut plan = sound.clone();
            change(&mut plan);
            plan.is_sound()
        };
        assert!(spoil(|_| {}));
        assert!(!spoil(|plan| plan.members.swap(0, 1)));
        assert!(!spoil(|plan| plan.committee.push(ReplicaId(9))));
        assert!(!spoil(|plan| plan.committee.push(ReplicaId(0))));
        assert!(!spoil(|plan| plan.committee.clear()));
        assert!(!spoil(|plan| plan.protocol = ProtocolKind::TPbft));
        assert!(!spoil(|plan| plan.rotation = Some(Rotation { positions: 1, seats: 1 })));
        assert!(!spoil(|plan| plan.members[0].about = alloc::vec![0; ABOUT_BYTES_MAX + 1].into()));
    }

    #[test]
    fn a_plan_comes_back_from_its_bytes() {
        let plan = plan();
        assert_eq!(Plan::decoded(&plan.encoded()), Ok(plan));
    }
}
