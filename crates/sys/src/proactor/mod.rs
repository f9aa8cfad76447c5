//! The proactor: the only way in which a dataplane worker touches the kernel. Operations on sockets, files and doorbells
//! are prepared by methods that make no system call; [`Proactor::turn`] submits them and collects completions.
//!
//! One thread owns one proactor, with its buffers and its descriptors. Operations name spans of buffers; a buffer that
//! the kernel uses cannot be touched (that is a bug of the caller and panics), so that safe code can never race with
//! the kernel. io_uring does the work where the kernel permits it, epoll elsewhere, with the same behaviour.
//!
//! What it does not do: it opens no socket or file, and it does not decide which buffer is free.

mod attention;
mod epoll;
mod features;
mod handles;
mod ledger;
mod operations;
mod options;
mod paired;
mod turn;
mod uring;
mod waker;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub use nix::errno::Errno;

pub use self::features::{Feature, Features};
pub use self::handles::Handle;
pub use self::options::{BackendChoice, OpenError, Options};
pub use self::turn::{AddError, Completion, Counters, TurnError, Wait};
pub use self::waker::Waker;
pub use crate::buffers::{BufferId, Span, Wish};

use self::epoll::Epoll;
use self::ledger::{Ledger, Ring};
use self::operations::Kind;
use self::paired::Pairs;
use self::turn::Deadline;
use self::uring::Uring;
use crate::buffers::{Pool, bytes_total};
use crate::rdma::QueuePair;

/// The kernel interface that a proactor uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// io_uring.
    IoUring,
    /// epoll and plain system calls.
    Epoll,
}

/// See the module. It cannot leave the thread that opened it: io_uring's SINGLE_ISSUER binds it.
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// send(dwcp_sys::proactor::Proactor::open(&Default::default()).unwrap());
/// ```
pub struct Proactor {
    driver: Driver,
    /// Before the ledger, whose buffers they use.
    pairs: Pairs,
    ledger: Ledger,
    features: Features,
    waker: Waker,
}

#[expect(clippy::large_enum_variant, reason = "there is one per thread, and it never moves")]
enum Driver {
    Uring(Uring),
    Epoll(Epoll),
}

impl Proactor {
    /// Maps the buffers and opens the backend, on the thread that will use it.
    ///
    /// # Errors
    /// When the options exceed a bound, memory or descriptors are refused, or the demanded backend is not available.
    pub fn open(options: &Options) -> Result<Proactor, OpenError> {
        options.check()?;
        let (large, small) = (options.large(), options.small());
        let pool = Pool::map(large, small, options.hugepages)
            .map_err(|errno| OpenError::Memory { bytes: bytes_total(large, small) as u64, errno })?;
        let (driver, mut features) = open_driver(options, &pool)?;
        features.record_memory(pool.mapping());
        let descriptor = |errno| OpenError::Descriptor { what: "an eventfd", errno };
        let waker = Waker::new().map_err(descriptor)?;
        let fd = waker.duplicate_fd().map_err(descriptor)?;
        let mut ledger = Ledger::new(pool, options);
        let first = ledger.listen(fd, Ring::Wakes);
        assert!(first.is_ok(), "an empty ledger has room for the waker");
        Ok(Proactor { driver, pairs: Pairs::default(), ledger, features, waker })
    }

    /// What the kernel granted and what it refused.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What was done since the proactor was opened.
    pub fn counters(&self) -> Counters {
        self.ledger.counters
    }

    /// Operations that have not completed.
    pub fn in_flight(&self) -> usize {
        self.ledger.operations.in_flight()
    }

    /// Takes a descriptor in. Its `O_NONBLOCK` flag is set as the backend needs it.
    ///
    /// # Errors
    /// When all slots are taken or the kernel refuses it; the descriptor is then closed.
    pub fn add(&mut self, fd: OwnedFd) -> Result<Handle, AddError> {
        let (handle, slot) = self.ledger.handles.insert(fd).map_err(|_closed| AddError::Full)?;
        let fd = self.ledger.handles.fd(slot).ok_or(AddError::Full)?;
        let admitted = match &mut self.driver {
            Driver::Uring(uring) => uring.admit(fd),
            Driver::Epoll(epoll) => epoll.admit(slot, fd),
        };
        if let Err(errno) = admitted {
            drop(self.ledger.handles.release(slot));
            return Err(AddError::Kernel(errno));
        }
        Ok(handle)
    }

    /// Takes a queue pair in, with the TCP connection that its ends have met on. Streams' operations on the handle go over
    /// the pair; `fd` is the connection, which must stay silent and whose end is the stream's.
    ///
    /// # Errors
    /// As of `add`, and when the buffers may not be registered with the device (see RLIMIT_MEMLOCK).
    pub fn add_pair(&mut self, fd: OwnedFd, pair: QueuePair) -> Result<Handle, AddError> {
        let (handle, slot) = self.ledger.handles.insert(fd).map_err(|_closed| AddError::Full)?;
        if let Err(errno) = self.pairs.add(slot, pair, &mut self.ledger) {
            drop(self.ledger.handles.release(slot));
            return Err(AddError::Kernel(errno));
        }
        Ok(handle)
    }

