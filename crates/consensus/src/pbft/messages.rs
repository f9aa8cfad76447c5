//! What PBFT replicas say to each other and keep, with its bounds.
use alloc::vec::Vec;

use crate::batch::BatchRef;
use crate::crypto::{Certificate, Signature};
use crate::io::Stable;
use crate::types::{Digest, ReplicaId, domain};
use crate::wire::{Wire, wire_enum, wire_struct};

wire_enum! {
    /// Everything that PBFT says.
    #[derive(Debug, Clone)]
    pub(crate) enum Message {
        0 => Propose(Propose),
        1 => Prepare(Vote),
        2 => Commit(Vote),
        3 => Decided(Decided),
        4 => ViewChange(ViewChange),
        5 => NewView(NewView),
        6 => FetchBlock(BlockWish),
        7 => FetchedBlock(FetchedBlock),
    }
}

wire_struct! {
    /// Batches that are ordered together. None at all is the block of a slot that a change of view left empty.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub(crate) struct Block list 64 {
        pub(crate) batches: Vec<BatchRef>,
    }
}

impl Block {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(domain::BLOCK, &self.encoded())
    }
}

wire_struct! {
    /// The leader's block for a slot. The signature is the leader's vote to prepare it.
    #[derive(Debug, Clone)]
    pub(crate) struct Propose {
        pub(crate) view: u64,
        pub(crate) slot: u64,
        pub(crate) block: Block,
        pub(crate) signature: Signature,
    }
}

wire_struct! {
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Vote {
        pub(crate) view: u64,
        pub(crate) slot: u64,
        pub(crate) digest: Digest,
        pub(crate) signature: Signature,
    }
}

wire_struct! {
    /// A block and the proof that it is its slot's for good.
    #[derive(Debug, Clone)]
    pub(crate) struct Decided {
        pub(crate) slot: u64,
        pub(crate) view: u64,
        pub(crate) block: Block,
        /// A quorum's votes to commit.
        pub(crate) certificate: Certificate,
    }
}

wire_struct! {
    /// Proof that a quorum prepared a digest for a slot in a view.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Prepared list 1024 {
        pub(crate) slot: u64,
        pub(crate) view: u64,
        pub(crate) digest: Digest,
        pub(crate) certificate: Certificate,
    }
}

wire_struct! {
    /// Gives a view up, and says what may have been decided in it and before.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct ViewChange list 128 {
        pub(crate) sender: ReplicaId,
        /// The view to change to.
        pub(crate) view: u64,
        pub(crate) stable: Option<Stable>,
        /// One for each slot above the stable checkpoint that was prepared, of the highest view, by slot.
        pub(crate) prepared: Vec<Prepared>,
        pub(crate) signature: Signature,
    }
}

impl ViewChange {
    pub(crate) fn stable_position(&self) -> u64 {
        self.stable.as_ref().map_or(0, |stable| stable.position)
    }

    /// Of all that is signed.
    pub(crate) fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        self.sender.write(&mut bytes);
        self.stable.write(&mut bytes);
        self.prepared.write(&mut bytes);
        Digest::of(domain::NEW_VIEW, &bytes)
    }
}

wire_struct! {
    /// The leader's proof that a quorum gave the former views up. What it proposes follows from it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct NewView {
        pub(crate) view: u64,
        pub(crate) changes: Vec<ViewChange>,
        pub(crate) signature: Signature,
    }
}

impl NewView {
    pub(crate) fn digest(changes: &[ViewChange]) -> Digest {
        let mut bytes = Vec::new();
        for change in changes {
            change.digest().write(&mut bytes);
            change.signature.write(&mut bytes);
        }
        Digest::of(domain::NEW_VIEW, &bytes)
    }
}

wire_struct! {
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct BlockWish {
        pub(crate) slot: u64,
        pub(crate) digest: Digest,
    }
}

wire_struct! {
    #[derive(Debug, Clone)]
    pub(crate) struct FetchedBlock {
        pub(crate) slot: u64,
        pub(crate) block: Block,
    }
}

wire_struct! {
    /// Kept: the view, and whether it was entered.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct ViewRecord {
        pub(crate) view: u64,
        pub(crate) active: bool,
    }
}
