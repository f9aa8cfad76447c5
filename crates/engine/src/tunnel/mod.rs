//! Tunnelled connections with one peer: many streams of bytes over a few lanes, each with its own credit, none of them
//! waiting for another, and none lost with a lane. Driven by the dataplane's tunnel thread and by the simulation in
//! `crates/engine/tests/tunnel`; it knows no socket and no clock.
//!
//! Unlike the rest of this crate it holds payload: a stream is a byte at a time as well as a megabyte, and what a lane may
//! yet lose must be kept somewhere.
//!
//! **Why nothing overtakes.** Whatever this end says of a connection goes over one lane, so it arrives in order. When
//! that lane dies the connection moves to another and begins again at the last acknowledged byte, which the peer has. So
//! every lane's frames begin at or before what has arrived and go on without a gap; bytes that arrive twice are known by
//! their offset.
mod connection;
mod events;
mod lane;
mod receive;
mod seen;
mod transmit;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::wire::{Code, TUNNEL_TARGET_MAX, TUNNEL_TEXT_MAX, TUNNEL_WINDOW_FIRST};

use crate::{LaneEnd, Time};
use connection::{Connection, Opening};
pub use events::{ConnectionKey, Opener, TunnelEvent, TunnelLane, TunnelLimits, Violation};
use lane::Lane;
use seen::Seen;

/// All tunnelled connections with one peer.
#[derive(Debug)]
pub struct Mux {
    limits: TunnelLimits,
    lanes: BTreeMap<TunnelLane, Lane>,
    connections: BTreeMap<ConnectionKey, Connection>,
    /// Number of the next connection that this end opens.
    next_number: u32,
    /// Numbers that the peer has used.
    seen: Seen,
    /// The peer's life that all this is with.
    instance: Option<u64>,
    /// Since when there has been no lane, while there is none.
    alone_since: Option<Time>,
    events: VecDeque<TunnelEvent>,
    /// Ends that the peer must hear of.
    resets: VecDeque<Reset>,
    /// Connections that ended well, lately: their peer may not know it yet.
    closed: VecDeque<ConnectionKey>,
    /// Sum of all receive windows.
    windows_total: u64,
    /// Sum of all send buffers.
    buffered_total: u64,
    /// Acknowledgements that wait for something to travel with.
    late_acks: bool,
    /// Round trips that somebody wants to know: not sent yet, and when they were sent.
    probes: VecDeque<u64>,
    probes_sent: BTreeMap<u64, Time>,
}

/// An end to be said.
#[derive(Debug, Clone)]
struct Reset {
    key: ConnectionKey,
    code: Code,
    text: String,
}

impl Mux {
    /// Nothing yet.
    #[must_use]
    pub fn new(limits: TunnelLimits) -> Self {
        Self {
            limits,
            lanes: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_number: 1,
            seen: Seen::default(),
            instance: None,
            alone_since: None,
            events: VecDeque::new(),
            resets: VecDeque::new(),
            closed: VecDeque::new(),
            windows_total: 0,
            buffered_total: 0,
            late_acks: false,
            probes: VecDeque::new(),
            probes_sent: BTreeMap::new(),
        }
    }

    /// A lane stands. `instance` is the peer's life: another one than before has forgotten every connection.
    pub fn handle_lane_up(&mut self, lane: TunnelLane, end: LaneEnd, instance: u64, now: Time) {
        if self.instance.replace(instance).is_some_and(|before| before != instance) {
            self.forget_all(Code::Again, "the peer's dataplane was started again");
            self.seen = Seen::default();
            self.resets.clear();
            let stale: Vec<TunnelLane> = self.lanes.keys().copied().collect();
            for lane in stale {
                self.lanes.remove(&lane);
                self.events.push_back(TunnelEvent::Stale { lane });
            }
        }
        self.lanes.insert(lane, Lane::new(end, now));
        if end == LaneEnd::Dialled {
            self.adopt_orphans();
        }
    }

    /// A lane is gone: what it may have lost is said again elsewhere.
    pub fn handle_lane_down(&mut self, lane: TunnelLane, now: Time) {
        let Some(lost) = self.lanes.remove(&lane) else { return };
        for reset in lost.unconfirmed {
            self.say_reset(reset.key, reset.code, &reset.text);
        }
        for key in self.keys(|connection| connection.lane == Some(lane)) {
            self.move_to_some_lane(key);
        }
        // The peer's word about any connection may have been lost with it, whatever lane ours is on: it answers to an
        // acknowledgement if it knows the connection no more.
        for key in self.keys(|connection| connection.lane.is_some()) {
            self.say(key, |connection| connection.says.ack = true);
        }
        if !self.has_speaking_lane() {
            self.alone_since = self.alone_since.or(Some(now));
        }
    }

