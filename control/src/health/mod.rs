//! How the node is: judged once a second from what is known, rendered once, served many times. Called by the monitor
//! and by HTTP; the rules are `dwcp_policy`'s.
use std::sync::Arc;
use std::time::Duration;

use dwcp_abi::shm::WorkerCounter;
use dwcp_api::{
    BreakerState, ComponentHealth, ComponentState, Components, Health, HealthStatus, LatencyMs, Performance,
    Ready,
};
use dwcp_policy::{Component, Overall, Report};

use crate::app::{App, Shared};
use crate::figures::monotonic_ns;
use crate::jobs::Now;

/// What the last round of checks found.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    /// The document, always [`HEALTH_BYTES`] long.
    pub(crate) body: Arc<[u8]>,
    pub(crate) health: Health,
    pub(crate) ready: Ready,
    pub(crate) reports: Vec<(Component, ComponentState)>,
}

impl Rendered {
    /// Before the first round.
    pub(crate) fn starting() -> Self {
        let reports = Component::ALL.map(|component| (component, ComponentState::Starting, None)).to_vec();
        let verdict = Verdict { overall: Overall::Degraded, breaker: BreakerState::Closed, reports };
        let ready = Ready { ready: false, reasons: vec!["control is starting".into()] };
        Self::new(verdict.document("", true, Duration::ZERO), ready, &verdict)
    }

    fn new(health: Health, ready: Ready, verdict: &Verdict) -> Self {
        let reports = verdict.reports.iter().map(|(component, state, _)| (*component, *state)).collect();
        Self { body: padded(&health).into(), health, ready, reports }
    }
}

/// What causes a round of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// A second has passed: the breaker counts the outcome.
    Scheduled,
    /// Something changed: probes must see it at once.
    Changed,
}

/// Checks everything and keeps the result.
pub(crate) fn check(app: &Arc<App>, round: Round) {
    let settings = app.settings();
    let (verdict, ready) = app.change(|shared, now| {
        let verdict = judge(shared, &settings.config, round, now);
        let ready = readiness(shared, settings.config.enabled, &verdict);
        (verdict, ready)
    });
    let health = verdict.document(&settings.config.version, settings.config.enabled, app.now().uptime);
    let rendered = Arc::new(Rendered::new(health, ready, &verdict));
    let mut slot = app.health.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    if slot.health.status != rendered.health.status {
        let (status, error) = (rendered.health.status.name(), rendered.health.error.as_deref());
        tracing::info!(component = "health", status, error, "health changed");
    }
    *slot = rendered;
}

struct Verdict {
    overall: Overall,
    breaker: BreakerState,
    reports: Vec<(Component, ComponentState, Option<String>)>,
}

fn judge(shared: &mut Shared, config: &dwcp_config::Config, round: Round, now: Now) -> Verdict {
    let (transport, detail) = transport(shared, now);
    let before = shared.breaker.state(now.uptime);
    match transport {
        _ if round == Round::Changed => {}
        ComponentState::Healthy => shared.breaker.handle_success(now.uptime),
        ComponentState::Unhealthy | ComponentState::Recovering => shared.breaker.handle_failure(now.uptime),
        ComponentState::Starting | ComponentState::Degraded | ComponentState::Disabled => {}
    }
    let breaker = shared.breaker.state(now.uptime);
    if breaker != before {
        tracing::warn!(
            component = "health",
            from = before.name(),
            to = breaker.name(),
            "circuit breaker changed"
        );
    }
    let is_lost = transport == ComponentState::Recovering && breaker == dwcp_policy::BreakerState::Open;
    let transport = if is_lost { ComponentState::Unhealthy } else { transport };
    let control = match &shared.store_trouble {
        Some(_) => ComponentState::Unhealthy,
        None => ComponentState::Healthy,
    };
    let compression = match (config.compression.enabled, transport) {
        (false, _) => ComponentState::Disabled,
        (true, ComponentState::Healthy) => ComponentState::Healthy,
        (true, other) => other,
    };
    let mut reports = vec![
        (Component::Control, control, shared.store_trouble.clone()),
        (Component::Transport, transport, detail),
        (Component::Compression, compression, None),
    ];
    for component in [Component::Prediction, Component::Sync, Component::Consensus, Component::Placement] {
        reports.push((component, ComponentState::Disabled, None));
    }
    let plain: Vec<Report> = reports
        .iter()
        .map(|(component, state, _)| Report { component: *component, state: state.policy() })
        .collect();
    let overall = dwcp_policy::overall(&plain, breaker);
    Verdict { overall, breaker: BreakerState::from_policy(breaker), reports }
}

