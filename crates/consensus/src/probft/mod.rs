//! ProBFT (Avelãs, Heydari, Alchieri, Distler and Bessani, PODC 2024, arXiv 2405.04606) over the shared mempool, with
//! two finalities.
//!
//! A leader announces blocks piece by piece. Votes for a piece go to samples of the members, drawn by a verifiable random
//! function that nobody can steer, and `l * sqrt(n)` of them decide: *probable*. Samples alone are not enough for
//! anything that cannot be taken back: where the leader and the network work together, two halves may decide two things.
//! So the pieces of a while become one block of PBFT's, and what that decides is applied: *certain*. PBFT is not
//! changed by anything here; a fault of the samples can make a forecast false, and never the order.
//!
//! Below [`SamplingRule::members_min`] members full quorums count, and this is PBFT.
//!
//! Obligations towards the forecasts, and where they are met:
//! - A correct member votes for one piece of each place and view, restarts included: [`pieces`] persists before it votes.
//! - What was prepared is announced again in the next view: [`views`] shows a full quorum's claims, and every member
//!   computes from them what the new leader must announce.
//! - What a member has voted for is in the block that makes it certain, in its order: [`seals`] refuses other blocks.
//! - A leader that signs two pieces for one place is given up by everybody who sees it: every vote carries its signature.
pub(crate) mod messages;
mod pieces;
mod sampled;
mod sampling;
mod seals;
mod views;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::core::{Core, Status};
use crate::io::{Corrupt, Key, Output};
use crate::node::Protocol;
use crate::pbft::Pbft;
use crate::pbft::messages::{Block, Message as PbftMessage, Propose};
use crate::types::{Digest, ReplicaId, Time};
use crate::wire::Wire;
use messages::{Announce, Message, OwnMessage, PieceRecord, Place, Report, Resume};
use pieces::Piece;
pub use sampling::{Sampling, SamplingRule};

/// The order by ProBFT.
#[derive(Debug)]
pub(crate) struct ProBft {
    pbft: Pbft,
    /// `None`: full quorums, and nothing of this here happens.
    sampling: Option<Sampling>,
    pieces: BTreeMap<Place, Piece>,
    /// Numbers of places that a record is kept of.
    kept: BTreeSet<u64>,
    /// PBFT's view, as far as pieces follow it.
    view: u64,
    /// What this view must begin with, once that is known.
    carried: Option<BTreeMap<Place, Digest>>,
    /// The leader's proof of it.
    resume: Option<Resume>,
    /// To the leader: what members have to say at the beginning of a view.
    reports: BTreeMap<ReplicaId, Report>,
    /// The leader's: pieces that it must announce again.
    queue: BTreeMap<Place, Block>,
    /// This view's leader was seen to lie.
    blocked: bool,
    /// Came before its time.
    early: VecDeque<Announce>,
    early_resume: Option<Resume>,
    /// A block of PBFT's that waits for the one before it.
    held: Option<(ReplicaId, Propose)>,
    /// The next place of the range that is told of.
    told: Place,
}

/// Records of pieces; beside PBFT's own.
const RECORD_PIECE: u8 = 3;
/// Ranges above what is certain in which anything is kept.
const RANGES_MAX: u64 = 4;
/// Announcements that are put aside.
const EARLY_MAX: usize = 32;

impl Protocol for ProBft {
    type Message = Message;

    fn new(core: &mut Core, records: &[(Key, Vec<u8>)]) -> Result<Self, Corrupt> {
        let pbft = Pbft::new(core, records)?;
        let sampling = Sampling::of(core.config.committee.members().len(), &core.config.sampling);
        let view = pbft.view();
        let mut probft = Self {
            pbft,
            sampling,
            pieces: BTreeMap::new(),
            kept: BTreeSet::new(),
            view,
            carried: (view == 0).then(BTreeMap::new),
            resume: None,
            reports: BTreeMap::new(),
            queue: BTreeMap::new(),
            blocked: false,
            early: VecDeque::new(),
            early_resume: None,
            held: None,
            told: Place { range: 0, index: 0 },
        };
        for (key, value) in records {
            if let Key::Protocol { kind: RECORD_PIECE, number } = key {
                let record = PieceRecord::decoded(value)?;
                probft.kept.insert(*number);
                probft.pieces.insert(record.place, Piece::resumed(record));
            }
        }
        Ok(probft)
    }

    fn handle_message(&mut self, core: &mut Core, from: ReplicaId, message: Message) {
        match message {
            Message::Pbft(PbftMessage::Propose(propose)) if self.sampling.is_some() => {
                self.handle_block(core, from, propose);
            }
            Message::Pbft(message) => self.pbft.handle_message(core, from, message),
            Message::Own(message) => self.handle_own(core, from, message),
        }
        self.follow_view(core);
    }

    fn handle_status(&mut self, core: &mut Core, from: ReplicaId, status: &Status) {
        self.pbft.handle_status(core, from, status);
    }

