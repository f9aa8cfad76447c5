//! How the node is: judged once a second from what is known, rendered once, served many times. Called by the monitor
//! and by HTTP; the rules are `dwcp_policy`'s.
mod document;
mod judge;
mod words;

use std::sync::Arc;
use std::time::Duration;

use dwcp_abi::shm::WorkerCounter;
use dwcp_api::{BreakerState, ComponentState, Health, LatencyMs, PartHealth, Performance, Ready};
use dwcp_policy::{Component, Overall};

use crate::app::{App, Shared};
use document::padded;
use judge::Verdict;
pub(crate) use judge::{Round, is_stuck};
pub(crate) use words::{FromPolicy, Translate};

/// What the last round of checks found.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    /// The document, always of the same length.
    pub(crate) body: axum::body::Bytes,
    pub(crate) health: Health,
    pub(crate) ready: Ready,
    pub(crate) reports: Vec<(Component, ComponentState)>,
    parts: Vec<PartHealth>,
}

impl Rendered {
    /// Before the first round.
    pub(crate) fn starting() -> Self {
        let reports = Component::ALL.map(|component| (component, ComponentState::Starting, None)).to_vec();
        let verdict = Verdict {
            overall: Overall::Degraded,
            breaker: BreakerState::Closed,
            reports,
            is_draining: false,
            parts: Vec::new(),
        };
        let ready = Ready { ready: false, reasons: vec!["control is starting".into()] };
        Self::new(verdict.document("", true, Duration::ZERO), ready, verdict)
    }

    fn new(health: Health, ready: Ready, verdict: Verdict) -> Self {
        let reports = verdict.reports.iter().map(|(component, state, _)| (*component, *state)).collect();
        Self { body: padded(&health).into(), health, ready, reports, parts: verdict.parts }
    }
}

/// Checks everything and keeps the result.
pub(crate) fn check(app: &Arc<App>, round: Round) {
    let settings = app.settings();
    let (verdict, has_failed) = app.change(|shared, now| {
        let before = shared.recoveries.poll_timeout();
        let verdict = judge::judge(shared, &settings.config, round, now);
        (verdict, shared.recoveries.poll_timeout() != before)
    });
    let ready = judge::readiness(settings.config.enabled, &verdict);
    let health = verdict.document(&settings.config.version, settings.config.enabled, app.now().uptime);
    let rendered = Arc::new(Rendered::new(health, ready, verdict));
    let mut slot = app.health.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    if slot.health.status != rendered.health.status {
        let (status, error) = (rendered.health.status.name(), rendered.health.error.as_deref());
        tracing::info!(component = "health", status, error, "health changed");
    }
    *slot = rendered;
    drop(slot);
    if has_failed {
        app.monitor_wake.notify_one();
    }
}

/// The document with everything, for `?verbose=true`. Its length varies.
pub(crate) fn verbose(app: &App) -> Health {
    let rendered = Arc::clone(&app.health.read().unwrap_or_else(std::sync::PoisonError::into_inner));
    let mut health = rendered.health.clone();
    health.parts = Some(rendered.parts.clone());
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
        cpu_percent: shared.rates.cpu_percent(),
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
