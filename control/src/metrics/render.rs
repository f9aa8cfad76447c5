//! The page. Each function writes one group of families from figures that were read before.
use std::sync::{Arc, PoisonError};

use dwcp_abi::bpf::{Class, Direction};
use dwcp_abi::shm::{
    FLOW_CORES_MAX, LATENCY_BOUNDS_US, LATENCY_BUCKETS, NodeCounter, ProgramFlag, WorkerCounter,
};
use dwcp_api::{ComponentState, FeatureState, TunnelFigures, TunnelPeer, TunnelState};
use dwcp_policy::Component;

use super::process::{ProcessFigures, started_s};
use super::text::Page;
use crate::app::{App, Shared};
use crate::figures::{Figures, monotonic_ns};
use crate::health::Translate;

/// The whole page.
pub(crate) fn render(app: &Arc<App>) -> String {
    let settings = app.settings();
    let uptime = app.now().uptime;
    let mut page = Page::new();
    let now = app.now();
    let mut shared = app.lock();
    let breaker = shared.jobs.gate.node_figures(now);
    let peer_breakers = shared.jobs.gate.peer_figures(now);
    transport(&mut page, &shared, settings.config.enabled);
    compression(&mut page, &shared);
    work(&mut page, &shared, settings.config.peers.len());
    page.family("dwcp_mode_info");
    for mode in ["datacenter", "internet", "hybrid"] {
        page.sample(&[("mode", mode)], settings.config.mode.as_str() == mode);
    }
    page.one("dwcp_config_last_reload_successful", !shared.is_reload_failed);
    page.one("dwcp_config_reload_success_timestamp_seconds", settings.loaded_at.unix_ms() as f64 / 1000.0);
    page.one("dwcp_draining", shared.jobs.is_draining());
    page.one("dwcp_enabled", settings.config.enabled);
    page.one("dwcp_config_loaded", !shared.is_reload_failed);
    page.one("dwcp_config_last_load_timestamp_seconds", settings.loaded_at.unix_ms() as f64 / 1000.0);
    page.one("dwcp_manager_uptime_seconds", uptime.as_secs_f64());
    page.one("dwcp_manager_circuit_breaker_state", u64::from(breaker.state.code()));
    let failures = breaker.failures_total;
    page.one("dwcp_manager_circuit_breaker_failures_total", failures);
    page.one("dwcp_manager_circuit_breaker_failures", failures);
    page.family("dwcp_peer_circuit_breaker_state");
    for (peer, breaker) in &peer_breakers {
        page.sample(&[("peer", peer)], u64::from(breaker.state.code()));
    }
    page.family("dwcp_peer_circuit_breaker_failures_total");
    for (peer, breaker) in &peer_breakers {
        page.sample(&[("peer", peer)], breaker.failures_total);
    }
    let (tries, successes) = shared.recoveries.totals();
    page.one("dwcp_manager_recovery_attempts_total", tries);
    page.one("dwcp_manager_recovery_success_total", successes);
    tunnels(&mut page, &shared, &settings.config);
    dataplane(&mut page, &shared);
    cores(&mut page, &shared.figures);
    rdma(&mut page, &shared, &settings.config.transport);
    kernel(&mut page, &shared.figures);
    page.family("dwcp_backup_last_success_timestamp_seconds");
    if let Some((ms, _)) = shared.backup {
        page.sample(&[], ms as f64 / 1000.0);
    }
    page.family("dwcp_backup_size_bytes");
    if let Some((_, bytes)) = shared.backup {
        page.sample(&[], bytes);
    }
    page.family("dwcp_tls_certificate_expiry_timestamp_seconds");
    for what in ["server", "ca"] {
        // Of several authorities, the one that is missed first.
        let named = shared.certificates.iter().filter(|certificate| certificate.name == what);
        if let Some(expires_s) = named.map(|certificate| certificate.expires_s).min() {
            page.sample(&[("cert", what)], expires_s as f64);
        }
    }
    let listener = shared.metrics_listener;
    drop(shared);
    let reports = app.health.read().unwrap_or_else(PoisonError::into_inner).reports.clone();
    components(&mut page, &reports);
    page.family("dwcp_metrics_listener_up");
    if let Some((port, is_up)) = listener {
        page.sample(&[("port", &port.to_string())], is_up);
    }
    super::cluster::cluster(&mut page, &app.cluster);
    requests(&mut page, app);
    process(&mut page, uptime);
    page.finish()
}

