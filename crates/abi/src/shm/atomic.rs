//! The atomics that shared memory is made of: the processor's, or loom's while loom explores the interleavings of
//! this module's tests. Used by the rest of [`crate::shm`]; nothing else decides which one it is.
#[cfg(not(all(loom, test)))]
pub(super) use core::sync::atomic::fence;
#[cfg(not(all(loom, test)))]
pub use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(all(loom, test))]
pub(super) use loom::sync::atomic::fence;
#[cfg(all(loom, test))]
pub use loom::sync::atomic::{AtomicU64, Ordering};

/// Memory that two processes share, as words. Whoever implements it keeps the memory alive and its size fixed.
pub trait Memory {
    /// The words; the same ones, and as many, at every call.
    fn words(&self) -> &[AtomicU64];
}

impl Memory for &[AtomicU64] {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}
