//! The verdict on every component from what is known. Called for each round of checks; sends nothing and renders
//! nothing.
use std::time::Duration;

use dwcp_abi::shm::WorkerCounter;
use dwcp_api::{BreakerState, ComponentState, PartHealth, Ready};
use dwcp_config::Config;
use dwcp_policy::{Component, Overall, RecoveryState, Report};

use super::words::{FromPolicy, Translate};
use crate::app::Shared;
use crate::cluster::Agreement;
use crate::figures::monotonic_ns;
use crate::jobs::Now;
use crate::recovery::Part;

/// What causes a round of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// A second has passed: the breaker counts that all is well.
    Scheduled,
    /// Something changed: probes must see it at once.
    Changed,
}

pub(super) struct Verdict {
    pub(super) overall: Overall,
    pub(super) breaker: BreakerState,
    pub(super) reports: Vec<(Component, ComponentState, Option<String>)>,
    /// No transfers are taken.
    pub(super) is_draining: bool,
    /// What components are made of, for the verbose document.
    pub(super) parts: Vec<PartHealth>,
}

/// A cluster that does not decide degrades the node and no more: transfers do not depend on it.
fn consensus(agreement: Option<&Agreement>) -> (ComponentState, Option<String>) {
    match agreement {
        None => (ComponentState::Disabled, None),
        Some(Agreement::Decides) => (ComponentState::Healthy, None),
        Some(Agreement::Starts) => (ComponentState::Starting, None),
        Some(Agreement::Fails(why)) => (ComponentState::Degraded, Some(why.clone())),
    }
}

/// Looks at everything, tells recovery and breaker what was found, and judges.
pub(super) fn judge(shared: &mut Shared, config: &Config, round: Round, now: Now) -> Verdict {
    let dataplane = look(shared, now);
    if dataplane.is_certain {
        shared.recoveries.handle_look(Part::Dataplane, dataplane.state == ComponentState::Healthy, now);
    }
    shared.recoveries.handle_look(Part::Store, shared.store_trouble.is_none(), now);
    if dataplane.state == ComponentState::Healthy && round == Round::Scheduled {
        shared.jobs.gate.node().handle_success(now.uptime);
    }
    let recovering = |state: ComponentState, recovery: RecoveryState| match (state, recovery) {
        (ComponentState::Unhealthy, RecoveryState::Recovering) => ComponentState::Recovering,
        (state, _) => state,
    };
    let store = match &shared.store_trouble {
        Some(_) => recovering(ComponentState::Unhealthy, shared.recoveries.state(Part::Store)),
        None => ComponentState::Healthy,
    };
    let state = if dataplane.is_certain && shared.fingerprint.is_some() {
        recovering(dataplane.state, shared.recoveries.state(Part::Dataplane))
    } else {
        dataplane.state
    };
    let held = held_back(shared, now);
    let (transport, detail) = match (state, &held) {
        (ComponentState::Healthy, Some(held)) => (ComponentState::Degraded, Some(held.clone())),
        _ => (state, dataplane.detail.clone()),
    };
    let compression = if config.compression.enabled { state } else { ComponentState::Disabled };
    let mut reports = vec![
        (Component::Control, store, shared.store_trouble.clone()),
        (Component::Transport, transport, detail),
        (Component::Compression, compression, None),
    ];
    let (consensus, trouble) = consensus(shared.agreement.as_ref());
    reports.push((Component::Consensus, consensus, trouble));
    for component in [Component::Prediction, Component::Sync, Component::Placement] {
        reports.push((component, ComponentState::Disabled, None));
    }
    let plain =
        reports.iter().map(|(component, state, _)| Report { component: *component, state: state.policy() });
    let breaker = shared.jobs.gate.node().state(now.uptime);
    let overall = dwcp_policy::overall(&plain.collect::<Vec<_>>(), breaker);
    let mut parts = vec![
        PartHealth { name: "store".into(), status: store, detail: shared.store_trouble.clone() },
        PartHealth { name: "dataplane".into(), status: state, detail: dataplane.detail },
    ];
    parts.extend(dataplane.cores);
    let is_draining = shared.jobs.is_draining();
    Verdict { overall, breaker: BreakerState::from_policy(breaker), reports, is_draining, parts }
}

