//! Replicas on virtual time, many seeds. A seed that fails prints the line that replays it.
//!
//! `DWCP_CONSENSUS_SEEDS` asks for more seeds of each protocol, from `DWCP_CONSENSUS_FIRST` on.
mod check;
mod decoders;
mod disk;
mod keys;
mod mutants;
mod network;
mod node;
mod rng;
mod scenario;
mod world;

use std::panic::catch_unwind;

use dwcp_consensus::{Mutation, ProtocolKind};
use rng::Rng;
use scenario::Scenario;
use world::{Summary, World};

/// Seeds of each protocol in an ordinary run.
const SEEDS: u64 = 200;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn run(protocol: ProtocolKind, seed: u64, mutation: Option<Mutation>) -> Summary {
    let mut rng = Rng::new(seed);
    let mut scenario = Scenario::new(protocol, &mut rng);
    scenario.mutation = mutation;
    World::new(scenario, rng).run()
}

fn sweep(protocol: ProtocolKind) {
    let (first, seeds) = (number("DWCP_CONSENSUS_FIRST", 0), number("DWCP_CONSENSUS_SEEDS", SEEDS));
    let mut failed = Vec::new();
    let mut total = Summary::default();
    for seed in first..first + seeds {
        match catch_unwind(|| run(protocol, seed, None)) {
            Ok(summary) => total.add(&summary),
            Err(_) => {
                println!(
                    "DWCP_CONSENSUS_PROTOCOL={protocol:?} DWCP_CONSENSUS_SEED={seed} cargo test -p dwcp-consensus --test simulation replay -- --nocapture"
                );
                failed.push(seed);
            }
        }
    }
    println!("{protocol:?}, {seeds} seeds: {total:?}");
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
}

#[test]
fn pbft_keeps_its_promises() {
    sweep(ProtocolKind::Pbft);
}

#[test]
fn bullshark_keeps_its_promises() {
    sweep(ProtocolKind::Bullshark);
}

#[test]
fn replay() {
    let seed = number("DWCP_CONSENSUS_SEED", 1);
    let protocol = std::env::var("DWCP_CONSENSUS_PROTOCOL").unwrap_or_default();
    let protocol = ALL.into_iter().find(|kind| format!("{kind:?}") == protocol).unwrap_or(ProtocolKind::Pbft);
    println!("{:?}", Scenario::new(protocol, &mut Rng::new(seed)));
    let first = run(protocol, seed, None);
    println!("{first:?}");
    assert_eq!(first, run(protocol, seed, None), "a seed replays exactly");
}

const ALL: [ProtocolKind; 2] = [ProtocolKind::Pbft, ProtocolKind::Bullshark];
