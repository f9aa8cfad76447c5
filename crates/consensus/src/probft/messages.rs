//! What ProBFT replicas say beside PBFT's own messages, and what they keep.
use alloc::vec::Vec;

use super::sampled::SampledVote;
use crate::crypto::{RandomProof, Signature};
use crate::pbft::messages::{Block, Message as PbftMessage};
use crate::types::{Digest, ReplicaId, domain};
use crate::wire::{Reader, Wire, WireError, wire_enum, wire_struct};

/// Everything that ProBFT says.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// The order that stands for certain is PBFT's.
    Pbft(PbftMessage),
    Own(OwnMessage),
}

wire_enum! {
    #[derive(Debug, Clone)]
    pub(crate) enum OwnMessage {
        16 => Announce(Announce),
        17 => Prepare(PieceVote),
        18 => Commit(PieceVote),
        19 => Report(Report),
        20 => Resume(Resume),
        21 => Equivocation(Equivocation),
    }
}

/// Tags from here on are ProBFT's own.
const OWN_TAGS: u8 = 16;

impl Wire for Message {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Pbft(message) => message.write(out),
            Self::Own(message) => message.write(out),
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match input.peek() {
            Some(tag) if tag >= OWN_TAGS => Ok(Self::Own(Wire::read(input)?)),
            _ => Ok(Self::Pbft(Wire::read(input)?)),
        }
    }
}

wire_struct! {
    /// Where a piece stands: the slot of PBFT's that will make it certain, and its place among that slot's pieces.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Place {
        pub(crate) range: u64,
        pub(crate) index: u16,
    }
}

/// Pieces of a range.
pub(crate) const PIECES_MAX: u16 = 16;

impl Place {
    /// One number for both.
    pub(crate) fn number(self) -> u64 {
        self.range.saturating_mul(u64::from(PIECES_MAX)).saturating_add(u64::from(self.index))
    }
}

wire_struct! {
    /// The leader's next piece.
    #[derive(Debug, Clone)]
    pub(crate) struct Announce {
        pub(crate) view: u64,
        pub(crate) place: Place,
        pub(crate) block: Block,
        pub(crate) signature: Signature,
    }
}

wire_struct! {
    /// A vote to one member of a sample.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct PieceVote {
        pub(crate) view: u64,
        pub(crate) place: Place,
        pub(crate) digest: Digest,
        /// The leader's for this digest: two different ones show a leader that lies.
        pub(crate) leader: Signature,
        pub(crate) proof: RandomProof,
        pub(crate) signature: Signature,
    }
}

wire_struct! {
    /// The claim that a piece was prepared.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Claim list 64 {
        pub(crate) place: Place,
        pub(crate) view: u64,
        pub(crate) digest: Digest,
    }
}

wire_struct! {
    /// Its proof: votes that were drawn to reach whoever claims it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Proven list 64 {
        pub(crate) claim: Claim,
        pub(crate) owner: ReplicaId,
        pub(crate) votes: Vec<SampledVote>,
    }
}

wire_struct! {
    /// All claims of a replica at the change to a view.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Claims list 128 {
        pub(crate) sender: ReplicaId,
        pub(crate) claims: Vec<Claim>,
        pub(crate) signature: Signature,
    }
}

impl Claims {
    pub(crate) fn digest(sender: ReplicaId, claims: &[Claim]) -> Digest {
        let mut bytes = sender.encoded();
        claims.iter().for_each(|claim| claim.write(&mut bytes));
        Digest::of(domain::NEW_VIEW, &bytes)
    }
}

wire_struct! {
    /// To the leader of a view: claims, their proofs and the pieces themselves.
    #[derive(Debug, Clone)]
    pub(crate) struct Report {
        pub(crate) view: u64,
        pub(crate) claims: Claims,
        pub(crate) proven: Vec<Proven>,
        pub(crate) blocks: Vec<Block>,
    }
}

wire_struct! {
    /// What the pieces of a view begin with: a quorum's claims, and proofs of those that count.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Resume {
        pub(crate) view: u64,
        pub(crate) claims: Vec<Claims>,
        pub(crate) proven: Vec<Proven>,
        pub(crate) signature: Signature,
    }
}

impl Resume {
    pub(crate) fn digest(claims: &[Claims], proven: &[Proven]) -> Digest {
        let mut bytes = claims.to_vec().encoded();
        proven.iter().for_each(|proven| proven.write(&mut bytes));
        Digest::of(domain::NEW_VIEW, &bytes)
    }
}

wire_struct! {
    /// Two pieces that a leader signed for one place.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Equivocation {
        pub(crate) view: u64,
        pub(crate) place: Place,
        pub(crate) first: (Digest, Signature),
        pub(crate) second: (Digest, Signature),
    }
}

wire_struct! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Accepted {
        pub(crate) view: u64,
        pub(crate) digest: Digest,
        /// The leader's.
        pub(crate) signature: Signature,
    }
}

wire_struct! {
    /// What is kept of a piece. On disk before a vote for it leaves.
    #[derive(Debug, Clone)]
    pub(crate) struct PieceRecord {
        pub(crate) place: Place,
        pub(crate) accepted: Option<Accepted>,
        pub(crate) block: Option<Block>,
        pub(crate) prepared: Option<Proven>,
        pub(crate) prepared_block: Option<Block>,
    }
}
