//! EigenTrust (Kamvar, Schlosser, Garcia-Molina, WWW 2003) in whole numbers: the same result on every machine.
//!
//! Each member's opinions `max(satisfied - unsatisfied, 0)` are scaled to a sum of one; who has none trusts all alike.
//! Then `t := (1 - a) * C' * t + a * p` with `p` the same for all and `a = 1/5`, a fixed number of times: every step
//! brings two vectors closer by `1 - a`, so that 32 of them leave at most `2 * 0.8^32 < 0.002` of any difference.
use alloc::vec;
use alloc::vec::Vec;

use super::Opinion;
use crate::types::ReplicaId;

/// Trust of one, in the fixed point of [`Standing`]: 2^32.
pub(crate) const ONE: u64 = 1 << 32;
/// Steps of the iteration.
const ROUNDS: usize = 32;
/// The vector counts as settled when a step moves so much of all trust: a thousandth.
const SETTLED: u64 = ONE / 1000;

/// Global trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Members and their trust in units of 2^-32, by number. The sum is one, less what rounding took.
    pub(crate) members: Vec<(ReplicaId, u64)>,
    /// The step after which nothing much changed any more, from 1; `ROUNDS + 1` where something still did.
    pub(crate) settled_after: usize,
}

/// The trust of members in each other, from what each thinks of each.
pub(super) fn standing(
    members: &[ReplicaId],
    opinion: impl Fn(ReplicaId, ReplicaId) -> Option<Opinion>,
) -> Standing {
    let count = members.len();
    if count == 0 {
        return Standing { members: Vec::new(), settled_after: 0 };
    }
    let even = ONE / count as u64;
    let rows: Vec<Vec<u64>> = members.iter().map(|rater| row(*rater, members, &opinion)).collect();
    let mut trust = vec![even; count];
    let mut settled_after = ROUNDS + 1;
    for round in 1..=ROUNDS {
        let next = step(&rows, &trust, even);
        let moved: u64 = next.iter().zip(&trust).map(|(new, old)| new.abs_diff(*old)).sum();
        trust = next;
        if moved < SETTLED {
            settled_after = settled_after.min(round);
        }
    }
    Standing { members: members.iter().copied().zip(trust).collect(), settled_after }
}

/// One member's opinions, scaled to [`ONE`].
fn row(
    rater: ReplicaId,
    members: &[ReplicaId],
    opinion: &impl Fn(ReplicaId, ReplicaId) -> Option<Opinion>,
) -> Vec<u64> {
    let worth = |rated: &ReplicaId| {
        let opinion = opinion(rater, *rated).filter(|_| *rated != rater).unwrap_or_default();
        u64::from(opinion.satisfied.saturating_sub(opinion.unsatisfied))
    };
    let worths: Vec<u64> = members.iter().map(worth).collect();
    let sum: u64 = worths.iter().sum();
    if sum == 0 {
        return vec![ONE / members.len() as u64; members.len()];
    }
    worths.into_iter().map(|worth| (u128::from(worth) * u128::from(ONE) / u128::from(sum)) as u64).collect()
}

fn step(rows: &[Vec<u64>], trust: &[u64], even: u64) -> Vec<u64> {
    let heard = |rated: usize| {
        let parts = rows.iter().zip(trust).map(|(row, trust)| u128::from(row[rated]) * u128::from(*trust));
        (parts.sum::<u128>() >> 32) as u64
    };
    (0..trust.len()).map(|rated| (heard(rated) * 4 + even) / 5).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(satisfied: u32) -> Option<Opinion> {
        Some(Opinion { satisfied, unsatisfied: 0 })
    }

    fn all(count: u16) -> Vec<ReplicaId> {
        (0..count).map(ReplicaId).collect()
    }

    #[test]
    fn without_opinions_all_are_alike() {
        let standing = standing(&all(10), |_, _| None);
        let trusts: Vec<_> = standing.members.iter().map(|(_, trust)| *trust).collect();
        assert!(trusts.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(standing.settled_after, 1);
    }

    #[test]
    fn who_fails_others_is_trusted_least_whatever_it_says() {
        let liar = ReplicaId(3);
        let standing = standing(&all(10), |rater, rated| match (rater, rated) {
            (_, rated) if rated == liar => Some(Opinion { satisfied: 5, unsatisfied: 20 }),
            _ => good(50),
        });
        let trust = |replica: u16| standing.members[usize::from(replica)].1;
        assert!((0..10).filter(|other| *other != 3).all(|other| trust(other) > 4 * trust(3)));
    }

    /// A generated network in which a third of the members collude: they praise each other, and of the rest they say
    /// what is true (`is_closed` false) or nothing but complaints.
    fn collusion(count: u16, is_closed: bool) -> (Standing, impl Fn(ReplicaId) -> bool) {
        let bad = |replica: ReplicaId| replica.0.is_multiple_of(3);
        let mut seed = u64::from(count);
        let mut chance = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as u32
        };
        let mut one = |rater: ReplicaId, rated: ReplicaId| match (bad(rater), bad(rated)) {
            (true, true) => good(40),
            (true, false) if is_closed => Some(Opinion { satisfied: 0, unsatisfied: 9 }),
            (false, _) if chance() % 4 > 0 && count > 16 => None,
            (false, true) => Some(Opinion { satisfied: chance() % 8, unsatisfied: 12 }),
            (_, false) => Some(Opinion { satisfied: 10 + chance() % 30, unsatisfied: chance() % 4 }),
        };
        let table: Vec<Vec<Option<Opinion>>> = all(count)
            .into_iter()
            .map(|rater| all(count).into_iter().map(|rated| one(rater, rated)).collect())
            .collect();
        let opinion = |rater: ReplicaId, rated: ReplicaId| table[usize::from(rater.0)][usize::from(rated.0)];
        (standing(&all(count), opinion), bad)
    }

    /// As in Kamvar et al.; a clique that nobody outside trusts and that trusts nobody outside loses its trust by a fifth
    /// with each step, which is the slowest that there is.
    #[test]
    fn trust_settles_in_fewer_than_ten_steps_and_a_closed_clique_in_twenty() {
        for (count, is_closed, steps) in
            [(16, false, 9), (100, false, 9), (128, false, 9), (16, true, 20), (100, true, 20)]
        {
            let (standing, bad) = collusion(count, is_closed);
            assert!(standing.settled_after <= steps, "{count}, {is_closed}: {}", standing.settled_after);
            let mean = |wanted: bool| {
                let some = standing.members.iter().filter(|(member, _)| bad(*member) == wanted);
                let some: Vec<u64> = some.map(|(_, trust)| *trust).collect();
                some.iter().sum::<u64>() / some.len() as u64
            };
            // A clique keeps what everybody begins with, and gets no more.
            let even = ONE / u64::from(count);
            let most = if is_closed { even + even / 4 } else { mean(false) / 2 };
            assert!(mean(true) <= most, "{count}, {is_closed}: {} for who colludes", mean(true));
            let sum: u64 = standing.members.iter().map(|(_, trust)| trust).sum();
            assert!(sum <= ONE && sum > ONE - ONE / 1000, "{sum}");
        }
    }
}
