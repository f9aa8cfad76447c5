//! Jobs on virtual time, with a store and a dataplane that do as the test says.
use std::sync::Arc;
use std::time::Duration;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{Command, Counts, Event, JobFinished, JobProgress, JobState, Outcome};
use dwcp_api::{Direction, PathText, TransferOptions, TransferState};

use super::*;

struct Bench {
    jobs: Jobs,
    now: Now,
    /// What the store has, last write of each job.
    stored: BTreeMap<u64, JobRecord>,
    store_works: bool,
    /// What ended attempts have taken.
    elapsed_ns: u64,
}

/// One peer, paris.
fn config() -> dwcp_config::Config {
    let identity = dwcp_config::Identity([1; 32]);
    let peer = dwcp_config::Peer { name: "paris".into(), identity, ..dwcp_config::Peer::default() };
    dwcp_config::Config { peers: vec![peer], ..dwcp_config::Config::default() }
}

impl Bench {
    fn new() -> Self {
        let jobs = Jobs::new(
            crate::store::Recovered {
                unfinished: Vec::new(),
                next_id: 1,
                keys: Vec::new(),
                tunnels: Vec::new(),
            },
            &config(),
        );
        let now = Now { uptime: Duration::ZERO, unix_ms: 1_000_000 };
        Self { jobs, now, stored: BTreeMap::new(), store_works: true, elapsed_ns: 5 }
    }

    fn settle(&mut self) {
        while let Some(Effect { record, then }) = self.jobs.poll_effect() {
            let id = record.id;
            if self.store_works {
                self.stored.insert(id, record);
            }
            self.jobs.handle_stored(id, then, self.store_works, self.now);
        }
    }

    fn order(&mut self) -> u64 {
        let request = JobRequest {
            direction: Direction::Send,
            peer: "paris".into(),
            sources: vec![PathText::new("/srv/a").unwrap()],
            destination: PathText::new("in/a").unwrap(),
            options: TransferOptions::default(),
        };
        let (id, _durable) = self.jobs.create(Arc::new(request), None, self.now);
        self.settle();
        id
    }

    fn attach(&mut self, instance: u64) {
        self.jobs.handle_attached(instance, 1, self.now);
        self.settle();
    }

    fn advance(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.uptime += Duration::from_secs(1);
            self.now.unix_ms += 1000;
            self.jobs.handle_tick(self.now);
            self.settle();
        }
    }

    /// Everything that the only worker is told: `start 1`, `forget`, `cancel`, `snapshot`.
    fn commands(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(bytes) = self.jobs.next_command(0) {
            all.push(match Command::decode(bytes).unwrap() {
                Command::Send(send) => format!("start {}", send.attempt),
                Command::Fetch(fetch) => format!("start {}", fetch.attempt),
                Command::Cancel(_) => "cancel".into(),
                Command::Pause(_) => "pause".into(),
                Command::Forget(_) => "forget".into(),
                Command::Snapshot(_) => "snapshot".into(),
                Command::Ping(_) => "ping".into(),
            });
            self.jobs.handle_command_taken(0);
        }
        all
    }

    fn progress(&mut self, job: u64, attempt: u32) {
        let counts = counts();
        let progress =
            JobProgress { job, attempt, state: JobState::Running, scanned: true, lanes: 4, counts };
        self.jobs.handle_event(0, &Event::Progress(progress), self.now).unwrap();
        self.settle();
    }

    fn finish(&mut self, job: u64, attempt: u32, outcome: Outcome) {
        let counts = counts();
        let finished = JobFinished {
            job,
            attempt,
            outcome,
            lanes: 0,
            counts,
            elapsed_ns: self.elapsed_ns,
            text: b"no route",
            changes: b"",
        };
        self.jobs.handle_event(0, &Event::Finished(finished), self.now).unwrap();
        self.settle();
    }
}

fn counts() -> Counts {
    Counts {
        entries_done: 0,
        entries_total: 0,
        bytes_done: 0,
        bytes_total: 0,
        bytes_wire: 0,
        bytes_resent: 0,
        bytes_resumed: 0,
        failures: 0,
    }
}