    fn advance(&mut self, core: &mut Core) {
        if self.sampling.is_none() {
            return self.pbft.advance(core);
        }
        self.pbft.watch_leader(core);
        self.follow_view(core);
        self.forget_certain();
        self.take_early(core);
        self.begin_view(core);
        self.announce(core);
        self.seal(core);
        self.tell(core);
    }

    fn retry(&mut self, core: &mut Core) {
        self.pbft.retry(core);
        self.follow_view(core);
        if self.sampling.is_some() && self.carried.is_none() {
            self.report(core);
        }
    }

    fn handle_stable(&mut self, core: &mut Core, position: u64) {
        self.pbft.handle_stable(core, position);
        let later = self.kept.split_off(&Place { range: position + 1, index: 0 }.number());
        for number in core::mem::replace(&mut self.kept, later) {
            core.put(Output::Forget { key: Key::Protocol { kind: RECORD_PIECE, number } });
        }
    }

    fn handle_restored(&mut self, core: &mut Core, position: u64, order_state: &[u8]) {
        self.pbft.handle_restored(core, position, order_state);
        self.forget_certain();
        self.propose_rest_again(core);
    }

    fn mark(&self) -> u64 {
        self.pbft.mark()
    }

    fn is_busy(&self, core: &Core) -> bool {
        self.pbft.is_busy(core) || !self.pieces.is_empty()
    }

    fn timeout(&self, core: &Core) -> Time {
        self.pbft.timeout(core).min(self.seals_at(core).unwrap_or(Time::MAX))
    }

    fn sizes(&self) -> (usize, usize) {
        let (slots, aside) = self.pbft.sizes();
        (slots, aside + self.early.len())
    }
}

impl ProBft {
    fn handle_own(&mut self, core: &mut Core, from: ReplicaId, message: OwnMessage) {
        if self.sampling.is_none() || !core.config.committee.contains(from) {
            return core.refuse();
        }
        match message {
            OwnMessage::Announce(announce) => self.handle_announce(core, from, announce),
            OwnMessage::Prepare(vote) => self.handle_prepare(core, from, &vote),
            OwnMessage::Commit(vote) => self.handle_commit(core, from, &vote),
            OwnMessage::Report(report) => self.handle_report(core, from, report),
            OwnMessage::Resume(resume) => self.handle_resume(core, resume),
            OwnMessage::Equivocation(shown) => self.handle_equivocation(core, &shown),
        }
    }

    /// Whether pieces of this view can be voted for.
    fn is_open(&self) -> bool {
        self.pbft.is_active() && self.carried.is_some() && !self.blocked
    }

    fn is_in_reach(&self, core: &Core, place: Place) -> bool {
        let delivered = self.pbft.delivered();
        place.index < pieces::pieces_max(core)
            && place.range > delivered
            && place.range <= delivered + RANGES_MAX
            && self.pbft.is_open(core, place.range)
    }

    /// Pieces whose range is decided are of no more use; their records are, to a replica that starts again.
    fn forget_certain(&mut self) {
        let first = Place { range: self.pbft.delivered() + 1, index: 0 };
        if self.pieces.first_key_value().is_some_and(|(place, _)| *place < first) {
            self.pieces = self.pieces.split_off(&first);
        }
        self.queue = self.queue.split_off(&first);
        self.told = self.told.max(first);
    }

    /// Batches that no block and no piece has go back to the mempool's queue.
    fn propose_rest_again(&self, core: &mut Core) {
        let view = self.view;
        let pieces = self.pieces.values().filter(|piece| piece.accepted_in(view).is_some());
        let blocks = pieces.filter_map(|piece| piece.block.as_ref()).chain(self.queue.values());
        let names = blocks.flat_map(|block| block.batches.iter().map(|batch| batch.name));
        let proposed: BTreeSet<_> = names.chain(self.pbft.proposed()).collect();
        core.mempool.propose_again(|name| proposed.contains(name));
    }
}

/// What a member's random output for a vote is made of.
#[cfg(feature = "mutations")]
pub(crate) fn random_input(core: &Core, kind: crate::core::Kind, view: u64, place: Place) -> Digest {
    sampling::input(&core.statement(kind, [view, place.number()], &Digest::default()))
}

/// Whether a forecast comes with the votes that it claims, and each was drawn to reach the replica that made it. For a
/// checker that knows nothing but keys and settings.
#[cfg(feature = "mutations")]
#[must_use]
pub fn is_probable(
    config: &crate::Config,
    crypto: alloc::boxed::Box<dyn crate::Crypto>,
    owner: ReplicaId,
    probable: &crate::Probable,
) -> bool {
    let Some(sampling) = Sampling::of(config.committee.members().len(), &config.sampling) else {
        return false;
    };
    let core = Core::new(config.clone(), crypto, None);
    let Ok(proven) = messages::Proven::decoded(&probable.proof) else { return false };
    let kind = crate::core::Kind::PieceCommit;
    proven.owner == owner && sampled::holds(&core, &sampling, kind, &proven.claim, owner, &proven.votes)
}
