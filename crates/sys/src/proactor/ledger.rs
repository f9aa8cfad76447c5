//! The book of a proactor, the same for both backends: which operation is where, which buffer it holds, what it has
//! done so far, and what is to be told to the caller.
//!
//! A backend takes requests from it, does them, and reports each step. The ledger makes no system call.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::buffers::{Pool, Span};

use super::handles::{Handle, Handles};
use super::operations::{Access, Direction, Key, Kind, Operation, Operations, Stage};
use super::{Completion, Counters, Options};

/// Work for the backend, in order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request {
    /// Start or continue an operation.
    Start(Key),
    /// Stop a running operation.
    Cancel(Key),
    /// Listen to the doorbell in this place.
    Listen(u32),
    /// Stop listening.
    Silence(u32),
}

/// A descriptor that is listened to.
#[derive(Debug)]
pub(super) struct Doorbell {
    pub(super) fd: OwnedFd,
    pub(super) ring: Ring,
    pub(super) silenced: bool,
}

/// What the ring of a doorbell does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    /// The proactor's own waker: it only ends a turn.
    Wakes,
    /// It becomes a completion with this token.
    Completes(u64),
    /// The stream over a queue pair in this slot goes on.
    Pair(u16, Rung),
}

/// What became readable of a stream over a queue pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    /// Its completion channel.
    Events,
    /// The events of its device.
    Alarm,
    /// The TCP connection beside it.
    Line,
}

pub(super) struct Ledger {
    pub(super) pool: Pool,
    pub(super) operations: Operations,
    pub(super) handles: Handles,
    pub(super) counters: Counters,
    /// Whether the waker rang since the last turn.
    pub(super) woken: bool,
    doorbells: Vec<Option<Doorbell>>,
    pending: VecDeque<Request>,
    /// Requests for streams over queue pairs.
    paired: VecDeque<Request>,
    rung: Vec<(u16, Rung)>,
    ready: VecDeque<Completion>,
    closing: Vec<u16>,
}

impl Ledger {
    pub(super) fn new(pool: Pool, options: &Options) -> Ledger {
        let operation_count = options.operation_count_max;
        let handle_count = u16::try_from(options.handle_count_max).unwrap_or(u16::MAX);
        let request_count = 2 * (operation_count as usize + DOORBELL_COUNT_MAX);
        Ledger {
            pool,
            operations: Operations::new(operation_count),
            handles: Handles::new(handle_count),
            counters: Counters::default(),
            woken: false,
            doorbells: Vec::with_capacity(DOORBELL_COUNT_MAX),
            pending: VecDeque::with_capacity(request_count),
            paired: VecDeque::new(),
            rung: Vec::new(),
            ready: VecDeque::with_capacity(request_count),
            closing: Vec::with_capacity(usize::from(handle_count)),
        }
    }

    // ---- what the caller asks for ----

    /// Enters an operation into the book. What cannot begin completes with its error at the next turn.
    pub(super) fn begin(&mut self, kind: Kind, handle: Handle, offset: u64, span: Span, token: u64) {
        let Some(slot) = self.handles.slot_of(handle) else { return self.tell(token, Err(Errno::EBADF)) };
        self.pool.start_of(span);
        if span.length == 0 && kind != Kind::Sync {
            return self.tell(token, Ok(0));
        }
        if self.operations.is_full() {
            self.counters.refused += 1;
            return self.tell(token, Err(Errno::ENOBUFS));
        }
        match kind.access() {
            Access::Reads => self.pool.begin_read(span),
            Access::Writes => self.pool.begin_write(span),
            Access::Nothing => {}
        }
        let key = self.operations.insert(Operation {
            kind,
            stage: Stage::Queued,
            cancelled: false,
            retries: 0,
            slot,
            span,
            done: 0,
            offset,
            token,
            previous: None,
            next: None,
        });
        self.handles.entry(slot).in_flight += 1;
        let first = kind.direction().is_none_or(|direction| self.enqueue(slot, direction, key.index));
        if first {
            self.start(key);
        }
    }

    /// Cancels every operation and doorbell with this token.
    pub(super) fn cancel_token(&mut self, token: u64) {
        self.cancel_where(|operation| operation.token == token);
        for place in 0..self.doorbells.len() as u32 {
            let Some(doorbell) = self.doorbell(place) else { continue };
            if doorbell.ring != Ring::Completes(token) || doorbell.silenced {
                continue;
            }
            doorbell.silenced = true;
            self.pending.push_back(Request::Silence(place));
        }
    }

    /// Stops listening to what belongs to a stream over a queue pair.
    pub(super) fn silence_pair(&mut self, slot: u16) {
        self.rung.retain(|(rung, _)| *rung != slot);
        for place in 0..self.doorbells.len() as u32 {
            let Some(doorbell) = self.doorbell(place) else { continue };
            if !matches!(doorbell.ring, Ring::Pair(own, _) if own == slot) || doorbell.silenced {
                continue;
            }
            doorbell.silenced = true;
            self.pending.push_back(Request::Silence(place));
        }
    }

