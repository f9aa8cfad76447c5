//! A slot of the order: what was proposed, prepared and decided for it, and what of that is kept on disk.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::messages::{Block, Prepared};
use super::{Pbft, RECORD_SLOT};
use crate::core::Core;
use crate::crypto::Certificate;
use crate::io::{Key, Output};
use crate::types::{Digest, Time};
use crate::votes::Votes;
use crate::wire::{Wire, wire_struct};

#[derive(Debug, Default)]
pub(super) struct Slot {
    /// What this replica accepted, in the highest view it did.
    pub(super) proposal: Option<Proposal>,
    /// When it did; 0 where that was before a restart.
    pub(super) accepted_at: Time,
    /// Blocks by digest: the proposal's, the prepared one's, the decided one's.
    pub(super) blocks: BTreeMap<Digest, Block>,
    /// Votes of the current view.
    pub(super) prepares: Votes,
    pub(super) commits: Votes,
    pub(super) prepared: Option<Prepared>,
    pub(super) decided: Option<Proof>,
}

wire_struct! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Proposal {
        pub(super) view: u64,
        pub(super) digest: Digest,
    }
}

#[derive(Debug, Clone)]
pub(super) struct Proof {
    pub(super) view: u64,
    pub(super) digest: Digest,
    pub(super) certificate: Certificate,
}

wire_struct! {
    /// What is kept of a slot. On disk before a vote for it leaves.
    #[derive(Debug, Clone)]
    pub(super) struct SlotRecord {
        proposal: Option<Proposal>,
        prepared: Option<Prepared>,
        proposed_block: Option<Block>,
        prepared_block: Option<Block>,
    }
}

impl Slot {
    pub(super) fn resumed(record: SlotRecord) -> Self {
        let blocks = record.proposed_block.into_iter().chain(record.prepared_block);
        Self {
            proposal: record.proposal,
            blocks: blocks.map(|block| (block.digest(), block)).collect(),
            prepared: record.prepared,
            ..Self::default()
        }
    }

    fn record(&self) -> SlotRecord {
        let block = |digest: Option<&Digest>| digest.and_then(|digest| self.blocks.get(digest)).cloned();
        let proposed = self.proposal.as_ref().map(|proposal| &proposal.digest);
        let prepared = self.prepared.as_ref().map(|prepared| &prepared.digest);
        SlotRecord {
            proposal: self.proposal,
            prepared: self.prepared.clone(),
            proposed_block: block(proposed),
            prepared_block: block(prepared.filter(|prepared| Some(*prepared) != proposed)),
        }
    }

    /// The digest accepted in a view.
    pub(super) fn proposed_in(&self, view: u64) -> Option<Digest> {
        self.proposal.filter(|proposal| proposal.view == view).map(|proposal| proposal.digest)
    }

    /// Whether a view's proposal was prepared, so that a vote to commit it was cast.
    pub(super) fn prepared_in(&self, view: u64) -> Option<Digest> {
        self.prepared.as_ref().filter(|prepared| prepared.view == view).map(|prepared| prepared.digest)
    }

    /// Keeps only blocks that are still of use.
    pub(super) fn forget_blocks(&mut self) {
        let used = [
            self.proposal.as_ref().map(|proposal| proposal.digest),
            self.prepared.as_ref().map(|prepared| prepared.digest),
            self.decided.as_ref().map(|proof| proof.digest),
        ];
        self.blocks.retain(|digest, _| used.contains(&Some(*digest)));
    }
}

/// Who of the committee voted for what was decided in time, and who not, for a slot that this replica saw the votes of.
fn observe(core: &mut Core, slot: &Slot) {
    let Some(decided) = slot.decided.as_ref().filter(|_| !slot.commits.is_empty()) else { return };
    let me = core.config.me;
    for member in core.config.committee.members().to_vec().into_iter().filter(|member| *member != me) {
        core.observe(member, slot.commits.is_for(member, &decided.digest));
    }
}

impl Pbft {
    pub(super) fn persist_slot(&self, core: &mut Core, number: u64) {
        let Some(slot) = self.slots.get(&number) else { return };
        let key = Key::Protocol { kind: RECORD_SLOT, number };
        core.put(Output::Persist { key, value: slot.record().encoded() });
    }

    /// A checkpoint stands for slots up to here.
    pub(super) fn forget_slots(&mut self, core: &mut Core, position: u64) {
        let later = self.slots.split_off(&(position + 1));
        let forgotten = core::mem::replace(&mut self.slots, later);
        for (number, slot) in forgotten {
            observe(core, &slot);
            core.put(Output::Forget { key: Key::Protocol { kind: RECORD_SLOT, number } });
        }
        self.delivered = self.delivered.max(position);
        self.next_slot = self.next_slot.max(position + 1);
    }

    /// Hands decided blocks to the ledger, in order and without gaps.
    pub(super) fn deliver(&mut self, core: &mut Core) {
        while let Some(slot) = self.slots.get(&(self.delivered + 1)) {
            let Some(proof) = &slot.decided else { return };
            let Some(block) = slot.blocks.get(&proof.digest).cloned() else {
                return self.fetch_missing_block(core);
            };
            self.delivered += 1;
            // What others decided in a later view is not proposed for once more.
            self.next_slot = self.next_slot.max(self.delivered + 1);
            core.order(self.delivered, block.batches, Vec::new());
        }
    }
}
