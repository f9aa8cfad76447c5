//! From pieces to a block of PBFT's: when the leader makes one of them, and which the others take.
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::ProBft;
use super::pieces::pieces_max;
use crate::batch::BatchName;
use crate::core::Core;
use crate::node::Protocol;
use crate::pbft::messages::{Block, Message as PbftMessage, Propose};
use crate::types::{ReplicaId, Time};

impl ProBft {
    /// When the leader's open range is due; `None` where nothing waits in it.
    pub(super) fn seals_at(&self, core: &Core) -> Option<Time> {
        if !self.pbft.leads(core) || !self.is_open() {
            return None;
        }
        let range = self.pbft.next_slot();
        if range != self.pbft.delivered() + 1 || !self.pbft.is_open(core, range) {
            return None;
        }
        let places: Vec<_> = self.range(range).map(|(place, _)| place).collect();
        let pieces = || places.iter().filter_map(|place| self.pieces.get(place));
        let Some(since) = pieces().map(|piece| piece.since).min() else {
            // What must be announced again stands in a later range: this one stays empty.
            return (!self.queue.is_empty()).then_some(core.now);
        };
        let full = places.len() == usize::from(pieces_max(core));
        let decided = pieces().all(|piece| piece.decided.is_some());
        Some(match (decided, full) {
            (true, true) => since,
            (true, false) => since + core.config.seal_delay,
            // A sample may never be enough. Nothing waits for it for long.
            (false, _) => since + 2 * core.config.seal_delay,
        })
    }

    /// The leader makes a block of the open range when it is due.
    pub(super) fn seal(&mut self, core: &mut Core) {
        if self.seals_at(core).is_some_and(|due| due <= core.now) {
            let range = self.pbft.next_slot();
            let batches = self.range(range).flat_map(|(_, block)| &block.batches);
            let mut seen = BTreeSet::new();
            // A batch may stand in pieces of two views; the first place counts.
            let batches = batches.filter(|batch| seen.insert(batch.name.place())).cloned().collect();
            self.pbft.propose_block(core, Block { batches });
        } else if self.pbft.leads(core)
            && self.is_open()
            && self.pieces.is_empty()
            && self.pbft.take_filler(core)
        {
            self.pbft.propose_block(core, Block::default());
        }
    }

    /// A block of the leader's: taken after the one before it, and only with all that this replica has voted for.
    pub(super) fn handle_block(&mut self, core: &mut Core, from: ReplicaId, propose: Propose) {
        let follows = propose.slot == self.pbft.delivered() + 1;
        let is_now = propose.view == self.pbft.view() && self.pbft.is_active();
        if !is_now || !follows {
            let in_reach = propose.slot <= self.pbft.delivered() + super::RANGES_MAX;
            let is_next =
                propose.view >= self.pbft.view() && propose.slot > self.pbft.delivered() && in_reach;
            // One place for a block before its time; what is pushed out comes again with the leader's next status.
            if is_next && from == core.config.committee.leader(propose.view) {
                self.held = Some((from, propose));
            }
            return;
        }
        if !self.keeps(&propose) {
            return core.refuse();
        }
        self.pbft.handle_message(core, from, PbftMessage::Propose(propose));
    }

    /// Whether a block has everything that was accepted in its range; and in its order, up to the first piece that this
    /// replica did not see.
    fn keeps(&self, propose: &Propose) -> bool {
        let names = |block: &Block| block.batches.iter().map(|batch| batch.name).collect::<Vec<BatchName>>();
        let sealed = names(&propose.block);
        let pieces: Vec<_> = self.range(propose.slot).map(|(place, block)| (place, names(block))).collect();
        let seen = pieces.iter().zip(0..).take_while(|((place, _), index)| place.index == *index);
        let mut known = BTreeSet::new();
        let ordered = seen.flat_map(|((_, names), _)| names).filter(|name| known.insert(name.place()));
        let mut rest = sealed.iter();
        let in_order = ordered.into_iter().all(|name| rest.any(|other| other == name));
        in_order && pieces.iter().flat_map(|(_, names)| names).all(|name| sealed.contains(name))
    }

    /// Looks again at what came before its time.
    pub(super) fn take_early(&mut self, core: &mut Core) {
        if let Some(resume) = self.early_resume.take() {
            self.handle_resume(core, resume);
        }
        for announce in core::mem::take(&mut self.early) {
            let leader = core.config.committee.leader(announce.view);
            self.handle_announce(core, leader, announce);
        }
        if let Some((from, propose)) = self.held.take() {
            self.handle_block(core, from, propose);
        }
    }
}
