//! Listening sockets that outlive this process: the service manager keeps them while it is started anew, so that who
//! connects meanwhile waits in the socket's queue instead of being refused. Asked by the door and by tunnels for every
//! address; filled by `main` with what the former life left.
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwcp_sys::service::Notifier;
use nix::sys::socket::{getsockopt, sockopt};

/// What was kept, and the way to the manager. The default keeps nothing.
#[derive(Debug, Default)]
pub struct Listeners {
    notifier: Arc<Notifier>,
    former: Mutex<HashMap<String, OwnedFd>>,
}

impl Listeners {
    /// With what the former life left.
    #[must_use]
    pub fn new(notifier: Arc<Notifier>, former: Vec<(String, OwnedFd)>) -> Self {
        Self { notifier, former: Mutex::new(former.into_iter().collect()) }
    }

    /// The listener of a former life with all that waits in its queue, or a fresh one; it does not block. The manager
    /// keeps it from now on.
    ///
    /// # Errors
    /// The system's, where the address cannot be listened at.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let name = name(address);
        let former = self.lock().remove(&name).and_then(|descriptor| usable(descriptor, address));
        let listener = match former {
            Some(listener) => {
                tracing::info!(%address, "listening socket taken over from the former life");
                listener
            }
            None => TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        // Nobody can come back to a port that is another one each time.
        if address.port() != 0 {
            self.notifier.keep(&name, listener.as_fd());
        }
        Ok(listener)
    }

    /// The address is listened at no more.
    pub fn forget(&self, address: SocketAddr) {
        self.notifier.forget(&name(address));
    }

    /// Closes what nobody asked for: the configuration has changed between two lives.
    pub fn release_rest(&self) {
        for (name, descriptor) in self.lock().drain() {
            tracing::info!(name, "a listening socket of the former life is not needed any more");
            self.notifier.forget(&name);
            drop(descriptor);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, OwnedFd>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names of kept descriptors have no colons.
fn name(address: SocketAddr) -> String {
    format!("listen {address}").replace(':', "_")
}

/// What a manager hands over is looked at: it may be of another program's making.
fn usable(descriptor: OwnedFd, address: SocketAddr) -> Option<TcpListener> {
    let listens = getsockopt(&descriptor, sockopt::AcceptConn).unwrap_or(false);
    let listener = TcpListener::from(descriptor);
    (listens && listener.local_addr().ok() == Some(address)).then_some(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn vacant() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_former_listener_comes_with_who_waits_at_it() {
        let before = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = before.local_addr().unwrap();
        let waiting = TcpStream::connect(address).unwrap();
        let listeners = Listeners::new(Arc::default(), vec![(name(address), before.into())]);
        let listener = listeners.listen(address).unwrap();
        let (_, remote) = listener.accept().unwrap();
        assert_eq!(remote, waiting.local_addr().unwrap());
        assert!(listeners.lock().is_empty());
    }

    #[test]
    fn what_is_no_listener_of_the_address_is_not_used() {
        let (address, other) = (vacant(), TcpListener::bind("127.0.0.1:0").unwrap());
        let file = tempfile::tempfile().unwrap();
        for wrong in [OwnedFd::from(other), file.into()] {
            let listeners = Listeners::new(Arc::default(), vec![(name(address), wrong)]);
            assert_eq!(listeners.listen(address).unwrap().local_addr().unwrap(), address);
        }
    }

    #[test]
    fn what_nobody_asks_for_is_closed() {
        let before = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = before.local_addr().unwrap();
        let listeners = Listeners::new(Arc::default(), vec![(name(address), before.into())]);
        listeners.release_rest();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn names_have_no_colons() {
        assert_eq!(name("[::1]:4433".parse().unwrap()), "listen [__1]_4433");
    }
}
