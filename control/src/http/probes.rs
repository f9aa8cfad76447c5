//! What load balancers, monitors and scripts ask again and again: health, readiness, metrics. Cheap by
//! design: the health document is rendered once a second.
use std::sync::{Arc, PoisonError};

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dwcp_api::{Health, HealthStatus, Live, Ready, paths};
use serde::Deserialize;

use super::documents::json;
use crate::app::App;

/// Query of `/health`; unknown keys are let pass, probes add some against caches.
#[derive(Deserialize)]
pub(super) struct HealthQuery {
    #[serde(default)]
    verbose: Option<String>,
}

/// How the node is: 200 while it is healthy or degraded.
#[utoipa::path(get, path = paths::HEALTH, tag = "probes",
    params(("verbose" = Option<String>, Query, description = "`true`: with parts, recent errors, configuration and figures")),
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn health(State(app): State<Arc<App>>, Query(query): Query<HealthQuery>) -> Response {
    let is_verbose = query.verbose.is_some_and(|text| matches!(text.as_str(), "true" | "1" | ""));
    if is_verbose {
        let health = crate::health::verbose(&app);
        return json(status_of(health.status), &health);
    }
    let rendered = Arc::clone(&app.health.read().unwrap_or_else(PoisonError::into_inner));
    let mut response = Response::new(Body::from(rendered.body.clone()));
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

/// Whether transfers are taken.
#[utoipa::path(get, path = paths::READY, tag = "probes",
    responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = app.health.read().unwrap_or_else(PoisonError::into_inner).ready.clone();
    json(if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &ready)
}

/// Whether the process turns.
#[utoipa::path(get, path = paths::LIVE, tag = "probes", responses((status = 200, body = Live)))]
pub(super) async fn live() -> Response {
    json(StatusCode::OK, &Live { live: true })
}

/// Figures for Prometheus, text format 0.0.4.
#[utoipa::path(get, path = paths::METRICS, tag = "probes",
    responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = crate::metrics::render(&app);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
