//! Raw counters: per core, of the node, of the kernel programs. Names are those of the statistics pages.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::SchemaName;
use crate::schema::documents;

documents!(Stats = "dwcp.stats/1");

/// Answer of `GET /api/v1/dwcp/stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// `dwcp.stats/1`.
    pub schema: SchemaName,
    /// One entry per worker, in order.
    pub cores: Vec<CoreStats>,
    /// Counters and gauges of the whole node. Units are in the names.
    pub node: BTreeMap<String, u64>,
    /// Figures of the kernel programs.
    pub bpf: BpfStats,
}

/// Counters of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CoreStats {
    /// Number of the worker, from 0.
    pub worker: u16,
    /// The core that it is pinned to; null where it is not pinned.
    pub cpu: Option<u32>,
    /// Counters and gauges. Units are in the names.
    pub counters: BTreeMap<String, u64>,
}

/// Figures of the kernel programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BpfStats {
    /// Whether the classifier is attached.
    pub loaded: bool,
    /// Why not, or by what means it is.
    pub reason: String,
    /// Per class, direction and core.
    pub classes: Vec<BpfClass>,
}

/// Packets of one class in one direction on one core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BpfClass {
    /// bulk, tunnel, control, consensus, other.
    pub class: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// The core that counted.
    pub cpu: u32,
    /// Packets.
    pub packets: u64,
    /// Bytes, headers included.
    pub bytes: u64,
}
