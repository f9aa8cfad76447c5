//! When a component that failed is tried again. Control owns one for each component that it can restart, tells it what
//! its checks find, and does what [`Recovery::poll_try`] asks for.
//!
//! ```text
//! working ──failure──► waiting ──pause over──► (try) ──► waiting … ──last pause over──► given up
//!    ▲                    │ success                                                        │ check: one more try
//!    └────────────────────┴────────────────────────── success ─────────────────────────────┘ reset: from the start
//! ```
use alloc::vec::Vec;
use core::time::Duration;

/// How often and how soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryLimits {
    /// Tries before the component counts as unhealthy.
    pub tries_max: u32,
    /// Pauses before them; the last one repeats, and also passes between the last try and its verdict.
    pub pauses: Vec<Duration>,
}

impl Default for RecoveryLimits {
    fn default() -> Self {
        Self { tries_max: 3, pauses: [1, 2, 4].map(Duration::from_secs).to_vec() }
    }
}

/// What is known of the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecoveryState {
    /// It works.
    Working,
    /// It does not, and is being tried.
    Recovering,
    /// It does not, and all tries were in vain. A check or a reset tries again.
    GivenUp,
}

/// The tries of one component.
#[derive(Debug, Clone)]
pub struct Recovery {
    limits: RecoveryLimits,
    phase: Phase,
    tries_total: u64,
    successes_total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Working,
    Waiting { tries: u32, until: Duration },
    GivenUp { is_due: bool },
}

impl Recovery {
    /// Of a component that works.
    #[must_use]
    pub fn new(limits: RecoveryLimits) -> Self {
        Self { limits, phase: Phase::Working, tries_total: 0, successes_total: 0 }
    }

    /// Other limits from the next pause on.
    pub fn set_limits(&mut self, limits: RecoveryLimits) {
        self.limits = limits;
    }

    /// A look at the component found that it does not work.
    pub fn handle_failure(&mut self, now: Duration) {
        if self.phase == Phase::Working {
            self.phase = self.begin(now.saturating_add(self.pause(0)));
        }
    }

    /// A look at the component found that it works.
    pub fn handle_success(&mut self) {
        let was_tried = match self.phase {
            Phase::Working => false,
            Phase::Waiting { tries, .. } => tries > 0,
            Phase::GivenUp { .. } => true,
        };
        self.successes_total += u64::from(was_tried);
        self.phase = Phase::Working;
    }

    /// The interval of the health checks has passed: what was given up is tried once more.
    pub fn handle_check(&mut self) {
        if let Phase::GivenUp { .. } = self.phase {
            self.phase = Phase::GivenUp { is_due: true };
        }
    }

    /// An operator wants all tries again, the first at once.
    pub fn reset(&mut self, now: Duration) {
        if self.phase != Phase::Working {
            self.phase = self.begin(now);
        }
    }

    /// Whether to try now; true once for each try.
    pub fn poll_try(&mut self, now: Duration) -> bool {
        let is_due = match self.phase {
            Phase::Working => false,
            Phase::Waiting { until, .. } if now < until => false,
            Phase::Waiting { tries, .. } if tries >= self.limits.tries_max => {
                self.phase = Phase::GivenUp { is_due: false };
                false
            }
            Phase::Waiting { tries, .. } => {
                let until = now.saturating_add(self.pause(tries + 1));
                self.phase = Phase::Waiting { tries: tries + 1, until };
                true
            }
            Phase::GivenUp { is_due } => {
                self.phase = Phase::GivenUp { is_due: false };
                is_due
            }
        };
        self.tries_total += u64::from(is_due);
        is_due
    }

    /// When [`Self::poll_try`] may have something new.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting { until, .. } => Some(until),
            Phase::Working | Phase::GivenUp { .. } => None,
        }
    }

    /// What is known.
    #[must_use]
    pub fn state(&self) -> RecoveryState {
        match self.phase {
            Phase::Working => RecoveryState::Working,
            Phase::Waiting { .. } => RecoveryState::Recovering,
            Phase::GivenUp { .. } => RecoveryState::GivenUp,
        }
    }

    /// Tries since the start.
    #[must_use]
    pub fn tries_total(&self) -> u64 {
        self.tries_total
    }

    /// Recoveries since the start that took at least one try.
    #[must_use]
    pub fn successes_total(&self) -> u64 {
        self.successes_total
    }

    fn begin(&self, until: Duration) -> Phase {
        if self.limits.tries_max == 0 {
            Phase::GivenUp { is_due: false }
        } else {
            Phase::Waiting { tries: 0, until }
        }
    }

    fn pause(&self, number: u32) -> Duration {
        let last = self.limits.pauses.len().saturating_sub(1);
        let index = usize::try_from(number).unwrap_or(usize::MAX).min(last);
        self.limits.pauses.get(index).copied().unwrap_or(PAUSE_DEFAULT)
    }
}

