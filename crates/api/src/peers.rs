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
    /// What was measured of the path to it; null = nothing was sent yet.
    #[serde(default)]
    pub path: Option<PeerPath>,
}

/// What was last measured of the path to a peer, from this node's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerPath {
    /// What kind of path it is.
    pub mode: PathMode,
    /// What decides how fast it is.
    pub limit: PathLimit,
    /// Round-trip time of the busy lanes in microseconds; 0 = none was busy.
    pub rtt_us: u32,
    /// The least seen, in microseconds.
    pub rtt_min_us: u32,
    /// Share of bytes that were sent again.
    pub resent_share: f64,
    /// Bytes per second that the peer acknowledged.
    pub delivered_bytes_per_s: u64,
    /// Ceiling of all lanes together; null = none.
    pub ceiling_bytes_per_s: Option<u64>,
    /// Lanes with something to send.
    pub busy_lanes: u16,
    /// Times that its mode changed.
    pub mode_transitions: u32,
    /// When.
    pub measured_at: Timestamp,
}

/// What kind of path it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathMode {
    /// Short: the kernel's congestion control is left alone.
    Datacenter,
    /// Long: its lanes are paced together.
    Internet,
}

/// What decides how fast a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathLimit {
    /// Nothing was measured yet.
    Unknown,
    /// The path is short, and not steered.
    Short,
    /// No queue has built up yet: the lanes still grow.
    Searching,
    /// The bottleneck is full: the rate was lowered.
    Queue,
    /// More gets lost than is usual: the rate was lowered.
    Loss,
    /// The bottleneck has room: the rate is being raised.
    Room,
    /// There is not always something to send.
    Demand,
}

impl PathLimit {
    /// What an operator makes of it.
    #[must_use]
    pub fn verdict(self) -> &'static str {
        match self {
            Self::Unknown => "nothing was measured yet: send something first",
            Self::Short => "the path is short: it goes as fast as the kernel and both ends can",
            Self::Searching => {
                "no queue yet: the lanes' own congestion control is the limit, and it still grows; on a lossy path it may stay so"
            }
            Self::Queue => {
                "the link is full: a queue built up at its bottleneck, and the rate was lowered to what goes through"
            }
            Self::Loss => {
                "the link drops more than usual without a queue, as a policer does: the rate was lowered"
            }
            Self::Room => "the link is nearly full: the rate is being raised until a queue shows",
            Self::Demand => {
                "this node: there was not always something to send; look at its disk, its cores, and how small the files are"
            }
        }
    }
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
