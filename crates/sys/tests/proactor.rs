//! Behaviour of the proactor, the same on every backend: io_uring with all registrations, io_uring without any, epoll.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use dwcp_sys::proactor::{
    Backend, BackendChoice, BufferId, Completion, Errno, Handle, OpenError, Options, Proactor, Span, Wait,
    Wish,
};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Runs one test body on every set-up that this host permits.
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod io_uring { $(#[test] fn $name() { super::with(super::Setup::Registered, super::$name); })* }
        mod io_uring_unregistered { $(#[test] fn $name() { super::with(super::Setup::Unregistered, super::$name); })* }
        mod epoll { $(#[test] fn $name() { super::with(super::Setup::Epoll, super::$name); })* }
    };
}

on_every_backend!(
    bulk_both_ways_over_tcp,
    bulk_between_two_proactors,
    operations_of_a_stream_keep_their_order,
    recv_takes_what_is_there,
    recv_all_is_short_at_end_of_stream,
    send_to_a_closed_peer_fails,
    remove_cancels_and_closes,
    removed_handle_is_refused_and_slot_is_reused,
    busy_handles_close_too,
    cancel_by_token,
    cancel_of_queued_operation_leaves_the_first,
    waker_ends_sleep,
    waker_before_sleep_is_not_lost,
    doorbell_rings_again_and_again,
    doorbell_can_be_silenced,
    files_are_written_and_read,
    read_is_short_at_end_of_file,
    sync_completes,
    wrong_kind_of_descriptor_fails,
    empty_spans_complete,
    many_handles,
    more_operations_than_entries,
    too_many_operations_are_refused,
    too_many_handles_are_refused,
    nonblocking_sockets_are_fine,
    turn_times_out,
    drop_with_operations_in_flight,
    written_buffer_cannot_be_read,
    read_buffer_cannot_be_written,
    buffer_is_free_after_completion,
    random_lives,
);

#[derive(Clone, Copy)]
enum Setup {
    Registered,
    Unregistered,
    Epoll,
}

fn options(setup: Setup) -> Options {
    let base = Options {
        entries: 32,
        operation_count_max: 256,
        handle_count_max: 128,
        large_count: 6,
        large_bytes: LARGE_BYTES,
        small_count: 80,
        small_bytes: SMALL_BYTES,
        ..Options::default()
    };
    match setup {
        Setup::Registered => Options { backend: BackendChoice::IoUring, ..base },
        Setup::Unregistered => Options {
            backend: BackendChoice::IoUring,
            registrations: Wish::Never,
            hugepages: Wish::Never,
            ..base
        },
        Setup::Epoll => Options { backend: BackendChoice::Epoll, ..base },
    }
}

fn with(setup: Setup, body: fn(&mut Rig)) {
    let options = options(setup);
    match Proactor::open(&options) {
        Ok(proactor) => body(&mut Rig { proactor, options, early: HashMap::new(), busy: HashMap::new() }),
        Err(OpenError::IoUring { reason }) => println!("skipped: no io_uring here: {reason}"),
        Err(error) => panic!("{error}"),
    }
}

/// A proactor, and the completions that came before somebody asked for them.
struct Rig {
    proactor: Proactor,
    options: Options,
    early: HashMap<u64, Result<u32, Errno>>,
    /// Buffers that operations of `random_lives` hold.
    busy: HashMap<u64, BufferId>,
}

impl Rig {
    fn turn(&mut self, wait: Wait) -> usize {
        let mut out = Vec::new();
        self.proactor.turn(wait, &mut out).expect("turn");
        let count = out.len();
        for Completion { token, result } in out {
            self.busy.remove(&token);
            assert!(self.early.insert(token, result).is_none(), "token {token} completed twice");
        }
        count
    }

    /// Turns until `token` completes.
    fn await_token(&mut self, token: u64) -> Result<u32, Errno> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(result) = self.early.remove(&token) {
                return result;
            }
            assert!(Instant::now() < end, "token {token} never completed: {:?}", self.proactor);
            self.turn(Wait::Until(Duration::from_millis(100)));
        }
    }

    /// Lets the backend do all it can at the moment.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.turn(Wait::Now);
        }
    }

    fn add(&mut self, fd: impl Into<OwnedFd>) -> Handle {
        self.proactor.add(fd.into()).expect("a free slot")
    }

    fn pair(&mut self) -> (Handle, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        (self.add(ours), theirs)
    }

    fn idle_buffer(&self) -> Option<BufferId> {
        self.proactor.small().find(|buffer| !self.busy.values().any(|busy| busy == buffer))
    }

    fn large(&self, index: usize) -> Span {
        let buffer = self.proactor.large().nth(index).expect("a large buffer");
        Span { buffer, start: 0, length: CHUNK_BYTES }
    }

    fn small(&self, index: usize, length: u32) -> Span {
        let buffer = self.proactor.small().nth(index).expect("a small buffer");
        Span { buffer, start: 0, length }
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let ours = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (theirs, _) = listener.accept().expect("accept");
    (ours, theirs)
}

/// Bytes that differ at every offset of every stream.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }

    fn check(&mut self, bytes: &[u8]) {
        let mut expected = vec![0; bytes.len()];
        self.fill(&mut expected);
        assert!(bytes == expected, "the bytes that came are not those that were sent");
    }
}

