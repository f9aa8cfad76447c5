//! Everything tunnelled between this node and one peer: the core, its lanes, its programs. Used by [`super::turn`], which
//! owns what belongs to no peer and lends it ([`Around`]).
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dwcp_abi::wire::Code;
use dwcp_engine::{ConnectionKey, LaneEnd, Mux, Opener, Time, TunnelEvent, TunnelLane, TunnelLimits};

use super::coding::Coding;
use super::figures::PeerReport;
use super::lane::{Amount, Lane, LaneError};
use super::listener::Listener;
use super::program::{Moved, Program, reset_words};
use super::sources::{Ready, Source, Sources};
use crate::door::{Direction, LaneReady, PeerName};

/// One peer.
pub(super) struct Peer {
    name: PeerName,
    mux: Mux,
    lanes: BTreeMap<TunnelLane, Lane>,
    dialled: BTreeSet<TunnelLane>,
    programs: HashMap<ConnectionKey, Program>,
    /// Programs to look at.
    stirred: BTreeSet<ConnectionKey>,
    dialling: u16,
    failures: u32,
    not_before: Option<Instant>,
    last_dial_error: Option<String>,
    last_used: Instant,
    /// Pings that wait for their answers: token and when nobody waits any more.
    pings: BTreeMap<u64, Instant>,
    figures: PeerReport,
}

/// What belongs to no peer.
pub(super) struct Around<'a> {
    pub(super) sources: &'a mut Sources,
    pub(super) listeners: &'a mut BTreeMap<u64, Listener>,
    pub(super) coding: &'a mut Coding,
    pub(super) scratch: &'a mut [u8],
    /// Targets that the peer asks for now.
    pub(super) asked: &'a mut Vec<(PeerName, ConnectionKey, Vec<u8>)>,
    /// Connections that ended before their target was connected.
    pub(super) withdrawn: &'a mut Vec<(PeerName, ConnectionKey)>,
    /// Answers to pings: token, round trip in nanoseconds, why there was none.
    pub(super) pongs: &'a mut Vec<(u64, u64, String)>,
    pub(super) now: Instant,
    /// The same on the core's clock.
    pub(super) time: Time,
}

impl Peer {
    pub(super) fn new(name: PeerName, now: Instant) -> Self {
        Self {
            name,
            mux: Mux::new(TunnelLimits::default()),
            lanes: BTreeMap::new(),
            dialled: BTreeSet::new(),
            programs: HashMap::new(),
            stirred: BTreeSet::new(),
            dialling: 0,
            failures: 0,
            not_before: None,
            last_dial_error: None,
            last_used: now,
            pings: BTreeMap::new(),
            figures: PeerReport::default(),
        }
    }

    /// A lane from the door.
    pub(super) fn lane_up(&mut self, ready: LaneReady, around: &mut Around<'_>) {
        let (direction, instance, remote) = (ready.direction, ready.instance, ready.remote);
        if direction == Direction::Dialled {
            self.dialling = self.dialling.saturating_sub(1);
            (self.failures, self.not_before, self.last_dial_error) = (0, None, None);
        }
        if self.lanes.len() >= LANES_MAX {
            return tracing::debug!(peer = %self.name, "a tunnel's lane too many was closed");
        }
        let encrypted = ready.secrets.is_some();
        let lane = Lane::new(ready).and_then(|mut lane| {
            let id = TunnelLane(around.sources.number());
            let source = Source::Lane(self.name.clone(), id);
            lane.number = around.sources.add(lane.stream(), source)?;
            Ok((id, lane))
        });
        let (id, lane) = match lane {
            Ok(made) => made,
            Err(error) => return tracing::error!(peer = %self.name, %error, "a tunnel's lane is unusable"),
        };
        let end = match direction {
            Direction::Dialled => LaneEnd::Dialled,
            Direction::Accepted => LaneEnd::Accepted,
        };
        if direction == Direction::Dialled {
            self.dialled.insert(id);
        }
        self.lanes.insert(id, lane);
        self.mux.handle_lane_up(id, end, instance, around.time);
        tracing::debug!(peer = %self.name, lane = id.0, %remote, encrypted, "tunnel lane up");
    }

