//! The process's way to its service manager. Used by the entry points of both daemons and by what they keep.
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use super::is_name;

/// The service manager's socket; without one, nothing that is said goes anywhere.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    /// Reads `$NOTIFY_SOCKET`.
    #[must_use]
    pub fn from_environment() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").and_then(|name| match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            _ => SocketAddr::from_pathname(Path::new(&name)).ok(),
        });
        Self { socket: address.and_then(|address| connect(&address).ok()) }
    }

    /// Sends `READY=1`, `WATCHDOG=1`, `STOPPING=1` or `STATUS=…`.
    pub fn send(&self, state: &str) {
        self.tell(state, &[]);
    }

    /// Gives the manager a descriptor that the next life of this process gets back under this name. What is not a name
    /// is not kept.
    pub fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) {
        if is_name(name) {
            // FDPOLL: a listening socket never hangs up, and one that does is still ours to judge.
            self.tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[descriptor]);
        }
    }

    /// The manager need not keep what has this name.
    pub fn forget(&self, name: &str) {
        if is_name(name) {
            self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
        }
    }

    fn tell(&self, state: &str, descriptors: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = crate::fds::send(socket.as_fd(), state.as_bytes(), descriptors) {
            tracing::debug!(%error, "service manager not notified");
        }
    }
}

fn connect(address: &SocketAddr) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop its services.
    socket.set_nonblocking(true)?;
    socket.connect_addr(address)?;
    Ok(socket)
}

#[cfg(test)]
impl Notifier {
    /// To a socket of a test.
    pub(super) fn at(path: &Path) -> Self {
        Self { socket: Some(connect(&SocketAddr::from_pathname(path).unwrap()).unwrap()) }
    }
}
