//! The normal case: propose, prepare, commit, and help for those who missed some of it.
use super::messages::{Block, BlockWish, Decided, FetchedBlock, Message, Propose, Vote};
use super::slots::{Proof, Proposal, Slot};
use super::{PIPELINE_SLOTS_MAX, Pbft};
use crate::core::{Core, Kind, Status, mutant};
use crate::crypto::Signature;
use crate::io::{Output, Reached, Stage};
use crate::node::Protocol;
use crate::types::{Digest, ReplicaId};
use crate::votes::Added;

impl Pbft {
    /// The leader puts certified batches into slots.
    pub(super) fn propose(&mut self, core: &mut Core) {
        if !self.active || !self.is_leader(core) || !self.votes(core) {
            return;
        }
        while self.is_open(core, self.next_slot) && self.next_slot <= self.delivered + PIPELINE_SLOTS_MAX {
            let batches = core.take_unproposed(core.config.block_batches_max);
            if batches.is_empty() && !self.take_filler(core) {
                return;
            }
            self.propose_block(core, Block { batches });
        }
    }

    /// Whether an empty block is due, which moves the order on for one who waits for it.
    pub(crate) fn take_filler(&mut self, core: &Core) -> bool {
        self.next_slot == self.delivered + 1 && self.recovery.take_filler(core)
    }

    /// The leader puts a block into its next slot.
    pub(crate) fn propose_block(&mut self, core: &mut Core, block: Block) {
        let (view, slot) = (self.view, self.next_slot);
        self.next_slot += 1;
        let signature = self.accept(core, slot, block.digest(), Some(block.clone()));
        core.broadcast_protocol(&Message::Propose(Propose { view, slot, block, signature }));
        self.check_prepared(core, slot);
    }

    /// Accepts a digest for a slot of the current view and votes to prepare it. On disk before anything leaves.
    pub(super) fn accept(
        &mut self,
        core: &mut Core,
        number: u64,
        digest: Digest,
        block: Option<Block>,
    ) -> Signature {
        let view = self.view;
        let slot = self.slots.entry(number).or_default();
        slot.proposal = Some(Proposal { view, digest });
        slot.accepted_at = core.now;
        slot.forget_blocks();
        if let Some(block) = block {
            slot.blocks.insert(digest, block);
        }
        let signature = core.crypto.sign(&core.statement(Kind::Prepare, [view, number], &digest));
        if self.votes(core) {
            let slot = self.slots.entry(number).or_default();
            slot.prepares.add_own(core.config.me, digest, signature);
            if !mutant!(core, VotesUnpersisted) {
                self.persist_slot(core, number);
            }
        }
        signature
    }

    pub(super) fn handle_propose(&mut self, core: &mut Core, from: ReplicaId, propose: Propose) {
        if self.is_for_later(propose.view) {
            return self.put_aside(from, Message::Propose(propose));
        }
        let Propose { view, slot: number, block, signature } = propose;
        if view != self.view || !self.active || !self.is_open(core, number) {
            return;
        }
        if from != core.config.committee.leader(view) {
            return core.refuse();
        }
        let digest = block.digest();
        let slot = self.slots.entry(number).or_default();
        if let Added::Conflict(other, other_signature) = slot.prepares.add(from, digest, signature) {
            return core.accuse(
                from,
                Kind::Prepare,
                [view, number],
                [(other, other_signature), (digest, signature)],
            );
        }
        if slot.proposed_in(view).is_some() {
            return;
        }
        if !is_sound(core, &block) {
            slot.prepares.remove(from);
            return core.refuse();
        }
        let signature = self.accept(core, number, digest, Some(block));
        if self.votes(core) {
            core.broadcast_protocol(&Message::Prepare(Vote { view, slot: number, digest, signature }));
        }
        self.check_prepared(core, number);
        self.check_decided(core, number, digest);
    }

    pub(super) fn handle_prepare(&mut self, core: &mut Core, from: ReplicaId, vote: Vote) {
        if self.is_for_later(vote.view) {
            return self.put_aside(from, Message::Prepare(vote));
        }
        if vote.view != self.view || !self.active || !self.is_open(core, vote.slot) {
            return;
        }
        let slot = self.slots.entry(vote.slot).or_default();
        match slot.prepares.add(from, vote.digest, vote.signature) {
            Added::New => self.check_prepared(core, vote.slot),
            Added::Same => {}
            Added::Conflict(other, signature) => {
                let votes = [(other, signature), (vote.digest, vote.signature)];
                core.accuse(from, Kind::Prepare, [vote.view, vote.slot], votes);
            }
        }
    }

