//! One round trip to a peer.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::SchemaName;
use crate::schema::documents;

documents!(PingAnswer = "dwcp.ping/1");

/// Answer of `POST /api/v1/dwcp/peers/{name}/ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PingAnswer {
    /// `dwcp.ping/1`.
    pub schema: SchemaName,
    /// Name of the peer.
    pub peer: String,
    /// The round trip over an authenticated connection, in nanoseconds; null = there was none.
    pub rtt_ns: Option<u64>,
    /// Why there was none.
    pub error: Option<String>,
}
