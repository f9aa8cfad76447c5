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
/// The [`crate::PeerList`] document.
pub const PEERS: &str = "/api/v1/dwcp/peers";
/// The [`crate::ConfigDocument`].
pub const CONFIG: &str = "/api/v1/dwcp/config";
/// List (GET) and create (POST) transfers.
pub const TRANSFERS: &str = "/api/v1/dwcp/transfers";
/// Route pattern of one transfer: show (GET) and cancel (DELETE).
pub const TRANSFER_PATTERN: &str = "/api/v1/dwcp/transfers/{id}";
/// Route pattern of one transfer's server-sent events.
pub const TRANSFER_EVENTS_PATTERN: &str = "/api/v1/dwcp/transfers/{id}/events";

/// Path of one transfer; the `Location` of a created one.
#[must_use]
pub fn transfer(id: TransferId) -> String {
    format!("{TRANSFERS}/{id}")
}

/// Path of one transfer's events.
#[must_use]
pub fn transfer_events(id: TransferId) -> String {
    format!("{TRANSFERS}/{id}/events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_paths_agree() {
        assert_eq!(TRANSFER_PATTERN.replace("{id}", "7"), transfer(TransferId(7)));
        assert_eq!(TRANSFER_EVENTS_PATTERN.replace("{id}", "7"), transfer_events(TransferId(7)));
    }
}
