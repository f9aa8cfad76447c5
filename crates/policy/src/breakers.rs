//! All circuit breakers of a node: one for the dataplane, which every job passes, and one for each peer. Control's jobs
//! ask [`Breakers::permit`] before they start an attempt; what does not start waits, it does not fail.
//!
//! While a breaker is half-open only probes pass: one attempt at a time that has not shown yet whether it works.
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::time::Duration;

use crate::{Breaker, BreakerLimits, BreakerState};

/// The node's breakers.
#[derive(Debug, Clone)]
pub struct Breakers {
    overall: Breaker,
    peers: BTreeMap<String, Breaker>,
    limits: BreakerLimits,
}

/// Attempts that were started and have neither shown that they work nor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unproven {
    /// To any peer.
    pub all: usize,
    /// To the peer that is asked for.
    pub of_peer: usize,
}

/// Whether an attempt may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Start,
    /// The node's breaker holds it back.
    WaitForNode,
    /// The peer's breaker holds it back.
    WaitForPeer,
}

impl Breakers {
    /// Closed ones; peers come with [`Self::set_peers`].
    #[must_use]
    pub fn new(limits: BreakerLimits) -> Self {
        Self { overall: Breaker::new(limits), peers: BTreeMap::new(), limits }
    }

    /// Other limits from now on; states stay.
    pub fn set_limits(&mut self, limits: BreakerLimits) {
        self.limits = limits;
        self.overall.set_limits(limits);
        self.peers.values_mut().for_each(|breaker| breaker.set_limits(limits));
    }

