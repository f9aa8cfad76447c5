//! What a node is made of and what happens to it: components, compression figures, draining, events.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::schema::documents;
use crate::{ComponentState, Mode, SchemaName, Timestamp};

documents!(
    ComponentList = "dwcp.components/1",
    CompressionStats = "dwcp.compression-stats/1",
    DrainStatus = "dwcp.drain/1",
    EventList = "dwcp.events/1",
    LogLines = "dwcp.logs/1",
    ModeDocument = "dwcp.mode/1",
);

/// Answer of `GET /api/v1/dwcp/components`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentList {
    /// `dwcp.components/1`.
    pub schema: SchemaName,
    /// Six of them, in their fixed order.
    pub components: Vec<ComponentFigures>,
}

/// One component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentFigures {
    /// amst, hde, pba, ass, acp, itp; its metrics begin with `dwcp_` and this.
    pub id: String,
    /// What the letters stand for.
    pub name: String,
    /// The other reading of the letters, which is a function within the component.
    pub function: String,
    /// How it is.
    pub state: ComponentState,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Answer of `GET /api/v1/dwcp/hde/stats`: what compression of outgoing chunks did since the dataplane started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompressionStats {
    /// `dwcp.compression-stats/1`.
    pub schema: SchemaName,
    /// Whether the configuration has it on.
    pub enabled: bool,
    /// The configured codec.
    pub algorithm: String,
    /// Original by compressed bytes over five minutes; null until 1 MiB was compressed.
    pub ratio: Option<f64>,
    /// Percent saved over five minutes; null until 1 MiB was compressed.
    pub savings_percent: Option<f64>,
    /// Bytes given to the codec.
    pub bytes_original: u64,
    /// Bytes that it made of them, differences included.
    pub bytes_compressed: u64,
    /// Bytes of chunks that were sent as differences to what the receiver has.
    pub delta_bytes_original: u64,
    /// Bytes of those differences.
    pub delta_bytes_sent: u64,
    /// Share of the files that a receiver had a former version of, and this node as well; null before the first.
    pub delta_hit_rate: Option<f64>,
    /// Chunks of differences that could not be made here, and were asked for as they are.
    pub delta_chunks_unmade: u64,
    /// Versions of sent files that are kept.
    pub baselines: u64,
    /// Bytes of them.
    pub baseline_bytes: u64,
}

/// Answer of everything about draining.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainStatus {
    /// `dwcp.drain/1`.
    pub schema: SchemaName,
    /// Whether the node takes no new transfers and starts none.
    pub draining: bool,
    /// Whether that is so and none is under way.
    pub drained: bool,
    /// Transfers under way.
    pub under_way: u64,
    /// Transfers that wait until the node is no longer draining, here or after its next start.
    pub waiting: u64,
}

/// Body and answer of `/api/v1/dwcp/mode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeDocument {
    /// `dwcp.mode/1`; may be left away in a request.
    #[serde(default = "ModeDocument::schema_name")]
    pub schema: SchemaName,
    /// The mode.
    pub mode: Mode,
}

impl ModeDocument {
    fn schema_name() -> SchemaName {
        Self::SCHEMA
    }
}

/// Answer of `GET /api/v1/dwcp/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// `dwcp.events/1`.
    pub schema: SchemaName,
    /// Oldest first. Only the last 1,000 are kept, and none across a start of control.
    pub events: Vec<NodeEvent>,
}

/// Something that happened to the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeEvent {
    /// Grows by one with each event; ask for what comes `after` it.
    pub number: u64,
    /// When.
    pub timestamp: Timestamp,
    /// info, warn or error.
    pub level: String,
    /// Where.
    pub component: String,
    /// What, for people.
    pub message: String,
    /// Values that belong to it.
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// Query of `GET /api/v1/dwcp/events` and `GET /api/v1/dwcp/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only those with a larger number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most so many, the newest; 100 where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u16>,
    /// Only those of this component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Wait for something newer than `after`, for so many seconds at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 25)]
    pub wait: Option<u16>,
}

impl EventQuery {
    /// Most events of one answer.
    pub const LIMIT_MAX: u16 = 1000;
    /// Events of an answer where none are asked for.
    pub const LIMIT_DEFAULT: u16 = 100;
    /// Longest wait in seconds.
    pub const WAIT_MAX: u16 = 25;
}

/// Answer of `GET /api/v1/dwcp/logs`: everything that control logs, while [`EventList`] has what operators act on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLines {
    /// `dwcp.logs/1`.
    pub schema: SchemaName,
    /// Oldest first. Only the last 2,000 are kept, and none across a start of control.
    pub lines: Vec<NodeEvent>,
}
