//! Whom the members trust, made of committed evidence only: ratings that members have put into the order, and proofs of
//! lies. The same at every replica at the same position, and part of every snapshot.
//!
//! Fed by the commands of the order (`commands`); asked at the end of an epoch who shall sit in the next committee. No
//! replica's own opinion ever decides what a quorum is.
mod eigen;
mod seats;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::plan::Plan;
use crate::types::{Digest, ReplicaId};
use crate::wire::{Reader, Wire, WireError, wire_struct};

pub(crate) use eigen::{ONE, Standing};
use seats::Candidate;

/// Everything that members said of each other, and who was shown to lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    /// By who rates and who is rated.
    ratings: BTreeMap<(ReplicaId, ReplicaId), Opinion>,
    excluded: BTreeSet<ReplicaId>,
}

wire_struct! {
    /// How often a member did what it should, and how often not.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Opinion {
        pub(crate) satisfied: u32,
        pub(crate) unsatisfied: u32,
    }
}

wire_struct! {
    /// An opinion of one member.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Rated list 128 {
        pub(crate) member: ReplicaId,
        pub(crate) opinion: Opinion,
    }
}

/// More of either than this in one rating says nothing more.
const COUNT_MAX: u32 = 1 << 20;

impl Trust {
    /// A member's opinions of others, added to what it said before.
    pub(crate) fn rate(&mut self, rater: ReplicaId, rated: &[Rated]) {
        for Rated { member, opinion } in rated.iter().filter(|rated| rated.member != rater) {
            let known = self.ratings.entry((rater, *member)).or_default();
            let add = |sum: u32, more: u32| sum.saturating_add(more).min(COUNT_MAX);
            known.satisfied = add(known.satisfied, opinion.satisfied);
            known.unsatisfied = add(known.unsatisfied, opinion.unsatisfied);
        }
    }

    /// A member was shown to have signed two statements that exclude each other.
    pub(crate) fn exclude(&mut self, culprit: ReplicaId) {
        self.excluded.insert(culprit);
    }

    /// What a new epoch keeps: half of each opinion, so that the past fades, of those who are still members.
    pub(crate) fn age(&mut self, plan: &Plan) {
        self.ratings.retain(|(rater, rated), opinion| {
            opinion.satisfied /= 2;
            opinion.unsatisfied /= 2;
            plan.contains(*rater) && plan.contains(*rated)
        });
        self.excluded.retain(|culprit| plan.contains(*culprit));
    }

    /// Global trust of each member.
    pub(crate) fn standing(&self, plan: &Plan) -> Standing {
        let eligible: Vec<_> = plan.members.iter().map(|member| member.replica).collect();
        let eligible: Vec<_> =
            eligible.into_iter().filter(|member| !self.excluded.contains(member)).collect();
        eigen::standing(&eligible, |rater, rated| self.ratings.get(&(rater, rated)).copied())
    }

    /// The committee after a plan's, by trust and by a seed that nobody could choose freely.
    pub(crate) fn next_committee(&self, plan: &Plan, seed: &Digest) -> Vec<ReplicaId> {
        let seats = plan.rotation.map_or(plan.committee.len(), |rotation| usize::from(rotation.seats));
        let standing = self.standing(plan);
        if standing.members.is_empty() {
            return plan.committee.clone();
        }
        let candidates = standing.members.into_iter().map(|(member, trust)| Candidate {
            member,
            trust,
            fails: self.fails(plan, member),
            sits: plan.committee.contains(&member),
        });
        seats::draw(candidates.collect(), seats, seed)
    }

    /// Whether so many of the committee had more to complain of a member than to praise that one of them is correct.
    /// EigenTrust itself does not tell who failed from who was never seen.
    fn fails(&self, plan: &Plan, member: ReplicaId) -> bool {
        let complains = |rater: &&ReplicaId| {
            let opinion = self.ratings.get(&(**rater, member)).copied().unwrap_or_default();
            opinion.unsatisfied > opinion.satisfied
        };
        let complaints = plan.committee.iter().filter(complains).count();
        complaints > (plan.committee.len() - 1) / 3
    }
}

wire_struct! {
    struct Row list 16384 {
        rater: ReplicaId,
        rated: ReplicaId,
        opinion: Opinion,
    }
}

impl Wire for Trust {
    fn write(&self, out: &mut Vec<u8>) {
        let rows = self.ratings.iter();
        let rows: Vec<_> = rows
            .map(|((rater, rated), opinion)| Row { rater: *rater, rated: *rated, opinion: *opinion })
            .collect();
        rows.write(out);
        self.excluded.iter().copied().collect::<Vec<_>>().write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let rows: Vec<Row> = Wire::read(input)?;
        let excluded: Vec<ReplicaId> = Wire::read(input)?;
        let rising =
            rows.windows(2).all(|pair| (pair[0].rater, pair[0].rated) < (pair[1].rater, pair[1].rated))
                && excluded.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising {
            return Err(WireError::Invalid);
        }
        let ratings = rows.into_iter().map(|row| ((row.rater, row.rated), row.opinion)).collect();
        Ok(Self { ratings, excluded: excluded.into_iter().collect() })
    }
}
