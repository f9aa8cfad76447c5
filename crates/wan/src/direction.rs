//! The core: one direction of a link. Packets arrive, each of one or more segments; segments leave at their time, or
//! not. No clock and no device: time is an argument, in nanoseconds from any start, and never runs backwards.
//!
//! The clock of the bottleneck is one number: a segment is through at `busy = max(busy, arrival) + size / rate` and
//! leaves `delay` later. What waits before it is `(busy - now) * rate`, and what does not fit into the buffer is dropped.
use std::collections::{BinaryHeap, VecDeque};

use crate::chance::Chance;
use crate::counters::Counters;
use crate::loss::Losses;
use crate::packet::Shape;
use crate::spec::Spec;

/// Names a packet from its arrival until its last segment has left. The driver counts them up.
pub type PacketId = u64;

/// Segments of one packet that leave now, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Whose.
    pub packet: PacketId,
    /// The first of them, counted from 0.
    pub first: u16,
    /// How many, in a row.
    pub count: u16,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Direction {
    spec: Spec,
    buffer_bytes: Option<u64>,
    /// When the bottleneck has sent everything that it was given.
    busy_until_ns: u64,
    losses: Losses,
    duplicates: Chance,
    reorders: Chance,
    swing: Swing,
    /// Segments on their way, in the order in which they leave.
    line: VecDeque<Flight>,
    /// Those that do not keep the order.
    strays: BinaryHeap<std::cmp::Reverse<Flight>>,
    counters: Counters,
}

impl Direction {
    /// An idle direction on a path of this round trip, which buffers may be measured in.
    #[must_use]
    pub fn new(spec: Spec, round_trip_ns: u64, seed: u64) -> Self {
        Self {
            buffer_bytes: spec.buffer_bytes(round_trip_ns),
            busy_until_ns: 0,
            losses: Losses::new(spec.loss, Chance::new(seed, 1)),
            duplicates: Chance::new(seed, 2),
            reorders: Chance::new(seed, 3),
            swing: Swing::new(spec.jitter_ns, Chance::new(seed, 4)),
            line: VecDeque::new(),
            strays: BinaryHeap::new(),
            counters: Counters::default(),
            spec,
        }
    }

    /// Takes a packet; how many of its segments will leave, copies included.
    pub fn handle_packet(&mut self, now_ns: u64, packet: PacketId, shape: &Shape) -> u32 {
        let is_out = self.spec.outages.iter().any(|outage| outage.covers(now_ns));
        let mut leaving = 0;
        for segment in 0..shape.segments() {
            let size_bytes = shape.segment_bytes(segment);
            self.counters.segments += 1;
            self.counters.bytes += size_bytes;
            // Each stream of chance is asked once a segment, whatever becomes of it.
            let is_lost = self.losses.next();
            let is_doubled = self.spec.duplicate > 0.0 && self.duplicates.happens(self.spec.duplicate);
            let held_ns = self
                .spec
                .reorder
                .filter(|reorder| self.reorders.happens(reorder.probability))
                .map(|r| r.delay_ns);
            if is_out {
                self.counters.outage += 1;
                continue;
            }
            let Some(through_ns) = self.pass_bottleneck(now_ns, size_bytes) else {
                self.counters.dropped += 1;
                continue;
            };
            if is_lost {
                self.counters.lost += 1;
                continue;
            }
            let due_ns = through_ns + self.spec.delay_ns + self.swing.at(through_ns);
            let flight = Flight { due_ns, packet, segment, size_bytes: size_bytes as u16 };
            leaving += 1;
            self.counters.reordered += u64::from(held_ns.is_some());
            match held_ns {
                Some(held_ns) => {
                    self.strays.push(std::cmp::Reverse(Flight { due_ns: due_ns + held_ns, ..flight }))
                }
                None => self.line_up(flight),
            }
            if is_doubled {
                self.counters.duplicated += 1;
                leaving += 1;
                self.strays.push(std::cmp::Reverse(flight));
            }
        }
        leaving
    }

    /// The next segments that are due; drained to `None` after each step in time.
    pub fn poll_departure(&mut self, now_ns: u64) -> Option<Departure> {
        let first = self.next_due(now_ns)?;
        self.leave(now_ns, first);
        let mut departure = Departure { packet: first.packet, first: first.segment, count: 1 };
        // What is due at once and belongs together leaves together.
        while let Some(next) = self.peek()
            && next.due_ns <= now_ns
            && next.packet == departure.packet
            && u32::from(next.segment) == u32::from(departure.first) + u32::from(departure.count)
            && let Some(next) = self.next_due(now_ns)
        {
            self.leave(now_ns, next);
            departure.count += 1;
        }
        Some(departure)
    }

