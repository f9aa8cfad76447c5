//! What trust is for: fewer messages with a committee, and members that fail are out of it soon. On a quiet network, so
//! that the figures are the protocol's own.
use dwcp_consensus::{Lies, MILLISECOND, Plan, ProtocolKind, ReplicaId, Rotation};

use crate::rng::Rng;
use crate::scenario::{Liar, Scenario};
use crate::world::World;

/// Nothing goes wrong but what is asked for.
pub(crate) fn quiet(protocol: ProtocolKind, replicas: u16, rotation: Option<Rotation>) -> Scenario {
    Scenario {
        replicas,
        rotation,
        liars: Vec::new(),
        forgetful: Vec::new(),
        delay_min: 9 * MILLISECOND,
        delay_max: 11 * MILLISECOND,
        dropped: 0,
        doubled: 0,
        stragglers: 0,
        cuts: 0,
        crashes: 0,
        disk_delay_max: 0,
        skew: 0,
        calm: 0,
        clients: 1,
        transactions: 24,
        pause: 150 * MILLISECOND,
        repeats: 0,
        checkpoint_interval: 4,
        leader_timeout: 1000 * MILLISECOND,
        batches_in_flight: 8,
        block_batches: 4,
        ..Scenario::new(protocol, &mut Rng::new(1))
    }
}

/// Messages of the protocol for each position: PBFT among all of 100, and a committee of 10 that all 100 follow. By the
/// formula it is 2n(n-1) = 19,800 and 2c(c-1) = 180.
#[test]
fn a_committee_of_ten_says_little_of_what_a_hundred_say() {
    let run = |protocol, rotation| {
        let mut scenario = quiet(protocol, 100, rotation);
        scenario.transactions = 12;
        World::new(scenario, Rng::new(2)).run()
    };
    let all = run(ProtocolKind::Pbft, None);
    let some = run(ProtocolKind::TPbft, Some(Rotation { positions: 1000, seats: 10 }));
    let each = |summary: &crate::world::Summary| summary.votes as f64 / summary.position as f64;
    println!("messages for each position: {:.0} among 100, {:.0} with a committee", each(&all), each(&some));
    assert!(each(&all) > 18_000.0, "{all:?}");
    // 180 among the committee, and two answers to each of 90 that follow, where nothing is lost.
    assert!(each(&some) < each(&all) / 40.0, "{some:?}");
}

/// Members that say nothing, or one thing here and another there, do not sit in the committees after the epoch in which
/// they were seen at it, until that is so long ago that it is forgotten.
#[test]
fn members_that_fail_are_out_at_the_next_epoch() {
    let silent = Lies { silent: true, ..Lies::default() };
    let two_faced = Lies { equivocates: true, echoes: true, half: 0b0101_0101_0101, ..Lies::default() };
    let mut seen = 0;
    for (name, lies) in [("silent", silent), ("two-faced", two_faced)] {
        for liar in 0..4 {
            let mut scenario = quiet(ProtocolKind::TPbft, 10, Some(Rotation { positions: 12, seats: 7 }));
            scenario.liars = vec![(liar, Liar::Lies(lies))];
            scenario.transactions = 60;
            let (summary, plans) = World::new(scenario, Rng::new(3)).run_and_list_plans();
            let sits = |plan: &&Plan| plan.committee.contains(&ReplicaId(liar));
            let Some(first) = plans.iter().find(sits).map(|plan| plan.epoch) else { continue };
            assert!(plans.last().is_some_and(|plan| plan.epoch > first), "{summary:?}");
            let after = first + 1..=first + 3;
            let after = plans.iter().filter(|plan| after.contains(&plan.epoch));
            let sat: Vec<_> = after.filter(sits).map(|plan| plan.epoch).collect();
            assert!(
                sat.is_empty(),
                "the {name} replica {liar} sat in {first} and {sat:?} of {}",
                plans.len()
            );
            seen += 1;
        }
    }
    assert!(seen > 4, "liars sat in {seen} of 8 runs");
}

/// A member that is away costs the others no timeout at each of its turns to lead.
#[test]
fn bullshark_with_a_dead_member_does_not_wait_for_it() {
    let silent = Lies { silent: true, ..Lies::default() };
    let mut scenario = quiet(ProtocolKind::Bullshark, 4, None);
    scenario.liars = vec![(2, Liar::Lies(silent))];
    scenario.transactions = 60;
    scenario.pause = 200 * MILLISECOND;
    (scenario.delay_min, scenario.delay_max) = (MILLISECOND, 2 * MILLISECOND);
    let summary = World::new(scenario, Rng::new(4)).run();
    let each = summary.waited / summary.transactions as u64 / MILLISECOND;
    println!("a transaction takes {each} ms: {summary:?}");
    // Most that members have submitted elsewhere: a quarter goes to the dead one and comes again after two seconds.
    assert!(each < 200, "{each} ms");
}
