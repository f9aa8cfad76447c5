//! The simulator: nodes of several engines each, driven on virtual time by a fake driver with in-memory files and
//! lanes. One seed decides everything, so a seed replays a run exactly. Called by `tests/simulator.rs`.
//!
//! It knows nothing of sockets, real files or threads: those are the dataplane's, and tested there.
mod check;
mod control;
mod disk;
mod hostile;
mod network;
mod node;
mod op;
mod partial;
mod perform;
mod rng;
mod scenario;
mod source;
mod worker;
mod world;

pub use rng::Rng;

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Jobs of honest nodes that ended with everything in place.
    pub done: usize,
    /// Jobs that ended otherwise, as the faults of the run allow.
    pub not_done: usize,
    /// Objects that went on from what a former attempt had left.
    pub resumed: u64,
    /// Chunks that came as differences and could not be made at the receiver.
    pub unmade: u64,
    /// Events that were handled.
    pub steps: u64,
    /// When the last job ended, in nanoseconds of virtual time.
    pub over: u64,
    /// When all was over, in nanoseconds of virtual time.
    pub ended: u64,
    /// A digest of the whole run: equal for equal seeds.
    pub trace: u64,
}

/// Runs a seed to its end.
///
/// # Panics
/// On every broken promise of the engine, with a sentence that says which.
#[must_use]
pub fn run(seed: u64) -> Summary {
    world::World::new(seed).run()
}

/// One large file over four lanes, one of which falls silent in the middle; its kernel notices half a minute later.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_with_stalled_lane(seed: u64) -> Summary {
    world::World::with_stalled_lane(seed).run()
}
