//! Streams over queue pairs: the operations of a socket (receive some, receive all, send all), done by RDMA writes.
//!
//! A send is written out of its buffer, piece by piece, into free slots of the other end, and is over when the other
//! end's device has all of it: until then the ledger holds the buffer. A reception is copied out of our slots. The
//! completion queues are polled in every turn; they are armed only before a sleep, so that a busy thread takes no
//! interrupts. The TCP connection that the ends have met on carries nothing more: when it ends, the stream does.
//!
//! Only the proactor drives it.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd};

use dwcp_abi::wire::rdma::Immediate;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::ledger::{Ledger, Request, Ring, Rung};
use super::operations::{Key, Kind, Stage};
use crate::rdma::slots::{Inbox, Window};
use crate::rdma::{Done, Lent, QueuePair, Shape, Verbs};

/// The streams of one proactor, by slot of the handle.
#[derive(Default)]
pub(super) struct Pairs {
    streams: HashMap<u16, Stream>,
    lent: Vec<Lent>,
    done: Vec<Done>,
}

impl Pairs {
    /// Takes a pair in whose TCP connection has this slot, and listens to it.
    pub(super) fn add(&mut self, slot: u16, pair: QueuePair, ledger: &mut Ledger) -> Result<(), Errno> {
        let QueuePair(mut verbs) = pair;
        verbs.lend(ledger.pool.mapping(), &mut self.lent)?;
        let line = ledger.handles.fd(slot).ok_or(Errno::EBADF)?.try_clone();
        let line = line.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let bells = [(verbs.events()?, Rung::Events), (verbs.alarms()?, Rung::Alarm), (line, Rung::Line)];
        for (fd, rung) in bells {
            let ring = Ring::Pair(slot, rung);
            if ledger.listen(fd, ring).is_err() {
                ledger.silence_pair(slot);
                return Err(Errno::ENOBUFS);
            }
        }
        ledger.handles.entry(slot).paired = true;
        self.streams.insert(slot, Stream::new(verbs));
        Ok(())
    }

    /// Whether the slot is a stream's, which is forgotten.
    pub(super) fn remove(&mut self, slot: u16, ledger: &mut Ledger) -> bool {
        let known = self.streams.remove(&slot).is_some();
        if known {
            ledger.silence_pair(slot);
        }
        known
    }

    /// Why a stream came to an untimely end.
    pub(super) fn trouble(&self, slot: u16) -> Option<&str> {
        self.streams.get(&slot)?.trouble.as_deref()
    }

    /// Does what was asked for and what has become possible. Before a sleep every queue is armed.
    pub(super) fn turn(&mut self, ledger: &mut Ledger, before_sleep: bool) {
        if self.streams.is_empty() {
            return;
        }
        for (slot, rung) in ledger.take_rung() {
            let Some(stream) = self.streams.get_mut(&slot) else { continue };
            match rung {
                Rung::Events => stream.take_events(),
                Rung::Alarm => stream.alarmed(ledger),
                Rung::Line => stream.look_at_line(ledger, slot),
            }
        }
        loop {
            while let Some(request) = ledger.next_paired() {
                self.perform(ledger, request);
            }
            for (&slot, stream) in &mut self.streams {
                stream.go_on(ledger, slot, &mut self.done);
                if before_sleep && !ledger.has_ready() && stream.arm(ledger) {
                    stream.go_on(ledger, slot, &mut self.done);
                }
            }
            if !ledger.has_paired() {
                return;
            }
        }
    }

    fn perform(&mut self, ledger: &mut Ledger, request: Request) {
        let (Request::Start(key) | Request::Cancel(key)) = request else { return };
        let Some(operation) = ledger.operations.at(key) else { return };
        let slot = operation.slot;
        let Some(stream) = self.streams.get_mut(&slot) else {
            return ledger.finish(key, Err(Errno::EBADF));
        };
        match request {
            Request::Start(_) if operation.stage == Stage::Pending => {
                operation.stage = Stage::Running;
                let (kind, length) = (operation.kind, operation.span.length);
                stream.start(ledger, key, kind, length);
            }
            Request::Cancel(_) => stream.cancel(ledger, key),
            Request::Start(_) | Request::Listen(_) | Request::Silence(_) => {}
        }
    }
}

