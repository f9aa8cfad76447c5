//! Clusters: members, what they agree on, and how well they do.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::SchemaName;
use crate::schema::documents;

documents!(
    ClusterMembers = "dwcp.cluster-members/1",
    ClusterToken = "dwcp.cluster-token/1",
    ClusterValue = "dwcp.cluster-value/1",
    ConsensusStatus = "dwcp.consensus/1",
    ConsensusSuspects = "dwcp.consensus-byzantine/1",
);

/// Answer of `GET /api/v1/dwcp/cluster/members`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterMembers {
    /// `dwcp.cluster-members/1`.
    pub schema: SchemaName,
    /// The cluster's name, 64 hexadecimal digits.
    pub cluster: String,
    /// Number of this node.
    pub replica: u16,
    /// Which epoch it is: each change of members or protocol begins another.
    pub epoch: u64,
    /// `raft`, `pbft`, `bullshark`, `tpbft` or `probft`.
    pub algorithm: String,
    /// By number.
    pub members: Vec<ClusterMember>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterMember {
    /// Its number.
    pub replica: u16,
    /// Its name.
    pub name: String,
    /// Where its control listens for members.
    pub address: String,
    /// Where it stands.
    pub region: String,
    /// SHA-256 of its certificate.
    pub identity: String,
    /// Whether its vote counts in this epoch.
    pub votes: bool,
    /// Share of all trust, from 0 to 1; null where trust decides nothing.
    pub trust: Option<f64>,
    /// Whether it was shown to have lied.
    pub suspect: bool,
}

/// Body of `POST /api/v1/dwcp/cluster/members`: this node asks to be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterJoinRequest {
    /// `host:port` where the member listens that made the token.
    pub peer: String,
    /// What `dwcp cluster token` printed there.
    pub token: String,
    /// How this node presents itself.
    #[serde(flatten)]
    pub node: ClusterNode,
}

/// How a node presents itself. Body of `POST /api/v1/dwcp/cluster`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterNode {
    /// Its name; the configured one where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// `host:port` for the others; `consensus.address` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Query of `DELETE /api/v1/dwcp/cluster/members`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ClusterLeaveQuery {
    /// Name of the member that is let go; this node where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Answer of `POST /api/v1/dwcp/cluster/token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterToken {
    /// `dwcp.cluster-token/1`.
    pub schema: SchemaName,
    /// Admits one node, at this member, until it expires.
    pub token: String,
    /// Where it is to be used.
    pub peer: String,
    /// Until it expires.
    pub expires_in_seconds: u64,
}

/// Body of `PUT /api/v1/dwcp/cluster/values/{key}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterPut {
    /// The value.
    pub value: String,
    /// Only where the present version is this; 0: only where there is no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
}

/// Answer of `GET`, `PUT` and `DELETE /api/v1/dwcp/cluster/values/{key}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterValue {
    /// `dwcp.cluster-value/1`.
    pub schema: SchemaName,
    /// Its key.
    pub key: String,
    /// The value; null where there is none.
    pub value: Option<String>,
    /// The position that set it last; null where that is not known any more.
    pub version: Option<u64>,
    /// Whether the same request had been applied before.
    pub repeated: bool,
}

/// Body of `PUT /api/v1/dwcp/consensus/{group}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsensusChange {
    /// `raft`, `pbft`, `bullshark`, `tpbft` or `probft`.
    pub algorithm: String,
}

/// Answer of `GET /api/v1/dwcp/consensus/{group}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConsensusStatus {
    /// `dwcp.consensus/1`.
    pub schema: SchemaName,
    /// The group: `cluster`.
    pub group: String,
    /// Which epoch it is.
    pub epoch: u64,
    /// `raft`, `pbft`, `bullshark`, `tpbft` or `probft`.
    pub algorithm: String,
    /// Whether a command came through lately.
    pub deciding: bool,
    /// Whether this node has the state that the epoch began with.
    pub running: bool,
    /// Last position applied here.
    pub position: u64,
    /// Last position that a quorum signed the state of.
    pub stable: u64,
    /// View or round.
    pub mark: u64,
    /// Members whose votes count.
    pub committee: Vec<u16>,
    /// How many of them may be faulty.
    pub faulty_max: usize,
    /// Other members that this node reaches.
    pub reached: u64,
    /// Messages sent, received, lost in full queues, and refused as unsound.
    pub messages: ConsensusMessages,
    /// Leaders that this node gave up.
    pub leaders_given_up: u64,
    /// States that it took from others.
    pub transfers: u64,
    /// Certificates that exclude each other: more members are faulty than may be.
    pub conflicts: u64,
    /// Slots or rounds held.
    pub log_length: usize,
    /// Batches held.
    pub batches: usize,
    /// Replicated values.
    pub values: usize,
    /// Commands of this node that wait.
    pub waiting: usize,
    /// From submission to application at this node, as upper bounds; null before the first.
    pub latency_ms_p50: Option<f64>,
    /// The same for 99 of 100.
    pub latency_ms_p99: Option<f64>,
    /// Why this node takes no part; null where it does.
    pub trouble: Option<String>,
}

/// Counted messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsensusMessages {
    /// Sent to other members.
    pub sent: u64,
    /// Received of them.
    pub received: u64,
    /// Lost because a queue was full.
    pub dropped: u64,
    /// Refused: of another epoch, falsely signed, beyond a bound.
    pub refused: u64,
}

/// Answer of `GET /api/v1/dwcp/consensus/{group}/byzantine`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConsensusSuspects {
    /// `dwcp.consensus-byzantine/1`.
    pub schema: SchemaName,
    /// Members that were shown to have signed two statements that exclude each other, since control started.
    pub suspects: Vec<ClusterMember>,
}
