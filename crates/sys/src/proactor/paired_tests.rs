//! Streams over queue pairs, against pairs in memory: a write is a copy, and the test says when it is confirmed.
#![expect(unsafe_code, reason = "a device reads lent memory by its address")]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::buffers::Mapping;
use crate::proactor::{BackendChoice, BufferId, Completion, Handle, Options, Proactor, Span, Wait};
use crate::rdma::{Done, Lent, QueuePair, Shape, Verbs};

const SLOTS: u16 = 4;
const SLOT_BYTES: u32 = 4096;

/// What one end's device knows.
#[derive(Default)]
struct End {
    slots: Vec<u8>,
    done: Vec<Done>,
    unconfirmed: usize,
    /// Writes wait for the test to confirm them.
    holds: bool,
    armed: bool,
    event: Option<EventFd>,
    is_gone: bool,
}

impl End {
    fn happens(&mut self, done: Done) {
        self.done.push(done);
        if std::mem::take(&mut self.armed) {
            self.event.as_ref().unwrap().write(1).unwrap();
        }
    }
}

type Wire = Arc<Mutex<[End; 2]>>;

struct Memory {
    wire: Wire,
    own: usize,
    /// Address of the lent memory.
    lent: usize,
}

impl Verbs for Memory {
    fn shape(&self) -> Shape {
        Shape {
            own_slots: SLOTS,
            own_slot_bytes: SLOT_BYTES,
            their_slots: SLOTS,
            their_slot_bytes: SLOT_BYTES,
            writes_max: 6,
        }
    }

    fn lend(&mut self, memory: &Mapping, _lent: &mut Vec<Lent>) -> Result<(), Errno> {
        self.lent = memory.start() as usize;
        Ok(())
    }

    fn write(&mut self, offset: usize, length: u32, slot: u16, immediate: u32) -> Result<(), Errno> {
        let mut ends = self.wire.lock().unwrap();
        let start = (self.lent + offset) as *const u8;
        // SAFETY: the proactor holds the buffer and outlives the pair.
        let bytes = unsafe { std::slice::from_raw_parts(start, length as usize) };
        let at = usize::from(slot) * SLOT_BYTES as usize;
        let other = &mut ends[1 - self.own];
        other.slots[at..at + bytes.len()].copy_from_slice(bytes);
        other.happens(Done::Received { immediate, bytes: length });
        let own = &mut ends[self.own];
        if own.holds {
            own.unconfirmed += 1;
        } else {
            own.happens(Done::Written);
        }
        Ok(())
    }

    fn copy_out(&self, slot: u16, start: u32, to: &mut [u8]) {
        let at = usize::from(slot) * SLOT_BYTES as usize + start as usize;
        to.copy_from_slice(&self.wire.lock().unwrap()[self.own].slots[at..at + to.len()]);
    }

    fn poll(&mut self, out: &mut Vec<Done>) {
        out.append(&mut self.wire.lock().unwrap()[self.own].done);
    }

    fn arm(&mut self) -> Result<(), Errno> {
        self.wire.lock().unwrap()[self.own].armed = true;
        Ok(())
    }

    fn take_events(&mut self) {
        // Nothing to read is nothing new.
        self.wire.lock().unwrap()[self.own].event.as_ref().unwrap().read().ok();
    }

    fn events(&self) -> Result<OwnedFd, Errno> {
        let ends = self.wire.lock().unwrap();
        use std::os::fd::AsFd;
        Ok(ends[self.own].event.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap())
    }

    fn alarms(&self) -> Result<OwnedFd, Errno> {
        Ok(EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?.into())
    }

    fn alarmed(&mut self) -> Option<String> {
        None
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.wire.lock().unwrap()[self.own].is_gone = true;
    }
}

fn wire() -> Wire {
    let end = || End {
        slots: vec![0; usize::from(SLOTS) * SLOT_BYTES as usize],
        event: Some(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()),
        ..End::default()
    };
    Arc::new(Mutex::new([end(), end()]))
}

/// One end: a proactor with a stream.
struct Side {
    proactor: Proactor,
    handle: Handle,
    wire: Wire,
    own: usize,
}

impl Side {
    fn new(wire: &Wire, own: usize, line: UnixStream, backend: BackendChoice) -> Self {
        let options = Options {
            backend,
            large_count: 2,
            large_bytes: 64 << 10,
            small_count: 0,
            small_bytes: 0,
            ..Options::default()
        };
        let mut proactor = Proactor::open(&options).unwrap();
        let pair = QueuePair(Box::new(Memory { wire: Arc::clone(wire), own, lent: 0 }));
        let handle = proactor.add_pair(line.into(), pair).unwrap();
        Self { proactor, handle, wire: Arc::clone(wire), own }
    }

    fn turn(&mut self) -> Vec<Completion> {
        let mut out = Vec::new();
        self.proactor.turn(Wait::Now, &mut out).unwrap();
        out
    }

