//! A piece from its announcement to the votes that decide it.
use alloc::vec::Vec;

use super::messages::{
    Accepted, Announce, Claim, Equivocation, OwnMessage, PIECES_MAX, PieceRecord, PieceVote, Place, Proven,
};
use super::sampled::{SampledVotes, Subject};
use super::{EARLY_MAX, ProBft, RECORD_PIECE};
use crate::core::{Core, Kind, mutant};
use crate::crypto::Signature;
use crate::io::{Key, Output, Probable, Reached, Stage};
use crate::pbft::messages::Block;
use crate::pbft::normal::is_sound;
use crate::types::{Digest, ReplicaId, Time};
use crate::wire::Wire;

#[derive(Debug, Default)]
pub(super) struct Piece {
    /// What this replica accepted, in the highest view it did.
    pub(super) accepted: Option<Accepted>,
    pub(super) block: Option<Block>,
    pub(super) prepared: Option<Proven>,
    pub(super) prepared_block: Option<Block>,
    /// Votes of the current view.
    prepares: SampledVotes,
    commits: SampledVotes,
    /// The votes that decided it in this view.
    pub(super) decided: Option<Proven>,
    pub(super) since: Time,
}

impl Piece {
    pub(super) fn resumed(record: PieceRecord) -> Self {
        Self {
            accepted: record.accepted,
            block: record.block,
            prepared: record.prepared,
            prepared_block: record.prepared_block,
            ..Self::default()
        }
    }

    pub(super) fn accepted_in(&self, view: u64) -> Option<&Accepted> {
        self.accepted.as_ref().filter(|accepted| accepted.view == view)
    }

    pub(super) fn clear_votes(&mut self) {
        self.prepares.clear();
        self.commits.clear();
        self.decided = None;
    }
}

impl ProBft {
    /// The leader puts waiting batches into pieces, after those that it has to announce again.
    pub(super) fn announce(&mut self, core: &mut Core) {
        if !self.pbft.leads(core) || !self.is_open() {
            return;
        }
        let range = self.pbft.next_slot();
        if range > self.pbft.delivered() + 2 || !self.pbft.is_open(core, range) {
            return;
        }
        while let Some(entry) = self.queue.first_entry()
            && entry.key().range <= range
        {
            let (place, block) = entry.remove_entry();
            self.announce_piece(core, place, block);
        }
        while let Some(index) = self.next_index(core, range) {
            let batches = core.take_unproposed(piece_batches_max(core));
            if batches.is_empty() {
                return;
            }
            self.announce_piece(core, Place { range, index }, Block { batches });
        }
    }

    /// The place after the last piece of a range in this view; `None` where it is full.
    fn next_index(&self, core: &Core, range: u64) -> Option<u16> {
        let last = self.range(range).map(|(place, _)| place.index).last();
        Some(last.map_or(0, |last| last + 1)).filter(|index| *index < pieces_max(core))
    }

    /// Pieces of a range that were accepted in this view.
    pub(super) fn range(&self, range: u64) -> impl Iterator<Item = (Place, &Block)> {
        let places = Place { range, index: 0 }..Place { range: range + 1, index: 0 };
        let accepted = self.pieces.range(places).filter(|(_, piece)| piece.accepted_in(self.view).is_some());
        accepted.filter_map(|(place, piece)| Some((*place, piece.block.as_ref()?)))
    }

    fn announce_piece(&mut self, core: &mut Core, place: Place, block: Block) {
        let (view, digest) = (self.view, block.digest());
        if self.pieces.get(&place).is_some_and(|piece| piece.accepted_in(view).is_some()) {
            return;
        }
        let signature = core.crypto.sign(&core.statement(Kind::Piece, [view, place.number()], &digest));
        // On disk before it leaves: `accept` persists it.
        self.accept(core, place, Accepted { view, digest, signature }, block.clone());
        core.broadcast_protocol(&OwnMessage::Announce(Announce { view, place, block, signature }));
        self.check(core, place);
    }

