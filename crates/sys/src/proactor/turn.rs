//! What goes into a turn of the proactor and what comes out of it.

use std::time::{Duration, Instant};

use nix::errno::Errno;

/// The end of an operation, or the ring of a doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// What the caller gave with the operation.
    pub token: u64,
    /// Bytes done (1 for a doorbell), or what went wrong. `ECANCELED` after `cancel` and `remove`, `EBADF` for a removed
    /// handle, `ENOBUFS` when too many operations are in flight.
    pub result: Result<u32, Errno>,
}

/// How long a turn may sleep when there is nothing to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Now,
    /// At most this long.
    Until(Duration),
    /// Until there is something to report or a waker calls.
    Forever,
}

/// What a proactor did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Completions handed to the caller.
    pub completions: u64,
    /// System calls that submit, wait or (epoll) do an operation.
    pub submissions: u64,
    /// Times when the submission queue was full and had to be submitted early.
    pub queue_full: u64,
    /// Operations refused because too many were in flight.
    pub refused: u64,
}

/// A turn failed in a way that turning again will not cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed: {errno}")]
pub struct TurnError {
    /// The system call.
    pub call: &'static str,
    /// What the kernel said.
    pub errno: Errno,
}

/// A descriptor could not be taken in. It is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// All slots are taken.
    #[error("the proactor has no free slot for a descriptor")]
    Full,
    /// The kernel refused it.
    #[error("the kernel refused the descriptor: {0}")]
    Kernel(Errno),
}

/// The end of a turn's sleep.
pub(super) enum Deadline {
    Passed,
    At(Instant),
    Never,
}

impl Deadline {
    pub(super) fn new(wait: Wait) -> Deadline {
        match wait {
            Wait::Now => Deadline::Passed,
            Wait::Until(duration) => {
                Instant::now().checked_add(duration).map_or(Deadline::Never, Deadline::At)
            }
            Wait::Forever => Deadline::Never,
        }
    }

    /// How long to sleep; `None` when the time is over.
    pub(super) fn remaining(&self) -> Option<Duration> {
        match self {
            Deadline::Passed => None,
            Deadline::At(end) => {
                Some(end.saturating_duration_since(Instant::now())).filter(|rest| !rest.is_zero())
            }
            Deadline::Never => Some(Duration::MAX),
        }
    }
}
