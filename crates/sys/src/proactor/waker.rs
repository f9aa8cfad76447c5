//! How other threads end the sleep of a proactor: one atomic, and an eventfd that is written only when it sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes one proactor. Publish the message first, then call [`Waker::wake`].
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    attention: Attention,
    event: EventFd,
}

impl Waker {
    pub(super) fn new() -> Result<Waker, Errno> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Waker { shared: Arc::new(Shared { attention: Attention::new(), event }) })
    }

    /// Ends the turn in which the proactor sleeps, or the next one that would sleep. Costs one atomic operation when
    /// the proactor is awake. The turn returns without a completion for it: look at your queues after every turn.
    pub fn wake(&self) {
        if !self.shared.attention.notify() {
            return;
        }
        if let Err(errno) = self.shared.event.write(1) {
            // Only a full counter can refuse, and then the descriptor is readable already.
            tracing::debug!(%errno, "waking a proactor");
        }
    }

    pub(super) fn attention(&self) -> &Attention {
        &self.shared.attention
    }

    pub(super) fn duplicate_fd(&self) -> Result<OwnedFd, Errno> {
        let fd: BorrowedFd<'_> = self.shared.event.as_fd();
        fd.try_clone_to_owned().map_err(super::errno_of)
    }
}

/// Whether the proactor sleeps, and whether somebody wants it.
///
/// Every access is a read-modify-write of one word, so that there is one order of all of them: a notification either
/// comes before the attempt to sleep, which then fails, or after it, and then sees `SLEEPING` and writes the eventfd.
#[derive(Debug)]
pub(super) struct Attention(AtomicU8);

impl Attention {
    fn new() -> Attention {
        Attention(AtomicU8::new(AWAKE))
    }

    /// Wakers: says whether the eventfd must be written.
    fn notify(&self) -> bool {
        // Release pairs with the Acquire of `fall_asleep` and `wake_up`: what was published before is seen after.
        self.0.swap(NOTIFIED, Ordering::AcqRel) == SLEEPING
    }

    /// The proactor: says whether it may sleep. A notification is consumed.
    pub(super) fn fall_asleep(&self) -> bool {
        // Acquire on both outcomes pairs with the Release of `notify`.
        if self.0.compare_exchange(AWAKE, SLEEPING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return true;
        }
        self.wake_up();
        false
    }

    /// The proactor, after its sleep: says whether it was notified.
    pub(super) fn wake_up(&self) -> bool {
        // Acquire pairs with the Release of `notify`.
        self.0.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }
}

const AWAKE: u8 = 0;
const SLEEPING: u8 = 1;
const NOTIFIED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notification_before_sleep_forbids_it_once() {
        let attention = Attention::new();
        assert!(!attention.notify(), "nobody sleeps: no system call");
        assert!(!attention.fall_asleep());
        assert!(attention.fall_asleep());
        assert!(attention.notify(), "sleeping: the eventfd is needed");
        assert!(!attention.notify(), "once is enough");
        assert!(attention.wake_up());
        assert!(attention.fall_asleep());
        assert!(!attention.wake_up());
    }
}
