//! Safe wrappers of the kernel: what the two processes need of it and the standard library does not have.
//!
//! The only crate beside the kernel programs and `abi::bpf` that may contain `unsafe`. It decides nothing. The node's
//! identity stands here too, and how others' are checked ([`pinned`]): both processes show it, and its file is guarded by
//! what the kernel says of it.

pub mod attributes;
pub mod buffers;
pub mod clock;
pub mod confine;
pub mod doorbell;
pub mod fds;
#[cfg(feature = "hwloc")]
mod hwloc;
pub mod identity;
pub mod link;
pub mod pinned;
pub mod proactor;
pub mod process;
pub mod queueing;
pub mod rdma;
pub mod scheduling;
pub mod sealed;
pub mod service;
pub mod shm;
pub mod socket;
pub mod topology;
pub mod tun;
