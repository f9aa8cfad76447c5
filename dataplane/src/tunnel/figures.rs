//! What control hears of tunnels: listeners and peers, when they changed and now and then. Made by [`super::turn`], sent by
//! a worker.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use dwcp_abi::link::{Event, TunnelFigures, TunnelPeerFigures, TunnelState};

use super::listener::{Listener, ListenerFigures};
use crate::door::PeerName;

/// What changed.
#[derive(Debug, Default)]
pub struct Report {
    listeners: Vec<ListenerReport>,
    peers: Vec<(PeerName, PeerReport)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ListenerReport {
    listen: String,
    peer: PeerName,
    target: String,
    failure: Option<String>,
    figures: ListenerFigures,
}

/// Connections with a peer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerReport {
    pub(super) lanes: u16,
    pub(super) rtt_us: u32,
    pub(super) accepted_open: u32,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) lanes_lost: u64,
}

impl Report {
    /// The report as events, one after the other.
    pub(crate) fn events(&self, mut say: impl FnMut(&Event<'_>)) {
        for ListenerReport { listen, peer, target, failure, figures } in &self.listeners {
            let text = failure.as_deref().unwrap_or(&figures.last_refusal);
            say(&Event::Tunnel(TunnelFigures {
                listen: listen.as_bytes(),
                peer: &peer.0,
                target: target.as_bytes(),
                state: if failure.is_none() { TunnelState::Listening } else { TunnelState::Failed },
                open: figures.open,
                opened: figures.opened,
                refused: figures.refused,
                bytes_sent: figures.bytes_sent,
                bytes_received: figures.bytes_received,
                text: &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)],
            }));
        }
        for (peer, figures) in &self.peers {
            say(&Event::TunnelPeer(TunnelPeerFigures {
                peer: &peer.0,
                lanes: figures.lanes,
                rtt_us: figures.rtt_us,
                accepted_open: figures.accepted_open,
                accepted: figures.accepted,
                refused: figures.refused,
                bytes_sent: figures.bytes_sent,
                bytes_received: figures.bytes_received,
                lanes_lost: figures.lanes_lost,
            }));
        }
    }
}

/// Remembers what was said, so that only what changed is said again.
#[derive(Debug)]
pub(super) struct Reporter {
    listeners: HashMap<String, ListenerReport>,
    peers: HashMap<PeerName, PeerReport>,
    next: Instant,
    repeat_at: Instant,
}

impl Reporter {
    pub(super) fn new(now: Instant) -> Self {
        Self { listeners: HashMap::new(), peers: HashMap::new(), next: now, repeat_at: now }
    }

    /// Says the next report at once: an operator waits for it.
    pub(super) fn hurry(&mut self, now: Instant) {
        (self.next, self.repeat_at) = (now, now);
    }

    /// The next report, where it is time and there is anything to say. An event may have been dropped, and control may be
    /// another one: everything is repeated now and then.
    pub(super) fn poll<'a>(
        &mut self,
        now: Instant,
        listeners: impl Iterator<Item = &'a Listener>,
        peers: impl Iterator<Item = (PeerName, PeerReport)>,
    ) -> Option<Report> {
        if now < self.next {
            return None;
        }
        self.next = now + INTERVAL;
        if now >= self.repeat_at {
            self.repeat_at = now + REPEAT_INTERVAL;
            self.listeners.clear();
            self.peers.clear();
        }
        let mut report = Report::default();
        for listener in listeners {
            let one = ListenerReport {
                listen: listener.tunnel.listen.clone(),
                peer: listener.tunnel.peer.clone(),
                target: listener.tunnel.target.clone(),
                failure: listener.failure().map(str::to_owned),
                figures: listener.figures.clone(),
            };
            if self.listeners.get(&one.listen) != Some(&one) {
                self.listeners.insert(one.listen.clone(), one.clone());
                report.listeners.push(one);
            }
        }
        for (peer, one) in peers {
            if self.peers.get(&peer) != Some(&one) {
                self.peers.insert(peer.clone(), one);
                report.peers.push((peer, one));
            }
        }
        (!report.listeners.is_empty() || !report.peers.is_empty()).then_some(report)
    }
}

const INTERVAL: Duration = Duration::from_millis(500);
const REPEAT_INTERVAL: Duration = Duration::from_secs(5);
const TEXT_BYTES_MAX: usize = 400;
