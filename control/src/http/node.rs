//! What the node is made of, what happens to it, and draining it.
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dwcp_abi::shm::WorkerCounter;
use dwcp_api::{
    ComponentFigures, ComponentList, ComponentState, CompressionStats, DrainStatus, EventList, EventQuery,
    LogLines, NodeEvent, Problem, paths,
};
use dwcp_policy::Component;

use super::documents::json;
use super::problem::Failure;
use crate::app::App;
use crate::health::Round;
use crate::journal::Shelf;

/// The six components.
#[utoipa::path(get, path = paths::COMPONENTS, tag = "node", responses((status = 200, body = ComponentList)))]
pub(super) async fn components(State(app): State<Arc<App>>) -> Response {
    let reports = app.health.read().unwrap_or_else(PoisonError::into_inner).reports.clone();
    let one = |(component, name, function): &(Component, &str, &str)| {
        let found = reports.iter().find(|(known, _)| known == component);
        ComponentFigures {
            id: component.metric_prefix().unwrap_or_default().into(),
            name: (*name).into(),
            function: (*function).into(),
            state: found.map_or(ComponentState::Disabled, |(_, state)| *state),
            detail: found.is_none_or(|(_, state)| *state == ComponentState::Disabled).then(|| {
                if *component == Component::Compression {
                    "compression.enabled is false".to_owned()
                } else {
                    "not part of this version".to_owned()
                }
            }),
        }
    };
    let components = COMPONENTS.iter().map(one).collect();
    json(StatusCode::OK, &ComponentList { schema: ComponentList::SCHEMA, components })
}

/// What compression did.
#[utoipa::path(get, path = paths::HDE_STATS, tag = "node", responses((status = 200, body = CompressionStats)))]
pub(super) async fn compression(State(app): State<Arc<App>>) -> Response {
    let settings = app.settings();
    let shared = app.lock();
    let ratio = shared.rates.compression_ratio();
    let deltas = shared.figures.deltas();
    let document = CompressionStats {
        schema: CompressionStats::SCHEMA,
        enabled: settings.config.compression.enabled,
        algorithm: settings.config.compression.algorithm.as_str().into(),
        ratio,
        savings_percent: ratio.map(|ratio| 100.0 * (1.0 - 1.0 / ratio)),
        bytes_original: shared.figures.sum(WorkerCounter::CompressBytesIn),
        bytes_compressed: shared.figures.sum(WorkerCounter::CompressBytesOut),
        delta_bytes_original: deltas.bytes_original,
        delta_bytes_sent: deltas.bytes_sent,
        delta_hit_rate: deltas.hit_rate(),
        delta_chunks_unmade: deltas.chunks_unmade,
        baselines: deltas.baselines,
        baseline_bytes: deltas.baseline_bytes,
    };
    drop(shared);
    json(StatusCode::OK, &document)
}

/// Whether the node is draining.
#[utoipa::path(get, path = paths::DRAIN, tag = "node", responses((status = 200, body = DrainStatus)))]
pub(super) async fn drain_status(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &drain_document(&app))
}

/// Takes no new transfers and starts none; what is under way ends. Until `DELETE`, or the next start of control.
#[utoipa::path(post, path = paths::DRAIN, tag = "node", responses((status = 202, body = DrainStatus)))]
pub(super) async fn drain(State(app): State<Arc<App>>) -> Response {
    set_draining(&app, true);
    json(StatusCode::ACCEPTED, &drain_document(&app))
}

/// Takes transfers again.
#[utoipa::path(delete, path = paths::DRAIN, tag = "node", responses((status = 200, body = DrainStatus)))]
pub(super) async fn undrain(State(app): State<Arc<App>>) -> Response {
    set_draining(&app, false);
    json(StatusCode::OK, &drain_document(&app))
}

fn set_draining(app: &Arc<App>, is_draining: bool) {
    app.change(|shared, now| shared.jobs.set_draining(is_draining, now));
    tracing::warn!(component = "control", is_draining, "draining changed");
    crate::health::check(app, Round::Changed);
}

fn drain_document(app: &App) -> DrainStatus {
    let shared = app.lock();
    let (draining, under_way) = (shared.jobs.is_draining(), shared.jobs.under_way() as u64);
    let waiting = shared.jobs.active() as u64 - under_way;
    DrainStatus {
        schema: DrainStatus::SCHEMA,
        draining,
        drained: draining && under_way == 0,
        under_way,
        waiting,
    }
}

/// What happened to the node: information, warnings and errors.
#[utoipa::path(get, path = paths::EVENTS, tag = "node", params(EventQuery),
    responses((status = 200, body = EventList), (status = 400, body = Problem)))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let events = read(&app, Shelf::Events, query).await?;
    Ok(json(StatusCode::OK, &EventList { schema: EventList::SCHEMA, events }))
}

/// What control logs.
#[utoipa::path(get, path = paths::LOGS, tag = "node", params(EventQuery),
    responses((status = 200, body = LogLines), (status = 400, body = Problem)))]
pub(super) async fn logs(
    State(app): State<Arc<App>>,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let lines = read(&app, Shelf::Lines, query).await?;
    Ok(json(StatusCode::OK, &LogLines { schema: LogLines::SCHEMA, lines }))
}

async fn read(
    app: &App,
    shelf: Shelf,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Vec<NodeEvent>, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(EventQuery::LIMIT_DEFAULT);
    if limit == 0 || limit > EventQuery::LIMIT_MAX {
        return Err(Failure::invalid(format!("limit must be from 1 to {}", EventQuery::LIMIT_MAX)));
    }
    if query.wait.is_some_and(|wait| wait == 0 || wait > EventQuery::WAIT_MAX) {
        return Err(Failure::invalid(format!("wait must be from 1 to {} seconds", EventQuery::WAIT_MAX)));
    }
    let look = || {
        let (after, component) = (query.after.unwrap_or(0), query.component.as_deref());
        app.journal.read(shelf, after, component, usize::from(limit))
    };
    let Some(wait) = query.wait else { return Ok(look()) };
    let until = tokio::time::Instant::now() + Duration::from_secs(wait.into());
    loop {
        let grown = app.journal.grown();
        let found = look();
        if !found.is_empty() || tokio::time::timeout_at(until, grown).await.is_err() {
            return Ok(found);
        }
    }
}

/// Both readings of the letters: components keep the first, the second is a function within them.
const COMPONENTS: [(Component, &str, &str); 6] = [
    (Component::Transport, "Adaptive Multi-Stream Transport", "scheduling of streams and pre-transforms"),
    (Component::Compression, "Hybrid Delta Encoding", "hierarchy of dictionaries"),
    (Component::Prediction, "Predictive Bandwidth Allocation", "model probabilities for entropy coding"),
    (Component::Sync, "Asynchronous State Synchronization", "stream scheduler"),
    (Component::Consensus, "Adaptive Consensus Protocol", "selection of congestion control"),
    (Component::Placement, "Intelligent Task Placement", "decisions on paths and transfers"),
];
