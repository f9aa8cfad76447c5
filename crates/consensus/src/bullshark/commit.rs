//! The order, read off the graph: which leaders are committed, and what each takes along.
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Bullshark;
use super::messages::{Authors, OrderState, OrderedRound};
use super::vertices::leader;
use crate::core::{Core, mutant};
use crate::types::ReplicaId;
use crate::wire::Wire;

impl Bullshark {
    pub(super) fn is_ordered(&self, round: u64, author: ReplicaId) -> bool {
        self.ordered.get(&round).is_some_and(|authors| Authors(*authors).contains(author))
    }

    /// Commits every leader that enough vertices of the next round follow, with the leaders before it that it follows.
    pub(super) fn commit(&mut self, core: &mut Core) {
        let mut round = self.committed + 2;
        while round < self.dag.highest_round() {
            let author = leader(core, round);
            let enough = core.config.committee.one_correct() - usize::from(mutant!(core, CommitSupportSmall));
            let followed = self.dag.has(round, author) && self.dag.followers(round, author) >= enough;
            if followed {
                self.commit_chain(core, round);
            }
            round += 2;
        }
    }

    fn commit_chain(&mut self, core: &mut Core, round: u64) {
        let mut chain = alloc::vec![round];
        let mut current = (round, leader(core, round));
        let mut earlier = round;
        while earlier > self.committed + 2 {
            earlier -= 2;
            let candidate = (earlier, leader(core, earlier));
            let follows = self.dag.has(candidate.0, candidate.1)
                && (self.dag.has_path(current, candidate) || mutant!(core, LeaderPathUnchecked));
            if follows && !mutant!(core, LeadersSkipped) {
                chain.push(earlier);
                current = candidate;
            }
        }
        while let Some(round) = chain.pop() {
            self.order(core, round);
        }
        self.propose_given_up_again(core);
    }

    /// Orders a leader with all of its history that is not ordered yet and not too old, by round and author.
    fn order(&mut self, core: &mut Core, leader_round: u64) {
        let lowest = leader_round.saturating_sub(core.config.dag_rounds_kept) + 1;
        let mut reached = Authors(1 << leader(core, leader_round).0);
        let mut taken = Vec::new();
        for round in (lowest..=leader_round).rev() {
            let fresh: Vec<_> = reached.iter().filter(|author| !self.is_ordered(round, *author)).collect();
            reached = Authors::default();
            for author in fresh {
                let vertex = self.dag.get(round, author);
                debug_assert!(vertex.is_some(), "the history of a vertex is here: {author:?} in {round}");
                let Some(vertex) = vertex else { continue };
                reached.0 |= vertex.header.parents.0;
                *self.ordered.entry(round).or_default() |= 1 << author.0;
                taken.push((round, author));
            }
        }
        taken.sort_unstable();
        taken.iter().for_each(|place| {
            self.pending.remove(place);
        });
        let vertices = taken.iter().filter_map(|(round, author)| self.dag.get(*round, *author));
        let batches = vertices.flat_map(|vertex| vertex.header.batches.iter().cloned()).collect();
        self.committed = leader_round;
        self.position += 1;
        self.leaders.insert(self.position, leader_round);
        self.ordered = self.ordered.split_off(&lowest);
        let is_checkpoint = self.position.is_multiple_of(core.config.checkpoint_interval);
        let order_state = if is_checkpoint { self.order_state() } else { Vec::new() };
        core.order(self.position, batches, order_state);
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
