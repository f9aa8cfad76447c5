//! Which attempts may start: circuit breakers of the node and of each peer, fed with what became of attempts. Part of
//! jobs; says every change of a breaker in the log, once.
use std::collections::BTreeMap;
use std::time::Duration;

use dwcp_policy::{Breaker, BreakerLimits, BreakerState, Breakers, Permit, Unproven};

use super::{Jobs, Live, Now, Phase};

/// The breakers, and which state of each was said last.
pub(crate) struct Gate {
    breakers: Breakers,
    said: BTreeMap<String, BreakerState>,
}

/// One breaker for people.
#[derive(Debug, Clone)]
pub(crate) struct BreakerFigures {
    pub(crate) state: BreakerState,
    pub(crate) failures_total: u64,
    /// Until a probe may pass.
    pub(crate) left: Option<Duration>,
}

impl Gate {
    pub(super) fn new(limits: BreakerLimits) -> Self {
        Self { breakers: Breakers::new(limits), said: BTreeMap::new() }
    }

    /// Takes limits and peers of a configuration.
    pub(crate) fn handle_config(&mut self, config: &dwcp_config::Config) {
        self.breakers.set_limits(limits(config));
        self.breakers.set_peers(config.peers.iter().map(|peer| peer.name.as_str()));
        self.said.retain(|name, _| name == NODE || config.peers.iter().any(|peer| peer.name == *name));
    }

    /// The node's breaker: what health found of the dataplane goes in here.
    pub(crate) fn node(&mut self) -> &mut Breaker {
        self.breakers.overall()
    }

    /// The node's breaker for people.
    pub(crate) fn node_figures(&mut self, now: Now) -> BreakerFigures {
        figures(self.breakers.overall(), now)
    }

    /// Every peer's breaker for people, by name.
    pub(crate) fn peer_figures(&mut self, now: Now) -> BTreeMap<String, BreakerFigures> {
        self.breakers.peers().map(|(name, breaker)| (name.to_owned(), figures(breaker, now))).collect()
    }

    /// An operator closes all of them, or that of one peer; false where there is none.
    pub(crate) fn reset(&mut self, peer: Option<&str>, now: Now) -> bool {
        match peer {
            None => self.breakers.reset(),
            Some(name) => match self.breakers.peer(name) {
                Some(breaker) => breaker.reset(),
                None => return false,
            },
        }
        self.say_changes(now);
        true
    }

    fn permit(&mut self, peer: &str, unproven: &Flying, now: Now) -> Permit {
        self.breakers.permit(peer, unproven.to(peer), now.uptime)
    }

    /// Logs what changed since it was looked at last.
    pub(super) fn say_changes(&mut self, now: Now) {
        let overall = (NODE.to_owned(), self.breakers.overall().state(now.uptime));
        let peers = self.breakers.peers().map(|(name, breaker)| (name.to_owned(), breaker.state(now.uptime)));
        let all: Vec<(String, BreakerState)> = std::iter::once(overall).chain(peers).collect();
        for (name, state) in all {
            let before = self.said.insert(name.clone(), state).unwrap_or(BreakerState::Closed);
            if before == state {
                continue;
            }
            let peer = (name != NODE).then_some(name.as_str());
            let (from, to) = (before.name(), state.name());
            match state {
                BreakerState::Open => {
                    tracing::warn!(component = "breaker", peer, from, to, "circuit breaker changed");
                }
                BreakerState::HalfOpen | BreakerState::Closed => {
                    tracing::info!(component = "breaker", peer, from, to, "circuit breaker changed");
                }
            }
        }
    }
}

fn figures(breaker: &mut Breaker, now: Now) -> BreakerFigures {
    let state = breaker.state(now.uptime);
    let left = breaker.open_until().map(|until| until.saturating_sub(now.uptime));
    BreakerFigures { state, failures_total: breaker.failures_total(), left }
}

pub(super) fn limits(config: &dwcp_config::Config) -> BreakerLimits {
    BreakerLimits {
        failure_threshold: config.circuit_breaker.failure_threshold,
        timeout: config.circuit_breaker.timeout,
        success_threshold: config.circuit_breaker.success_threshold,
    }
}

/// Attempts under way that have not shown yet that they work.
struct Flying {
    all: usize,
    peers: BTreeMap<String, usize>,
}

