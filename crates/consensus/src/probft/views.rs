//! Pieces across a change of view: members report what was prepared, the new leader shows a full quorum's reports, and
//! what follows from them is announced again, as everybody checks.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::ProBft;
use super::messages::{Claim, Claims, OwnMessage, Place, Proven, Report, Resume};
use super::sampled::holds;
use crate::core::{Core, Kind, mutant};
use crate::pbft::messages::Block;
use crate::types::{Digest, ReplicaId};

impl ProBft {
    /// PBFT gave a view up or entered another: so do pieces.
    pub(super) fn follow_view(&mut self, core: &mut Core) {
        let view = self.pbft.view();
        if self.sampling.is_none() || view == self.view {
            return;
        }
        self.view = view;
        (self.carried, self.resume, self.blocked) = (None, None, false);
        self.queue.clear();
        self.reports.retain(|_, report| report.view >= view);
        self.pieces.values_mut().for_each(super::pieces::Piece::clear_votes);
        self.pieces.retain(|_, piece| piece.accepted.is_some());
        self.report(core);
    }

    /// Says what was prepared to the leader of the view.
    pub(super) fn report(&mut self, core: &mut Core) {
        let leader = core.config.committee.leader(self.view);
        if !self.pbft.votes(core) {
            return;
        }
        let report = self.own_report(core);
        if leader == core.config.me {
            self.reports.insert(leader, report);
        } else {
            core.send_protocol(leader, &OwnMessage::Report(report));
        }
    }

    fn own_report(&self, core: &Core) -> Report {
        let delivered = self.pbft.delivered();
        let reach = Place { range: delivered + 1, index: 0 }..Place {
            range: delivered + 1 + super::RANGES_MAX,
            index: 0,
        };
        let pieces = self.pieces.range(reach);
        let prepared =
            pieces.filter_map(|(_, piece)| Some((piece.prepared.clone()?, piece.prepared_block.clone()?)));
        let prepared = prepared.filter(|(proven, _)| proven.claim.view < self.view);
        let (proven, blocks): (Vec<Proven>, Vec<Block>) =
            if mutant!(core, ReportsNothing) { (Vec::new(), Vec::new()) } else { prepared.unzip() };
        let claims: Vec<_> = proven.iter().map(|proven| proven.claim).collect();
        let sender = core.config.me;
        let digest = Claims::digest(sender, &claims);
        let signature = core.crypto.sign(&core.statement(Kind::Report, [self.view, 0], &digest));
        Report { view: self.view, claims: Claims { sender, claims, signature }, proven, blocks }
    }

    pub(super) fn handle_report(&mut self, core: &mut Core, from: ReplicaId, report: Report) {
        if report.view < self.view || core.config.committee.leader(report.view) != core.config.me {
            return;
        }
        if report.view == self.view
            && let Some(resume) = self.resume.clone()
        {
            return core.send_protocol(from, &OwnMessage::Resume(resume));
        }
        if self.reports.get(&from).is_some_and(|known| known.view >= report.view) {
            return;
        }
        if report.claims.sender != from || !self.is_sound(core, &report) {
            return core.refuse();
        }
        self.reports.insert(from, report);
    }

    fn is_sound(&self, core: &Core, report: &Report) -> bool {
        let claims = &report.claims.claims;
        let from = report.claims.sender;
        let shown = claims.len() == report.proven.len() && claims.len() == report.blocks.len();
        shown
            && are_signed(core, report.view, &report.claims)
            && claims.iter().zip(&report.proven).zip(&report.blocks).all(|((claim, proven), block)| {
                proven.claim == *claim
                    && proven.owner == from
                    && block.digest() == claim.digest
                    && self.is_proven(core, proven)
            })
    }

    fn is_proven(&self, core: &Core, proven: &Proven) -> bool {
        let Proven { claim, owner, votes } = proven;
        self.sampling.is_some_and(|sampling| holds(core, &sampling, Kind::PiecePrepare, claim, *owner, votes))
    }

