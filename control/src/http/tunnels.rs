//! Tunnels over HTTP: listed, added for good, removed. Adding waits for the dataplane's word, so that an address that is
//! taken is an error of the request and not a line in a list.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwcp_api::{
    Problem, TunnelAnswer, TunnelFigures, TunnelList, TunnelOrigin, TunnelQuery, TunnelRequest, TunnelState,
    paths,
};
use dwcp_config::Tunnel;

use super::body::read_json;
use super::documents::json;
use super::problem::Failure;
use crate::app::App;

/// Every tunnel of this node, and what is tunnelled with each peer.
#[utoipa::path(get, path = paths::TUNNELS, tag = "tunnels", responses((status = 200, body = TunnelList)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    let settings = app.settings();
    let shared = app.lock();
    let tunnels = shared.tunnels.figures(&settings.config);
    let peers = shared.tunnels.peers().cloned().collect();
    drop(shared);
    json(StatusCode::OK, &TunnelList { schema: TunnelList::SCHEMA, tunnels, peers })
}

/// Adds a tunnel, for good: it listens again after every restart.
#[utoipa::path(post, path = paths::TUNNELS, tag = "tunnels", request_body = TunnelRequest,
    responses((status = 201, body = TunnelAnswer), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 409, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let request: TunnelRequest = read_json(&headers, body, "a request for a tunnel").await?;
    let destination = format!("{}:{}", request.peer, request.target);
    let tunnel = Tunnel::new(&request.listen, &destination).map_err(Failure::impossible)?;
    judge(&app, &tunnel)?;
    app.store.insert_tunnel(tunnel.clone()).await.map_err(not_stored)?;
    app.change_tunnels(|tunnels| tunnels.add(tunnel.clone()));
    let figures = said(&app, &tunnel).await;
    if figures.state == TunnelState::Failed {
        // A tunnel that never listened is not wanted: nothing is left of it.
        forget(&app, tunnel.listen).await?;
        return Err(taken(figures.last_error.unwrap_or_default()));
    }
    tracing::info!(component = "tunnels", %tunnel, "tunnel added");
    Ok(json(StatusCode::CREATED, &TunnelAnswer { schema: TunnelAnswer::SCHEMA, tunnel: figures }))
}

/// Removes a tunnel that was added. Its connections run to their ends.
#[utoipa::path(delete, path = paths::TUNNELS, tag = "tunnels", params(TunnelQuery),
    responses((status = 200, body = TunnelList), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    query: Result<Query<TunnelQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    // Any peer and target do: only the address is asked for.
    let listen = Tunnel::new(&query.listen, "x:x:1").map_err(Failure::invalid)?.listen;
    let settings = app.settings();
    let is_configured = settings.config.tunnels.listen.iter().any(|tunnel| tunnel.listen == listen);
    if app.lock().tunnels.added(listen).is_none() {
        return Err(if is_configured {
            let detail = format!(
                "the tunnel at {listen} is in the configuration: remove it from tunnels.listen there"
            );
            Failure::new(StatusCode::CONFLICT, Problem::CONFLICT, "Configured", detail)
        } else {
            let detail = format!("no tunnel listens at {listen} (`dwcp tunnel list` has them)");
            Failure::new(StatusCode::NOT_FOUND, Problem::UNKNOWN_TUNNEL, "Unknown tunnel", detail)
        });
    }
    forget(&app, listen).await?;
    tracing::info!(component = "tunnels", %listen, "tunnel removed");
    Ok(list(State(app)).await)
}

/// Whether it may be added.
fn judge(app: &App, tunnel: &Tunnel) -> Result<(), Failure> {
    let settings = app.settings();
    let config = &settings.config;
    let shared = app.lock();
    if !config.peers.iter().any(|peer| peer.name == tunnel.peer) {
        let name: String = tunnel.peer.chars().filter(|c| !c.is_control()).take(64).collect();
        let near = shared.peers.nearest(&name);
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let failure = Failure::new(
            status,
            Problem::UNKNOWN_PEER,
            "Unknown peer",
            format!("no peer is called '{name}'"),
        );
        return Err(failure.with_nearest(near.as_deref()));
    }
    if !tunnel.listen.ip().is_loopback() && !config.tunnels.listen_beyond_loopback {
        return Err(Failure::impossible(format!(
            "{} is reached by other hosts: set tunnels.listen_beyond_loopback to true if that is wanted",
            tunnel.listen
        )));
    }
    let other = shared.tunnels.in_force(config).into_iter().find(|(other, _)| other.listen == tunnel.listen);
    if let Some((other, origin)) = other {
        let way_out = match origin {
            TunnelOrigin::Configuration => "it is in tunnels.listen of the configuration",
            TunnelOrigin::Operator => "`dwcp tunnel remove` takes it away",
        };
        return Err(taken(format!(
            "{} is a tunnel to {}:{} already: {way_out}",
            other.listen, other.peer, other.target
        )));
    }
    if shared.tunnels.is_full() {
        return Err(Failure::refused("there are as many tunnels as may be: remove some"));
    }
    Ok(())
}

/// What the dataplane says of a new tunnel, if it says so in time.
async fn said(app: &App, tunnel: &Tunnel) -> TunnelFigures {
    let listen = tunnel.listen.to_string();
    let mut tries = 0;
    loop {
        let (has_dataplane, found) = look(app, &listen);
        tries += 1;
        match found {
            Some(figures) if figures.state != TunnelState::Waiting || !has_dataplane || tries > TRIES_MAX => {
                return figures;
            }
            Some(_) => tokio::time::sleep(TRY_INTERVAL).await,
            // Removed, or the configuration took its place, in between.
            None => {
                return TunnelFigures {
                    listen,
                    peer: tunnel.peer.clone(),
                    target: tunnel.target.clone(),
                    origin: TunnelOrigin::Operator,
                    state: TunnelState::Waiting,
                    last_error: None,
                    connections: 0,
                    connections_total: 0,
                    refused_total: 0,
                    bytes_sent: 0,
                    bytes_received: 0,
                };
            }
        }
    }
}

/// Whether there is a dataplane to wait for, and the tunnel.
fn look(app: &App, listen: &str) -> (bool, Option<TunnelFigures>) {
    let settings = app.settings();
    let shared = app.lock();
    let tunnels = shared.tunnels.figures(&settings.config);
    (shared.dataplane.is_some(), tunnels.into_iter().find(|figures| figures.listen == listen))
}

async fn forget(app: &Arc<App>, listen: SocketAddr) -> Result<(), Failure> {
    app.store.delete_tunnel(listen.to_string()).await.map_err(not_stored)?;
    app.change_tunnels(|tunnels| drop(tunnels.remove(listen)));
    Ok(())
}

fn taken(detail: String) -> Failure {
    Failure::new(StatusCode::CONFLICT, Problem::CONFLICT, "Cannot listen", detail)
}

fn not_stored(error: crate::store::StoreError) -> Failure {
    let status = StatusCode::INSUFFICIENT_STORAGE;
    Failure::new(status, Problem::REFUSED, "Not stored", format!("nothing was changed: {error}"))
}

const TRY_INTERVAL: Duration = Duration::from_millis(20);
/// Three seconds.
const TRIES_MAX: u32 = 150;
