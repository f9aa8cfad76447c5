//! Who hears a vote, and how many votes are enough: the sizes of samples and quorums, and the draw itself. Pure.
use alloc::vec::Vec;

use crate::types::{Committee, Digest, ReplicaId, domain};

/// How sizes follow from the number of members. `l` and `o` are the paper's (Avelãs et al., PODC 2024, arXiv
/// 2405.04606): a quorum is `l * sqrt(n)` votes, a vote goes to a sample of `o` quorums.
///
/// The paper draws its figures with `l = 2` and `o` up to 1.8. With a third of the members silent that does not do: of
/// 100 members, each decides with a probability of 0.29 only. `o = 2.4` makes it 0.998 (samples of 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplingRule {
    /// `l`, in hundredths.
    pub quorum_per_root: u32,
    /// `o`, in hundredths.
    pub sample_per_quorum: u32,
    /// Below so many members there is nothing to gain: everybody hears every vote and full quorums count.
    pub members_min: usize,
}

impl Default for SamplingRule {
    fn default() -> Self {
        Self { quorum_per_root: 200, sample_per_quorum: 240, members_min: 25 }
    }
}

/// Sizes for a committee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Votes that decide, in all likelihood.
    pub quorum: usize,
    /// Members that hear a vote.
    pub sample: usize,
}

impl Sampling {
    /// Sizes for so many members; `None` where sampling saves nothing, and full quorums are the rule.
    #[must_use]
    pub fn of(members: usize, rule: &SamplingRule) -> Option<Self> {
        let squared = (rule.quorum_per_root as u128).pow(2) * members as u128;
        let root = squared.isqrt();
        let hundredths = root + u128::from(root * root < squared);
        let quorum = hundredths.div_ceil(100) as usize;
        let sample = (quorum * rule.sample_per_quorum as usize).div_ceil(100);
        let full = Committee::of_all(members.try_into().ok()?)?.quorum();
        (members >= rule.members_min && sample < members && quorum < full).then_some(Self { quorum, sample })
    }

    /// The members that a verifiable random output chooses: a shuffle that stops after as many as are wanted. Draws take
    /// 64 bits of a BLAKE3 stream each, so that the bias of the remainder is below 2^-56.
    #[must_use]
    pub fn draw(&self, output: &[u8; 64], committee: &Committee) -> Vec<ReplicaId> {
        let mut members = committee.members().to_vec();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[domain::SAMPLE]);
        hasher.update(output);
        let mut stream = hasher.finalize_xof();
        let size = self.sample.min(members.len());
        for place in 0..size {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            let left = (members.len() - place) as u64;
            members.swap(place, place + (u64::from_le_bytes(bytes) % left) as usize);
        }
        members.truncate(size);
        members
    }
}

/// What a member's random output is made of: one for each phase, view and place.
pub(super) fn input(statement: &[u8; 81]) -> Digest {
    Digest::of(domain::SAMPLE, statement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_a_third_of_silent_members_leaves_live() {
        let of =
            |members| Sampling::of(members, &SamplingRule::default()).map(|size| (size.quorum, size.sample));
        assert_eq!(of(100), Some((20, 48)));
        assert_eq!(of(64), Some((16, 39)));
        assert_eq!(of(31), Some((12, 29)));
        assert_eq!(of(24), None, "full quorums below 25");
        assert_eq!(of(7), None);
        assert_eq!(of(0), None);
    }

    #[test]
    fn a_draw_has_no_member_twice_and_every_member_in_turn() {
        let committee = Committee::of_all(40).expect("sound");
        let sampling = Sampling { quorum: 13, sample: 20 };
        let mut drawn = [0_u32; 40];
        for round in 0..4000_u32 {
            let mut output = [0; 64];
            output[..4].copy_from_slice(&round.to_le_bytes());
            let mut sample = sampling.draw(&output, &committee);
            assert_eq!(sample, sampling.draw(&output, &committee), "the same for everybody");
            sample.sort_unstable();
            sample.dedup();
            assert_eq!(sample.len(), 20);
            sample.iter().for_each(|member| drawn[usize::from(member.0)] += 1);
        }
        // Each is drawn in half of the rounds: 2000 times with a deviation of 32.
        assert!(drawn.iter().all(|count| count.abs_diff(2000) < 160), "{drawn:?}");
    }
}
