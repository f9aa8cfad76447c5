//! Paths of every endpoint. Control routes them, the client asks for them.
use crate::TransferId;

/// Health document; 200 while healthy or degraded, 503 when unhealthy.
pub const HEALTH: &str = "/health";
/// 200 when work is accepted, else 503 with reasons.
pub const READY: &str = "/ready";
/// Other names of [`READY`].
pub const READY_ALIASES: [&str; 2] = ["/readyz", "/health/ready"];
/// 200 while the process turns.
pub const LIVE: &str = "/live";
/// Other names of [`LIVE`].
pub const LIVE_ALIASES: [&str; 2] = ["/livez", "/health/live"];
/// Prometheus text.
pub const METRICS: &str = "/metrics";
/// The [`crate::Status`] document.
pub const STATUS: &str = "/api/v1/dwcp/status";
/// The [`crate::Stats`] document.
pub const STATS: &str = "/api/v1/dwcp/stats";
/// The [`crate::FlowList`] document.
pub const FLOWS: &str = "/api/v1/dwcp/flows";
/// The [`crate::KernelReport`] document.
pub const KERNEL: &str = "/api/v1/dwcp/kernel";
/// The [`crate::TransportReport`] document; `mode` says of which.
pub const DEBUG_TRANSPORT: &str = "/api/v1/dwcp/debug/transport";
/// The [`crate::LatencyReport`] document; `job` and `peer` narrow it.
pub const DEBUG_LATENCY: &str = "/api/v1/dwcp/debug/latency";
/// The [`crate::PeerList`] document.
pub const PEERS: &str = "/api/v1/dwcp/peers";
/// The [`crate::ConfigDocument`].
pub const CONFIG: &str = "/api/v1/dwcp/config";
/// The same as [`CONFIG`].
pub const CONFIG_EFFECTIVE: &str = "/api/v1/dwcp/config/effective";
/// Judges a configuration file (POST).
pub const CONFIG_VALIDATE: &str = "/api/v1/dwcp/config/validate";
/// Reads the configuration again (POST).
pub const CONFIG_RELOAD: &str = "/api/v1/dwcp/config/reload";
/// Keys of the transport.
pub const AMST_CONFIG: &str = "/api/v1/dwcp/amst/config";
/// Keys of compression.
pub const HDE_CONFIG: &str = "/api/v1/dwcp/hde/config";
/// The [`crate::CompressionStats`] document.
pub const HDE_STATS: &str = "/api/v1/dwcp/hde/stats";
/// The [`crate::ComponentList`] document.
pub const COMPONENTS: &str = "/api/v1/dwcp/components";
/// The [`crate::ModeDocument`]: shown (GET) and set (PUT).
pub const MODE: &str = "/api/v1/dwcp/mode";
/// Draining: shown (GET), begun (POST) and ended (DELETE).
pub const DRAIN: &str = "/api/v1/dwcp/drain";
/// The [`crate::EventList`] document.
pub const EVENTS: &str = "/api/v1/dwcp/events";
/// The [`crate::LogLines`] document.
pub const LOGS: &str = "/api/v1/dwcp/logs";
/// A consistent copy of the state (POST).
pub const BACKUP: &str = "/api/v1/dwcp/backup";
/// Takes a copy of the state for the next start (POST).
pub const RESTORE: &str = "/api/v1/dwcp/restore";
/// API keys: list (GET) and make (POST).
pub const AUTH_KEYS: &str = "/api/v1/auth/keys";
/// Route pattern of one API key: revoke (DELETE).
pub const AUTH_KEY_PATTERN: &str = "/api/v1/auth/keys/{id}";
/// The [`crate::CertificateList`] document.
pub const CERTIFICATES: &str = "/api/v1/dwcp/certificates";
/// Makes a token (POST).
pub const AUTH_TOKEN: &str = "/api/v1/auth/token";
/// Keys that tokens are signed with: list (GET), replace (POST).
pub const AUTH_TOKEN_KEYS: &str = "/api/v1/auth/token-keys";
/// The [`crate::AuditList`] document.
pub const AUDIT: &str = "/api/v1/dwcp/audit";
/// Versions of program and interface.
pub const VERSION: &str = "/version";
/// This interface as OpenAPI 3.1.
pub const OPENAPI: &str = "/openapi.json";
/// The [`crate::CircuitBreakers`] document.
pub const BREAKERS: &str = "/api/v1/dwcp/circuit-breakers";
/// State of the node's circuit breaker as one word.
pub const BREAKER_STATE: &str = "/circuit-breaker/state";
/// Closes circuit breakers (POST).
pub const BREAKER_RESET: &str = "/circuit-breaker/reset";
/// List (GET) and create (POST) transfers.
pub const TRANSFERS: &str = "/api/v1/dwcp/transfers";
/// Route pattern of one transfer: show (GET) and cancel (DELETE).
pub const TRANSFER_PATTERN: &str = "/api/v1/dwcp/transfers/{id}";
/// Route pattern of a transfer's rest (POST).
pub const TRANSFER_PAUSE_PATTERN: &str = "/api/v1/dwcp/transfers/{id}/pause";
/// Route pattern of a rest's end (POST).
pub const TRANSFER_RESUME_PATTERN: &str = "/api/v1/dwcp/transfers/{id}/resume";
/// Route pattern of one transfer's server-sent events.
pub const TRANSFER_EVENTS_PATTERN: &str = "/api/v1/dwcp/transfers/{id}/events";

