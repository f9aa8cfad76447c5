//! The names. Aliases are untyped: `x` beside `x_total` would be one family in newer formats.

/// One family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

/// Its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Untyped,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped => "untyped",
        }
    }
}

macro_rules! families {
    ($($name:literal $kind:ident $help:literal;)*) => {
        /// Every family.
        pub(super) const FAMILIES: &[Family] = &[$(Family { name: $name, kind: Kind::$kind, help: $help },)*];
    };
}

families! {
    "dwcp_amst_active_streams" Gauge "Open lanes; absent while the node is disabled.";
    "dwcp_amst_bytes_sent_total" Counter "Bytes sent on lanes, frames and encryption included.";
    "dwcp_amst_bytes_received_total" Counter "Bytes received on lanes, frames and encryption included.";
    "dwcp_amst_bytes_sent" Untyped "Alias of dwcp_amst_bytes_sent_total.";
    "dwcp_amst_bytes_received" Untyped "Alias of dwcp_amst_bytes_received_total.";
    "dwcp_amst_stream_errors_total" Counter "Lanes lost by an error.";
    "dwcp_amst_stream_errors" Untyped "Alias of dwcp_amst_stream_errors_total.";
    "dwcp_amst_mode_transitions_total" Counter "Changes between datacenter and internet mode.";
    "dwcp_mode_info" Gauge "1 for the configured mode.";
    "dwcp_amst_bytes_resent_total" Counter "Plain bytes sent again.";
    "dwcp_amst_send_latency_seconds" Histogram "From queue to completion of a send.";
    "dwcp_transport_latency_milliseconds" Gauge "Median of dwcp_amst_send_latency_seconds since the dataplane started, as the upper bound of its bucket; NaN before the first.";
    "dwcp_transport_backlogged" Gauge "Whether transfers are under way, 0 or 1.";
    "dwcp_link_capacity_bytes_per_second" Gauge "Speed of the host's network devices, where they say it.";
    "dwcp_transport_active_streams" Gauge "Alias of dwcp_amst_active_streams.";
    "dwcp_transport_bytes_sent_total" Counter "Alias of dwcp_amst_bytes_sent_total.";
    "dwcp_transport_bytes_received_total" Counter "Alias of dwcp_amst_bytes_received_total.";
    "dwcp_hde_bytes_original_total" Counter "Bytes given to compression.";
    "dwcp_hde_bytes_compressed_total" Counter "Bytes that compression made of them.";
    "dwcp_hde_baselines_synced" Gauge "Versions of sent files that this node keeps, because a receiver has them, too.";
    "dwcp_hde_baseline_bytes" Gauge "Bytes of the versions that are kept.";
    "dwcp_hde_delta_encoding_ratio" Gauge "1 - differences by original bytes of chunks that were sent as differences; NaN before the first.";
    "dwcp_hde_delta_hit_rate" Gauge "Share of the files that a receiver had a former version of, and this node as well; NaN before the first.";
    "dwcp_hde_delta_chunks_unmade_total" Counter "Chunks of differences that could not be made here and were sent as they are.";
    "dwcp_hde_compression_ratio" Gauge "Original by compressed bytes over 5 minutes; NaN until 1 MiB was compressed.";
    "dwcp_compression_ratio" Gauge "Percent saved by compression over 5 minutes; NaN until 1 MiB was compressed.";
    "dwcp_requests_total" Counter "Jobs and objects begun.";
    "dwcp_errors_total" Counter "Jobs that failed, wholly or in part.";
    "dwcp_error_rate" Gauge "Percent of jobs that failed over 5 minutes.";
    "dwcp_errors_by_type_total" Counter "Errors by component and type.";
    "dwcp_throughput_bytes" Gauge "Plain bytes per second over a minute, both directions; NaN while nothing moves.";
    "dwcp_integrity_failures_total" Counter "Objects or chunks whose digest or checksum did not match.";
    "dwcp_transfers_active" Gauge "Transfers that have not ended.";
    "dwcp_peers" Gauge "Configured peers, by whether lanes stand.";
    "dwcp_enabled" Gauge "Whether the node takes work, 0 or 1.";
    "dwcp_config_loaded" Gauge "0 after a reload that failed; the former configuration is then in use.";
    "dwcp_config_last_reload_successful" Gauge "The same as dwcp_config_loaded, under the name that other exporters use.";
    "dwcp_config_reload_success_timestamp_seconds" Gauge "The same as dwcp_config_last_load_timestamp_seconds, under the name that other exporters use.";
    "dwcp_draining" Gauge "Whether somebody drains the node, 0 or 1.";
    "dwcp_config_last_load_timestamp_seconds" Gauge "When the configuration in use was loaded.";
    "dwcp_manager_uptime_seconds" Gauge "Since control started.";
    "dwcp_manager_component_healthy" Gauge "Whether an enabled component works, 0 or 1.";
    "dwcp_manager_circuit_breaker_state" Gauge "0 closed, 1 half-open, 2 open.";
    "dwcp_manager_circuit_breaker_failures_total" Counter "Failures that the circuit breaker counted.";
    "dwcp_manager_circuit_breaker_failures" Untyped "Alias of dwcp_manager_circuit_breaker_failures_total.";
    "dwcp_peer_circuit_breaker_state" Gauge "0 closed, 1 half-open, 2 open, for each peer.";
    "dwcp_peer_circuit_breaker_failures_total" Counter "Interrupted attempts that a peer's circuit breaker counted.";
    "dwcp_manager_recovery_attempts_total" Counter "Attempts to get a failed component back.";
    "dwcp_manager_recovery_success_total" Counter "Those that worked.";
    "dwcp_component_health" Gauge "0 while a component does not work; 1 for disabled ones.";
    "dwcp_component_state" Gauge "1 for the state that a component is in.";
    "dwcp_dataplane_connected" Gauge "Whether the dataplane is attached, 0 or 1.";
    "dwcp_dataplane_restarts_total" Counter "Starts of the dataplane that control saw, but for the first.";
    "dwcp_dataplane_heartbeat_age_seconds" Gauge "Age of the oldest heartbeat of a worker; NaN without a dataplane.";
    "dwcp_dataplane_events_garbage_total" Counter "Events of the dataplane that could not be understood.";
    "dwcp_dataplane_resident_memory_bytes" Gauge "Resident memory of the dataplane.";
    "dwcp_dataplane_handshakes_total" Counter "Handshakes of lanes by result.";
    "dwcp_dataplane_io_backend" Gauge "1 for the way in which the workers talk to the kernel.";
    "dwcp_dataplane_core_streams" Gauge "Lanes of a worker.";
    "dwcp_dataplane_core_bytes_sent_total" Counter "Bytes sent by a worker.";
    "dwcp_dataplane_core_bytes_received_total" Counter "Bytes received by a worker.";
    "dwcp_dataplane_core_busy_seconds_total" Counter "Time that a worker worked rather than waited.";
    "dwcp_dataplane_core_cqe_total" Counter "Completions that a worker reaped.";
    "dwcp_dataplane_core_sqe_full_total" Counter "Times that a worker's submission queue was full.";
    "dwcp_rdma_up" Gauge "Whether lanes can go over this RDMA port, 0 or 1.";
    "dwcp_rdma_lanes" Gauge "Lanes over RDMA queue pairs.";
    "dwcp_rdma_bytes_sent_total" Counter "Bytes of frames sent over queue pairs.";
    "dwcp_rdma_bytes_received_total" Counter "Bytes of frames that came over queue pairs.";
    "dwcp_rdma_lanes_lost_total" Counter "Lanes over queue pairs that were lost by an error; their peers get TCP for a while.";
    "dwcp_ebpf_program_loaded" Gauge "Whether a kernel program is attached, 0 or 1.";
    "dwcp_ebpf_class_packets_total" Counter "Packets per class, direction and core.";
    "dwcp_ebpf_class_bytes_total" Counter "Bytes per class, direction and core.";
    "dwcp_ebpf_guard_packets_total" Counter "Packets to the guarded peer port by verdict.";
    "dwcp_ebpf_departures_total" Counter "Packets of classes with a rate for each peer that were delayed, or dropped beyond the horizon.";
    "dwcp_tunnel_up" Gauge "Whether a tunnel listens, 0 or 1.";
    "dwcp_tunnel_connections" Gauge "Connections of a tunnel that stand.";
    "dwcp_tunnel_connections_total" Counter "Connections of a tunnel that were begun.";
    "dwcp_tunnel_refused_total" Counter "Connections of a tunnel that were not connected to their target.";
    "dwcp_tunnel_bytes_sent_total" Counter "Bytes to a tunnel's target.";
    "dwcp_tunnel_bytes_received_total" Counter "Bytes from a tunnel's target.";
    "dwcp_tunnel_peer_lanes" Gauge "Lanes for tunnels with a peer.";
    "dwcp_tunnel_peer_lanes_lost_total" Counter "Lanes for tunnels that were lost while connections stood, which went on.";
    "dwcp_tunnel_peer_accepted_total" Counter "Connections to targets here that a peer asked for.";
    "dwcp_tunnel_peer_refused_total" Counter "Of those, refused: forbidden, or the target did not answer.";
    "dwcp_acp_consensus_latency_seconds" Histogram "From submission of a command at this node to its application here.";
    "dwcp_acp_quorum_formation_seconds" Histogram "From a proposal's acceptance at this node to a quorum behind it.";
    "dwcp_acp_finalization_seconds" Histogram "From a proposal's acceptance at this node to its place in the order: probable as a sample decided, certain as a quorum did.";
    "dwcp_acp_round_seconds" Histogram "From one certified vertex of this node to its next; with bullshark.";
    "dwcp_acp_consensus_failures_total" Counter "Probes that the cluster did not decide within 15 s.";
    "dwcp_acp_transactions_total" Counter "Commands applied since control started, by algorithm.";
    "dwcp_acp_messages_total" Counter "Messages between members: sent, received, dropped from full queues, refused as unsound.";
    "dwcp_acp_deciding" Gauge "Whether the last probe came through, 0 or 1.";
    "dwcp_acp_epoch" Gauge "Epoch of the cluster: each change of members, protocol or committee begins another.";
    "dwcp_acp_epochs_total" Counter "Epochs begun since control started.";
    "dwcp_acp_position" Gauge "Last position of the order that was applied here.";
    "dwcp_acp_leaders_given_up_total" Counter "Leaders that this node gave up.";
    "dwcp_acp_dag_depth_vertices" Gauge "Rounds or slots that are held above the last stable checkpoint.";
    "dwcp_acp_committee_size" Gauge "Members whose votes count.";
    "dwcp_acp_byzantine_suspects" Gauge "Members that were shown to have signed two statements that exclude each other.";
    "dwcp_acp_trust" Gauge "Share of all trust that a member has, from 0 to 1; only where trust chooses the committee.";
    "dwcp_acp_peers_reached" Gauge "Other members that this node is connected to.";
    "dwcp_backup_last_success_timestamp_seconds" Gauge "When the state was last backed up; absent until then.";
    "dwcp_backup_size_bytes" Gauge "Size of that copy.";
    "dwcp_http_requests_total" Counter "Requests to control by route, method and status.";
    "dwcp_http_request_duration_seconds" Histogram "Duration of requests to control.";
    "dwcp_http_rate_limited_total" Counter "Requests refused because their client made too many.";
    "dwcp_tls_certificate_expiry_timestamp_seconds" Gauge "When the certificate of the HTTPS interface (server) expires, and the first of those that vouch for clients (ca); absent without one.";
    "dwcp_metrics_listener_up" Gauge "Whether the second metrics listener has its port, 0 or 1.";
    "dwcp_build_info" Gauge "1; labels say what is running.";
    "process_start_time_seconds" Gauge "When control started, in seconds since 1970.";
    "process_cpu_seconds_total" Counter "User and system time of control.";
    "process_resident_memory_bytes" Gauge "Resident memory of control.";
    "process_open_fds" Gauge "Open descriptors of control.";
    "process_threads" Gauge "Threads of control.";
}

