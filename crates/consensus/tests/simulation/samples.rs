//! What sampling costs and risks: how often a replica decides while a third is silent, against the bounds of the paper
//! (Avelãs et al., PODC 2024), and messages against PBFT's.
use dwcp_consensus::{Committee, Crypto, Lies, MILLISECOND, ProtocolKind, ReplicaId, Sampling, SamplingRule};

use crate::keys::{Signings, SimulatedKeys};
use crate::rng::Rng;
use crate::scenario::{Liar, Scenario};
use crate::trust::quiet;
use crate::world::World;

/// Views of which a share is measured.
const VIEWS: u64 = 400;

/// Whom every correct member's vote reaches in a phase of a view: how many votes each member gets.
fn votes(sampling: &Sampling, committee: &Committee, silent: usize, seed: u64) -> Vec<usize> {
    let members = committee.members();
    let mut votes = vec![0; members.len()];
    for member in &members[silent..] {
        let keys = SimulatedKeys::new(*member, Signings::default());
        let (output, _) = keys.random(&seed.to_le_bytes());
        sampling.draw(&output, committee).iter().for_each(|hearer| votes[usize::from(hearer.0)] += 1);
    }
    votes
}

/// The share of correct members that do not decide, and of views in which not all do.
fn misses(sampling: &Sampling, committee: &Committee, silent: usize) -> (f64, f64) {
    let correct = committee.members().len() - silent;
    let (mut missed, mut incomplete) = (0, 0);
    for view in 0..VIEWS {
        // Who is not prepared does not vote to commit.
        let prepared = votes(sampling, committee, silent, 2 * view);
        let voters: Vec<_> =
            (silent..committee.members().len()).filter(|at| prepared[*at] >= sampling.quorum).collect();
        let mut commits = vec![0; committee.members().len()];
        for voter in voters {
            let keys = SimulatedKeys::new(ReplicaId(voter as u16), Signings::default());
            let (output, _) = keys.random(&(2 * view + 1).to_le_bytes());
            sampling.draw(&output, committee).iter().for_each(|hearer| commits[usize::from(hearer.0)] += 1);
        }
        let without = commits[silent..].iter().filter(|count| **count < sampling.quorum).count();
        missed += without;
        incomplete += usize::from(without > 0);
    }
    (missed as f64 / (VIEWS as usize * correct) as f64, incomplete as f64 / VIEWS as f64)
}

/// Chernoff's bound on too few of `correct` votes reaching a member, each with the probability `sample / members`.
fn chernoff(sampling: &Sampling, members: usize, correct: usize) -> f64 {
    let mean = (correct * sampling.sample) as f64 / members as f64;
    let short = (1.0 - (sampling.quorum as f64 - 1.0) / mean).max(0.0);
    (-short * short * mean / 2.0).exp()
}

#[test]
fn samples_decide_as_often_as_their_bounds_say() {
    println!("members silent quorum sample  not decided  bound for two phases  not all  votes to PBFT's");
    for (members, silent) in [(31, 10), (64, 21), (100, 33), (100, 20), (128, 42)] {
        let sampling = Sampling::of(members, &SamplingRule::default()).expect("sampled");
        let committee = Committee::of_all(members as u16).expect("sound");
        let (missed, incomplete) = misses(&sampling, &committee, silent);
        let bound = (2.0 * chernoff(&sampling, members, members - silent)).min(1.0);
        let messages = (members - 1) + 2 * members * sampling.sample;
        let share = messages as f64 / (2 * members * (members - 1)) as f64;
        println!(
            "{members:7} {silent:6} {:6} {:6}  {missed:11.5}  {bound:20.5}  {incomplete:7.3}  {share:15.2}",
            sampling.quorum, sampling.sample
        );
        assert!(missed <= bound, "{members}: {missed} of the members do not decide, the bound is {bound}");
        assert!(missed < 0.01, "{members}: {missed}");
    }
}

/// The paper's own sizes, with which a third of silent members leaves hardly anybody a decision.
#[test]
fn smaller_samples_are_not_enough_with_a_third_silent() {
    let rule = SamplingRule { sample_per_quorum: 170, ..SamplingRule::default() };
    let sampling = Sampling::of(100, &rule).expect("sampled");
    assert_eq!((sampling.quorum, sampling.sample), (20, 34));
    let (missed, _) = misses(&sampling, &Committee::of_all(100).expect("sound"), 33);
    println!("with samples of 34 of 100 members, 33 silent: {missed:.2} do not decide");
    assert!(missed > 0.5, "{missed}");
}

/// A hundred replicas, a third of them silent: forecasts come and come true, and what is said for each piece.
#[test]
fn a_hundred_members_decide_by_samples_while_a_third_is_silent() {
    let mut scenario: Scenario = quiet(ProtocolKind::ProBft, 100, None);
    let silent = Lies { silent: true, ..Lies::default() };
    scenario.liars = (67..100).map(|liar| (liar, Liar::Lies(silent))).collect();
    (scenario.transactions, scenario.pause, scenario.block_batches) = (12, 5 * MILLISECOND, 64);
    scenario.delay_min = MILLISECOND;
    scenario.delay_max = 2 * MILLISECOND;
    let summary = World::new(scenario, Rng::new(5)).run();
    println!("{summary:?}");
    assert!(summary.forecasts > 60, "most of 67 correct replicas forecast");
    assert_eq!(summary.false_forecasts, 0);
}
