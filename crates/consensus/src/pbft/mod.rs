//! Practical Byzantine Fault Tolerance (Castro and Liskov, OSDI 1999 and TOCS 2002) over the shared mempool: blocks of
//! certified batches in slots, three hops to commit, checkpoints, view change.
//!
//! Proof obligations, and where they are met:
//! - A correct replica prepares one digest per view and slot, restarts included: [`normal`] persists before it votes.
//! - A prepared digest survives every change of view: [`view_change`] carries the certificates of all slots above the
//!   stable checkpoint and computes the new view's proposals from a quorum of them, as every replica checks.
//! - Who forgot its records votes for nothing that it may have voted for before: [`recovery`].
pub(crate) mod messages;
pub(crate) mod normal;
mod recovery;
mod slots;
mod view_change;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::batch::BatchName;
use crate::core::{COUNT_MAX, Core, Status};
use crate::io::{Corrupt, Key};
use crate::node::Protocol;
use crate::types::{ReplicaId, Time};
use messages::{Message, NewView, ViewChange, ViewRecord};
use recovery::Recovery;
use slots::{Slot, SlotRecord};

/// The order by PBFT.
#[derive(Debug)]
pub(crate) struct Pbft {
    view: u64,
    /// Whether the view is entered; otherwise it is being changed to.
    active: bool,
    entered: Time,
    slots: BTreeMap<u64, Slot>,
    /// The highest slot whose block is handed to the ledger, with all before it.
    delivered: u64,
    /// The leader's next slot.
    next_slot: u64,
    /// The latest view change of each member.
    changes: BTreeMap<ReplicaId, ViewChange>,
    /// What the current view began with.
    new_view: Option<NewView>,
    /// When the leader is given up.
    deadline: Option<Time>,
    /// Leaders given up since something was delivered.
    given_up: u32,
    /// Where delivery stood when the deadline was set.
    progress: u64,
    /// Messages of views to come, by sender.
    aside: BTreeMap<ReplicaId, VecDeque<Message>>,
    recovery: Recovery,
}

/// Messages of one peer that are put aside for a view to come.
const ASIDE_MAX: usize = 64;
/// Slots that a leader has under way; more work goes into larger blocks.
const PIPELINE_SLOTS_MAX: u64 = 8;

/// Kinds of records.
const RECORD_VIEW: u8 = 1;
const RECORD_SLOT: u8 = 2;

impl Protocol for Pbft {
    type Message = Message;

    fn new(core: &mut Core, records: &[(Key, Vec<u8>)]) -> Result<Self, Corrupt> {
        let mut pbft = Self {
            view: 0,
            active: true,
            entered: core.now,
            slots: BTreeMap::new(),
            delivered: core.checkpoints.stable_position(),
            next_slot: core.checkpoints.stable_position() + 1,
            changes: BTreeMap::new(),
            new_view: None,
            deadline: None,
            given_up: 0,
            progress: 0,
            aside: BTreeMap::new(),
            recovery: Recovery::default(),
        };
        pbft.resume(core, records)?;
        Ok(pbft)
    }

    fn handle_message(&mut self, core: &mut Core, from: ReplicaId, message: Message) {
        if !self.is_for_everybody(&message) && !core.config.committee.contains(from) {
            return core.refuse();
        }
        match message {
            Message::Propose(propose) => self.handle_propose(core, from, propose),
            Message::Prepare(vote) => self.handle_prepare(core, from, vote),
            Message::Commit(vote) => self.handle_commit(core, from, vote),
            Message::Decided(decided) => self.handle_decided(core, decided),
            Message::ViewChange(change) => self.handle_view_change(core, from, change),
            Message::NewView(new_view) => self.handle_new_view(core, new_view),
            Message::FetchBlock(wish) => self.handle_fetch_block(core, from, wish),
            Message::FetchedBlock(block) => self.handle_fetched_block(core, block),
        }
    }

    fn handle_status(&mut self, core: &mut Core, from: ReplicaId, status: &Status) {
        self.handle_recovery_status(core, from, status);
        self.help(core, from, status);
    }

    fn advance(&mut self, core: &mut Core) {
        self.watch_leader(core);
        self.propose(core);
    }

    fn retry(&mut self, core: &mut Core) {
        self.fetch_missing_block(core);
        self.repeat_view_change(core);
    }

    fn handle_stable(&mut self, core: &mut Core, position: u64) {
        self.forget_slots(core, position);
        self.end_recovery(core);
    }

