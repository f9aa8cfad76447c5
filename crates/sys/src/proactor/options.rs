//! What a proactor is opened with, and why opening can fail.

use nix::errno::Errno;

use crate::buffers::{Class, Wish, bytes_total};

/// Size and shape of a proactor. Every count is a bound: nothing grows afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Operations that one system call can submit (rounded up to a power of two, at most 32768).
    pub entries: u32,
    /// Operations that can be in flight at once. One more completes with `ENOBUFS` at the next turn.
    pub operation_count_max: u32,
    /// Handles that can exist at once (at most 65535).
    pub handle_count_max: u32,
    /// Number of large buffers.
    pub large_count: u32,
    /// Size of a large buffer in bytes.
    pub large_bytes: u32,
    /// Number of small buffers.
    pub small_count: u32,
    /// Size of a small buffer in bytes.
    pub small_bytes: u32,
    /// Which kernel interface to use.
    pub backend: BackendChoice,
    /// Whether hugepages are asked for.
    pub hugepages: Wish,
    /// Whether io_uring is asked to register buffers, files and itself.
    pub registrations: Wish,
}

/// Which kernel interface a proactor uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// io_uring where the kernel permits it, else epoll.
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// Why a proactor could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The options ask for more than a proactor may have.
    #[error("{name} is {value}, at most {limit} are possible")]
    TooLarge {
        /// The field of the options, or `buffer bytes` for the whole pool.
        name: &'static str,
        /// What was asked for.
        value: u64,
        /// What is possible.
        limit: u64,
    },
    /// The buffers could not be mapped.
    #[error("cannot map {bytes} bytes of buffers: {errno}")]
    Memory {
        /// Size of the pool.
        bytes: u64,
        /// What the kernel said.
        errno: Errno,
    },
    /// io_uring was demanded and is not available.
    #[error("io_uring is not available: {reason}")]
    IoUring {
        /// One short line.
        reason: String,
    },
    /// A descriptor that every proactor needs could not be made.
    #[error("cannot create {what}: {errno}")]
    Descriptor {
        /// The kind of descriptor.
        what: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl Default for Options {
    /// 16 large buffers of 516 KiB (a chunk of 512 KiB, its frame and its TLS records) and 64 small ones of 16 KiB.
    fn default() -> Options {
        Options {
            entries: 256,
            operation_count_max: 4096,
            handle_count_max: 2048,
            large_count: 16,
            large_bytes: 516 << 10,
            small_count: 64,
            small_bytes: 16 << 10,
            backend: BackendChoice::Auto,
            hugepages: Wish::Wanted,
            registrations: Wish::Wanted,
        }
    }
}

impl Options {
    pub(super) fn large(&self) -> Class {
        Class { count: self.large_count, bytes: self.large_bytes }
    }

    pub(super) fn small(&self) -> Class {
        Class { count: self.small_count, bytes: self.small_bytes }
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let buffer_bytes = bytes_total(self.large(), self.small()) as u64;
        limit("entries", self.entries.into(), ENTRIES_MAX)?;
        limit("operation_count_max", self.operation_count_max.into(), OPERATION_COUNT_MAX)?;
        limit("handle_count_max", self.handle_count_max.into(), HANDLE_COUNT_MAX)?;
        limit("buffer bytes", buffer_bytes, BUFFER_BYTES_MAX)
    }
}

fn limit(name: &'static str, value: u64, limit: u64) -> Result<(), OpenError> {
    if value > limit {
        return Err(OpenError::TooLarge { name, value, limit });
    }
    Ok(())
}

/// IORING_MAX_ENTRIES of the kernel.
const ENTRIES_MAX: u64 = 32_768;
/// Half of IORING_MAX_CQ_ENTRIES, so that the completion queue can hold every operation.
const OPERATION_COUNT_MAX: u64 = 32_768;
/// A handle keeps its slot in 16 bits.
const HANDLE_COUNT_MAX: u64 = 65_535;
/// The kernel registers at most 1 GiB as one buffer (io_uring/rsrc.c, `io_buffer_validate`).
const BUFFER_BYTES_MAX: u64 = 1 << 30;
