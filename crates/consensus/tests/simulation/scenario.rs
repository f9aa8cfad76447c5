//! What a seed decides before anything happens: how many replicas, how they are cut off, delayed and crashed, who lies
//! and how.
use dwcp_consensus::{
    Lies, MILLISECOND, Member, Mutation, Plan, ProtocolKind, ReplicaId, Rotation, SamplingRule, Time,
};

use crate::rng::Rng;

pub(crate) const SECOND: Time = 1000 * MILLISECOND;

/// The conditions of a run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) protocol: ProtocolKind,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) replicas: u16,
    /// Who lies, and how. Replicas not named are correct.
    pub(crate) liars: Vec<(u16, Liar)>,
    /// Correct replicas that may lose their disk. Together with the liars never more than may be faulty.
    pub(crate) forgetful: Vec<u16>,
    pub(crate) delay_min: Time,
    pub(crate) delay_max: Time,
    /// Of a thousand messages.
    pub(crate) dropped: u64,
    pub(crate) doubled: u64,
    /// Of a thousand, delayed by up to a second more.
    pub(crate) stragglers: u64,
    /// Mean time between two changes of the network's cuts; 0 = none.
    pub(crate) cuts: Time,
    pub(crate) cuts_one_way: bool,
    /// Mean time between two crashes; 0 = none.
    pub(crate) crashes: Time,
    /// All at once, now and then.
    pub(crate) power_failures: bool,
    pub(crate) disk_delay_max: Time,
    /// Clocks run so many thousandths too fast or slow.
    pub(crate) skew: u64,
    /// Faults happen until then.
    pub(crate) calm: Time,
    pub(crate) clients: u64,
    pub(crate) transactions: u64,
    /// Mean time between two transactions of a client.
    pub(crate) pause: Time,
    pub(crate) checkpoint_interval: u64,
    pub(crate) leader_timeout: Time,
    pub(crate) batches_in_flight: u64,
    pub(crate) block_batches: usize,
    pub(crate) dag_rounds_kept: u64,
    pub(crate) dag_rounds_max: u64,
    pub(crate) idle_delay: Time,
    /// Of a thousand transactions, sent again although they were answered.
    pub(crate) repeats: u64,
    /// Mean time between two wishes for another epoch; 0 = none.
    pub(crate) switches: Time,
    pub(crate) rotation: Option<Rotation>,
    /// Whether protocols may be used that bear no liars.
    pub(crate) never_lies: bool,
    pub(crate) sampling: SamplingRule,
    pub(crate) seal_delay: Time,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Liar {
    Lies(Lies),
    /// Two correct replicas with one key, each speaking with some of the others (Bano et al., Twins, 2020).
    Twins,
}

