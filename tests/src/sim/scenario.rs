//! What a seed decides before anything happens: the nodes, their links, how often what goes wrong, and the jobs.
use dwcp_engine::Time;

use super::rng::Rng;

/// One millisecond of virtual time.
pub(super) const MS: Time = 1_000_000;
/// One second of virtual time.
pub(super) const SECOND: Time = 1000 * MS;

/// The conditions of a run.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) nodes: usize,
    pub(super) workers: Vec<u16>,
    pub(super) buffers: u32,
    pub(super) packs_max: u32,
    pub(super) objects_max: u32,
    pub(super) streams: u16,
    /// Lanes that a pair of nodes may have at all.
    pub(super) lanes_max: u16,
    pub(super) bytes_per_s: u64,
    pub(super) delay: Time,
    pub(super) window: u64,
    pub(super) disk_delay: Time,
    /// A turn takes up to so long.
    pub(super) turn_delay: Time,
    /// Faults happen until then.
    pub(super) faults_until: Time,
    /// Mean time between two deaths of lanes; 0 = none.
    pub(super) lane_deaths: Time,
    pub(super) crashes: u32,
    pub(super) dial_failures: u64,
    pub(super) object_faults: ObjectFaults,
    pub(super) disk_full: bool,
    pub(super) cancels: bool,
    /// Orders to give a job up and start it again at once.
    pub(super) retries: u32,
    /// The last node speaks nonsense.
    pub(super) hostile: bool,
    pub(super) jobs: usize,
    /// When one lane falls silent for half a minute; none = as the faults have it.
    pub(super) stall: Option<Time>,
}

/// How many of a thousand objects have which trouble.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ObjectFaults {
    pub(super) read_fails: u64,
    pub(super) write_fails: u64,
    pub(super) commit_fails: u64,
    pub(super) refused: u64,
    pub(super) changes: u64,
    pub(super) scan_failures: u64,
}

impl Scenario {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let calm = rng.chance(200);
        let hostile = rng.chance(200);
        let nodes = if hostile { 3 } else { rng.between(2, 3) as usize };
        let fault = |rng: &mut Rng, per_mille: u64| if calm || rng.chance(600) { 0 } else { per_mille };
        let object_faults = ObjectFaults {
            read_fails: fault(rng, 60),
            write_fails: fault(rng, 60),
            commit_fails: fault(rng, 60),
            refused: fault(rng, 60),
            changes: fault(rng, 300),
            scan_failures: fault(rng, 150),
        };
        Self {
            nodes,
            workers: (0..nodes).map(|_| rng.between(1, 3) as u16).collect(),
            buffers: rng.between(1, 8) as u32,
            packs_max: rng.between(1, 6) as u32,
            objects_max: rng.between(1, 12) as u32,
            streams: rng.between(1, 10) as u16,
            lanes_max: rng.between(1, 12) as u16,
            bytes_per_s: rng.pick(&[2_000_000, 20_000_000, 200_000_000, 2_000_000_000]),
            delay: rng.pick(&[20_000, MS, 20 * MS, 100 * MS]),
            window: rng.pick(&[64 << 10, 1 << 20, 4 << 20]),
            disk_delay: rng.pick(&[50_000, MS, 30 * MS, 200 * MS]),
            turn_delay: rng.pick(&[10_000, 100_000, 5 * MS, 40 * MS]),
            faults_until: if calm { 0 } else { rng.between(1, 10) * SECOND },
            lane_deaths: if calm || rng.chance(300) { 0 } else { rng.pick(&[5, 50, 500, 3000]) * MS },
            crashes: if calm || rng.chance(600) { 0 } else { rng.between(1, 3) as u32 },
            dial_failures: fault(rng, 300),
            object_faults,
            disk_full: !calm && rng.chance(50),
            cancels: !calm && rng.chance(100),
            retries: if calm || rng.chance(500) { 0 } else { rng.between(1, 8) as u32 },
            hostile,
            jobs: rng.between(1, 4) as usize,
            stall: None,
        }
    }

    /// Nothing goes wrong but that one lane stalls.
    pub(super) fn with_stalled_lane(rng: &mut Rng) -> Self {
        Self {
            nodes: 2,
            // What is usual is known to each worker by itself: with more of them one may know too little yet.
            workers: vec![1, 1],
            buffers: 8,
            packs_max: 4,
            objects_max: 4,
            streams: 4,
            lanes_max: 4,
            bytes_per_s: 5_000_000,
            delay: 20 * MS,
            window: 1 << 20,
            disk_delay: MS,
            turn_delay: 100_000,
            faults_until: 0,
            lane_deaths: 0,
            crashes: 0,
            dial_failures: 0,
            object_faults: ObjectFaults::default(),
            disk_full: false,
            cancels: false,
            retries: 0,
            hostile: false,
            jobs: 1,
            stall: Some(rng.between(1000, 2700) * MS),
        }
    }
}
