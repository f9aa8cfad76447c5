//! The io_uring backend: requests become submission entries, one `io_uring_enter` per turn, completions become steps.
//!
//! Only the proactor drives it, on the thread that opened it. It keeps no state of an operation: the ledger does.
#![expect(unsafe_code, reason = "submission entries carry addresses of the pool")]

mod enter;
mod probe;
mod user_data;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use self::enter::{RegisteredRing, enter};
use self::user_data::UserData;
use super::handles::Entry;
use super::ledger::{DOORBELL_COUNT_MAX, Ledger, Request};
use super::operations::{Key, Kind, Stage};
use super::{BATCH_MAX, Features, Options, TurnError, errno_of};
use crate::buffers::{Pool, Wish};

pub(super) struct Uring {
    registered: Option<RegisteredRing>,
    ring: IoUring,
    /// Slots under this number can be registered.
    file_count: u32,
    buffers_registered: bool,
}

impl Uring {
    /// Opens a ring with as many features as the kernel grants, and says which; or why there is none.
    pub(super) fn open(options: &Options, pool: &Pool, features: &mut Features) -> Result<Uring, String> {
        let completion_count = options.operation_count_max + 2 * DOORBELL_COUNT_MAX as u32;
        let ring = probe::open_ring(options.entries.max(8), completion_count, features)?;
        let mut uring = Uring { registered: None, ring, file_count: 0, buffers_registered: false };
        match options.registrations {
            Wish::Wanted => uring.register(options, pool, features),
            Wish::Never => {
                for name in ["registered buffers", "registered files", "registered ring fd"] {
                    features.refused(name, "not wanted by the configuration");
                }
            }
        }
        features.refused("SEND_ZC", "plain SEND is as fast from warm buffers, and local links copy anyway");
        Ok(uring)
    }

    fn register(&mut self, options: &Options, pool: &Pool, features: &mut Features) {
        let buffers = probe::register_buffers(&self.ring, pool);
        self.buffers_registered = buffers.is_ok();
        features.record("registered buffers", buffers);
        let files = probe::register_files(&self.ring, options.handle_count_max);
        self.file_count = *files.as_ref().unwrap_or(&0);
        features.record("registered files", files.map(|_| ()));
        match RegisteredRing::register(self.ring.as_raw_fd()) {
            Ok(registered) => {
                self.registered = Some(registered);
                features.used("registered ring fd");
            }
            Err(errno) => features.refused("registered ring fd", errno.desc()),
        }
    }

