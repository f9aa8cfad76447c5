//! Many seeds through the simulator of the engine. A seed that fails prints the line that replays it.
use std::panic::catch_unwind;

use dwcp_tests::sim;

/// Seeds of an ordinary run. `DWCP_SIM_SEEDS` asks for more, from `DWCP_SIM_FIRST` on.
const SEEDS: u64 = 300;

#[test]
fn every_seed_keeps_the_promises() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (first, seeds) = (number("DWCP_SIM_FIRST", 0), number("DWCP_SIM_SEEDS", SEEDS));
    let mut failed = Vec::new();
    let (mut done, mut not_done, mut resumed) = (0, 0, 0);
    for seed in first..first + seeds {
        match catch_unwind(|| sim::run(seed)) {
            Ok(summary) => {
                (done, not_done) = (done + summary.done, not_done + summary.not_done);
                resumed += summary.resumed;
            }
            Err(_) => {
                println!("DWCP_SIM_SEED={seed} cargo test -p dwcp-tests simulator_replay -- --nocapture");
                failed.push(seed);
            }
        }
    }
    println!(
        "{seeds} seeds: {done} jobs done, {not_done} not, as the faults allow; {resumed} objects went on"
    );
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    assert!(seeds < SEEDS || done > not_done, "most jobs get through");
    assert!(seeds < SEEDS || resumed > seeds / 10, "objects go on from what was left");
}

#[test]
fn simulator_replay() {
    let seed = std::env::var("DWCP_SIM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let first = sim::run(seed);
    println!("{first:?}");
    assert_eq!(first, sim::run(seed), "a seed replays exactly");
}
