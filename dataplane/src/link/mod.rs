//! The dataplane's side of the link: waits for control, starts the workers when it attaches for the first time, hands
//! over shared memory, takes plans. A control that dies is waited for again; the workers go on meanwhile.
mod plan;
mod pulse;
mod serve;
mod start;

pub use serve::{Manager, Paths, ServeError, serve};
