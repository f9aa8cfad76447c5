//! Who sits in the next committee: drawn by trust, so that nobody can sit down for good by being good for a while, and
//! with a third of the seats for members that did not sit last time.
use alloc::vec::Vec;

use crate::types::{Digest, ReplicaId, domain};
use crate::wire::Wire;

/// A member that may sit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) member: ReplicaId,
    pub(super) trust: u64,
    /// Others complain of it.
    pub(super) fails: bool,
    /// It sits already.
    pub(super) sits: bool,
}

/// A committee of so many seats where there are so many candidates, in the order in which they lead: the most trusted
/// first. Who fails sits only where nobody else is left.
pub(super) fn draw(mut candidates: Vec<Candidate>, seats: usize, seed: &Digest) -> Vec<ReplicaId> {
    candidates.sort_by_key(|candidate| (candidate.fails, !candidate.trust, candidate.member));
    let seats = seats.min(candidates.len());
    let wanted = candidates.iter().filter(|candidate| !candidate.fails).count();
    let mut lots = Lots { seed: *seed, drawn: 0 };
    let (mut fresh, mut known): (Vec<_>, Vec<_>) =
        candidates.into_iter().take(wanted.max(seats)).partition(|candidate| !candidate.sits);
    fresh.truncate(seats);
    known.truncate(seats);
    let mut chosen = lots.draw(&mut fresh, seats.div_ceil(3));
    let rest = seats - chosen.len();
    chosen.extend(lots.draw(&mut known, rest));
    let rest = seats - chosen.len();
    chosen.extend(lots.draw(&mut fresh, rest));
    chosen.sort_by_key(|candidate| (candidate.fails, !candidate.trust, candidate.member));
    chosen.into_iter().map(|candidate| candidate.member).collect()
}

/// A stream of numbers that follows from a seed.
struct Lots {
    seed: Digest,
    drawn: u64,
}

impl Lots {
    fn next(&mut self) -> u64 {
        self.drawn += 1;
        let mut bytes = self.seed.encoded();
        self.drawn.write(&mut bytes);
        let [a, b, c, d, e, f, g, h, ..] = Digest::of(domain::LOTS, &bytes).0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Takes up to `count` candidates out, each with a chance that is its share of the trust that is left.
    fn draw(&mut self, candidates: &mut Vec<Candidate>, count: usize) -> Vec<Candidate> {
        let share = |candidate: &Candidate| candidate.trust.max(1);
        let mut drawn = Vec::new();
        while drawn.len() < count && !candidates.is_empty() {
            let mut lot = self.next() % candidates.iter().map(share).sum::<u64>();
            let hit = candidates.iter().position(|candidate| {
                let hit = lot < share(candidate);
                lot = lot.saturating_sub(share(candidate));
                hit
            });
            drawn.push(candidates.remove(hit.unwrap_or(0)));
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: u16, change: impl Fn(&mut Candidate)) -> Vec<Candidate> {
        let one = |number| {
            let mut one = Candidate { member: ReplicaId(number), trust: 10, fails: false, sits: number < 10 };
            change(&mut one);
            one
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_third_of_the_seats_goes_to_those_who_did_not_sit() {
        for seed in 0..100 {
            let drawn = draw(candidates(30, |_| {}), 10, &Digest([seed; 32]));
            assert_eq!(drawn.len(), 10);
            assert_eq!(drawn.iter().filter(|member| member.0 >= 10).count(), 4, "{drawn:?}");
        }
    }

    #[test]
    fn who_fails_sits_only_where_others_are_missing() {
        let failing = |candidate: &mut Candidate| candidate.fails = candidate.member.0 == 3;
        for seed in 0..100 {
            let drawn = draw(candidates(12, failing), 10, &Digest([seed; 32]));
            assert!(drawn.len() == 10 && !drawn.contains(&ReplicaId(3)), "{drawn:?}");
            assert_eq!(draw(candidates(10, failing), 10, &Digest([seed; 32])).last(), Some(&ReplicaId(3)));
        }
    }

    #[test]
    fn the_trusted_are_drawn_more_often() {
        let rich = |candidate: &mut Candidate| {
            candidate.trust = if candidate.member.0.is_multiple_of(2) { 30 } else { 10 }
        };
        let seeds = (0..200_u8).map(|seed| draw(candidates(10, rich), 3, &Digest([seed; 32])));
        let even = seeds.flatten().filter(|member| member.0.is_multiple_of(2)).count();
        assert!(even > 400, "{even} of 600");
    }
}