    /// A leader with a quorum's reports shows what its view begins with.
    pub(super) fn begin_view(&mut self, core: &mut Core) {
        if self.carried.is_some() || !self.pbft.leads(core) {
            return;
        }
        let reports: Vec<_> = self.reports.values().filter(|report| report.view == self.view).collect();
        let quorum = core.config.committee.quorum();
        let Some(reports) = reports.get(..quorum) else { return };
        let claims: Vec<_> = reports.iter().map(|report| report.claims.clone()).collect();
        let mut proven = Vec::new();
        let mut queue = BTreeMap::new();
        for (place, (view, digest)) in winners(&claims) {
            let claim = Claim { place, view, digest };
            let pairs = reports.iter().flat_map(|report| report.proven.iter().zip(&report.blocks));
            let Some((proof, block)) = pairs.clone().find(|(proof, _)| proof.claim == claim) else {
                continue;
            };
            proven.push(proof.clone());
            queue.insert(place, block.clone());
        }
        let digest = Resume::digest(&claims, &proven);
        let signature = core.crypto.sign(&core.statement(Kind::Resume, [self.view, 0], &digest));
        let resume = Resume { view: self.view, claims, proven, signature };
        core.broadcast_protocol(&OwnMessage::Resume(resume.clone()));
        self.carried = Some(queue.iter().map(|(place, block)| (*place, block.digest())).collect());
        self.resume = Some(resume);
        let first = Place { range: self.pbft.next_slot(), index: 0 };
        self.queue = queue.split_off(&first);
        self.propose_rest_again(core);
    }

    pub(super) fn handle_resume(&mut self, core: &mut Core, resume: Resume) {
        if resume.view < self.view || (resume.view == self.view && self.carried.is_some()) {
            return;
        }
        if resume.view > self.view || !self.pbft.is_active() {
            if self.early_resume.as_ref().is_none_or(|early| early.view <= resume.view) {
                self.early_resume = Some(resume);
            }
            return;
        }
        match self.begins_with(core, &resume) {
            Some(carried) => self.carried = Some(carried),
            None => core.refuse(),
        }
    }

    /// What a view must begin with, as its leader's proof shows; `None` where it shows nothing.
    fn begins_with(&self, core: &Core, resume: &Resume) -> Option<BTreeMap<Place, Digest>> {
        let Resume { view, claims, proven, signature } = resume;
        let rising = claims.windows(2).all(|pair| pair[0].sender < pair[1].sender);
        let leader = core.config.committee.leader(*view);
        let statement = core.statement(Kind::Resume, [*view, 0], &Resume::digest(claims, proven));
        let sound = rising
            && claims.len() >= core.config.committee.quorum()
            && core.verify(leader, &statement, signature)
            && claims.iter().all(|claims| are_signed(core, *view, claims));
        if !sound {
            return None;
        }
        let carried: BTreeMap<_, _> = winners(claims);
        let same = carried.len() == proven.len()
            && carried.iter().zip(proven).all(|((place, (view, digest)), proven)| {
                proven.claim == Claim { place: *place, view: *view, digest: *digest }
                    && self.is_proven(core, proven)
            });
        same.then(|| carried.into_iter().map(|(place, (_, digest))| (place, digest)).collect())
    }
}

fn are_signed(core: &Core, view: u64, claims: &Claims) -> bool {
    let digest = Claims::digest(claims.sender, &claims.claims);
    let rising = claims.claims.windows(2).all(|pair| pair[0].place < pair[1].place);
    rising
        && core.config.committee.contains(claims.sender)
        && claims.claims.iter().all(|claim| claim.view < view)
        && core.verify(claims.sender, &core.statement(Kind::Report, [view, 0], &digest), &claims.signature)
}

/// For each place the digest that was prepared in the highest view; where an earlier leader had two prepared in one
/// view, the one that more members claim.
fn winners(claims: &[Claims]) -> BTreeMap<Place, (u64, Digest)> {
    let mut counts: BTreeMap<(Place, u64, Digest), usize> = BTreeMap::new();
    for claim in claims.iter().flat_map(|claims| &claims.claims) {
        *counts.entry((claim.place, claim.view, claim.digest)).or_default() += 1;
    }
    let mut best: BTreeMap<Place, (u64, usize, Digest)> = BTreeMap::new();
    for ((place, view, digest), count) in counts {
        let candidate = (view, count, digest);
        let entry = best.entry(place).or_insert(candidate);
        *entry = candidate.max(*entry);
    }
    best.into_iter().map(|(place, (view, _, digest))| (place, (view, digest))).collect()
}
