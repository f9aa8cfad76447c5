//! Change of view: when a leader is given up, what is said then, and what the next view begins with.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::messages::{Block, Message, NewView, Prepared, ViewChange, ViewRecord, Vote};
use super::{Pbft, RECORD_VIEW};
use crate::core::{Core, Kind, mutant};
use crate::crypto::Signature;
use crate::io::{Key, Output, Stable};
use crate::types::{Digest, ReplicaId, Time};
use crate::wire::Wire;

impl Pbft {
    pub(super) fn is_waiting(&self, core: &Core) -> bool {
        core.mempool.is_waiting()
            || self.slots.iter().any(|(number, slot)| *number > self.delivered && slot.proposal.is_some())
    }

    fn patience(&self, core: &Core) -> Time {
        (core.config.leader_timeout << self.given_up.min(16)).min(core.config.leader_timeout_max)
    }

    /// A leader that orders some batches and never a certain one is given up too, later.
    pub(super) fn patience_ends(&self, core: &Core) -> Option<Time> {
        if !self.active || !self.votes(core) {
            return None;
        }
        let since = core.mempool.waiting_since()?.max(self.entered);
        Some(since + UNFAIR_TIMEOUTS * self.patience(core))
    }

    /// Gives the leader up when nothing got done in its time.
    pub(crate) fn watch_leader(&mut self, core: &mut Core) {
        let done = self.delivered.max(core.ledger.position());
        if done > self.progress {
            self.progress = done;
            self.given_up = if self.active { 0 } else { self.given_up };
            self.deadline = self.deadline.filter(|_| !self.active);
        }
        if !self.votes(core) {
            self.deadline = None;
            return;
        }
        if self.active {
            let waits = self.is_waiting(core);
            self.deadline = if waits { self.deadline.or(Some(core.now + self.patience(core))) } else { None };
        }
        let late = self.deadline.is_some_and(|deadline| deadline <= core.now);
        let unfair = self.patience_ends(core).is_some_and(|end| end <= core.now);
        if late || unfair {
            self.given_up += 1;
            core.figures.leaders_given_up += 1;
            let leader = core.config.committee.leader(self.view);
            (0..FAILED_LEADER_WEIGHT).for_each(|_| core.observe(leader, false));
            self.begin_view_change(core, self.view + 1);
        }
    }

    fn persist_view(&self, core: &mut Core) {
        let record = ViewRecord { view: self.view, active: self.active };
        let key = Key::Protocol { kind: RECORD_VIEW, number: 0 };
        core.put(Output::Persist { key, value: record.encoded() });
    }

    /// Stops voting in the current view. Never goes back.
    pub(super) fn begin_view_change(&mut self, core: &mut Core, view: u64) {
        (self.view, self.active) = (view, false);
        self.new_view = None;
        // The next leader's time begins when a quorum waits for it: who is alone does not run ahead.
        self.deadline = None;
        self.persist_view(core);
        self.announce_view_change(core);
    }

    pub(super) fn announce_view_change(&mut self, core: &mut Core) {
        if !self.votes(core) {
            return;
        }
        let change = self.own_view_change(core);
        core.broadcast_protocol(&Message::ViewChange(change.clone()));
        self.changes.insert(core.config.me, change);
        self.check_view_changes(core);
    }

    fn own_view_change(&self, core: &Core) -> ViewChange {
        let stable = core.checkpoints.stable().cloned();
        let prepared = self.slots.values().filter_map(|slot| slot.prepared.clone());
        let prepared: Vec<_> = if mutant!(core, ViewChangeForgets) { Vec::new() } else { prepared.collect() };
        let signature = Signature([0; 64]);
        let mut change = ViewChange { sender: core.config.me, view: self.view, stable, prepared, signature };
        change.signature =
            core.crypto.sign(&core.statement(Kind::ViewChange, [self.view, 0], &change.digest()));
        change
    }