impl Flying {
    fn count<'a>(live: impl Iterator<Item = &'a Live>) -> Self {
        let mut flying = Self { all: 0, peers: BTreeMap::new() };
        let under_way = |live: &&Live| matches!(live.phase, Phase::Storing | Phase::Submitted);
        let starting = |live: &&Live| live.phase == Phase::Creating && live.record.attempt > 0;
        for live in live.filter(|live| !live.is_proven && (under_way(live) || starting(live))) {
            flying.add(&live.record.request.peer);
        }
        flying
    }

    fn add(&mut self, peer: &str) {
        self.all += 1;
        *self.peers.entry(peer.to_owned()).or_default() += 1;
    }

    fn to(&self, peer: &str) -> Unproven {
        Unproven { all: self.all, of_peer: self.peers.get(peer).copied().unwrap_or(0) }
    }
}

/// What an attempt says about its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Bytes move, or it ended well.
    Works,
    /// It was interrupted.
    Fails,
}

impl Jobs {
    /// Whether a job to that peer would start at once.
    pub(super) fn would_start(&mut self, peer: &str, now: Now) -> bool {
        let flying = Flying::count(self.live.values());
        !self.is_draining && self.gate.permit(peer, &flying, now) == Permit::Start
    }

    /// The jobs that wait and may start now, oldest first; what must go on waiting says why.
    pub(super) fn take_permitted(&mut self, now: Now) -> Vec<u64> {
        if self.is_draining {
            return Vec::new();
        }
        let mut flying = Flying::count(self.live.values());
        let mut permitted = Vec::new();
        for (id, live) in self.live.iter_mut().filter(|(_, live)| live.phase == Phase::Waiting) {
            let peer = live.record.request.peer.as_str();
            let reason = match self.gate.permit(peer, &flying, now) {
                Permit::Start => {
                    flying.add(peer);
                    if live.held_since.take().is_some() {
                        live.record.error = None;
                    }
                    permitted.push(*id);
                    continue;
                }
                Permit::WaitForNode => {
                    "waits: the circuit breaker of the node is open, because its dataplane keeps failing"
                        .to_owned()
                }
                Permit::WaitForPeer => {
                    format!(
                        "waits: the circuit breaker of peer {peer} is open, because attempts keep failing"
                    )
                }
            };
            live.held_since.get_or_insert(now.uptime);
            if live.record.error.as_ref().is_none_or(|error| !error.starts_with(&reason)) {
                live.record.error =
                    Some(match live.record.error.take().filter(|_| live.record.attempt > 0) {
                        Some(last) => format!("{reason}; the last one: {last}"),
                        None => reason,
                    });
                live.changed.send_replace(());
            }
        }
        permitted
    }

    /// Gives up jobs that were held back for too long.
    pub(super) fn give_up_held(&mut self, now: Now) {
        let is_overdue = |live: &Live| {
            live.phase == Phase::Waiting
                && live.held_since.is_some_and(|since| now.uptime.saturating_sub(since) >= HELD_MAX)
        };
        let overdue: Vec<(u64, Option<String>)> = self
            .live
            .iter()
            .filter(|(_, live)| is_overdue(live))
            .map(|(id, live)| (*id, live.record.error.clone()))
            .collect();
        for (id, error) in overdue {
            let hours = HELD_MAX.as_secs() / 3600;
            let text = format!("given up after {hours} hours: {}", error.unwrap_or_default());
            self.end(id, dwcp_api::TransferState::Failed, Some(text), now);
        }
    }

    /// An attempt of the job showed how its peer is.
    pub(super) fn handle_sign(&mut self, id: u64, sign: Sign, now: Now) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if sign == Sign::Works && std::mem::replace(&mut live.is_proven, true) {
            // One success for each attempt: a long one proves no more than a short one.
            return;
        }
        let Some(breaker) = self.gate.breakers.peer(&live.record.request.peer) else { return };
        match sign {
            Sign::Works => breaker.handle_success(now.uptime),
            Sign::Fails => breaker.handle_failure(now.uptime),
        }
        self.gate.say_changes(now);
        if sign == Sign::Works {
            self.submit_waiting(now);
        }
    }

    /// Whether anything but its own attempts holds the job's peer back.
    pub(super) fn is_held_back(&mut self, id: u64, now: Now) -> bool {
        let Some(live) = self.live.get(&id) else { return false };
        let peer = self.gate.breakers.peer(&live.record.request.peer);
        peer.is_some_and(|breaker| breaker.state(now.uptime) != BreakerState::Closed)
    }
}

/// Name of the node's breaker among those that were said; no peer can be called so.
const NODE: &str = "";
/// A job that waits for its peer's breaker for so long is given up.
const HELD_MAX: Duration = Duration::from_secs(24 * 3600);