/// What a look at the dataplane found.
struct Look {
    state: ComponentState,
    detail: Option<String>,
    /// Whether recovery is to know of it: not while it may just be starting, nor where only a person helps.
    is_certain: bool,
    cores: Vec<PartHealth>,
}

/// The dataplane: attached, and every thread of it alive.
fn look(shared: &Shared, now: Now) -> Look {
    if shared.dataplane.is_none() {
        let trouble = shared.link_trouble.clone().unwrap_or_else(|| "no dataplane yet".into());
        let is_starting =
            shared.fingerprint.is_none() && !shared.is_version_wrong && now.uptime < START_GRACE;
        return Look {
            state: if is_starting { ComponentState::Starting } else { ComponentState::Unhealthy },
            detail: Some(trouble),
            is_certain: !is_starting && !shared.is_version_wrong,
            cores: Vec::new(),
        };
    }
    let core = |(index, age): (usize, Duration)| {
        let is_alive = age <= HEARTBEAT_AGE_MAX;
        let seconds = age.as_secs_f64();
        PartHealth {
            name: format!("worker {index}"),
            status: if is_alive { ComponentState::Healthy } else { ComponentState::Unhealthy },
            detail: (!is_alive).then(|| format!("worker {index} has not turned for {seconds:.1} s")),
        }
    };
    let cores: Vec<PartHealth> = ages(shared).into_iter().enumerate().map(core).collect();
    let stuck = cores.iter().find(|core| core.status != ComponentState::Healthy);
    let detail = stuck.and_then(|core| core.detail.clone());
    let state = if detail.is_none() { ComponentState::Healthy } else { ComponentState::Unhealthy };
    Look { state, detail, is_certain: true, cores }
}

/// Since when each worker of the attached dataplane has not turned.
fn ages(shared: &Shared) -> Vec<Duration> {
    let clock = monotonic_ns();
    let age = |worker: &dwcp_abi::shm::WorkerSnapshot| {
        // A worker that has just been attached to may not have turned yet.
        let alive_ns = worker.value(WorkerCounter::HeartbeatNs).max(shared.attached_ns);
        Duration::from_nanos(clock.saturating_sub(alive_ns))
    };
    shared.figures.workers.iter().map(age).collect()
}

/// Whether the attached dataplane has a worker that has not turned for so long that it will not turn again.
pub(crate) fn is_stuck(shared: &Shared) -> bool {
    shared.dataplane.is_some() && ages(shared).into_iter().any(|age| age > STUCK_AGE_MIN)
}

/// The peers whose breakers are not closed.
fn held_back(shared: &mut Shared, now: Now) -> Option<String> {
    let figures = shared.jobs.gate.peer_figures(now);
    let held = figures.iter().filter(|(_, breaker)| breaker.state != dwcp_policy::BreakerState::Closed);
    let held: Vec<String> = held
        .map(|(name, breaker)| format!("circuit breaker of {name} is {}", breaker.state.name()))
        .collect();
    (!held.is_empty()).then(|| held.join(", "))
}

/// Whether work is taken, and why not.
pub(super) fn readiness(is_enabled: bool, verdict: &Verdict) -> Ready {
    let mut reasons = Vec::new();
    if !is_enabled {
        reasons.push("disabled by the configuration (enabled: false)".to_owned());
    }
    if verdict.is_draining {
        reasons.push("the node is draining (`dwcp undrain` ends that)".to_owned());
    }
    if verdict.breaker == BreakerState::Open {
        reasons.push("the circuit breaker is open: jobs wait".into());
    }
    for (component, state, detail) in &verdict.reports {
        let is_needed = matches!(component, Component::Control | Component::Transport);
        let works = matches!(state, ComponentState::Healthy | ComponentState::Degraded);
        if is_needed && !works {
            let detail = detail.as_deref().unwrap_or("no detail");
            reasons.push(format!("{} is {}: {detail}", component.name(), state.policy().name()));
        }
    }
    Ready { ready: reasons.is_empty(), reasons }
}

/// How long the dataplane may take to come up beside us before that counts as a failure.
const START_GRACE: Duration = Duration::from_secs(10);
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(2);
/// A worker that the machine merely starves turns sooner than that.
const STUCK_AGE_MIN: Duration = Duration::from_secs(5);
