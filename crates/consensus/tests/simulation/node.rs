//! A simulated machine: one replica (or two with one key), its disk, its clock and its application.
use std::fmt;

use dwcp_consensus::{
    Anchor, Config, Corrupt, Crypto, Digest, EpochParts, Epochs, Maker, Mutation, Parts, Plan, ProtocolKind,
    Replica, ReplicaId, Start, Time, start_hostile, start_mutant,
};

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
    pub(crate) replica: Option<Box<Epochs>>,
    pub(crate) disk: Disk,
    pub(crate) application: Application,
    pub(crate) signings: Signings,
    /// Position and place of its next forecast.
    pub(crate) forecast: (u64, usize),
    /// Counts its starts: messages to a former life are lost.
    pub(crate) life: u64,
    pub(crate) tick: Option<Time>,
    /// Peers that a twin does not speak with.
    deaf_to: u128,
}

/// What a simulated machine brings for each epoch.
pub(crate) struct Seat {
    /// But for what an epoch's plan says.
    config: Config,
    liar: Option<Liar>,
    seed: u64,
    signings: Signings,
    mutation: Option<Mutation>,
}

impl Seat {
    /// One that does what it should.
    pub(crate) fn honest(config: Config) -> Self {
        Self { config, liar: None, seed: 0, signings: Signings::default(), mutation: None }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "seat of {:?}", self.config.me)
    }
}

impl Maker for Seat {
    fn config(&self, plan: &Plan, binding: Digest) -> Option<Config> {
        let of_plan = Config::of_plan(self.config.me, plan, binding, self.config.cluster)?;
        let Config { plan, committee, binding, epoch, .. } = of_plan;
        Some(Config { plan, committee, binding, epoch, ..self.config.clone() })
    }

    fn crypto(&self, _plan: &Plan) -> Box<dyn Crypto> {
        Box::new(SimulatedKeys::new(self.config.me, self.signings.clone()))
    }

    fn replica(&self, kind: ProtocolKind, parts: Parts, now: Time) -> Result<Box<dyn Replica>, Corrupt> {
        match self.liar {
            Some(Liar::Lies(lies)) => start_hostile(kind, parts, now, lies, self.seed),
            Some(Liar::Twins) | None => start_mutant(kind, parts, now, self.mutation),
        }
    }
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
        instance.forecast = (0, 0);
        if lost {
            instance.disk.lose();
        }
        let start = match instance.life {
            1 => Start::Fresh,
            _ if lost => Start::Lost,
            _ => Start::Resume(instance.disk.records()),
        };
        instance.signings.borrow_mut().clear();
        let maker = Seat {
            config,
            liar,
            seed: self.seed ^ instance.life,
            signings: instance.signings.clone(),
            mutation: scenario.mutation,
        };
        let anchor = Anchor { plan: scenario.plan(), position: 0, origin: Digest::default() };
        let mutation = scenario.mutation.filter(|_| self.is_correct);
        let parts = EpochParts { me: self.id, maker: Box::new(maker), anchor, start };
        let mut replica = Epochs::start(parts, now).expect("records are as they were written");
        replica.mutate(mutation);
        instance.replica = Some(Box::new(replica));
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
