//! What load balancers, monitors and scripts ask again and again: health, readiness, metrics, the breaker. Cheap by
//! design: the health document is rendered once a second.
use std::sync::{Arc, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dwcp_api::{HealthStatus, Live};
use serde::Deserialize;

use super::documents::json;
use crate::app::App;

/// Query of `/health`; unknown keys are let pass, probes add some against caches.
#[derive(Deserialize)]
pub(super) struct HealthQuery {
    #[serde(default)]
    verbose: Option<String>,
}

/// `GET /health`
pub(super) async fn health(State(app): State<Arc<App>>, Query(query): Query<HealthQuery>) -> Response {
    let is_verbose = query.verbose.is_some_and(|text| matches!(text.as_str(), "true" | "1" | ""));
    if is_verbose {
        let health = crate::health::verbose(&app);
        return json(status_of(health.status), &health);
    }
    let rendered = Arc::clone(&app.health.read().unwrap_or_else(PoisonError::into_inner));
    let body = Bytes::from_owner(Arc::clone(&rendered.body));
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status_of(rendered.health.status);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status_of(status: HealthStatus) -> StatusCode {
    match status {
        HealthStatus::Healthy | HealthStatus::Degraded => StatusCode::OK,
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `GET /ready`
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = app.health.read().unwrap_or_else(PoisonError::into_inner).ready.clone();
    json(if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &ready)
}

/// `GET /live`
pub(super) async fn live() -> Response {
    json(StatusCode::OK, &Live { live: true })
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = crate::metrics::render(&app);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// `GET /circuit-breaker/state`: a JSON string, or plain text for those who ask for it.
pub(super) async fn breaker_state(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let state = app.change(|shared, now| shared.breaker.state(now.uptime)).name();
    let wants_text =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"));
    if wants_text { format!("{state}\n").into_response() } else { json(StatusCode::OK, &state) }
}

/// `POST /circuit-breaker/reset`
pub(super) async fn breaker_reset(State(app): State<Arc<App>>) -> Response {
    let previous = app.change(|shared, now| {
        let previous = shared.breaker.state(now.uptime);
        shared.breaker.reset();
        previous
    });
    tracing::warn!(component = "health", from = previous.name(), "circuit breaker reset by an operator");
    json(StatusCode::OK, &serde_json::json!({ "previous": previous.name(), "state": "closed" }))
}
