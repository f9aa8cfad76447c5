//! The circuit breakers: shown, and closed by an operator.
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dwcp_api::{
    BreakerFigures, BreakerReset, BreakerResetQuery, BreakerState, CircuitBreakers, PeerBreaker, Problem,
    paths,
};

use super::documents::json;
use super::problem::Failure;
use crate::app::App;
use crate::health::{FromPolicy, Round};

/// The node's circuit breaker as one word: a JSON string, or plain text for those who ask for it.
#[utoipa::path(get, path = paths::BREAKER_STATE, tag = "circuit breakers",
    responses((status = 200, content((BreakerState = "application/json"), (String = "text/plain")))))]
pub(super) async fn state(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let now = app.now();
    let state = app.lock().jobs.gate.node_figures(now).state.name();
    let wants_text =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"));
    if wants_text { format!("{state}\n").into_response() } else { json(StatusCode::OK, &state) }
}

/// All circuit breakers.
#[utoipa::path(get, path = paths::BREAKERS, tag = "circuit breakers", responses((status = 200, body = CircuitBreakers)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    let now = app.now();
    let mut shared = app.lock();
    let node = figures(&shared.jobs.gate.node_figures(now));
    let peers = shared.jobs.gate.peer_figures(now);
    drop(shared);
    let peers =
        peers.into_iter().map(|(peer, breaker)| PeerBreaker { peer, breaker: figures(&breaker) }).collect();
    json(StatusCode::OK, &CircuitBreakers { schema: CircuitBreakers::SCHEMA, node, peers })
}

fn figures(breaker: &crate::jobs::BreakerFigures) -> BreakerFigures {
    BreakerFigures {
        state: BreakerState::from_policy(breaker.state),
        failures: breaker.failures_total,
        probes_in_seconds: breaker.left.map(|left| left.as_secs_f64().ceil() as u64),
    }
}

/// Closes all breakers, or that of one peer, and tries again what was given up.
#[utoipa::path(post, path = paths::BREAKER_RESET, tag = "circuit breakers", params(BreakerResetQuery),
    responses((status = 200, body = BreakerReset), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn reset(
    State(app): State<Arc<App>>,
    query: Result<Query<BreakerResetQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let peer = query.peer.as_deref();
    let previous = app.change(|shared, now| {
        let before = match peer {
            Some(peer) => shared.jobs.gate.peer_figures(now).remove(peer)?.state,
            None => shared.jobs.gate.node_figures(now).state,
        };
        if peer.is_none() {
            shared.recoveries.reset(now);
        }
        let is_known = shared.jobs.gate.reset(peer, now);
        shared.jobs.handle_tick(now);
        is_known.then_some(before)
    });
    let Some(previous) = previous else {
        let name: String = peer.unwrap_or_default().chars().filter(|c| !c.is_control()).take(64).collect();
        let near = app.lock().peers.nearest(&name);
        let detail = format!("no peer is called '{name}'");
        let failure = Failure::new(StatusCode::NOT_FOUND, Problem::UNKNOWN_PEER, "Unknown peer", detail);
        return Err(failure.with_nearest(near.as_deref()));
    };
    tracing::warn!(
        component = "breaker",
        peer,
        from = previous.name(),
        "circuit breaker reset by an operator"
    );
    crate::health::check(&app, Round::Changed);
    app.monitor_wake.notify_one();
    let previous = BreakerState::from_policy(previous);
    let document = BreakerReset { schema: BreakerReset::SCHEMA, previous, state: BreakerState::Closed };
    Ok(json(StatusCode::OK, &document))
}