    pub(super) fn repeat_view_change(&mut self, core: &mut Core) {
        if !self.active {
            self.announce_view_change(core);
        }
    }

    pub(super) fn handle_view_change(&mut self, core: &mut Core, from: ReplicaId, change: ViewChange) {
        if change.view < self.view || (change.view == self.view && self.active) {
            return;
        }
        let newer = self.changes.get(&from).is_none_or(|known| known.view < change.view);
        if !newer {
            return;
        }
        if change.sender != from || !is_sound(core, &change) {
            return core.refuse();
        }
        self.changes.insert(from, change);
        self.check_view_changes(core);
    }

    fn check_view_changes(&mut self, core: &mut Core) {
        // So many gave this view up that one of them is correct: join them, in the lowest view that they can mean.
        let mut beyond: Vec<u64> =
            self.changes.values().map(|change| change.view).filter(|view| *view > self.view).collect();
        beyond.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(view) = beyond.get(core.config.committee.one_correct() - 1).copied()
            && self.votes(core)
        {
            return self.begin_view_change(core, view);
        }
        if self.active {
            return;
        }
        let waiting = self.changes.values().filter(|change| change.view >= self.view).count();
        if waiting >= core.config.committee.quorum() && self.deadline.is_none() {
            self.deadline = Some(core.now + self.patience(core));
        }
        if self.is_leader(core) && self.votes(core) {
            self.open_view(core);
        }
    }

    /// The next leader has a quorum behind it: it opens its view.
    fn open_view(&mut self, core: &mut Core) {
        let view = self.view;
        let changes = self.changes.values().filter(|change| change.view == view);
        let changes: Vec<_> = changes.take(core.config.committee.quorum()).cloned().collect();
        if changes.len() < core.config.committee.quorum() {
            return;
        }
        let digest = NewView::digest(&changes);
        let signature = core.crypto.sign(&core.statement(Kind::NewView, [view, 0], &digest));
        let new_view = NewView { view, changes, signature };
        core.broadcast_protocol(&Message::NewView(new_view.clone()));
        self.enter(core, new_view);
    }

    pub(super) fn send_new_view(&self, core: &mut Core, peer: ReplicaId) {
        if let Some(new_view) = &self.new_view {
            core.send_protocol(peer, &Message::NewView(new_view.clone()));
        }
    }

    /// Anybody may hand it on; the leader of the view has signed it.
    pub(super) fn handle_new_view(&mut self, core: &mut Core, new_view: NewView) {
        let view = new_view.view;
        if view < self.view || (view == self.view && self.active) {
            return;
        }
        let leader = core.config.committee.leader(view);
        let statement = core.statement(Kind::NewView, [view, 0], &NewView::digest(&new_view.changes));
        let mut senders: Vec<_> = new_view.changes.iter().map(|change| change.sender).collect();
        senders.sort_unstable();
        senders.dedup();
        let quorum =
            senders.len() == new_view.changes.len() && senders.len() >= core.config.committee.quorum();
        let sound = quorum
            && core.verify(leader, &statement, &new_view.signature)
            && new_view.changes.iter().all(|change| {
                let known = self.changes.get(&change.sender) == Some(change);
                change.view == view && (known || is_sound(core, change))
            });
        if sound { self.enter(core, new_view) } else { core.refuse() }
    }

