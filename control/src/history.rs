//! When what is old is forgotten: the times in the store are of the clock that people read, which may jump; how much time
//! passes is told by one that does not. Asked by the monitor; the store does the removing.
use std::time::Duration;

use crate::jobs::Now;

/// When history was last looked at, by both clocks.
#[derive(Debug, Default)]
pub(crate) struct History {
    looked: Option<Now>,
}

impl History {
    /// Whether what ended before the time given back, in milliseconds since 1970, is to be removed now.
    pub(crate) fn poll(&mut self, now: Now, keep: Duration) -> Option<u64> {
        let before_ms = now.unix_ms.saturating_sub(milliseconds(keep));
        let Some(looked) = self.looked else {
            // The clock may not be set yet when a machine starts.
            self.looked = Some(now);
            return None;
        };
        let passed = now.uptime.saturating_sub(looked.uptime);
        if passed < INTERVAL {
            return None;
        }
        self.looked = Some(now);
        let expected_ms = looked.unix_ms.saturating_add(milliseconds(passed));
        if now.unix_ms.abs_diff(expected_ms) > milliseconds(JUMP_MAX) {
            // Believed from the next time on, unless it jumps back until then.
            tracing::warn!(component = "store", "the clock has jumped: nothing is forgotten this time");
            return None;
        }
        Some(before_ms)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const INTERVAL: Duration = Duration::from_secs(3600);
/// A clock that was wrong for long is set by no more than this by a time service that slews it.
const JUMP_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_800_000_000_000;
    const DAY: Duration = Duration::from_secs(86_400);

    fn at(hours: u64, jumped_ms: i64) -> Now {
        let unix_ms = (START_MS + hours * 3_600_000).saturating_add_signed(jumped_ms);
        Now { uptime: Duration::from_secs(hours * 3600), unix_ms }
    }

    #[test]
    fn once_an_hour_by_the_age_that_is_kept() {
        let mut history = History::default();
        assert_eq!(history.poll(at(0, 0), DAY), None);
        assert_eq!(history.poll(at(1, 0), DAY), Some(START_MS + 3_600_000 - 86_400_000));
        assert_eq!(history.poll(at(1, 0), DAY), None);
        assert_eq!(history.poll(at(2, 300_000), Duration::MAX), Some(0));
    }

    #[test]
    fn a_clock_that_jumps_is_not_believed_at_once() {
        let mut history = History::default();
        let decade_ms = 315_576_000_000;
        history.poll(at(0, 0), DAY);
        assert_eq!(history.poll(at(1, decade_ms), DAY), None, "forwards");
        assert_eq!(history.poll(at(2, 0), DAY), None, "and back");
        assert!(history.poll(at(3, 0), DAY).is_some());
        assert_eq!(history.poll(at(4, -decade_ms), DAY), None);
        assert!(history.poll(at(5, -decade_ms), DAY).is_some(), "whoever set it meant it");
    }
}
