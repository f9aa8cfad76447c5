//! Names to addresses. The system's resolver blocks, so that each name gets a short-lived thread; how many there
//! are at a time is bounded, and nobody waits for one that hangs. Used by [`super::dial`], and by tunnels for
//! their targets.
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;

/// Runs the threads and collects their answers.
#[derive(Debug)]
pub(crate) struct Resolver {
    wake: Arc<EventFd>,
    sender: Sender<Resolved>,
    answers: Receiver<Resolved>,
    running: usize,
    threads_max: usize,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) order: u64,
    pub(crate) addresses: io::Result<Arc<[SocketAddr]>>,
}

impl Resolver {
    /// `wake` is written whenever an answer is there.
    pub(crate) fn new(threads_max: usize, wake: Arc<EventFd>) -> Self {
        let (sender, answers) = bounded(threads_max.max(1));
        Self { wake, sender, answers, running: 0, threads_max: threads_max.max(1) }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.running < self.threads_max
    }

    /// Looks `address` (`host:port`) up; the answer carries `order`. Only while [`Self::has_room`].
    pub(crate) fn start(&mut self, order: u64, address: String) -> io::Result<()> {
        let (sender, wake) = (self.sender.clone(), Arc::clone(&self.wake));
        let spawned = thread::Builder::new().name("dwcp-resolve".to_owned()).spawn(move || {
            let resolved = Resolved { order, addresses: look_up(&address) };
            // Either fails only when the door has closed, and nobody waits for the answer any more.
            if sender.send(resolved).is_ok() {
                let _ = wake.write(1);
            }
        });
        spawned.map(|_| self.running += 1)
    }

    /// The next answer, if there is one.
    pub(crate) fn take(&mut self) -> Option<Resolved> {
        let resolved = self.answers.try_recv().ok()?;
        self.running -= 1;
        Some(resolved)
    }
}

fn look_up(address: &str) -> io::Result<Arc<[SocketAddr]>> {
    let addresses: Arc<[_]> = address.to_socket_addrs()?.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

const ADDRESSES_MAX: usize = 16;
