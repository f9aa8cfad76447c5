//! Catching up with the graph, and the way back of a replica that lost its records.
use alloc::vec::Vec;

use super::messages::{Authors, Message, VoteRecord, Wish};
use super::{Bullshark, RECORD_VOTE};
use crate::core::{Core, Status, mutant};
use crate::io::{Key, Output};
use crate::types::{Digest, ReplicaId};
use crate::wire::Wire;

impl Bullshark {
    /// Asks a peer for the parents that a waiting vertex or a held header of a round lacks.
    pub(super) fn fetch_parents_of(&self, core: &mut Core, round: u64, author: ReplicaId, peer: ReplicaId) {
        let waiting = self.waiting.get(&(round, author)).map(|vertex| &vertex.header);
        let held = self.held.get(&author).map(|(header, _)| header).filter(|header| header.round == round);
        let Some(header) = waiting.or(held) else { return };
        let mut missing = self.missing_parents(core, header);
        for (_, parent) in self.waiting.keys().filter(|(other, _)| *other == round - 1) {
            missing.0 &= !(1 << parent.0);
        }
        if missing.0 != 0 && peer != core.config.me {
            let wish = Wish { round: round - 1, authors: missing, complete: self.dag.complete_round() };
            core.send_protocol(peer, &Message::Fetch(wish));
        }
    }

    /// Asks again, each time somebody else.
    pub(super) fn fetch_parents(&mut self, core: &mut Core) {
        self.attempts += 1;
        let members = core.config.committee.members();
        let peer = members[(usize::from(core.config.me.0) + self.attempts) % members.len()];
        let mut wanting: Vec<_> = self.waiting.keys().copied().collect();
        wanting.extend(self.held.iter().map(|(author, (header, _))| (header.round, *author)));
        wanting.sort_unstable();
        for (round, author) in wanting.into_iter().take(FETCHED_AT_ONCE_MAX) {
            self.fetch_parents_of(core, round, author, peer);
        }
    }

    pub(super) fn handle_fetch(&mut self, core: &mut Core, from: ReplicaId, wish: Wish) {
        self.send_round(core, from, wish.round, wish.authors);
        let between = wish.complete + 1..wish.round;
        for round in between.take(ROUNDS_AT_ONCE_MAX as usize) {
            self.send_round(core, from, round, Authors(u128::MAX));
        }
    }

    fn send_round(&self, core: &mut Core, to: ReplicaId, round: u64, authors: Authors) {
        let vertices = self.dag.round(round).filter(|vertex| authors.contains(vertex.header.author));
        for vertex in vertices {
            // Enough of a size to bound what one question costs.
            if core.may_serve(to, VERTEX_BYTES) {
                core.send_protocol(to, &Message::Vertex(vertex.clone()));
            }
        }
    }

    /// Sends a peer that is behind the next rounds, and everybody the latest of its own.
    pub(super) fn help(&mut self, core: &mut Core, peer: ReplicaId, status: &Status) {
        let complete = self.dag.complete_round();
        if status.mark < complete {
            for round in status.mark + 1..=complete.min(status.mark + ROUNDS_AT_ONCE_MAX) {
                self.send_round(core, peer, round, Authors(u128::MAX));
            }
        }
        let own = Authors(1 << core.config.me.0);
        for round in status.mark.max(1)..=self.dag.highest_round().min(status.mark + 2) {
            self.send_round(core, peer, round, own);
        }
    }

    /// A replica that lost its records votes for no header of a round that it may have voted in.
    ///
    /// Whatever it voted for had a quorum of parents, and each of those a quorum of voters who had the round before them
    /// complete. A quorum of others, asked now, has one of these. So no forgotten vote is more than two rounds above what
    /// they have, once that is here too.
    pub(super) fn learn_after_loss(&mut self, core: &mut Core, from: ReplicaId, status: &Status) {
        if !core.lost || !core.is_member() || status.lost || !core.config.committee.contains(from) {
            return;
        }
        self.heard.entry(from).or_insert(status.mark);
        let complete = self.dag.complete_round();
        let counted = self.heard.values().filter(|mark| **mark <= complete).count();
        let members = core.config.committee.members().len();
        let enough = core.config.committee.quorum().min(members - 1);
        if counted < enough && !mutant!(core, LostVotesAtOnce) {
            return;
        }
        let round = if mutant!(core, LostVotesAtOnce) { 0 } else { complete + ROUNDS_AFTER_LOSS };
        for member in core.config.committee.members().to_vec() {
            let record = VoteRecord { round, digest: Digest::default() };
            self.voted.insert(member, record);
            let key = Key::Protocol { kind: RECORD_VOTE, number: u64::from(member.0) };
            core.put(Output::Persist { key, value: record.encoded() });
        }
        core.recover();
    }
}

/// Rounds that one question or status is answered with.
const ROUNDS_AT_ONCE_MAX: u64 = 8;
/// Vertices whose parents are asked for at a time.
const FETCHED_AT_ONCE_MAX: usize = 32;
/// What a vertex counts against a peer's share.
const VERTEX_BYTES: usize = 4096;
/// Rounds above what a quorum has in which a forgotten vote may have been cast, and one to spare.
const ROUNDS_AFTER_LOSS: u64 = 3;