    /// Begins a connection to `target`, as the peer writes it: `host:port`. Bytes may be written at once.
    ///
    /// # Errors
    /// [`Code::Busy`] at the limit of connections, [`Code::Protocol`] for a target that is too long.
    pub fn open(&mut self, target: &[u8], now: Time) -> Result<ConnectionKey, Code> {
        if target.len() > TUNNEL_TARGET_MAX {
            return Err(Code::Protocol);
        }
        if self.count(Opener::Local) >= self.limits.connections_max {
            return Err(Code::Busy);
        }
        let key = ConnectionKey { opener: Opener::Local, number: self.next_number };
        self.next_number = self.next_number.checked_add(1).unwrap_or(1);
        if self.connections.contains_key(&key) {
            return Err(Code::Busy);
        }
        // The peer's word to us is bounded by what is said in the frame, ours to it by what every acceptor gives.
        let mut connection = Connection::new(Opening::Asking { target: target.to_vec(), since: now });
        connection.out.credit = TUNNEL_WINDOW_FIRST;
        connection.says.open = true;
        self.insert(key, connection);
        // Without a lane the time runs from here: nobody waits for ever for a peer that never comes.
        if !self.has_speaking_lane() {
            self.alone_since = self.alone_since.or(Some(now));
        }
        Ok(key)
    }

    /// The target of a connection that the peer asked for is connected.
    pub fn accept(&mut self, key: ConnectionKey) {
        self.say(key, |connection| {
            connection.opening = Opening::Done;
            connection.says.accept = true;
        });
        self.queue_data(key);
    }

    /// Ends a connection at once, in both directions; the peer is told why.
    pub fn reset(&mut self, key: ConnectionKey, code: Code, text: &str) {
        if self.remove(key).is_some() {
            self.say_reset(key, code, text);
        }
    }

    /// Bytes that [`Self::write`] takes now.
    #[must_use]
    pub fn room(&self, key: ConnectionKey) -> usize {
        let Some(connection) = self.connections.get(&key) else { return 0 };
        let own = connection.out.room(self.limits.window_max);
        // In a crowd everybody keeps what everybody begins with.
        let crowded = self.buffered_total >= self.limits.windows_total_max;
        let least = (TUNNEL_WINDOW_FIRST as usize).saturating_sub(connection.out.buffer.len());
        if crowded { own.min(least) } else { own }
    }

