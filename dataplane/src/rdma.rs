//! Whether lanes may go over RDMA: what the plan wants, the device that there is, and the peers towards whom it has
//! failed. The door asks before each greeting and makes queue pairs here; workers say what broke.
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dwcp_abi::wire::rdma::PairEnd;
use dwcp_sys::rdma::{Device, Prepared, RdmaError};

use crate::door::PeerName;

/// What the plan says of RDMA.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Whether it may be used; or why not.
    pub refusal: Option<&'static str>,
    /// Name of the device; empty = the first with an active port.
    pub device: String,
    /// Number of the port.
    pub port: u8,
}

/// Of a plan that does not ask for it.
pub const NOT_WANTED: &str = "transport.enable_rdma is false";
/// Of a plan that asks for what queue pairs do not keep.
const PACED: &str = "lanes are held to a rate (transport.pacing_rate, a limit of bandwidth, classes.bulk.flow_rate), which queue pairs do not keep";

impl Wanted {
    /// From a message of control.
    #[must_use]
    pub fn from_message(message: &dwcp_abi::link::Rdma<'_>) -> Self {
        let device = String::from_utf8_lossy(message.device).into_owned();
        let refusal = (!message.wanted).then_some(NOT_WANTED);
        Self { refusal, device, port: message.port }
    }

    /// Lanes are to keep a rate.
    pub fn refuse_paced(&mut self) {
        self.refusal.get_or_insert(PACED);
    }

    /// It is not wanted, and why.
    #[must_use]
    pub fn not(refusal: &'static str) -> Self {
        Self { refusal: Some(refusal), ..Self::default() }
    }
}

/// One per node.
#[derive(Debug)]
pub struct Rdma(Mutex<State>);

#[derive(Debug)]
struct State {
    wanted: Wanted,
    device: Option<Arc<Device>>,
    /// Why there is no device.
    why: String,
    trust: Trust,
}

impl Default for Rdma {
    fn default() -> Self {
        let wanted = Wanted::not("no plan came yet");
        Self(Mutex::new(State { wanted, device: None, why: String::new(), trust: Trust::default() }))
    }
}

impl Rdma {
    /// A new plan. Looks for the device at once, so that the probe can say what it found.
    pub fn want(&self, wanted: Wanted) {
        let mut state = self.state();
        if state.wanted != wanted {
            state.device = None;
            state.wanted = wanted;
        }
        state.find_device();
    }

    /// Whether a lane to or from this peer may try RDMA now.
    #[must_use]
    pub fn offers(&self, peer: &PeerName, now: Instant) -> bool {
        let mut state = self.state();
        state.wanted.refusal.is_none() && state.trust.allows(peer, now) && state.find_device().is_some()
    }

    /// Makes a queue pair; see [`Device::prepare`].
    ///
    /// # Errors
    /// [`RdmaError`].
    pub fn prepare(&self, near: IpAddr, theirs: Option<&PairEnd>) -> Result<Prepared, RdmaError> {
        let device = self.state().find_device();
        let Some(device) = device else { return Err(RdmaError::Unavailable(self.state().why.clone())) };
        let prepared = device.prepare(near, theirs);
        if let Err(RdmaError::Unavailable(why)) = &prepared {
            // Another device, or the same one anew, may be there at the next lane.
            let mut state = self.state();
            state.device = None;
            state.why.clone_from(why);
        }
        prepared
    }

    /// A queue pair to this peer broke: its next lanes are TCP connections for a while.
    pub fn broke(&self, peer: &PeerName, why: &str, now: Instant) {
        let pause = self.state().trust.broke(peer, now);
        if let Some(pause) = pause {
            tracing::warn!(%peer, why, pause_s = pause.as_secs(), "RDMA failed: lanes to this peer are TCP connections meanwhile");
        }
    }

    /// A lane over a queue pair has done its work.
    pub fn worked(&self, peer: &PeerName) {
        self.state().trust.worked(peer);
    }

    /// Whether a lane to this peer that is a TCP connection should make way for one over RDMA: RDMA had failed, and may be
    /// tried again.
    #[must_use]
    pub fn is_due(&self, peer: &PeerName, now: Instant) -> bool {
        self.state().trust.is_due(peer, now)
    }

