//! Bytes per second over the last few seconds. Used for jobs and for cores; the caller brings time and totals.
use std::collections::VecDeque;
use std::time::Duration;

/// A sliding window over a growing total.
#[derive(Debug, Clone)]
pub(crate) struct RateMeter {
    samples: VecDeque<(Duration, u64)>,
    window: Duration,
}

impl RateMeter {
    pub(crate) fn new(window: Duration) -> Self {
        Self { samples: VecDeque::new(), window }
    }

    /// The total at `now`. A total that shrinks (a counter that began anew) starts the window again.
    pub(crate) fn observe(&mut self, now: Duration, total: u64) {
        if self.samples.back().is_some_and(|&(_, last)| total < last) {
            self.samples.clear();
        }
        while self.samples.len() > SAMPLES_MIN
            && (self.samples.len() >= SAMPLES_MAX || now.saturating_sub(self.samples[1].0) > self.window)
        {
            self.samples.pop_front();
        }
        self.samples.push_back((now, total));
    }

    /// Growth per second over the window; none until there are two samples.
    pub(crate) fn per_second(&self) -> Option<f64> {
        let (&(start, first), &(end, last)) = (self.samples.front()?, self.samples.back()?);
        let seconds = end.saturating_sub(start).as_secs_f64();
        (seconds > 0.0).then(|| last.saturating_sub(first) as f64 / seconds)
    }
}

const SAMPLES_MIN: usize = 2;
const SAMPLES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_counts() {
        let mut meter = RateMeter::new(Duration::from_secs(5));
        assert_eq!(meter.per_second(), None);
        for second in 0..=10 {
            meter.observe(Duration::from_secs(second), second * 100);
        }
        assert_eq!(meter.per_second(), Some(100.0));
        for second in 11..=20 {
            meter.observe(Duration::from_secs(second), 1000);
        }
        assert_eq!(meter.per_second(), Some(0.0));
        meter.observe(Duration::from_secs(21), 5);
        assert_eq!(meter.per_second(), None);
    }

    #[test]
    fn many_samples_are_bounded() {
        let mut meter = RateMeter::new(Duration::from_secs(5));
        for ms in 0..100_000 {
            meter.observe(Duration::from_millis(ms), ms);
        }
        assert!(meter.samples.len() <= SAMPLES_MAX);
        assert_eq!(meter.per_second(), Some(1000.0));
    }
}
