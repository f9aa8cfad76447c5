//! The circuit breakers: that of the node, and one for each peer.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema::documents;
use crate::{BreakerState, SchemaName};

documents!(CircuitBreakers = "dwcp.circuit-breakers/1", BreakerReset = "dwcp.circuit-breaker-reset/1");

/// Answer of `GET /api/v1/dwcp/circuit-breakers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CircuitBreakers {
    /// `dwcp.circuit-breakers/1`.
    pub schema: SchemaName,
    /// That of the node: every transfer passes it. It opens while the dataplane keeps failing.
    pub node: BreakerFigures,
    /// That of each peer, by name. It opens while attempts to the peer keep being interrupted.
    pub peers: Vec<PeerBreaker>,
}

/// One circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BreakerFigures {
    /// Its state.
    pub state: BreakerState,
    /// Failures since control started.
    pub failures: u64,
    /// Until a probe may pass; null unless open.
    pub probes_in_seconds: Option<u64>,
}

/// The circuit breaker of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerBreaker {
    /// Name of the peer.
    pub peer: String,
    /// Its breaker.
    #[serde(flatten)]
    pub breaker: BreakerFigures,
}

/// Query of `POST /circuit-breaker/reset`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BreakerResetQuery {
    /// Only the breaker of this peer; all of them where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// Answer of `POST /circuit-breaker/reset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BreakerReset {
    /// `dwcp.circuit-breaker-reset/1`.
    pub schema: SchemaName,
    /// State before: of the peer that was named, else of the node.
    pub previous: BreakerState,
    /// State now.
    pub state: BreakerState,
}
