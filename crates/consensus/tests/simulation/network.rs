//! The simulated network: delays, losses, copies, cuts in one direction or both.
use dwcp_consensus::{MILLISECOND, ReplicaId, Time};

use crate::rng::Rng;
use crate::scenario::{SECOND, Scenario};

pub(crate) struct Network {
    delay_min: Time,
    delay_max: Time,
    dropped: u64,
    doubled: u64,
    stragglers: u64,
    /// By sender: receivers that hear nothing of it.
    cut: Vec<u128>,
}

impl Network {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            delay_min: scenario.delay_min,
            delay_max: scenario.delay_max,
            dropped: scenario.dropped,
            doubled: scenario.doubled,
            stragglers: scenario.stragglers,
            cut: vec![0; usize::from(scenario.replicas)],
        }
    }

    /// When copies of a message arrive, from now.
    pub(crate) fn delays(&self, from: ReplicaId, to: ReplicaId, rng: &mut Rng) -> Vec<Time> {
        if self.cut[usize::from(from.0)] & (1 << to.0) != 0 || rng.chance(self.dropped) {
            return Vec::new();
        }
        let copies = if rng.chance(self.doubled) { 2 } else { 1 };
        let delays = (0..copies).map(|_| {
            let straggles = if rng.chance(self.stragglers) { rng.below(1000) * MILLISECOND } else { 0 };
            rng.between(self.delay_min, self.delay_max) + straggles
        });
        delays.collect()
    }

    /// Another set of cuts: none, one replica alone, two groups, or single links.
    pub(crate) fn cut(&mut self, scenario: &Scenario, rng: &mut Rng) {
        let replicas = usize::from(scenario.replicas);
        self.cut.fill(0);
        let group = match rng.below(4) {
            0 => return,
            1 => 1 << rng.below(replicas as u64),
            2 => u128::from(rng.next_u64()),
            _ => {
                self.cut.iter_mut().for_each(|cut| *cut = u128::from(rng.next_u64() & rng.next_u64()));
                return;
            }
        };
        for (from, cut) in self.cut.iter_mut().enumerate() {
            let inside = group & (1 << from) != 0;
            *cut = match (inside, scenario.cuts_one_way) {
                (true, _) => !group,
                (false, false) => group,
                (false, true) => 0,
            };
        }
    }

    /// From now on everything arrives, soon.
    pub(crate) fn calm(&mut self) {
        self.cut.fill(0);
        (self.dropped, self.doubled, self.stragglers) = (0, 0, 0);
        assert!(self.delay_max < SECOND);
    }
}
