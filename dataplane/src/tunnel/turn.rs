//! The tunnels' thread: messages, sockets that are ready, targets on their way, peers one after the other, asleep in
//! `epoll_wait` between. Nothing in a turn blocks, and every batch has a bound, so that no peer waits for long for another.
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dwcp_engine::ConnectionKey;

use super::coding::Coding;
use super::figures::Reporter;
use super::lane::Amount;
use super::listener::Listener;
use super::peer::{Around, Peer};
use super::program;
use super::sources::{Ready, Source, Sources};
use super::target::{Asked, Refusal, Target, judge};
use super::{Message, TunnelInbox};
use crate::door::resolve::{Resolved, Resolver};
use crate::door::{DialOrder, DoorHandle, PeerName, Purpose};
use crate::node::{Inbox, Node};
use crate::plan::Plan;

/// The thread's state.
pub(super) struct Turn {
    inbox: TunnelInbox,
    door: DoorHandle,
    node: Arc<Node>,
    plan: Arc<Plan>,
    sources: Sources,
    resolver: Resolver,
    listeners: BTreeMap<u64, Listener>,
    targets: HashMap<u64, Target>,
    /// Names that wait for a resolver.
    names: Vec<(u64, String)>,
    peers: HashMap<PeerName, Peer>,
    asked: Vec<(PeerName, ConnectionKey, Vec<u8>)>,
    withdrawn: Vec<(PeerName, ConnectionKey)>,
    pongs: Vec<(u64, u64, String)>,
    coding: Coding,
    scratch: Vec<u8>,
    reporter: Reporter,
    start: Instant,
    next_chores: Instant,
    /// Listeners of a former life that nobody needs any more are closed.
    is_settled: bool,
    is_stopping: bool,
}

impl Turn {
    pub(super) fn new(inbox: TunnelInbox, door: DoorHandle, node: Arc<Node>) -> io::Result<Self> {
        let mut sources = Sources::new()?;
        sources.add(&*inbox.wake, Source::Wake)?;
        let resolver = Resolver::new(RESOLVERS_MAX, Arc::clone(&inbox.wake));
        let start = Instant::now();
        Ok(Self {
            inbox,
            door,
            node,
            plan: Arc::default(),
            sources,
            resolver,
            listeners: BTreeMap::new(),
            targets: HashMap::new(),
            names: Vec::new(),
            peers: HashMap::new(),
            asked: Vec::new(),
            withdrawn: Vec::new(),
            pongs: Vec::new(),
            coding: Coding::new(),
            scratch: vec![0; SCRATCH_BYTES],
            reporter: Reporter::new(start),
            start,
            next_chores: start,
            is_settled: false,
            is_stopping: false,
        })
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        let mut amount = Amount::All;
        while !self.is_stopping {
            ready.clear();
            self.inbox.turns.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.sources.wait(self.timeout_ms(amount), &mut ready) {
                // Without it nothing can be moved: the process ends, and another one is started.
                return tracing::error!(%error, "the tunnels' thread lost its kernel interface");
            }
            for (source, how) in ready.drain(..) {
                self.take_ready(source, how);
            }
            self.take_messages();
            self.accept();
            amount = self.work();
            self.see_to_targets();
            for (token, rtt_ns, text) in self.pongs.drain(..) {
                self.node.post(REPORTING_WORKER, Inbox::Pong { token, rtt_ns, text });
            }
            if Instant::now() >= self.next_chores {
                self.chores();
            }
        }
        self.each_peer(|peer, around| peer.end("the dataplane stops", around));
    }

    fn timeout_ms(&self, amount: Amount) -> u16 {
        match amount {
            Amount::Part => 0,
            Amount::All if self.peers.values().any(Peer::is_hasty) => HASTY_MS,
            Amount::All if self.peers.is_empty() && self.listeners.is_empty() => IDLE_MS,
            Amount::All => CHORES_MS,
        }
    }