    /// Turns until something completes: for what comes through the kernel.
    fn wait(&mut self) -> Vec<Completion> {
        let mut out = Vec::new();
        while out.is_empty() {
            self.proactor.turn(Wait::Forever, &mut out).unwrap();
        }
        out
    }

    fn device<T>(&self, act: impl FnOnce(&mut End) -> T) -> T {
        act(&mut self.wire.lock().unwrap()[self.own])
    }
}

/// Both ends, with the connection beside them.
fn sides(backend: BackendChoice) -> (Side, Side) {
    let wire = wire();
    let (one, other) = UnixStream::pair().unwrap();
    (Side::new(&wire, 0, one, backend), Side::new(&wire, 1, other, backend))
}

const BACKENDS: [BackendChoice; 2] = [BackendChoice::Auto, BackendChoice::Epoll];

fn span(buffer: u32, length: u32) -> Span {
    Span { buffer: BufferId(buffer), start: 7, length }
}

fn ok(token: u64, count: u32) -> Completion {
    Completion { token, result: Ok(count) }
}

fn failed(token: u64, errno: Errno) -> Completion {
    Completion { token, result: Err(errno) }
}

#[test]
fn bytes_of_all_sizes_travel_both_ways() {
    for backend in BACKENDS {
        let (mut one, mut other) = sides(backend);
        for (round, length) in [1, 4095, 4096, 4097, 20_000, 60_000, 3, 65_529].into_iter().enumerate() {
            let fill = |at: usize| (at * 7 + round) as u8;
            for (at, byte) in one.proactor.bytes_mut(span(0, length)).iter_mut().enumerate() {
                *byte = fill(at);
            }
            one.proactor.send_all(one.handle, span(0, length), 1);
            other.proactor.recv_all(other.handle, span(1, length), 2);
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            while sent.is_empty() || received.is_empty() {
                sent.extend(one.turn());
                received.extend(other.turn());
            }
            assert_eq!((sent, received), (vec![ok(1, length)], vec![ok(2, length)]));
            let arrived = other.proactor.bytes(span(1, length));
            assert!(arrived.iter().enumerate().all(|(at, &byte)| byte == fill(at)), "{length} bytes");
            std::mem::swap(&mut one, &mut other);
        }
    }
}

#[test]
fn a_reception_of_some_takes_what_is_there_and_no_more() {
    let (mut one, mut other) = sides(BackendChoice::Auto);
    other.proactor.recv(other.handle, span(0, 100), 2);
    assert_eq!(other.turn(), []);
    one.proactor.send_all(one.handle, span(0, 30), 1);
    assert_eq!(one.wait(), [ok(1, 30)]);
    assert_eq!(other.turn(), [ok(2, 30)]);
    one.proactor.send_all(one.handle, span(0, 200), 1);
    assert_eq!(one.wait(), [ok(1, 200)]);
    for (token, count) in [(3, 100), (4, 100)] {
        other.proactor.recv(other.handle, span(0, 100), token);
        assert_eq!(other.turn(), [ok(token, count)]);
    }
}

#[test]
fn a_sender_waits_for_slots_and_holds_its_buffer() {
    let (mut one, mut other) = sides(BackendChoice::Auto);
    one.device(|device| device.holds = true);
    one.proactor.send_all(one.handle, span(0, 6 * SLOT_BYTES), 1);
    assert_eq!(one.turn(), []);
    assert_eq!(one.device(|device| device.unconfirmed), 4, "as many as there are slots");
    other.proactor.recv_all(other.handle, span(0, 6 * SLOT_BYTES), 2);
    assert_eq!(other.turn(), []);
    assert_eq!(one.turn(), []);
    // Six writes may be under way; one of those places is kept for words about slots.
    assert_eq!(one.device(|device| device.unconfirmed), 5);
    one.device(|device| (0..5).for_each(|_| device.done.push(Done::Written)));
    one.device(|device| device.unconfirmed = 0);
    assert_eq!(one.turn(), []);
    assert_eq!(other.turn(), [ok(2, 6 * SLOT_BYTES)]);
    one.device(|device| device.done.push(Done::Written));
    assert_eq!(one.turn(), [ok(1, 6 * SLOT_BYTES)]);
    one.proactor.bytes_mut(span(0, 10)).fill(1);
}

#[test]
fn a_sleeper_hears_of_bytes() {
    for backend in BACKENDS {
        let wire = wire();
        let (line, other_line) = UnixStream::pair().unwrap();
        let mut one = Side::new(&wire, 0, line, backend);
        let sleeper = std::thread::spawn(move || {
            let mut other = Side::new(&wire, 1, other_line, backend);
            (0..50).for_each(|round| {
                other.proactor.recv_all(other.handle, span(0, 5000), round);
                assert_eq!(other.wait(), [ok(round, 5000)]);
            });
        });
        for round in 0..50 {
            one.proactor.send_all(one.handle, span(0, 5000), round);
            assert_eq!(one.wait(), [ok(round, 5000)]);
        }
        sleeper.join().unwrap();
    }
}