    /// Enters a view with what a quorum says may have been decided before.
    fn enter(&mut self, core: &mut Core, new_view: NewView) {
        let (stable, digests) = beginning(core, &new_view);
        let view = new_view.view;
        (self.view, self.active) = (view, true);
        self.entered = core.now;
        self.deadline = None;
        self.new_view = Some(new_view);
        self.persist_view(core);
        self.clear_votes();
        let low = stable.as_ref().map_or(0, |stable| stable.position);
        if let Some(stable) = stable {
            core.know(stable);
        }
        let highest = digests.last_key_value().map_or(low, |(slot, _)| *slot);
        for slot in low + 1..=highest {
            self.accept_again(core, slot, digests.get(&slot).copied());
        }
        self.next_slot = highest.max(self.delivered) + 1;
        let blocks = self.slots.range(low + 1..).filter(|(_, slot)| slot.proposed_in(view).is_some());
        let proposed: Vec<_> = blocks
            .flat_map(|(_, slot)| slot.blocks.values())
            .flat_map(|block| block.batches.iter().map(|batch| batch.name))
            .collect();
        core.mempool.propose_again(|name| proposed.contains(name));
        for (from, messages) in core::mem::take(&mut self.aside) {
            for message in messages {
                crate::node::Protocol::handle_message(self, core, from, message);
            }
        }
    }

    /// Accepts what the new view proposes for a slot: what was prepared, or nothing.
    fn accept_again(&mut self, core: &mut Core, slot: u64, digest: Option<Digest>) {
        if !self.is_open(core, slot) {
            return;
        }
        let empty = Block::default();
        let (digest, block) = match digest {
            Some(digest) => {
                (digest, self.slots.get(&slot).and_then(|slot| slot.blocks.get(&digest)).cloned())
            }
            None => (empty.digest(), Some(empty)),
        };
        let signature = self.accept(core, slot, digest, block);
        if self.votes(core) {
            core.broadcast_protocol(&Message::Prepare(Vote { view: self.view, slot, digest, signature }));
        }
        self.check_prepared(core, slot);
    }
}

/// The latest stable checkpoint of a quorum, and for each slot above it the digest prepared in the highest view.
fn beginning(core: &Core, new_view: &NewView) -> (Option<Stable>, BTreeMap<u64, Digest>) {
    let stable = new_view.changes.iter().filter_map(|change| change.stable.clone());
    let stable = stable.max_by_key(|stable| stable.position);
    let low = stable.as_ref().map_or(0, |stable| stable.position);
    let mut best: BTreeMap<u64, &Prepared> = BTreeMap::new();
    let prepared = new_view.changes.iter().flat_map(|change| &change.prepared);
    for prepared in prepared.filter(|prepared| prepared.slot > low) {
        let better = |known: &&Prepared| {
            if mutant!(core, LowestViewWins) {
                known.view > prepared.view
            } else {
                known.view < prepared.view
            }
        };
        if best.get(&prepared.slot).is_none_or(better) {
            best.insert(prepared.slot, prepared);
        }
    }
    if mutant!(core, NewViewDropsLast) {
        best.pop_last();
    }
    (stable, best.into_iter().map(|(slot, prepared)| (slot, prepared.digest)).collect())
}

/// A leader that was given up counts like so many votes that were missing.
const FAILED_LEADER_WEIGHT: usize = 8;

/// Whether a view change is its sender's, and all that it claims is proven.
fn is_sound(core: &Core, change: &ViewChange) -> bool {
    let committee = &core.config.committee;
    let statement = core.statement(Kind::ViewChange, [change.view, 0], &change.digest());
    let low = change.stable_position();
    let rising = change.prepared.windows(2).all(|pair| pair[0].slot < pair[1].slot);
    let proven = |prepared: &Prepared| {
        let statement = core.statement(Kind::Prepare, [prepared.view, prepared.slot], &prepared.digest);
        prepared.view < change.view
            && prepared.slot > low
            && prepared.slot <= low + core.config.window()
            && (mutant!(core, PreparedUnchecked)
                || prepared.certificate.holds(&*core.crypto, committee, &statement))
    };
    committee.contains(change.sender)
        && rising
        && core.verify(change.sender, &statement, &change.signature)
        && change.stable.as_ref().is_none_or(|stable| core.is_stable(stable))
        && change.prepared.iter().all(proven)
}

/// So many times the patience for a leader that does nothing has one who leaves a batch out.
const UNFAIR_TIMEOUTS: u64 = 4;
