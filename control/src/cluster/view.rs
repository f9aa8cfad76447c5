//! What is shown of a member: kept by the driver, read by HTTP and metrics. Never holds anything up.
use std::collections::BTreeSet;
use std::time::Duration;

use dwcp_consensus::{Began, Figures, Plan, ProtocolKind, Reached, ReplicaId, Stage};

/// The member as it was after its last turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Of the present epoch.
    pub(crate) plan: Option<Plan>,
    pub(crate) figures: Figures,
    /// Whether the state is here that the epoch began with.
    pub(crate) is_running: bool,
    /// Whether the last probe came through.
    pub(crate) is_deciding: bool,
    /// Probes that did not come through in time.
    pub(crate) failures: u64,
    /// Commands applied since the start of the process, by protocol.
    pub(crate) applied: [u64; ProtocolKind::ALL.len()],
    /// Epochs begun since then, but the first.
    pub(crate) switches: u64,
    /// Commands of this node that wait.
    pub(crate) waiting: usize,
    pub(crate) values: usize,
    /// From submission at this node to application.
    pub(crate) latency: Latency,
    /// From submission at this node to a sampled quorum's decision.
    pub(crate) probable_after: Latency,
    /// Such decisions seen.
    pub(crate) forecasts: u64,
    /// From a proposal to each stage of it.
    pub(crate) quorum: Latency,
    pub(crate) probable: Latency,
    pub(crate) certain: Latency,
    /// From one own vertex of the DAG to the next.
    pub(crate) round: Latency,
    /// Members that were shown to lie.
    pub(crate) suspects: BTreeSet<u16>,
    /// Trust in each member in millionths.
    pub(crate) trust: Vec<(ReplicaId, u32)>,
    pub(crate) trust_rounds: u32,
    /// Why the replica does not run.
    pub(crate) trouble: Option<String>,
}

impl View {
    /// A proposal came so far.
    pub(super) fn reached(&mut self, reached: Reached) {
        let latency = match reached.stage {
            Stage::Quorum => &mut self.quorum,
            Stage::Probable => &mut self.probable,
            Stage::Certain => &mut self.certain,
            Stage::Round => &mut self.round,
        };
        latency.observe(Duration::from_nanos(reached.took));
    }

    /// An epoch began.
    pub(super) fn began(&mut self, began: &Began) {
        self.plan = Some(began.plan.clone());
        self.trust.clone_from(&began.trust);
        self.trust_rounds = began.trust_rounds;
    }
}

/// Times from submission to application, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    /// By bound, not summed up; the last is for all above.
    pub(crate) counts: [u64; LATENCY_BOUNDS_S.len() + 1],
    pub(crate) sum_s: f64,
}

/// Bounds of the counted times in seconds.
pub(crate) const LATENCY_BOUNDS_S: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl Latency {
    pub(super) fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = LATENCY_BOUNDS_S.iter().position(|bound| seconds <= *bound);
        self.counts[place.unwrap_or(LATENCY_BOUNDS_S.len())] += 1;
        self.sum_s += seconds;
    }

    /// The bound below which so many of a thousand are; `None` before the first.
    pub(crate) fn quantile_s(&self, per_mille: u64) -> Option<f64> {
        let total: u64 = self.counts.iter().sum();
        let wanted = (total * per_mille).div_ceil(1000);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted && wanted > 0
        });
        place.map(|place| LATENCY_BOUNDS_S.get(place).copied().unwrap_or(f64::INFINITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bounds_above_them() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_s(500), None);
        for milliseconds in [1, 4, 4, 40, 20_000] {
            latency.observe(Duration::from_millis(milliseconds));
        }
        assert_eq!(latency.quantile_s(200), Some(0.001));
        assert_eq!(latency.quantile_s(500), Some(0.005));
        assert_eq!(latency.quantile_s(800), Some(0.05));
        assert_eq!(latency.quantile_s(990), Some(f64::INFINITY));
    }
}
