//! Jobs on virtual time, with a store and a dataplane that do as the test says.
use std::sync::Arc;
use std::time::Duration;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{Command, Counts, Event, JobFinished, Outcome};
use dwcp_api::{Direction, PathText, TransferOptions, TransferState};

use super::*;

struct Bench {
    jobs: Jobs,
    now: Now,
    /// What the store has, last write of each job.
    stored: BTreeMap<u64, JobRecord>,
    store_works: bool,
}

impl Bench {
    fn new() -> Self {
        let jobs = Jobs::new(crate::store::Recovered { unfinished: Vec::new(), next_id: 1 });
        let now = Now { uptime: Duration::ZERO, unix_ms: 1_000_000 };
        Self { jobs, now, stored: BTreeMap::new(), store_works: true }
    }

    fn settle(&mut self) {
        while let Some(Effect { record, then }) = self.jobs.poll_effect() {
            let id = record.id;
            if self.store_works {
                self.stored.insert(id, record);
            }
            self.jobs.handle_stored(id, then, self.store_works);
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
        let (id, _durable) = self.jobs.create(Arc::new(request), self.now);
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
                Command::Forget(_) => "forget".into(),
                Command::Snapshot(_) => "snapshot".into(),
            });
            self.jobs.handle_command_taken(0);
        }
        all
    }

    fn finish(&mut self, job: u64, attempt: u32, outcome: Outcome) {
        let counts = Counts {
            entries_done: 0,
            entries_total: 0,
            bytes_done: 0,
            bytes_total: 0,
            bytes_wire: 0,
            bytes_resent: 0,
            failures: 0,
        };
        let finished =
            JobFinished { job, attempt, outcome, lanes: 0, counts, elapsed_ns: 0, text: b"no route" };
        self.jobs.handle_event(0, &Event::Finished(finished), self.now).unwrap();
        self.settle();
    }
}

#[test]
fn an_interrupted_job_is_tried_five_times_with_growing_pauses() {
    let mut bench = Bench::new();
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