    fn take_ready(&mut self, source: Source, ready: Ready) {
        match source {
            Source::Wake => {
                // Emptied before the messages are taken: a ring from now on is heard in the next turn.
                let _ = self.inbox.wake.read();
            }
            Source::Listener(id) => {
                if let Some(listener) = self.listeners.get_mut(&id) {
                    listener.handle_ready();
                }
            }
            Source::Target(id) => {
                if ready.writable {
                    self.target_is_writable(id);
                }
            }
            Source::Lane(peer, lane) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.lane_is_ready(lane, ready);
                }
            }
            Source::Program(peer, key) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.program_is_ready(key, ready);
                }
            }
        }
    }

    fn take_messages(&mut self) {
        while let Ok(message) = self.inbox.messages.try_recv() {
            match message {
                Message::Plan(plan) => self.follow(plan),
                Message::Lane(ready) => {
                    let name = ready.peer.clone();
                    self.at_peer(&name, |peer, around| peer.lane_up(*ready, around));
                }
                Message::DialFailed(failed) => {
                    tracing::warn!(peer = %failed.peer, reason = failed.reason, "dial for tunnels failed");
                    self.at_peer(&failed.peer, |peer, around| {
                        peer.dial_failed(failed.lanes, failed.reason.clone(), around);
                    });
                }
                Message::Ping { peer, token } => self.ping(&peer, token),
                Message::Stop => self.is_stopping = true,
            }
        }
    }

    fn ping(&mut self, name: &PeerName, token: u64) {
        match self.way_to(name) {
            Ok(()) => {
                self.at_peer(name, |peer, around| peer.ping(token, around));
                // Lanes are dialled at once where there are none.
                self.next_chores = Instant::now();
            }
            Err(text) => self.node.post(REPORTING_WORKER, Inbox::Pong { token, rtt_ns: 0, text }),
        }
    }

    /// Another plan: listeners come and go, and so do peers. Connections of a listener that goes run to their end.
    fn follow(&mut self, plan: Arc<Plan>) {
        self.plan = Arc::clone(&plan);
        self.coding.follow(&plan.transport);
        let (sources, node) = (&mut self.sources, &self.node);
        self.listeners.retain(|_, listener| {
            let stays = plan.tunnels.contains(&listener.tunnel);
            if let Some(number) = listener.number().filter(|_| !stays) {
                sources.forget(number);
                listener.close(&node.listeners);
            }
            stays
        });
        let now = Instant::now();
        for tunnel in &plan.tunnels {
            if !self.listeners.values().any(|listener| listener.tunnel == *tunnel) {
                self.listeners.insert(self.sources.number(), Listener::new(tunnel.clone(), now));
            }
        }
        let gone = |name: &PeerName| !plan.peers.iter().any(|peer| peer.name == *name);
        let gone: Vec<PeerName> = self.peers.keys().filter(|name| gone(name)).cloned().collect();
        for name in gone {
            self.at_peer(&name, |peer, around| peer.end("the peer is not in the plan any more", around));
            self.peers.remove(&name);
        }
        self.next_chores = now;
        self.reporter.hurry(now);
    }

    /// Takes connections of programs.
    fn accept(&mut self) {
        let ids: Vec<u64> = self.listeners.keys().copied().collect();
        for id in ids {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(listener) = self.listeners.get_mut(&id) else { break };
                let Some(stream) = listener.accept() else { break };
                let (name, target) = (listener.tunnel.peer.clone(), listener.tunnel.target.clone());
                let begun = match self.way_to(&name) {
                    Err(why) => {
                        program::break_off(&stream);
                        Err(why)
                    }
                    Ok(()) => self.at_peer(&name, |peer, around| peer.begin(stream, id, &target, around)),
                };
                if let (Err(why), Some(listener)) = (begun, self.listeners.get_mut(&id)) {
                    tracing::warn!(
                        listen = listener.tunnel.listen,
                        why,
                        "a tunnelled connection was refused"
                    );
                    listener.note_refusal(&why);
                }
            }
        }
    }

    /// Whether there is, or can be, a lane to a peer.
    fn way_to(&self, name: &PeerName) -> Result<(), String> {
        let Some(peer) = self.plan.peers.iter().find(|peer| peer.name == *name) else {
            return Err(format!("the peer `{name}` is not in the configuration: add it below `peers`"));
        };
        if peer.address.is_empty() && !self.peers.get(name).is_some_and(Peer::has_lane) {
            return Err(format!(
                "the peer `{name}` has no address, and keeps no lane for tunnels to this node: add its address below `peers`"
            ));
        }
        Ok(())
    }

    fn work(&mut self) -> Amount {
        let mut amount = Amount::All;
        self.each_peer(|peer, around| {
            if peer.work(around) == Amount::Part {
                amount = Amount::Part;
            }
        });
        amount
    }

    /// Targets that were asked for, or withdrawn, or whose names were looked up.
    fn see_to_targets(&mut self) {
        for (peer, key) in std::mem::take(&mut self.withdrawn) {
            self.targets.retain(|_, target| target.key != key || target.peer != peer);
        }
        for (name, key, target) in std::mem::take(&mut self.asked) {
            match judge(&self.plan, &name, &target) {
                Err(refusal) => self.refuse(&name, key, &refusal),
                Ok(asked) => {
                    let id = self.sources.number();
                    let mut state = Target::new(name, key, &target, Instant::now());
                    match asked {
                        Asked::Address(address) => {
                            // An address needs no look-up, which cannot fail then.
                            drop(state.handle_resolved(Ok(Arc::new([address]))));
                            self.targets.insert(id, state);
                            self.connect(id);
                        }
                        Asked::Name(name) => {
                            self.targets.insert(id, state);
                            self.names.push((id, name));
                        }
                    }
                }
            }
        }
        self.resolve();
    }

    fn resolve(&mut self) {
        while self.resolver.has_room() {
            let Some((id, name)) = self.names.pop() else { break };
            if self.targets.contains_key(&id)
                && let Err(error) = self.resolver.start(id, name)
            {
                tracing::warn!(%error, "no thread for a name look-up");
            }
        }
        while let Some(Resolved { order, addresses }) = self.resolver.take() {
            let Some(target) = self.targets.get_mut(&order) else { continue };
            match target.handle_resolved(addresses) {
                Ok(()) => self.connect(order),
                Err(refusal) => self.drop_target(order, &refusal),
            }
        }
    }

    /// Tries the target's next address.
    fn connect(&mut self, id: u64) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        let started = target.connect_next(Instant::now()).and_then(|stream| {
            self.sources.add(stream, Source::Target(id)).map_err(|error| {
                (dwcp_abi::wire::Code::Io, format!("the node has no room for a socket: {error}"))
            })
        });
        match started {
            Ok(number) => target.number = number,
            Err(refusal) => self.drop_target(id, &refusal),
        }
    }

    fn target_is_writable(&mut self, id: u64) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        let number = target.number;
        match target.finish() {
            None => {
                self.sources.forget(number);
                self.connect(id);
            }
            Some(stream) => {
                let Some(Target { peer, key, .. }) = self.targets.remove(&id) else { return };
                self.at_peer(&peer, |peer, around| peer.connected(key, stream, number, around));
            }
        }
    }

    fn drop_target(&mut self, id: u64, refusal: &Refusal) {
        if let Some(target) = self.targets.remove(&id) {
            self.sources.forget(target.number);
            self.refuse(&target.peer, target.key, refusal);
        }
    }

    fn refuse(&mut self, peer: &PeerName, key: ConnectionKey, (code, text): &Refusal) {
        self.at_peer(peer, |peer, _| peer.refuse(key, *code, text));
    }

    /// What time brings: late words, silent lanes, slow targets, dials, listeners, figures.
    fn chores(&mut self) {
        let now = Instant::now();
        let pause = if self.peers.values().any(Peer::is_hasty) { HASTY_MS } else { CHORES_MS };
        self.next_chores = now + Duration::from_millis(u64::from(pause));
        let late: Vec<u64> =
            self.targets.iter().filter(|(_, target)| target.is_late(now)).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(target) = self.targets.get_mut(&id) {
                target.note_late();
                self.connect(id);
            }
        }
        for (id, listener) in &mut self.listeners {
            if listener.is_due(now) {
                let watch = |socket: &std::net::TcpListener| self.sources.add(socket, Source::Listener(*id));
                listener.open(now, &self.node.listeners, watch);
                self.reporter.hurry(now);
            }
        }
        // All that the first plan names listen by now.
        if self.plan.generation != 0 && !std::mem::replace(&mut self.is_settled, true) {
            self.node.listeners.release_rest();
        }
        self.keep_lanes(now);
        let peers = self.peers.iter().map(|(name, peer)| (name.clone(), peer.report()));
        if let Some(report) = self.reporter.poll(now, self.listeners.values(), peers) {
            self.node.post(REPORTING_WORKER, Inbox::Tunnels(Box::new(report)));
        }
    }

    /// Lets peers notice the time, and dials what is missing.
    fn keep_lanes(&mut self, now: Instant) {
        let plan = Arc::clone(&self.plan);
        let wanted = |name: &PeerName| plan.tunnels.iter().any(|tunnel| tunnel.peer == *name);
        let known: Vec<PeerName> = self.peers.keys().cloned().collect();
        for peer in plan.peers.iter().filter(|peer| !peer.address.is_empty()) {
            if wanted(&peer.name) && !self.peers.contains_key(&peer.name) {
                self.peers.insert(peer.name.clone(), Peer::new(peer.name.clone(), now));
            }
            let Some(state) = self.peers.get_mut(&peer.name) else { continue };
            let lanes = state.lanes_to_dial(wanted(&peer.name), now);
            let order = DialOrder { peer: peer.name.clone(), lanes, token: 0, purpose: Purpose::Tunnels };
            if lanes > 0 && self.door.dial(order).is_err() {
                let reason = "the door takes no order at present".to_owned();
                self.at_peer(&peer.name, |peer, around| peer.dial_failed(lanes, reason, around));
            }
        }
        for name in known {
            let is_wanted = wanted(&name);
            self.at_peer(&name, |peer, around| peer.handle_time(is_wanted, around));
        }
    }

    /// Does something with a peer, and everything that belongs to none.
    fn at_peer<R>(&mut self, name: &PeerName, act: impl FnOnce(&mut Peer, &mut Around<'_>) -> R) -> R {
        let now = Instant::now();
        let peer = self.peers.entry(name.clone()).or_insert_with(|| Peer::new(name.clone(), now));
        let mut around = Around {
            sources: &mut self.sources,
            listeners: &mut self.listeners,
            coding: &mut self.coding,
            scratch: &mut self.scratch,
            asked: &mut self.asked,
            withdrawn: &mut self.withdrawn,
            pongs: &mut self.pongs,
            now,
            time: now.duration_since(self.start).as_nanos() as u64,
        };
        act(peer, &mut around)
    }

    fn each_peer(&mut self, mut act: impl FnMut(&mut Peer, &mut Around<'_>)) {
        let now = Instant::now();
        let mut around = Around {
            sources: &mut self.sources,
            listeners: &mut self.listeners,
            coding: &mut self.coding,
            scratch: &mut self.scratch,
            asked: &mut self.asked,
            withdrawn: &mut self.withdrawn,
            pongs: &mut self.pongs,
            now,
            time: now.duration_since(self.start).as_nanos() as u64,
        };
        for peer in self.peers.values_mut() {
            act(peer, &mut around);
        }
    }
}

/// The worker that tells control.
const REPORTING_WORKER: u16 = 0;
const RESOLVERS_MAX: usize = 4;
const ACCEPTS_PER_TURN: usize = 64;
const SCRATCH_BYTES: usize = 64 * 1024;
/// While acknowledgements wait.
const HASTY_MS: u16 = 20;
const CHORES_MS: u16 = 200;
const IDLE_MS: u16 = 1000;