    /// Takes bytes for the peer, as far as there is room; says how many.
    pub fn write(&mut self, key: ConnectionKey, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room(key));
        let Some(connection) = self.connections.get_mut(&key) else { return 0 };
        if connection.out.end.is_some() || count == 0 {
            return 0;
        }
        connection.out.buffer.extend(&bytes[..count]);
        self.buffered_total += count as u64;
        self.queue_data(key);
        count
    }

    /// Nothing more will be written.
    pub fn finish(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let out = &mut connection.out;
        if out.end.is_none() {
            out.end = Some(out.acked + out.buffer.len() as u64);
            self.queue_data(key);
        }
    }

    /// Bytes of the peer that wait to be consumed: the first piece of them.
    #[must_use]
    pub fn readable(&self, key: ConnectionKey) -> &[u8] {
        self.connections.get(&key).map_or(&[], |connection| connection.incoming.buffer.as_slices().0)
    }

    /// So many bytes of [`Self::readable`] have gone to where they belong.
    pub fn consume(&mut self, key: ConnectionKey, count: usize) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let incoming = &mut connection.incoming;
        let count = count.min(incoming.buffer.len());
        incoming.buffer.drain(..count);
        incoming.consumed += count as u64;
        if incoming.owes_credit() {
            self.say(key, |connection| connection.says.ack = true);
        }
    }

    /// Whether the peer has ended its direction and everything before was consumed. Says so once to the connection's
    /// life: ask when [`Self::readable`] is empty, and pass the end on.
    pub fn take_end(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get_mut(&key) else { return false };
        let incoming = &mut connection.incoming;
        if incoming.end.is_none() || !incoming.buffer.is_empty() || incoming.end_taken {
            return false;
        }
        incoming.end_taken = true;
        self.close_if_over(key);
        true
    }

    /// Measures a round trip on whatever lane speaks first. One that a lane takes with it is lost, as a packet would be.
    pub fn probe(&mut self, number: u64) {
        self.probes.push_back(number & !PROBE);
        if self.probes.len() > PROBES_MAX {
            self.probes.pop_front();
        }
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<TunnelEvent> {
        let event = self.events.pop_front()?;
        if let TunnelEvent::Readable { key } | TunnelEvent::Writable { key } = event
            && let Some(connection) = self.connections.get_mut(&key)
        {
            match event {
                TunnelEvent::Readable { .. } => connection.told_readable = false,
                _ => connection.told_writable = false,
            }
        }
        Some(event)
    }

    /// Time has passed: late acknowledgements, pings, lanes and peers that are silent.
    pub fn handle_time(&mut self, now: Time) {
        if core::mem::take(&mut self.late_acks) {
            for key in self.keys(|connection| connection.incoming.owes_ack()) {
                self.say(key, |connection| connection.says.ack = true);
            }
        }
        let (ping_after, silence_max) = (self.limits.ping_after, self.limits.silence_max);
        let mut silent = Vec::new();
        for (&id, lane) in &mut self.lanes {
            lane.handle_time(now, ping_after);
            if lane.is_silent(now, silence_max) {
                silent.push(id);
            }
        }
        for lane in silent {
            self.handle_lane_down(lane, now);
            self.events.push_back(TunnelEvent::Silent { lane });
        }
        if self.alone_since.is_some_and(|since| now.saturating_sub(since) > self.limits.alone_max) {
            self.forget_all(Code::Timeout, "no lane to the peer stood for too long");
            self.alone_since = None;
        }
        let late = self.keys(|connection| connection.waits_too_long(now, self.limits.answer_max));
        for key in late {
            self.end(key, Code::Timeout, "the peer did not say in time what became of the target");
            self.say_reset(key, Code::Timeout, "the answer took too long");
        }
    }

    /// Whether [`Self::handle_time`] has something to do soon: acknowledgements that wait.
    #[must_use]
    pub fn is_hasty(&self) -> bool {
        self.late_acks
    }

    /// Connections that this end, or the peer, began.
    #[must_use]
    pub fn count(&self, opener: Opener) -> usize {
        self.connections.keys().filter(|key| key.opener == opener).count()
    }

    /// Lanes that stand.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// The last round trip that was measured on a lane, in nanoseconds; 0 = none yet.
    #[must_use]
    pub fn rtt_ns(&self) -> Time {
        self.lanes.values().map(|lane| lane.rtt_ns).filter(|&rtt| rtt > 0).min().unwrap_or(0)
    }

    /// Bytes that are held for all connections, both directions.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let incoming = self.connections.values().map(|connection| connection.incoming.buffer.len() as u64);
        self.buffered_total + incoming.sum::<u64>()
    }

    fn insert(&mut self, key: ConnectionKey, connection: Connection) {
        self.windows_total += connection.incoming.window;
        self.connections.insert(key, connection);
        self.move_to_some_lane(key);
    }

    /// Forgets a connection and what it held.
    fn remove(&mut self, key: ConnectionKey) -> Option<Connection> {
        let connection = self.connections.remove(&key)?;
        self.windows_total -= connection.incoming.window;
        self.buffered_total -= connection.out.buffer.len() as u64;
        if let Some(lane) = connection.lane.and_then(|lane| self.lanes.get_mut(&lane)) {
            lane.pinned -= 1;
        }
        Some(connection)
    }

    /// Ends a connection for the driver.
    fn end(&mut self, key: ConnectionKey, code: Code, text: &str) {
        let Some(connection) = self.remove(key) else { return };
        let text = String::from(text);
        self.events.push_back(match connection.opening {
            Opening::Asking { .. } => TunnelEvent::Refused { key, code, text },
            Opening::Asked | Opening::Done => TunnelEvent::Reset { key, code, text },
        });
    }

    fn forget_all(&mut self, code: Code, text: &str) {
        for key in self.keys(|_| true) {
            self.end(key, code, text);
        }
    }

    fn say_reset(&mut self, key: ConnectionKey, code: Code, text: &str) {
        if self.resets.iter().any(|reset| reset.key == key) {
            return;
        }
        let text = String::from(&text[..text.floor_char_boundary(TUNNEL_TEXT_MAX)]);
        self.resets.push_back(Reset { key, code, text });
        // Only a peer that asks for nonsense faster than it listens comes here: it may find out by itself.
        if self.resets.len() > RESETS_MAX {
            self.resets.pop_front();
        }
    }

    /// Both directions are over, and the peer knows: nothing is left to remember.
    fn close_if_over(&mut self, key: ConnectionKey) {
        if !self.connections.get(&key).is_some_and(Connection::is_over) {
            return;
        }
        self.remove(key);
        self.closed.push_back(key);
        if self.closed.len() > CLOSED_MAX {
            self.closed.pop_front();
        }
        self.events.push_back(TunnelEvent::Closed { key });
    }

    fn keys(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<ConnectionKey> {
        self.connections.iter().filter(|(_, connection)| wanted(connection)).map(|(key, _)| *key).collect()
    }

    fn tell_readable(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if !core::mem::replace(&mut connection.told_readable, true) {
            self.events.push_back(TunnelEvent::Readable { key });
        }
    }

    fn tell_writable(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if !core::mem::replace(&mut connection.told_writable, true) {
            self.events.push_back(TunnelEvent::Writable { key });
        }
    }
}

/// Marks the pings that somebody asked for, beside those that watch lanes.
const PROBE: u64 = 1 << 63;
/// Probes that may wait, and that may be under way.
const PROBES_MAX: usize = 64;
/// Ends that wait to be said.
const RESETS_MAX: usize = 4096;
/// Connections that are remembered to have ended well.
const CLOSED_MAX: usize = 1024;