impl Scenario {
    pub(crate) fn new(protocol: ProtocolKind, rng: &mut Rng) -> Self {
        let replicas = rng.pick(&[4, 4, 4, 4, 4, 5, 7, 7, 10]);
        let faulty_max = (replicas as usize - 1) / 3;
        let mut order: Vec<u16> = (0..replicas).collect();
        rng.shuffle(&mut order);
        let liars = if rng.chance(400) { 0 } else { rng.between(1, faulty_max as u64) as usize };
        let accomplices = order[..liars].iter().map(|liar| 1 << liar).sum();
        let forgetful = if rng.chance(600) { 0 } else { faulty_max - liars };
        let calm = rng.chance(150);
        let fault =
            |rng: &mut Rng, per_mille: u64| if calm || rng.chance(500) { 0 } else { rng.below(per_mille) };
        let wide = rng.chance(300);
        let delay_max = if wide { rng.between(10, 150) } else { rng.between(1, 10) } * MILLISECOND;
        Self {
            protocol,
            mutation: None,
            replicas,
            liars: order[..liars]
                .iter()
                .map(|liar| (*liar, Self::liar(replicas, accomplices, rng)))
                .collect(),
            forgetful: order[liars..liars + forgetful].to_vec(),
            delay_min: delay_max / rng.between(1, 10),
            delay_max,
            dropped: fault(rng, 200),
            doubled: fault(rng, 50),
            stragglers: fault(rng, 30),
            cuts: if calm || rng.chance(400) { 0 } else { rng.between(300, 4000) * MILLISECOND },
            cuts_one_way: rng.chance(400),
            crashes: if calm || rng.chance(400) { 0 } else { rng.between(400, 5000) * MILLISECOND },
            power_failures: rng.chance(200),
            disk_delay_max: rng.pick(&[0, 1, 5, 50, 300]) * MILLISECOND,
            skew: rng.pick(&[0, 0, 50, 200]),
            calm: if calm { 0 } else { rng.between(3, 12) * SECOND },
            clients: rng.between(1, 4),
            transactions: rng.between(10, 60),
            pause: rng.pick(&[5, 50, 300]) * MILLISECOND,
            checkpoint_interval: rng.pick(&[2, 4, 8, 16]),
            leader_timeout: rng.between(300, 1500) * MILLISECOND,
            batches_in_flight: rng.pick(&[2, 8, 32]),
            block_batches: rng.pick(&[1, 4, 32]) as usize,
            dag_rounds_kept: rng.pick(&[6, 10, 20, 50]),
            dag_rounds_max: rng.pick(&[80, 150, 400]),
            idle_delay: rng.pick(&[200, 1000]) * MILLISECOND,
            repeats: 0,
            switches: 0,
            rotation: None,
            never_lies: false,
            sampling: SamplingRule::default(),
            seal_delay: 100 * MILLISECOND,
        }
    }

    /// Epochs that end by wish: another protocol, fewer or more who vote.
    pub(crate) fn with_switches(mut self, rng: &mut Rng) -> Self {
        self.switches = rng.between(500, 3000) * MILLISECOND;
        self.calm = self.calm.max(4 * SECOND);
        self.repeats = 100;
        if rng.chance(500) {
            // Who comes back after others have gone on takes their state: from those who falsify it, too.
            self.liars.iter_mut().for_each(|(_, liar)| match liar {
                Liar::Lies(lies) => (lies.poisons, lies.silent, lies.withholds_from) = (true, false, 0),
                Liar::Twins => {}
            });
            self.cuts = rng.between(1000, 4000) * MILLISECOND;
        }
        self
    }

    /// Epochs that end by themselves, with a committee smaller than the cluster.
    pub(crate) fn with_rotation(mut self, rng: &mut Rng) -> Self {
        self.repeats = 50;
        let positions = self.checkpoint_interval * rng.between(3, 6);
        // No more faulty replicas than the smallest committee bears, wherever they sit.
        let faulty = (self.liars.len() + self.forgetful.len()) as u64;
        let seats = rng.between((3 * faulty + 1).max(4), u64::from(self.replicas)) as u16;
        self.rotation = Some(Rotation { positions, seats });
        self
    }

    /// Samples where there are too few members for them, so that what is decided by them is false now and then and
    /// must do no harm; or, in few of the runs, as many members as samples are made for.
    pub(crate) fn with_samples(mut self, rng: &mut Rng) -> Self {
        self.seal_delay = rng.pick(&[20, 50, 100]) * MILLISECOND;
        // Ranges follow each other one by one: with a batch to each, little would come of slow disks.
        self.block_batches = rng.pick(&[4, 16, 64]) as usize;
        if rng.chance(60) {
            let faulty = self.liars.len().max(1);
            self.replicas = rng.pick(&[25, 31]);
            let spread = |(place, (_, liar)): (usize, &(u16, Liar))| ((place * 7) as u16, *liar);
            self.liars = self.liars.iter().enumerate().map(spread).collect();
            self.forgetful.truncate(faulty);
            self.transactions = self.transactions.min(12);
            self.clients = 1;
            return self;
        }
        self.with_few_samples(rng)
    }