/// Both ends of one connection in one proactor, 512 KiB at a time in both directions at once.
fn bulk_both_ways_over_tcp(rig: &mut Rig) {
    let (left, right) = tcp_pair();
    let (left, right) = (rig.add(left), rig.add(right));
    let mut sent = [Noise(1), Noise(2)];
    let mut received = [Noise(1), Noise(2)];
    for round in 0..16 {
        let token = round * 4;
        for (side, (from, to)) in [(left, right), (right, left)].into_iter().enumerate() {
            let (source, target) = (rig.large(side), rig.large(2 + side));
            sent[side].fill(rig.proactor.bytes_mut(source));
            rig.proactor.send_all(from, source, token + side as u64);
            rig.proactor.recv_all(to, target, token + 2 + side as u64);
        }
        for side in 0..4 {
            assert_eq!(rig.await_token(token + side), Ok(CHUNK_BYTES));
        }
        for (side, noise) in received.iter_mut().enumerate() {
            noise.check(rig.proactor.bytes(rig.large(2 + side)));
        }
    }
    assert!(rig.proactor.counters().completions == 64 && rig.proactor.counters().submissions > 0);
}

fn bulk_between_two_proactors(rig: &mut Rig) {
    let (ours, theirs) = tcp_pair();
    let options = rig.options.clone();
    let peer = std::thread::spawn(move || {
        let proactor = Proactor::open(&options).expect("as the first one");
        let mut rig = Rig { proactor, options, early: HashMap::new(), busy: HashMap::new() };
        let handle = rig.add(theirs);
        for round in 0..ROUNDS {
            let span = rig.large(round as usize % 2);
            rig.proactor.recv_all(handle, span, round);
            assert_eq!(rig.await_token(round), Ok(CHUNK_BYTES));
            rig.proactor.send_all(handle, span, ROUNDS + round);
            assert_eq!(rig.await_token(ROUNDS + round), Ok(CHUNK_BYTES));
        }
    });
    let handle = rig.add(ours);
    let (mut sent, mut received) = (Noise(3), Noise(3));
    for round in 0..ROUNDS {
        let (source, target) = (rig.large(0), rig.large(1));
        sent.fill(rig.proactor.bytes_mut(source));
        rig.proactor.send_all(handle, source, round);
        rig.proactor.recv_all(handle, target, ROUNDS + round);
        assert_eq!(rig.await_token(round), Ok(CHUNK_BYTES));
        assert_eq!(rig.await_token(ROUNDS + round), Ok(CHUNK_BYTES));
        received.check(rig.proactor.bytes(target));
    }
    peer.join().expect("peer");
}

/// Several sends and receptions at once, far more than the socket's buffers hold: nothing interleaves.
fn operations_of_a_stream_keep_their_order(rig: &mut Rig) {
    let (left, right) = tcp_pair();
    let (left, right) = (rig.add(left), rig.add(right));
    let mut noise = Noise(4);
    for index in 0..3 {
        noise.fill(rig.proactor.bytes_mut(rig.large(index)));
    }
    let mut received = Noise(4);
    for index in 0..3 {
        rig.proactor.send_all(left, rig.large(index), index as u64);
        rig.proactor.recv_all(right, rig.large(3 + index), 3 + index as u64);
    }
    for token in 0..6 {
        assert_eq!(rig.await_token(token), Ok(CHUNK_BYTES));
    }
    for index in 3..6 {
        received.check(rig.proactor.bytes(rig.large(index)));
    }
}

