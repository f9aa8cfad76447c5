//! Raw counters: per core, of the node, of the kernel programs, whose names are those of the statistics pages; the
//! kernel's flows and the state of its programs.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::SchemaName;
use crate::schema::documents;

documents!(Stats = "dwcp.stats/1", FlowList = "dwcp.flows/1", KernelReport = "dwcp.kernel/1");
documents!(TransportReport = "dwcp.transport/1");

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

/// Answer of `GET /api/v1/dwcp/flows`: connections that the kernel programs follow, busiest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowList {
    /// `dwcp.flows/1`.
    pub schema: SchemaName,
    /// Whether connections are followed at all.
    pub followed: bool,
    /// Flows that were looked at; the list holds 128 of them at most.
    pub total: u64,
    /// The flows.
    pub flows: Vec<FlowFigures>,
}

/// One flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowFigures {
    /// `tcp`, `udp`, or the number of the protocol.
    pub protocol: String,
    /// Address and port of this host.
    pub local: String,
    /// Address and port of the other.
    pub remote: String,
    /// bulk, tunnel, control, consensus, other.
    pub class: String,
    /// `open`, `closed`, or `counted` where the protocol has no connections.
    pub state: String,
    /// Bytes acknowledged by the other end; for `counted` flows, bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Both directions together, lately.
    pub rate_bytes_per_s: u64,
    /// Smoothed round-trip time; null where it is not known.
    pub rtt_us: Option<u64>,
    /// The least lately.
    pub rtt_min_us: Option<u64>,
    /// Packets sent again.
    pub retransmits: u64,
    /// The rate that its class is held to; null where there is none.
    pub ceiling_bytes_per_s: Option<u64>,
    /// Since it was last heard of.
    pub idle_ms: u64,
}

/// Answer of `GET /api/v1/dwcp/kernel`: programs, maps and attachments, and what is not as it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KernelReport {
    /// `dwcp.kernel/1`.
    pub schema: SchemaName,
    /// One entry for each thing.
    pub entries: Vec<KernelEntry>,
}

/// One thing in the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KernelEntry {
    /// program, map, attached, departure, guard, pins, programs, trouble or verifier.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub detail: String,
}

/// A transport to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransportMode {
    /// RDMA queue pairs.
    Rdma,
}

/// Answer of `GET /api/v1/dwcp/debug/transport`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TransportReport {
    /// `dwcp.transport/1`.
    pub schema: SchemaName,
    /// What was looked into.
    pub mode: TransportMode,
    /// Whether lanes can go over it.
    pub usable: bool,
    /// Over what, or why not.
    pub why: String,
    /// One entry for each thing: configuration, lanes, port, gid, module, nodes or limit.
    pub entries: Vec<KernelEntry>,
}
