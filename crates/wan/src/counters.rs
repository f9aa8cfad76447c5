//! What a link counted: segments by their fate, how long the queue was, how late the emulator itself was. Filled by
//! `direction`, read while it runs and at its end.
use serde_json::{Value, json};

/// Counters of one direction. Segments are packets as a wire would carry them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Segments that arrived, and their bytes with IP headers.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Segments that left, copies included.
    pub delivered: u64,
    /// Bytes of them.
    pub delivered_bytes: u64,
    /// Segments that the loss model took.
    pub lost: u64,
    /// Segments that found the buffer full.
    pub dropped: u64,
    /// Segments that arrived during an outage.
    pub outage: u64,
    /// Segments that were doubled.
    pub duplicated: u64,
    /// Segments that were held back.
    pub reordered: u64,
    /// Packets to a group of hosts, which no link between two ends carries.
    pub multicast: u64,
    /// Packets that the emulator could not carry, for want of memory or because they made no sense. Any of them makes
    /// the run void.
    pub refused: u64,
    /// Nanoseconds in which the bottleneck had nothing to do, up to the last arrival.
    pub idle_ns: u64,
    /// Time spent before the bottleneck, per segment that passed it.
    pub queue: Delays,
    /// How late segments left, the emulator's own fault.
    pub late: Delays,
}

impl Counters {
    /// What was counted since an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            segments: self.segments - earlier.segments,
            bytes: self.bytes - earlier.bytes,
            delivered: self.delivered - earlier.delivered,
            delivered_bytes: self.delivered_bytes - earlier.delivered_bytes,
            lost: self.lost - earlier.lost,
            dropped: self.dropped - earlier.dropped,
            outage: self.outage - earlier.outage,
            duplicated: self.duplicated - earlier.duplicated,
            reordered: self.reordered - earlier.reordered,
            multicast: self.multicast - earlier.multicast,
            refused: self.refused - earlier.refused,
            idle_ns: self.idle_ns - earlier.idle_ns,
            queue: self.queue.since(&earlier.queue),
            late: self.late.since(&earlier.late),
        }
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "segments": self.segments, "bytes": self.bytes,
            "delivered": self.delivered, "delivered_bytes": self.delivered_bytes,
            "lost": self.lost, "dropped": self.dropped, "outage": self.outage,
            "duplicated": self.duplicated, "reordered": self.reordered,
            "multicast": self.multicast, "refused": self.refused,
            "idle_ms": self.idle_ns as f64 / 1e6,
            "queue_ms": self.queue.json(), "late_ms": self.late.json(),
        })
    }
}

/// Both directions and what the emulator cost, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Nanoseconds since the start.
    pub at_ns: u64,
    /// From the first end to the second.
    pub there: Counters,
    /// From the second end to the first.
    pub back: Counters,
    /// CPU time of the emulator's thread in nanoseconds: what the kernel does with a delivered packet included.
    pub cpu_ns: u64,
}

impl Snapshot {
    /// Why figures of this run are worth nothing; `None` = they are worth something.
    #[must_use]
    pub fn void(&self) -> Option<String> {
        let refused = self.there.refused + self.back.refused;
        if refused > 0 {
            return Some(format!("void: the emulator could not carry {refused} packets"));
        }
        let worst_ns = self.there.late.mean_ns().max(self.back.late.mean_ns());
        (worst_ns > LATENESS_MEAN_NS_MAX)
            .then(|| format!("void: segments left {:.2} ms late in the mean", worst_ns as f64 / 1e6))
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "seconds": self.at_ns as f64 / 1e9, "cpu_seconds": self.cpu_ns as f64 / 1e9,
            "void": self.void(), "there": self.there.json(), "back": self.back.json(),
        })
    }
}

/// A distribution of times: exact mean and maximum, quantiles to an eighth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delays {
    count: u64,
    sum_ns: u64,
    max_ns: u64,
    /// Eight steps to each power of two of microseconds.
    steps: Box<[u64; STEPS]>,
}

impl Default for Delays {
    fn default() -> Self {
        Self { count: 0, sum_ns: 0, max_ns: 0, steps: Box::new([0; STEPS]) }
    }
}