    /// With a quorum's votes to prepare what this replica accepted, it votes to commit. The proof is on disk first.
    pub(super) fn check_prepared(&mut self, core: &mut Core, number: u64) {
        let view = self.view;
        let quorum = prepare_quorum(core);
        let Some(slot) = self.slots.get_mut(&number) else { return };
        let Some(digest) = slot.proposed_in(view).filter(|_| slot.prepared_in(view).is_none()) else {
            return;
        };
        let statement = core.statement(Kind::Prepare, [view, number], &digest);
        let Some(certificate) = slot.prepares.certificate(&*core.crypto, quorum, &digest, &statement) else {
            return;
        };
        slot.prepared = Some(super::messages::Prepared { slot: number, view, digest, certificate });
        let took = core.now - slot.accepted_at;
        core.put(Output::Reached(Reached { stage: Stage::Quorum, took }));
        if !self.votes(core) {
            return;
        }
        if !mutant!(core, PreparedUnpersisted) {
            self.persist_slot(core, number);
        }
        let signature = core.crypto.sign(&core.statement(Kind::Commit, [view, number], &digest));
        self.slots.entry(number).or_default().commits.add_own(core.config.me, digest, signature);
        core.broadcast_protocol(&Message::Commit(Vote { view, slot: number, digest, signature }));
        self.check_decided(core, number, digest);
    }

    pub(super) fn handle_commit(&mut self, core: &mut Core, from: ReplicaId, vote: Vote) {
        if self.is_for_later(vote.view) {
            return self.put_aside(from, Message::Commit(vote));
        }
        if vote.view != self.view || !self.active || !self.is_open(core, vote.slot) {
            return;
        }
        let slot = self.slots.entry(vote.slot).or_default();
        match slot.commits.add(from, vote.digest, vote.signature) {
            Added::New => self.check_decided(core, vote.slot, vote.digest),
            Added::Same => {}
            Added::Conflict(other, signature) => {
                let votes = [(other, signature), (vote.digest, vote.signature)];
                core.accuse(from, Kind::Commit, [vote.view, vote.slot], votes);
            }
        }
    }

    fn check_decided(&mut self, core: &mut Core, number: u64, digest: Digest) {
        let view = self.view;
        let quorum = commit_quorum(core);
        let Some(slot) = self.slots.get_mut(&number) else { return };
        let statement = core.statement(Kind::Commit, [view, number], &digest);
        let Some(certificate) = slot.commits.certificate(&*core.crypto, quorum, &digest, &statement) else {
            return;
        };
        self.decide(core, number, Proof { view, digest, certificate });
    }

    fn decide(&mut self, core: &mut Core, number: u64, proof: Proof) {
        let slot = self.slots.entry(number).or_default();
        match &slot.decided {
            Some(decided) if decided.digest != proof.digest => core.figures.conflicts += 1,
            Some(_) => {}
            None => {
                slot.decided = Some(proof);
                if slot.proposal.is_some() {
                    let took = core.now - slot.accepted_at;
                    core.put(Output::Reached(Reached { stage: Stage::Certain, took }));
                }
                self.deliver(core);
            }
        }
    }

    /// A block with its proof, from anybody.
    pub(super) fn handle_decided(&mut self, core: &mut Core, decided: Decided) {
        let Decided { slot: number, view, block, certificate } = decided;
        let known = self.slots.get(&number).is_some_and(|slot| slot.decided.is_some());
        if number <= self.delivered || !self.is_open(core, number) || (known && self.delivered + 1 != number)
        {
            return;
        }
        let digest = block.digest();
        let statement = core.statement(Kind::Commit, [view, number], &digest);
        if !certificate.holds(&*core.crypto, &core.config.committee, &statement) {
            return core.refuse();
        }
        self.slots.entry(number).or_default().blocks.insert(digest, block);
        self.decide(core, number, Proof { view, digest, certificate });
        self.deliver(core);
    }

    fn is_for_later(&self, view: u64) -> bool {
        view > self.view || (view == self.view && !self.active)
    }

    /// Sends a peer what it lacks of what this replica has.
    pub(super) fn help(&mut self, core: &mut Core, peer: ReplicaId, status: &Status) {
        if status.mark < self.mark() && self.active {
            self.send_new_view(core, peer);
        }
        for number in status.position + 1..=status.position + HELPED_SLOTS_MAX {
            let Some(slot) = self.slots.get(&number) else { continue };
            if let Some(proof) = &slot.decided
                && let Some(block) = slot.blocks.get(&proof.digest)
            {
                let (view, block, certificate) = (proof.view, block.clone(), proof.certificate.clone());
                let decided = Decided { slot: number, view, block, certificate };
                core.send_protocol(peer, &Message::Decided(decided));
            } else if self.active && status.mark == self.mark() && self.votes(core) {
                self.send_votes(core, peer, number);
            }
        }
    }