    /// A descriptor takes a slot. The kernel waits for us, so it must not be non-blocking.
    pub(super) fn admit(&mut self, fd: &OwnedFd) -> Result<(), Errno> {
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
        if flags.contains(OFlag::O_NONBLOCK) {
            fcntl(fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        }
        Ok(())
    }

    /// A slot was released.
    pub(super) fn forget(&mut self, slot: u16, entry: &Entry) {
        if !entry.registered {
            return;
        }
        if let Err(errno) = self.update_file(slot, -1) {
            tracing::warn!(slot, %errno, "cannot take a file out of the ring");
        }
    }

    fn update_file(&self, slot: u16, fd: i32) -> Result<(), Errno> {
        let updated = self.ring.submitter().register_files_update(slot.into(), &[fd]);
        updated.map(|_| ()).map_err(errno_of)
    }

    /// Submits the requests of the ledger and reports completions to it. Sleeps at most `sleep` (`None`: not at all)
    /// when there are none.
    pub(super) fn turn(&mut self, ledger: &mut Ledger, sleep: Option<Duration>) -> Result<(), TurnError> {
        self.prepare(ledger)?;
        let sleep = sleep.filter(|_| self.ring.completion().is_empty());
        let sleep = sleep.filter(|_| !ledger.has_ready() && !ledger.has_requests());
        let entered = self.enter(ledger, sleep);
        self.reap(ledger);
        match entered {
            // A signal, the time-out, or a kernel that has to be drained first: the caller turns again.
            Ok(()) | Err(Errno::EINTR | Errno::ETIME | Errno::EAGAIN | Errno::EBUSY) => Ok(()),
            Err(errno) => Err(TurnError { call: "io_uring_enter", errno }),
        }
    }

    /// Moves requests into the submission queue. A full queue is submitted to make room.
    fn prepare(&mut self, ledger: &mut Ledger) -> Result<(), TurnError> {
        while let Some(request) = ledger.next_request() {
            let Some(entry) = self.entry(ledger, request) else { continue };
            if self.push(&entry) {
                continue;
            }
            ledger.counters.queue_full += 1;
            match self.enter(ledger, None) {
                Ok(()) | Err(Errno::EINTR | Errno::EAGAIN | Errno::EBUSY) => {}
                Err(errno) => return Err(TurnError { call: "io_uring_enter", errno }),
            }
            if !self.push(&entry) {
                // The kernel is out of room until its completions are taken. The request is still the ledger's.
                if let Request::Start(key) = request
                    && let Some(operation) = ledger.operations.at(key)
                {
                    operation.stage = Stage::Pending;
                }
                ledger.put_back(request);
                return Ok(());
            }
        }
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> bool {
        let mut queue = self.ring.submission();
        // SAFETY: every address in an entry lies in the pool. The ledger holds that buffer for the operation until its
        // completion was reaped, and the proactor unmaps the pool only when nothing is in flight.
        unsafe { queue.push(entry) }.is_ok()
    }

    /// One system call, or none when there is nothing to submit, to wait for or to collect.
    fn enter(&mut self, ledger: &mut Ledger, sleep: Option<Duration>) -> Result<(), Errno> {
        let mut queue = self.ring.submission();
        queue.sync();
        let submit_count = queue.len() as u32;
        let collect = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if submit_count == 0 && sleep.is_none() && !collect {
            return Ok(());
        }
        ledger.counters.submissions += 1;
        enter(self.ring.as_raw_fd(), self.registered.as_ref(), submit_count, sleep)
    }

    fn entry(&self, ledger: &mut Ledger, request: Request) -> Option<squeue::Entry> {
        match request {
            Request::Start(key) => self.start_entry(ledger, key),
            Request::Cancel(key) => {
                ledger.operations.at(key)?;
                let target = UserData::Operation(key).encode();
                Some(opcode::AsyncCancel::new(target).build().user_data(UserData::Ignored.encode()))
            }
            Request::Listen(place) => {
                let fd = Fd(ledger.doorbell_fd(place)?.as_raw_fd());
                let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
                Some(poll.user_data(UserData::Doorbell(place).encode()))
            }
            Request::Silence(place) => {
                ledger.doorbell(place)?;
                let target = UserData::Doorbell(place).encode();
                Some(opcode::AsyncCancel::new(target).build().user_data(UserData::Ignored.encode()))
            }
        }
    }

    fn start_entry(&self, ledger: &mut Ledger, key: Key) -> Option<squeue::Entry> {
        let operation = ledger.operations.at(key).filter(|operation| operation.stage == Stage::Pending)?;
        operation.stage = Stage::Running;
        let operation = *operation;
        let (fd, flags) = self.target(ledger, operation.slot);
        let rest = operation.rest();
        let (start, length, offset) = (ledger.pool.start_of(rest), rest.length, operation.rest_offset());
        let entry = match operation.kind {
            Kind::Recv => opcode::Recv::new(fd, start, length).build(),
            Kind::RecvAll => opcode::Recv::new(fd, start, length).flags(libc::MSG_WAITALL).build(),
            Kind::SendAll => opcode::Send::new(fd, start, length).flags(SEND_FLAGS).build(),
            Kind::ReadAt if self.buffers_registered => {
                opcode::ReadFixed::new(fd, start, length, POOL_INDEX).offset(offset).build()
            }
            Kind::ReadAt => opcode::Read::new(fd, start, length).offset(offset).build(),
            Kind::WriteAt if self.buffers_registered => {
                opcode::WriteFixed::new(fd, start, length, POOL_INDEX).offset(offset).build()
            }
            Kind::WriteAt => opcode::Write::new(fd, start, length).offset(offset).build(),
            Kind::Sync => opcode::Fsync::new(fd).build(),
        };
        Some(entry.flags(flags).user_data(UserData::Operation(key).encode()))
    }

    /// The descriptor of a slot as the ring knows it. Registering costs two system calls in the life of a descriptor
    /// and saves a look-up per operation: it is done for those that turn out to be busy, not for every small file.
    fn target(&self, ledger: &mut Ledger, slot: u16) -> (Fd, squeue::Flags) {
        let entry = ledger.handles.entry(slot);
        entry.use_count = entry.use_count.saturating_add(1);
        let fd = entry.fd.as_raw_fd();
        if entry.use_count == BUSY_USE_COUNT && u32::from(slot) < self.file_count {
            match self.update_file(slot, fd) {
                Ok(()) => entry.registered = true,
                Err(errno) => tracing::debug!(slot, %errno, "cannot register a file"),
            }
        }
        if entry.registered {
            return (Fd(slot.into()), squeue::Flags::FIXED_FILE);
        }
        (Fd(fd), squeue::Flags::empty())
    }

    fn reap(&mut self, ledger: &mut Ledger) {
        let room = BATCH_MAX.saturating_sub(ledger.ready_count());
        for completion in self.ring.completion().take(room) {
            let result = match completion.result() {
                negative @ ..0 => Err(Errno::from_raw(-negative)),
                count => Ok(count as u32),
            };
            match UserData::decode(completion.user_data()) {
                UserData::Operation(key) => ledger.step(key, result),
                UserData::Doorbell(place) => {
                    let listening = io_uring::cqueue::more(completion.flags());
                    heard(ledger, place, result, listening);
                }
                UserData::Ignored => {}
            }
        }
    }
}

/// A doorbell's poll reported. Without `listening` it was the last report of this poll.
fn heard(ledger: &mut Ledger, place: u32, result: Result<u32, Errno>, listening: bool) {
    if result.is_ok() {
        ledger.ring(place);
    }
    if listening {
        return;
    }
    let Some(doorbell) = ledger.doorbell(place) else { return };
    match result {
        _ if doorbell.silenced => ledger.end_doorbell(place, Errno::ECANCELED),
        Ok(_) => ledger.request_later(Request::Listen(place)),
        Err(errno) => ledger.end_doorbell(place, errno),
    }
}

/// The kernel retries short sends itself and never raises SIGPIPE.
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// Operations after which a descriptor counts as busy.
const BUSY_USE_COUNT: u32 = 8;
/// The whole pool is one registered buffer.
const POOL_INDEX: u16 = 0;