    /// Why a stream over a queue pair broke, if it did; until its handle is removed.
    pub fn pair_trouble(&self, handle: Handle) -> Option<&str> {
        self.pairs.trouble(self.ledger.handles.slot_of(handle)?)
    }

    /// Gives a descriptor up: what is in flight on it is cancelled and still completes (`ECANCELED`, or its result when
    /// it was faster); then the descriptor closes. The handle is invalid from now on.
    pub fn remove(&mut self, handle: Handle) {
        self.ledger.remove_handle(handle);
    }

    /// The descriptor of a handle, for socket options and the like; `None` after `remove`.
    pub fn fd(&self, handle: Handle) -> Option<BorrowedFd<'_>> {
        let slot = self.ledger.handles.slot_of(handle)?;
        self.ledger.handles.fd(slot).map(AsFd::as_fd)
    }

    /// The large buffers. The caller keeps the book of which are free.
    pub fn large(&self) -> impl Iterator<Item = BufferId> + use<> {
        self.ledger.pool.large()
    }

    /// The small buffers.
    pub fn small(&self) -> impl Iterator<Item = BufferId> + use<> {
        self.ledger.pool.small()
    }

    /// Size of a buffer in bytes. Panics for a buffer of another proactor.
    pub fn capacity_bytes(&self, buffer: BufferId) -> u32 {
        self.ledger.pool.capacity_bytes(buffer)
    }

    /// The bytes of a span. Panics while an operation writes its buffer.
    pub fn bytes(&self, span: Span) -> &[u8] {
        self.ledger.pool.bytes(span)
    }

    /// The bytes of a span, to be changed. Panics while an operation uses its buffer.
    pub fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        self.ledger.pool.bytes_mut(span)
    }

    /// Two spans of different buffers, to compute one from the other. Panics as `bytes` and `bytes_mut` do.
    pub fn pair(&mut self, read: Span, write: Span) -> (&[u8], &mut [u8]) {
        self.ledger.pool.pair(read, write)
    }

    /// Two spans of different buffers, both to be changed. Panics as `bytes_mut` does.
    pub fn pair_mut(&mut self, first: Span, second: Span) -> (&mut [u8], &mut [u8]) {
        self.ledger.pool.pair_mut(first, second)
    }

    /// Receives some bytes (0: end of stream). Receptions of one handle are done in order.
    ///
    /// As with every operation: panics when another one uses the buffer, and an empty span completes at once with 0.
    pub fn recv(&mut self, handle: Handle, span: Span, token: u64) {
        self.ledger.begin(Kind::Recv, handle, 0, span, token);
    }

    /// Receives the whole span; less only at the end of the stream.
    pub fn recv_all(&mut self, handle: Handle, span: Span, token: u64) {
        self.ledger.begin(Kind::RecvAll, handle, 0, span, token);
    }

    /// Sends the whole span and completes when the kernel has taken all of it. Sends of one handle are done in order.
    /// Panics while an operation writes the buffer; several may send from it.
    pub fn send_all(&mut self, handle: Handle, span: Span, token: u64) {
        self.ledger.begin(Kind::SendAll, handle, 0, span, token);
    }

    /// Reads the whole span from a file at `offset`; less only at its end. Not ordered with other operations.
    pub fn read_at(&mut self, handle: Handle, offset: u64, span: Span, token: u64) {
        self.ledger.begin(Kind::ReadAt, handle, offset, span, token);
    }

    /// Writes the whole span to a file at `offset`. Not ordered with other operations.
    pub fn write_at(&mut self, handle: Handle, offset: u64, span: Span, token: u64) {
        self.ledger.begin(Kind::WriteAt, handle, offset, span, token);
    }

    /// Makes a file durable (`fsync`), as far as its writes have completed. Completes with 0.
    pub fn sync(&mut self, handle: Handle, token: u64) {
        let nothing = Span { buffer: BufferId(0), start: 0, length: 0 };
        self.ledger.begin(Kind::Sync, handle, 0, nothing, token);
    }

    /// Cancels every operation with this token and ends a doorbell with this token. They complete with `ECANCELED`, or
    /// with their result when they were faster.
    pub fn cancel(&mut self, token: u64) {
        self.ledger.cancel_token(token);
    }

    /// What other threads use to end this proactor's sleep.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Completes with this token whenever the eventfd is written, until `cancel(token)`. Several writes may become one
    /// completion. Only edges count: the counter is never read, so that whoever holds the other end cannot block us.
    ///
    /// # Errors
    /// When there are too many doorbells; the descriptor is then closed.
    pub fn doorbell(&mut self, fd: OwnedFd, token: u64) -> Result<(), AddError> {
        self.ledger.listen(fd, Ring::Completes(token)).map_err(|_closed| AddError::Full)
    }

    /// Submits what was prepared and appends completions to `out`, at most [`BATCH_MAX`] of them. Sleeps as `wait` says
    /// when there are none; a waker ends the sleep without a completion.
    ///
    /// # Errors
    /// When the kernel fails in a way that turning again will not cure. What is in flight stays in flight.
    pub fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> Result<(), TurnError> {
        let deadline = Deadline::new(wait);
        loop {
            let sleep = deadline.remaining().filter(|_| !self.ledger.has_ready());
            let turned = self.drive(sleep);
            self.close_removed();
            turned?;
            let woken = std::mem::take(&mut self.ledger.woken);
            if self.ledger.has_ready() || woken || deadline.remaining().is_none() {
                break;
            }
        }
        self.ledger.drain_ready(BATCH_MAX, out);
        Ok(())
    }

    /// One round of the backend, with the waker told whether it sleeps.
    fn drive(&mut self, sleep: Option<Duration>) -> Result<(), TurnError> {
        self.pairs.turn(&mut self.ledger, sleep.is_some());
        let sleep = sleep.filter(|_| !self.ledger.has_ready());
        let attention = self.waker.attention();
        let asleep = sleep.is_some() && attention.fall_asleep();
        if sleep.is_some() && !asleep {
            self.ledger.woken = true;
        }
        let sleep = sleep.filter(|_| asleep);
        let turned = match &mut self.driver {
            Driver::Uring(uring) => uring.turn(&mut self.ledger, sleep),
            Driver::Epoll(epoll) => epoll.turn(&mut self.ledger, sleep),
        };
        if asleep && attention.wake_up() {
            self.ledger.woken = true;
        }
        turned
    }

    /// Closes descriptors whose last operation is over.
    fn close_removed(&mut self) {
        while let Some(slot) = self.ledger.next_closing() {
            let paired = self.pairs.remove(slot, &mut self.ledger);
            let Some(entry) = self.ledger.handles.release(slot) else { continue };
            match &mut self.driver {
                _ if paired => {}
                Driver::Uring(uring) => uring.forget(slot, &entry),
                Driver::Epoll(epoll) => epoll.forget(&entry.fd),
            }
        }
    }
}

