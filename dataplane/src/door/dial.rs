//! What is to be dialled: orders in the queue until their name is resolved and a slot is free, and the state of one
//! lane on its way through the peer's addresses. Used by [`super::turn`]; it opens no socket.
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Purpose;
use super::plan::{PeerName, PlanPeer};
use super::resolve::{Resolved, Resolver};

/// An order that has lanes left to start.
#[derive(Debug)]
pub(super) struct Waiting {
    id: u64,
    pub(super) peer: Arc<PlanPeer>,
    pub(super) token: u64,
    pub(super) purpose: Purpose,
    pub(super) lanes: u16,
    resolution: Resolution,
    resolve_by: Instant,
}

#[derive(Debug)]
enum Resolution {
    Needed,
    Running,
    Known(Arc<[SocketAddr]>),
}

/// One lane that is being dialled.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) peer: Arc<PlanPeer>,
    pub(super) token: u64,
    pub(super) purpose: Purpose,
    addresses: Arc<[SocketAddr]>,
    next: usize,
    failures: Vec<String>,
}

/// Orders, first come first served as far as every peer's share allows.
#[derive(Debug, Default)]
pub(super) struct DialQueue {
    waiting: VecDeque<Waiting>,
    next_id: u64,
}

impl DialQueue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, peer: PlanPeer, lanes: u16, order: (u64, Purpose), resolve_by: Instant) {
        let (token, purpose) = order;
        let id = self.next_id;
        self.next_id += 1;
        let resolution = match peer.address.parse() {
            Ok(address) => Resolution::Known(Arc::new([address])),
            Err(_) => Resolution::Needed,
        };
        let peer = Arc::new(peer);
        self.waiting.push_back(Waiting { id, peer, token, purpose, lanes, resolution, resolve_by });
    }

    /// Starts look-ups and takes their answers. Orders whose name has no address come back.
    pub(super) fn resolve(&mut self, resolver: &mut Resolver) -> Vec<(Waiting, io::Error)> {
        let mut failed = Vec::new();
        while let Some(Resolved { order, addresses }) = resolver.take() {
            let Some(at) = self.waiting.iter().position(|waiting| waiting.id == order) else { continue };
            match addresses {
                Ok(addresses) => self.waiting[at].resolution = Resolution::Known(addresses),
                Err(error) => failed.extend(self.waiting.remove(at).map(|waiting| (waiting, error))),
            }
        }
        for waiting in &mut self.waiting {
            if !matches!(waiting.resolution, Resolution::Needed) || !resolver.has_room() {
                continue;
            }
            match resolver.start(waiting.id, waiting.peer.address.clone()) {
                Ok(()) => waiting.resolution = Resolution::Running,
                // No thread at present: the order tries again at the next turn, until its time is over.
                Err(error) => tracing::warn!(%error, "no thread for a name look-up"),
            }
        }
        failed
    }

    /// The next lane to start, of a peer that has fewer than `per_peer_max` of them under way.
    pub(super) fn next(
        &mut self,
        under_way: &BTreeMap<PeerName, usize>,
        per_peer_max: usize,
    ) -> Option<Dial> {
        let at = self.waiting.iter().position(|waiting| {
            let busy = under_way.get(&waiting.peer.name).copied().unwrap_or(0);
            matches!(waiting.resolution, Resolution::Known(_)) && busy < per_peer_max
        })?;
        let waiting = &mut self.waiting[at];
        let Resolution::Known(addresses) = &waiting.resolution else { return None };
        let dial = Dial {
            peer: Arc::clone(&waiting.peer),
            token: waiting.token,
            purpose: waiting.purpose,
            addresses: Arc::clone(addresses),
            next: 0,
            failures: Vec::new(),
        };
        waiting.lanes -= 1;
        if waiting.lanes == 0 {
            self.waiting.remove(at);
        }
        Some(dial)
    }

    /// Takes out the orders whose names were not resolved in time.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<Waiting> {
        self.take_if(|waiting| !waiting.is_resolved() && waiting.resolve_by <= now)
    }

    /// Takes out what waits for a peer that has just proved out of reach.
    pub(super) fn take_of_peer(&mut self, peer: &PeerName) -> Vec<Waiting> {
        self.take_if(|waiting| waiting.peer.name == *peer)
    }

    /// Takes out everything.
    pub(super) fn take_all(&mut self) -> Vec<Waiting> {
        self.take_if(|_| true)
    }

    /// When [`Self::take_overdue`] may next find something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let unresolved = self.waiting.iter().filter(|waiting| !waiting.is_resolved());
        unresolved.map(|waiting| waiting.resolve_by).min()
    }

    fn take_if(&mut self, matches: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let all = std::mem::take(&mut self.waiting);
        let (taken, kept): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(matches);
        self.waiting = kept;
        Vec::from(taken)
    }
}

impl Waiting {
    fn is_resolved(&self) -> bool {
        matches!(self.resolution, Resolution::Known(_))
    }
}

impl Dial {
    /// The next address, and the share of `time_left` that it may use: one that does not answer must not take the
    /// time of those behind it.
    pub(super) fn next_address(&mut self, time_left: Duration) -> Option<(SocketAddr, Duration)> {
        let address = *self.addresses.get(self.next)?;
        let left = u32::try_from(self.addresses.len() - self.next).unwrap_or(u32::MAX);
        self.next += 1;
        Some((address, time_left / left.max(1)))
    }

    pub(super) fn note_failure(&mut self, address: SocketAddr, error: &io::Error) {
        self.failures.push(format!("{address}: {error}"));
    }

    /// What every address said that was tried to its end.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }
}