/// Families that may have no sample: there is nothing to say yet.
#[cfg(test)]
pub(super) const MAY_BE_EMPTY: &[&str] = &[
    "dwcp_amst_active_streams",
    "dwcp_transport_active_streams",
    "dwcp_link_capacity_bytes_per_second",
    "dwcp_acp_consensus_latency_seconds",
    "dwcp_acp_quorum_formation_seconds",
    "dwcp_acp_finalization_seconds",
    "dwcp_acp_round_seconds",
    "dwcp_acp_consensus_failures_total",
    "dwcp_acp_transactions_total",
    "dwcp_acp_messages_total",
    "dwcp_acp_deciding",
    "dwcp_acp_epoch",
    "dwcp_acp_epochs_total",
    "dwcp_acp_position",
    "dwcp_acp_leaders_given_up_total",
    "dwcp_acp_dag_depth_vertices",
    "dwcp_acp_committee_size",
    "dwcp_acp_byzantine_suspects",
    "dwcp_acp_trust",
    "dwcp_acp_peers_reached",
    "dwcp_backup_last_success_timestamp_seconds",
    "dwcp_backup_size_bytes",
    "dwcp_tls_certificate_expiry_timestamp_seconds",
    "dwcp_peer_circuit_breaker_state",
    "dwcp_peer_circuit_breaker_failures_total",
    "dwcp_dataplane_core_streams",
    "dwcp_dataplane_core_bytes_sent_total",
    "dwcp_dataplane_core_bytes_received_total",
    "dwcp_dataplane_core_busy_seconds_total",
    "dwcp_dataplane_core_cqe_total",
    "dwcp_dataplane_core_sqe_full_total",
    "dwcp_dataplane_io_backend",
    "dwcp_rdma_up",
    "dwcp_ebpf_class_packets_total",
    "dwcp_ebpf_class_bytes_total",
    "dwcp_http_requests_total",
    "dwcp_metrics_listener_up",
    "dwcp_tunnel_up",
    "dwcp_tunnel_connections",
    "dwcp_tunnel_connections_total",
    "dwcp_tunnel_refused_total",
    "dwcp_tunnel_bytes_sent_total",
    "dwcp_tunnel_bytes_received_total",
    "dwcp_tunnel_peer_lanes",
    "dwcp_tunnel_peer_lanes_lost_total",
    "dwcp_tunnel_peer_accepted_total",
    "dwcp_tunnel_peer_refused_total",
];

