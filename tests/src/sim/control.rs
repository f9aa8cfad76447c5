//! The fake control: which jobs there are, when they are ordered, tried again and cancelled, and the run's faults.
use dwcp_abi::link::{Counts, Outcome};
use dwcp_abi::wire::TreeOptions;
use dwcp_engine::{JobKey, Owner, PeerId};

use super::disk::path_of;
use super::op::Completion;
use super::scenario::{MS, SECOND};
use super::source::Entry;
use super::world::{Event, World};

/// A job as its owner's control knows it.
#[derive(Debug)]
pub(super) struct Job {
    /// Who ordered it.
    pub(super) owner: usize,
    pub(super) peer: usize,
    pub(super) is_fetch: bool,
    pub(super) id: u64,
    pub(super) attempt: u32,
    pub(super) entries: Vec<Entry>,
    /// Entries that the scanner cannot read at all.
    pub(super) scan_failures: u64,
    pub(super) options: TreeOptions,
    pub(super) running: bool,
    pub(super) cancelled: bool,
    pub(super) end: Option<(Outcome, Counts, String)>,
}

/// What is under way when a lane stalls: two seconds of four lanes.
const STALLED_BYTES: u64 = 40_000_000;
/// Attempts after which an interrupted job is a failed check.
const ATTEMPTS_MAX: u32 = 200;

impl Job {
    /// The node that has the source.
    pub(super) fn from(&self) -> usize {
        if self.is_fetch { self.peer } else { self.owner }
    }

    /// The node that receives.
    pub(super) fn to(&self) -> usize {
        if self.is_fetch { self.owner } else { self.peer }
    }

    fn key(&self) -> JobKey {
        JobKey { peer: PeerId(self.peer as u16), owner: Owner::Local, id: self.id }
    }
}

impl World {
    pub(super) fn plan_jobs(&mut self) {
        for index in 0..self.scenario.jobs {
            let honest = if self.scenario.hostile { 2 } else { self.nodes.len() as u64 };
            let owner = self.rng.below(honest) as usize;
            let mut peer = self.rng.below(honest - 1) as usize;
            peer += usize::from(peer >= owner);
            let count = self.rng.between(0, 14);
            self.add_job(index, owner, peer, count);
        }
        if self.scenario.hostile {
            let (owner, peer) = (self.rng.below(2) as usize, 2);
            self.add_job(self.scenario.jobs, owner, peer, 5);
        }
    }

    fn add_job(&mut self, index: usize, owner: usize, peer: usize, entries: u64) {
        let faults = self.scenario.object_faults;
        let entries: Vec<Entry> = match self.scenario.stall {
            Some(_) => vec![Entry::sound(&mut self.rng, STALLED_BYTES)],
            None => (0..entries).map(|_| Entry::new(&mut self.rng, &faults)).collect(),
        };
        for (entry, _) in entries.iter().enumerate().filter(|(_, entry)| entry.will_change) {
            let at = self.rng.below(3 * SECOND);
            self.at(at, Event::Change { job: index, entry });
        }
        let scan_failures = u64::from(self.rng.chance(faults.scan_failures));
        self.jobs.push(Job {
            owner,
            peer,
            is_fetch: self.rng.chance(400),
            id: index as u64 * 7 + self.rng.below(7),
            attempt: 1,
            entries,
            scan_failures,
            options: TreeOptions::NONE.with(TreeOptions::SKIP_UNCHANGED, self.rng.chance(300)),
            running: false,
            cancelled: false,
            end: None,
        });
        let at = self.rng.below(SECOND);
        self.at(at, Event::Submit { job: index, attempt: 1 });
        if self.scenario.cancels || self.is_hostile(peer) {
            let at = at + self.rng.below(20 * SECOND);
            self.at(at, Event::Cancel { job: index });
        }
    }

    pub(super) fn plan_faults(&mut self) {
        if self.scenario.lane_deaths > 0 {
            let at = self.rng.below(2 * self.scenario.lane_deaths);
            self.at(at, Event::LaneFault);
        }
        for _ in 0..self.scenario.crashes {
            let at = self.rng.below(self.scenario.faults_until);
            let node = self.rng.below(self.nodes.len() as u64) as usize;
            self.at(at, Event::Crash { node });
        }
        for _ in 0..self.scenario.retries {
            let at = self.rng.below(self.scenario.faults_until);
            let job = self.rng.below(self.jobs.len() as u64) as usize;
            self.at(at, Event::Retry { job });
        }
        if let Some(at) = self.scenario.stall {
            self.at(at, Event::Stall);
        }
        if self.scenario.hostile {
            self.at(100 * MS, Event::Mischief);
        }
    }

