//! What the tunnels' thread waits for: sockets by number, in one epoll instance. A number is never used twice, so that a
//! late event of a closed socket means nothing.
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use dwcp_engine::{ConnectionKey, TunnelLane};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::door::PeerName;

/// What became ready.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Somebody rang.
    Wake,
    /// Somebody connects.
    Listener(u64),
    /// A target that is being connected.
    Target(u64),
    /// A lane.
    Lane(PeerName, TunnelLane),
    /// A program's socket.
    Program(PeerName, ConnectionKey),
}

/// Which way a source is ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) broken: bool,
}

/// All sources.
pub(super) struct Sources {
    epoll: Epoll,
    known: HashMap<u64, Source>,
    next: u64,
}

impl Sources {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, known: HashMap::new(), next: 0 })
    }

    /// A number that nothing else has.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Watches a socket until it is closed, and speaks of it when something changes, either way; says its number.
    pub(super) fn add(&mut self, socket: &impl AsFd, source: Source) -> io::Result<u64> {
        let number = self.number();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.epoll.add(socket.as_fd(), EpollEvent::new(flags, number))?;
        self.known.insert(number, source);
        Ok(number)
    }

    /// The socket means something else from now on.
    pub(super) fn change(&mut self, number: u64, source: Source) {
        self.known.insert(number, source);
    }

    /// Forgets a number; its socket is, or will be, closed by its owner.
    pub(super) fn forget(&mut self, number: u64) {
        self.known.remove(&number);
    }

    /// Sleeps until something is ready or `timeout_ms` have passed.
    pub(super) fn wait(&self, timeout_ms: u16, ready: &mut Vec<(Source, Ready)>) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_PER_TURN];
        let count = match self.epoll.wait(&mut events, EpollTimeout::from(timeout_ms)) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            let Some(source) = self.known.get(&event.data()) else { continue };
            let flags = event.events();
            let broken = flags.contains(EpollFlags::EPOLLERR);
            let hung_up = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP);
            ready.push((
                source.clone(),
                Ready {
                    readable: broken || hung_up || flags.contains(EpollFlags::EPOLLIN),
                    writable: broken || flags.contains(EpollFlags::EPOLLOUT),
                    broken,
                },
            ));
        }
        Ok(())
    }
}

const EVENTS_PER_TURN: usize = 256;