    /// A quorum of 2 to 4 votes of 4 to 10 members.
    pub(crate) fn with_few_samples(mut self, rng: &mut Rng) -> Self {
        self.sampling = SamplingRule {
            quorum_per_root: rng.pick(&[80, 110, 140]) as u32,
            sample_per_quorum: rng.pick(&[110, 150, 200]) as u32,
            members_min: 4,
        };
        self
    }

    /// Enough members for samples, none of whom lies, and leaders that stop before their pieces are certain.
    pub(crate) fn with_restless_leaders(mut self, rng: &mut Rng) -> Self {
        self.replicas = rng.pick(&[25, 28, 31]);
        (self.liars, self.forgetful) = (Vec::new(), Vec::new());
        self.crashes = 120 * MILLISECOND;
        self.calm = 6 * SECOND;
        self.seal_delay = 150 * MILLISECOND;
        self.leader_timeout = 500 * MILLISECOND;
        self.block_batches = 64;
        (self.clients, self.transactions, self.pause) = (2, 12, 150 * MILLISECOND);
        self
    }

    /// Nobody lies. Most often few members, as in a datacenter.
    pub(crate) fn without_liars(mut self, rng: &mut Rng) -> Self {
        self.liars.clear();
        self.never_lies = true;
        self.replicas = rng.pick(&[3, 3, 4, 5, 5, 7, 9]);
        let may_forget = (self.replicas as usize - 1) / 3;
        self.forgetful = if rng.chance(600) { Vec::new() } else { (0..may_forget as u16).collect() };
        self
    }

    /// Whether two correct replicas may hold different things for probable: with leaders that lie, or with samples of so
    /// few.
    pub(crate) fn forecasts_may_differ(&self) -> bool {
        !self.liars.is_empty() || self.sampling != SamplingRule::default()
    }

    /// What the first epoch is made of.
    pub(crate) fn plan(&self) -> Plan {
        let member = |number| Member {
            replica: ReplicaId(number),
            keys: ([number as u8; 32], [0; 32]),
            about: [number as u8][..].into(),
        };
        let members = (0..self.replicas).map(member).collect();
        Plan::composed(0, self.protocol, members, self.rotation).expect("a sound plan")
    }

    pub(crate) fn liar_of(&self, replica: ReplicaId) -> Option<Liar> {
        self.liars.iter().find(|(liar, _)| *liar == replica.0).map(|(_, liar)| *liar)
    }

    /// Whether a replica serves false states.
    pub(crate) fn poisons(&self, replica: ReplicaId) -> bool {
        matches!(self.liar_of(replica), Some(Liar::Lies(lies)) if lies.poisons)
    }

    /// Slots or rounds that a replica may hold.
    pub(crate) fn log_max(&self) -> usize {
        match self.protocol {
            ProtocolKind::Raft if self.switches == 0 => 4 * self.checkpoint_interval as usize,
            ProtocolKind::Pbft | ProtocolKind::TPbft | ProtocolKind::ProBft if self.switches == 0 => {
                2 * self.checkpoint_interval as usize
            }
            _ => (2 * self.dag_rounds_max + 2 * self.dag_rounds_kept) as usize,
        }
    }

    fn liar(replicas: u16, accomplices: u128, rng: &mut Rng) -> Liar {
        if rng.chance(300) {
            return Liar::Twins;
        }
        let everybody = (1_u128 << replicas) - 1;
        let some = |rng: &mut Rng| u128::from(rng.next_u64()) & everybody;
        Liar::Lies(Lies {
            silent: rng.chance(100),
            withholds_from: if rng.chance(300) { some(rng) } else { 0 },
            equivocates: rng.chance(600),
            half: some(rng),
            corrupts: rng.chance(200),
            echoes: rng.chance(600),
            accomplices,
            fabricates: rng.chance(300),
            poisons: rng.chance(300),
            babbles: rng.chance(200),
        })
    }
}