fn tunnels(page: &mut Page, shared: &Shared, config: &dwcp_config::Config) {
    let tunnels = shared.tunnels.figures(config);
    let mut family = |name: &str, value: &dyn Fn(&TunnelFigures) -> u64| {
        page.family(name);
        for tunnel in &tunnels {
            page.sample(&[("listen", &tunnel.listen), ("peer", &tunnel.peer)], value(tunnel));
        }
    };
    family("dwcp_tunnel_up", &|tunnel| u64::from(tunnel.state == TunnelState::Listening));
    family("dwcp_tunnel_connections", &|tunnel| u64::from(tunnel.connections));
    family("dwcp_tunnel_connections_total", &|tunnel| tunnel.connections_total);
    family("dwcp_tunnel_refused_total", &|tunnel| tunnel.refused_total);
    family("dwcp_tunnel_bytes_sent_total", &|tunnel| tunnel.bytes_sent);
    family("dwcp_tunnel_bytes_received_total", &|tunnel| tunnel.bytes_received);
    let mut family = |name: &str, value: &dyn Fn(&TunnelPeer) -> u64| {
        page.family(name);
        for peer in shared.tunnels.peers() {
            page.sample(&[("peer", &peer.peer)], value(peer));
        }
    };
    family("dwcp_tunnel_peer_lanes", &|peer| u64::from(peer.lanes));
    family("dwcp_tunnel_peer_lanes_lost_total", &|peer| peer.lanes_lost);
    family("dwcp_tunnel_peer_accepted_total", &|peer| peer.accepted_total);
    family("dwcp_tunnel_peer_refused_total", &|peer| peer.refused_total);
}

fn transport(page: &mut Page, shared: &Shared, is_enabled: bool) {
    let figures = &shared.figures;
    for name in ["dwcp_amst_active_streams", "dwcp_transport_active_streams"] {
        page.family(name);
        if is_enabled {
            page.sample(&[], shared.streams());
        }
    }
    for (counter, names) in [
        (
            WorkerCounter::BytesSent,
            ["dwcp_amst_bytes_sent_total", "dwcp_amst_bytes_sent", "dwcp_transport_bytes_sent_total"]
                .as_slice(),
        ),
        (
            WorkerCounter::BytesReceived,
            &[
                "dwcp_amst_bytes_received_total",
                "dwcp_amst_bytes_received",
                "dwcp_transport_bytes_received_total",
            ],
        ),
        (WorkerCounter::LanesLost, &["dwcp_amst_stream_errors_total", "dwcp_amst_stream_errors"]),
        (WorkerCounter::BytesResent, &["dwcp_amst_bytes_resent_total"]),
    ] {
        for name in names {
            page.one(name, figures.sum(counter));
        }
    }
    page.one("dwcp_amst_mode_transitions_total", shared.peers.mode_transitions());
    let mut buckets = [0_u64; LATENCY_BUCKETS];
    let (mut count, mut sum_ns) = (0_u64, 0_u64);
    for worker in &figures.workers {
        let latency = worker.send_latency();
        for (total, bucket) in buckets.iter_mut().zip(latency.buckets) {
            *total = total.saturating_add(*bucket);
        }
        (count, sum_ns) = (count.saturating_add(latency.count), sum_ns.saturating_add(latency.sum_ns));
    }
    page.histogram("dwcp_amst_send_latency_seconds", &bounds_s(), &buckets, count, sum_ns as f64 / 1e9);
    page.one("dwcp_transport_latency_milliseconds", median_ms(&buckets));
    page.one("dwcp_transport_backlogged", shared.jobs.under_way() > 0);
    page.family("dwcp_link_capacity_bytes_per_second");
    for link in &shared.links {
        page.sample(&[("device", &link.device)], link.bytes_per_s);
    }
}