    pub(super) fn handle_announce(&mut self, core: &mut Core, from: ReplicaId, announce: Announce) {
        let Announce { view, place, .. } = announce;
        if from != core.config.committee.leader(view) || place.index >= pieces_max(core) {
            return core.refuse();
        }
        let is_early = view > self.view
            || (view == self.view && self.carried.is_none())
            || place.range > self.pbft.delivered() + super::RANGES_MAX;
        if is_early && place.range > self.pbft.delivered() {
            if self.early.len() >= EARLY_MAX {
                self.early.pop_front();
            }
            return self.early.push_back(announce);
        }
        if view == self.view && self.is_open() && self.is_in_reach(core, place) {
            self.take_announcement(core, from, announce);
        }
    }

    fn take_announcement(&mut self, core: &mut Core, leader: ReplicaId, announce: Announce) {
        let Announce { view, place, block, signature } = announce;
        let digest = block.digest();
        if let Some(known) = self.pieces.get(&place).and_then(|piece| piece.accepted_in(view)).copied() {
            return self.compare(core, place, &known, (digest, signature));
        }
        let statement = core.statement(Kind::Piece, [view, place.number()], &digest);
        let sound = !block.batches.is_empty()
            && block.batches.len() <= piece_batches_max(core)
            && is_sound(core, &block)
            && self.continues(place, &digest)
            && core.verify(leader, &statement, &signature);
        if !sound {
            return core.refuse();
        }
        self.accept(core, place, Accepted { view, digest, signature }, block);
        self.check(core, place);
    }

    /// Whether a piece is what the view must begin with, or comes after all of that.
    fn continues(&self, place: Place, digest: &Digest) -> bool {
        let Some(carried) = &self.carried else { return false };
        let rest = place..Place { range: place.range + 1, index: 0 };
        match carried.get(&place) {
            Some(wanted) => wanted == digest,
            None => carried.range(rest).next().is_none(),
        }
    }

    fn accept(&mut self, core: &mut Core, place: Place, accepted: Accepted, block: Block) {
        let piece = self.pieces.entry(place).or_default();
        piece.accepted = Some(accepted);
        piece.block = Some(block);
        piece.since = core.now;
        if self.pbft.votes(core) {
            if !mutant!(core, PieceUnpersisted) {
                self.persist(core, place);
            }
            self.vote(core, Kind::PiecePrepare, place, &accepted);
        }
    }

    fn persist(&mut self, core: &mut Core, place: Place) {
        let Some(piece) = self.pieces.get(&place) else { return };
        let record = PieceRecord {
            place,
            accepted: piece.accepted,
            block: piece.block.clone(),
            prepared: piece.prepared.clone(),
            prepared_block: piece.prepared_block.clone(),
        };
        let number = place.number();
        self.kept.insert(number);
        core.put(Output::Persist {
            key: Key::Protocol { kind: RECORD_PIECE, number },
            value: record.encoded(),
        });
    }

    /// Says a vote to those whom the own random output chooses.
    fn vote(&mut self, core: &mut Core, kind: Kind, place: Place, accepted: &Accepted) {
        let Some(sampling) = self.sampling else { return };
        let Accepted { view, digest, signature: leader } = *accepted;
        let (own, hearers) = Subject { kind, view, place }.cast(core, &sampling, &digest);
        let vote = PieceVote { view, place, digest, leader, proof: own.proof, signature: own.signature };
        let message =
            if kind == Kind::PiecePrepare { OwnMessage::Prepare(vote) } else { OwnMessage::Commit(vote) };
        for hearer in hearers {
            if hearer != core.config.me {
                core.send_protocol(hearer, &message);
            } else if let Some(piece) = self.pieces.get_mut(&place) {
                let votes = if kind == Kind::PiecePrepare { &mut piece.prepares } else { &mut piece.commits };
                votes.add_own(digest, own);
            }
        }
    }

    pub(super) fn handle_prepare(&mut self, core: &mut Core, from: ReplicaId, vote: &PieceVote) {
        if self.takes(core, vote) {
            self.pieces.entry(vote.place).or_default().prepares.add(from, vote);
            self.check(core, vote.place);
        }
    }

    pub(super) fn handle_commit(&mut self, core: &mut Core, from: ReplicaId, vote: &PieceVote) {
        if self.takes(core, vote) {
            self.pieces.entry(vote.place).or_default().commits.add(from, vote);
            self.check(core, vote.place);
        }
    }

