//! Votes that reached this replica because their senders drew it. Checked only when they may be enough, and no more of
//! them than are: a random proof costs three signatures.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::messages::{Claim, PieceVote, Place};
use super::sampling::{Sampling, input};
use crate::core::{Core, Kind, mutant};
use crate::crypto::{RandomProof, Signature};
use crate::types::{Digest, ReplicaId};
use crate::wire::wire_struct;

wire_struct! {
    /// One vote of a sampled quorum.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct SampledVote list 128 {
        pub(crate) signer: ReplicaId,
        pub(crate) proof: RandomProof,
        pub(crate) signature: Signature,
    }
}

/// Votes of one phase for one place in one view.
#[derive(Debug, Default)]
pub(super) struct SampledVotes {
    votes: BTreeMap<ReplicaId, (Digest, SampledVote, bool)>,
}

/// What a vote is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) view: u64,
    pub(super) place: Place,
}

impl Subject {
    fn statement(&self, core: &Core, digest: &Digest) -> [u8; 81] {
        core.statement(self.kind, [self.view, self.place.number()], digest)
    }

    /// Who hears a member's vote, whatever it is for. `None` where the proof is not the member's.
    fn hearers(
        &self,
        core: &Core,
        sampling: &Sampling,
        voter: ReplicaId,
        proof: &RandomProof,
    ) -> Option<Vec<ReplicaId>> {
        let input = input(&self.statement(core, &Digest::default()));
        let output = core.crypto.check_random(voter, &input.0, proof)?;
        Some(sampling.draw(&output, &core.config.committee))
    }

    /// The own vote, and who hears it.
    pub(super) fn cast(
        &self,
        core: &Core,
        sampling: &Sampling,
        digest: &Digest,
    ) -> (SampledVote, Vec<ReplicaId>) {
        let input = input(&self.statement(core, &Digest::default()));
        let (output, proof) = core.crypto.random(&input.0);
        let signature = core.crypto.sign(&self.statement(core, digest));
        let vote = SampledVote { signer: core.config.me, proof, signature };
        (vote, sampling.draw(&output, &core.config.committee))
    }

    fn is_good(
        &self,
        core: &Core,
        sampling: &Sampling,
        owner: ReplicaId,
        digest: &Digest,
        vote: &SampledVote,
    ) -> bool {
        let hears = |hearers: Vec<ReplicaId>| hearers.contains(&owner) || mutant!(core, SampleUnchecked);
        let drawn = self.hearers(core, sampling, vote.signer, &vote.proof).is_some_and(hears);
        (drawn || mutant!(core, RandomProofUnchecked))
            && core.verify(vote.signer, &self.statement(core, digest), &vote.signature)
    }
}

impl SampledVotes {
    /// The first vote of a peer stands; another one is dropped. A false one takes the place of its own sender's only.
    pub(super) fn add(&mut self, from: ReplicaId, vote: &PieceVote) {
        let sampled = SampledVote { signer: from, proof: vote.proof, signature: vote.signature };
        self.votes.entry(from).or_insert((vote.digest, sampled, false));
    }

    pub(super) fn add_own(&mut self, digest: Digest, vote: SampledVote) {
        self.votes.insert(vote.signer, (digest, vote, true));
    }

    pub(super) fn clear(&mut self) {
        self.votes.clear();
    }

    /// The votes of a quorum for a digest, once they are enough. Bad ones are dropped.
    pub(super) fn quorum(
        &mut self,
        core: &Core,
        sampling: &Sampling,
        subject: Subject,
        digest: &Digest,
    ) -> Option<Vec<SampledVote>> {
        let wanted = sampling.quorum - usize::from(mutant!(core, SampledQuorumSmall));
        if self.votes.values().filter(|(other, ..)| other == digest).count() < wanted {
            return None;
        }
        let mut good = Vec::new();
        self.votes.retain(|_, (other, vote, checked)| {
            if other != digest || good.len() == wanted {
                return true;
            }
            *checked = *checked || subject.is_good(core, sampling, core.config.me, digest, vote);
            if *checked {
                good.push(*vote);
            }
            *checked
        });
        (good.len() == wanted).then_some(good)
    }
}

/// Whether votes make a sampled quorum for what is claimed, at the replica that they were drawn to reach.
pub(super) fn holds(
    core: &Core,
    sampling: &Sampling,
    kind: Kind,
    claim: &Claim,
    owner: ReplicaId,
    votes: &[SampledVote],
) -> bool {
    let subject = Subject { kind, view: claim.view, place: claim.place };
    let rising = votes.windows(2).all(|pair| pair[0].signer < pair[1].signer);
    let good = |vote: &SampledVote| {
        core.config.committee.contains(vote.signer)
            && subject.is_good(core, sampling, owner, &claim.digest, vote)
    };
    rising && votes.len() >= sampling.quorum && votes.iter().all(good)
}
