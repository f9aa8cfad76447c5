//! What control and dataplane say to each other.
//!
//! Set-up goes over a unix stream socket in [`envelope`]s ([`Setup`] one way, [`Attached`] the other, with the
//! regions' and doorbells' descriptors beside it). After that control writes [`Command`]s into the command rings
//! and reads [`Event`]s from the event rings ([`crate::shm`]). Either side may die at any byte: every message
//! stands alone and is checked as hostile input.
mod command;
mod event;
mod setup;

pub use command::{CancelJob, Command, FetchJob, ForgetJob, JobOptions, PauseJob, Ping, SendJob, Snapshot};
pub use event::{
    Counts, Event, JobFinished, JobProgress, JobState, LaneChange, Outcome, PathFigures, PathLimit, Pong,
    RingReset, SnapshotEnd, TunnelFigures, TunnelPeerFigures, TunnelState,
};
pub use setup::{
    Access, Attach, Attached, CONGESTION_AUTO, Class, ENVELOPE_MAX, Export, GuardMode, Kernel, Peer, PlanEnd,
    Rdma, Selector, SelectorKind, Setup, Transport, Tunnel, TunnelAllow, envelope, strings,
};

/// Version of everything in this module. Both sides must be equal; an unequal peer is told to restart.
pub const LINK_VERSION: u32 = 6;
