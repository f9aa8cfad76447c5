//! Whether a small queue that just stands is the bottleneck's: a little more is sent, and it arrives or does not. Used by the
//! path control.
use crate::io::Time;

/// What is tried, and how far it is.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Probe {
    spans: u32,
    queue_ns: Time,
    /// What arrived before, while it runs.
    before: Option<f64>,
}

/// What follows from a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Wait,
    /// Send more by [`STEP`].
    Try,
    /// What was sent more has arrived.
    Follows,
    /// It has not.
    Full,
}

impl Probe {
    /// Whether more is being sent now.
    pub(super) fn is_running(&self) -> bool {
        self.before.is_some()
    }

    /// A span at this rate, of which this much arrived, in bytes per second.
    pub(super) fn step(&mut self, rate: f64, delivered: f64, queue_ns: Time, rtt_min_ns: Time) -> Verdict {
        self.spans += 1;
        if let Some(before) = self.before {
            if self.spans < ANSWER_SPANS {
                return Verdict::Wait;
            }
            *self = Self::default();
            return if delivered > before * (1.0 + STEP / 2.0) { Verdict::Follows } else { Verdict::Full };
        }
        let is_steady = delivered > rate * ARRIVES && queue_ns < self.queue_ns + rtt_min_ns / 32;
        if self.spans == 1 || !is_steady {
            *self = Self { spans: 1, queue_ns, before: None };
        } else if self.spans >= HELD_SPANS {
            *self = Self { spans: 0, queue_ns, before: Some(delivered) };
            return Verdict::Try;
        }
        Verdict::Wait
    }
}

/// Share by which more is sent.
pub(super) const STEP: f64 = 0.05;
/// Spans until that is measured: a round trip for the answer, and the mean of two spans.
const ANSWER_SPANS: u32 = 3;
/// Spans for which a queue must have stood.
const HELD_SPANS: u32 = 6;
const ARRIVES: f64 = 0.95;