const PAUSE_DEFAULT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seconds at which it is tried, looking ten times a second.
    fn tries(recovery: &mut Recovery, from_ms: u64, to_ms: u64) -> Vec<f64> {
        let looks = (from_ms..to_ms).step_by(100);
        looks
            .filter(|ms| recovery.poll_try(Duration::from_millis(*ms)))
            .map(|ms| ms as f64 / 1000.0)
            .collect()
    }

    #[test]
    fn three_tries_then_only_a_check_or_a_reset_tries_again() {
        let mut recovery = Recovery::new(RecoveryLimits::default());
        recovery.handle_failure(Duration::ZERO);
        assert_eq!(tries(&mut recovery, 0, 10_900), [1.0, 3.0, 7.0]);
        assert_eq!(recovery.state(), RecoveryState::Recovering);
        assert_eq!(tries(&mut recovery, 11_000, 100_000), []);
        assert_eq!((recovery.state(), recovery.poll_timeout()), (RecoveryState::GivenUp, None));
        recovery.handle_check();
        assert_eq!(tries(&mut recovery, 100_000, 110_000), [100.0]);
        assert_eq!(recovery.state(), RecoveryState::GivenUp);
        recovery.reset(Duration::from_secs(200));
        assert_eq!(tries(&mut recovery, 200_000, 206_000), [200.0, 202.0]);
        recovery.handle_success();
        assert_eq!(tries(&mut recovery, 206_000, 300_000), []);
        assert_eq!((recovery.tries_total(), recovery.successes_total()), (6, 1));
    }

    #[test]
    fn what_comes_back_by_itself_is_no_recovery() {
        let mut recovery = Recovery::new(RecoveryLimits::default());
        recovery.handle_failure(Duration::ZERO);
        recovery.handle_success();
        recovery.handle_check();
        recovery.reset(Duration::ZERO);
        assert_eq!(tries(&mut recovery, 0, 60_000), []);
        assert_eq!((recovery.tries_total(), recovery.successes_total()), (0, 0));
    }

    #[test]
    fn no_tries_means_given_up_at_once() {
        let limits = RecoveryLimits { tries_max: 0, pauses: Vec::new() };
        let mut recovery = Recovery::new(limits);
        recovery.handle_failure(Duration::ZERO);
        assert_eq!(recovery.state(), RecoveryState::GivenUp);
        recovery.handle_check();
        assert_eq!(tries(&mut recovery, 0, 60_000), [0.0]);
    }

    proptest! {
        /// Whatever happens in whatever order: never more tries than failures, checks and resets allow, never one
        /// while it works, and never two closer than the pause between them.
        #[test]
        fn tries_are_bounded(steps in proptest::collection::vec((0_u8..6, 0_u64..3000), 0..300)) {
            let limits = RecoveryLimits::default();
            let mut recovery = Recovery::new(limits.clone());
            let (mut now_ms, mut allowed, mut seen, mut works, mut last_ms) = (0, 0_u64, 0_u64, true, None);
            for (step, wait_ms) in steps {
                now_ms += wait_ms;
                let now = Duration::from_millis(now_ms);
                match step {
                    0 => {
                        allowed += if works { 3 } else { 0 };
                        works = false;
                        recovery.handle_failure(now);
                    }
                    1 => {
                        works = true;
                        last_ms = None;
                        recovery.handle_success();
                    }
                    2 => {
                        allowed += u64::from(!works);
                        last_ms = None;
                        recovery.handle_check();
                    }
                    3 => {
                        allowed += if works { 0 } else { 3 };
                        last_ms = None;
                        recovery.reset(now);
                    }
                    _ => {
                        if recovery.poll_try(now) {
                            prop_assert!(!works);
                            prop_assert!(last_ms.is_none_or(|last| now_ms - last >= 2000));
                            (seen, last_ms) = (seen + 1, Some(now_ms));
                        }
                    }
                }
                prop_assert!(seen <= allowed);
                prop_assert_eq!(recovery.state() == RecoveryState::Working, works);
            }
            prop_assert_eq!(recovery.tries_total(), seen);
        }
    }
}
