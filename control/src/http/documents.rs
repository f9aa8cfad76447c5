//! Documents that only show: status, statistics, peers, configuration, version, the index page.
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, Response};
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

/// `GET /api/v1/dwcp/status`
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
        mode: match config.mode {
            dwcp_config::Mode::Hybrid => Mode::Hybrid,
            dwcp_config::Mode::Datacenter => Mode::Datacenter,
            dwcp_config::Mode::Internet => Mode::Internet,
        },
        node_id: app.node_id.clone(),
        fingerprint: shared.fingerprint.map(|bytes| dwcp_config::Identity(bytes).to_string()),
        environment: config.environment.as_str().into(),
        build_version: env!("CARGO_PKG_VERSION").into(),
        uptime_seconds: uptime.as_secs(),
        rollout_percentage: 0,
        drained: false,
        peers: PeersTotal { total: bounded(config.peers.len()), up: bounded(shared.peers.up()) },
        dataplane: dataplane(&shared),
        streams: bounded(usize::try_from(shared.streams()).unwrap_or(usize::MAX)),
        transfers_active: shared.jobs.active() as u64,
        cores: cores(&shared),
    };
    drop(shared);
    json(StatusCode::OK, &document)
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

/// `GET /api/v1/dwcp/stats`
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

/// `GET /api/v1/dwcp/peers`
pub(super) async fn peers(State(app): State<Arc<App>>) -> Response {
    let peers = app.lock().peers.figures();
    json(StatusCode::OK, &PeerList { schema: PeerList::SCHEMA, peers })
}

/// `GET /api/v1/dwcp/config`
pub(super) async fn config(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &app.settings().document())
}

/// `GET /version`
pub(super) async fn version() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "name": "dwcp-control", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /`
pub(super) async fn index(State(app): State<Arc<App>>) -> Html<String> {
    let links =
        [paths::HEALTH, "/health?verbose=true", paths::READY, paths::LIVE, paths::METRICS, paths::STATUS];
    let more = [paths::STATS, paths::PEERS, paths::CONFIG, paths::TRANSFERS, "/version"];
    let items: String =
        links.iter().chain(&more).map(|link| format!("<li><a href=\"{link}\">{link}</a></li>\n")).collect();
    let node = app.node_id.replace('&', "&amp;").replace('<', "&lt;");
    Html(format!("<!doctype html><title>DWCP {node}</title><h1>DWCP on {node}</h1><ul>\n{items}</ul>\n"))
}

fn bounded(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
