//! The graph: certified vertices by round and author. Holds them and answers about them; decides nothing.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::messages::{Authors, Vertex};
use crate::types::ReplicaId;

#[derive(Debug, Default)]
pub(super) struct Dag {
    rounds: BTreeMap<u64, BTreeMap<ReplicaId, Vertex>>,
    /// The highest round with a quorum.
    complete: u64,
}

impl Dag {
    pub(super) fn insert(&mut self, vertex: Vertex) {
        let round = self.rounds.entry(vertex.header.round).or_default();
        round.insert(vertex.header.author, vertex);
    }

    /// What is below counts as complete: no leader to come reaches it.
    pub(super) fn skip_to(&mut self, round: u64) {
        self.complete = self.complete.max(round);
    }

    /// Notes a quorum in a round.
    pub(super) fn note_complete(&mut self, round: u64, quorum: usize) {
        if self.count(round) >= quorum {
            self.complete = self.complete.max(round);
        }
    }

    pub(super) fn complete_round(&self) -> u64 {
        self.complete
    }

    pub(super) fn highest_round(&self) -> u64 {
        self.rounds.last_key_value().map_or(0, |(round, _)| *round)
    }

    /// Rounds from `start` on, and below `end`, that have a vertex. Never a count over what a number claims: one that was
    /// damaged on disk would take for ever.
    pub(super) fn rounds_between(&self, start: u64, end: u64) -> impl DoubleEndedIterator<Item = u64> {
        self.rounds.range(start.min(end)..end).map(|(round, _)| *round)
    }

    pub(super) fn get(&self, round: u64, author: ReplicaId) -> Option<&Vertex> {
        self.rounds.get(&round)?.get(&author)
    }

    pub(super) fn has(&self, round: u64, author: ReplicaId) -> bool {
        self.get(round, author).is_some()
    }

    pub(super) fn round(&self, round: u64) -> impl Iterator<Item = &Vertex> {
        self.rounds.get(&round).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn count(&self, round: u64) -> usize {
        self.rounds.get(&round).map_or(0, BTreeMap::len)
    }

    pub(super) fn authors(&self, round: u64) -> Authors {
        Authors(self.round(round).fold(0, |bits, vertex| bits | 1 << vertex.header.author.0))
    }

    /// How many vertices of the next round follow a vertex.
    pub(super) fn followers(&self, round: u64, author: ReplicaId) -> usize {
        self.round(round + 1).filter(|vertex| vertex.header.parents.contains(author)).count()
    }

    /// Whether a vertex has another, of an earlier round, in its history.
    pub(super) fn has_path(&self, from: (u64, ReplicaId), to: (u64, ReplicaId)) -> bool {
        let mut reached = Authors(1 << from.1.0);
        for round in (to.0..from.0).rev() {
            let parents = reached.iter().filter_map(|author| self.get(round + 1, author));
            reached = Authors(parents.fold(0, |bits, vertex| bits | vertex.header.parents.0));
        }
        reached.contains(to.1)
    }

    pub(super) fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// Lets go of rounds below one; returns which vertices that were.
    pub(super) fn forget_below(&mut self, end: u64) -> Vec<(u64, ReplicaId)> {
        let kept = self.rounds.split_off(&end);
        let forgotten = core::mem::replace(&mut self.rounds, kept);
        let vertices = forgotten
            .into_iter()
            .flat_map(|(round, vertices)| vertices.into_keys().map(move |author| (round, author)));
        vertices.collect()
    }

    /// All vertices above a round, by round.
    pub(super) fn above(&self, round: u64) -> impl Iterator<Item = &Vertex> {
        self.rounds.range(round + 1..).flat_map(|(_, vertices)| vertices.values())
    }
}
