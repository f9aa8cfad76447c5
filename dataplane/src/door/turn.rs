//! The door's thread: orders, look-ups, dials, arrivals and greetings, one turn after the other, asleep in `poll`
//! between them. Nothing in a turn blocks, and every batch has a bound.
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::accept::{Arrival, Gate, source_of};
use super::counters::{Counters, Verdict};
use super::dial::{Dial, DialQueue, Waiting};
use super::handshake::{Greeted, Handshake, HandshakeError, Progress, Terms};
use super::parting::{PARTING_TIME, Parting};
use super::plan::{PeerName, Plan};
use super::report::{self, Dialled};
use super::resolve::Resolver;
use super::tls::Tls;
use super::{DialFailed, DialFailure, DialOrder, Direction, DoorConfig, LaneReady, LaneSink, Order, socket};
use crate::identity::{Fingerprint, Identity};

/// What the thread is made of.
pub(super) struct Parts {
    pub(super) gates: Vec<Gate>,
    pub(super) orders: Receiver<Order>,
    pub(super) wake: Arc<EventFd>,
    pub(super) counters: Arc<Counters>,
    pub(super) sink: Box<dyn LaneSink>,
}

/// The thread's state.
pub(super) struct Turn {
    config: DoorConfig,
    parts: Parts,
    tls: Tls,
    own: Fingerprint,
    plan: Arc<Plan>,
    queue: DialQueue,
    resolver: Resolver,
    attempts: BTreeMap<u64, Attempt>,
    next_id: u64,
    warned: Option<Instant>,
}

/// One connection without a finished greeting.
struct Attempt {
    stream: TcpStream,
    remote: SocketAddr,
    started: Instant,
    deadline: Instant,
    origin: Origin,
    phase: Phase,
}

enum Origin {
    Dialled(Dial),
    Accepted,
    /// Its end has been reported.
    Over(Direction),
}

enum Phase {
    /// This address may take until then.
    Connecting {
        until: Instant,
    },
    Greeting {
        handshake: Box<Handshake>,
        wanted: Progress,
    },
    Parting(Parting),
}

/// What `poll` woke up for.
#[derive(Clone, Copy)]
enum Ready {
    Gate(usize),
    Attempt(u64),
}

enum Flow {
    GoOn,
    Stop,
}

impl Turn {
    pub(super) fn new(config: DoorConfig, identity: &Identity, parts: Parts) -> Self {
        let resolver = Resolver::new(config.limits.resolvers_max, Arc::clone(&parts.wake));
        Self {
            config,
            parts,
            tls: Tls::new(identity),
            own: identity.fingerprint(),
            plan: Arc::default(),
            queue: DialQueue::default(),
            resolver,
            attempts: BTreeMap::new(),
            next_id: 0,
            warned: None,
        }
    }

    /// Until an order says stop. Orders are taken between waking up and looking at sockets, so that a plan holds for
    /// everybody who connects after it was given.
    pub(super) fn run(mut self) {
        loop {
            self.resolve();
            self.start_dials();
            self.parts.counters.set_half_open(self.attempts.len());
            let ready = self.wait();
            if matches!(self.take_orders(), Flow::Stop) {
                return self.close();
            }
            for ready in ready {
                match ready {
                    Ready::Gate(index) => self.accept(index),
                    Ready::Attempt(id) => self.advance(id),
                }
            }
            self.expire();
        }
    }

    fn take_orders(&mut self) -> Flow {
        // Emptied before the channel is: a ring from now on is heard in the next turn. An error says that nobody rang.
        let _ = self.parts.wake.read();
        for _ in 0..ORDERS_PER_TURN {
            match self.parts.orders.try_recv() {
                Ok(Order::SetPlan(plan)) => self.set_plan(plan),
                Ok(Order::Dial(order)) => self.take_order(order),
                Ok(Order::Stop) => return Flow::Stop,
                Err(_) => return Flow::GoOn,
            }
        }
        // There may be more of them: the next turn must not sleep. An error says that it will not.
        let _ = self.parts.wake.write(1);
        Flow::GoOn
    }

