//! The thread that is the link: reads packets from either device, asks the core what becomes of them, and writes those
//! that are due to the other device. Started by `emulator`. Payload is read once and written from where it lies.
use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dwcp_sys::process::run_before_others;
use dwcp_sys::tun::Tun;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::arena::Arena;
use crate::counters::Snapshot;
use crate::direction::Direction;
use crate::packet::{Headers, Seen, look};

/// What the thread and its owner share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Set by the owner: end.
    pub(crate) is_over: AtomicBool,
    /// Renewed every few milliseconds. The thread never waits for it.
    pub(crate) latest: Mutex<Snapshot>,
}

/// One direction, with the packets that are on it.
#[derive(Debug)]
pub(crate) struct Way {
    direction: Direction,
    arena: Arena,
}

impl Way {
    /// An empty one that can hold so many bytes of packets.
    pub(crate) fn new(direction: Direction, arena_bytes: usize) -> Self {
        Self { direction, arena: Arena::new(arena_bytes) }
    }

    /// Takes what waits in a device, up to a bound.
    fn receive(&mut self, from: &Tun, scratch: &mut [u8], start: Instant) -> Turn {
        for taken in 0..PACKETS_PER_TURN_MAX {
            let room = self.arena.room();
            let is_full = room.is_none();
            let place = room.unwrap_or(&mut *scratch);
            let Ok(length) = from.receive(place) else {
                return if taken > 0 { Turn::Moved } else { Turn::Idle };
            };
            let now_ns = nanoseconds(start);
            match look(&place[..length]) {
                Seen::Packet(shape) if !is_full => {
                    let leaving = self.direction.handle_packet(now_ns, self.arena.next_id(), &shape);
                    if leaving > 0 {
                        self.arena.keep(length, shape, leaving);
                    }
                }
                Seen::Multicast => self.direction.count_multicast(),
                Seen::Packet(_) | Seen::Malformed => self.direction.count_refused(),
            }
        }
        Turn::Moved
    }

    /// Writes what is due.
    fn deliver(&mut self, to: &Tun, start: Instant) -> Turn {
        let mut turn = Turn::Idle;
        while let Some(departure) = self.direction.poll_departure(nanoseconds(start)) {
            let (shape, bytes) = self.arena.packet(departure.packet);
            let (headers, payload) = Headers::of_run(bytes, &shape, departure.first, departure.count);
            let parts = [IoSlice::new(headers.as_slice()), IoSlice::new(&bytes[payload])];
            if to.send(&parts).is_err() {
                self.direction.count_refused();
            }
            self.arena.release(departure.packet, departure.count);
            turn = Turn::Moved;
        }
        turn
    }
}

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Moved,
    Idle,
}

/// Everything the thread has.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The device at each end.
    tuns: [Tun; 2],
    /// Each from the device of its number to the other one.
    ways: [Way; 2],
    /// Where packets go that there is no room for.
    scratch: Vec<u8>,
    start: Instant,
    published_ns: u64,
    shared: Arc<Shared>,
}

impl Relay {
    pub(crate) fn new(tuns: [Tun; 2], ways: [Way; 2], shared: Arc<Shared>) -> Self {
        let scratch = vec![0; 1 << 17];
        Self { tuns, ways, scratch, start: Instant::now(), published_ns: 0, shared }
    }

    /// Until the owner ends it; the last figures.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn run(mut self) -> io::Result<Snapshot> {
        // Timers of ordinary threads may be 50 µs late (PR_SET_TIMERSLACK(2const)).
        nix::sys::prctl::set_timerslack(1)?;
        // Where this is not allowed, the figures of lateness say whether it mattered.
        run_before_others().unwrap_or_default();
        // Pairs with the owner's store; nothing else is passed by it.
        while !self.shared.is_over.load(Ordering::Relaxed) {
            let turn_ns = nanoseconds(self.start);
            let turn = self.turn();
            self.publish(turn_ns)?;
            self.wait(turn, turn_ns)?;
        }
        self.snapshot()
    }

    fn turn(&mut self) -> Turn {
        let [first, second] = &self.tuns;
        let [there, back] = &mut self.ways;
        let turns = [
            there.receive(first, &mut self.scratch, self.start),
            back.receive(second, &mut self.scratch, self.start),
            there.deliver(second, self.start),
            back.deliver(first, self.start),
        ];
        if turns.contains(&Turn::Moved) { Turn::Moved } else { Turn::Idle }
    }

    /// Sleeps until something can be due. While packets flow they are looked at every quantum and not one by one.
    fn wait(&self, turn: Turn, turn_ns: u64) -> io::Result<()> {
        let now_ns = nanoseconds(self.start);
        if turn == Turn::Moved {
            let left_ns = (turn_ns + QUANTUM_NS).saturating_sub(now_ns);
            std::thread::sleep(Duration::from_nanos(left_ns));
            return Ok(());
        }
        let due_ns = self.ways.iter().filter_map(|way| way.direction.poll_timeout()).min();
        let wait_ns = due_ns.map_or(WAIT_NS_MAX, |due_ns| due_ns.saturating_sub(now_ns).min(WAIT_NS_MAX));
        let mut devices = self.tuns.each_ref().map(|tun| PollFd::new(tun.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut devices, Some(TimeSpec::from_duration(Duration::from_nanos(wait_ns))), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn publish(&mut self, now_ns: u64) -> io::Result<()> {
        if now_ns - self.published_ns < PUBLISH_NS {
            return Ok(());
        }
        let snapshot = self.snapshot()?;
        if let Ok(mut latest) = self.shared.latest.try_lock() {
            *latest = snapshot;
            self.published_ns = now_ns;
        }
        Ok(())
    }

    fn snapshot(&self) -> io::Result<Snapshot> {
        let [there, back] = self.ways.each_ref().map(|way| way.direction.counters().clone());
        let cpu = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
        Ok(Snapshot { at_ns: nanoseconds(self.start), there, back, cpu_ns: cpu.as_nanos() as u64 })
    }
}

fn nanoseconds(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}

const PACKETS_PER_TURN_MAX: usize = 256;
/// Short against any delay that is worth emulating, long against a wake-up.
const QUANTUM_NS: u64 = 100_000;
/// How late the end may be noticed.
const WAIT_NS_MAX: u64 = 20_000_000;
const PUBLISH_NS: u64 = 5_000_000;
