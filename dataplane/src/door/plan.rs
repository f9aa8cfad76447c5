//! What the door is told: which peers there are and how their connections are set up. Made by the link from
//! control's plan; replaced as a whole, never changed.
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Fingerprint;

/// A peer's name: bytes as control gave them, shown as UTF-8 as far as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName(pub Arc<[u8]>);

/// Everything that may change while the door is open.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Peers that may connect and be connected to. Names and fingerprints should be unique: the first counts.
    pub peers: Vec<PlanPeer>,
    /// Whether lanes may leave TLS after the authenticated greeting; both ends must say so.
    pub payload: Payload,
    /// From the start of a connection to the end of its greeting.
    pub connect_timeout: Duration,
    /// Options of every lane's socket.
    pub socket: SocketOptions,
}

/// One peer.
#[derive(Debug, Clone)]
pub struct PlanPeer {
    /// Its name.
    pub name: PeerName,
    /// Its certificate's fingerprint.
    pub fingerprint: Fingerprint,
    /// `host:port` to dial; empty = it only dials us.
    pub address: String,
}

/// What happens to the bytes after the greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// They stay under TLS.
    Encrypted,
    /// They go in clear if the peer wishes it too, and stay under TLS otherwise.
    ClearIfBoth,
}

/// Options of a lane's socket. `TCP_NODELAY` is always set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketOptions {
    /// Name of the congestion control, as the kernel knows it; `None` = the host's default.
    pub congestion: Option<&'static str>,
    /// `SO_SNDBUF` in bytes; 0 = the kernel's autotuning.
    pub send_buffer_bytes: u32,
    /// `SO_RCVBUF` in bytes; 0 = the kernel's autotuning.
    pub receive_buffer_bytes: u32,
}

impl Plan {
    /// The peer of that name.
    #[must_use]
    pub fn by_name(&self, name: &PeerName) -> Option<&PlanPeer> {
        self.peers.iter().find(|peer| peer.name == *name)
    }

    /// The peer with that certificate.
    #[must_use]
    pub fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<&PlanPeer> {
        self.peers.iter().find(|peer| peer.fingerprint == *fingerprint)
    }
}

/// No peers, encrypted, the configuration's default time limit: what holds until control has spoken.
impl Default for Plan {
    fn default() -> Self {
        Self {
            peers: Vec::new(),
            payload: Payload::Encrypted,
            connect_timeout: Duration::from_secs(30),
            socket: SocketOptions::default(),
        }
    }
}

impl From<&[u8]> for PeerName {
    fn from(name: &[u8]) -> Self {
        Self(name.into())
    }
}

impl From<&str> for PeerName {
    fn from(name: &str) -> Self {
        name.as_bytes().into()
    }
}

impl std::fmt::Display for PeerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}
