//! Circuit breaker: holds work back while something keeps failing. One of those in [`crate::Breakers`].
//!
//! ```text
//! closed ──failure_threshold failures in a row──► open ──timeout, or the cause was replaced──► half-open
//!    ▲                                             ▲                                                 │
//!    │                                             └───────────────── one failure ──────────────────┤
//!    └───────────────────────────────── success_threshold successes ────────────────────────────────┘
//! ```
use core::time::Duration;

/// When the breaker changes its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// How long it stays open.
    pub timeout: Duration,
    /// Successes in a row that close it again.
    pub success_threshold: u32,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self { failure_threshold: 5, timeout: Duration::from_secs(30), success_threshold: 2 }
    }
}

/// Whether work passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreakerState {
    /// Work passes.
    Closed,
    /// Probes pass, one at a time, and one failure holds everything back again.
    HalfOpen,
    /// Work waits.
    Open,
}

impl BreakerState {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }

    /// Value of its metric.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// The breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    limits: BreakerLimits,
    phase: Phase,
    failures_total: u64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Duration },
    HalfOpen { successes: u32 },
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(limits: BreakerLimits) -> Self {
        Self { limits, phase: Phase::Closed { failures: 0 }, failures_total: 0 }
    }

    /// State at `now`.
    pub fn state(&mut self, now: Duration) -> BreakerState {
        if let Phase::Open { until } = self.phase
            && now >= until
        {
            self.phase = Phase::HalfOpen { successes: 0 };
        }
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Something failed.
    pub fn handle_failure(&mut self, now: Duration) {
        self.failures_total += 1;
        self.state(now);
        let open = Phase::Open { until: now.saturating_add(self.limits.timeout) };
        self.phase = match self.phase {
            Phase::Closed { failures } if failures + 1 >= self.limits.failure_threshold => open,
            Phase::Closed { failures } => Phase::Closed { failures: failures + 1 },
            Phase::HalfOpen { .. } => open,
            Phase::Open { .. } => self.phase,
        };
    }

    /// Something worked.
    pub fn handle_success(&mut self, now: Duration) {
        self.state(now);
        self.phase = match self.phase {
            Phase::Closed { .. } => Phase::Closed { failures: 0 },
            Phase::HalfOpen { successes } if successes + 1 >= self.limits.success_threshold => {
                Phase::Closed { failures: 0 }
            }
            Phase::HalfOpen { successes } => Phase::HalfOpen { successes: successes + 1 },
            Phase::Open { .. } => self.phase,
        };
    }

    /// What failed was replaced (the dataplane was started anew): an open breaker need not wait for its timeout.
    pub fn handle_replacement(&mut self) {
        if let Phase::Open { .. } = self.phase {
            self.phase = Phase::HalfOpen { successes: 0 };
        }
    }

    /// An operator closes it.
    pub fn reset(&mut self) {
        self.phase = Phase::Closed { failures: 0 };
    }

    /// Other limits from now on; the state stays.
    pub fn set_limits(&mut self, limits: BreakerLimits) {
        self.limits = limits;
    }

    /// When an open breaker lets a probe through.
    #[must_use]
    pub fn open_until(&self) -> Option<Duration> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Closed { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// Failures since the start.
    #[must_use]
    pub fn failures_total(&self) -> u64 {
        self.failures_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Failure,
        Success,
        Replacement,
        Reset,
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Failure),
            4 => Just(Step::Success),
            1 => Just(Step::Replacement),
            1 => Just(Step::Reset),
            4 => (0_u64..45_000).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// Looks at the whole history since the last change each time, instead of counting.
    struct Model {
        state: BreakerState,
        changed_ms: u64,
        since: Vec<bool>,
    }

    impl Model {
        fn enter(&mut self, state: BreakerState, now_ms: u64) {
            *self = Self { state, changed_ms: now_ms, since: Vec::new() };
        }

        fn step(&mut self, step: Step, now_ms: u64) {
            if self.state == BreakerState::Open && now_ms - self.changed_ms >= 30_000 {
                self.enter(BreakerState::HalfOpen, now_ms);
            }
            match step {
                Step::Failure => self.since.push(false),
                Step::Success => self.since.push(true),
                Step::Replacement if self.state == BreakerState::Open => {
                    self.enter(BreakerState::HalfOpen, now_ms)
                }
                Step::Reset => self.enter(BreakerState::Closed, now_ms),
                Step::Replacement | Step::Wait(_) => {}
            }
            let last = |count: usize, value: bool| {
                self.since.len() >= count && self.since.iter().rev().take(count).all(|seen| *seen == value)
            };
            match self.state {
                BreakerState::Closed if last(5, false) => self.enter(BreakerState::Open, now_ms),
                BreakerState::HalfOpen if last(1, false) => self.enter(BreakerState::Open, now_ms),
                BreakerState::HalfOpen if last(2, true) => self.enter(BreakerState::Closed, now_ms),
                _ => {}
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_like_the_model(steps in steps()) {
            let mut breaker = Breaker::new(BreakerLimits::default());
            let mut model = Model { state: BreakerState::Closed, changed_ms: 0, since: Vec::new() };
            let mut now_ms = 0;
            for step in steps {
                let now = Duration::from_millis(now_ms);
                match step {
                    Step::Failure => breaker.handle_failure(now),
                    Step::Success => breaker.handle_success(now),
                    Step::Replacement => {
                        breaker.state(now);
                        breaker.handle_replacement();
                    }
                    Step::Reset => breaker.reset(),
                    Step::Wait(ms) => now_ms += ms,
                }
                model.step(step, now_ms);
                prop_assert_eq!(breaker.state(Duration::from_millis(now_ms)), model.state);
            }
        }
    }

    #[test]
    fn opens_after_five_waits_thirty_seconds_and_closes_after_two() {
        let mut breaker = Breaker::new(BreakerLimits::default());
        let at = Duration::from_secs;
        for second in 0..4 {
            breaker.handle_failure(at(second));
        }
        assert_eq!(breaker.state(at(4)), BreakerState::Closed);
        breaker.handle_failure(at(4));
        assert_eq!(breaker.state(at(33)), BreakerState::Open);
        assert_eq!(breaker.state(at(34)), BreakerState::HalfOpen);
        breaker.handle_success(at(35));
        assert_eq!(breaker.state(at(35)), BreakerState::HalfOpen);
        breaker.handle_success(at(36));
        assert_eq!(breaker.state(at(36)), BreakerState::Closed);
        assert_eq!(breaker.failures_total(), 5);
    }
}
