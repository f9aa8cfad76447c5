//! How other threads end the sleep of a proactor: one atomic word, and an eventfd that is written only when it sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::attention::Attention;

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
