//! The order, read off the graph: which leaders are committed, and what each takes along.
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Bullshark;
use super::messages::{Authors, OrderState, OrderedRound};
use super::vertices::leader;
use crate::core::{Core, mutant};
use crate::io::{Output, Reached, Stage};
use crate::types::ReplicaId;
use crate::wire::Wire;

impl Bullshark {
    pub(super) fn is_ordered(&self, round: u64, author: ReplicaId) -> bool {
        self.ordered.get(&round).is_some_and(|authors| Authors(*authors).contains(author))
    }

    /// Commits every leader that enough vertices of the next round follow, with the leaders before it that it follows.
    pub(super) fn commit(&mut self, core: &mut Core) {
        // Every other round has a leader.
        let (first, end) = (self.committed.saturating_add(2), self.dag.highest_round());
        let led: Vec<u64> =
            self.dag.rounds_between(first, end).filter(|round| (round - first).is_multiple_of(2)).collect();
        for round in led {
            let author = leader(core, round);
            let enough = core.config.committee.one_correct() - usize::from(mutant!(core, CommitSupportSmall));
            let followed = self.dag.has(round, author) && self.dag.followers(round, author) >= enough;
            if followed {
                self.commit_chain(core, round);
            }
        }
    }

    fn commit_chain(&mut self, core: &mut Core, round: u64) {
        let mut chain = alloc::vec![round];
        let mut current = (round, leader(core, round));
        let first = self.committed.saturating_add(2);
        let led =
            self.dag.rounds_between(first, round).rev().filter(|earlier| (round - earlier).is_multiple_of(2));
        for earlier in led.collect::<Vec<u64>>() {
            let candidate = (earlier, leader(core, earlier));
            let follows = self.dag.has(candidate.0, candidate.1)
                && (self.dag.has_path(current, candidate) || mutant!(core, LeaderPathUnchecked));
            if follows && !mutant!(core, LeadersSkipped) {
                chain.push(earlier);
                current = candidate;
            }
        }
        while let Some(round) = chain.pop() {
            if !self.order(core, round) {
                break;
            }
        }
        self.propose_given_up_again(core);
    }

    /// Orders a leader with all of its history that is not ordered yet and not too old, by round and author.
    ///
    /// False where a part of that history is not here. Only a damaged disk can bring that about; leaving the part out would
    /// make this replica's order another one than everybody's, so it orders nothing more until a snapshot.
    fn order(&mut self, core: &mut Core, leader_round: u64) -> bool {
        let lowest = leader_round.saturating_sub(core.config.dag_rounds_kept) + 1;
        let mut reached = Authors(1 << leader(core, leader_round).0);
        let mut taken = Vec::new();
        for round in (lowest..=leader_round).rev() {
            let fresh: Vec<_> = reached.iter().filter(|author| !self.is_ordered(round, *author)).collect();
            reached = Authors::default();
            for author in fresh {
                let Some(vertex) = self.dag.get(round, author) else {
                    core.figures.conflicts += 1;
                    return false;
                };
                reached.0 |= vertex.header.parents.0;
                taken.push((round, author));
            }
        }
        taken.sort_unstable();
        for &(round, author) in &taken {
            *self.ordered.entry(round).or_default() |= 1 << author.0;
            self.pending.remove(&(round, author));
        }
        self.note_ordered(core, leader_round);
        let vertices = taken.iter().filter_map(|(round, author)| self.dag.get(*round, *author));
        let batches = vertices.flat_map(|vertex| vertex.header.batches.iter().cloned()).collect();
        self.committed = leader_round;
        self.position += 1;
        self.leaders.insert(self.position, leader_round);
        self.ordered = self.ordered.split_off(&lowest);
        let is_checkpoint = self.position.is_multiple_of(core.config.checkpoint_interval);
        let order_state = if is_checkpoint { self.order_state() } else { Vec::new() };
        core.order(self.position, batches, order_state);
        true
    }

    /// Own headers that are ordered now, or that no leader will take along any more.
    fn note_ordered(&mut self, core: &mut Core, leader_round: u64) {
        let me = core.config.me;
        let floor = leader_round.saturating_sub(core.config.dag_rounds_kept);
        let own_since = core::mem::take(&mut self.own_since);
        for (round, since) in own_since {
            if self.is_ordered(round, me) {
                let took = core.now - since;
                core.put(Output::Reached(Reached { stage: Stage::Certain, took }));
            } else if round > floor {
                self.own_since.insert(round, since);
            }
        }
    }

    fn order_state(&self) -> Vec<u8> {
        let ordered =
            self.ordered.iter().map(|(round, authors)| OrderedRound { round: *round, authors: *authors });
        OrderState { committed: self.committed, ordered: ordered.collect() }.encoded()
    }

    /// Own batches in vertices that no leader will ever take along go back to the mempool.
    pub(super) fn propose_given_up_again(&mut self, core: &mut Core) {
        let me = core.config.me;
        let floor = self.floor(core);
        let own = self.dag.above(floor).filter(|vertex| vertex.header.author == me);
        let pending = own.map(|vertex| &vertex.header);
        let pending =
            pending.chain(self.own.as_ref().filter(|own| own.header.round > floor).map(|own| &own.header));
        let proposed: BTreeSet<_> =
            pending.flat_map(|header| header.batches.iter().map(|batch| batch.name)).collect();
        core.mempool.propose_again(|name| proposed.contains(name));
        self.waiting.retain(|(round, _), _| *round > floor);
        self.pending = self.pending.split_off(&(floor + 1, ReplicaId(0)));
    }
}