    /// Whether a vote is for now. One for another piece than this replica accepted may show that the leader lies.
    fn takes(&mut self, core: &mut Core, vote: &PieceVote) -> bool {
        if vote.view != self.view || self.blocked || !self.is_in_reach(core, vote.place) {
            return false;
        }
        let known = self.pieces.get(&vote.place).and_then(|piece| piece.accepted_in(vote.view)).copied();
        if let Some(known) = known
            && known.digest != vote.digest
        {
            self.compare(core, vote.place, &known, (vote.digest, vote.leader));
            return false;
        }
        true
    }

    fn compare(&mut self, core: &mut Core, place: Place, known: &Accepted, other: (Digest, Signature)) {
        if known.digest != other.0 {
            let first = (known.digest, known.signature);
            self.handle_equivocation(core, &Equivocation { view: known.view, place, first, second: other });
        }
    }

    /// The leader signed two pieces for one place: nothing more of this view is believed, and everybody hears why.
    pub(super) fn handle_equivocation(&mut self, core: &mut Core, shown: &Equivocation) {
        let Equivocation { view, place, first, second } = *shown;
        if view != self.view || self.blocked || first.0 == second.0 {
            return;
        }
        let leader = core.config.committee.leader(view);
        let numbers = [view, place.number()];
        let signed = |(digest, signature): &(Digest, Signature)| {
            core.verify(leader, &core.statement(Kind::Piece, numbers, digest), signature)
        };
        if !signed(&first) || !signed(&second) {
            return core.refuse();
        }
        self.blocked = true;
        core.accuse(leader, Kind::Piece, numbers, [first, second]);
        core.broadcast_protocol(&OwnMessage::Equivocation(*shown));
        self.pbft.give_up(core);
    }

    /// Prepared with one sampled quorum, decided with another.
    pub(super) fn check(&mut self, core: &mut Core, place: Place) {
        let (Some(sampling), view) = (self.sampling, self.view) else { return };
        if !self.is_open() {
            return;
        }
        let Some(piece) = self.pieces.get_mut(&place) else { return };
        let Some(accepted) = piece.accepted_in(view).copied() else { return };
        let claim = Claim { place, view, digest: accepted.digest };
        let owner = core.config.me;
        if piece.prepared.as_ref().is_none_or(|prepared| prepared.claim.view < view) {
            let subject = Subject { kind: Kind::PiecePrepare, view, place };
            if let Some(votes) = piece.prepares.quorum(core, &sampling, subject, &claim.digest) {
                piece.prepared = Some(Proven { claim, owner, votes });
                piece.prepared_block.clone_from(&piece.block);
                let took = core.now - piece.since;
                core.put(Output::Reached(Reached { stage: Stage::Quorum, took }));
                if self.pbft.votes(core) {
                    self.persist(core, place);
                    self.vote(core, Kind::PieceCommit, place, &accepted);
                }
            }
        }
        let Some(piece) = self.pieces.get_mut(&place).filter(|piece| piece.decided.is_none()) else { return };
        let subject = Subject { kind: Kind::PieceCommit, view, place };
        if let Some(votes) = piece.commits.quorum(core, &sampling, subject, &claim.digest) {
            piece.decided = Some(Proven { claim, owner, votes });
            let took = core.now - piece.since;
            core.put(Output::Reached(Reached { stage: Stage::Probable, took }));
        }
    }

    /// Tells of decided pieces, each after all before it.
    pub(super) fn tell(&mut self, core: &mut Core) {
        while self.told.range == self.pbft.delivered() + 1
            && let Some(piece) = self.pieces.get(&self.told)
            && let (Some(decided), Some(block)) = (&piece.decided, &piece.block)
        {
            let batches: Vec<_> = block.batches.iter().map(|batch| batch.name).collect();
            let here = batches.iter().filter_map(|name| core.mempool.payload(&name.digest));
            let transactions = here.flat_map(|batch| batch.transactions().map(|(id, _)| id)).collect();
            let (position, proof) = (self.told.range, decided.encoded());
            self.told.index += 1;
            core.put(Output::Probable(Probable { position, batches, transactions, proof }));
        }
    }
}

/// Pieces of a range. With [`piece_batches_max`] they never come to more than a block may have, whatever views they are of.
pub(super) fn pieces_max(core: &Core) -> u16 {
    core.config.block_batches_max.min(usize::from(PIECES_MAX)) as u16
}

/// Batches of a piece.
fn piece_batches_max(core: &Core) -> usize {
    (core.config.block_batches_max / usize::from(PIECES_MAX)).max(1)
}
