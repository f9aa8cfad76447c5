//! Tunnels: listeners of this node whose connections a peer connects to its targets.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::SchemaName;
use crate::schema::documents;

documents!(TunnelList = "dwcp.tunnels/1", TunnelAnswer = "dwcp.tunnel/1");

/// Answer of `GET /api/v1/dwcp/tunnels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TunnelList {
    /// `dwcp.tunnels/1`.
    pub schema: SchemaName,
    /// By address.
    pub tunnels: Vec<TunnelFigures>,
    /// Tunnelled connections with each peer, from either end; only peers that had any.
    pub peers: Vec<TunnelPeer>,
}

/// Answer of `POST /api/v1/dwcp/tunnels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TunnelAnswer {
    /// `dwcp.tunnel/1`.
    pub schema: SchemaName,
    /// The tunnel.
    #[serde(flatten)]
    pub tunnel: TunnelFigures,
}

/// Body of `POST /api/v1/dwcp/tunnels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelRequest {
    /// Where to listen: a port (then at 127.0.0.1), or `address:port`.
    pub listen: String,
    /// Name of the peer.
    pub peer: String,
    /// `host:port`, as seen from the peer.
    pub target: String,
}

/// Query of `DELETE /api/v1/dwcp/tunnels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TunnelQuery {
    /// Where the tunnel listens, as when it was added.
    pub listen: String,
}

/// One tunnel. Totals since the dataplane started or the tunnel came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TunnelFigures {
    /// `address:port`.
    pub listen: String,
    /// Name of the peer that connects the target.
    pub peer: String,
    /// `host:port`, as seen from the peer.
    pub target: String,
    /// Where it was ordered.
    pub origin: TunnelOrigin,
    /// Whether it listens.
    pub state: TunnelState,
    /// Why it does not listen, or why the last connection was refused.
    pub last_error: Option<String>,
    /// Connections that stand.
    pub connections: u32,
    /// Connections that were begun.
    pub connections_total: u64,
    /// Of those, not connected to the target.
    pub refused_total: u64,
    /// Bytes to the target.
    pub bytes_sent: u64,
    /// Bytes from it.
    pub bytes_received: u64,
}

/// Tunnelled connections with a peer. Totals since the dataplane started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TunnelPeer {
    /// Its name.
    pub peer: String,
    /// Lanes for tunnels that stand.
    pub lanes: u16,
    /// Lanes lost while connections stood; the connections went on.
    pub lanes_lost: u64,
    /// Round-trip time of a tunnel's lane in microseconds; null = not measured.
    pub rtt_us: Option<u32>,
    /// Connections of the peer to targets here that stand.
    pub accepted_connections: u32,
    /// Connections that the peer asked for.
    pub accepted_total: u64,
    /// Of those, refused: not in `tunnels.allow`, or the target did not answer.
    pub refused_total: u64,
    /// Bytes from targets here to the peer.
    pub bytes_sent: u64,
    /// Bytes from the peer to targets here.
    pub bytes_received: u64,
}

/// Where a tunnel was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelOrigin {
    /// `tunnels.listen` of the configuration.
    Configuration,
    /// `dwcp tunnel add`; it is kept until `dwcp tunnel remove`.
    Operator,
}

/// Whether a tunnel listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelState {
    /// It does.
    Listening,
    /// It does not, and is tried again every few seconds; `last_error` says why.
    Failed,
    /// The dataplane has not said yet, or there is none.
    Waiting,
}

impl TunnelState {
    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        }
    }
}

impl TunnelOrigin {
    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Operator => "operator",
        }
    }
}
