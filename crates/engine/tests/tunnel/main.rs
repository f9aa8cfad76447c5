//! Tunnelled connections on virtual time: two ends, lanes that deliver late, die at any step and are noticed to be dead at
//! different times, programs that write and read as they please. Checked at every step: what was delivered is what was
//! written, and memory is bounded; at the end: everything has ended. A failure names its seed.
mod hostile;
mod world;

use world::{Plan, World};

/// xorshift64 (Marsaglia 2003).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

#[test]
fn everything_arrives_while_lanes_die() {
    let mut died = 0;
    for seed in 1..=SEEDS {
        let plan = Plan { connections: 1 + seed % 12, deaths: u64::MAX, resets: false, slow: seed % 3 == 0 };
        let ended = World::new(seed, plan).run();
        assert_eq!(ended.broken, 0, "seed {seed}: lanes died, connections must not");
        died += ended.lanes_died;
    }
    assert!(died > SEEDS, "{died}: the lanes have to die for this to mean anything");
}

#[test]
fn resets_reach_the_other_end_and_touch_no_other_connection() {
    let mut broken = 0;
    for seed in 1..=SEEDS {
        let plan = Plan { connections: 1 + seed % 12, deaths: seed % 8, resets: true, slow: seed % 3 == 0 };
        broken += World::new(seed, plan).run().broken;
    }
    assert!(broken > SEEDS / 2, "{broken}");
}

#[test]
fn windows_grow_for_those_who_read() {
    let plan = Plan { connections: 1, deaths: 0, resets: false, slow: false };
    let mut world = World::new(7, plan);
    world.length = Some(8 << 20);
    let ended = world.run();
    assert!(ended.held_max > 256 * 1024, "{}: the first window was the last", ended.held_max);
}

const SEEDS: u64 = 250;
