//! Figures of the door: written by its thread, read by anybody (the statistics page). Every value stands alone, so
//! that relaxed order is enough.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters.
#[derive(Debug, Default)]
pub struct Counters {
    succeeded: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    refused: AtomicU64,
    turned_away: AtomicU64,
    pauses: AtomicU64,
    half_open: AtomicU64,
    turns: AtomicU64,
}

/// A copy of the [`Counters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Greetings that came to a lane.
    pub succeeded: u64,
    /// Connections that failed in any other way than the following.
    pub failed: u64,
    /// Connections whose greeting was not complete in time.
    pub timed_out: u64,
    /// Connections that either end refused: unknown identity, or no version in common.
    pub refused: u64,
    /// Connections closed at once, because their source had too many.
    pub turned_away: u64,
    /// Times that a listener paused, because the process had no descriptors or memory left.
    pub pauses: u64,
    /// Connections without a finished greeting, now.
    pub half_open: u64,
}

/// How a connection without a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Failed,
    TimedOut,
    Refused,
}

impl Counters {
    /// All of them, each as it is at the moment.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            succeeded: self.succeeded.load(Relaxed),
            failed: self.failed.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            refused: self.refused.load(Relaxed),
            turned_away: self.turned_away.load(Relaxed),
            pauses: self.pauses.load(Relaxed),
            half_open: self.half_open.load(Relaxed),
        }
    }

    /// Turns of the door's thread, which takes one a second at least: what stays the same hangs.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Relaxed)
    }

    pub(super) fn count_turn(&self) {
        self.turns.fetch_add(1, Relaxed);
    }

    pub(super) fn count_success(&self) {
        self.succeeded.fetch_add(1, Relaxed);
    }

    pub(super) fn count(&self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Failed => &self.failed,
            Verdict::TimedOut => &self.timed_out,
            Verdict::Refused => &self.refused,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn count_turned_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }

    pub(super) fn count_pause(&self) {
        self.pauses.fetch_add(1, Relaxed);
    }

    pub(super) fn set_half_open(&self, count: usize) {
        self.half_open.store(count as u64, Relaxed);
    }
}
