//! What stands between lanes and RDMA on this host: ports, addresses, modules, limits, and what the dataplane says of it.
use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dwcp_abi::shm::WorkerCounter;
use dwcp_api::{FeatureState, KernelEntry, Problem, TransportMode, TransportReport, paths};
use dwcp_sys::rdma::{PortFacts, ports};
use serde::Deserialize;
use utoipa::IntoParams;

use super::documents::json;
use super::problem::Failure;
use crate::app::App;

/// What to look into.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Wanted {
    /// Only `rdma`.
    #[param(inline)]
    mode: TransportMode,
}

/// Whether lanes go over RDMA, why not, and what this host has for it.
#[utoipa::path(
    get, path = paths::DEBUG_TRANSPORT, tag = "node", params(Wanted),
    responses((status = 200, body = TransportReport), (status = 400, body = Problem))
)]
pub(super) async fn transport(
    State(app): State<Arc<App>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Wanted { mode: TransportMode::Rdma }) =
        query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let shared = app.lock();
    let figures = shared.figures.clone();
    let pid = shared.dataplane.as_ref().map(|dataplane| dataplane.attached.pid);
    drop(shared);
    let settings = app.settings();
    let transport = &settings.config.transport;
    let said = figures.features.iter().find(|feature| feature.name == "rdma").filter(|_| pid.is_some());
    let mut entries = vec![
        entry("configuration", "transport.enable_rdma", transport.enable_rdma.to_string()),
        entry("configuration", "transport.rdma_device", named(&transport.rdma_device)),
        entry("configuration", "transport.rdma_port", transport.rdma_port.to_string()),
    ];
    if pid.is_some() {
        let sum = |counter| figures.sum(counter);
        let bytes = |counter| format!("{} bytes", sum(counter));
        entries.extend([
            entry("lanes", "standing", sum(WorkerCounter::RdmaLanes).to_string()),
            entry("lanes", "lost by an error", sum(WorkerCounter::RdmaLanesLost).to_string()),
            entry("lanes", "sent", bytes(WorkerCounter::RdmaBytesSent)),
            entry("lanes", "received", bytes(WorkerCounter::RdmaBytesReceived)),
        ]);
    }
    entries.extend(host(pid));
    let report = TransportReport {
        schema: TransportReport::SCHEMA,
        mode: TransportMode::Rdma,
        usable: said.is_some_and(|feature| feature.state == FeatureState::On),
        why: said.map_or("the dataplane is not attached".into(), |feature| feature.reason.clone()),
        entries,
    };
    Ok(json(StatusCode::OK, &report))
}

/// What the kernel shows. `pid` is the dataplane's.
fn host(pid: Option<u32>) -> Vec<KernelEntry> {
    let mut entries = Vec::new();
    let found = ports();
    if found.is_empty() {
        entries.push(entry("port", "none", "this host has no RDMA device (`rdma link`)".into()));
    }
    for port in &found {
        entries.extend(of_port(port));
    }
    for name in MODULES {
        let loaded = Path::new("/sys/module").join(name).exists();
        // Which driver there should be depends on the card: those that are absent are no news.
        if loaded || name == "ib_uverbs" {
            let detail = if loaded { "loaded" } else { "not loaded: `modprobe ib_uverbs`" };
            entries.push(entry("module", name, detail.into()));
        }
    }
    let nodes = names(Path::new("/dev/infiniband")).into_iter().filter(|name| name.starts_with("uverbs"));
    let nodes: Vec<String> = nodes.collect();
    let nodes = if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") };
    entries.push(entry("nodes", "/dev/infiniband", nodes));
    if let Some(pid) = pid {
        entries.push(entry("limit", "locked memory", locked_memory(pid)));
    }
    entries
}

fn of_port(port: &PortFacts) -> Vec<KernelEntry> {
    let name = format!("{}/{}", port.device, port.port);
    let mut entries = vec![entry("port", &name, format!("{}, {}", port.state, port.link_layer))];
    entries.extend(port.gids.iter().map(|gid| {
        let mtu = fs::read_to_string(format!("/sys/class/net/{}/mtu", gid.interface)).unwrap_or_default();
        let mut detail = format!("{}, {}", gid.address(), gid.kind);
        if !gid.interface.is_empty() {
            detail += &format!(", {} with an MTU of {}", gid.interface, mtu.trim());
        }
        entry("gid", &format!("{name} {}", gid.index), detail)
    }));
    entries
}

/// The dataplane's limit, and whether it is bound by it.
fn locked_memory(pid: u32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let limits = read("limits");
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(|line| line.split_whitespace().next());
    let status = read("status");
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    match (limit, capabilities) {
        (_, Some(capabilities)) if capabilities & CAP_IPC_LOCK != 0 => "not limited (CAP_IPC_LOCK)".into(),
        (Some("unlimited"), _) => "not limited".into(),
        (Some(limit), _) => {
            format!("{limit} bytes, with the buffers of a worker and 2 MiB a lane to be locked")
        }
        (None, _) => "unknown".into(),
    }
}

fn entry(kind: &str, name: &str, detail: String) -> KernelEntry {
    KernelEntry { kind: kind.into(), name: name.into(), detail }
}

fn named(device: &str) -> String {
    if device.is_empty() { "the first with an active port".into() } else { device.into() }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// `CAP_IPC_LOCK` (include/uapi/linux/capability.h).
const CAP_IPC_LOCK: u64 = 1 << 14;
/// The core, the way of programs to it, and drivers.
const MODULES: [&str; 10] =
    ["ib_core", "ib_uverbs", "mlx5_ib", "mlx4_ib", "irdma", "bnxt_re", "qedr", "efa", "siw", "rdma_rxe"];