    /// The peers that there are. Those that were there keep their state, the others are forgotten.
    pub fn set_peers<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let mut before = core::mem::take(&mut self.peers);
        for name in names {
            let breaker = before.remove(name).unwrap_or_else(|| Breaker::new(self.limits));
            self.peers.insert(name.to_owned(), breaker);
        }
    }

    /// Whether an attempt to that peer may start now. A peer that nobody knows is not held back here: its attempt
    /// fails by itself.
    pub fn permit(&mut self, peer: &str, unproven: Unproven, now: Duration) -> Permit {
        let admits = |breaker: &mut Breaker, unproven: usize| match breaker.state(now) {
            BreakerState::Closed => true,
            BreakerState::HalfOpen => unproven == 0,
            BreakerState::Open => false,
        };
        if !admits(&mut self.overall, unproven.all) {
            return Permit::WaitForNode;
        }
        let is_held_back = self.peers.get_mut(peer).is_some_and(|breaker| !admits(breaker, unproven.of_peer));
        if is_held_back { Permit::WaitForPeer } else { Permit::Start }
    }

    /// The breaker of the node.
    pub fn overall(&mut self) -> &mut Breaker {
        &mut self.overall
    }

    /// The breaker of a peer.
    pub fn peer(&mut self, name: &str) -> Option<&mut Breaker> {
        self.peers.get_mut(name)
    }

    /// All peers with their breakers, by name.
    pub fn peers(&mut self) -> impl Iterator<Item = (&str, &mut Breaker)> {
        self.peers.iter_mut().map(|(name, breaker)| (name.as_str(), breaker))
    }

    /// An operator closes all.
    pub fn reset(&mut self) {
        self.overall.reset();
        self.peers.values_mut().for_each(Breaker::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const PEERS: [&str; 3] = ["a", "b", "c"];

    fn breakers() -> Breakers {
        let mut breakers = Breakers::new(BreakerLimits::default());
        breakers.set_peers(PEERS.into_iter());
        breakers
    }

    /// What a person would do with pencil and paper: the whole history of each breaker, read again for each answer.
    #[derive(Default)]
    struct Model {
        events: BTreeMap<usize, Vec<(u64, char)>>,
    }

    impl Model {
        fn state(&self, breaker: usize, now_ms: u64) -> BreakerState {
            let (mut state, mut row, mut opened_ms) = (BreakerState::Closed, 0, 0);
            let events = self.events.get(&breaker).into_iter().flatten();
            for (at_ms, event) in events.copied().chain([(now_ms, '.')]) {
                if state == BreakerState::Open && at_ms >= opened_ms + 30_000 {
                    (state, row) = (BreakerState::HalfOpen, 0);
                }
                let next = match (state, event) {
                    (_, 'r') => (BreakerState::Closed, 0),
                    (BreakerState::Closed, 'f') if row == 4 => (BreakerState::Open, 0),
                    (BreakerState::HalfOpen, 'f') => (BreakerState::Open, 0),
                    (BreakerState::Closed, 'f') => (state, row + 1),
                    (BreakerState::Closed, 's') => (state, 0),
                    (BreakerState::HalfOpen, 's') if row == 1 => (BreakerState::Closed, 0),
                    (BreakerState::HalfOpen, 's') => (state, row + 1),
                    (state, _) => (state, row),
                };
                if next.0 == BreakerState::Open && state != BreakerState::Open {
                    opened_ms = at_ms;
                }
                (state, row) = next;
            }
            state
        }
    }

    proptest! {
        /// Failures of one peer never touch another; each answer is what the histories say.
        #[test]
        fn behave_like_the_model(steps in proptest::collection::vec((0_usize..4, 0_u8..9, 0_u64..8_000, 0_usize..2), 0..300)) {
            let mut breakers = breakers();
            let mut model = Model::default();
            let mut now_ms = 1;
            for (which, step, wait_ms, in_flight) in steps {
                now_ms += wait_ms;
                let now = Duration::from_millis(now_ms);
                let event = match step {
                    0..=3 => 'f',
                    4..=6 => 's',
                    7 => '.',
                    _ => 'r',
                };
                let breaker = match which {
                    3 => breakers.overall(),
                    peer => breakers.peer(PEERS[peer]).unwrap(),
                };
                match event {
                    'f' => breaker.handle_failure(now),
                    's' => breaker.handle_success(now),
                    'r' => breaker.reset(),
                    _ => {}
                }
                model.events.entry(which).or_default().push((now_ms, event));
                let unproven = Unproven { all: in_flight, of_peer: in_flight };
                for (index, peer) in PEERS.iter().enumerate() {
                    let admits = |state| match state {
                        BreakerState::Closed => true,
                        BreakerState::HalfOpen => in_flight == 0,
                        BreakerState::Open => false,
                    };
                    let expected = match (admits(model.state(3, now_ms)), admits(model.state(index, now_ms))) {
                        (false, _) => Permit::WaitForNode,
                        (true, false) => Permit::WaitForPeer,
                        (true, true) => Permit::Start,
                    };
                    prop_assert_eq!(breakers.permit(peer, unproven, now), expected, "{} at {}", peer, now_ms);
                }
            }
        }
    }

    #[test]
    fn half_open_lets_one_probe_through_at_a_time() {
        let mut breakers = breakers();
        let at = Duration::from_secs;
        for _ in 0..5 {
            breakers.peer("a").unwrap().handle_failure(at(0));
        }
        let none = Unproven::default();
        let one = Unproven { all: 1, of_peer: 1 };
        assert_eq!(breakers.permit("a", none, at(29)), Permit::WaitForPeer);
        assert_eq!(breakers.permit("b", one, at(29)), Permit::Start);
        assert_eq!(breakers.permit("stranger", one, at(29)), Permit::Start);
        assert_eq!(breakers.permit("a", none, at(30)), Permit::Start);
        assert_eq!(breakers.permit("a", one, at(30)), Permit::WaitForPeer);
        breakers.peer("a").unwrap().handle_success(at(31));
        assert_eq!(breakers.permit("a", one, at(31)), Permit::WaitForPeer);
        breakers.peer("a").unwrap().handle_success(at(32));
        assert_eq!(breakers.permit("a", one, at(32)), Permit::Start);
    }

    #[test]
    fn a_reload_keeps_what_is_known() {
        let mut breakers = breakers();
        let at = Duration::from_secs;
        for _ in 0..5 {
            breakers.peer("a").unwrap().handle_failure(at(0));
            breakers.peer("b").unwrap().handle_failure(at(0));
        }
        breakers.set_peers(["a", "d"].into_iter());
        breakers.set_peers(["a", "b"].into_iter());
        assert_eq!(breakers.permit("a", Unproven::default(), at(1)), Permit::WaitForPeer);
        assert_eq!(breakers.permit("b", Unproven::default(), at(1)), Permit::Start);
        breakers.set_limits(BreakerLimits { failure_threshold: 1, ..BreakerLimits::default() });
        breakers.peer("b").unwrap().handle_failure(at(1));
        assert_eq!(breakers.permit("b", Unproven::default(), at(1)), Permit::WaitForPeer);
        breakers.reset();
        assert_eq!(breakers.permit("a", Unproven::default(), at(1)), Permit::Start);
    }
}