#[test]
fn an_interrupted_job_is_tried_five_times_with_growing_pauses() {
    let mut bench = Bench::new();
    let mut config = config();
    config.circuit_breaker.failure_threshold = 100;
    bench.jobs.gate.handle_config(&config);
    bench.attach(7);
    let id = bench.order();
    assert_eq!(bench.commands(), ["snapshot", "start 1"]);
    for (attempt, pause_s) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        bench.finish(id, attempt, Outcome::Interrupted);
        assert_eq!(bench.stored[&id].state, TransferState::Interrupted);
        assert_eq!(bench.commands(), ["forget"]);
        bench.advance(pause_s - 1);
        assert_eq!(bench.commands(), Vec::<String>::new(), "attempt {attempt} was followed too early");
        bench.advance(1);
        assert_eq!(bench.commands(), ["forget".to_owned(), format!("start {}", attempt + 1)]);
    }
    bench.finish(id, 5, Outcome::Interrupted);
    assert_eq!(bench.stored[&id].state, TransferState::Failed);
    assert_eq!(bench.stored[&id].error.as_deref(), Some("given up after 5 attempts; the last one: no route"));
    assert_eq!((bench.commands(), bench.jobs.active()), (vec!["forget".to_owned()], 0));
}

#[test]
fn jobs_wait_for_a_peer_whose_breaker_is_open_and_probes_go_one_by_one() {
    let mut bench = Bench::new();
    bench.attach(7);
    let first = bench.order();
    bench.commands();
    for (attempt, pause_s) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        bench.finish(first, attempt, Outcome::Interrupted);
        bench.advance(pause_s);
        bench.commands();
    }
    bench.finish(first, 5, Outcome::Interrupted);
    // The fifth failure opened the breaker: the job is not given up, and new ones are taken and wait.
    let second = bench.order();
    let third = bench.order();
    bench.advance(29);
    assert_eq!(bench.commands(), ["forget"]);
    let (shown, _) = bench.jobs.show(second).unwrap();
    assert_eq!(shown.state, TransferState::Queued);
    let reason = "waits: the circuit breaker of peer paris is open, because attempts keep failing";
    assert_eq!(shown.error.as_deref(), Some(reason));
    let (shown, _) = bench.jobs.show(first).unwrap();
    assert_eq!(shown.error, Some(format!("{reason}; the last one: no route")));
    // Half-open: one probe, and the next only when that one has shown something.
    bench.advance(1);
    assert_eq!(bench.commands(), ["forget", "start 6"]);
    bench.advance(5);
    assert_eq!(bench.commands(), Vec::<String>::new());
    bench.progress(first, 6);
    assert_eq!(bench.commands(), ["start 1"]);
    bench.progress(second, 1);
    assert_eq!(bench.commands(), ["start 1"]);
    assert!(bench.jobs.show(third).unwrap().0.error.is_none());
    let state = |bench: &mut Bench| bench.jobs.gate.peer_figures(bench.now)["paris"].state;
    assert_eq!(state(&mut bench), dwcp_policy::BreakerState::Closed);
    bench.finish(first, 6, Outcome::Done);
    assert_eq!(bench.stored[&first].state, TransferState::Done);
}

#[test]
fn a_failed_probe_holds_everything_back_again_and_a_reset_lets_it_go() {
    let mut bench = Bench::new();
    bench.attach(7);
    let ids: Vec<u64> = (0..5).map(|_| bench.order()).collect();
    for id in &ids {
        bench.finish(*id, 1, Outcome::Interrupted);
    }
    bench.commands();
    bench.advance(29);
    assert_eq!(bench.commands(), Vec::<String>::new());
    bench.advance(1);
    assert_eq!(bench.commands(), ["forget", "start 2"]);
    bench.finish(ids[0], 2, Outcome::Interrupted);
    bench.commands();
    bench.advance(29);
    assert_eq!(bench.commands(), Vec::<String>::new());
    assert!(bench.jobs.gate.reset(Some("paris"), bench.now));
    assert!(!bench.jobs.gate.reset(Some("nowhere"), bench.now));
    bench.advance(1);
    assert_eq!(bench.commands().iter().filter(|command| command.starts_with("start")).count(), 5);
}

