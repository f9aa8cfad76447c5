//! A round trip to a peer, measured by the dataplane.
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use dwcp_api::{PingAnswer, Problem, paths};

use super::documents::json;
use super::problem::Failure;
use crate::app::App;

/// Measures one round trip to a peer over an authenticated connection, which is made where there is none.
#[utoipa::path(post, path = paths::PING_PATTERN, tag = "node", params(("name" = String, Path, description = "Name of the peer")),
    responses((status = 200, body = PingAnswer), (status = 403, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn ping(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Failure> {
    if !app.settings().config.peers.iter().any(|peer| peer.name == name) {
        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let near = app.lock().peers.nearest(&name);
        let detail = format!("no peer is called '{name}'");
        let failure = Failure::new(StatusCode::NOT_FOUND, Problem::UNKNOWN_PEER, "Unknown peer", detail);
        return Err(failure.with_nearest(near.as_deref()));
    }
    let Some(answer) = app.ping(&name) else {
        return Err(Failure::refused("there is no dataplane, or too many pings are under way: ask again"));
    };
    let (rtt_ns, error) = match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(Ok(rtt_ns))) => (Some(rtt_ns), None),
        Ok(Ok(Err(text))) => (None, Some(text)),
        Ok(Err(_)) => (None, Some("the dataplane went away".to_owned())),
        Err(_) => (None, Some(format!("no answer within {} s", PATIENCE.as_secs()))),
    };
    Ok(json(StatusCode::OK, &PingAnswer { schema: PingAnswer::SCHEMA, peer: name, rtt_ns, error }))
}

const PATIENCE: Duration = Duration::from_secs(5);
