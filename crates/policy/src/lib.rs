//! The control core: health, circuit breakers, recovery, admission and retries of jobs.
//!
//! Used by control, which brings the time. Nothing here reads a clock, opens a file or knows a socket: every point in
//! time is a [`Duration`](core::time::Duration) since the caller's start, every answer follows from the inputs.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod admission;
mod backoff;
mod breaker;
mod breakers;
mod health;
mod protocol;
mod rate_limit;
mod recovery;

pub use admission::{Admission, Refusal, RetryDecision, RetryPolicy};
pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerLimits, BreakerState};
pub use breakers::{Breakers, Permit, Unproven};
pub use health::{Component, ComponentState, Overall, Report, overall};
pub use protocol::{ClusterSight, FaultAssumption, ProtocolChoice, ProtocolLimits, ProtocolSelector};
pub use rate_limit::{RateLimiter, Verdict};
pub use recovery::{Recovery, RecoveryLimits, RecoveryState};