fn recv_takes_what_is_there(rig: &mut Rig) {
    let (handle, mut peer) = rig.pair();
    let span = rig.small(0, 100);
    rig.proactor.recv(handle, span, 1);
    rig.settle();
    peer.write_all(b"hello").expect("write");
    assert_eq!(rig.await_token(1), Ok(5));
    assert_eq!(&rig.proactor.bytes(span)[..5], b"hello");
    drop(peer);
    rig.proactor.recv(handle, span, 2);
    assert_eq!(rig.await_token(2), Ok(0));
}

fn recv_all_is_short_at_end_of_stream(rig: &mut Rig) {
    let (handle, mut peer) = rig.pair();
    let span = rig.small(0, 10);
    rig.proactor.recv_all(handle, span, 1);
    rig.settle();
    peer.write_all(b"ab").expect("write");
    rig.settle();
    peer.write_all(b"cd").expect("write");
    rig.settle();
    assert!(rig.early.is_empty(), "it waits for all bytes");
    drop(peer);
    assert_eq!(rig.await_token(1), Ok(4));
    assert_eq!(&rig.proactor.bytes(span)[..4], b"abcd");
}

fn send_to_a_closed_peer_fails(rig: &mut Rig) {
    let (handle, peer) = rig.pair();
    drop(peer);
    rig.proactor.send_all(handle, rig.small(0, 10), 1);
    assert_eq!(rig.await_token(1), Err(Errno::EPIPE));
}

fn remove_cancels_and_closes(rig: &mut Rig) {
    let (handle, mut peer) = rig.pair();
    let spans = [rig.small(0, 10), rig.small(1, 10), rig.large(0)];
    rig.proactor.recv(handle, spans[0], 1);
    rig.proactor.recv_all(handle, spans[1], 2);
    rig.settle();
    rig.proactor.remove(handle);
    assert!(rig.proactor.fd(handle).is_none());
    assert_eq!(rig.await_token(1), Err(Errno::ECANCELED));
    assert_eq!(rig.await_token(2), Err(Errno::ECANCELED));
    assert_eq!(rig.proactor.in_flight(), 0);
    rig.settle();
    peer.set_read_timeout(Some(PATIENCE)).expect("time-out");
    assert_eq!(peer.read(&mut [0; 8]).expect("end of stream"), 0, "the descriptor is closed");
    rig.proactor.bytes_mut(spans[0]).fill(1);
}

fn removed_handle_is_refused_and_slot_is_reused(rig: &mut Rig) {
    let mut seen = Vec::new();
    for round in 0..300u64 {
        let (handle, mut peer) = rig.pair();
        assert!(!seen.contains(&handle), "a stale handle came back to life");
        seen.push(handle);
        let span = rig.small(round as usize % 8, 4);
        rig.proactor.recv_all(handle, span, round);
        match round % 3 {
            0 => rig.settle(),
            1 => peer.write_all(b"abcd").expect("write"),
            _ => {}
        }
        rig.proactor.remove(handle);
        rig.proactor.recv(handle, rig.small(9, 4), 1000 + round);
        let result = rig.await_token(round);
        assert!(matches!(result, Ok(4) | Err(Errno::ECANCELED)), "{result:?}");
        assert_eq!(rig.await_token(1000 + round), Err(Errno::EBADF));
    }
}

/// A busy descriptor is registered with the ring; giving it up closes it all the same.
fn busy_handles_close_too(rig: &mut Rig) {
    for round in 0..5 {
        let (handle, mut peer) = rig.pair();
        let span = rig.small(0, 4);
        for token in 0..50 {
            peer.write_all(b"ping").expect("write");
            rig.proactor.recv_all(handle, span, token);
            assert_eq!(rig.await_token(token), Ok(4));
        }
        if round % 2 == 0 {
            rig.proactor.recv_all(handle, span, 99);
            rig.settle();
        }
        rig.proactor.remove(handle);
        if round % 2 == 0 {
            assert_eq!(rig.await_token(99), Err(Errno::ECANCELED));
        }
        rig.settle();
        peer.set_read_timeout(Some(PATIENCE)).expect("time-out");
        assert_eq!(peer.read(&mut [0; 8]).expect("end of stream"), 0);
    }
}

