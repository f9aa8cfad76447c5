//! Whether a queue shrinks when less is sent than the bottleneck carries. One that does not is not ours: the link's jitter,
//! acknowledgements that are held back, somebody else who fills the buffer. Giving way to it would end in silence. Used by
//! the path control.
use crate::io::Time;

/// A series of cuts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// The rate before it, in bytes per second.
    pub(super) rate: f64,
    /// What arrived then, in bytes per second.
    pub(super) ceiling: f64,
    /// The queueing delay then.
    pub(super) queue_ns: Time,
    /// By how much it ought to have shrunk since.
    pub(super) owed_ns: f64,
    /// The rates of the latest two spans: what arrives was sent a round trip ago.
    pub(super) latest: [f64; 2],
    /// Spans since the latest cut.
    pub(super) spans: u32,
}

impl Drain {
    /// A span at this rate in which this much arrived, in bytes per second. While a queue of ours goes, more arrives than is
    /// sent; while one grows, less. What neither explains is owed.
    pub(super) fn go_on(&mut self, span_ns: Time, rate: f64, delivered: f64) {
        let [before, latest] = self.latest;
        self.latest = [latest, rate];
        let (least, most) = (before.min(latest).min(rate), before.max(latest).max(rate));
        self.spans += 1;
        let is_even = most < least * 1.1 && delivered > least * 0.9 && delivered < most * 1.05;
        if is_even {
            self.owed_ns += (1.0 - delivered / self.ceiling.max(1.0)).max(0.0) * span_ns as f64;
        }
    }

    /// What a cut does is seen a round trip later; but where much less arrives than is sent, there is no time to wait.
    pub(super) fn may_cut(&self, rate: f64, delivered: f64) -> bool {
        self.spans > EFFECT_SPANS || delivered < rate * 0.85
    }

    /// Half of the queue, and more than measurements err, ought to be gone, and little is.
    pub(super) fn is_in_vain(&self, queue_ns: Time, rtt_min_ns: Time) -> bool {
        let certain = (self.queue_ns / 2).min(rtt_min_ns / 4).max(MEASURABLE_NS) as f64;
        let gone = self.queue_ns as f64 - queue_ns as f64;
        self.owed_ns > certain && gone < self.owed_ns / 4.0
    }
}

/// Smaller changes of a smoothed round-trip time are chance.
const MEASURABLE_NS: Time = 4_000_000;
/// Spans until the effect of a cut is measured.
pub(super) const EFFECT_SPANS: u32 = 2;
