//! The door's thread: orders, look-ups, dials, arrivals and greetings, one turn after the other, asleep in `poll`
//! between them. Nothing in a turn blocks, and every batch has a bound.
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use dwcp_abi::wire::hello::FEATURE_RDMA;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::accept::{Arrival, Gate, source_of};
use super::attempt::{Attempt, Origin, Phase};
use super::counters::{Counters, Verdict};
use super::dial::{Dial, DialQueue};
use super::handshake::{Handshake, Progress, Terms};
use super::plan::{PeerName, Plan};
use super::report;
use super::resolve::Resolver;
use super::tls::Tls;
use super::{DialFailed, DialFailure, DialOrder, Direction, DoorConfig, LaneSink, Order, Purpose, socket};
use crate::identity::{Fingerprint, Identity};
use crate::rdma::Rdma;

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
    pub(super) parts: Parts,
    tls: Tls,
    pub(super) own: Fingerprint,
    pub(super) plan: Arc<Plan>,
    has_plan: bool,
    pub(super) queue: DialQueue,
    resolver: Resolver,
    pub(super) attempts: BTreeMap<u64, Attempt>,
    next_id: u64,
    warned: Option<Instant>,
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
            has_plan: false,
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
            self.parts.counters.count_turn();
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
        self.has_plan = true;
    }

    fn take_order(&mut self, order: DialOrder) {
        let DialOrder { peer, lanes, token, purpose } = order;
        let refuse =
            |failure, reason| DialFailed { peer: peer.clone(), token, purpose, lanes, failure, reason };
        let failed = match self.plan.by_name(&peer) {
            None => refuse(DialFailure::NoPeer, report::no_peer(&peer)),
            Some(known) if known.address.is_empty() => refuse(DialFailure::NoPeer, report::no_address(&peer)),
            Some(_) if self.queue.len() >= self.config.limits.orders_max => {
                refuse(DialFailure::Busy, format!("too many dials wait: the peer `{peer}` must wait"))
            }
            Some(_) if lanes == 0 => return,
            Some(known) => {
                let resolve_by = Instant::now() + self.plan.connect_timeout;
                return self.queue.push(known.clone(), lanes, (token, purpose), resolve_by);
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
                let reason = report::unreachable(&dial.peer.name, &dial.failures().join("; "));
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
                    self.parts.counters.count_pause();
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
        let terms = self.terms(Purpose::Tunnels);
        let handshake =
            match Handshake::accept(&self.tls, &stream, Arc::clone(&self.plan), terms, &self.config.rdma) {
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

    pub(super) fn advance(&mut self, id: u64) {
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
        let (expected, token, purpose) = (dial.peer.fingerprint, dial.token, dial.purpose);
        let rdma = &self.config.rdma;
        let mut terms = self.terms(purpose);
        if purpose == Purpose::Jobs && rdma.offers(&dial.peer.name, Instant::now()) {
            terms.features |= FEATURE_RDMA;
        }
        match Handshake::dial(&self.tls, expected, &attempt.stream, terms, (token, purpose), rdma) {
            Ok(handshake) => {
                attempt.phase =
                    Phase::Greeting { handshake: Box::new(handshake), wanted: Progress::Writable };
                self.attempts.insert(id, attempt);
                self.advance(id);
            }
            Err(error) => self.fail_greeting(id, attempt, &error),
        }
    }

    pub(super) fn connect_failed(&mut self, attempt: Attempt, error: &io::Error) {
        let Attempt { remote, started, deadline, origin, .. } = attempt;
        let Origin::Dialled(mut dial) = origin else { return };
        dial.note_failure(remote, error);
        self.connect(dial, started, deadline);
    }

    /// Sleeps until a socket is ready, somebody rings, or the next deadline.
    fn wait(&self) -> Vec<Ready> {
        let now = Instant::now();
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        // Before the first plan nobody can be known: who comes then, as after a restart, waits in the listener's queue.
        let open = self.has_plan && self.count(Direction::Accepted) < self.config.limits.accepting_max;
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
            Err(error) => {
                // No memory in the kernel, or a limit of descriptors below our own: neither must make this loop spin.
                tracing::error!(%error, descriptors = polled.len(), "poll failed");
                thread::park_timeout(POLL_PAUSE);
                return Vec::new();
            }
        }
        let ready = polled.iter().map(|polled| polled.any().unwrap_or(true));
        sources.into_iter().zip(ready).filter_map(|(source, ready)| ready.then_some(source)).collect()
    }

    fn timeout(&self, now: Instant) -> PollTimeout {
        let attempts = self.attempts.values().map(Attempt::due);
        let pauses = self.parts.gates.iter().filter_map(|gate| gate.paused_until(now));
        let due = attempts.chain(pauses).chain(self.queue.next_deadline());
        // Without anything to do too: the watchdog looks at the turns.
        let until = due.chain([now + IDLE_INTERVAL]).min().unwrap_or(now);
        // Rounded up, so that the deadline has passed when poll returns.
        let wait = until.saturating_duration_since(now) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    pub(super) fn rdma(&self) -> &Rdma {
        &self.config.rdma
    }

    fn count(&self, direction: Direction) -> usize {
        self.attempts.values().filter(|attempt| attempt.direction() == direction).count()
    }

    /// What is offered to diallers for any purpose, and by this node for one.
    fn terms(&self, purpose: Purpose) -> Terms {
        Terms {
            versions: self.config.versions,
            features: self.config.features | purpose.features(),
            instance: self.config.instance,
            chunk_length_max: self.config.chunk_length_max,
            credit_bytes: self.config.credit_bytes,
            payload: self.plan.payload,
        }
    }

    /// What strangers can cause must not fill the log: one warning a second.
    pub(super) fn warn(&mut self, warn: impl FnOnce()) {
        let now = Instant::now();
        if self.warned.is_none_or(|warned| now.duration_since(warned) >= WARNING_INTERVAL) {
            self.warned = Some(now);
            warn();
        }
    }
}

const POLL_PAUSE: Duration = Duration::from_millis(100);
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
const ORDERS_PER_TURN: usize = 256;
const WARNING_INTERVAL: Duration = Duration::from_secs(1);