fn cancel_by_token(rig: &mut Rig) {
    let (handle, mut peer) = rig.pair();
    let span = rig.small(0, 10);
    rig.proactor.recv_all(handle, span, 7);
    rig.settle();
    peer.write_all(b"part").expect("write");
    rig.settle();
    rig.proactor.cancel(7);
    rig.proactor.cancel(8);
    assert_eq!(rig.await_token(7), Err(Errno::ECANCELED));
    peer.write_all(b"more").expect("write");
    rig.proactor.recv(handle, span, 9);
    let count = rig.await_token(9).expect("the handle lives on");
    assert!(count >= 4);
}

fn cancel_of_queued_operation_leaves_the_first(rig: &mut Rig) {
    let (handle, mut peer) = rig.pair();
    let spans = [rig.small(0, 2), rig.small(1, 2), rig.small(2, 2)];
    for (index, span) in spans.into_iter().enumerate() {
        rig.proactor.recv_all(handle, span, index as u64);
    }
    rig.settle();
    rig.proactor.cancel(1);
    assert_eq!(rig.await_token(1), Err(Errno::ECANCELED));
    peer.write_all(b"aabb").expect("write");
    assert_eq!(rig.await_token(0), Ok(2));
    assert_eq!(rig.await_token(2), Ok(2));
    assert_eq!(rig.proactor.bytes(spans[2]), b"bb");
}

fn waker_ends_sleep(rig: &mut Rig) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let waker = rig.proactor.waker();
    let thread = std::thread::spawn(move || {
        for number in 0..1000u32 {
            sender.send(number).expect("send");
            waker.wake();
        }
    });
    let mut next = 0;
    while next < 1000 {
        let count = rig.turn(Wait::Forever);
        assert_eq!(count, 0, "a waker makes no completion");
        while let Ok(number) = receiver.try_recv() {
            assert_eq!(number, next);
            next += 1;
        }
    }
    thread.join().expect("waker");
}

fn waker_before_sleep_is_not_lost(rig: &mut Rig) {
    rig.settle();
    for _ in 0..3 {
        rig.proactor.waker().wake();
        rig.turn(Wait::Forever);
    }
}

fn doorbell_rings_again_and_again(rig: &mut Rig) {
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("eventfd");
    let fd = event.as_fd().try_clone_to_owned().expect("dup");
    rig.proactor.doorbell(fd, 5).expect("a free place");
    for _ in 0..50 {
        event.write(1).expect("ring");
        assert_eq!(rig.await_token(5), Ok(1));
        rig.settle();
        assert!(rig.early.is_empty(), "one ring, one completion");
    }
}

fn doorbell_can_be_silenced(rig: &mut Rig) {
    for round in 0..100 {
        let event = EventFd::new().expect("eventfd");
        let fd = event.as_fd().try_clone_to_owned().expect("dup");
        rig.proactor.doorbell(fd, round).expect("a free place");
        if round % 2 == 0 {
            rig.settle();
        }
        rig.proactor.cancel(round);
        assert_eq!(rig.await_token(round), Err(Errno::ECANCELED));
        event.write(1).expect("ring");
        rig.settle();
        assert!(rig.early.is_empty());
    }
}

fn files_are_written_and_read(rig: &mut Rig) {
    let mut file = tempfile::tempfile().expect("a file");
    let handle = rig.add(file.try_clone().expect("dup"));
    let (source, target) = (rig.large(0), rig.large(1));
    Noise(6).fill(rig.proactor.bytes_mut(source));
    let offsets = [0, u64::from(CHUNK_BYTES) * 3, 12_345_678];
    for (index, offset) in offsets.into_iter().enumerate() {
        rig.proactor.write_at(handle, offset, source, index as u64);
    }
    for token in 0..3 {
        assert_eq!(rig.await_token(token), Ok(CHUNK_BYTES));
    }
    for offset in offsets {
        rig.proactor.read_at(handle, offset, target, 9);
        assert_eq!(rig.await_token(9), Ok(CHUNK_BYTES));
        Noise(6).check(rig.proactor.bytes(target));
    }
    let mut bytes = vec![0; CHUNK_BYTES as usize];
    file.seek(SeekFrom::Start(offsets[2])).expect("seek");
    file.read_exact(&mut bytes).expect("read");
    Noise(6).check(&bytes);
}

