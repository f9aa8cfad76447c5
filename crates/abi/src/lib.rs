//! Every byte that leaves a process: peer frames ([`wire`]), the messages between control and dataplane
//! ([`link`]), shared-memory layouts ([`shm`]), what stays on disk ([`disk`]) and the maps shared with the kernel
//! programs ([`bpf`]).
//!
//! Used by every other crate. It allocates nothing, opens nothing and knows no policy: a decoder here borrows
//! from the bytes that it is given, checks every length first, and never panics on any input.
#![cfg_attr(not(test), no_std)]

pub mod bpf;
#[cfg(not(target_arch = "bpf"))]
pub mod codec;
#[cfg(not(target_arch = "bpf"))]
pub mod disk;
#[cfg(not(target_arch = "bpf"))]
pub mod link;
#[cfg(not(target_arch = "bpf"))]
pub mod shm;
#[cfg(not(target_arch = "bpf"))]
pub mod wire;