#[test]
fn hostile_words_cost_the_stream_and_are_named() {
    let data = |slot: u32, length: u32| slot << 24 | length;
    for (immediate, bytes, words) in [
        (data(1, 5), 5, "slot 1 was filled where slot 0 was due"),
        (data(0, 0), 0, "0 bytes were said"),
        (data(0, 4097), 4097, "4097 bytes were said"),
        (data(0, 5), 6, "5 bytes were announced and 6 written"),
        (1 << 31 | 1, 0, "1 slots were given back"),
        (u32::MAX, 0, "slots were given back"),
    ] {
        let (mut one, _other) = sides(BackendChoice::Auto);
        one.proactor.recv(one.handle, span(0, 100), 1);
        assert_eq!(one.turn(), []);
        one.device(|device| device.done.push(Done::Received { immediate, bytes }));
        assert_eq!(one.turn(), [failed(1, Errno::ECONNABORTED)]);
        let trouble = one.proactor.pair_trouble(one.handle).unwrap_or_default();
        assert!(trouble.contains(words), "{trouble}");
        assert!(one.device(|device| device.is_gone));
    }
}

#[test]
fn a_broken_pair_fails_what_is_under_way_and_what_comes() {
    let (mut one, _other) = sides(BackendChoice::Auto);
    one.device(|device| device.holds = true);
    one.proactor.recv_all(one.handle, span(0, 100), 1);
    one.proactor.send_all(one.handle, span(1, 100), 2);
    assert_eq!(one.turn(), []);
    one.device(|device| device.done.push(Done::Broken("no answer".into())));
    assert_eq!(one.turn(), [failed(1, Errno::ECONNABORTED), failed(2, Errno::ECONNABORTED)]);
    assert_eq!(one.proactor.pair_trouble(one.handle), Some("no answer"));
    one.proactor.send_all(one.handle, span(1, 100), 3);
    assert_eq!(one.turn(), [failed(3, Errno::ECONNABORTED)]);
    one.proactor.remove(one.handle);
    assert_eq!(one.turn(), []);
}

#[test]
fn the_end_of_the_connection_ends_the_stream_after_its_last_bytes() {
    for backend in BACKENDS {
        let wire = wire();
        let (line, far) = UnixStream::pair().unwrap();
        let (other_line, _other_far) = UnixStream::pair().unwrap();
        let mut one = Side::new(&wire, 0, line, backend);
        let mut other = Side::new(&wire, 1, other_line, backend);
        other.proactor.send_all(other.handle, span(0, 100), 1);
        assert_eq!(other.wait(), [ok(1, 100)]);
        drop(far);
        // What broke because the other end went is no trouble.
        one.device(|device| device.done.push(Done::Broken("in the error state".into())));
        one.proactor.recv(one.handle, span(0, 64), 2);
        assert_eq!(one.wait(), [ok(2, 64)]);
        one.proactor.recv_all(one.handle, span(0, 64), 3);
        assert_eq!(one.wait(), [ok(3, 36)]);
        one.proactor.recv(one.handle, span(0, 64), 4);
        assert_eq!(one.wait(), [ok(4, 0)]);
        one.proactor.send_all(one.handle, span(0, 64), 5);
        assert_eq!(one.wait(), [failed(5, Errno::EPIPE)]);
        assert_eq!(one.proactor.pair_trouble(one.handle), None);
    }
}

#[test]
fn bytes_beside_the_pair_cost_the_stream() {
    let wire = wire();
    let (line, mut far) = UnixStream::pair().unwrap();
    let mut one = Side::new(&wire, 0, line, BackendChoice::Auto);
    one.proactor.recv(one.handle, span(0, 64), 1);
    std::io::Write::write_all(&mut far, b"x").unwrap();
    assert_eq!(one.wait(), [failed(1, Errno::ECONNABORTED)]);
    assert!(one.proactor.pair_trouble(one.handle).is_some_and(|trouble| trouble.contains("TCP")));
}

#[test]
fn removing_a_stream_ends_its_writes_before_its_buffers_are_free() {
    let (mut one, _other) = sides(BackendChoice::Auto);
    one.device(|device| device.holds = true);
    one.proactor.recv_all(one.handle, span(1, 100), 1);
    one.proactor.send_all(one.handle, span(0, 100), 2);
    assert_eq!(one.turn(), []);
    one.proactor.remove(one.handle);
    let mut ended = one.turn();
    ended.sort_by_key(|completion| completion.token);
    assert_eq!(ended, [failed(1, Errno::ECANCELED), failed(2, Errno::ECANCELED)]);
    assert!(one.device(|device| device.is_gone));
    one.proactor.bytes_mut(span(0, 100)).fill(1);
    assert_eq!(one.turn(), []);
    // The slot is free for another descriptor.
    let (line, _far) = UnixStream::pair().unwrap();
    one.proactor.add(line.into()).unwrap();
}
