//! Feeds the service manager's watchdog (sd_notify(3), WATCHDOG=1) while every loop of the process turns: the main
//! thread, which calls this, each worker, the door and the tunnels. One that hangs stops the feeding, and the manager
//! ends the process. Where a control is attached it notices sooner.
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwcp_abi::shm::WorkerCounter;
use dwcp_sys::service::Notifier;

use super::start::Running;

/// When each loop was last seen to turn.
#[derive(Debug)]
pub(super) struct Pulse {
    notifier: Arc<Notifier>,
    /// One per loop: what it counted, and since when it has counted no more. In the order of [`beats`].
    seen: Vec<(u64, Instant)>,
    fed: Option<Instant>,
    is_well: bool,
}

impl Pulse {
    pub(super) fn new(notifier: Arc<Notifier>) -> Self {
        Self { notifier, seen: Vec::new(), fed: None, is_well: true }
    }

    /// To be called with every turn of the main thread.
    pub(super) fn feed(&mut self, running: Option<&Running>, now: Instant) {
        if self.fed.is_some_and(|fed| now < fed + FEED_INTERVAL) {
            return;
        }
        self.fed = Some(now);
        let beats = running.map(beats).unwrap_or_default();
        let still = self.longest_still(&beats, now);
        let is_well = still <= STILL_MAX;
        if is_well {
            self.notifier.send("WATCHDOG=1");
        } else if self.is_well {
            let still_s = still.as_secs();
            tracing::error!(still_s, "a thread does not turn any more: the watchdog is not fed");
        }
        self.is_well = is_well;
    }

    /// For how long the loop has not moved that has not for the longest.
    fn longest_still(&mut self, beats: &[u64], now: Instant) -> Duration {
        self.seen.resize(beats.len(), (0, now));
        for (seen, beat) in self.seen.iter_mut().zip(beats) {
            if seen.0 != *beat {
                *seen = (*beat, now);
            }
        }
        let still = self.seen.iter().map(|(_, since)| now.saturating_duration_since(*since));
        still.max().unwrap_or_default()
    }
}

/// What the loops count.
fn beats(running: &Running) -> Vec<u64> {
    let workers = running.link.workers.iter().map(|worker| {
        // A page that is being written is looked at again in a moment.
        worker.region.stats().map_or(0, |stats| stats.value(WorkerCounter::HeartbeatNs))
    });
    workers.chain([running.door.counters().turns(), running.tunnels.turns()]).collect()
}

const FEED_INTERVAL: Duration = Duration::from_millis(500);
/// Half of the unit's WatchdogSec. Every loop turns once a second at least, and the main thread twice.
const STILL_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_that_stands_still_counts() {
        let mut pulse = Pulse::new(Arc::default());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pulse.longest_still(&[], start), Duration::ZERO);
        assert_eq!(pulse.longest_still(&[1, 1, 1], after(1)), Duration::ZERO);
        assert_eq!(pulse.longest_still(&[2, 2, 2], after(2)), Duration::ZERO);
        assert_eq!(pulse.longest_still(&[3, 2, 3], after(6)), Duration::from_secs(4));
        assert_eq!(pulse.longest_still(&[4, 2, 4], after(9)), Duration::from_secs(7));
        assert_eq!(pulse.longest_still(&[5, 3, 5], after(10)), Duration::ZERO);
    }
}
