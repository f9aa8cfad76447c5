//! The leader's log to everybody: what it sends, what followers answer, what is committed.
use alloc::vec::Vec;

use super::messages::{Append, Appended, Entry, Message};
use super::{RECORD_ENTRY, Raft, Role};
use crate::core::{Core, mutant};
use crate::io::{Key, Output, Reached, Stage};
use crate::pbft::messages::Block;
use crate::types::{ReplicaId, Time};

/// What a leader knows of another replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Follower {
    /// The next slot to send.
    pub(super) next: u64,
    /// Its log is the leader's up to here.
    pub(super) matched: u64,
    /// Whether that counts for a majority.
    pub(super) counts: bool,
    /// Where it was at the last beat.
    pub(super) beaten: u64,
    /// When it answered last.
    pub(super) heard: Time,
}

impl Raft {
    /// The leader puts waiting batches into the log.
    pub(super) fn propose(&mut self, core: &mut Core) {
        while matches!(self.role, Role::Leader { .. })
            && self.log.last().0 < self.commit + PIPELINE_SLOTS_MAX
            && self.log.last().0 < core.checkpoints.stable_position() + core.config.window()
        {
            let batches = core.take_unproposed(core.config.block_batches_max);
            if batches.is_empty() {
                return;
            }
            self.put(core, Block { batches });
        }
    }

    /// An entry of the leader's own, on disk before anybody hears of it.
    pub(super) fn put(&mut self, core: &mut Core, block: Block) {
        let slot = self.log.push(Entry { term: self.term, block });
        self.since.insert(slot, core.now);
        self.persist_entry(core, slot);
        let peers: Vec<_> = core.config.peers().collect();
        peers.into_iter().for_each(|peer| self.send(core, peer));
        self.count_commit(core);
    }