fn read_is_short_at_end_of_file(rig: &mut Rig) {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&[7; 1000]).expect("write");
    let handle = rig.add(file);
    rig.proactor.read_at(handle, 900, rig.small(0, 500), 1);
    rig.proactor.read_at(handle, 1000, rig.small(1, 500), 2);
    rig.proactor.read_at(handle, 1 << 40, rig.small(2, 500), 3);
    assert_eq!(rig.await_token(1), Ok(100));
    assert_eq!(rig.await_token(2), Ok(0));
    assert_eq!(rig.await_token(3), Ok(0));
    assert_eq!(rig.proactor.bytes(rig.small(0, 100)), [7; 100]);
}

fn sync_completes(rig: &mut Rig) {
    let handle = rig.add(tempfile::tempfile().expect("a file"));
    rig.proactor.sync(handle, 1);
    assert_eq!(rig.await_token(1), Ok(0));
}

fn wrong_kind_of_descriptor_fails(rig: &mut Rig) {
    let handle = rig.add(tempfile::tempfile().expect("a file"));
    rig.proactor.recv(handle, rig.small(0, 4), 1);
    assert_eq!(rig.await_token(1), Err(Errno::ENOTSOCK));
    let directory = std::fs::File::open("/").expect("a directory");
    let handle = rig.add(directory);
    rig.proactor.read_at(handle, 0, rig.small(0, 4), 2);
    assert_eq!(rig.await_token(2), Err(Errno::EISDIR));
}

fn empty_spans_complete(rig: &mut Rig) {
    let (handle, _peer) = rig.pair();
    let nothing = rig.small(0, 0);
    rig.proactor.recv(handle, nothing, 1);
    rig.proactor.send_all(handle, nothing, 2);
    rig.proactor.write_at(handle, 0, nothing, 3);
    for token in 1..4 {
        assert_eq!(rig.await_token(token), Ok(0));
    }
    assert!(rig.proactor.bytes_mut(nothing).is_empty());
}

fn many_handles(rig: &mut Rig) {
    let mut pairs: Vec<_> = (0..60).map(|_| rig.pair()).collect();
    for (index, (handle, _)) in pairs.iter().enumerate() {
        rig.proactor.recv_all(*handle, rig.small(index, 8), index as u64);
    }
    rig.settle();
    for (index, (_, peer)) in pairs.iter_mut().enumerate().rev() {
        peer.write_all(&(index as u64).to_le_bytes()).expect("write");
    }
    for index in 0..60 {
        assert_eq!(rig.await_token(index), Ok(8));
        assert_eq!(rig.proactor.bytes(rig.small(index as usize, 8)), index.to_le_bytes());
    }
    for (handle, _) in pairs {
        rig.proactor.remove(handle);
    }
}

fn more_operations_than_entries(rig: &mut Rig) {
    let handle = rig.add(tempfile::tempfile().expect("a file"));
    rig.proactor.bytes_mut(rig.small(0, 64)).fill(1);
    for index in 0..200 {
        rig.proactor.write_at(handle, index * 64, rig.small(0, 64), index);
    }
    for index in 0..200 {
        assert_eq!(rig.await_token(index), Ok(64));
    }
    let full = rig.proactor.counters().queue_full > 0;
    assert_eq!(full, rig.proactor.features().backend() == Backend::IoUring);
}

fn too_many_operations_are_refused(rig: &mut Rig) {
    let (handle, mut peer) = rig.pair();
    let count = u64::from(rig.options.operation_count_max);
    let span = rig.small(0, 1);
    for token in 0..count + 5 {
        rig.proactor.send_all(handle, span, token);
    }
    for token in 0..count {
        assert_eq!(rig.await_token(token), Ok(1));
    }
    for token in count..count + 5 {
        assert_eq!(rig.await_token(token), Err(Errno::ENOBUFS));
    }
    assert_eq!(rig.proactor.counters().refused, 5);
    peer.read_exact(&mut vec![0; count as usize]).expect("all of them");
}

