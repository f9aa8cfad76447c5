//! What is known of each configured peer, from lane events. Used by the app; names that are not configured are not
//! kept, so that nothing grows with what the dataplane says.
use std::collections::BTreeMap;

use dwcp_abi::link::{LaneChange, PathFigures};
use dwcp_api::{BreakerState, PathMode, PeerFigures, PeerPath, PeerState, Timestamp};
use dwcp_config::Config;

use crate::health::FromPolicy;
use crate::jobs::{BreakerFigures, Now};

/// All configured peers.
#[derive(Default)]
pub(crate) struct Peers {
    known: BTreeMap<String, Known>,
}

struct Known {
    address: String,
    fingerprint: String,
    /// Lanes by worker.
    lanes: BTreeMap<usize, u16>,
    is_encrypted: bool,
    changed_ms: Option<u64>,
    last_error: Option<String>,
    is_failing: bool,
    path: Option<PeerPath>,
}

impl Peers {
    /// Takes the peers of a new configuration; what is known of those that stay is kept.
    pub(crate) fn handle_config(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.known);
        for peer in &config.peers {
            let (address, fingerprint) = (peer.address.clone(), peer.identity.to_string());
            let known = match before.remove(&peer.name) {
                Some(known) if known.fingerprint == fingerprint => Known { address, ..known },
                _ => Known::new(address, fingerprint),
            };
            self.known.insert(peer.name.clone(), known);
        }
    }

    /// A lane came up or went down.
    pub(crate) fn handle_lane(&mut self, worker: usize, change: &LaneChange<'_>, now: Now) {
        let Ok(name) = std::str::from_utf8(change.peer) else { return };
        let Some(known) = self.known.get_mut(name) else { return };
        known.lanes.insert(worker, change.lanes);
        known.changed_ms = Some(now.unix_ms);
        let text = crate::jobs::clean(change.text);
        if change.up {
            (known.is_encrypted, known.is_failing) = (change.encrypted, false);
        } else if !text.is_empty() {
            (known.last_error, known.is_failing) = (Some(text), true);
        }
    }

    /// The dataplane has measured a path.
    pub(crate) fn handle_path(&mut self, path: &PathFigures<'_>, now: Now) {
        let Ok(name) = std::str::from_utf8(path.peer) else { return };
        let Some(known) = self.known.get_mut(name) else { return };
        known.path = Some(PeerPath {
            mode: if path.internet { PathMode::Internet } else { PathMode::Datacenter },
            limit: crate::paths::limit(path.limit),
            rtt_us: path.rtt_us,
            rtt_min_us: path.rtt_min_us,
            resent_share: f64::from(path.resent_millionths) / 1e6,
            delivered_bytes_per_s: path.delivered_bytes_per_s,
            ceiling_bytes_per_s: Some(path.ceiling_bytes_per_s).filter(|&rate| rate > 0),
            busy_lanes: path.busy,
            mode_transitions: path.transitions,
            measured_at: Timestamp::from_unix_ms(now.unix_ms),
        });
    }

    /// Mode changes of all paths since the dataplane started.
    pub(crate) fn mode_transitions(&self) -> u64 {
        let paths = self.known.values().filter_map(|known| known.path.as_ref());
        paths.map(|path| u64::from(path.mode_transitions)).sum()
    }

    /// The dataplane went away: its lanes are unknown.
    pub(crate) fn handle_detached(&mut self) {
        for known in self.known.values_mut() {
            known.lanes.clear();
        }
    }

    /// Number of peers with at least one lane.
    pub(crate) fn up(&self) -> usize {
        self.known.values().filter(|known| known.total() > 0).count()
    }

    /// Names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// The known name that is most like this one.
    pub(crate) fn nearest(&self, name: &str) -> Option<String> {
        dwcp_config::nearest(name, self.names()).map(str::to_owned)
    }

    /// Every peer for the API.
    pub(crate) fn figures(&self, breakers: &BTreeMap<String, BreakerFigures>) -> Vec<PeerFigures> {
        let state = |name: &String| {
            breakers.get(name).map_or(dwcp_policy::BreakerState::Closed, |breaker| breaker.state)
        };
        let one =
            |(name, known): (&String, &Known)| known.figures(name, BreakerState::from_policy(state(name)));
        self.known.iter().map(one).collect()
    }
}

impl Known {
    fn new(address: String, fingerprint: String) -> Self {
        Self {
            address,
            fingerprint,
            lanes: BTreeMap::new(),
            is_encrypted: false,
            changed_ms: None,
            last_error: None,
            is_failing: false,
            path: None,
        }
    }

    fn total(&self) -> u32 {
        self.lanes.values().map(|lanes| u32::from(*lanes)).sum()
    }

    fn figures(&self, name: &str, circuit_breaker: BreakerState) -> PeerFigures {
        let lanes = self.total();
        let state = match (lanes > 0, self.is_failing) {
            (true, _) => PeerState::Up,
            (false, true) => PeerState::Down,
            (false, false) => PeerState::Idle,
        };
        PeerFigures {
            name: name.to_owned(),
            address: Some(self.address.clone()).filter(|address| !address.is_empty()),
            fingerprint: self.fingerprint.clone(),
            state,
            circuit_breaker,
            lanes,
            encrypted: (lanes > 0).then_some(self.is_encrypted),
            changed_at: self.changed_ms.map(Timestamp::from_unix_ms),
            last_error: self.last_error.clone(),
            path: self.path.clone(),
        }
    }
}
