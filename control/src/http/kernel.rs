//! The kernel's flows and the state of its programs, out of the node's shared pages.
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use dwcp_abi::bpf::{Class, FlowState, address_bytes};
use dwcp_abi::shm::{FlowRecord, ProgramFlag};
use dwcp_api::{FlowFigures, FlowList, KernelEntry, KernelReport, paths};

use super::documents::json;
use crate::app::App;
use crate::figures::monotonic_ns;
use crate::jobs::clean;

/// Connections that the kernel programs follow, busiest first.
#[utoipa::path(get, path = paths::FLOWS, tag = "node", responses((status = 200, body = FlowList)))]
pub(super) async fn flows(State(app): State<Arc<App>>) -> Response {
    let shared = app.lock();
    let followed = shared.figures.node.has_program(ProgramFlag::SocketOperations);
    let page = shared.dataplane.as_ref().and_then(|dataplane| dataplane.node.flows().ok());
    drop(shared);
    let now_ns = monotonic_ns();
    let document = FlowList {
        schema: FlowList::SCHEMA,
        followed,
        total: page.as_ref().map_or(0, |page| page.total()),
        flows: page.iter().flat_map(|page| page.iter()).map(|record| figures(&record, now_ns)).collect(),
    };
    json(StatusCode::OK, &document)
}

/// Programs, maps and attachments in the kernel, and what is not as it was asked for.
#[utoipa::path(get, path = paths::KERNEL, tag = "node", responses((status = 200, body = KernelReport)))]
pub(super) async fn kernel(State(app): State<Arc<App>>) -> Response {
    let text = app.lock().dataplane.as_ref().and_then(|dataplane| dataplane.node.kernel().ok());
    let entry = |line: dwcp_abi::shm::Feature<'_>| KernelEntry {
        kind: clean(line.name.as_bytes()),
        name: clean(line.state.as_bytes()),
        detail: clean(line.reason.as_bytes()),
    };
    let entries = match &text {
        Some(text) => text.lines().map(entry).collect(),
        None => vec![KernelEntry {
            kind: "trouble".into(),
            name: "dataplane".into(),
            detail: "it is not attached, and nobody else knows".into(),
        }],
    };
    json(StatusCode::OK, &KernelReport { schema: KernelReport::SCHEMA, entries })
}

fn figures(record: &FlowRecord, now_ns: u64) -> FlowFigures {
    let (key, flow) = (&record.key, &record.flow);
    let end =
        |words, port| SocketAddr::new(IpAddr::from(address_bytes(words)).to_canonical(), port).to_string();
    let class = u32::try_from(flow.class).ok().and_then(Class::from_number).unwrap_or(Class::Other);
    let known = |value: u64| (value > 0).then_some(value);
    FlowFigures {
        protocol: match key.protocol {
            6 => "tcp".into(),
            17 => "udp".into(),
            number => number.to_string(),
        },
        local: end(key.local, key.local_port()),
        remote: end(key.remote, key.remote_port()),
        class: class.name().into(),
        state: match FlowState::from_number(flow.state) {
            FlowState::Counted => "counted",
            FlowState::Open => "open",
            FlowState::Closed => "closed",
        }
        .into(),
        bytes_sent: flow.bytes_sent,
        bytes_received: flow.bytes_received,
        packets_sent: flow.packets_sent,
        packets_received: flow.packets_received,
        rate_bytes_per_s: record.bytes_per_s,
        rtt_us: known(flow.rtt_us),
        rtt_min_us: known(flow.rtt_min_us),
        retransmits: flow.retransmits,
        ceiling_bytes_per_s: known(flow.rate_bytes_per_s),
        idle_ms: now_ns.saturating_sub(flow.last_ns) / 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_abi::bpf::{Flow, FlowKey, mapped};

    #[test]
    fn a_record_becomes_words() {
        let key = FlowKey {
            local: mapped(u32::from_ne_bytes([10, 0, 0, 1])),
            remote: [0, 0, 0, 1_u32.to_be()],
            ports: FlowKey::join_ports(5000, 80),
            protocol: 6,
        };
        let flow = Flow { class: 99, state: 1, last_ns: 5_000_000, rtt_us: 7, ..Flow::default() };
        let figures = figures(&FlowRecord { key, flow, bytes_per_s: 3 }, 8_000_000);
        assert_eq!((figures.local.as_str(), figures.remote.as_str()), ("10.0.0.1:5000", "[::1]:80"));
        assert_eq!((figures.class.as_str(), figures.state.as_str(), figures.idle_ms), ("other", "open", 3));
        assert_eq!((figures.rtt_us, figures.rtt_min_us, figures.ceiling_bytes_per_s), (Some(7), None, None));
    }
}