/// Tunnels: list (GET), add (POST), remove (DELETE).
pub const TUNNELS: &str = "/api/v1/dwcp/tunnels";

/// Begins a cluster (POST).
pub const CLUSTER: &str = "/api/v1/dwcp/cluster";
/// Members: list (GET), become one (POST), let one go (DELETE).
pub const CLUSTER_MEMBERS: &str = "/api/v1/dwcp/cluster/members";
/// Makes a token that admits a node (POST).
pub const CLUSTER_TOKEN: &str = "/api/v1/dwcp/cluster/token";
/// Replicated values, each below it.
pub const CLUSTER_VALUES: &str = "/api/v1/dwcp/cluster/values";
/// Route pattern of one replicated value: read (GET), set (PUT), remove (DELETE).
pub const CLUSTER_VALUE_PATTERN: &str = "/api/v1/dwcp/cluster/values/{*key}";
/// Route pattern of a consensus group: show (GET), change (PUT).
pub const CONSENSUS_PATTERN: &str = "/api/v1/dwcp/consensus/{group}";
/// Route pattern of a group's suspects.
pub const CONSENSUS_SUSPECTS_PATTERN: &str = "/api/v1/dwcp/consensus/{group}/byzantine";
/// Route pattern of a round trip to a peer (POST).
pub const PING_PATTERN: &str = "/api/v1/dwcp/peers/{name}/ping";

/// Every path without a number in it.
pub const ALL: [&str; 38] = [
    FLOWS,
    KERNEL,
    DEBUG_TRANSPORT,
    DEBUG_LATENCY,
    HEALTH,
    READY,
    LIVE,
    METRICS,
    STATUS,
    STATS,
    PEERS,
    CONFIG,
    CONFIG_EFFECTIVE,
    CONFIG_VALIDATE,
    CONFIG_RELOAD,
    AMST_CONFIG,
    HDE_CONFIG,
    HDE_STATS,
    COMPONENTS,
    MODE,
    DRAIN,
    EVENTS,
    LOGS,
    BREAKERS,
    TRANSFERS,
    TUNNELS,
    VERSION,
    OPENAPI,
    BACKUP,
    RESTORE,
    CERTIFICATES,
    AUTH_KEYS,
    AUTH_TOKEN,
    AUTH_TOKEN_KEYS,
    AUDIT,
    CLUSTER,
    CLUSTER_MEMBERS,
    CLUSTER_TOKEN,
];

/// Path of one transfer; the `Location` of a created one.
#[must_use]
pub fn transfer(id: TransferId) -> String {
    format!("{TRANSFERS}/{id}")
}

/// Path that lets a transfer rest.
#[must_use]
pub fn transfer_pause(id: TransferId) -> String {
    format!("{TRANSFERS}/{id}/pause")
}

/// Path that lets a transfer go on.
#[must_use]
pub fn transfer_resume(id: TransferId) -> String {
    format!("{TRANSFERS}/{id}/resume")
}

/// Path of one transfer's events.
#[must_use]
pub fn transfer_events(id: TransferId) -> String {
    format!("{TRANSFERS}/{id}/events")
}

/// Path of one replicated value.
#[must_use]
pub fn cluster_value(key: &str) -> String {
    format!("{CLUSTER_VALUES}/{key}")
}

/// Path of a consensus group.
#[must_use]
pub fn consensus(group: &str) -> String {
    CONSENSUS_PATTERN.replace("{group}", group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_paths_agree() {
        assert_eq!(TRANSFER_PATTERN.replace("{id}", "7"), transfer(TransferId(7)));
        assert_eq!(TRANSFER_PAUSE_PATTERN.replace("{id}", "7"), transfer_pause(TransferId(7)));
        assert_eq!(TRANSFER_RESUME_PATTERN.replace("{id}", "7"), transfer_resume(TransferId(7)));
        assert_eq!(TRANSFER_EVENTS_PATTERN.replace("{id}", "7"), transfer_events(TransferId(7)));
    }
}