    fn set_plan(&mut self, plan: Arc<Plan>) {
        for gate in &self.parts.gates {
            gate.set_options(&plan.socket);
        }
        self.plan = plan;
    }

    fn take_order(&mut self, order: DialOrder) {
        let DialOrder { peer, lanes, token } = order;
        let refuse = |failure, reason| DialFailed { peer: peer.clone(), token, lanes, failure, reason };
        let failed = match self.plan.by_name(&peer) {
            None => refuse(DialFailure::NoPeer, report::no_peer(&peer)),
            Some(known) if known.address.is_empty() => refuse(DialFailure::NoPeer, report::no_address(&peer)),
            Some(_) if self.queue.len() >= self.config.limits.orders_max => {
                refuse(DialFailure::Busy, format!("too many dials wait: the peer `{peer}` must wait"))
            }
            Some(_) if lanes == 0 => return,
            Some(known) => {
                let resolve_by = Instant::now() + self.plan.connect_timeout;
                return self.queue.push(known.clone(), lanes, token, resolve_by);
            }
        };
        self.parts.sink.dial_failed(failed);
    }

    fn resolve(&mut self) {
        for (waiting, error) in self.queue.resolve(&mut self.resolver) {
            let reason = report::unresolved(&waiting.peer, &error.to_string());
            self.drop_waiting(waiting, DialFailure::Unresolved, reason);
        }
    }

    fn start_dials(&mut self) {
        let limits = self.config.limits;
        loop {
            let mut under_way = BTreeMap::<PeerName, usize>::new();
            for attempt in self.attempts.values() {
                if let Origin::Dialled(dial) = &attempt.origin {
                    *under_way.entry(dial.peer.name.clone()).or_default() += 1;
                }
            }
            if self.count(Direction::Dialled) >= limits.dialling_max {
                return;
            }
            let Some(dial) = self.queue.next(&under_way, limits.dialling_per_peer_max) else { return };
            let now = Instant::now();
            self.connect(dial, now, now + self.plan.connect_timeout);
        }
    }

    /// Tries the dial's remaining addresses, as far as the first that does not fail at once.
    fn connect(&mut self, mut dial: Dial, started: Instant, deadline: Instant) {
        loop {
            let now = Instant::now();
            let time_left = deadline.saturating_duration_since(now);
            let Some((remote, share)) = dial.next_address(time_left) else {
                let reason = report::unreachable(&dial.peer.name, &dial.failures());
                self.parts.counters.count(Verdict::Failed);
                return self.fail_dial(&dial, DialFailure::Unreachable, reason);
            };
            match socket::start_connect(remote, &self.plan.socket) {
                Ok(stream) => {
                    let phase = Phase::Connecting { until: now + share };
                    let origin = Origin::Dialled(dial);
                    return self.add(Attempt { stream, remote, started, deadline, origin, phase });
                }
                Err(error) => dial.note_failure(remote, &error),
            }
        }
    }

    fn add(&mut self, attempt: Attempt) {
        self.attempts.insert(self.next_id, attempt);
        self.next_id += 1;
    }