/// Upper bound of the bucket that holds the median.
fn median_ms(buckets: &[u64; LATENCY_BUCKETS]) -> Option<f64> {
    let all = buckets.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let mut seen = 0_u64;
    let half = buckets.iter().position(|count| {
        seen = seen.saturating_add(*count);
        all > 0 && seen.saturating_mul(2) >= all
    })?;
    LATENCY_BOUNDS_US.get(half).map(|us| *us as f64 / 1000.0)
}

fn compression(page: &mut Page, shared: &Shared) {
    page.one("dwcp_hde_bytes_original_total", shared.figures.sum(WorkerCounter::CompressBytesIn));
    page.one("dwcp_hde_bytes_compressed_total", shared.figures.sum(WorkerCounter::CompressBytesOut));
    let deltas = shared.figures.deltas();
    page.one("dwcp_hde_baselines_synced", deltas.baselines);
    page.one("dwcp_hde_baseline_bytes", deltas.baseline_bytes);
    page.one("dwcp_hde_delta_encoding_ratio", deltas.saved());
    page.one("dwcp_hde_delta_hit_rate", deltas.hit_rate());
    page.one("dwcp_hde_delta_chunks_unmade_total", deltas.chunks_unmade);
    let ratio = shared.rates.compression_ratio();
    page.one("dwcp_hde_compression_ratio", ratio);
    page.one("dwcp_compression_ratio", ratio.map(|ratio| 100.0 * (1.0 - 1.0 / ratio)));
}

fn work(page: &mut Page, shared: &Shared, peers: usize) {
    let figures = &shared.figures;
    let sum = |counter| figures.sum(counter);
    page.one("dwcp_requests_total", sum(WorkerCounter::Requests));
    page.one("dwcp_errors_total", sum(WorkerCounter::JobsFailed));
    page.one("dwcp_error_rate", shared.rates.error_percent());
    page.family("dwcp_errors_by_type_total");
    for (kind, counter) in [
        ("job", WorkerCounter::JobsFailed),
        ("lane", WorkerCounter::LanesLost),
        ("protocol", WorkerCounter::ProtocolErrors),
        ("checksum", WorkerCounter::CrcFailures),
        ("integrity", WorkerCounter::IntegrityFailures),
    ] {
        page.sample(&[("component", "amst"), ("type", kind)], sum(counter));
    }
    page.one("dwcp_throughput_bytes", shared.rates.goodput());
    let integrity = sum(WorkerCounter::IntegrityFailures).wrapping_add(sum(WorkerCounter::CrcFailures));
    page.one("dwcp_integrity_failures_total", integrity);
    page.one("dwcp_transfers_active", shared.jobs.active() as u64);
    let up = shared.peers.up();
    page.family("dwcp_peers").sample(&[("state", "up")], up as u64);
    page.sample(&[("state", "down")], peers.saturating_sub(up) as u64);
}

fn dataplane(page: &mut Page, shared: &Shared) {
    let (figures, node) = (&shared.figures, &shared.figures.node);
    let is_connected = shared.dataplane.is_some();
    page.one("dwcp_dataplane_connected", is_connected);
    page.one("dwcp_dataplane_restarts_total", shared.totals.dataplane_restarts);
    let age = figures.heartbeat_age(monotonic_ns()).filter(|_| is_connected);
    page.one("dwcp_dataplane_heartbeat_age_seconds", age.map(|age| age.as_secs_f64()));
    page.one("dwcp_dataplane_events_garbage_total", shared.totals.garbage);
    page.one("dwcp_dataplane_resident_memory_bytes", node.value(NodeCounter::ResidentBytes));
    page.family("dwcp_dataplane_handshakes_total");
    for (result, counter) in [
        ("ok", NodeCounter::HandshakesOk),
        ("failed", NodeCounter::HandshakesFailed),
        ("timed_out", NodeCounter::HandshakesTimedOut),
        ("refused", NodeCounter::HandshakesRefused),
    ] {
        page.sample(&[("result", result)], node.value(counter));
    }
    page.family("dwcp_dataplane_io_backend");
    if let Some(feature) = figures.features.iter().find(|feature| feature.name == "io backend") {
        let is_io_uring = feature.reason.contains("io_uring");
        page.sample(&[("backend", "io_uring")], is_io_uring).sample(&[("backend", "epoll")], !is_io_uring);
    }
}

