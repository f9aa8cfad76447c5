//! What Bullshark replicas say to each other and keep, with its bounds.
use alloc::vec::Vec;

use crate::batch::BatchRef;
use crate::crypto::{Certificate, Signature};
use crate::types::{Digest, ReplicaId, domain};
use crate::wire::{Reader, Wire, WireError, wire_enum, wire_struct};

wire_enum! {
    /// Everything that Bullshark says.
    #[derive(Debug, Clone)]
    pub(crate) enum Message {
        0 => Propose(Propose),
        1 => Vote(Vote),
        2 => Vertex(Vertex),
        3 => Fetch(Wish),
    }
}

wire_struct! {
    /// What an author puts into a round.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Header {
        pub(crate) author: ReplicaId,
        pub(crate) round: u64,
        pub(crate) batches: Vec<BatchRef>,
        /// Authors of the round before whose vertices it follows. With one certified vertex per author and round, the
        /// bit names the vertex.
        pub(crate) parents: Authors,
    }
}

impl Header {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(domain::HEADER, &self.encoded())
    }
}

/// A set of authors, a bit for each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Authors(pub(crate) u128);

impl Authors {
    pub(crate) fn contains(self, author: ReplicaId) -> bool {
        self.0 & (1 << author.0) != 0
    }

    pub(crate) fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = ReplicaId> {
        (0..128).filter(move |bit| self.0 & (1 << bit) != 0).map(ReplicaId)
    }
}

impl Wire for Authors {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.to_le_bytes().write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(u128::from_le_bytes(Wire::read(input)?)))
    }
}

wire_struct! {
    /// A header on its way to votes. The signature is its author's own vote.
    #[derive(Debug, Clone)]
    pub(crate) struct Propose {
        pub(crate) header: Header,
        pub(crate) signature: Signature,
    }
}

wire_struct! {
    /// A vote for a header, to its author.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Vote {
        pub(crate) round: u64,
        pub(crate) digest: Digest,
        pub(crate) signature: Signature,
    }
}

wire_struct! {
    /// A header that a quorum voted for.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Vertex {
        pub(crate) header: Header,
        pub(crate) certificate: Certificate,
    }
}

impl Vertex {
    pub(crate) fn place(&self) -> (u64, ReplicaId) {
        (self.header.round, self.header.author)
    }
}

wire_struct! {
    /// Asks for vertices of a round, and for all of the rounds between `complete` and it.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Wish {
        pub(crate) round: u64,
        pub(crate) authors: Authors,
        /// The highest round that the asking replica has a quorum of.
        pub(crate) complete: u64,
    }
}

wire_struct! {
    /// Kept: the last vote for an author.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct VoteRecord {
        pub(crate) round: u64,
        pub(crate) digest: Digest,
    }
}

wire_struct! {
    /// Bullshark's part of a snapshot: what is ordered of the rounds that later leaders still reach.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct OrderState {
        pub(crate) committed: u64,
        pub(crate) ordered: Vec<OrderedRound>,
    }
}

wire_struct! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct OrderedRound list 4096 {
        pub(crate) round: u64,
        pub(crate) authors: u128,
    }
}

impl Wire for u128 {
    fn write(&self, out: &mut Vec<u8>) {
        self.to_le_bytes().write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self::from_le_bytes(Wire::read(input)?))
    }
}