/// Every metric that the shipped alerts and dashboards ask for is declared here.
#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Words that look like our metrics in text.
    fn metrics(text: &str) -> Vec<&str> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = text.split(|c| !is_word(c));
        words.filter(|word| word.starts_with("dwcp_") || word.starts_with("process_")).collect()
    }

    fn is_declared(name: &str) -> bool {
        FAMILIES.iter().any(|family| {
            let parts: &[&str] = match family.kind {
                Kind::Histogram => &["", "_bucket", "_sum", "_count"],
                Kind::Counter | Kind::Gauge | Kind::Untyped => &[""],
            };
            parts.iter().any(|part| name.strip_suffix(part) == Some(family.name))
        })
    }

    #[test]
    fn alerts_and_dashboards_ask_for_metrics_that_exist() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut seen = 0;
        for folder in ["prometheus", "grafana"] {
            for entry in std::fs::read_dir(configs.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let text = std::fs::read_to_string(&path).unwrap();
                for name in metrics(&text).into_iter().filter(|name| *name != "dwcp_alerts") {
                    assert!(is_declared(name), "{}: there is no metric {name}", path.display());
                    seen += 1;
                }
            }
        }
        assert!(seen > 80, "{seen}");
        assert!(!is_declared("dwcp_amst_active_stream") && !is_declared("dwcp_enabled_bucket"));
    }

    #[test]
    fn dashboards_are_json_with_a_query_in_every_panel() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/grafana");
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(dashboard["uid"].is_string() && dashboard["title"].is_string());
            for panel in dashboard["panels"].as_array().unwrap() {
                let targets = panel["targets"].as_array().unwrap();
                assert!(
                    !targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()),
                    "{panel}"
                );
            }
        }
    }
}
