//! Virtual time: what will happen when, and the loop that lets it happen.
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use dwcp_engine::{Hash, Time};

use super::Summary;
use super::control::Job;
use super::hostile::Hostile;
use super::network::Connection;
use super::node::Node;
use super::op::{Completion, Op};
use super::rng::Rng;
use super::scenario::{MS, SECOND, Scenario};

/// Everything of a run.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) scenario: Scenario,
    pub(super) nodes: Vec<Node>,
    pub(super) connections: Vec<Connection>,
    pub(super) jobs: Vec<Job>,
    pub(super) hostile: Hostile,
    /// Digests that senders announced, by job, attempt and object.
    pub(super) digests: BTreeMap<(usize, u32, u64), Hash>,
    /// Objects that were opened with something in them.
    pub(super) resumed: u64,
    /// Chunks that were received in vain, because they could not be made.
    pub(super) unmade: u64,
    events: BTreeMap<(Time, u64), Event>,
    order: u64,
    steps: u64,
    trace: u64,
}

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    Turn { node: usize, epoch: u32, worker: usize },
    Complete { node: usize, epoch: u32, worker: usize, completion: Completion },
    Op { node: usize, epoch: u32, worker: usize, op: Op },
    Sent { connection: usize, side: usize },
    Arrive { connection: usize, side: usize, bytes: Rc<Vec<u8>>, range: Range<usize> },
    Up { connection: usize, side: usize, instance: u64 },
    Notice { connection: usize, side: usize },
    Down { connection: usize, side: usize },
    Kill { connection: usize },
    Stall,
    Dialled { node: usize, epoch: u32, peer: usize },
    Redial { node: usize, epoch: u32 },
    LaneFault,
    Crash { node: usize },
    Boot { node: usize },
    Submit { job: usize, attempt: u32 },
    Cancel { job: usize },
    Retry { job: usize },
    Change { job: usize, entry: usize },
    Mischief,
}

