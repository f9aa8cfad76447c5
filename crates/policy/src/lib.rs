//! The control core: health, circuit breaker, restart pauses, admission and retries of jobs.
//!
//! Used by control, which brings the time. Nothing here reads a clock, opens a file or knows a socket: every point in
//! time is a [`Duration`](core::time::Duration) since the caller's start, every answer follows from the inputs.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod admission;
mod backoff;
mod breaker;
mod health;

pub use admission::{Admission, Refusal, RetryDecision, RetryPolicy};
pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerLimits, BreakerState};
pub use health::{Component, ComponentState, Overall, Report, overall};