    /// Takes a handle away from the caller; its slot is released after the last operation.
    pub(super) fn remove_handle(&mut self, handle: Handle) {
        let Some(slot) = self.handles.slot_of(handle) else { return };
        let entry = self.handles.entry(slot);
        entry.removed = true;
        if entry.in_flight == 0 {
            self.closing.push(slot);
            return;
        }
        self.cancel_where(|operation| operation.slot == slot);
    }

    /// Cancels everything, again if it was cancelled before (used while the proactor goes down).
    pub(super) fn cancel_all(&mut self) {
        let mut from = 0;
        while let Some(key) = self.operations.find(from, |operation| operation.cancelled) {
            from = key.index + 1;
            self.request(key, Request::Cancel(key));
        }
        self.cancel_where(|_| true);
    }

    /// Listens to a descriptor; gives it back when there are too many.
    pub(super) fn listen(&mut self, fd: OwnedFd, ring: Ring) -> Result<(), Doorbell> {
        let doorbell = Doorbell { fd, ring, silenced: false };
        let free = self.doorbells.iter().position(Option::is_none);
        let place = free.unwrap_or(self.doorbells.len());
        if place >= DOORBELL_COUNT_MAX {
            return Err(doorbell);
        }
        if place == self.doorbells.len() {
            self.doorbells.push(None);
        }
        self.doorbells[place] = Some(doorbell);
        self.pending.push_back(Request::Listen(place as u32));
        Ok(())
    }

    // ---- what the backend does and reports ----

    pub(super) fn next_request(&mut self) -> Option<Request> {
        self.pending.pop_front()
    }

    /// Puts back a request for which the kernel had no room.
    pub(super) fn put_back(&mut self, request: Request) {
        self.pending.push_front(request);
    }

    pub(super) fn request_later(&mut self, request: Request) {
        self.pending.push_back(request);
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next request for a stream over a queue pair.
    pub(super) fn next_paired(&mut self) -> Option<Request> {
        self.paired.pop_front()
    }

    pub(super) fn has_paired(&self) -> bool {
        !self.paired.is_empty()
    }

    /// What rang of streams over queue pairs.
    pub(super) fn take_rung(&mut self) -> Vec<(u16, Rung)> {
        std::mem::take(&mut self.rung)
    }

    /// A backend made one step of an operation: so many bytes, or an error. Completes it or asks for the next step.
    pub(super) fn step(&mut self, key: Key, result: Result<u32, Errno>) {
        let Some(operation) = self.operations.at(key) else { return };
        let count = match result {
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN)
                if operation.retries < RETRY_COUNT_MAX && !operation.cancelled =>
            {
                operation.retries += 1;
                return self.start(key);
            }
            Err(Errno::EINTR | Errno::EAGAIN) if operation.cancelled => {
                return self.finish(key, Err(Errno::ECANCELED));
            }
            Err(errno) => return self.finish(key, Err(errno)),
        };
        operation.retries = 0;
        operation.done = operation.done.saturating_add(count).min(operation.span.length);
        let (done, whole) = (operation.done, operation.done == operation.span.length);
        match operation.kind {
            Kind::Sync => self.finish(key, Ok(0)),
            Kind::Recv => self.finish(key, Ok(done)),
            _ if whole => self.finish(key, Ok(done)),
            Kind::RecvAll | Kind::ReadAt if count == 0 => self.finish(key, Ok(done)),
            Kind::SendAll | Kind::WriteAt if count == 0 => self.finish(key, Err(Errno::EIO)),
            Kind::RecvAll | Kind::ReadAt | Kind::SendAll | Kind::WriteAt if operation.cancelled => {
                self.finish(key, Err(Errno::ECANCELED));
            }
            Kind::RecvAll | Kind::ReadAt | Kind::SendAll | Kind::WriteAt => self.start(key),
        }
    }

    /// The first operation of a queue goes on, if it was waiting for readiness.
    pub(super) fn resume(&mut self, slot: u16, direction: Direction) {
        if self.handles.fd(slot).is_none() || self.handles.entry(slot).paired {
            return;
        }
        let Some(head) = self.handles.entry(slot).queue(direction).head else { return };
        let key = self.operations.key_of(head);
        if self.operations.neighbour(head).stage == Stage::Running {
            self.start(key);
        }
    }

