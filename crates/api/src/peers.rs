//! The peers that the configuration names, and what is known of them.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema::documents;
use crate::{BreakerState, SchemaName, Timestamp};

documents!(PeerList = "dwcp.peers/1");

/// Answer of `GET /api/v1/dwcp/peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerList {
    /// `dwcp.peers/1`.
    pub schema: SchemaName,
    /// By name.
    pub peers: Vec<PeerFigures>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerFigures {
    /// Its name in the configuration.
    pub name: String,
    /// `host:port` that is dialled; null = it only dials this node.
    pub address: Option<String>,
    /// SHA-256 of its certificate, as the configuration has it.
    pub fingerprint: String,
    /// Whether lanes stand.
    pub state: PeerState,
    /// Its circuit breaker.
    #[serde(default = "BreakerState::usual")]
    pub circuit_breaker: BreakerState,
    /// Lanes that stand, over all workers.
    pub lanes: u32,
    /// Whether their payload is encrypted; null without lanes.
    pub encrypted: Option<bool>,
    /// When a lane last came up or went down; null = never.
    pub changed_at: Option<Timestamp>,
    /// Why the last lane went down, where it was not in good order.
    pub last_error: Option<String>,
}

/// Whether lanes to a peer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// At least one lane stands.
    Up,
    /// No lane, and none is wanted.
    Idle,
    /// No lane, and the last try or lane failed.
    Down,
}

impl PeerState {
    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Down => "down",
        }
    }
}