    fn accept(&mut self, index: usize) {
        let limits = self.config.limits;
        while self.count(Direction::Accepted) < limits.accepting_max {
            let now = Instant::now();
            let Some(gate) = self.parts.gates.get_mut(index) else { return };
            match gate.accept(now, &self.plan.socket) {
                Arrival::Connection(stream, remote) => self.admit(stream, remote, now),
                Arrival::Nobody => return,
                Arrival::Lost(error) => tracing::debug!(%error, "an arriving connection was lost"),
                Arrival::Paused(error) => {
                    return self.warn(|| tracing::warn!(%error, "no connections can be accepted at present"));
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, remote: SocketAddr, started: Instant) {
        let source = source_of(remote);
        let accepted = self.attempts.values().filter(|attempt| attempt.direction() == Direction::Accepted);
        let of_source = accepted.filter(|attempt| source_of(attempt.remote) == source).count();
        if of_source >= self.config.limits.accepting_per_source_max {
            self.parts.counters.count_turned_away();
            return self.warn(|| tracing::warn!(%remote, "too many unfinished connections of one source"));
        }
        let handshake = match Handshake::accept(&self.tls, Arc::clone(&self.plan), self.terms()) {
            Ok(handshake) => Box::new(handshake),
            Err(error) => {
                self.parts.counters.count(Verdict::Failed);
                return tracing::error!(%error, "TLS cannot be set up");
            }
        };
        let deadline = started + self.plan.connect_timeout;
        let phase = Phase::Greeting { handshake, wanted: Progress::Readable };
        self.add(Attempt { stream, remote, started, deadline, origin: Origin::Accepted, phase });
    }

    fn advance(&mut self, id: u64) {
        let Some(mut attempt) = self.attempts.remove(&id) else { return };
        match &mut attempt.phase {
            Phase::Connecting { .. } => self.finish_connect(id, attempt),
            Phase::Greeting { handshake, wanted } => match handshake.advance(&mut attempt.stream, &self.plan)
            {
                Ok(Progress::Complete) => self.finish_greeting(attempt),
                Ok(progress) => {
                    *wanted = progress;
                    self.attempts.insert(id, attempt);
                }
                Err(error) => {
                    handshake.say_farewell(&mut attempt.stream);
                    self.fail_greeting(id, attempt, &error);
                }
            },
            Phase::Parting(parting) => {
                if !parting.drain(&mut attempt.stream) {
                    self.attempts.insert(id, attempt);
                }
            }
        }
    }

    fn finish_connect(&mut self, id: u64, mut attempt: Attempt) {
        let Origin::Dialled(dial) = &attempt.origin else { return };
        if let Err(error) = socket::connected(&attempt.stream) {
            return self.connect_failed(attempt, &error);
        }
        let (expected, token) = (dial.peer.fingerprint, dial.token);
        match Handshake::dial(&self.tls, expected, &attempt.stream, self.terms(), token) {
            Ok(handshake) => {
                attempt.phase =
                    Phase::Greeting { handshake: Box::new(handshake), wanted: Progress::Writable };
                self.attempts.insert(id, attempt);
                self.advance(id);
            }
            Err(error) => self.fail_greeting(id, attempt, &error),
        }
    }

    fn connect_failed(&mut self, attempt: Attempt, error: &io::Error) {
        let Attempt { remote, started, deadline, origin, .. } = attempt;
        let Origin::Dialled(mut dial) = origin else { return };
        dial.note_failure(remote, error);
        self.connect(dial, started, deadline);
    }

    fn finish_greeting(&mut self, attempt: Attempt) {
        let Attempt { stream, remote, origin, phase, .. } = attempt;
        let Phase::Greeting { handshake, .. } = phase else { return };
        let finished = handshake.finish().and_then(|greeted| {
            stream.set_nonblocking(false)?;
            Ok(greeted)
        });
        match finished {
            Ok(greeted) => self.hand_over(stream, remote, &origin, greeted),
            Err(error) => self.report_failure(&origin, remote, &error),
        }
    }

    fn hand_over(&mut self, stream: TcpStream, remote: SocketAddr, origin: &Origin, greeted: Greeted) {
        let Greeted { fingerprint, agreement, secrets } = greeted;
        let peer = self.plan.by_fingerprint(&fingerprint).map(|peer| peer.name.clone());
        let expected = match origin {
            Origin::Dialled(dial) => Some(&dial.peer.name),
            Origin::Accepted | Origin::Over(_) => peer.as_ref(),
        };
        let Some(peer) = peer.as_ref().filter(|peer| Some(*peer) == expected) else {
            // The plan has changed since the greeting began.
            let error = HandshakeError::Identity { presented: fingerprint };
            return self.report_failure(origin, remote, &error);
        };
        self.parts.counters.count_success();
        self.parts.sink.lane_ready(LaneReady {
            fd: stream.into(),
            peer: peer.clone(),
            direction: origin.direction(),
            instance: agreement.instance,
            token: agreement.token,
            version: agreement.version,
            features: agreement.features,
            chunk_length_max: agreement.chunk_length_max,
            credit_bytes: agreement.credit_bytes,
            secrets,
            remote,
        });
    }

    fn fail_greeting(&mut self, id: u64, attempt: Attempt, error: &HandshakeError) {
        let Attempt { stream, remote, started, deadline, origin, .. } = attempt;
        self.report_failure(&origin, remote, error);
        let Some(parting) = Parting::begin(&stream) else { return };
        let deadline = deadline.min(Instant::now() + PARTING_TIME);
        let origin = Origin::Over(origin.direction());
        let phase = Phase::Parting(parting);
        self.attempts.insert(id, Attempt { stream, remote, started, deadline, origin, phase });
        self.advance(id);
    }

    fn report_failure(&mut self, origin: &Origin, remote: SocketAddr, error: &HandshakeError) {
        let verdict = report::verdict(error);
        self.parts.counters.count(verdict);
        match origin {
            Origin::Dialled(dial) => {
                let dialled = Dialled { peer: &dial.peer, remote, own: self.own };
                let (failure, reason) = report::handshake_failed(dialled, error);
                self.fail_dial(dial, failure, reason);
            }
            Origin::Accepted if verdict == Verdict::Refused => {
                self.warn(|| tracing::warn!(%remote, %error, "a connection was refused"));
            }
            Origin::Accepted | Origin::Over(_) => tracing::debug!(%remote, %error, "a connection failed"),
        }
    }

    fn fail_dial(&mut self, dial: &Dial, failure: DialFailure, reason: String) {
        if failure.concerns_peer() {
            for waiting in self.queue.take_of_peer(&dial.peer.name) {
                self.drop_waiting(waiting, failure, reason.clone());
            }
        }
        let (peer, token) = (dial.peer.name.clone(), dial.token);
        self.parts.sink.dial_failed(DialFailed { peer, token, lanes: 1, failure, reason });
    }

    fn drop_waiting(&mut self, waiting: Waiting, failure: DialFailure, reason: String) {
        let Waiting { token, lanes, .. } = waiting;
        let peer = waiting.peer.name.clone();
        self.parts.sink.dial_failed(DialFailed { peer, token, lanes, failure, reason });
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for waiting in self.queue.take_overdue(now) {
            let reason = report::unresolved(&waiting.peer, "no answer in time");
            self.drop_waiting(waiting, DialFailure::Unresolved, reason);
        }
        let overdue = self.attempts.iter().filter(|(_, attempt)| attempt.due() <= now);
        for id in overdue.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(attempt) = self.attempts.remove(&id) else { continue };
            match (&attempt.origin, &attempt.phase) {
                (Origin::Dialled(_), Phase::Connecting { .. }) if now < attempt.deadline => {
                    self.connect_failed(attempt, &io::ErrorKind::TimedOut.into());
                }
                (Origin::Dialled(dial), _) => {
                    self.parts.counters.count(Verdict::TimedOut);
                    let seconds = attempt.deadline.duration_since(attempt.started).as_secs_f32();
                    let tried = dial.failures() + &attempt.remote.to_string();
                    let reason = report::timed_out(&dial.peer.name, &tried, seconds);
                    self.fail_dial(dial, DialFailure::TimedOut, reason);
                }
                (Origin::Accepted, _) => {
                    self.parts.counters.count(Verdict::TimedOut);
                    tracing::debug!(remote = %attempt.remote, "a connection was not complete in time");
                }
                (Origin::Over(_), _) => {}
            }
        }
    }

    /// Sleeps until a socket is ready, somebody rings, or the next deadline.
    fn wait(&self) -> Vec<Ready> {
        let now = Instant::now();
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        let open = self.count(Direction::Accepted) < self.config.limits.accepting_max;
        for (index, gate) in self.parts.gates.iter().enumerate() {
            if open && gate.paused_until(now).is_none() {
                sources.push(Ready::Gate(index));
                polled.push(PollFd::new(gate.as_fd(), PollFlags::POLLIN));
            }
        }
        for (id, attempt) in &self.attempts {
            sources.push(Ready::Attempt(*id));
            polled.push(PollFd::new(attempt.stream.as_fd(), attempt.interest()));
        }
        polled.push(PollFd::new(self.parts.wake.as_fd(), PollFlags::POLLIN));
        match poll(&mut polled, self.timeout(now)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("poll of {} descriptors: {error}", polled.len()),
        }
        let ready = polled.iter().map(|polled| polled.any().unwrap_or(true));
        sources.into_iter().zip(ready).filter_map(|(source, ready)| ready.then_some(source)).collect()
    }

    fn timeout(&self, now: Instant) -> PollTimeout {
        let attempts = self.attempts.values().map(Attempt::due);
        let pauses = self.parts.gates.iter().filter_map(|gate| gate.paused_until(now));
        let Some(until) = attempts.chain(pauses).chain(self.queue.next_deadline()).min() else {
            return PollTimeout::NONE;
        };
        // Rounded up, so that the deadline has passed when poll returns.
        let wait = until.saturating_duration_since(now) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    /// Everything unfinished ends here, and whoever waits for it hears so.
    fn close(mut self) {
        let reason = |peer: &PeerName| format!("this node is stopping: no lane to the peer `{peer}`");
        for attempt in std::mem::take(&mut self.attempts).into_values() {
            if let Origin::Dialled(dial) = &attempt.origin {
                self.fail_dial(dial, DialFailure::Busy, reason(&dial.peer.name));
            }
        }
        for waiting in self.queue.take_all() {
            let reason = reason(&waiting.peer.name);
            self.drop_waiting(waiting, DialFailure::Busy, reason);
        }
        self.parts.counters.set_half_open(0);
    }

    fn count(&self, direction: Direction) -> usize {
        self.attempts.values().filter(|attempt| attempt.direction() == direction).count()
    }

    fn terms(&self) -> Terms {
        Terms {
            versions: self.config.versions,
            features: self.config.features,
            instance: self.config.instance,
            chunk_length_max: self.config.chunk_length_max,
            credit_bytes: self.config.credit_bytes,
            payload: self.plan.payload,
        }
    }

    /// What strangers can cause must not fill the log: one warning a second.
    fn warn(&mut self, warn: impl FnOnce()) {
        let now = Instant::now();
        if self.warned.is_none_or(|warned| now.duration_since(warned) >= WARNING_INTERVAL) {
            self.warned = Some(now);
            warn();
        }
    }
}

impl Attempt {
    fn direction(&self) -> Direction {
        self.origin.direction()
    }

    /// When it will have taken too long.
    fn due(&self) -> Instant {
        match self.phase {
            Phase::Connecting { until } => until.min(self.deadline),
            Phase::Greeting { .. } | Phase::Parting(_) => self.deadline,
        }
    }

    fn interest(&self) -> PollFlags {
        match &self.phase {
            Phase::Connecting { .. } | Phase::Greeting { wanted: Progress::Writable, .. } => {
                PollFlags::POLLOUT
            }
            Phase::Greeting { wanted: Progress::Readable | Progress::Complete, .. } | Phase::Parting(_) => {
                PollFlags::POLLIN
            }
        }
    }
}

impl Origin {
    fn direction(&self) -> Direction {
        match self {
            Self::Dialled(_) => Direction::Dialled,
            Self::Accepted => Direction::Accepted,
            Self::Over(direction) => *direction,
        }
    }
}

const ORDERS_PER_TURN: usize = 256;
const WARNING_INTERVAL: Duration = Duration::from_secs(1);