    pub(super) fn submit(&mut self, index: usize, attempt: u32) {
        let as_configured = self.scenario.stall.is_some() || self.rng.chance(500);
        let streams = if as_configured { 0 } else { self.rng.between(1, 8) as u16 };
        let job = &mut self.jobs[index];
        if job.attempt != attempt || job.end.is_some() || !self.nodes[job.owner].up {
            return;
        }
        job.running = true;
        let (key, owner, path) = (job.key(), job.owner, path_of(index));
        let options = job.options;
        let completion = if job.is_fetch {
            Completion::Fetch { job: key, attempt, sources: path, streams, options }
        } else {
            Completion::Send { job: key, attempt, destination: path, streams, options }
        };
        let worker = self.home(owner, key);
        self.complete(owner, worker, completion);
    }

    fn home(&self, node: usize, job: JobKey) -> usize {
        (job.id % self.nodes[node].workers.len() as u64) as usize
    }

    /// Gives a job up or pauses it, to start it again as soon as it has ended.
    pub(super) fn retry(&mut self, index: usize) {
        let job = &self.jobs[index];
        let (owner, key) = (job.owner, job.key());
        let is_pause = job.attempt % 2 == 1;
        if job.end.is_none() && job.running && self.nodes[owner].up {
            let worker = self.home(owner, key);
            let stop =
                if is_pause { Completion::Pause { job: key } } else { Completion::Cancel { job: key } };
            self.complete(owner, worker, stop);
        }
    }

    pub(super) fn cancel(&mut self, index: usize) {
        let job = &mut self.jobs[index];
        job.cancelled = true;
        if job.end.is_some() {
            return;
        }
        let (owner, key) = (job.owner, job.key());
        if !job.running || !self.nodes[owner].up {
            let text = String::from("cancelled before it ran");
            job.end = Some((Outcome::Cancelled, EMPTY, text));
            return;
        }
        let worker = self.home(owner, key);
        self.complete(owner, worker, Completion::Cancel { job: key });
    }

    /// An engine says that a job of its node is over.
    pub(super) fn ended(
        &mut self,
        node: usize,
        key: JobKey,
        attempt: u32,
        (outcome, counts): (Outcome, Counts),
        text: String,
    ) {
        let index = self.job_of_key(node, key).expect("only known jobs end");
        assert_eq!(key.owner, Owner::Local, "only the owner's control hears of an end");
        let job = &mut self.jobs[index];
        assert!(job.end.is_none() && job.running && job.attempt == attempt, "a job ends twice");
        job.running = false;
        if matches!(outcome, Outcome::Interrupted | Outcome::Cancelled) && !job.cancelled {
            assert!(!text.is_empty(), "an interruption has no reason");
            job.attempt += 1;
            let attempt = job.attempt;
            assert!(attempt < ATTEMPTS_MAX, "job {index} is interrupted for ever: {text}");
            let most = if outcome == Outcome::Cancelled { 2 * MS } else { 2000 * MS };
            let after = self.rng.below(most);
            self.after(after, Event::Submit { job: index, attempt });
        } else {
            job.end = Some((outcome, counts, text));
        }
    }

    /// A started node's control repeats what was not over.
    pub(super) fn resubmit_after_boot(&mut self, node: usize) {
        for index in 0..self.jobs.len() {
            let job = &mut self.jobs[index];
            if job.owner != node || job.end.is_some() {
                continue;
            }
            if job.cancelled {
                job.end = Some((Outcome::Cancelled, EMPTY, String::from("cancelled while it was down")));
                continue;
            }
            if self.nodes[node].epoch > 0 {
                (job.attempt, job.running) = (job.attempt + 1, false);
                let attempt = job.attempt;
                let after = self.rng.below(500 * MS);
                self.after(after, Event::Submit { job: index, attempt });
            }
        }
    }

    /// The job that a node knows by this key.
    pub(super) fn job_of_key(&self, node: usize, key: JobKey) -> Option<usize> {
        let peer = usize::from(key.peer.0);
        self.jobs.iter().position(|job| {
            let (owner, other) = match key.owner {
                Owner::Local => (node, peer),
                Owner::Remote => (peer, node),
            };
            job.id == key.id && job.owner == owner && job.peer == other
        })
    }

    /// Whether a peer may fetch a job's source here.
    pub(super) fn is_fetched_from(&self, job: usize, node: usize, key: JobKey) -> bool {
        let peer = usize::from(key.peer.0);
        self.jobs.get(job).is_some_and(|job| job.is_fetch && job.peer == node && job.owner == peer)
    }

    /// Whether a peer may send a job's entries here.
    pub(super) fn is_sent_to(&self, job: usize, node: usize, key: JobKey) -> bool {
        let peer = usize::from(key.peer.0);
        self.jobs.get(job).is_some_and(|job| !job.is_fetch && job.peer == node && job.owner == peer)
    }
}

const EMPTY: Counts = Counts {
    entries_done: 0,
    entries_total: 0,
    bytes_done: 0,
    bytes_total: 0,
    bytes_wire: 0,
    bytes_resent: 0,
    bytes_resumed: 0,
    failures: 0,
};