    /// The line of the probe: what it is, `on` or `off`, and the device or the reason.
    #[must_use]
    pub fn line(&self) -> String {
        let mut state = self.state();
        if let Some(refusal) = state.wanted.refusal {
            return format!("rdma\toff\t{refusal}\n");
        }
        match state.find_device() {
            Some(device) => {
                let port = device.port();
                format!("rdma\ton\t{} port {}, packets of {} bytes\n", port.device, port.port, device.mtu())
            }
            None => format!("rdma\tunavailable\t{}\n", state.why),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find_device(&mut self) -> Option<Arc<Device>> {
        if self.wanted.refusal.is_some() {
            return None;
        }
        if self.device.as_ref().is_some_and(|device| !device.is_usable()) {
            self.device = None;
        }
        if self.device.is_none() {
            match Device::open(&self.wanted.device, self.wanted.port) {
                Ok(device) => self.device = Some(device),
                Err(error) => self.why = error.to_string(),
            }
        }
        self.device.clone()
    }
}

/// Peers towards whom RDMA has failed. No clock of its own.
#[derive(Debug, Default)]
struct Trust {
    peers: HashMap<PeerName, Failed>,
}

#[derive(Debug)]
struct Failed {
    until: Instant,
    pause: Duration,
}

/// First pause after a failure; doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_LAST: Duration = Duration::from_secs(600);

impl Trust {
    fn allows(&self, peer: &PeerName, now: Instant) -> bool {
        self.peers.get(peer).is_none_or(|failed| now >= failed.until)
    }

    fn is_due(&self, peer: &PeerName, now: Instant) -> bool {
        self.peers.get(peer).is_some_and(|failed| now >= failed.until)
    }

    /// All lanes of a path break together: that is one failure. Says the pause that begins.
    fn broke(&mut self, peer: &PeerName, now: Instant) -> Option<Duration> {
        if !self.allows(peer, now) {
            return None;
        }
        let pause = self.peers.get(peer).map_or(PAUSE_FIRST, |failed| (failed.pause * 2).min(PAUSE_LAST));
        self.peers.insert(peer.clone(), Failed { until: now + pause, pause });
        Some(pause)
    }

    fn worked(&mut self, peer: &PeerName) {
        self.peers.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_left_alone_for_longer_and_longer() {
        let (mut trust, start) = (Trust::default(), Instant::now());
        let (peer, other) = (PeerName::from("b"), PeerName::from("c"));
        assert!(trust.allows(&peer, start));
        assert_eq!(trust.broke(&peer, start), Some(PAUSE_FIRST));
        assert_eq!(trust.broke(&peer, start), None, "its other lanes broke with it");
        assert!(!trust.allows(&peer, start) && trust.allows(&other, start));
        let again = start + PAUSE_FIRST;
        assert!(trust.allows(&peer, again));
        assert!(trust.is_due(&peer, again) && !trust.is_due(&peer, start) && !trust.is_due(&other, again));
        assert_eq!(trust.broke(&peer, again), Some(PAUSE_FIRST * 2));
        let mut now = again;
        for _ in 0..20 {
            now += PAUSE_LAST;
            trust.broke(&peer, now);
        }
        assert!(!trust.allows(&peer, now) && trust.allows(&peer, now + PAUSE_LAST));
        trust.worked(&peer);
        assert!(trust.allows(&peer, now));
        assert_eq!(trust.broke(&peer, now), Some(PAUSE_FIRST));
    }

    #[test]
    fn the_probe_says_why_there_is_none() {
        let rdma = Rdma::default();
        assert_eq!(rdma.line(), "rdma\toff\tno plan came yet\n");
        rdma.want(Wanted { refusal: None, device: "no-such-device".into(), port: 1 });
        assert!(rdma.line().starts_with("rdma\tunavailable\t"), "{}", rdma.line());
        assert!(!rdma.offers(&PeerName::from("b"), Instant::now()));
        assert!(rdma.prepare(IpAddr::from([127, 0, 0, 1]), None).is_err());
        rdma.want(Wanted::not("transport.enable_rdma is false"));
        assert_eq!(rdma.line(), "rdma\toff\ttransport.enable_rdma is false\n");
    }
}