fn cores(page: &mut Page, figures: &Figures) {
    for (name, counter) in [
        ("dwcp_dataplane_core_streams", WorkerCounter::Lanes),
        ("dwcp_dataplane_core_bytes_sent_total", WorkerCounter::BytesSent),
        ("dwcp_dataplane_core_bytes_received_total", WorkerCounter::BytesReceived),
        ("dwcp_dataplane_core_cqe_total", WorkerCounter::Completions),
        ("dwcp_dataplane_core_sqe_full_total", WorkerCounter::QueueFull),
    ] {
        page.family(name);
        for (core, worker) in figures.workers.iter().enumerate() {
            page.sample(&[("core", &core.to_string())], worker.value(counter));
        }
    }
    page.family("dwcp_dataplane_core_busy_seconds_total");
    for (core, worker) in figures.workers.iter().enumerate() {
        page.sample(&[("core", &core.to_string())], worker.value(WorkerCounter::BusyNs) as f64 / 1e9);
    }
}

/// The port that is used, or the one that is wanted and cannot be; none where RDMA is not wanted.
fn rdma(page: &mut Page, shared: &Shared, transport: &dwcp_config::Transport) {
    let figures = &shared.figures;
    for (name, counter) in [
        ("dwcp_rdma_lanes", WorkerCounter::RdmaLanes),
        ("dwcp_rdma_bytes_sent_total", WorkerCounter::RdmaBytesSent),
        ("dwcp_rdma_bytes_received_total", WorkerCounter::RdmaBytesReceived),
        ("dwcp_rdma_lanes_lost_total", WorkerCounter::RdmaLanesLost),
    ] {
        page.one(name, figures.sum(counter));
    }
    page.family("dwcp_rdma_up");
    let said = figures.features.iter().find(|feature| feature.name == "rdma");
    if let Some(said) = said.filter(|_| transport.enable_rdma) {
        let is_up = said.state == FeatureState::On;
        // What is used begins with its name: a device that the configuration leaves open is known by that only.
        let used =
            said.reason.split_whitespace().next().filter(|_| is_up && transport.rdma_device.is_empty());
        let device = used.unwrap_or(&transport.rdma_device);
        page.sample(&[("device", device), ("port", &transport.rdma_port.to_string())], is_up);
    }
}

fn kernel(page: &mut Page, figures: &Figures) {
    page.family("dwcp_ebpf_program_loaded");
    for program in ProgramFlag::ALL {
        page.sample(&[("program", program.name())], figures.node.has_program(*program));
    }
    let mut flows = Vec::new();
    for core in 0..FLOW_CORES_MAX {
        for class in Class::ALL {
            for direction in Direction::ALL {
                let flow = figures.node.flow(core, direction, class);
                if flow.packets > 0 {
                    flows.push((class.name(), direction.name(), core.to_string(), flow));
                }
            }
        }
    }
    page.family("dwcp_ebpf_class_packets_total");
    for (class, direction, core, flow) in &flows {
        page.sample(&[("class", class), ("direction", direction), ("core", core)], flow.packets);
    }
    page.family("dwcp_ebpf_class_bytes_total");
    for (class, direction, core, flow) in &flows {
        page.sample(&[("class", class), ("direction", direction), ("core", core)], flow.bytes);
    }
    page.family("dwcp_ebpf_guard_packets_total");
    for (verdict, counter) in [("passed", NodeCounter::GuardPassed), ("dropped", NodeCounter::GuardDropped)] {
        page.sample(&[("verdict", verdict)], figures.node.value(counter));
    }
    page.family("dwcp_ebpf_departures_total");
    for (outcome, counter) in
        [("delayed", NodeCounter::DeparturesDelayed), ("dropped", NodeCounter::DeparturesDropped)]
    {
        page.sample(&[("outcome", outcome)], figures.node.value(counter));
    }
}