impl Delays {
    pub(crate) fn add(&mut self, delay_ns: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(delay_ns);
        self.max_ns = self.max_ns.max(delay_ns);
        self.steps[step(delay_ns)] += 1;
    }

    /// Mean in nanoseconds; 0 of none.
    #[must_use]
    pub fn mean_ns(&self) -> u64 {
        self.sum_ns.checked_div(self.count).unwrap_or(0)
    }

    /// Greatest in nanoseconds. Of a difference, the greatest ever.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// What this share of all does not exceed, in nanoseconds, rounded up by at most an eighth.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        let place = self.steps.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        place.map_or(0, |place| upper_ns(place).min(self.max_ns))
    }

    fn since(&self, earlier: &Self) -> Self {
        let mut steps = self.steps.clone();
        steps.iter_mut().zip(earlier.steps.iter()).for_each(|(count, before)| *count -= before);
        Self {
            count: self.count - earlier.count,
            sum_ns: self.sum_ns - earlier.sum_ns,
            max_ns: self.max_ns,
            steps,
        }
    }

    fn json(&self) -> Value {
        let ms = |time_ns: u64| time_ns as f64 / 1e6;
        json!({
            "mean": ms(self.mean_ns()), "p50": ms(self.quantile_ns(0.5)), "p95": ms(self.quantile_ns(0.95)),
            "p99": ms(self.quantile_ns(0.99)), "max": ms(self.max_ns),
        })
    }
}

fn step(delay_ns: u64) -> usize {
    // The first eight steps are one microsecond each, so that the shift below is never negative.
    let delay_us = delay_ns / 1_000;
    if delay_us < 8 {
        return delay_us as usize;
    }
    let power = delay_us.ilog2();
    let eighth = (delay_us >> (power - 3)) & 7;
    (8 + (power as usize - 3) * 8 + eighth as usize).min(STEPS - 1)
}

fn upper_ns(step: usize) -> u64 {
    if step < 8 {
        return (step as u64 + 1) * 1_000;
    }
    let (power, eighth) = ((step - 8) / 8, (step - 8) % 8);
    ((eighth as u64 + 9) << power) * 1_000
}

/// Up to a minute.
const STEPS: usize = 8 + 24 * 8;
/// Above, delays and losses are the emulator's rather than the link's.
const LATENESS_MEAN_NS_MAX: u64 = 500_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_an_eighth_off_at_most() {
        let mut delays = Delays::default();
        for delay_us in 1..=100_000_u64 {
            delays.add(delay_us * 1_000);
        }
        for share in [0.01, 0.5, 0.95, 0.99] {
            let (exact, found) = (share * 1e8, delays.quantile_ns(share) as f64);
            assert!(found >= exact && found <= exact * 1.14 + 1_000.0, "{share}: {found} for {exact}");
        }
        assert_eq!((delays.max_ns(), delays.mean_ns()), (100_000_000, 50_000_500));
        assert_eq!(Delays::default().quantile_ns(0.5), 0);
    }

    #[test]
    fn steps_rise_and_end() {
        let mut last = 0;
        for delay_us in 0..1_000_000_u64 {
            let step = step(delay_us * 1_000);
            assert!(step >= last && upper_ns(step) > delay_us * 1_000, "{delay_us}");
            last = step;
        }
        assert_eq!(step(u64::MAX), STEPS - 1);
    }

    #[test]
    fn differences_and_verdicts() {
        let mut early = Snapshot::default();
        early.there.segments = 10;
        early.there.late.add(2_000_000);
        assert!(early.void().is_some_and(|reason| reason.contains("2.00 ms late")));
        let mut later = early.clone();
        later.there.segments = 15;
        (0..99).for_each(|_| later.there.late.add(0));
        assert_eq!(later.void(), None);
        assert_eq!(later.there.since(&early.there).segments, 5);
        assert_eq!(later.there.since(&early.there).late.mean_ns(), 0);
        later.back.refused = 1;
        assert!(later.void().is_some() && later.json()["void"].is_string());
    }
}
