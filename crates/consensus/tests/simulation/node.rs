//! A simulated machine: one replica (or two with one key), its disk, its clock and its application.
use dwcp_consensus::{Config, Parts, Replica, ReplicaId, Start, Time, start_hostile, start_mutant};

use crate::check::Application;
use crate::disk::Disk;
use crate::keys::{Signings, SimulatedKeys};
use crate::rng::Rng;
use crate::scenario::{Liar, SECOND, Scenario};

/// Which instance of which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) instance: usize,
}

pub(crate) struct Node {
    pub(crate) id: ReplicaId,
    pub(crate) is_correct: bool,
    pub(crate) instances: Vec<Instance>,
    offset: Time,
    /// Thousandths that the clock is too fast or slow.
    skew: i64,
    seed: u64,
}

#[derive(Default)]
pub(crate) struct Instance {
    pub(crate) replica: Option<Box<dyn Replica>>,
    pub(crate) disk: Disk,
    pub(crate) application: Application,
    pub(crate) signings: Signings,
    /// Counts its starts: messages to a former life are lost.
    pub(crate) life: u64,
    pub(crate) tick: Option<Time>,
    /// Peers that a twin does not speak with.
    deaf_to: u128,
}

impl Instance {
    pub(crate) fn speaks_with(&self, peer: ReplicaId) -> bool {
        self.deaf_to & (1 << peer.0) == 0
    }
}

impl Node {
    pub(crate) fn new(id: ReplicaId, scenario: &Scenario, rng: &mut Rng) -> Self {
        let liar = scenario.liar_of(id);
        let mut instances = vec![Instance::default()];
        if matches!(liar, Some(Liar::Twins)) {
            instances.push(Instance::default());
            let half = u128::from(rng.next_u64());
            let both = u128::from(rng.next_u64() & rng.next_u64());
            (instances[0].deaf_to, instances[1].deaf_to) = (half & !both, !half & !both);
        }
        let skew = rng.below(2 * scenario.skew + 1) as i64 - scenario.skew as i64;
        let offset = rng.below(1000) * SECOND;
        Self { id, is_correct: liar.is_none(), instances, offset, skew, seed: rng.next_u64() }
    }

    /// What its clock shows.
    pub(crate) fn local(&self, now: Time) -> Time {
        self.offset + now * (1000 + self.skew) as u64 / 1000
    }

    /// When its clock shows that.
    pub(crate) fn global(&self, local: Time) -> Time {
        let elapsed = u128::from(local.saturating_sub(self.offset)) * 1000;
        (elapsed.div_ceil((1000 + self.skew) as u128)) as Time
    }

    pub(crate) fn position(&self) -> Option<u64> {
        self.instances[0].replica.as_ref().map(|_| self.instances[0].application.position())
    }

    pub(crate) fn start(&mut self, at: usize, config: Config, scenario: &Scenario, now: Time, lost: bool) {
        let now = self.local(now);
        let liar = scenario.liar_of(self.id);
        let instance = &mut self.instances[at];
        instance.life += 1;
        instance.tick = None;
        if lost {
            instance.disk.lose();
        }
        let start = match instance.life {
            1 => Start::Fresh,
            _ if lost => Start::Lost,
            _ => Start::Resume(instance.disk.records()),
        };
        instance.signings.borrow_mut().clear();
        let crypto = Box::new(SimulatedKeys::new(self.id, instance.signings.clone()));
        let parts = Parts { config, crypto, start };
        let replica = match liar {
            Some(Liar::Lies(lies)) => {
                start_hostile(scenario.protocol, parts, now, lies, self.seed ^ instance.life)
            }
            Some(Liar::Twins) | None => start_mutant(scenario.protocol, parts, now, scenario.mutation),
        };
        instance.replica = Some(replica.expect("records are as they were written"));
    }

    /// False where it was down already.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> bool {
        let was_up = self.instances[0].replica.is_some();
        for instance in &mut self.instances {
            instance.replica = None;
            instance.life += 1;
            instance.disk.crash(rng);
        }
        was_up
    }
}
