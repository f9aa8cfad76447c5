//! Doorbells: eventfds that wake the other side of a ring while it sleeps. A worker's io_uring or control's event
//! loop polls the descriptor; [`dwcp_abi::shm::Producer::push`] says when to ring.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// One eventfd.
#[derive(Debug)]
pub struct Doorbell {
    descriptor: OwnedFd,
}

/// Why there is no doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DoorbellError {
    /// A system call failed.
    #[error("doorbell: {call} failed: {errno}")]
    System {
        /// Its name.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The descriptor that was received is something else.
    #[error("doorbell: the descriptor is no eventfd")]
    NotEventfd,
}

impl Doorbell {
    /// Creates a doorbell that has not rung.
    ///
    /// # Errors
    /// [`DoorbellError::System`].
    pub fn create() -> Result<Self, DoorbellError> {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let eventfd = eventfd.map_err(|errno| DoorbellError::System { call: "eventfd2", errno })?;
        Ok(Self { descriptor: eventfd.into() })
    }

    /// Takes a descriptor that another process sent.
    ///
    /// # Errors
    /// [`DoorbellError::NotEventfd`]: writing to it could do anything; [`DoorbellError::System`] without `/proc`.
    pub fn open(descriptor: OwnedFd) -> Result<Self, DoorbellError> {
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let target = nix::fcntl::readlink(link.as_str())
            .map_err(|errno| DoorbellError::System { call: "readlink", errno })?;
        if target.as_encoded_bytes() != b"anon_inode:[eventfd]" {
            return Err(DoorbellError::NotEventfd);
        }
        Ok(Self { descriptor })
    }

    /// Rings. One that rings already goes on doing so.
    ///
    /// # Errors
    /// [`DoorbellError::System`].
    pub fn ring(&self) -> Result<(), DoorbellError> {
        match nix::unistd::write(&self.descriptor, &1_u64.to_ne_bytes()) {
            // EAGAIN: the counter is full, so it rings.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(DoorbellError::System { call: "write", errno }),
        }
    }

    /// Stops the ringing; true = it had rung.
    ///
    /// # Errors
    /// [`DoorbellError::System`].
    pub fn answer(&self) -> Result<bool, DoorbellError> {
        match nix::unistd::read(&self.descriptor, &mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(DoorbellError::System { call: "read", errno }),
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_once_until_answered() {
        let doorbell = Doorbell::create().unwrap();
        let other = Doorbell::open(doorbell.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert!(!doorbell.answer().unwrap());
        other.ring().unwrap();
        other.ring().unwrap();
        assert!(doorbell.answer().unwrap());
        assert!(!doorbell.answer().unwrap());
    }

    #[test]
    fn a_full_counter_still_rings_and_does_not_block() {
        let doorbell = Doorbell::create().unwrap();
        nix::unistd::write(&doorbell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        doorbell.ring().unwrap();
        assert!(doorbell.answer().unwrap());
    }

    #[test]
    fn another_kind_of_descriptor_is_refused() {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        assert_eq!(Doorbell::open(reader).unwrap_err(), DoorbellError::NotEventfd);
    }
}