fn components(page: &mut Page, reports: &[(Component, ComponentState)]) {
    let named = reports.iter().filter_map(|(component, state)| Some((component.metric_prefix()?, *state)));
    let named: Vec<(&str, ComponentState)> = named.collect();
    page.family("dwcp_component_health");
    for (name, state) in &named {
        page.sample(&[("component", name)], *state != ComponentState::Unhealthy);
    }
    page.family("dwcp_component_state");
    for (name, state) in &named {
        for candidate in dwcp_policy::ComponentState::ALL {
            page.sample(&[("component", name), ("state", candidate.name())], state.policy() == candidate);
        }
    }
    page.family("dwcp_manager_component_healthy");
    for (component, state) in reports {
        let is_shown = *component != Component::Control && *state != ComponentState::Disabled;
        if is_shown {
            page.sample(&[("component", component.name())], *state == ComponentState::Healthy);
        }
    }
}

fn requests(page: &mut Page, app: &App) {
    let http = app.http.snapshot();
    page.one("dwcp_http_rate_limited_total", app.http.limited());
    page.family("dwcp_http_requests_total");
    for ((route, method, code), count) in &http.requests {
        page.sample(&[("route", route), ("method", method), ("code", &code.to_string())], *count);
    }
    page.histogram("dwcp_http_request_duration_seconds", &bounds_s(), &http.buckets, http.count, http.sum_s);
}

fn process(page: &mut Page, uptime: std::time::Duration) {
    let version = env!("CARGO_PKG_VERSION");
    page.family("dwcp_build_info").sample(&[("version", version), ("dialect", "canonical")], true);
    let process = ProcessFigures::read();
    page.one("process_start_time_seconds", started_s(uptime));
    page.one("process_cpu_seconds_total", process.cpu_s);
    page.one("process_resident_memory_bytes", process.resident_bytes);
    page.one("process_open_fds", process.open_fds);
    page.one("process_threads", process.threads);
}

fn bounds_s() -> [f64; LATENCY_BUCKETS] {
    LATENCY_BOUNDS_US.map(|us| us as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table::{FAMILIES, Kind, MAY_BE_EMPTY};

    fn app() -> (tempfile::TempDir, Arc<App>) {
        let directory = tempfile::tempdir().unwrap();
        let (store, recovered) =
            crate::store::Store::open(crate::store::Place::File(directory.path().join("control.db")))
                .unwrap();
        let wake = dwcp_sys::doorbell::Doorbell::create().unwrap();
        (directory, Arc::new(App::new(crate::Start::of_defaults(), store, recovered, wake)))
    }

    #[test]
    fn every_declared_family_is_on_the_page_once_and_nothing_else() {
        let (_directory, app) = app();
        app.http.count(
            "/health",
            &axum::http::Method::GET,
            axum::http::StatusCode::OK,
            std::time::Duration::ZERO,
        );
        crate::monitor::turn(&app);
        let page = render(&app);
        let types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(types.len(), FAMILIES.len());
        for family in FAMILIES {
            let declared = format!("{} {}", family.name, family.kind.name());
            assert_eq!(types.iter().filter(|found| **found == declared).count(), 1, "{declared}");
            assert!(family.kind != Kind::Counter || family.name.ends_with("_total"), "{}", family.name);
            let has_sample = page.lines().any(|line| !line.starts_with('#') && line.starts_with(family.name));
            assert!(has_sample || MAY_BE_EMPTY.contains(&family.name), "{} has no sample", family.name);
        }
    }

    #[test]
    fn every_line_parses() {
        let (_directory, app) = app();
        let page = render(&app);
        assert!(page.ends_with('\n'));
        for line in page.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let base = name.split('{').next().unwrap();
            assert!(base.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            assert!(name == base || name.ends_with("\"}"), "{line}");
        }
    }

    #[test]
    fn an_idle_node_has_no_ratio_and_no_throughput() {
        let (_directory, app) = app();
        let page = render(&app);
        for name in ["dwcp_hde_compression_ratio", "dwcp_compression_ratio", "dwcp_throughput_bytes"] {
            assert!(page.contains(&format!("\n{name} NaN\n")), "{name}");
        }
        assert!(page.contains("\ndwcp_errors_total 0\n") && page.contains("\ndwcp_requests_total 0\n"));
    }
}