/// Events of a run. More is a loop.
const STEPS_MAX: u64 = 3_000_000;
/// Every job is over by then.
const DEADLINE: Time = 900 * SECOND;
/// And every trace of it a while later.
const QUIET_DEADLINE: Time = DEADLINE + 100 * SECOND;
/// How many of the crashes take the whole system down.
const POWER_LOSSES_PER_MILLE: u64 = 350;
const REDIAL: Time = 300 * MS;

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::new(&mut rng);
        Self::of(seed, rng, scenario)
    }

    pub(super) fn with_stalled_lane(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::with_stalled_lane(&mut rng);
        Self::of(seed, rng, scenario)
    }

    fn of(seed: u64, rng: Rng, scenario: Scenario) -> Self {
        let mut world = Self {
            now: 0,
            rng,
            nodes: (0..scenario.nodes).map(|_| Node::new()).collect(),
            scenario,
            connections: Vec::new(),
            jobs: Vec::new(),
            hostile: Hostile::default(),
            digests: BTreeMap::new(),
            resumed: 0,
            unmade: 0,
            events: BTreeMap::new(),
            order: 0,
            steps: 0,
            trace: seed,
        };
        for node in 0..world.nodes.len() {
            world.after(0, Event::Boot { node });
        }
        world.plan_jobs();
        world.plan_faults();
        world
    }

    pub(super) fn run(mut self) -> Summary {
        while !self.jobs_are_over() {
            assert!(self.now < DEADLINE, "jobs do not end: {}", self.open_jobs());
            self.step();
        }
        let over = self.now;
        while !self.engines_are_quiet() {
            assert!(self.now < QUIET_DEADLINE, "the other ends of jobs stay open: {}", self.open_jobs());
            self.step();
        }
        for connection in 0..self.connections.len() {
            self.kill(connection, 10 * MS);
        }
        self.stop_wanting();
        let end = self.now + 20 * SECOND;
        while self.now < end && !self.events.is_empty() {
            self.step();
        }
        self.check_leaks();
        let done = self.check_jobs();
        Summary {
            done,
            not_done: self.jobs.len() - done,
            resumed: self.resumed,
            unmade: self.unmade,
            steps: self.steps,
            over,
            ended: self.now,
            trace: self.trace,
        }
    }

    fn step(&mut self) {
        let Some(((time, _), event)) = self.events.pop_first() else {
            panic!("nothing will ever happen again: {}", self.open_jobs());
        };
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "the run has too many steps: {}", self.open_jobs());
        self.now = time;
        self.happen(event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn { node, epoch, worker } => {
                if self.lives(node, epoch) && self.nodes[node].workers[worker].turn_at == Some(self.now) {
                    self.note((node * 4 + worker) as u64);
                    if self.is_hostile(node) { self.hostile_turn(node) } else { self.turn(node, worker) }
                }
            }
            Event::Complete { node, epoch, worker, completion } => {
                if self.lives(node, epoch) {
                    self.complete(node, worker, completion);
                }
            }
            Event::Op { node, epoch, worker, op } => {
                if self.lives(node, epoch) {
                    self.execute(node, worker, op);
                }
            }
            Event::Sent { connection, side } => self.sent(connection, side),
            Event::Arrive { connection, side, bytes, range } => self.arrive(connection, side, &bytes[range]),
            Event::Up { connection, side, instance } => self.up(connection, side, instance),
            Event::Notice { connection, side } => self.notice(connection, side),
            Event::Down { connection, side } => self.down(connection, side),
            Event::Kill { connection } => self.kill(connection, 500 * MS),
            Event::Stall => self.stall(),
            Event::Dialled { node, epoch, peer } => {
                if self.lives(node, epoch) {
                    self.dialled(node, peer);
                }
            }
            Event::Redial { node, epoch } => {
                if self.lives(node, epoch) {
                    self.dial(node);
                    self.after(REDIAL, Event::Redial { node, epoch });
                }
            }
            Event::LaneFault => self.lane_fault(),
            Event::Crash { node } => self.crash(node),
            Event::Boot { node } => self.boot(node),
            Event::Submit { job, attempt } => self.submit(job, attempt),
            Event::Cancel { job } => self.cancel(job),
            Event::Retry { job } => self.retry(job),
            Event::Change { job, entry } => {
                let entry = &mut self.jobs[job].entries[entry];
                entry.change(&mut self.rng);
            }
            Event::Mischief => self.mischief(),
        }
    }

    fn lives(&self, node: usize, epoch: u32) -> bool {
        self.nodes[node].up && self.nodes[node].epoch == epoch
    }

    fn boot(&mut self, node: usize) {
        let instance = self.rng.next_u64();
        let workers = self.scenario.workers[node];
        self.nodes[node].boot(instance, workers, &self.scenario);
        let epoch = self.nodes[node].epoch;
        self.after(REDIAL, Event::Redial { node, epoch });
        self.resubmit_after_boot(node);
    }

    fn crash(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.nodes[node].crash();
        if self.rng.chance(POWER_LOSSES_PER_MILLE) {
            for partial in self.nodes[node].leftovers.values_mut() {
                partial.lose_power(&mut self.rng);
            }
        }
        for connection in 0..self.connections.len() {
            if self.connections[connection].ends.iter().any(|end| end.node == node) {
                self.kill(connection, 1000 * MS);
            }
        }
        let after = self.rng.between(1, 3000) * MS;
        self.after(after, Event::Boot { node });
    }

    fn lane_fault(&mut self) {
        if !self.faults_on() {
            return;
        }
        let alive = self.connections_alive();
        if !alive.is_empty() {
            let connection = self.rng.pick(&alive);
            if self.rng.chance(250) {
                // A kernel gives a silent connection up after 25 s.
                let seconds = if self.rng.chance(700) { (1, 4) } else { (15, 25) };
                self.silence(connection, seconds);
            } else {
                self.kill(connection, 1000 * MS);
            }
        }
        let after = self.rng.between(1, 2 * self.scenario.lane_deaths);
        self.after(after, Event::LaneFault);
    }

    fn stall(&mut self) {
        let alive = self.connections_alive();
        let connection = self.rng.pick(&alive);
        self.silence(connection, (25, 30));
    }

    fn connections_alive(&self) -> Vec<usize> {
        (0..self.connections.len()).filter(|&index| !self.connections[index].dead).collect()
    }

    pub(super) fn faults_on(&self) -> bool {
        self.now < self.scenario.faults_until
    }

    pub(super) fn at(&mut self, time: Time, event: Event) {
        self.order += 1;
        self.events.insert((time, self.order), event);
    }

    pub(super) fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    /// A worker finds this at its next turn.
    pub(super) fn complete(&mut self, node: usize, worker: usize, completion: Completion) {
        self.nodes[node].workers[worker].completions.push(completion);
        self.wake(node, worker);
    }

    pub(super) fn wake(&mut self, node: usize, worker: usize) {
        let most = self.scenario.turn_delay;
        let delay =
            if self.rng.chance(900) { self.rng.below(most / 10 + 1) } else { self.rng.below(most + 1) };
        self.wake_at(node, worker, self.now + delay);
    }

    pub(super) fn wake_at(&mut self, node: usize, worker: usize, time: Time) {
        let epoch = self.nodes[node].epoch;
        let state = &mut self.nodes[node].workers[worker];
        let time = time.max(self.now);
        if state.turn_at.is_some_and(|at| at <= time) {
            return;
        }
        state.turn_at = Some(time);
        self.at(time, Event::Turn { node, epoch, worker });
    }

    /// Mixes a figure into the run's digest.
    pub(super) fn note(&mut self, figure: u64) {
        self.trace = (self.trace ^ self.now ^ figure << 48).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }
}