/// One stream.
struct Stream {
    /// None once it is broken or over: then no device touches the buffers.
    verbs: Option<Box<dyn Verbs>>,
    writes_max: usize,
    window: Window,
    inbox: Inbox,
    receiving: Option<Key>,
    sending: Option<Sending>,
    /// Writes under way, oldest first.
    flying: VecDeque<Flying>,
    armed: bool,
    /// The other end has closed the connection.
    ended: bool,
    trouble: Option<String>,
}

struct Sending {
    key: Key,
    length: u32,
    written: u32,
    confirmed: u32,
}

enum Flying {
    Data(u32),
    Word,
}

impl Stream {
    fn new(verbs: Box<dyn Verbs>) -> Self {
        let Shape { own_slots, own_slot_bytes, their_slots, their_slot_bytes, writes_max } = verbs.shape();
        Self {
            verbs: Some(verbs),
            writes_max: writes_max as usize,
            window: Window::new(their_slots, their_slot_bytes),
            inbox: Inbox::new(own_slots, own_slot_bytes),
            receiving: None,
            sending: None,
            flying: VecDeque::with_capacity(writes_max as usize),
            armed: false,
            ended: false,
            trouble: None,
        }
    }

    fn start(&mut self, ledger: &mut Ledger, key: Key, kind: Kind, length: u32) {
        if self.verbs.is_none() {
            return ledger.finish(key, Err(Errno::ECONNABORTED));
        }
        match kind {
            Kind::Recv | Kind::RecvAll => self.receiving = Some(key),
            Kind::SendAll => self.sending = Some(Sending { key, length, written: 0, confirmed: 0 }),
            Kind::ReadAt | Kind::WriteAt | Kind::Sync => ledger.finish(key, Err(Errno::ESPIPE)),
        }
    }

    /// A send whose bytes may be on their way can only be cancelled with the whole stream.
    fn cancel(&mut self, ledger: &mut Ledger, key: Key) {
        if self.receiving == Some(key) {
            self.receiving = None;
            return ledger.finish(key, Err(Errno::ECANCELED));
        }
        if self.sending.as_ref().is_some_and(|sending| sending.key == key) {
            self.verbs = None;
            self.finish_all(ledger, Errno::ECANCELED);
        }
    }

    fn take_events(&mut self) {
        self.armed = false;
        if let Some(verbs) = &mut self.verbs {
            verbs.take_events();
        }
    }

    fn alarmed(&mut self, ledger: &mut Ledger) {
        if let Some(why) = self.verbs.as_mut().and_then(|verbs| verbs.alarmed()) {
            self.fail(ledger, why);
        }
    }

    /// The connection beside the pair became readable: it ended, or says what it may not.
    fn look_at_line(&mut self, ledger: &mut Ledger, slot: u16) {
        match ledger.handles.fd(slot).map(line_state) {
            Some(Line::Open) | None => {}
            Some(Line::Ended) => self.ended = true,
            Some(Line::Talks) => self.fail(ledger, "bytes came over TCP beside the queue pair".to_owned()),
        }
    }

    /// True where it was not armed before.
    fn arm(&mut self, ledger: &mut Ledger) -> bool {
        let Some(verbs) = self.verbs.as_mut().filter(|_| !self.armed) else { return false };
        match verbs.arm() {
            Ok(()) => self.armed = true,
            Err(errno) => self.fail(ledger, format!("its events cannot be asked for: {}", errno.desc())),
        }
        true
    }

    fn go_on(&mut self, ledger: &mut Ledger, slot: u16, done: &mut Vec<Done>) {
        let Some(verbs) = &mut self.verbs else { return };
        verbs.poll(done);
        for done in done.drain(..) {
            if let Err(why) = self.happened(ledger, done) {
                // Who closes the connection takes the pair away with it: that is an end, not a failure.
                self.look_at_line(ledger, slot);
                if self.ended {
                    break;
                }
                return self.fail(ledger, why);
            }
        }
        self.deliver(ledger);
        if self.ended {
            return self.end(ledger);
        }
        if let Err(errno) = self.write(ledger) {
            self.fail(ledger, format!("a write was refused: {}", errno.desc()));
        }
    }

