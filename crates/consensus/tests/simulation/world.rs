//! The run of a seed: replicas, network, disks and clients on virtual time, one event after the other.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use dwcp_consensus::{
    Config, Digest, Input, Key, MILLISECOND, Output, Plan, Probable, ProtocolKind, Replica, ReplicaId, Time,
    TransactionId, falsify_origin, is_probable,
};

use crate::check::Check;
use crate::disk::Item;
use crate::keys::{Signings, SimulatedKeys};
use crate::network::Network;
use crate::node::{Node, Place};
use crate::rng::Rng;
use crate::scenario::{SECOND, Scenario};

/// What a run came to. Two runs of a seed are equal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) events: u64,
    pub(crate) ended: Time,
    pub(crate) position: u64,
    pub(crate) transactions: usize,
    pub(crate) crashes: u64,
    pub(crate) transfers: u64,
    pub(crate) leaders_given_up: u64,
    pub(crate) accused: u64,
    pub(crate) epochs: u64,
    /// Messages of the protocols themselves, point to point.
    pub(crate) votes: u64,
    /// What correct replicas held for probable, and how often that differed or did not come true.
    pub(crate) forecasts: u64,
    pub(crate) false_forecasts: u64,
    /// From submission to application, of all transactions together.
    pub(crate) waited: Time,
    trace: u64,
}

impl Summary {
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.ended += other.ended;
        self.position += other.position;
        self.transactions += other.transactions;
        self.crashes += other.crashes;
        self.transfers += other.transfers;
        self.leaders_given_up += other.leaders_given_up;
        self.accused += other.accused;
        self.epochs += other.epochs;
        self.votes += other.votes;
        self.waited += other.waited;
        self.forecasts += other.forecasts;
        self.false_forecasts += other.false_forecasts;
    }
}

#[derive(Debug)]
enum Event {
    Deliver { to: Place, life: u64, from: ReplicaId, bytes: Arc<[u8]> },
    Snapshot { to: Place, life: u64, position: u64, state: Arc<[u8]> },
    Tick { to: Place, life: u64, due: Time },
    Written { to: Place, life: u64 },
    Client { client: u64 },
    Cut,
    Crash,
    Restart { node: usize, lost: bool },
    Calm,
    Switch,
}

pub(crate) struct World {
    scenario: Scenario,
    rng: Rng,
    now: Time,
    count: u64,
    events: BinaryHeap<Reverse<(Time, u64, u64)>>,
    bodies: BTreeMap<u64, Event>,
    nodes: Vec<Node>,
    network: Network,
    check: Check,
    /// By client: how many were submitted, and those not applied yet with the time of their last submission.
    clients: BTreeMap<u64, (u64, BTreeMap<u64, Time>)>,
    summary: Summary,
    /// How many messages were heard, by sender, plane and tag. For whoever looks at a failed seed.
    heard: BTreeMap<(u16, Option<u8>, Option<u8>), u64>,
    /// Some messages of each kind, where somebody wants them.
    pub(crate) tap: Option<Vec<Arc<[u8]>>>,
}

/// So long after the faults end everything must be done.
const PATIENCE: Time = 240 * SECOND;
/// A client submits again after so long without an answer.
const CLIENT_PATIENCE: Time = 2 * SECOND;
/// Messages of each sender and kind that a tap takes at least.
const TAPPED_MAX: u64 = 8;
/// More events than any sound run has: something answers itself.
const EVENTS_MAX: u64 = 1_500_000;

/// What the tap took, and the records of a replica.
pub(crate) type Looked = (Vec<Arc<[u8]>>, Vec<(Key, Vec<u8>)>);