    /// What this replica said about a slot in this view, once more.
    fn send_votes(&self, core: &mut Core, peer: ReplicaId, number: u64) {
        let view = self.view;
        let Some(slot) = self.slots.get(&number) else { return };
        let Some(digest) = slot.proposed_in(view) else { return };
        let signature = core.crypto.sign(&core.statement(Kind::Prepare, [view, number], &digest));
        match slot.blocks.get(&digest) {
            Some(block) if self.is_leader(core) => {
                let propose = Propose { view, slot: number, block: block.clone(), signature };
                core.send_protocol(peer, &Message::Propose(propose));
            }
            _ => core.send_protocol(peer, &Message::Prepare(Vote { view, slot: number, digest, signature })),
        }
        if slot.prepared_in(view) == Some(digest) {
            let signature = core.crypto.sign(&core.statement(Kind::Commit, [view, number], &digest));
            core.send_protocol(peer, &Message::Commit(Vote { view, slot: number, digest, signature }));
        }
    }

    /// After a restart: the own votes of the current view count again.
    pub(super) fn vote_again(&mut self, core: &mut Core) {
        if !self.votes(core) {
            return;
        }
        for (number, slot) in &mut self.slots {
            if let Some(digest) = slot.proposed_in(self.view) {
                let signature =
                    core.crypto.sign(&core.statement(Kind::Prepare, [self.view, *number], &digest));
                slot.prepares.add_own(core.config.me, digest, signature);
            }
            if let Some(digest) = slot.prepared_in(self.view) {
                let signature =
                    core.crypto.sign(&core.statement(Kind::Commit, [self.view, *number], &digest));
                slot.commits.add_own(core.config.me, digest, signature);
            }
        }
    }

    /// Asks for the block that delivery waits for.
    pub(super) fn fetch_missing_block(&mut self, core: &mut Core) {
        let number = self.delivered + 1;
        let Some(slot) = self.slots.get(&number) else { return };
        if let Some(proof) = &slot.decided
            && !slot.blocks.contains_key(&proof.digest)
        {
            let wish = BlockWish { slot: number, digest: proof.digest };
            core.broadcast_protocol(&Message::FetchBlock(wish));
        }
    }

    pub(super) fn handle_fetch_block(&mut self, core: &mut Core, from: ReplicaId, wish: BlockWish) {
        let slot = self.slots.get(&wish.slot);
        if let Some(block) = slot.and_then(|slot| slot.blocks.get(&wish.digest)).cloned() {
            core.send_protocol(from, &Message::FetchedBlock(FetchedBlock { slot: wish.slot, block }));
        }
    }

    /// Taken only where its digest is wanted.
    pub(super) fn handle_fetched_block(&mut self, core: &mut Core, fetched: FetchedBlock) {
        let Some(slot) = self.slots.get_mut(&fetched.slot) else { return };
        let digest = fetched.block.digest();
        let wanted = slot.decided.as_ref().is_some_and(|proof| proof.digest == digest);
        // Everybody was asked: all answers but the first are of no use.
        if wanted && slot.blocks.insert(digest, fetched.block).is_none() {
            self.deliver(core);
        }
    }

    /// Starts the slots of a new view with what it begins with.
    pub(super) fn clear_votes(&mut self) {
        for slot in self.slots.values_mut() {
            (slot.prepares, slot.commits) = Default::default();
        }
        self.slots.retain(|_, slot| !slot.is_empty());
    }
}

impl Slot {
    /// Nothing but votes ever came for it.
    fn is_empty(&self) -> bool {
        self.proposal.is_none() && self.prepared.is_none() && self.decided.is_none() && self.blocks.is_empty()
    }
}

/// Whether every batch of a block is kept by a quorum, and none stands in it twice.
pub(crate) fn is_sound(core: &Core, block: &Block) -> bool {
    let mut places: alloc::vec::Vec<_> = block.batches.iter().map(|batch| batch.name.place()).collect();
    places.sort_unstable();
    let distinct = places.windows(2).all(|pair| pair[0] != pair[1]);
    distinct
        && block.batches.len() <= core.config.block_batches_max
        && block.batches.iter().all(|batch| core.is_certified(batch))
}

fn prepare_quorum(core: &Core) -> usize {
    core.config.committee.quorum() - usize::from(mutant!(core, PrepareQuorumSmall))
}

fn commit_quorum(core: &Core) -> usize {
    core.config.committee.quorum() - usize::from(mutant!(core, CommitQuorumSmall))
}

/// Slots that one status is answered with.
const HELPED_SLOTS_MAX: u64 = 8;
