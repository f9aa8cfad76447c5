//! The node at a glance: what `dwcp status` prints.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::SchemaName;
use crate::schema::documents;

documents!(Status = "dwcp.status/1");

/// Answer of `GET /api/v1/dwcp/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// `dwcp.status/1`.
    pub schema: SchemaName,
    /// Whether new transfers are taken at all.
    pub enabled: bool,
    /// Version of the configuration's dialect.
    pub version: String,
    /// Roll-out phase, such as `phase1`.
    pub phase: String,
    /// The mode in use.
    pub mode: Mode,
    /// Name of the node.
    pub node_id: String,
    /// SHA-256 of the node's certificate, which peers list as its identity; null until the dataplane said it.
    pub fingerprint: Option<String>,
    /// production, staging or development.
    pub environment: String,
    /// Version of the programs.
    pub build_version: String,
    /// Since control started.
    pub uptime_seconds: u64,
    /// Share of new work that takes the newest path, 0 to 100.
    pub rollout_percentage: u8,
    /// Whether the node takes no new work and has none left.
    pub drained: bool,
    /// Peers.
    pub peers: PeersTotal,
    /// The other half.
    pub dataplane: DataplaneStatus,
    /// Lanes that stand, over all workers and peers.
    pub streams: u32,
    /// Transfers that have not ended.
    pub transfers_active: u64,
    /// Per worker, in order.
    pub cores: Vec<CoreFigures>,
}

/// How links are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Short, clean links.
    Datacenter,
    /// Long, lossy links.
    Internet,
    /// Per peer, by measurement.
    Hybrid,
}

impl Mode {
    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Datacenter => "datacenter",
            Self::Internet => "internet",
            Self::Hybrid => "hybrid",
        }
    }
}

/// Peers by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeersTotal {
    /// Configured.
    pub total: u32,
    /// With at least one lane.
    pub up: u32,
}

/// The dataplane as control sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DataplaneStatus {
    /// Whether its rings are attached.
    pub connected: bool,
    /// Its process id; null when it is not connected.
    pub pid: Option<u32>,
    /// How often it was seen to start anew since control started.
    pub restarts: u64,
    /// Number of workers.
    pub workers: u16,
    /// What the run-time probe found.
    pub features: Vec<Feature>,
}

/// One optional ability of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Feature {
    /// Such as `io_uring` or `hugepages`.
    pub name: String,
    /// Whether it is used.
    pub state: FeatureState,
    /// Why it is not, or how it is.
    pub reason: String,
}

/// Whether an ability is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FeatureState {
    /// In use.
    On,
    /// Turned off by the configuration.
    Off,
    /// The host lacks or forbids it.
    Unavailable,
}

impl FeatureState {
    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What one worker does now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CoreFigures {
    /// Number of the worker, from 0.
    pub worker: u16,
    /// The core that it is pinned to; null where it is not pinned.
    pub cpu: Option<u32>,
    /// Lanes that it carries.
    pub lanes: u32,
    /// Bytes sent since the dataplane started.
    pub bytes_sent: u64,
    /// Bytes received since the dataplane started.
    pub bytes_received: u64,
    /// Sent per second, over the last few seconds.
    pub send_rate_bytes_per_s: u64,
    /// Received per second, over the last few seconds.
    pub receive_rate_bytes_per_s: u64,
    /// Share of time that the worker did not sleep, 0 to 1; null until known.
    pub busy_ratio: Option<f64>,
}
