//! The epoll backend, for hosts that forbid io_uring: the same behaviour from plain system calls.
//!
//! A stream operation is tried at once and parked until its socket is ready again (edge-triggered, one registration per
//! descriptor). File operations have no readiness: they are done in the turn and may block it for as long as the disk
//! takes. Only the proactor drives it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll as Descriptor, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::fsync;

use super::ledger::{Ledger, Request};
use super::operations::{Direction, Key, Kind, Stage};
use super::{BATCH_MAX, Features, TurnError};

pub(super) struct Epoll {
    epoll: Descriptor,
    events: Vec<EpollEvent>,
}

impl Epoll {
    pub(super) fn open(features: &mut Features) -> Result<Epoll, Errno> {
        let epoll = Descriptor::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        features.used("edge-triggered readiness");
        Ok(Epoll { epoll, events: vec![EpollEvent::empty(); BATCH_MAX] })
    }

    /// A descriptor took a slot. Those without readiness (regular files) are not registered.
    pub(super) fn admit(&mut self, slot: u16, fd: &OwnedFd) -> Result<(), Errno> {
        match self.epoll.add(fd, EpollEvent::new(STREAM_EVENTS, slot.into())) {
            Ok(()) | Err(Errno::EPERM) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// A slot is about to be released.
    pub(super) fn forget(&mut self, fd: &OwnedFd) {
        match self.epoll.delete(fd) {
            // Regular files were not registered: EPERM for what has no readiness.
            Ok(()) | Err(Errno::EPERM | Errno::ENOENT) => {}
            Err(errno) => tracing::warn!(%errno, "cannot take a descriptor out of epoll"),
        }
    }

    /// Does the requests of the ledger, then sleeps for readiness at most `sleep` (`None`: not at all) if nothing is
    /// done, and goes on with what became ready.
    pub(super) fn turn(&mut self, ledger: &mut Ledger, sleep: Option<Duration>) -> Result<(), TurnError> {
        self.perform(ledger);
        let sleep = sleep.filter(|_| !ledger.has_ready() && !ledger.has_requests());
        ledger.counters.submissions += 1;
        let count = match self.epoll.wait(&mut self.events, timeout(sleep)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(TurnError { call: "epoll_wait", errno }),
        };
        for event in &self.events[..count] {
            wake_waiting(ledger, event.data(), event.events());
        }
        self.perform(ledger);
        Ok(())
    }

    /// Does requests until the batch is full. An operation that makes progress asks for its next step at the end of the
    /// line, so that no socket keeps the others waiting.
    fn perform(&mut self, ledger: &mut Ledger) {
        for _ in 0..STEP_COUNT_MAX {
            if ledger.ready_count() >= BATCH_MAX {
                return;
            }
            let Some(request) = ledger.next_request() else { return };
            match request {
                Request::Start(key) => start(ledger, key),
                Request::Cancel(key) => ledger.finish(key, Err(Errno::ECANCELED)),
                Request::Listen(place) => self.listen(ledger, place),
                Request::Silence(place) => self.silence(ledger, place),
            }
        }
    }

    fn listen(&mut self, ledger: &mut Ledger, place: u32) {
        let Some(fd) = ledger.doorbell_fd(place) else { return };
        let event = EpollEvent::new(DOORBELL_EVENTS, DOORBELL | u64::from(place));
        if let Err(errno) = self.epoll.add(fd, event) {
            ledger.end_doorbell(place, errno);
        }
    }

    fn silence(&mut self, ledger: &mut Ledger, place: u32) {
        let Some(fd) = ledger.doorbell_fd(place) else { return };
        self.forget(fd);
        ledger.end_doorbell(place, Errno::ECANCELED);
    }
}

/// Tries an operation once.
fn start(ledger: &mut Ledger, key: Key) {
    let Some(operation) = ledger.operations.at(key).filter(|operation| operation.stage == Stage::Pending)
    else {
        return;
    };
    operation.stage = Stage::Running;
    let operation = *operation;
    ledger.counters.submissions += 1;
    let result = attempt(ledger, &operation);
    if result == Err(Errno::EAGAIN) && operation.kind.direction().is_some() {
        return;
    }
    // No file is larger than a buffer here: buffers are limited to 1 GiB.
    ledger.step(key, result.map(|count| count as u32));
}

fn attempt(ledger: &mut Ledger, operation: &super::operations::Operation) -> Result<usize, Errno> {
    let Some(fd) = ledger.handles.fd(operation.slot) else { return Err(Errno::EBADF) };
    let (rest, pool) = (operation.rest(), &mut ledger.pool);
    let offset = || i64::try_from(operation.rest_offset()).map_err(|_| Errno::EINVAL);
    match operation.kind {
        Kind::Recv | Kind::RecvAll => recv(fd.as_raw_fd(), pool.held_bytes_mut(rest), MsgFlags::MSG_DONTWAIT),
        Kind::SendAll => {
            send(fd.as_raw_fd(), pool.held_bytes(rest), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
        }
        Kind::ReadAt => pread(fd, pool.held_bytes_mut(rest), offset()?),
        Kind::WriteAt => pwrite(fd, pool.held_bytes(rest), offset()?),
        Kind::Sync => fsync(fd).map(|()| 0),
    }
}

/// A descriptor became ready: what is parked on it goes on.
fn wake_waiting(ledger: &mut Ledger, data: u64, events: EpollFlags) {
    if data & DOORBELL != 0 {
        return ledger.ring(data as u32);
    }
    let slot = data as u16;
    let broken = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
    if broken || events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP) {
        ledger.resume(slot, Direction::Incoming);
    }
    if broken || events.contains(EpollFlags::EPOLLOUT) {
        ledger.resume(slot, Direction::Outgoing);
    }
}

/// Rounds up, so that a turn does not spin through the last fraction of a millisecond.
fn timeout(sleep: Option<Duration>) -> EpollTimeout {
    match sleep {
        None => EpollTimeout::ZERO,
        Some(Duration::MAX) => EpollTimeout::NONE,
        Some(sleep) => {
            let milliseconds = sleep.as_nanos().div_ceil(1_000_000);
            EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
        }
    }
}

const STREAM_EVENTS: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);
const DOORBELL_EVENTS: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);
/// Marks the event of a doorbell; other events carry a slot.
const DOORBELL: u64 = 1 << 63;
/// System calls that one half of a turn makes for operations.
const STEP_COUNT_MAX: usize = 4 * BATCH_MAX;
