//! What Raft replicas say to each other and keep, with its bounds.
use alloc::vec::Vec;

use crate::pbft::messages::Block;
use crate::types::ReplicaId;
use crate::wire::{wire_enum, wire_struct};

wire_enum! {
    /// Everything that Raft says.
    #[derive(Debug, Clone)]
    pub(crate) enum Message {
        0 => Append(Append),
        1 => Appended(Appended),
        2 => AskVote(AskVote),
        3 => Voted(Voted),
    }
}

impl Message {
    pub(crate) fn term(&self) -> u64 {
        match self {
            Self::Append(append) => append.term,
            Self::Appended(answer) => answer.term,
            Self::AskVote(ask) => ask.term,
            Self::Voted(voted) => voted.term,
        }
    }
}

wire_struct! {
    /// A block in the log, and the term of the leader that put it there.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Entry list 64 {
        pub(crate) term: u64,
        pub(crate) block: Block,
    }
}

wire_struct! {
    /// The leader's: entries after one that both must have, or none, to say that it lives.
    #[derive(Debug, Clone)]
    pub(crate) struct Append {
        pub(crate) term: u64,
        pub(crate) previous: u64,
        pub(crate) previous_term: u64,
        pub(crate) entries: Vec<Entry>,
        /// The highest slot that is committed.
        pub(crate) commit: u64,
    }
}

wire_struct! {
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Appended {
        pub(crate) term: u64,
        pub(crate) matches: bool,
        /// Whether the sender may be counted on: not after it has lost its records.
        pub(crate) counts: bool,
        /// Where the logs match up to here; else where the leader should try.
        pub(crate) slot: u64,
    }
}

wire_struct! {
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct AskVote {
        pub(crate) term: u64,
        /// Only asks whether it would be voted for: nobody's term changes.
        pub(crate) only_asks: bool,
        pub(crate) last: u64,
        pub(crate) last_term: u64,
    }
}

wire_struct! {
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Voted {
        /// The term that was asked about where the answer is yes, else the voter's own.
        pub(crate) term: u64,
        pub(crate) only_asked: bool,
        pub(crate) granted: bool,
    }
}

wire_struct! {
    /// Kept: the term, and who was voted for in it. On disk before a vote leaves.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct TermRecord {
        pub(crate) term: u64,
        pub(crate) voted: Option<ReplicaId>,
    }
}