#[test]
fn what_our_own_dataplane_refuses_says_nothing_about_the_peer() {
    let mut bench = Bench::new();
    bench.attach(7);
    bench.elapsed_ns = 0;
    for _ in 0..20 {
        let id = bench.order();
        bench.finish(id, 1, Outcome::Interrupted);
    }
    let state = bench.jobs.gate.peer_figures(bench.now)["paris"].state;
    assert_eq!(state, dwcp_policy::BreakerState::Closed);
}

#[test]
fn a_job_does_not_wait_for_ever() {
    let mut bench = Bench::new();
    bench.attach(7);
    let ids: Vec<u64> = (0..5).map(|_| bench.order()).collect();
    for _ in 0..24 * 3600 / 30 + 20 {
        for id in &ids {
            if let Some((record, _)) = bench.jobs.show(*id) {
                bench.finish(*id, record.attempt, Outcome::Interrupted);
            }
        }
        bench.commands();
        bench.now.uptime += Duration::from_secs(30);
        bench.jobs.handle_tick(bench.now);
        bench.settle();
    }
    let late = &bench.stored[&ids[4]];
    assert_eq!(late.state, TransferState::Failed);
    assert!(late.error.as_ref().unwrap().starts_with("given up after 24 hours: waits"), "{:?}", late.error);
}

#[test]
fn a_draining_node_ends_what_it_has_and_starts_nothing() {
    let mut bench = Bench::new();
    bench.attach(7);
    let id = bench.order();
    bench.commands();
    bench.jobs.set_draining(true, bench.now);
    let later = bench.order();
    bench.advance(5);
    assert_eq!((bench.commands(), bench.jobs.under_way()), (Vec::new(), 1));
    bench.finish(id, 1, Outcome::Done);
    assert_eq!((bench.commands(), bench.jobs.under_way()), (vec!["forget".to_owned()], 0));
    bench.jobs.set_draining(false, bench.now);
    bench.settle();
    assert_eq!(bench.commands(), ["start 1"]);
    bench.finish(later, 1, Outcome::Done);
    assert_eq!(bench.jobs.active(), 0);
}

#[test]
fn clocks_of_the_host_may_jump() {
    let mut bench = Bench::new();
    bench.attach(7);
    let id = bench.order();
    bench.commands();
    bench.progress(id, 1);
    // Back to 1970 in the middle of an attempt: pauses and rates go by the clock that only grows.
    bench.now.unix_ms = 5;
    bench.finish(id, 1, Outcome::Interrupted);
    bench.commands();
    bench.now.uptime += Duration::from_millis(999);
    bench.jobs.handle_tick(bench.now);
    bench.settle();
    assert_eq!(bench.commands(), Vec::<String>::new());
    bench.advance(1);
    assert_eq!(bench.commands(), ["forget", "start 2"]);
    // And a century ahead.
    bench.now.unix_ms = 4_000_000_000_000;
    bench.progress(id, 2);
    bench.now.unix_ms = 7;
    bench.finish(id, 2, Outcome::Done);
    let record = &bench.stored[&id];
    assert!(record.finished_ms >= Some(record.created_ms), "{record:?}");
    let document = record.document(Pace::default(), u64::MAX);
    assert!(document.elapsed_seconds >= 0.0 && document.elapsed_seconds.is_finite(), "{document:?}");
}

#[test]
fn a_dataplane_that_dies_of_a_job_gets_it_five_times_at_most() {
    let mut bench = Bench::new();
    let id = bench.order();
    for instance in 1..=10 {
        bench.attach(instance);
        bench.commands();
        bench.jobs.handle_detached();
        bench.settle();
    }
    assert_eq!((bench.stored[&id].state, bench.stored[&id].attempt), (TransferState::Failed, 5));
    assert_eq!(bench.jobs.active(), 0);
}

#[test]
fn an_end_that_cannot_be_stored_is_not_forgotten() {
    let mut bench = Bench::new();
    bench.attach(7);
    let id = bench.order();
    bench.commands();
    bench.store_works = false;
    bench.finish(id, 1, Outcome::Done);
    assert_eq!((bench.commands(), bench.jobs.unstored()), (Vec::new(), 1));
    let (shown, _) = bench.jobs.show(id).unwrap();
    assert_eq!(shown.state, TransferState::Finishing);
    bench.advance(3);
    assert_eq!(bench.commands(), Vec::<String>::new());
    bench.store_works = true;
    bench.advance(1);
    assert_eq!((bench.commands(), bench.jobs.active()), (vec!["forget".to_owned()], 0));
    assert_eq!(bench.stored[&id].state, TransferState::Done);
}