    fn happened(&mut self, ledger: &mut Ledger, done: Done) -> Result<(), String> {
        match done {
            Done::Written => self.confirmed(ledger),
            Done::Received { immediate, bytes } => match Immediate::from_bits(immediate) {
                Immediate::Data { slot, length } => {
                    self.inbox.arrived(slot, length, bytes).map_err(|breach| breach.to_string())?;
                }
                Immediate::Returned { total } => {
                    self.window.give_back(total).map_err(|breach| breach.to_string())?;
                }
            },
            Done::Broken(why) => return Err(why),
        }
        Ok(())
    }

    fn confirmed(&mut self, ledger: &mut Ledger) {
        let Some(Flying::Data(length)) = self.flying.pop_front() else { return };
        let Some(sending) = &mut self.sending else { return };
        sending.confirmed += length;
        if sending.confirmed == sending.length {
            let (key, length) = (sending.key, sending.length);
            self.sending = None;
            ledger.step(key, Ok(length));
        }
    }

    /// Copies what has arrived to where it is waited for.
    fn deliver(&mut self, ledger: &mut Ledger) {
        let (Some(verbs), Some(key)) = (&self.verbs, self.receiving) else { return };
        let Some(operation) = ledger.operations.at(key) else { return };
        let rest = operation.rest();
        let room = ledger.pool.held_bytes_mut(rest);
        let mut filled = 0;
        while let Some(part) = self.inbox.front() {
            let length = part.length.min(rest.length - filled);
            if length == 0 {
                break;
            }
            let to = &mut room[filled as usize..(filled + length) as usize];
            verbs.copy_out(part.slot, part.start, to);
            self.inbox.take(length);
            filled += length;
        }
        if filled > 0 {
            self.receiving = None;
            // What is missing is asked for again by the ledger.
            ledger.step(key, Ok(filled));
        }
    }

    /// Gives slots back and fills the other end's, as far as both ends have room.
    fn write(&mut self, ledger: &mut Ledger) -> Result<(), Errno> {
        let Some(verbs) = &mut self.verbs else { return Ok(()) };
        if self.flying.len() < self.writes_max
            && let Some(total) = self.inbox.owes()
        {
            verbs.write(0, 0, 0, Immediate::Returned { total }.to_bits())?;
            self.inbox.announce();
            self.flying.push_back(Flying::Word);
        }
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let Some(operation) = ledger.operations.at(sending.key) else { return Ok(()) };
        let start = ledger.pool.offset_bytes(operation.span);
        // One place is kept for a word: both ends could wait for it.
        while self.flying.len() + 1 < self.writes_max
            && let Some(piece) = self.window.take(sending.length - sending.written)
        {
            let immediate = Immediate::Data { slot: piece.slot, length: piece.length }.to_bits();
            verbs.write(start + sending.written as usize, piece.length, piece.slot, immediate)?;
            sending.written += piece.length;
            self.flying.push_back(Flying::Data(piece.length));
        }
        Ok(())
    }

    /// The other end has closed: what it wrote before is delivered first.
    fn end(&mut self, ledger: &mut Ledger) {
        if let Some(sending) = &self.sending {
            let key = sending.key;
            self.verbs = None;
            self.sending = None;
            ledger.finish(key, Err(Errno::EPIPE));
        }
        if self.verbs.is_some() && self.inbox.front().is_some() {
            return;
        }
        if let Some(key) = self.receiving.take() {
            ledger.step(key, Ok(0));
        }
    }

    fn fail(&mut self, ledger: &mut Ledger, why: String) {
        tracing::warn!(why, "a queue pair broke");
        self.trouble.get_or_insert(why);
        self.verbs = None;
        self.finish_all(ledger, Errno::ECONNABORTED);
    }

    fn finish_all(&mut self, ledger: &mut Ledger, errno: Errno) {
        let sending = self.sending.take().map(|sending| sending.key);
        for key in self.receiving.take().into_iter().chain(sending) {
            ledger.finish(key, Err(errno));
        }
    }
}

/// How a connection stands on which nothing is to be said.
enum Line {
    Open,
    Ended,
    Talks,
}

fn line_state(fd: &OwnedFd) -> Line {
    let mut byte = [0];
    match recv(fd.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        Ok(0) => Line::Ended,
        Ok(_) => Line::Talks,
        Err(Errno::EAGAIN | Errno::EINTR) => Line::Open,
        Err(_) => Line::Ended,
    }
}

#[cfg(all(test, not(loom)))]
#[path = "paired_tests.rs"]
mod tests;
