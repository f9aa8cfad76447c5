//! The dataplane: moves bytes. One pinned thread per core ([`worker`]), each with its own ring, engine and
//! buffers; helper threads for what blocks ([`tree`], [`door`]); [`link`] to control; [`bpf`] programs.
pub mod bpf;
pub mod door;
pub mod identity;
pub mod link;
pub mod record;
pub mod tree;
pub mod worker;