    /// Says that it lives, and again what was not answered since the last time.
    pub(super) fn beat(&mut self, core: &mut Core) {
        let Role::Leader { followers, beats_at } = &mut self.role else { return };
        if *beats_at > core.now {
            return;
        }
        *beats_at = core.now + core.config.leader_timeout / BEATS;
        for follower in followers.values_mut() {
            if follower.matched == follower.beaten {
                follower.next = follower.matched + 1;
            }
            follower.beaten = follower.matched;
        }
        let peers: Vec<_> = followers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.send(core, peer));
    }

    fn send(&mut self, core: &mut Core, peer: ReplicaId) {
        let Role::Leader { followers, .. } = &mut self.role else { return };
        let Some(follower) = followers.get_mut(&peer) else { return };
        // What is below the log's base is a checkpoint's matter.
        let previous = (follower.next - 1).max(self.log.base()).min(self.log.last().0);
        let mut batches = 0;
        let entries = self.log.above(previous).take(ENTRIES_MAX).take_while(|(_, entry)| {
            let fits = batches == 0 || batches + entry.block.batches.len() <= core.config.block_batches_max;
            batches += entry.block.batches.len();
            fits
        });
        let entries: Vec<Entry> = entries.map(|(_, entry)| entry.clone()).collect();
        follower.next = previous + 1 + entries.len() as u64;
        let previous_term = self.log.term(previous).unwrap_or_default();
        let (term, commit) = (self.term, self.commit);
        let append = Append { term, previous, previous_term, entries, commit };
        core.send_protocol(peer, &Message::Append(append));
    }

    pub(super) fn handle_append(&mut self, core: &mut Core, from: ReplicaId, append: Append) {
        if append.term < self.term {
            let answer = Appended { term: self.term, matches: false, counts: false, slot: 0 };
            return core.send_protocol(from, &Message::Appended(answer));
        }
        if append.term > self.term {
            self.enter(core, append.term);
        }
        if matches!(self.role, Role::Leader { .. }) {
            // Two leaders of one term: somebody lies or forgot, which nobody does here.
            core.figures.conflicts += 1;
            return;
        }
        self.follow(core, Some(from));
        self.heard = core.now;
        self.wait_for_leader(core);
        let (matches, slot) = self.take(core, &append);
        if matches {
            self.commit = self.commit.max(append.commit.min(slot));
        }
        let counts = self.votes(core) || (core.is_member() && mutant!(core, LostVotesAtOnce));
        let answer = Appended { term: self.term, matches, counts, slot };
        core.send_protocol(from, &Message::Appended(answer));
    }

    /// Makes the own log the leader's, as far as this message goes: whether they match, and up to which slot they do or may.
    fn take(&mut self, core: &mut Core, append: &Append) -> (bool, u64) {
        let base = self.log.base();
        let fits = append.previous < base
            || self.log.term(append.previous) == Some(append.previous_term)
            || mutant!(core, AppendsBlindly);
        if !fits {
            let slot = self.log.last().0.min(append.previous.saturating_sub(1)).max(self.commit);
            return (false, slot);
        }
        // A leader proposes within one window; what begins its term may stand beyond.
        let highest = core.checkpoints.stable_position() + 2 * core.config.window();
        let mut matched = append.previous.max(base);
        for (slot, entry) in (append.previous.saturating_add(1)..).zip(&append.entries) {
            if slot <= base {
                continue;
            }
            if self.log.term(slot) != Some(entry.term) {
                if slot <= self.commit {
                    core.figures.conflicts += 1;
                    return (false, self.commit);
                }
                for number in self.log.cut(slot) {
                    core.put(Output::Forget { key: Key::Protocol { kind: RECORD_ENTRY, number } });
                }
                if slot > highest || self.log.last().0 + 1 != slot {
                    break;
                }
                self.log.push(entry.clone());
                if self.votes(core) && !mutant!(core, PreparedUnpersisted) {
                    self.persist_entry(core, slot);
                }
            }
            matched = slot;
        }
        (true, matched)
    }

    pub(super) fn handle_appended(&mut self, core: &mut Core, from: ReplicaId, answer: &Appended) {
        if answer.term > self.term {
            return self.enter(core, answer.term);
        }
        let last = self.log.last().0;
        let Role::Leader { followers, .. } = &mut self.role else { return };
        let Some(follower) = followers.get_mut(&from).filter(|_| answer.term == self.term) else { return };
        follower.heard = core.now;
        follower.counts = answer.counts;
        if !answer.counts && !answer.matches {
            // Its records may be gone.
            follower.matched = follower.matched.min(answer.slot);
        }
        if answer.matches && answer.slot <= last {
            let moved = answer.slot > follower.matched;
            follower.matched = follower.matched.max(answer.slot);
            follower.next = follower.next.max(follower.matched + 1);
            // Who takes nothing more now gets it again with a beat.
            let behind = moved && follower.next <= last;
            self.count_commit(core);
            if behind {
                self.send(core, from);
            }
        } else if !answer.matches {
            let next = answer.slot.max(follower.matched).saturating_add(1);
            if next < follower.next {
                follower.next = next;
                self.send(core, from);
            }
        }
    }

    /// What a majority has is committed, where it ends with an entry of this term.
    fn count_commit(&mut self, core: &mut Core) {
        let Role::Leader { followers, .. } = &self.role else { return };
        let last = self.log.last().0;
        let have = |member: &ReplicaId| {
            followers.get(member).map_or(last, |follower| if follower.counts { follower.matched } else { 0 })
        };
        let mut matched: Vec<u64> = core.config.committee.members().iter().map(have).collect();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = core.config.committee.quorum() - usize::from(mutant!(core, CommitQuorumSmall));
        let slot = matched[quorum.max(1) - 1];
        if slot <= self.commit || self.log.term(slot) != Some(self.term) {
            return;
        }
        self.commit = slot;
        self.tries = 0;
        let later = self.since.split_off(&(slot + 1));
        for since in core::mem::replace(&mut self.since, later).into_values() {
            let took = core.now - since;
            core.put(Output::Reached(Reached { stage: Stage::Quorum, took }));
            core.put(Output::Reached(Reached { stage: Stage::Certain, took }));
        }
    }
}

/// Beats of a leader in the time after which it is given up.
const BEATS: u64 = 5;
/// Entries of one message.
const ENTRIES_MAX: usize = 32;
/// Entries that a leader has under way; more work goes into larger blocks.
const PIPELINE_SLOTS_MAX: u64 = 8;
