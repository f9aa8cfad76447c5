//! The core of AMST, the Adaptive Multi-Stream Transport: decides which bytes travel on which lane, and when a
//! job is done. One [`Engine`] per worker; the workers of a node help each other by [`Tell`] messages.
//!
//! Sans-io: no clock, socket, file, thread or random source. The driver (the dataplane, or the simulator) feeds
//! [`Input`]s and carries out [`Output`]s. Payload never passes through here: buffers are named by [`BufferId`].
#![no_std]

extern crate alloc;

mod digest;
mod engine;
mod io;
mod path;
mod range;
mod slab;
mod tunnel;

pub use digest::{SubtreeDigests, ZERO_CHUNK};
pub use engine::{Config, Engine};
pub use io::{
    Asked, BufferId, Digest, FileId, FinalCheck, FoundObject, Hash, Input, JobKey, LaneEnd, LaneId,
    Leftovers, Offered, OpenedObject, Output, Owner, PackId, PeerId, Place, Source, TaskId, Tell, Time,
};
pub use path::{Congestion, Demand, Guidance, PathControl, PathMode, PathSample, Reason};
pub use range::RangeSet;
pub use tunnel::{ConnectionKey, Mux, Opener, TunnelEvent, TunnelLane, TunnelLimits, Violation};