fn too_many_handles_are_refused(rig: &mut Rig) {
    let mut peers = Vec::new();
    for _ in 0..rig.options.handle_count_max {
        peers.push(rig.pair());
    }
    let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
    assert!(rig.proactor.add(ours.into()).is_err());
    assert_eq!(theirs.read(&mut [0; 1]).expect("closed"), 0);
    rig.proactor.remove(peers[0].0);
    rig.settle();
    rig.pair();
}

fn nonblocking_sockets_are_fine(rig: &mut Rig) {
    let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
    ours.set_nonblocking(true).expect("set");
    let handle = rig.add(ours);
    rig.proactor.recv(handle, rig.small(0, 4), 1);
    rig.settle();
    theirs.write_all(b"late").expect("write");
    assert_eq!(rig.await_token(1), Ok(4));
}

fn turn_times_out(rig: &mut Rig) {
    rig.settle();
    let before = Instant::now();
    assert_eq!(rig.turn(Wait::Until(Duration::from_millis(5))), 0);
    assert!(before.elapsed() >= Duration::from_millis(5));
    assert_eq!(rig.turn(Wait::Now), 0);
}

fn drop_with_operations_in_flight(rig: &mut Rig) {
    let mut other = Proactor::open(&rig.options).expect("as the first one");
    let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
    let handle = other.add(ours.into()).expect("a slot");
    let span = Span { buffer: BufferId(0), start: 0, length: CHUNK_BYTES };
    other.recv_all(handle, span, 1);
    other.recv_all(handle, Span { buffer: BufferId(1), ..span }, 2);
    other.send_all(handle, Span { buffer: BufferId(2), ..span }, 3);
    let mut out = Vec::new();
    other.turn(Wait::Now, &mut out).expect("turn");
    let before = Instant::now();
    drop(other);
    assert!(before.elapsed() < Duration::from_secs(2), "nothing had to be leaked");
    theirs.set_read_timeout(Some(PATIENCE)).expect("time-out");
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).expect("the descriptor is closed");
}

/// Misuse is our own bug: it panics before the kernel or the caller can race.
fn misuse(rig: &mut Rig, act: impl FnOnce(&mut Rig)) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(rig)));
    assert!(outcome.is_err(), "the misuse was not noticed");
}

fn written_buffer_cannot_be_read(rig: &mut Rig) {
    let (handle, _peer) = rig.pair();
    let span = rig.small(0, 10);
    let other = rig.small(1, 10);
    rig.proactor.recv(handle, span, 1);
    misuse(rig, |rig| assert!(rig.proactor.bytes(span).is_empty()));
    misuse(rig, |rig| rig.proactor.bytes_mut(span).fill(0));
    misuse(rig, |rig| assert!(rig.proactor.pair(span, other).0.is_empty()));
    misuse(rig, |rig| assert!(rig.proactor.pair(other, span).0.is_empty()));
    misuse(rig, |rig| rig.proactor.send_all(handle, span, 2));
    misuse(rig, |rig| rig.proactor.recv(handle, Span { start: 20, ..span }, 3));
}

fn read_buffer_cannot_be_written(rig: &mut Rig) {
    let (handle, _peer) = rig.pair();
    let (span, other) = (rig.large(0), rig.large(1));
    rig.proactor.send_all(handle, span, 1);
    rig.proactor.send_all(handle, span, 2);
    assert_eq!(rig.proactor.bytes(span)[0], 0, "reading together is fine");
    misuse(rig, |rig| rig.proactor.bytes_mut(span).fill(0));
    misuse(rig, |rig| assert!(rig.proactor.pair(other, span).0.is_empty()));
    misuse(rig, |rig| rig.proactor.recv(handle, span, 3));
    misuse(rig, |rig| rig.proactor.recv(handle, Span { length: LARGE_BYTES + 1, ..other }, 4));
}

fn buffer_is_free_after_completion(rig: &mut Rig) {
    let (handle, mut peer) = rig.pair();
    let span = rig.small(0, 3);
    for round in 0..5 {
        rig.proactor.bytes_mut(span).copy_from_slice(b"abc");
        rig.proactor.send_all(handle, span, round);
        assert_eq!(rig.await_token(round), Ok(3));
        peer.write_all(b"xyz").expect("write");
        rig.proactor.recv_all(handle, span, 100 + round);
        assert_eq!(rig.await_token(100 + round), Ok(3));
        assert_eq!(rig.proactor.bytes(span), b"xyz");
    }
}

