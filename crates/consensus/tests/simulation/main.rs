//! Replicas on virtual time, many seeds. A seed that fails prints the line that replays it.
//!
//! `DWCP_CONSENSUS_SEEDS`, or `DWCP_SEEDS`, asks for more seeds of each protocol, from `DWCP_CONSENSUS_FIRST` on.
mod check;
mod decoders;
mod disk;
mod failover;
mod keys;
mod mutants;
mod network;
mod node;
mod rng;
mod samples;
mod scenario;
mod trust;
mod world;

use std::panic::catch_unwind;

use dwcp_consensus::{Mutation, ProtocolKind};
use rng::Rng;
use scenario::Scenario;
use world::{Summary, World};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    Pbft,
    Bullshark,
    /// Epochs that end because their members want it.
    Epochs,
    TPbft,
    ProBft,
    /// ProBFT with as many members as samples are made for, none of whom lies: what is forecast comes true.
    Forecasts,
    Raft,
    /// Epochs of all protocols among members that never lie.
    CrashEpochs,
}

impl Sweep {
    const ALL: [Self; 8] = [
        Self::Pbft,
        Self::Bullshark,
        Self::Epochs,
        Self::TPbft,
        Self::ProBft,
        Self::Forecasts,
        Self::Raft,
        Self::CrashEpochs,
    ];

    /// Seeds of an ordinary run.
    fn seeds(self) -> u64 {
        match self {
            Self::Pbft | Self::Bullshark | Self::ProBft | Self::Raft => 200,
            Self::Forecasts => 6,
            Self::Epochs | Self::TPbft | Self::CrashEpochs => 60,
        }
    }

    fn scenario(self, rng: &mut Rng) -> Scenario {
        match self {
            Self::Pbft => Scenario::new(ProtocolKind::Pbft, rng),
            Self::Bullshark => Scenario::new(ProtocolKind::Bullshark, rng),
            Self::Epochs => {
                let first = rng.pick(&[ProtocolKind::Pbft, ProtocolKind::Bullshark]);
                Scenario::new(first, rng).with_switches(rng)
            }
            Self::CrashEpochs => {
                let first = rng.pick(&[ProtocolKind::Raft, ProtocolKind::ProBft]);
                Scenario::new(first, rng).with_switches(rng).without_liars(rng).with_few_samples(rng)
            }
            Self::Raft => Scenario::new(ProtocolKind::Raft, rng).without_liars(rng),
            Self::Forecasts => Scenario::new(ProtocolKind::ProBft, rng).with_restless_leaders(rng),
            Self::ProBft => Scenario::new(ProtocolKind::ProBft, rng).with_samples(rng),
            Self::TPbft => Scenario::new(ProtocolKind::TPbft, rng).with_rotation(rng),
        }
    }
}

fn run(sweep: Sweep, seed: u64, mutation: Option<Mutation>) -> Summary {
    let mut rng = Rng::new(seed);
    let mut scenario = sweep.scenario(&mut rng);
    scenario.mutation = mutation;
    World::new(scenario, rng).run()
}

fn sweep(protocol: Sweep) {
    let seeds = number("DWCP_CONSENSUS_SEEDS", number("DWCP_SEEDS", protocol.seeds()));
    let first = number("DWCP_CONSENSUS_FIRST", 0);
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
    sweep(Sweep::Pbft);
}

#[test]
fn bullshark_keeps_its_promises() {
    sweep(Sweep::Bullshark);
}

#[test]
fn epochs_lose_and_repeat_nothing() {
    sweep(Sweep::Epochs);
}

#[test]
fn t_pbft_keeps_its_promises() {
    sweep(Sweep::TPbft);
}

#[test]
fn probft_keeps_its_promises() {
    sweep(Sweep::ProBft);
}

#[test]
fn what_probft_forecasts_comes_true() {
    sweep(Sweep::Forecasts);
}

#[test]
fn raft_keeps_its_promises() {
    sweep(Sweep::Raft);
}

#[test]
fn epochs_of_all_protocols_lose_and_repeat_nothing() {
    sweep(Sweep::CrashEpochs);
}

#[test]
fn replay() {
    let seed = number("DWCP_CONSENSUS_SEED", 1);
    let protocol = std::env::var("DWCP_CONSENSUS_PROTOCOL").unwrap_or_default();
    let protocol = Sweep::ALL.into_iter().find(|kind| format!("{kind:?}") == protocol).unwrap_or(Sweep::Pbft);
    println!("{:?}", protocol.scenario(&mut Rng::new(seed)));
    let first = run(protocol, seed, None);
    println!("{first:?}");
    assert_eq!(first, run(protocol, seed, None), "a seed replays exactly");
}

/// What messages are decoded for.
const PROTOCOLS: [ProtocolKind; 4] =
    [ProtocolKind::Pbft, ProtocolKind::Bullshark, ProtocolKind::ProBft, ProtocolKind::Raft];