impl World {
    pub(crate) fn new(scenario: Scenario, mut rng: Rng) -> Self {
        let network = Network::new(&scenario);
        let nodes = (0..scenario.replicas).map(|id| Node::new(ReplicaId(id), &scenario, &mut rng)).collect();
        let clients = (1..=scenario.clients).map(|client| (client, (0, BTreeMap::new()))).collect();
        let mut world = Self {
            scenario,
            rng,
            now: 0,
            count: 0,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            nodes,
            network,
            check: Check::default(),
            clients,
            summary: Summary::default(),
            heard: BTreeMap::new(),
            tap: None,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node, false);
        }
        for client in 1..=self.scenario.clients {
            let wait = self.rng.below(self.scenario.pause);
            self.at(wait, Event::Client { client });
        }
        if self.scenario.cuts > 0 {
            self.at(0, Event::Cut);
        }
        if self.scenario.crashes > 0 {
            let wait = self.rng.between(1, 2 * self.scenario.crashes);
            self.at(wait, Event::Crash);
        }
        self.at(self.scenario.calm, Event::Calm);
        if self.scenario.switches > 0 {
            let wait = self.rng.between(1, 2 * self.scenario.switches);
            self.at(wait, Event::Switch);
        }
    }

    /// Until everything submitted is applied everywhere.
    pub(crate) fn run(mut self) -> Summary {
        self.go();
        self.summarise()
    }

    /// As [`run`](Self::run); returns the plans of all epochs too.
    pub(crate) fn run_and_list_plans(mut self) -> (Summary, Vec<Plan>) {
        self.go();
        let plans = self.check.plans();
        (self.summarise(), plans)
    }

    /// As [`run`](Self::run); returns what the tap took, and the records of a replica.
    pub(crate) fn run_and_look(mut self) -> Looked {
        self.go();
        let records = self.nodes[1].instances[0].disk.records();
        (self.tap.take().unwrap_or_default(), records)
    }

    fn go(&mut self) {
        while let Some(Reverse((at, _, number))) = self.events.pop() {
            self.now = at;
            let event = self.bodies.remove(&number).expect("an event has a body");
            self.handle(event);
            self.summary.events += 1;
            assert!(self.summary.events < EVENTS_MAX, "something answers itself: {}", self.stuck());
            if self.summary.events.is_multiple_of(512) {
                self.check_bounds();
                if self.is_done() {
                    break;
                }
                assert!(self.now < self.scenario.calm + PATIENCE, "not done in time: {}", self.stuck());
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, life, from, bytes } => {
                let last = bytes.last().copied().map_or(0, u64::from);
                self.trace(&[to.node as u64, u64::from(from.0), bytes.len() as u64, last]);
                let kind = (from.0, bytes.get(8).copied(), bytes.get(9).copied());
                self.summary.votes += u64::from(kind.1 == Some(1));
                let heard = self.heard.entry(kind).or_default();
                *heard += 1;
                let wanted = *heard <= TAPPED_MAX || heard.is_multiple_of(64);
                if let Some(tap) = self.tap.as_mut().filter(|_| wanted) {
                    tap.push(bytes.clone());
                }
                self.input(to, life, Input::Message { from, bytes: &bytes });
            }
            Event::Snapshot { to, life, position, state } => {
                self.input(to, life, Input::Snapshot { position, state });
            }
            Event::Tick { to, life, due } => {
                if self.nodes[to.node].instances[to.instance].tick == Some(due) {
                    self.nodes[to.node].instances[to.instance].tick = None;
                    self.input(to, life, Input::Tick);
                }
            }
            Event::Written { to, life } => self.written(to, life),
            Event::Client { client } => self.client(client),
            Event::Cut => self.cut(),
            Event::Crash => self.crash_some(),
            Event::Restart { node, lost } => self.start(node, lost),
            Event::Calm => self.network.calm(),
            Event::Switch => self.switch(),
        }
    }

    fn at(&mut self, wait: Time, event: Event) {
        self.count += 1;
        // Equal times in any order, but the same one in each run.
        let tie = self.rng.next_u64();
        self.events.push(Reverse((self.now + wait, tie, self.count)));
        self.bodies.insert(self.count, event);
    }

    fn trace(&mut self, values: &[u64]) {
        for value in values.iter().chain([&self.now]) {
            self.summary.trace = (self.summary.trace ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    fn is_calm(&self) -> bool {
        self.now >= self.scenario.calm
    }

    fn config(&self, me: ReplicaId) -> Config {
        let scenario = &self.scenario;
        let mut config =
            Config::of_plan(me, &scenario.plan(), Digest::default(), Digest([9; 32])).expect("a sound plan");
        config.checkpoint_interval = scenario.checkpoint_interval;
        config.leader_timeout = scenario.leader_timeout;
        config.leader_timeout_max = 8 * scenario.leader_timeout;
        config.batches_in_flight_max = scenario.batches_in_flight;
        config.block_batches_max = scenario.block_batches;
        config.batch_bytes_max =
            if scenario.switches > 0 || scenario.rotation.is_some() { 6000 } else { 400 };
        config.dag_rounds_kept = scenario.dag_rounds_kept;
        config.dag_rounds_max = scenario.dag_rounds_max;
        config.idle_delay = scenario.idle_delay;
        config.sampling = scenario.sampling;
        config.seal_delay = scenario.seal_delay;
        config
    }

    fn start(&mut self, node: usize, lost: bool) {
        let config = self.config(ReplicaId(node as u16));
        for instance in 0..self.nodes[node].instances.len() {
            let now = self.now;
            self.nodes[node].start(instance, config.clone(), &self.scenario, now, lost);
            self.drain(Place { node, instance });
        }
    }

    fn input(&mut self, to: Place, life: u64, input: Input<'_>) {
        let node = &mut self.nodes[to.node];
        let now = node.local(self.now);
        let instance = &mut node.instances[to.instance];
        let Some(replica) = instance.replica.as_mut().filter(|_| instance.life == life) else { return };
        replica.handle(now, input);
        self.drain(to);
    }

    /// Takes what a replica wants, through its disk.
    fn drain(&mut self, at: Place) {
        let node = &mut self.nodes[at.node];
        let instance = &mut node.instances[at.instance];
        let Some(replica) = instance.replica.as_mut() else { return };
        while let Some(output) = replica.poll_output() {
            instance.disk.push(Item::Output(output));
        }
        instance
            .signings
            .borrow_mut()
            .drain(..)
            .for_each(|statement| instance.disk.push(Item::Signed(statement)));
        let timeout = replica.poll_timeout();
        let due = node.global(timeout).max(self.now + MILLISECOND / 10);
        let instance = &mut node.instances[at.instance];
        let life = instance.life;
        if timeout < Time::MAX && instance.tick.is_none_or(|tick| tick > due) {
            instance.tick = Some(due);
            self.at(due - self.now, Event::Tick { to: at, life, due });
        }
        self.release(at);
    }

    fn release(&mut self, at: Place) {
        while let Some(item) = self.nodes[at.node].instances[at.instance].disk.pop() {
            self.perform(at, item);
        }
        if self.nodes[at.node].instances[at.instance].disk.begin_write() {
            let wait = self.rng.below(self.scenario.disk_delay_max + 1);
            let life = self.nodes[at.node].instances[at.instance].life;
            self.at(wait, Event::Written { to: at, life });
        }
    }

    fn written(&mut self, at: Place, life: u64) {
        if self.nodes[at.node].instances[at.instance].life != life {
            return;
        }
        for item in self.nodes[at.node].instances[at.instance].disk.end_write() {
            self.perform(at, item);
        }
        self.release(at);
    }

    fn perform(&mut self, at: Place, item: Item) {
        let correct = self.nodes[at.node].is_correct;
        let instance = &mut self.nodes[at.node].instances[at.instance];
        let output = match item {
            Item::Signed(statement) => {
                if correct {
                    self.check.signed(ReplicaId(at.node as u16), &statement);
                }
                return;
            }
            Item::Output(output) => output,
        };
        match output {
            Output::Send { to, bytes } => self.send(at, to, &bytes),
            Output::Apply(apply) if correct => {
                let new = self.check.applied(&mut instance.application, &apply);
                new.into_iter().for_each(|transaction| self.answered(transaction));
            }
            Output::TakeSnapshot { position } => {
                let application = &mut instance.application;
                let state =
                    if correct { self.check.snapshot(application, position) } else { application.state() };
                let life = instance.life;
                self.at(0, Event::Snapshot { to: at, life, position, state: state.into() });
            }
            Output::Restore { position, state } if correct => {
                self.check.restored(&mut instance.application, position, state.as_deref());
            }
            Output::Evidence(evidence) => {
                let culprit = usize::from(evidence.culprit.0);
                assert!(!correct || !self.nodes[culprit].is_correct, "a correct replica is accused");
                self.summary.accused += 1;
            }
            // The application of a liar is of no interest.
            Output::Apply(_) | Output::Restore { .. } => {}
            Output::Began(began) => {
                if correct {
                    self.summary.epochs = self.summary.epochs.max(began.plan.epoch);
                    self.check.began(&began);
                }
            }
            Output::Ended(_) => unreachable!("no machine sees the end of an epoch"),
            Output::Probable(probable) => {
                if correct {
                    self.forecast(at, &probable);
                }
            }
            Output::Reached(_) | Output::Refused { .. } => {}
            Output::Persist { .. } | Output::Forget { .. } => unreachable!("the disk takes records"),
        }
    }

    /// A forecast comes with its proof, whatever becomes of it.
    fn forecast(&mut self, at: Place, probable: &Probable) {
        let owner = ReplicaId(at.node as u16);
        if self.scenario.switches == 0 {
            let config = self.config(owner);
            let keys = Box::new(SimulatedKeys::new(owner, Signings::default()));
            let binding = config.plan.binding(&Digest::default());
            let config = Config { binding, ..config };
            assert!(is_probable(&config, keys, owner, probable), "a forecast without its votes");
        }
        let instance = &mut self.nodes[at.node].instances[at.instance];
        self.check.forecast(probable, &mut instance.forecast);
    }

    fn send(&mut self, at: Place, to: ReplicaId, bytes: &Arc<[u8]>) {
        let from = ReplicaId(at.node as u16);
        if !self.nodes[at.node].instances[at.instance].speaks_with(to) {
            return;
        }
        let other = self.scenario.poisons(from).then(|| falsify_origin(bytes)).flatten();
        let bytes = &other.map_or_else(|| bytes.clone(), Arc::from);
        let node = usize::from(to.0);
        for instance in 0..self.nodes[node].instances.len() {
            if !self.nodes[node].instances[instance].speaks_with(from) {
                continue;
            }
            for wait in self.network.delays(from, to, &mut self.rng) {
                let life = self.nodes[node].instances[instance].life;
                let event = Event::Deliver { to: Place { node, instance }, life, from, bytes: bytes.clone() };
                self.at(wait, event);
            }
        }
    }

    fn answered(&mut self, transaction: TransactionId) {
        if let Some((_, waiting)) = self.clients.get_mut(&transaction.client) {
            let since = waiting.remove(&transaction.sequence);
            self.summary.waited += since.map_or(0, |since| self.now - since);
        }
    }

    /// A client sends its next transaction, and again those that were not answered.
    fn client(&mut self, client: u64) {
        let (total, now) = (self.scenario.transactions, self.now);
        let Some((submitted, waiting)) = self.clients.get_mut(&client) else { return };
        let mut sent = Vec::new();
        if *submitted < total && waiting.len() < 16 {
            *submitted += 1;
            waiting.insert(*submitted, now);
            sent.push(*submitted);
        }
        for (sequence, at) in waiting.iter_mut().filter(|(_, at)| **at + CLIENT_PATIENCE <= now) {
            *at = now;
            sent.push(*sequence);
        }
        if self.scenario.repeats > 0 && *submitted > 0 && self.rng.chance(self.scenario.repeats) {
            sent.push(self.rng.between(1, *submitted));
        }
        let over = *submitted == total && waiting.is_empty();
        for sequence in sent {
            let transaction = TransactionId { client, sequence };
            self.check.submitted.insert(transaction);
            let node = self.rng.below(self.nodes.len() as u64) as usize;
            let payload = crate::keys::payload(transaction);
            for instance in 0..self.nodes[node].instances.len() {
                let life = self.nodes[node].instances[instance].life;
                self.input(Place { node, instance }, life, Input::Submit { transaction, payload: &payload });
            }
        }
        if !over {
            let wait = self.rng.below(2 * self.scenario.pause) + MILLISECOND;
            self.at(wait, Event::Client { client });
        }
    }

    /// Everybody wants the same next epoch, as operators or a policy would; liars want another one.
    fn switch(&mut self) {
        let Some(newest) = self.newest_plan() else { return };
        let mut plan = newest.clone();
        plan.epoch += 1;
        let some = [ProtocolKind::Pbft, ProtocolKind::Bullshark, ProtocolKind::Raft, ProtocolKind::ProBft];
        let possible = if self.scenario.never_lies { &some[..] } else { &some[..2] };
        plan.protocol = self.rng.pick(possible);
        plan.committee = plan.members.iter().map(|member| member.replica).collect();
        let turn = self.rng.below(plan.committee.len() as u64) as usize;
        plan.committee.rotate_left(turn);
        let mut other = plan.clone();
        other.committee.reverse();
        for node in 0..self.nodes.len() {
            let is_correct = self.nodes[node].is_correct;
            let wish = if is_correct || self.rng.chance(500) { &plan } else { &other };
            for instance in 0..self.nodes[node].instances.len() {
                let life = self.nodes[node].instances[instance].life;
                self.input(Place { node, instance }, life, Input::Succeed(wish.clone()));
            }
        }
        if !self.is_calm() {
            let wait = self.rng.between(1, 2 * self.scenario.switches);
            self.at(wait, Event::Switch);
        }
    }

    fn newest_plan(&self) -> Option<Plan> {
        let replicas = self.correct().filter_map(|node| node.instances[0].replica.as_ref());
        replicas.map(|replica| replica.plan()).max_by_key(|plan| plan.epoch).cloned()
    }

    fn cut(&mut self) {
        if self.is_calm() {
            return;
        }
        self.network.cut(&self.scenario, &mut self.rng);
        let wait = self.rng.between(1, 2 * self.scenario.cuts);
        self.at(wait, Event::Cut);
    }

    fn crash_some(&mut self) {
        if self.is_calm() {
            return;
        }
        let all = self.scenario.power_failures && self.rng.chance(300);
        let chosen = self.rng.below(self.nodes.len() as u64) as usize;
        for node in (0..self.nodes.len()).filter(|node| all || *node == chosen) {
            if self.nodes[node].crash(&mut self.rng) {
                self.summary.crashes += 1;
                let forgets = self.scenario.forgetful.contains(&(node as u16)) && self.rng.chance(500);
                let down = self.rng.between(1, 3000) * MILLISECOND;
                self.at(down, Event::Restart { node, lost: forgets });
            }
        }
        let wait = self.rng.between(1, 2 * self.scenario.crashes);
        self.at(wait, Event::Crash);
    }

    fn correct(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_correct)
    }

    fn is_done(&self) -> bool {
        let submitted = |(submitted, waiting): &(u64, BTreeMap<u64, Time>)| {
            *submitted == self.scenario.transactions && waiting.is_empty()
        };
        let highest = self.check.highest();
        self.is_calm()
            && self.clients.values().all(submitted)
            && self.correct().all(|node| node.position().is_some_and(|position| position >= highest))
    }

    fn stuck(&self) -> String {
        let mut text = format!("highest {}", self.check.highest());
        for node in &self.nodes {
            let figures = node.instances[0].replica.as_ref().map(|replica| replica.figures());
            text += &format!(
                "\n  {} correct {} at {:?} {figures:?}",
                node.id.0,
                node.is_correct,
                node.position()
            );
        }
        let mut heard: Vec<_> = self.heard.iter().map(|(kind, count)| (*count, *kind)).collect();
        heard.sort_unstable_by(|a, b| b.cmp(a));
        text +=
            &format!("\n  at {} ms; most heard: {:?}", self.now / MILLISECOND, &heard[..heard.len().min(6)]);
        for (client, (submitted, waiting)) in &self.clients {
            text += &format!("\n  client {client}: {submitted} submitted, waits for {:?}", waiting.keys());
        }
        text
    }

    /// Memory stays bounded, whatever is sent.
    fn check_bounds(&self) {
        for replica in self.correct().filter_map(|node| node.instances[0].replica.as_ref()) {
            let figures = replica.figures();
            assert_eq!(figures.conflicts, 0, "certificates exclude each other");
            assert!(figures.log_length <= self.scenario.log_max(), "log of {}", figures.log_length);
            assert!(figures.put_aside <= 64 * self.nodes.len(), "{} put aside", figures.put_aside);
            let batches = 4 * self.nodes.len() * 256;
            assert!(figures.batches <= batches, "{} batches", figures.batches);
        }
    }

    fn summarise(mut self) -> Summary {
        self.check_bounds();
        assert!(self.is_done(), "the run ended early: {}", self.stuck());
        let submitted = self.check.submitted.clone();
        assert!(submitted.iter().all(|transaction| self.check.is_applied(*transaction)), "not all applied");
        self.summary.ended = self.now;
        self.summary.position = self.check.highest();
        self.summary.transactions = submitted.len();
        self.summary.forecasts = self.check.forecasts;
        self.summary.false_forecasts = self.check.false_forecasts + self.check.broken_forecasts() as u64;
        let may_differ = self.scenario.forecasts_may_differ();
        assert!(may_differ || self.summary.false_forecasts == 0, "a forecast was false: {}", self.stuck());
        let figures: Vec<_> =
            self.correct().filter_map(|node| Some(node.instances[0].replica.as_ref()?.figures())).collect();
        for figures in figures {
            self.summary.transfers += figures.transfers;
            self.summary.leaders_given_up += figures.leaders_given_up;
        }
        self.summary
    }
}