/// A seeded mix of everything, with peers that write, read and vanish: every token completes exactly once, and every
/// buffer comes back.
fn random_lives(rig: &mut Rig) {
    for seed in 1..=8 {
        Lives { rig, noise: Noise(seed * 0x9e37_79b9), next_token: seed << 32, open: Vec::new() }.run();
    }
}

struct Lives<'a> {
    rig: &'a mut Rig,
    noise: Noise,
    next_token: u64,
    open: Vec<(Handle, UnixStream)>,
}

impl Lives<'_> {
    fn pick(&mut self, count: usize) -> usize {
        let mut bytes = [0; 8];
        self.noise.fill(&mut bytes);
        (u64::from_le_bytes(bytes) >> 20) as usize % count
    }

    fn run(&mut self) {
        let first_token = self.next_token;
        for _ in 0..400 {
            self.step();
        }
        for (handle, _) in std::mem::take(&mut self.open) {
            self.rig.proactor.remove(handle);
        }
        for token in first_token..self.next_token {
            match self.rig.await_token(token) {
                Ok(_) | Err(Errno::ECANCELED | Errno::EPIPE | Errno::ECONNRESET) => {}
                Err(errno) => panic!("token {token}: {errno}"),
            }
        }
        assert_eq!(self.rig.proactor.in_flight(), 0);
    }

    fn step(&mut self) {
        let action = self.pick(10);
        if self.open.len() < 4 || (action == 0 && self.open.len() < 30) {
            let (handle, peer) = self.rig.pair();
            peer.set_nonblocking(true).expect("set");
            return self.open.push((handle, peer));
        }
        let index = self.pick(self.open.len());
        let handle = self.open[index].0;
        match action {
            1..=3 => self.start(handle),
            4 | 5 => self.rig.settle(),
            // The peer may have vanished and its buffer may be full: both are part of the test.
            6 => drop(self.open[index].1.write(&[1; 3000])),
            7 => drop(self.open[index].1.read(&mut [0; 5000])),
            8 => {
                let back = self.pick(20) as u64 + 1;
                self.rig.proactor.cancel(self.next_token.saturating_sub(back));
            }
            _ => {
                let (handle, _peer) = self.open.swap_remove(index);
                self.rig.proactor.remove(handle);
            }
        }
    }

    /// Starts something in a small buffer that is idle; a busy one would be misuse.
    fn start(&mut self, handle: Handle) {
        let Some(buffer) = self.rig.idle_buffer() else { return self.rig.settle() };
        let span = Span { buffer, start: 0, length: 1 + self.pick(SMALL_BYTES as usize) as u32 };
        let token = self.next_token;
        self.next_token += 1;
        self.rig.busy.insert(token, buffer);
        match self.pick(4) {
            0 => self.rig.proactor.recv(handle, span, token),
            1 => self.rig.proactor.recv_all(handle, span, token),
            _ => self.rig.proactor.send_all(handle, span, token),
        }
    }
}

#[test]
fn features_are_reported() {
    for backend in [BackendChoice::Auto, BackendChoice::Epoll] {
        let proactor = Proactor::open(&Options { backend, ..Options::default() }).expect("open");
        println!("{}", proactor.features());
        assert!(proactor.features().iter().count() > 2);
        let refusals = proactor.features().iter().filter_map(|feature| feature.refusal.as_ref());
        assert!(refusals.into_iter().all(|reason| !reason.is_empty() && !reason.contains('\n')));
    }
}

#[test]
fn oversized_options_are_refused() {
    let options = Options { large_count: 4096, large_bytes: 1 << 20, ..Options::default() };
    let error = Proactor::open(&options).expect_err("4 GiB");
    assert!(matches!(error, OpenError::TooLarge { name: "buffer bytes", .. }), "{error}");
}

const LARGE_BYTES: u32 = 516 << 10;
const CHUNK_BYTES: u32 = 512 << 10;
const SMALL_BYTES: u32 = 4 << 10;
const ROUNDS: u64 = 32;
const PATIENCE: Duration = Duration::from_secs(20);