    /// An operation is over.
    pub(super) fn finish(&mut self, key: Key, result: Result<u32, Errno>) {
        let Some(operation) = self.operations.remove(key) else { return };
        match operation.kind.access() {
            Access::Reads => self.pool.end_read(operation.span),
            Access::Writes => self.pool.end_write(operation.span),
            Access::Nothing => {}
        }
        self.tell(operation.token, result);
        if let Some(direction) = operation.kind.direction() {
            self.unlink(&operation, direction);
        }
        let entry = self.handles.entry(operation.slot);
        entry.in_flight -= 1;
        if entry.removed && entry.in_flight == 0 {
            self.closing.push(operation.slot);
        }
    }

    pub(super) fn doorbell(&mut self, place: u32) -> Option<&mut Doorbell> {
        self.doorbells.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn doorbell_fd(&self, place: u32) -> Option<&OwnedFd> {
        self.doorbells.get(place as usize)?.as_ref().map(|doorbell| &doorbell.fd)
    }

    /// A doorbell rang.
    pub(super) fn ring(&mut self, place: u32) {
        let Some(doorbell) = self.doorbell(place) else { return };
        match doorbell.ring {
            Ring::Wakes => self.woken = true,
            Ring::Completes(token) => self.tell(token, Ok(1)),
            Ring::Pair(slot, rung) => {
                if !self.rung.contains(&(slot, rung)) {
                    self.rung.push((slot, rung));
                }
            }
        }
    }

    /// A doorbell is over: silenced or broken.
    pub(super) fn end_doorbell(&mut self, place: u32, errno: Errno) {
        let Some(doorbell) = self.doorbells.get_mut(place as usize).and_then(Option::take) else { return };
        if let Ring::Completes(token) = doorbell.ring {
            self.tell(token, Err(errno));
        }
    }

    /// A slot whose handle was removed and whose last operation is over.
    pub(super) fn next_closing(&mut self) -> Option<u16> {
        self.closing.pop()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Hands at most `limit` completions to the caller.
    pub(super) fn drain_ready(&mut self, limit: usize, out: &mut Vec<Completion>) {
        let count = self.ready.len().min(limit);
        self.counters.completions += count as u64;
        out.extend(self.ready.drain(..count));
    }

    // ---- inside ----

    fn tell(&mut self, token: u64, result: Result<u32, Errno>) {
        self.ready.push_back(Completion { token, result });
    }

    fn start(&mut self, key: Key) {
        let Some(operation) = self.operations.at(key) else { return };
        operation.stage = Stage::Pending;
        self.request(key, Request::Start(key));
    }

    /// Puts a request where its operation is done: at the backend, or at the streams over queue pairs.
    fn request(&mut self, key: Key, request: Request) {
        let Some(operation) = self.operations.at(key) else { return };
        if self.handles.entry(operation.slot).paired {
            return self.paired.push_back(request);
        }
        self.pending.push_back(request);
    }

    fn cancel_where(&mut self, matches: impl Fn(&Operation) -> bool) {
        let mut from = 0;
        while let Some(key) =
            self.operations.find(from, |operation| !operation.cancelled && matches(operation))
        {
            from = key.index;
            self.cancel(key);
        }
    }

    fn cancel(&mut self, key: Key) {
        let Some(operation) = self.operations.at(key) else { return };
        operation.cancelled = true;
        match operation.stage {
            Stage::Queued | Stage::Pending => self.finish(key, Err(Errno::ECANCELED)),
            Stage::Running => self.request(key, Request::Cancel(key)),
        }
    }

    /// Appends to a queue; says whether the operation is first.
    fn enqueue(&mut self, slot: u16, direction: Direction, index: u32) -> bool {
        let queue = self.handles.entry(slot).queue(direction);
        let Some(tail) = queue.tail.replace(index) else {
            queue.head = Some(index);
            return true;
        };
        self.operations.neighbour(tail).next = Some(index);
        self.operations.neighbour(index).previous = Some(tail);
        false
    }

    /// Takes a finished operation out of its queue and starts the one behind it, if it was first.
    fn unlink(&mut self, operation: &Operation, direction: Direction) {
        let queue = self.handles.entry(operation.slot).queue(direction);
        if operation.previous.is_none() {
            queue.head = operation.next;
        }
        if operation.next.is_none() {
            queue.tail = operation.previous;
        }
        if let Some(previous) = operation.previous {
            self.operations.neighbour(previous).next = operation.next;
        }
        let Some(next) = operation.next else { return };
        self.operations.neighbour(next).previous = operation.previous;
        if operation.previous.is_none() {
            self.start(self.operations.key_of(next));
        }
    }
}

/// Descriptors that one proactor listens to: its waker, the command ring, three for each lane over a queue pair (as many
/// lanes as a worker may have), and some to spare.
pub(super) const DOORBELL_COUNT_MAX: usize = 3 * 512 + 64;
/// Interruptions without progress after which an operation fails with what the kernel said.
const RETRY_COUNT_MAX: u8 = 16;
