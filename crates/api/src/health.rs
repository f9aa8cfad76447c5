//! `/health`, `/ready` and `/live`. The health document carries every shape that existing probes look for.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{PathText, Timestamp};

/// Answer of `GET /health`: 200 while healthy or degraded, 503 when unhealthy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Of the whole node.
    pub status: HealthStatus,
    /// Version of the configuration's dialect.
    pub version: String,
    /// Version of the programs.
    pub build_version: String,
    /// Whether new transfers are taken at all.
    pub enabled: bool,
    /// Since control started.
    pub uptime_seconds: u64,
    /// Whether no enabled component is degraded or worse.
    pub components_healthy: bool,
    /// Short names of the components that are not.
    pub unhealthy_components: Vec<String>,
    /// Whether the node is trying to repair itself.
    pub recovery_in_progress: bool,
    /// The circuit breaker.
    pub circuit_breaker: BreakerState,
    /// Component by component.
    pub components: Components,
    /// What failed; only when unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the components are made of: store, dataplane, each worker; with `?verbose=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<PartHealth>>,
    /// The last 20 at most; with `?verbose=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_errors: Option<Vec<RecentError>>,
    /// With `?verbose=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationStatus>,
    /// With `?verbose=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub performance: Option<Performance>,
}

/// State of the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// All that is enabled works.
    Healthy,
    /// Data moves, but something enabled does not work.
    Degraded,
    /// Data does not move.
    Unhealthy,
}

impl HealthStatus {
    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// State of one component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ComponentState {
    /// Works.
    Healthy,
    /// Works in part.
    Degraded,
    /// Does not work.
    Unhealthy,
    /// Is being repaired.
    Recovering,
    /// Has not worked yet.
    Starting,
    /// Turned off, or not part of this version.
    Disabled,
}

/// State of the circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Work passes.
    Closed,
    /// A little work is tried.
    HalfOpen,
    /// Work waits.
    Open,
}

impl BreakerState {
    /// What a daemon that does not say it is taken to mean.
    pub(crate) fn usual() -> Self {
        Self::Closed
    }

    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// Every component, in the short form that older probes read and in the long one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Components {
    /// Short form of `amst_transport`.
    pub transport: ComponentState,
    /// Short form of `hde_compression`.
    pub compression: ComponentState,
    /// The circuit breaker again.
    pub circuit_breaker: BreakerState,
    /// Lanes and sessions.
    pub amst_transport: ComponentHealth,
    /// Compression.
    pub hde_compression: ComponentHealth,
    /// Prediction.
    pub pba_prediction: ComponentHealth,
    /// State synchronisation.
    pub ass_sync: ComponentHealth,
    /// Consensus.
    pub acp_consensus: ComponentHealth,
    /// Placement.
    pub itp_placement: ComponentHealth,
}

/// One component in the long form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentHealth {
    /// Its state.
    pub status: ComponentState,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A part of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartHealth {
    /// `store`, `dataplane`, `worker N`.
    pub name: String,
    /// Its state.
    pub status: ComponentState,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// One of the last errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecentError {
    /// When.
    pub timestamp: Timestamp,
    /// Where.
    pub component: String,
    /// What kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people.
    pub message: String,
}

/// The configuration, as far as health goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigurationStatus {
    /// The file; null when defaults are used.
    pub source: Option<PathText>,
    /// Dialect of the file.
    pub dialect: String,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// Digest of its content in hexadecimal digits.
    pub hash: String,
    /// What is odd but accepted.
    pub warnings: Vec<String>,
    /// Keys whose new values are used after a restart only.
    pub restart_required: Vec<String>,
}

/// A few figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Performance {
    /// Bytes per second, both directions.
    pub throughput_bytes: u64,
    /// Of requests to control, in milliseconds.
    pub latency_ms: LatencyMs,
    /// Failed share of the transfers that ended, 0 to 1.
    pub error_rate: f64,
    /// Plain bytes by wire bytes; null until known.
    pub compression_ratio: Option<f64>,
    /// Lanes that stand.
    pub active_streams: u32,
    /// Of one core, both processes.
    pub cpu_percent: f64,
    /// Resident, both processes.
    pub memory_bytes: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LatencyMs {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Answer of `GET /ready`: 200 when ready, else 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// Whether work is accepted.
    pub ready: bool,
    /// Why not; empty when ready.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// Answer of `GET /live`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Live {
    /// True in every answer there is.
    pub live: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What existing probes read, member by member.
    const HEALTHY: &str = r#"{"status":"healthy","version":"2.0","build_version":"3.0.0","enabled":true,
        "uptime_seconds":3600,"components_healthy":true,"unhealthy_components":[],"recovery_in_progress":false,
        "circuit_breaker":"closed","components":{"transport":"healthy","compression":"healthy",
        "circuit_breaker":"closed","amst_transport":{"status":"healthy"},"hde_compression":{"status":"healthy"},
        "pba_prediction":{"status":"disabled"},"ass_sync":{"status":"disabled"},
        "acp_consensus":{"status":"disabled"},"itp_placement":{"status":"disabled"}}}"#;

    #[test]
    fn the_document_is_the_one_that_probes_know() {
        let known: serde_json::Value = serde_json::from_str(HEALTHY).unwrap();
        let health: Health = serde_json::from_str(HEALTHY).unwrap();
        assert_eq!(serde_json::to_value(&health).unwrap(), known);
        assert_eq!(serde_json::to_value(BreakerState::HalfOpen).unwrap(), "half-open");
    }
}