    /// When the next segment is due; `None` while nothing is on its way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.peek().map(|flight| flight.due_ns)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A packet to a group of hosts was not taken.
    pub fn count_multicast(&mut self) {
        self.counters.multicast += 1;
    }

    /// A packet could not be carried.
    pub fn count_refused(&mut self) {
        self.counters.refused += 1;
    }

    /// When a segment that arrives now is through the bottleneck; `None` = it finds no room.
    fn pass_bottleneck(&mut self, now_ns: u64, size_bytes: u64) -> Option<u64> {
        let Some(rate_bits_per_s) = self.spec.rate_bits_per_s else { return Some(now_ns) };
        let waiting_ns = self.busy_until_ns.saturating_sub(now_ns);
        let waiting_bytes = u128::from(waiting_ns) * u128::from(rate_bits_per_s) / (8 * NS_PER_S);
        if self.buffer_bytes.is_some_and(|room| waiting_bytes + u128::from(size_bytes) > u128::from(room)) {
            return None;
        }
        self.counters.queue.add(waiting_ns);
        self.counters.idle_ns += now_ns.saturating_sub(self.busy_until_ns);
        let time_ns = u128::from(size_bytes) * 8 * NS_PER_S / u128::from(rate_bits_per_s);
        self.busy_until_ns = self.busy_until_ns.max(now_ns) + time_ns as u64;
        Some(self.busy_until_ns)
    }

    /// Jitter overtakes nothing: a segment leaves with the one before it at the earliest.
    fn line_up(&mut self, mut flight: Flight) {
        if let Some(last) = self.line.back() {
            flight.due_ns = flight.due_ns.max(last.due_ns);
        }
        self.line.push_back(flight);
    }

    fn peek(&self) -> Option<&Flight> {
        let stray = self.strays.peek().map(|stray| &stray.0);
        match (self.line.front(), stray) {
            (Some(lined), Some(stray)) if stray.due_ns < lined.due_ns => Some(stray),
            (None, stray) => stray,
            (lined, _) => lined,
        }
    }

    fn next_due(&mut self, now_ns: u64) -> Option<Flight> {
        let lined = self.line.front().map_or(u64::MAX, |flight| flight.due_ns);
        let stray = self.strays.peek().map_or(u64::MAX, |stray| stray.0.due_ns);
        if lined.min(stray) > now_ns {
            return None;
        }
        if stray < lined { self.strays.pop().map(|stray| stray.0) } else { self.line.pop_front() }
    }

    fn leave(&mut self, now_ns: u64, flight: Flight) {
        self.counters.delivered += 1;
        self.counters.delivered_bytes += u64::from(flight.size_bytes);
        self.counters.late.add(now_ns - flight.due_ns);
    }
}

/// A segment on its way. Ordered by when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due_ns: u64,
    packet: PacketId,
    segment: u16,
    size_bytes: u16,
}

/// Jitter: an extra delay that goes in straight lines between random points, so slowly that nothing is overtaken.
#[derive(Debug)]
struct Swing {
    most_ns: u64,
    chance: Chance,
    /// The line under way: from one time and value to another.
    from: (u64, f64),
    to: (u64, f64),
}

impl Swing {
    fn new(most_ns: u64, chance: Chance) -> Self {
        Self { most_ns, chance, from: (0, 0.0), to: (0, 0.0) }
    }

    fn at(&mut self, now_ns: u64) -> u64 {
        if self.most_ns == 0 {
            return 0;
        }
        let step_ns = SWING_NS_MIN.max(2 * self.most_ns);
        // A pause needs no points that nobody sees.
        if now_ns >= self.to.0 + step_ns {
            self.to.0 = now_ns;
        }
        if now_ns >= self.to.0 {
            self.from = self.to;
            self.to = (self.from.0 + step_ns, self.chance.share() * self.most_ns as f64);
        }
        let share = (now_ns - self.from.0) as f64 / step_ns as f64;
        (self.from.1 + (self.to.1 - self.from.1) * share) as u64
    }
}

const NS_PER_S: u128 = 1_000_000_000;
const SWING_NS_MIN: u64 = 10_000_000;

#[cfg(test)]
#[path = "direction_tests.rs"]
mod tests;
