//! The tunnels of this node: those of the configuration, those that an operator added, and what the dataplane says of both.
//! Used by the app; what is added is durable before it is here.
use std::collections::BTreeMap;
use std::net::SocketAddr;

use dwcp_abi::link::{TunnelFigures as Figures, TunnelPeerFigures, TunnelState as State};
use dwcp_api::{TunnelFigures, TunnelOrigin, TunnelPeer, TunnelState};
use dwcp_config::{Config, Tunnel};

/// All tunnels.
#[derive(Default)]
pub(crate) struct Tunnels {
    added: BTreeMap<SocketAddr, Tunnel>,
    /// By address, as the dataplane says it.
    known: BTreeMap<String, Known>,
    peers: BTreeMap<String, TunnelPeer>,
}

struct Known {
    peer: String,
    target: String,
    state: TunnelState,
    last_error: Option<String>,
    connections: u32,
    connections_total: u64,
    refused_total: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

impl Tunnels {
    /// With those that the store kept.
    pub(crate) fn new(added: Vec<Tunnel>) -> Self {
        let added = added.into_iter().map(|tunnel| (tunnel.listen, tunnel)).collect();
        Self { added, ..Self::default() }
    }

    /// An operator's tunnel is durable.
    pub(crate) fn add(&mut self, tunnel: Tunnel) {
        // What was said before of another tunnel at this address says nothing of this one.
        self.known.remove(&tunnel.listen.to_string());
        self.added.insert(tunnel.listen, tunnel);
    }

    /// An operator's tunnel is forgotten.
    pub(crate) fn remove(&mut self, listen: SocketAddr) -> Option<Tunnel> {
        self.known.remove(&listen.to_string());
        self.added.remove(&listen)
    }

    /// An operator's tunnel.
    pub(crate) fn added(&self, listen: SocketAddr) -> Option<&Tunnel> {
        self.added.get(&listen)
    }

    /// Whether there are as many as may be.
    pub(crate) fn is_full(&self) -> bool {
        self.added.len() >= ADDED_MAX
    }

    /// Every tunnel and where it was ordered. The configuration counts where both want an address; an operator's tunnel
    /// whose peer is gone, or that may not listen there any more, waits until it may again.
    pub(crate) fn in_force(&self, config: &Config) -> Vec<(Tunnel, TunnelOrigin)> {
        let configured = config.tunnels.listen.iter().cloned();
        let mut all: Vec<_> = configured.map(|tunnel| (tunnel, TunnelOrigin::Configuration)).collect();
        let is_free =
            |tunnel: &Tunnel| !config.tunnels.listen.iter().any(|other| other.listen == tunnel.listen);
        let may = |tunnel: &Tunnel| {
            let is_known = config.peers.iter().any(|peer| peer.name == tunnel.peer);
            is_known && (tunnel.listen.ip().is_loopback() || config.tunnels.listen_beyond_loopback)
        };
        let added = self.added.values().filter(|tunnel| is_free(tunnel) && may(tunnel)).cloned();
        all.extend(added.map(|tunnel| (tunnel, TunnelOrigin::Operator)));
        all
    }

    /// The dataplane speaks of a listener. What control has not ordered is not kept.
    pub(crate) fn handle_figures(&mut self, figures: &Figures<'_>, config: &Config) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (listen, peer, target) = (text(figures.listen), text(figures.peer), text(figures.target));
        let is_ordered = self.in_force(config).iter().any(|(tunnel, _)| {
            tunnel.listen.to_string() == listen && tunnel.peer == peer && tunnel.target == target
        });
        if !is_ordered {
            return;
        }
        let last_error = crate::jobs::clean(figures.text);
        let known = Known {
            peer,
            target,
            state: match figures.state {
                State::Listening => TunnelState::Listening,
                State::Failed => TunnelState::Failed,
            },
            last_error: (!last_error.is_empty()).then_some(last_error),
            connections: figures.open,
            connections_total: figures.opened,
            refused_total: figures.refused,
            bytes_sent: figures.bytes_sent,
            bytes_received: figures.bytes_received,
        };
        self.known.insert(listen, known);
    }

    /// The dataplane speaks of a peer. Peers that are not configured are not kept.
    pub(crate) fn handle_peer(&mut self, figures: &TunnelPeerFigures<'_>, config: &Config) {
        let Ok(peer) = std::str::from_utf8(figures.peer) else { return };
        if !config.peers.iter().any(|known| known.name == peer) {
            return;
        }
        let document = TunnelPeer {
            peer: peer.to_owned(),
            lanes: figures.lanes,
            lanes_lost: figures.lanes_lost,
            rtt_us: Some(figures.rtt_us).filter(|&rtt| rtt > 0),
            accepted_connections: figures.accepted_open,
            accepted_total: figures.accepted,
            refused_total: figures.refused,
            bytes_sent: figures.bytes_sent,
            bytes_received: figures.bytes_received,
        };
        self.peers.insert(peer.to_owned(), document);
    }

    /// The dataplane went away, and with it every listener.
    pub(crate) fn handle_detached(&mut self) {
        self.known.clear();
        self.peers.clear();
    }

    /// Takes another configuration: what is not in force any more is forgotten.
    pub(crate) fn handle_config(&mut self, config: &Config) {
        let in_force = self.in_force(config);
        self.known
            .retain(|listen, _| in_force.iter().any(|(tunnel, _)| tunnel.listen.to_string() == *listen));
        self.peers.retain(|name, _| config.peers.iter().any(|peer| peer.name == *name));
    }

    /// Every tunnel for the API.
    pub(crate) fn figures(&self, config: &Config) -> Vec<TunnelFigures> {
        let mut all: Vec<TunnelFigures> =
            self.in_force(config).into_iter().map(|(tunnel, origin)| self.one(tunnel, origin)).collect();
        all.sort_by(|a, b| a.listen.cmp(&b.listen));
        all
    }

    /// Every peer that had tunnelled connections.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &TunnelPeer> {
        self.peers.values()
    }

    fn one(&self, tunnel: Tunnel, origin: TunnelOrigin) -> TunnelFigures {
        let listen = tunnel.listen.to_string();
        let known = self.known.get(&listen);
        let known = known.filter(|known| known.peer == tunnel.peer && known.target == tunnel.target);
        TunnelFigures {
            listen,
            peer: tunnel.peer,
            target: tunnel.target,
            origin,
            state: known.map_or(TunnelState::Waiting, |known| known.state),
            last_error: known.and_then(|known| known.last_error.clone()),
            connections: known.map_or(0, |known| known.connections),
            connections_total: known.map_or(0, |known| known.connections_total),
            refused_total: known.map_or(0, |known| known.refused_total),
            bytes_sent: known.map_or(0, |known| known.bytes_sent),
            bytes_received: known.map_or(0, |known| known.bytes_received),
        }
    }
}

/// Tunnels that operators may add.
const ADDED_MAX: usize = 1024;