    fn handle_restored(&mut self, core: &mut Core, position: u64, _order_state: &[u8]) {
        self.forget_slots(core, position);
        self.delivered = position;
        self.next_slot = self.next_slot.max(position + 1);
        self.deliver(core);
    }

    fn mark(&self) -> u64 {
        2 * self.view + u64::from(self.active)
    }

    fn is_busy(&self, core: &Core) -> bool {
        !self.active || self.is_waiting(core) || self.recovery.is_helping(core)
    }

    fn timeout(&self, core: &Core) -> Time {
        let deadline = self.deadline.unwrap_or(Time::MAX);
        deadline.min(self.patience_ends(core).unwrap_or(Time::MAX))
    }

    fn sizes(&self) -> (usize, usize) {
        (self.slots.len(), self.aside.values().map(VecDeque::len).sum())
    }
}

/// For a protocol that decides beforehand what PBFT is to propose.
impl Pbft {
    pub(crate) fn view(&self) -> u64 {
        self.view
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// The highest slot that is decided with all before it.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The slot that the next block goes into. Of use at the leader.
    pub(crate) fn next_slot(&self) -> u64 {
        self.next_slot
    }

    /// Whether this replica leads and may propose.
    pub(crate) fn leads(&self, core: &Core) -> bool {
        self.active && self.is_leader(core) && self.votes(core)
    }

    /// Batches that stand in blocks above what is delivered.
    pub(crate) fn proposed(&self) -> impl Iterator<Item = BatchName> {
        let open = self.slots.range(self.delivered + 1..);
        let view = self.view;
        let blocks = open.filter(move |(_, slot)| slot.proposed_in(view).is_some());
        blocks
            .flat_map(|(_, slot)| slot.blocks.values())
            .flat_map(|block| block.batches.iter().map(|batch| batch.name))
    }

    /// The leader was shown to lie: it is given up at once.
    pub(crate) fn give_up(&mut self, core: &mut Core) {
        if self.active && self.votes(core) {
            core.figures.leaders_given_up += 1;
            self.begin_view_change(core, self.view + 1);
        }
    }
}

impl Pbft {
    /// Messages that prove themselves, or ask.
    fn is_for_everybody(&self, message: &Message) -> bool {
        match message {
            Message::Decided(_) | Message::NewView(_) | Message::FetchBlock(_) | Message::FetchedBlock(_) => {
                true
            }
            Message::Propose(_) | Message::Prepare(_) | Message::Commit(_) | Message::ViewChange(_) => false,
        }
    }

    /// Whether this replica may vote.
    pub(crate) fn votes(&self, core: &Core) -> bool {
        core.is_member() && !core.lost
    }

    pub(crate) fn is_leader(&self, core: &Core) -> bool {
        core.config.committee.leader(self.view) == core.config.me
    }

    /// Whether a slot is one that is worked on.
    pub(crate) fn is_open(&self, core: &Core, slot: u64) -> bool {
        let low = core.checkpoints.stable_position();
        slot > low && slot <= low + core.config.window()
    }

    fn put_aside(&mut self, from: ReplicaId, message: Message) {
        let aside = self.aside.entry(from).or_default();
        if aside.len() >= ASIDE_MAX {
            aside.pop_front();
        }
        aside.push_back(message);
    }

    fn resume(&mut self, core: &mut Core, records: &[(Key, Vec<u8>)]) -> Result<(), Corrupt> {
        use crate::wire::Wire;
        for (key, value) in records {
            match key {
                Key::Protocol { kind: RECORD_VIEW, .. } => {
                    let record = ViewRecord::decoded(value)?;
                    if record.view > COUNT_MAX {
                        return Err(Corrupt);
                    }
                    (self.view, self.active) = (record.view, record.active);
                }
                Key::Protocol { kind: RECORD_SLOT, number } if *number > self.delivered => {
                    let slot = Slot::resumed(SlotRecord::decoded(value)?);
                    self.slots.insert(*number, slot);
                    self.next_slot = self.next_slot.max(number + 1);
                }
                Key::Stable
                | Key::Batch { .. }
                | Key::Protocol { .. }
                | Key::Epoch
                | Key::Origin { .. }
                | Key::Link { .. } => {}
            }
        }
        self.vote_again(core);
        if !self.active {
            self.announce_view_change(core);
        }
        Ok(())
    }
}