#[test]
fn an_order_that_cannot_be_stored_does_not_exist() {
    let mut bench = Bench::new();
    bench.attach(7);
    bench.commands();
    bench.store_works = false;
    let id = bench.order();
    assert!(bench.jobs.show(id).is_none());
    assert_eq!((bench.commands(), bench.jobs.active()), (Vec::new(), 0));
}

fn state(bench: &Bench, id: u64) -> TransferState {
    bench.stored[&id].state
}

#[test]
fn a_job_rests_when_its_attempt_has_ended_and_until_it_is_resumed() {
    let mut bench = Bench::new();
    bench.attach(7);
    let id = bench.order();
    bench.progress(id, 1);
    bench.commands();
    assert!(matches!(bench.jobs.pause(id), Order::Accepted(_)));
    assert!(matches!(bench.jobs.pause(id), Order::Already));
    bench.settle();
    assert_eq!(bench.commands(), ["pause"]);
    bench.finish(id, 1, Outcome::Interrupted);
    assert_eq!((bench.commands(), state(&bench, id)), (vec!["forget".to_owned()], TransferState::Paused));
    bench.advance(3600);
    assert_eq!(bench.commands(), Vec::<String>::new());
    assert!(matches!(bench.jobs.resume(id), Order::Accepted(_)));
    bench.settle();
    assert_eq!(bench.commands(), ["forget", "start 2"]);
    assert!(matches!(bench.jobs.resume(id), Order::Already));
    assert!(matches!(bench.jobs.pause(99), Order::Unknown));
}

#[test]
fn pausing_often_uses_no_attempts_up() {
    let mut bench = Bench::new();
    bench.attach(7);
    let id = bench.order();
    for attempt in 1..100 {
        bench.progress(id, attempt);
        bench.jobs.pause(id);
        bench.settle();
        bench.finish(id, attempt, Outcome::Interrupted);
        assert_eq!(state(&bench, id), TransferState::Paused);
        bench.jobs.resume(id);
        bench.settle();
        assert!(bench.commands().contains(&format!("start {}", attempt + 1)));
    }
    bench.progress(id, 100);
    bench.finish(id, 100, Outcome::Interrupted);
    assert_eq!(state(&bench, id), TransferState::Interrupted);
}

/// The order crosses the end of the attempt that it stops, and the next order crosses that end.
#[test]
fn a_job_that_is_resumed_at_once_goes_on_at_once() {
    let mut bench = Bench::new();
    bench.attach(7);
    let id = bench.order();
    bench.progress(id, 1);
    bench.commands();
    bench.jobs.pause(id);
    bench.jobs.resume(id);
    bench.settle();
    assert_eq!(bench.commands(), Vec::<String>::new());
    bench.jobs.pause(id);
    bench.settle();
    bench.jobs.resume(id);
    bench.settle();
    assert_eq!(bench.commands(), ["pause"]);
    bench.finish(id, 1, Outcome::Interrupted);
    bench.advance(1);
    assert_eq!(bench.commands(), ["forget", "forget", "start 2"]);
}

#[test]
fn a_job_that_waits_rests_at_once_and_may_be_cancelled() {
    let mut bench = Bench::new();
    let id = bench.order();
    bench.jobs.pause(id);
    bench.settle();
    assert_eq!(state(&bench, id), TransferState::Paused);
    bench.attach(7);
    assert_eq!(bench.commands(), ["snapshot"]);
    bench.jobs.cancel(id, bench.now);
    bench.settle();
    assert_eq!(state(&bench, id), TransferState::Cancelled);
    assert!(matches!(bench.jobs.resume(id), Order::Unknown));
}

#[test]
fn a_job_whose_dataplane_died_before_it_heard_rests() {
    let mut bench = Bench::new();
    bench.attach(7);
    let id = bench.order();
    bench.progress(id, 1);
    bench.jobs.handle_detached();
    bench.jobs.pause(id);
    bench.settle();
    bench.attach(8);
    assert_eq!(state(&bench, id), TransferState::Paused);
    assert!(!bench.commands().iter().any(|told| told.starts_with("start")));
}