impl Drop for Proactor {
    /// Cancels everything and waits a bounded time for the kernel to let go of the buffers. Memory that it still uses
    /// then is leaked rather than unmapped.
    fn drop(&mut self) {
        let deadline = Instant::now() + DROP_WAIT_MAX;
        let mut out = Vec::new();
        while self.in_flight() > 0 && Instant::now() < deadline {
            self.ledger.cancel_all();
            if let Err(error) = self.turn(Wait::Until(DROP_TURN), &mut out) {
                tracing::error!(%error, "closing a proactor");
                break;
            }
            out.clear();
        }
        if self.in_flight() > 0 {
            tracing::error!(
                in_flight = self.in_flight(),
                "the kernel still uses the buffers: they are leaked"
            );
            self.ledger.pool.leak();
        }
    }
}

impl fmt::Debug for Proactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Proactor");
        debug.field("features", &self.features.to_string()).field("counters", &self.counters());
        debug.field("in_flight", &self.in_flight()).finish()
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Backend::IoUring => "io_uring",
            Backend::Epoll => "epoll",
        })
    }
}

fn open_driver(options: &Options, pool: &Pool) -> Result<(Driver, Features), OpenError> {
    let refusal = match options.backend {
        BackendChoice::Epoll => "not wanted by the configuration".to_owned(),
        BackendChoice::IoUring | BackendChoice::Auto => {
            let mut features = Features::new(Backend::IoUring);
            match Uring::open(options, pool, &mut features) {
                Ok(uring) => return Ok((Driver::Uring(uring), features)),
                Err(reason) if options.backend == BackendChoice::IoUring => {
                    return Err(OpenError::IoUring { reason });
                }
                Err(reason) => reason,
            }
        }
    };
    let mut features = Features::new(Backend::Epoll);
    features.refused("io_uring", refusal);
    let epoll = Epoll::open(&mut features)
        .map_err(|errno| OpenError::Descriptor { what: "an epoll descriptor", errno })?;
    Ok((Driver::Epoll(epoll), features))
}

/// The number of an operating system error, where a library wraps it.
fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Completions that one turn hands over.
pub const BATCH_MAX: usize = 256;

const DROP_WAIT_MAX: Duration = Duration::from_secs(5);
const DROP_TURN: Duration = Duration::from_millis(50);
