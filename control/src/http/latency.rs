//! Where the time of chunks goes, out of the workers' shared pages. A request costs the workers nothing.
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dwcp_abi::shm::{RECEIVED_STAGES, SENT_STAGES, TraceRecord};
use dwcp_abi::wire::checksum;
use dwcp_api::{ChunkTimes, LatencyBreakdown, LatencyQuery, LatencyReport, Problem, StageTimes, paths};

use super::documents::json;
use super::problem::Failure;
use crate::app::App;
use crate::figures::monotonic_ns;

/// Stages of some chunks of late, measured.
#[utoipa::path(
    get, path = paths::DEBUG_LATENCY, tag = "node", params(LatencyQuery),
    responses((status = 200, body = LatencyReport), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(super) async fn latency(
    State(app): State<Arc<App>>,
    query: Result<Query<LatencyQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let settings = app.settings();
    let names = settings.config.peers.iter().map(|peer| (checksum(peer.name.as_bytes()), peer.name.clone()));
    let names: BTreeMap<u32, String> = names.collect();
    let peer = query.peer.map(|peer| checksum(peer.as_bytes()));
    if peer.is_some_and(|peer| !names.contains_key(&peer)) {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            "unknown-peer",
            "There is no such peer",
            "see `dwcp peers` for those of the configuration",
        ));
    }
    let wanted = |record: &TraceRecord| {
        query.job.is_none_or(|job| record.job == job && !record.foreign)
            && peer.is_none_or(|peer| record.peer_crc == peer)
    };
    let attachment = app.lock().dataplane.clone();
    let regions = attachment.iter().flat_map(|attachment| attachment.workers.iter().enumerate());
    let pages = regions.filter_map(|(worker, region)| Some((worker as u16, region.traces().ok()?)));
    let mut chunks: Vec<(u16, TraceRecord)> = pages
        .flat_map(|(worker, page)| page.iter().map(move |record| (worker, record)).collect::<Vec<_>>())
        .filter(|(_, record)| wanted(record))
        .collect();
    chunks.sort_by_key(|(_, record)| std::cmp::Reverse(record.ended_ns));
    let (received, sent): (Vec<_>, Vec<_>) = chunks.into_iter().partition(|(_, record)| record.received);
    let now_ns = monotonic_ns();
    let report = LatencyReport {
        schema: LatencyReport::SCHEMA,
        sent: breakdown(&SENT_STAGES, &sent, &names, now_ns),
        received: breakdown(&RECEIVED_STAGES, &received, &names, now_ns),
    };
    Ok(json(StatusCode::OK, &report))
}

fn breakdown(
    stages: &[&str],
    chunks: &[(u16, TraceRecord)],
    names: &BTreeMap<u32, String>,
    now_ns: u64,
) -> LatencyBreakdown {
    let count = stages.len();
    let times = |index: usize| chunks.iter().map(move |(_, record)| record.stages_ns[index]).collect();
    let latest = chunks.iter().take(LATEST_MAX).map(|(worker, record)| ChunkTimes {
        worker: *worker,
        peer: names.get(&record.peer_crc).cloned(),
        job: (!record.foreign).then_some(record.job),
        bytes: record.bytes,
        age_ms: now_ns.saturating_sub(record.ended_ns) / 1_000_000,
        stages_ns: record.stages_ns[..count].to_vec(),
        total_ns: total(&record.stages_ns[..count]),
    });
    LatencyBreakdown {
        chunks: chunks.len() as u64,
        stages: stages.iter().enumerate().map(|(index, stage)| summary(stage, times(index))).collect(),
        total: summary("total", chunks.iter().map(|(_, record)| total(&record.stages_ns[..count])).collect()),
        latest: latest.collect(),
    }
}

/// The dataplane's words may be anything: nothing overflows.
fn total(times: &[u64]) -> u64 {
    times.iter().fold(0, |sum, time| sum.saturating_add(*time))
}

fn summary(stage: &str, mut times: Vec<u64>) -> StageTimes {
    times.sort_unstable();
    let rank = |percent: usize| {
        let place = (times.len() * percent).div_ceil(100).max(1) - 1;
        times.get(place).copied().unwrap_or(0)
    };
    StageTimes { stage: stage.to_owned(), p50_ns: rank(50), p99_ns: rank(99), sum_ns: total(&times) }
}

const LATEST_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_stages_are_the_sum_of_totals() {
        let chunk = |number: u64| {
            let stages_ns = [number, 10 * number, 0, 0, 3, 1000, 0];
            (
                0,
                TraceRecord {
                    job: number,
                    foreign: number == 1,
                    ended_ns: number,
                    stages_ns,
                    ..TraceRecord::default()
                },
            )
        };
        let chunks: Vec<_> = (1..=100).map(chunk).collect();
        let names = BTreeMap::from([(0, "berlin".to_owned())]);
        let found = breakdown(&SENT_STAGES, &chunks, &names, 5_000_050);
        assert_eq!((found.stages[0].p50_ns, found.stages[0].p99_ns, found.stages[0].sum_ns), (50, 99, 5050));
        assert_eq!(found.stages.iter().map(|stage| stage.sum_ns).sum::<u64>(), found.total.sum_ns);
        assert_eq!(
            (found.latest.len(), found.latest[0].job, found.latest[1].job),
            (LATEST_MAX, None, Some(2))
        );
        assert_eq!((found.latest[0].peer.as_deref(), found.latest[0].age_ms), (Some("berlin"), 5));
        assert!(found.latest.iter().all(|chunk| chunk.stages_ns.iter().sum::<u64>() == chunk.total_ns));

        let none = breakdown(&RECEIVED_STAGES, &[], &names, 0);
        assert_eq!((none.stages.len(), none.total.p99_ns), (7, 0));
        let absurd = TraceRecord { stages_ns: [u64::MAX; 7], ..TraceRecord::default() };
        assert_eq!(breakdown(&RECEIVED_STAGES, &[(0, absurd)], &names, 0).total.sum_ns, u64::MAX);
    }
}