    /// Lanes that will not come.
    pub(super) fn dial_failed(&mut self, lanes: u16, reason: String, around: &mut Around<'_>) {
        let (now, pongs) = (around.now, &mut *around.pongs);
        self.dialling = self.dialling.saturating_sub(lanes);
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(8)).min(PAUSE_LAST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
        for (token, _) in std::mem::take(&mut self.pings) {
            if self.lanes.is_empty() {
                pongs.push((token, 0, reason.clone()));
            }
        }
        self.last_dial_error = Some(reason);
    }

    /// Measures a round trip, once there is a lane.
    pub(super) fn ping(&mut self, token: u64, around: &mut Around<'_>) {
        self.last_used = around.now;
        let failed = self.last_dial_error.as_ref().filter(|_| self.lanes.is_empty());
        if let (Some(reason), true) = (failed, self.not_before.is_some_and(|instant| around.now < instant)) {
            // Why there was none a moment ago is an answer, too.
            return around.pongs.push((token, 0, reason.clone()));
        }
        if self.pings.len() < PINGS_MAX {
            self.pings.insert(token, around.now + PING_PATIENCE);
            self.mux.probe(token);
        }
    }

    /// How many lanes to dial now. `is_wanted` = a listener leads here.
    pub(super) fn lanes_to_dial(&mut self, is_wanted: bool, now: Instant) -> u16 {
        if !is_wanted && self.mux.count(Opener::Local) == 0 && self.pings.is_empty() {
            return 0;
        }
        if self.not_before.is_some_and(|instant| now < instant) {
            return 0;
        }
        let missing = LANES_WANTED.saturating_sub(self.lanes.len() as u16 + self.dialling);
        // After a failure one lane tries whether the peer is back.
        let missing = if self.failures > 0 { missing.min(1) } else { missing };
        self.dialling += missing;
        missing
    }

    /// A program connected to a listener.
    ///
    /// # Errors
    /// Why it is turned away; the socket is closed.
    pub(super) fn begin(
        &mut self,
        stream: TcpStream,
        listener: u64,
        target: &str,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let key = self.mux.open(target.as_bytes(), around.time).map_err(|code| {
            if code == Code::Busy {
                format!("{} has as many tunnelled connections as it may have", self.name)
            } else {
                format!("{target}: too long for a target")
            }
        })?;
        self.attach(key, stream, Some(listener), None, around);
        Ok(())
    }

    /// A target that the peer asked for is connected. `number` is what its socket is known by.
    pub(super) fn connected(
        &mut self,
        key: ConnectionKey,
        stream: TcpStream,
        number: u64,
        around: &mut Around<'_>,
    ) {
        if !self.mux.connections().contains(&key) {
            // It was withdrawn a moment ago.
            return around.sources.forget(number);
        }
        self.mux.accept(key);
        self.figures.accepted_open += 1;
        self.attach(key, stream, None, Some(number), around);
    }

    /// A target that the peer asked for is not.
    pub(super) fn refuse(&mut self, key: ConnectionKey, code: Code, text: &str) {
        tracing::info!(peer = %self.name, text, "a tunnelled connection was refused");
        self.figures.refused += 1;
        self.mux.reset(key, code, text);
    }

    fn attach(
        &mut self,
        key: ConnectionKey,
        stream: TcpStream,
        listener: Option<u64>,
        number: Option<u64>,
        around: &mut Around<'_>,
    ) {
        self.last_used = around.now;
        let mut program = Program::new(stream, listener);
        let source = Source::Program(self.name.clone(), key);
        let number = match number {
            Some(number) => {
                around.sources.change(number, source);
                Ok(number)
            }
            None => around.sources.add(program.stream(), source),
        };
        match number {
            Ok(number) => program.number = number,
            Err(error) => {
                tracing::error!(%error, "a tunnelled connection cannot be watched");
                self.mux.reset(key, Code::Io, "the node has no room for another socket");
                return program.break_off();
            }
        }
        if let Some(listener) = listener.and_then(|id| around.listeners.get_mut(&id)) {
            listener.figures.open += 1;
            listener.figures.opened += 1;
        }
        self.programs.insert(key, program);
        self.stirred.insert(key);
    }