/// The dataplane: attached, and every thread of it alive.
fn transport(shared: &Shared, now: Now) -> (ComponentState, Option<String>) {
    if shared.dataplane.is_none() {
        let trouble = shared.link_trouble.clone().unwrap_or_else(|| "no dataplane yet".into());
        let state = if shared.is_version_wrong {
            ComponentState::Unhealthy
        } else if shared.fingerprint.is_some() {
            ComponentState::Recovering
        } else if now.uptime < START_GRACE {
            ComponentState::Starting
        } else {
            ComponentState::Unhealthy
        };
        return (state, Some(trouble));
    }
    let clock = monotonic_ns();
    for (index, worker) in shared.figures.workers.iter().enumerate() {
        // A worker that has just been attached to may not have turned yet.
        let alive_ns = worker.value(WorkerCounter::HeartbeatNs).max(shared.attached_ns);
        let age = Duration::from_nanos(clock.saturating_sub(alive_ns));
        if age > HEARTBEAT_AGE_MAX {
            let seconds = age.as_secs_f64();
            return (
                ComponentState::Unhealthy,
                Some(format!("worker {index} has not turned for {seconds:.1} s")),
            );
        }
    }
    (ComponentState::Healthy, None)
}

fn readiness(shared: &Shared, is_enabled: bool, verdict: &Verdict) -> Ready {
    let mut reasons = Vec::new();
    if !is_enabled {
        reasons.push("disabled by the configuration (enabled: false)".to_owned());
    }
    if verdict.breaker == BreakerState::Open {
        reasons.push("the circuit breaker is open".into());
    }
    for (component, state, detail) in &verdict.reports {
        let is_needed = matches!(component, Component::Control | Component::Transport);
        if is_needed && *state != ComponentState::Healthy {
            let detail = detail.as_deref().unwrap_or("no detail");
            reasons.push(format!("{} is {}: {detail}", component.name(), state.policy().name()));
        }
    }
    if shared.is_reload_failed {
        tracing::debug!(component = "health", "the last reload failed; the former configuration is in use");
    }
    Ready { ready: reasons.is_empty(), reasons }
}

impl Verdict {
    fn state(&self, wanted: Component) -> (ComponentState, Option<String>) {
        let found = self.reports.iter().find(|(component, ..)| *component == wanted);
        found.map_or((ComponentState::Disabled, None), |(_, state, detail)| {
            (*state, detail.as_deref().map(|text| cut(text, DETAIL_BYTES_MAX)))
        })
    }

    fn document(&self, version: &str, enabled: bool, uptime: Duration) -> Health {
        let long = |component| {
            let (status, detail) = self.state(component);
            ComponentHealth { status, detail }
        };
        let bad = |state: ComponentState| !state.policy().is_fine();
        let unhealthy: Vec<String> = self
            .reports
            .iter()
            .filter(|(_, state, _)| bad(*state))
            .map(|(component, ..)| component.name().into())
            .collect();
        let failed = self.reports.iter().find(|(_, state, _)| *state == ComponentState::Unhealthy);
        let error = (self.overall == Overall::Unhealthy).then(|| match failed {
            Some((component, _, detail)) => cut(
                &format!("{} failed: {}", component.name(), detail.as_deref().unwrap_or("")),
                DETAIL_BYTES_MAX,
            ),
            None => "the circuit breaker is open".into(),
        });
        Health {
            status: match self.overall {
                Overall::Healthy => HealthStatus::Healthy,
                Overall::Degraded => HealthStatus::Degraded,
                Overall::Unhealthy => HealthStatus::Unhealthy,
            },
            version: cut(version, 64),
            build_version: env!("CARGO_PKG_VERSION").into(),
            enabled,
            uptime_seconds: uptime.as_secs(),
            components_healthy: unhealthy.is_empty(),
            unhealthy_components: unhealthy,
            recovery_in_progress: self
                .reports
                .iter()
                .any(|(_, state, _)| *state == ComponentState::Recovering),
            circuit_breaker: self.breaker,
            components: Components {
                transport: self.state(Component::Transport).0,
                compression: self.state(Component::Compression).0,
                circuit_breaker: self.breaker,
                amst_transport: long(Component::Transport),
                hde_compression: long(Component::Compression),
                pba_prediction: long(Component::Prediction),
                ass_sync: long(Component::Sync),
                acp_consensus: long(Component::Consensus),
                itp_placement: long(Component::Placement),
            },
            error,
            recent_errors: None,
            configuration: None,
            performance: None,
        }
    }
}

