//! Where the time of chunks goes, stage by stage, measured on some of them.
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::SchemaName;
use crate::schema::documents;

documents!(LatencyReport = "dwcp.latency/1");

/// Query of `GET /api/v1/dwcp/debug/latency`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LatencyQuery {
    /// Only chunks of this transfer of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    /// Only chunks to and from this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// Answer of `GET /api/v1/dwcp/debug/latency`: the newest timed chunks of each worker, at most 128.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LatencyReport {
    /// `dwcp.latency/1`.
    pub schema: SchemaName,
    /// From the read at this node to the peer's acknowledgement.
    pub sent: LatencyBreakdown,
    /// From the announcement of a chunk to its write at this node.
    pub received: LatencyBreakdown,
}

/// The chunks of one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LatencyBreakdown {
    /// Chunks that were timed.
    pub chunks: u64,
    /// Stages in the order in which a chunk goes through them. Their sums are the sum of `total`.
    pub stages: Vec<StageTimes>,
    /// From the first stage's beginning to the last one's end.
    pub total: StageTimes,
    /// The last of the chunks, newest first, at most 16.
    pub latest: Vec<ChunkTimes>,
}

/// Time that chunks took for one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageTimes {
    /// read, hash, queue, code, socket, acknowledgement; buffer, receive, check, decode, place, hash, write; total.
    pub stage: String,
    /// Median in nanoseconds; 0 without chunks.
    pub p50_ns: u64,
    /// What 99 of 100 took at most.
    pub p99_ns: u64,
    /// Sum over all chunks.
    pub sum_ns: u64,
}

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChunkTimes {
    /// The worker that had it.
    pub worker: u16,
    /// The peer; null where it is not configured any more.
    pub peer: Option<String>,
    /// The transfer; null where the peer has numbered it.
    pub job: Option<u64>,
    /// Plain bytes.
    pub bytes: u64,
    /// Since its last stage ended.
    pub age_ms: u64,
    /// Nanoseconds of each stage.
    pub stages_ns: Vec<u64>,
    /// Their sum.
    pub total_ns: u64,
}