    pub(super) fn lane_is_ready(&mut self, lane: TunnelLane, ready: Ready) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.readable |= ready.readable;
            lane.writable |= ready.writable;
        }
    }

    pub(super) fn program_is_ready(&mut self, key: ConnectionKey, ready: Ready) {
        if let Some(program) = self.programs.get_mut(&key) {
            program.handle_ready(ready);
            self.stirred.insert(key);
        }
    }

    /// Moves what can be moved, up to a bound; [`Amount::Part`] = there is more.
    pub(super) fn work(&mut self, around: &mut Around<'_>) -> Amount {
        let mut amount = self.receive(around);
        self.take_events(around);
        for key in std::mem::take(&mut self.stirred) {
            if self.pump(key, around) == Amount::Part {
                self.stirred.insert(key);
                amount = Amount::Part;
            }
        }
        self.take_events(around);
        if self.transmit(around) == Amount::Part || !self.stirred.is_empty() {
            amount = Amount::Part;
        }
        amount
    }

    fn receive(&mut self, around: &mut Around<'_>) -> Amount {
        let mut amount = Amount::All;
        let ready: Vec<TunnelLane> =
            self.lanes.iter().filter(|(_, lane)| lane.readable).map(|(id, _)| *id).collect();
        for id in ready {
            let (Some(lane), mux) = (self.lanes.get_mut(&id), &mut self.mux) else { continue };
            let coding = &mut *around.coding;
            let taken = lane.receive(|frame| {
                let frame = coding.decode(frame)?;
                Ok(mux.handle_frame(id, &frame, around.time)?)
            });
            match taken {
                Ok(Amount::All) => {}
                Ok(Amount::Part) => amount = Amount::Part,
                Err(error) => self.lose_lane(id, &error, around),
            }
        }
        amount
    }

    fn transmit(&mut self, around: &mut Around<'_>) -> Amount {
        let mut amount = Amount::All;
        let ids: Vec<TunnelLane> =
            self.lanes.iter().filter(|(_, lane)| lane.writable).map(|(id, _)| *id).collect();
        for id in ids {
            let (Some(lane), mux) = (self.lanes.get_mut(&id), &mut self.mux) else { continue };
            let coding = &mut *around.coding;
            let sent = lane.send(|bytes, is_pressed| {
                let length = mux.poll_frame(id, around.time, bytes)?;
                Some(if is_pressed { coding.encode(bytes, length) } else { length })
            });
            match sent {
                Ok(Amount::All) => {}
                Ok(Amount::Part) => amount = Amount::Part,
                Err(error) => self.lose_lane(id, &error, around),
            }
        }
        amount
    }

    fn lose_lane(&mut self, id: TunnelLane, error: &LaneError, around: &mut Around<'_>) {
        let connections = self.mux.connections().len();
        self.mux.handle_lane_down(id, around.time);
        self.forget_lane(id, around);
        if connections == 0 {
            return tracing::debug!(peer = %self.name, lane = id.0, %error, "tunnel lane down");
        }
        self.figures.lanes_lost += 1;
        tracing::warn!(peer = %self.name, lane = id.0, connections, %error, "tunnel lane lost; its connections go on");
    }

    /// Closes a lane that the core knows to be down.
    fn forget_lane(&mut self, id: TunnelLane, around: &mut Around<'_>) {
        self.dialled.remove(&id);
        if let Some(lane) = self.lanes.remove(&id) {
            around.sources.forget(lane.number);
        }
    }

    fn pump(&mut self, key: ConnectionKey, around: &mut Around<'_>) -> Amount {
        let Some(program) = self.programs.get_mut(&key) else { return Amount::All };
        let mut moved = Moved::default();
        let pumped = program.pump(&mut self.mux, key, around.scratch, &mut moved);
        match program.listener {
            Some(id) => {
                if let Some(listener) = around.listeners.get_mut(&id) {
                    listener.figures.bytes_sent += moved.sent_bytes;
                    listener.figures.bytes_received += moved.received_bytes;
                }
            }
            None => {
                self.figures.bytes_sent += moved.sent_bytes;
                self.figures.bytes_received += moved.received_bytes;
            }
        }
        pumped.unwrap_or_else(|error| {
            let (code, text) = reset_words(&error);
            self.mux.reset(key, code, &text);
            if let Some(program) = self.detach(key, around) {
                program.break_off();
            }
            Amount::All
        })
    }

    fn take_events(&mut self, around: &mut Around<'_>) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                TunnelEvent::Asked { key, target } => {
                    self.last_used = around.now;
                    self.figures.accepted += 1;
                    around.asked.push((self.name.clone(), key, target));
                }
                TunnelEvent::Opened { key }
                | TunnelEvent::Readable { key }
                | TunnelEvent::Writable { key } => {
                    self.stirred.insert(key);
                }
                TunnelEvent::Closed { key } => {
                    self.last_used = around.now;
                    drop(self.detach(key, around));
                }
                TunnelEvent::Refused { key, text, .. } => self.handle_refused(key, &text, around),
                TunnelEvent::Reset { key, text, .. } => {
                    tracing::debug!(peer = %self.name, ?key, text, "a tunnelled connection broke off");
                    match self.detach(key, around) {
                        Some(program) => program.break_off(),
                        None => around.withdrawn.push((self.name.clone(), key)),
                    }
                }
                TunnelEvent::Probed { number, rtt_ns } => {
                    if self.pings.remove(&number).is_some() {
                        around.pongs.push((number, rtt_ns, String::new()));
                    }
                }
                TunnelEvent::Silent { lane } => {
                    self.figures.lanes_lost += u64::from(!self.programs.is_empty());
                    tracing::warn!(peer = %self.name, lane = lane.0, "tunnel lane silent; its connections go on");
                    self.forget_lane(lane, around);
                }
                TunnelEvent::Stale { lane } => self.forget_lane(lane, around),
            }
        }
    }

    fn handle_refused(&mut self, key: ConnectionKey, text: &str, around: &mut Around<'_>) {
        // Why there is no lane says more than that there is none.
        let dial_error = self.last_dial_error.as_deref().filter(|_| self.lanes.is_empty());
        let text = dial_error.map_or_else(|| text.to_owned(), |error| format!("{text}: {error}"));
        tracing::warn!(peer = %self.name, text, "a tunnelled connection was refused");
        let Some(program) = self.detach(key, around) else { return };
        if let Some(listener) = program.listener.and_then(|id| around.listeners.get_mut(&id)) {
            listener.note_refusal(&text);
        }
        program.break_off();
    }

    /// Takes a program out of everything.
    fn detach(&mut self, key: ConnectionKey, around: &mut Around<'_>) -> Option<Program> {
        let program = self.programs.remove(&key)?;
        self.stirred.remove(&key);
        around.sources.forget(program.number);
        match program.listener {
            Some(id) => {
                if let Some(listener) = around.listeners.get_mut(&id) {
                    listener.figures.open -= 1;
                }
            }
            None => self.figures.accepted_open -= 1,
        }
        Some(program)
    }

    /// Time has passed. `is_wanted` = a listener leads here.
    pub(super) fn handle_time(&mut self, is_wanted: bool, around: &mut Around<'_>) {
        self.mux.handle_time(around.time);
        self.pings.retain(|_, patience| *patience > around.now);
        let idle = around.now.saturating_duration_since(self.last_used);
        if is_wanted || !self.mux.connections().is_empty() || idle < IDLE_MAX {
            return;
        }
        // Whoever dialled a lane keeps it for its own reasons: the other end cannot know them.
        for id in std::mem::take(&mut self.dialled) {
            self.mux.handle_lane_down(id, around.time);
            self.forget_lane(id, around);
        }
    }

    /// Whether acknowledgements wait for the next moment.
    pub(super) fn is_hasty(&self) -> bool {
        self.mux.is_hasty()
    }

    /// Whether it can be forgotten without a loss.
    pub(super) fn has_lane(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Ends everything, so that programs see it.
    pub(super) fn end(&mut self, text: &str, around: &mut Around<'_>) {
        for key in self.mux.connections() {
            self.mux.reset(key, Code::Draining, text);
            match self.detach(key, around) {
                Some(program) => program.break_off(),
                None => around.withdrawn.push((self.name.clone(), key)),
            }
        }
        // The last words, as far as the sockets take them at once.
        self.transmit(around);
        for id in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.mux.handle_lane_down(id, around.time);
            self.forget_lane(id, around);
        }
    }

    pub(super) fn report(&self) -> PeerReport {
        let rtt_us = u32::try_from(self.mux.rtt_ns() / 1000).unwrap_or(u32::MAX);
        PeerReport { lanes: self.lanes.len() as u16, rtt_us, ..self.figures }
    }
}

/// Pings that may be under way.
const PINGS_MAX: usize = 64;
/// Nobody waits longer for an answer.
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// One to use and one to fall back to at once.
const LANES_WANTED: u16 = 2;
/// Both ends may have dialled, and lanes that died may not be known to be dead.
const LANES_MAX: usize = 8;
/// Lanes that nobody uses any more are closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// First pause after a failed dial; doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LAST: Duration = Duration::from_secs(8);