/// The document with everything, for `?verbose=true`. Its length varies.
pub(crate) fn verbose(app: &App) -> Health {
    let mut health = app.health.read().unwrap_or_else(std::sync::PoisonError::into_inner).health.clone();
    health.configuration = Some(app.settings().status());
    let shared = app.lock();
    health.recent_errors = Some(shared.recent_errors.iter().cloned().collect());
    let (jobs, failed) =
        (shared.figures.sum(WorkerCounter::Requests), shared.figures.sum(WorkerCounter::JobsFailed));
    let [p50, p95, p99] = app.http.latency_ms();
    health.performance = Some(Performance {
        throughput_bytes: shared.rates.goodput().unwrap_or(0.0) as u64,
        latency_ms: LatencyMs { p50, p95, p99 },
        error_rate: if jobs == 0 { 0.0 } else { failed as f64 / jobs as f64 },
        compression_ratio: shared.rates.compression_ratio(),
        active_streams: u32::try_from(shared.streams()).unwrap_or(u32::MAX),
        cpu_percent: 0.0,
        memory_bytes: crate::metrics::resident_bytes()
            + shared.figures.node.value(dwcp_abi::shm::NodeCounter::ResidentBytes),
    });
    health
}

impl Shared {
    /// Lanes that stand.
    pub(crate) fn streams(&self) -> u64 {
        if self.dataplane.is_some() { self.figures.sum(WorkerCounter::Lanes) } else { 0 }
    }
}

/// Probes such as ab count an answer of another length as a failure: the body never changes its own.
fn padded(health: &Health) -> Vec<u8> {
    let mut body = serde_json::to_vec(health).unwrap_or_else(|_| b"{}".to_vec());
    // All texts in it are cut, so that it fits; if it did not, a longer answer is better than half a one.
    body.resize(body.len().max(HEALTH_BYTES - 1), b' ');
    body.push(b'\n');
    body
}

/// A bounded text whose JSON is as long as itself.
fn cut(text: &str, bytes_max: usize) -> String {
    let plain: String = text
        .chars()
        .map(|c| match c {
            '"' => '\'',
            '\\' => '/',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect();
    if plain.len() <= bytes_max {
        return plain;
    }
    format!("{}…", &plain[..plain.floor_char_boundary(bytes_max)])
}

/// The API's words for the policy's.
pub(crate) trait Translate {
    /// The policy's value.
    type Policy;
    fn policy(self) -> Self::Policy;
}

impl Translate for ComponentState {
    type Policy = dwcp_policy::ComponentState;
    fn policy(self) -> Self::Policy {
        match self {
            Self::Healthy => dwcp_policy::ComponentState::Healthy,
            Self::Degraded => dwcp_policy::ComponentState::Degraded,
            Self::Unhealthy => dwcp_policy::ComponentState::Unhealthy,
            Self::Recovering => dwcp_policy::ComponentState::Recovering,
            Self::Starting => dwcp_policy::ComponentState::Starting,
            Self::Disabled => dwcp_policy::ComponentState::Disabled,
        }
    }
}

/// The API's word for the breaker's state.
pub(crate) trait FromPolicy {
    fn from_policy(state: dwcp_policy::BreakerState) -> Self;
}

impl FromPolicy for BreakerState {
    fn from_policy(state: dwcp_policy::BreakerState) -> Self {
        match state {
            dwcp_policy::BreakerState::Closed => Self::Closed,
            dwcp_policy::BreakerState::HalfOpen => Self::HalfOpen,
            dwcp_policy::BreakerState::Open => Self::Open,
        }
    }
}

/// Length of the answer to `/health`, a multiple of 512 with room for the longest one.
pub(crate) const HEALTH_BYTES: usize = 2560;
const DETAIL_BYTES_MAX: usize = 160;
/// How long the dataplane may take to come up beside us before that counts as a failure.
const START_GRACE: Duration = Duration::from_secs(10);
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_answer_fits() {
        for text in ["\u{1}", "\"", "x", "\\", "ä"] {
            let detail = Some(text.repeat(5000));
            let report = |component| (component, ComponentState::Recovering, detail.clone());
            let verdict = Verdict {
                overall: Overall::Unhealthy,
                breaker: BreakerState::HalfOpen,
                reports: Component::ALL.map(report).to_vec(),
            };
            let mut long = verdict.document(&"9".repeat(500), true, Duration::from_secs(u64::MAX));
            long.error = Some(cut(&text.repeat(5000), DETAIL_BYTES_MAX));
            assert_eq!(padded(&long).len(), HEALTH_BYTES);
        }
        assert_eq!(Rendered::starting().body.len(), HEALTH_BYTES);
    }
}
