//! Many seeds through the simulator of the engine. A seed that fails prints the line that replays it.
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use dwcp_tests::sim;

/// Seeds of an ordinary run. `DWCP_SIM_SEEDS` asks for more, from `DWCP_SIM_FIRST` on.
const SEEDS: u64 = 1000;

/// What came of some seeds.
#[derive(Default)]
struct Total {
    failed: Vec<u64>,
    done: usize,
    not_done: usize,
    resumed: u64,
    unmade: u64,
}

impl Total {
    fn add(&mut self, other: Self) {
        self.failed.extend(other.failed);
        self.done += other.done;
        self.not_done += other.not_done;
        self.resumed += other.resumed;
        self.unmade += other.unmade;
    }

    fn run(&mut self, seed: u64) {
        let Ok(summary) = catch_unwind(|| sim::run(seed)) else {
            println!("DWCP_SIM_SEED={seed} cargo test -p dwcp-tests simulator_replay -- --nocapture");
            return self.failed.push(seed);
        };
        self.done += summary.done;
        self.not_done += summary.not_done;
        self.resumed += summary.resumed;
        self.unmade += summary.unmade;
    }
}

#[test]
fn every_seed_keeps_the_promises() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (first, seeds) = (number("DWCP_SIM_FIRST", 0), number("DWCP_SIM_SEEDS", SEEDS));
    let next = AtomicU64::new(first);
    let some = || {
        let mut total = Total::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return total;
            }
            total.run(seed);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut total = Total::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(some)).collect();
        threads.into_iter().for_each(|thread| total.add(thread.join().expect("a seed's panic is caught")));
    });
    let Total { failed, done, not_done, resumed, unmade } = total;
    println!(
        "{seeds} seeds: {done} jobs done, {not_done} not, as the faults allow; {resumed} objects went on, {unmade} \
         chunks could not be made of their baseline"
    );
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    assert!(seeds < SEEDS || done > not_done, "most jobs get through");
    assert!(seeds < SEEDS || resumed > seeds / 20, "objects go on from what was left");
    assert!(seeds < SEEDS || unmade > seeds / 5, "differences are tried, and some are of no use");
}

/// What the kernel would need to notice is no part of how long the job takes: it is two seconds of work.
#[test]
fn a_lane_that_stalls_holds_nobody_up() {
    for seed in 0..40 {
        let summary = sim::run_with_stalled_lane(seed);
        assert_eq!(summary.done, 1, "seed {seed}");
        let seconds = summary.over as f64 / 1e9;
        assert!(seconds < 9.0, "seed {seed}: the job took {seconds:.1} s");
    }
}

#[test]
fn simulator_replay() {
    let seed = std::env::var("DWCP_SIM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let first = sim::run(seed);
    println!("{first:?}");
    assert_eq!(first, sim::run(seed), "a seed replays exactly");
}
