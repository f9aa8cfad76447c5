//! Documents that only show: status, statistics, peers, version, the page for people.
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use dwcp_abi::bpf::{Class, Direction};
use dwcp_abi::shm::{FLOW_CORES_MAX, NodeCounter, NodeFigures, ProgramFlag, WorkerCounter};
use dwcp_api::{
    BpfClass, BpfStats, CoreFigures, CoreStats, DataplaneStatus, Mode, PeerList, PeersTotal, Stats, Status,
    paths,
};
use serde::Serialize;

use crate::app::{App, Shared};

/// A JSON answer that ends with a line feed.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Our own documents have string keys and finite numbers: they always serialize.
    let mut body = serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec());
    body.push(b'\n');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The node at a glance.
#[utoipa::path(get, path = paths::STATUS, tag = "node", responses((status = 200, body = Status)))]
pub(super) async fn status(State(app): State<Arc<App>>) -> Response {
    let settings = app.settings();
    let config = &settings.config;
    let uptime = app.now().uptime;
    let shared = app.lock();
    let document = Status {
        schema: Status::SCHEMA,
        enabled: config.enabled,
        version: config.version.clone(),
        phase: "phase1".into(),
        mode: mode_in_use(config),
        node_id: app.node_id.clone(),
        fingerprint: shared.fingerprint.map(|bytes| dwcp_config::Identity(bytes).to_string()),
        environment: config.environment.as_str().into(),
        build_version: env!("CARGO_PKG_VERSION").into(),
        uptime_seconds: uptime.as_secs(),
        rollout_percentage: 0,
        drained: shared.jobs.is_draining() && shared.jobs.under_way() == 0,
        peers: PeersTotal { total: bounded(config.peers.len()), up: bounded(shared.peers.up()) },
        dataplane: dataplane(&shared),
        streams: bounded(usize::try_from(shared.streams()).unwrap_or(usize::MAX)),
        transfers_active: shared.jobs.active() as u64,
        cores: cores(&shared),
    };
    drop(shared);
    json(StatusCode::OK, &document)
}

/// The API's word for the configured mode.
pub(super) fn mode_in_use(config: &dwcp_config::Config) -> Mode {
    match config.mode {
        dwcp_config::Mode::Hybrid => Mode::Hybrid,
        dwcp_config::Mode::Datacenter => Mode::Datacenter,
        dwcp_config::Mode::Internet => Mode::Internet,
    }
}

fn dataplane(shared: &Shared) -> DataplaneStatus {
    let attached = shared.dataplane.as_ref().map(|dataplane| dataplane.attached);
    DataplaneStatus {
        connected: attached.is_some(),
        pid: attached.map(|attached| attached.pid),
        restarts: shared.totals.dataplane_restarts,
        workers: attached.map_or(0, |attached| attached.workers),
        features: shared.figures.features.clone(),
    }
}

/// The core that a worker is pinned to.
fn pinned(worker: &dwcp_abi::shm::WorkerSnapshot) -> Option<u32> {
    u32::try_from(worker.value(WorkerCounter::Core)).ok()?.checked_sub(1)
}

fn cores(shared: &Shared) -> Vec<CoreFigures> {
    if shared.dataplane.is_none() {
        return Vec::new();
    }
    let figures = shared.figures.workers.iter().enumerate().map(|(index, worker)| {
        let rates = shared.rates.core(index);
        let rate = |meter: Option<f64>| meter.unwrap_or(0.0) as u64;
        CoreFigures {
            worker: index as u16,
            cpu: pinned(worker),
            lanes: bounded(usize::try_from(worker.value(WorkerCounter::Lanes)).unwrap_or(usize::MAX)),
            bytes_sent: worker.value(WorkerCounter::BytesSent),
            bytes_received: worker.value(WorkerCounter::BytesReceived),
            send_rate_bytes_per_s: rate(rates.and_then(|rates| rates.sent.per_second())),
            receive_rate_bytes_per_s: rate(rates.and_then(|rates| rates.received.per_second())),
            busy_ratio: rates
                .and_then(|rates| rates.busy_ns.per_second())
                .map(|ns| (ns / 1e9).clamp(0.0, 1.0)),
        }
    });
    figures.collect()
}

/// Every counter there is.
#[utoipa::path(get, path = paths::STATS, tag = "node", responses((status = 200, body = Stats)))]
pub(super) async fn stats(State(app): State<Arc<App>>) -> Response {
    let shared = app.lock();
    let figures = shared.figures.clone();
    drop(shared);
    let core = |(index, worker): (usize, &dwcp_abi::shm::WorkerSnapshot)| CoreStats {
        worker: index as u16,
        cpu: pinned(worker),
        counters: WorkerCounter::ALL
            .iter()
            .map(|counter| (counter.name().into(), worker.value(*counter)))
            .collect(),
    };
    let node: BTreeMap<String, u64> = NodeCounter::ALL
        .iter()
        .map(|counter| (counter.name().into(), figures.node.value(*counter)))
        .collect();
    let document = Stats {
        schema: Stats::SCHEMA,
        cores: figures.workers.iter().enumerate().map(core).collect(),
        node,
        bpf: bpf(&figures.node, &figures.features),
    };
    json(StatusCode::OK, &document)
}

fn bpf(node: &NodeFigures, features: &[dwcp_api::Feature]) -> BpfStats {
    let programs = [ProgramFlag::ClassifyEgress, ProgramFlag::ClassifyIngress];
    let loaded = programs.into_iter().any(|program| node.has_program(program));
    let said = features.iter().find(|feature| feature.name.contains("bpf"));
    let unsaid = if loaded { "attached" } else { "not loaded" };
    let reason = said.map_or_else(|| unsaid.to_owned(), |feature| feature.reason.clone());
    BpfStats { loaded, reason, classes: classes(node) }
}

fn classes(node: &NodeFigures) -> Vec<BpfClass> {
    let mut classes = Vec::new();
    for core in 0..FLOW_CORES_MAX {
        for class in Class::ALL {
            for direction in Direction::ALL {
                let flow = node.flow(core, direction, class);
                if flow.packets > 0 {
                    let (class, direction) = (class.name().into(), direction.name().into());
                    let cpu = core as u32;
                    classes.push(BpfClass {
                        class,
                        direction,
                        cpu,
                        packets: flow.packets,
                        bytes: flow.bytes,
                    });
                }
            }
        }
    }
    classes
}

/// The configured peers.
#[utoipa::path(get, path = paths::PEERS, tag = "node", responses((status = 200, body = PeerList)))]
pub(super) async fn peers(State(app): State<Arc<App>>) -> Response {
    let now = app.now();
    let mut shared = app.lock();
    let breakers = shared.jobs.gate.peer_figures(now);
    let peers = shared.peers.figures(&breakers);
    drop(shared);
    json(StatusCode::OK, &PeerList { schema: PeerList::SCHEMA, peers })
}

/// Which program answers.
#[utoipa::path(get, path = paths::VERSION, tag = "node", responses((status = 200, content_type = "application/json")))]
pub(super) async fn version() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "name": "dwcp-control", "version": env!("CARGO_PKG_VERSION") }))
}

/// The node live, for people: one page that needs nothing but this node.
#[utoipa::path(get, path = "/", tag = "node", responses((status = 200, content_type = "text/html", body = String)))]
pub(super) async fn index() -> Response {
    let mut response = Html(PAGE).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

const PAGE: &str = include_str!("page.html");
/// The page asks this node alone, and nobody may frame it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn bounded(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
