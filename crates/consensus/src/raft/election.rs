//! Who leads: votes for a term, asked for when no leader was heard of.
use alloc::collections::BTreeSet;

use super::messages::{AskVote, Message, Voted};
use super::replication::Follower;
use super::{Raft, Role};
use crate::core::{Core, mutant};
use crate::types::ReplicaId;

impl Raft {
    /// Stands for leader when it is time; a leader that hears of no majority steps down.
    pub(super) fn watch(&mut self, core: &mut Core) {
        if !self.votes(core) {
            return;
        }
        if let Role::Leader { followers, .. } = &self.role {
            let patience = self.patience(core);
            let heard = |member: &ReplicaId| {
                followers.get(member).is_none_or(|follower| follower.heard + 2 * patience > core.now)
            };
            let reached = core.config.committee.members().iter().filter(|member| heard(member)).count();
            if reached < core.config.committee.quorum() {
                self.follow(core, None);
            }
        } else if self.stands_at <= core.now {
            self.tries += 1;
            core.figures.leaders_given_up += 1;
            self.stand(core, true);
        }
    }

    /// Asks whether it would be voted for, and then for votes: who is cut off does not drive terms up.
    fn stand(&mut self, core: &mut Core, only_asks: bool) {
        let me = core.config.me;
        self.leader = None;
        if !only_asks {
            (self.term, self.voted) = (self.term + 1, Some(me));
            self.persist_term(core);
        }
        self.wait_for_leader(core);
        self.role = Role::Candidate { only_asks, votes: alloc::vec![me] };
        let (last, last_term) = self.log.last();
        let term = self.term + u64::from(only_asks);
        core.broadcast_protocol(&Message::AskVote(AskVote { term, only_asks, last, last_term }));
        self.count(core);
    }

    pub(super) fn handle_ask_vote(&mut self, core: &mut Core, from: ReplicaId, ask: &AskVote) {
        let AskVote { term, only_asks, last, last_term } = *ask;
        if !self.votes(core) {
            return;
        }
        // Who hears a leader wants no other, and says nothing.
        let hears = self.leader.is_some() && core.now < self.heard + core.config.leader_timeout;
        if only_asks && (hears || matches!(self.role, Role::Leader { .. })) {
            return;
        }
        if !only_asks && term > self.term {
            self.enter(core, term);
        }
        let mine = self.log.last();
        let has_all = (last_term, last) >= (mine.1, mine.0) || mutant!(core, ElectsAnybody);
        let free = if only_asks {
            term > self.term
        } else {
            term == self.term && self.voted.is_none_or(|voted| voted == from)
        };
        let granted = has_all && free;
        if granted && !only_asks {
            self.voted = Some(from);
            if !mutant!(core, VotesUnpersisted) {
                self.persist_term(core);
            }
            self.wait_for_leader(core);
        }
        let term = if granted { term } else { self.term };
        core.send_protocol(from, &Message::Voted(Voted { term, only_asked: only_asks, granted }));
    }

    pub(super) fn handle_voted(&mut self, core: &mut Core, from: ReplicaId, voted: &Voted) {
        if !voted.granted && voted.term > self.term {
            return self.enter(core, voted.term);
        }
        let Role::Candidate { only_asks, votes } = &mut self.role else { return };
        let for_this = voted.term == self.term + u64::from(*only_asks) && voted.only_asked == *only_asks;
        if voted.granted && for_this && !votes.contains(&from) {
            votes.push(from);
            self.count(core);
        }
    }

    fn count(&mut self, core: &mut Core) {
        let Role::Candidate { only_asks, votes } = &self.role else { return };
        let quorum = core.config.committee.quorum() - usize::from(mutant!(core, CommitQuorumSmall));
        match (votes.len() >= quorum, *only_asks) {
            (false, _) => {}
            (true, true) => self.stand(core, false),
            (true, false) => self.lead(core),
        }
    }

    /// A later term: whatever this replica was, it follows.
    pub(super) fn enter(&mut self, core: &mut Core, term: u64) {
        (self.term, self.voted) = (term, None);
        if self.votes(core) {
            self.persist_term(core);
        }
        self.follow(core, None);
    }

    pub(super) fn follow(&mut self, core: &mut Core, leader: Option<ReplicaId>) {
        if matches!(self.role, Role::Leader { .. }) || self.leader != leader {
            self.wait_for_leader(core);
        }
        (self.role, self.leader) = (Role::Follower, leader);
    }

    fn lead(&mut self, core: &mut Core) {
        let last = self.log.last().0;
        let now = core.now;
        let follower =
            |peer| (peer, Follower { next: last + 1, matched: 0, counts: false, beaten: 0, heard: now });
        let followers = core.config.peers().map(follower).collect();
        self.role = Role::Leader { followers, beats_at: now };
        self.leader = Some(core.config.me);
        let uncommitted = self.log.above(self.commit).flat_map(|(_, entry)| &entry.block.batches);
        let proposed: BTreeSet<_> = uncommitted.map(|batch| batch.name).collect();
        core.mempool.propose_again(|name| proposed.contains(name));
        // What earlier leaders left is committed by an entry of this term only.
        self.put(core, crate::pbft::messages::Block::default());
    }
}
