//! `io_uring_enter` with a time-out and a registered ring descriptor, which the io-uring crate cannot combine with
//! owning the ring.
#![expect(unsafe_code, reason = "raw system calls")]

use std::os::fd::RawFd;
use std::time::Duration;

use nix::errno::Errno;

/// Submits `submit_count` entries, runs deferred work and waits for one completion: not at all without `sleep`, without
/// limit for `Duration::MAX`.
pub(super) fn enter(
    ring: RawFd,
    registered: Option<&RegisteredRing>,
    submit_count: u32,
    sleep: Option<Duration>,
) -> Result<(), Errno> {
    let (descriptor, registered_flag) = match registered {
        Some(registered) => (registered.index as RawFd, ENTER_REGISTERED_RING),
        None => (ring, 0),
    };
    let time = Timespec::from(sleep.unwrap_or(Duration::ZERO));
    let limited = sleep.is_some_and(|sleep| sleep != Duration::MAX);
    let argument = EventArgument {
        signal_mask: 0,
        signal_mask_bytes: 0,
        minimal_wait_us: 0,
        time: if limited { &raw const time as u64 } else { 0 },
    };
    let flags = ENTER_GETEVENTS | ENTER_EXT_ARG | registered_flag;
    let wanted = u32::from(sleep.is_some());
    // SAFETY: the descriptor is the ring's own; `argument` and the time it points to live until the call returns and
    // have the layout of `struct io_uring_getevents_arg` and `struct __kernel_timespec`. What submitted entries point
    // to was promised when they were pushed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            descriptor,
            submit_count,
            wanted,
            flags,
            &raw const argument,
            size_of::<EventArgument>(),
        )
    };
    Errno::result(result).map(|_| ())
}

/// The ring's place in the thread's table of rings; spares a descriptor look-up per call.
#[derive(Debug)]
pub(super) struct RegisteredRing {
    ring: RawFd,
    index: u32,
}

impl RegisteredRing {
    /// Registers a ring for the calling thread. The ring outlives the registration.
    pub(super) fn register(ring: RawFd) -> Result<RegisteredRing, Errno> {
        let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: ring as u64 };
        register(ring, REGISTER_RING_FDS, &mut update)?;
        Ok(RegisteredRing { ring, index: update.offset })
    }
}

impl Drop for RegisteredRing {
    /// A registration that stays would keep the ring open until the thread ends.
    fn drop(&mut self) {
        let mut update = ResourceUpdate { offset: self.index, reserved: 0, data: 0 };
        if let Err(errno) = register(self.ring, UNREGISTER_RING_FDS, &mut update) {
            tracing::warn!(%errno, "cannot unregister a ring");
        }
    }
}

fn register(ring: RawFd, operation: u32, update: &mut ResourceUpdate) -> Result<(), Errno> {
    // SAFETY: the argument is one `struct io_uring_rsrc_update`, which the kernel reads and writes during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring, operation, &raw mut *update, 1u32) };
    Errno::result(result).map(|_| ())
}

/// `struct io_uring_getevents_arg` (include/uapi/linux/io_uring.h).
#[repr(C)]
struct EventArgument {
    signal_mask: u64,
    signal_mask_bytes: u32,
    minimal_wait_us: u32,
    time: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

impl From<Duration> for Timespec {
    fn from(duration: Duration) -> Timespec {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Timespec { seconds, nanoseconds: duration.subsec_nanos().into() }
    }
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
