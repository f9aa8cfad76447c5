//! Which jobs are taken, and what becomes of interrupted ones. Called by control's jobs.
use core::time::Duration;

/// How many jobs may be unfinished at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The bound.
    pub active_max: usize,
}

/// Why a job is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The configuration says `enabled: false`.
    Disabled,
    /// Somebody drains the node.
    Draining,
    /// As many jobs are unfinished as may be.
    Full {
        /// The bound.
        active_max: usize,
    },
}

impl Admission {
    /// Whether one more job is taken. An open circuit breaker is no reason not to: the job waits.
    ///
    /// # Errors
    /// Why it is not.
    pub fn admit(&self, enabled: bool, draining: bool, active: usize) -> Result<(), Refusal> {
        if !enabled {
            return Err(Refusal::Disabled);
        }
        if draining {
            return Err(Refusal::Draining);
        }
        if active >= self.active_max {
            return Err(Refusal::Full { active_max: self.active_max });
        }
        Ok(())
    }
}

/// How often an interrupted job is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, the first one included.
    pub attempts_max: u32,
    /// Pause after the first try; it doubles.
    pub first_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 5, first_pause: Duration::from_secs(1) }
    }
}

/// What becomes of an interrupted job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// The next try begins then.
    At(Duration),
    /// It has failed.
    GiveUp,
}

impl RetryPolicy {
    /// The job's try number `attempt` (from 1) was interrupted at `now`.
    #[must_use]
    pub fn decide(&self, attempt: u32, now: Duration) -> RetryDecision {
        if attempt >= self.attempts_max {
            return RetryDecision::GiveUp;
        }
        let doublings = attempt.saturating_sub(1).min(PAUSE_DOUBLINGS_MAX);
        RetryDecision::At(now.saturating_add(self.first_pause.saturating_mul(1 << doublings)))
    }
}

const PAUSE_DOUBLINGS_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_bounded() {
        let admission = Admission { active_max: 2 };
        assert_eq!(admission.admit(true, false, 1), Ok(()));
        assert_eq!(admission.admit(true, false, 2), Err(Refusal::Full { active_max: 2 }));
        assert_eq!(admission.admit(true, true, 0), Err(Refusal::Draining));
        assert_eq!(admission.admit(false, false, 0), Err(Refusal::Disabled));
    }

    #[test]
    fn pauses_double_and_five_tries_are_enough() {
        let policy = RetryPolicy::default();
        let now = Duration::from_secs(100);
        for (attempt, pause_s) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
            assert_eq!(policy.decide(attempt, now), RetryDecision::At(now + Duration::from_secs(pause_s)));
        }
        assert_eq!(policy.decide(5, now), RetryDecision::GiveUp);
        assert_eq!(policy.decide(u32::MAX, now), RetryDecision::GiveUp);
    }
}
