//! `dwcp debug latency`: where the time of chunks goes.
use dwcp_api::{ChunkTimes, LatencyBreakdown, LatencyQuery, LatencyReport, StageTimes};

use crate::arguments::DebugLatency;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};
use crate::units;

pub(super) async fn run(context: &Context, wanted: &DebugLatency) -> Result<Code, Failure> {
    // Transfers are numbers, and names of peers are none.
    let query = match wanted.subject.as_deref().map(|subject| (subject, subject.parse())) {
        Some((_, Ok(job))) => LatencyQuery { job: Some(job), peer: None },
        Some((peer, Err(_))) => LatencyQuery { job: None, peer: Some(peer.to_owned()) },
        None => LatencyQuery::default(),
    };
    let report = context.client()?.latency(&query).await?;
    if context.json {
        output::json(&report)?;
    } else {
        output::result(&render(&report, wanted.trace))?;
    }
    Ok(Code::Ok)
}

fn render(report: &LatencyReport, trace: bool) -> String {
    let parts = [
        ("Sent: from the read here to the peer's acknowledgement", &report.sent),
        ("Received: from its announcement to its write here", &report.received),
    ];
    let shown =
        parts.map(|(title, part)| format!("{title}, {} chunks\n{}", part.chunks, breakdown(part, trace)));
    shown.join("\n")
}

fn breakdown(part: &LatencyBreakdown, trace: bool) -> String {
    if part.chunks == 0 {
        return "none: of late no chunk that was timed went this way\n".to_owned();
    }
    let mut table = Table::new(&[
        ("STAGE", Side::Left),
        ("P50", Side::Right),
        ("P99", Side::Right),
        ("MEAN", Side::Right),
        ("SHARE", Side::Right),
    ]);
    let row = |times: &StageTimes| {
        let share = 100.0 * times.sum_ns as f64 / part.total.sum_ns.max(1) as f64;
        let mean = microseconds(times.sum_ns as f64 / part.chunks as f64);
        let (p50, p99) = (microseconds(times.p50_ns as f64), microseconds(times.p99_ns as f64));
        [plain(&times.stage), p50, p99, mean, format!("{share:.1} %")]
    };
    part.stages.iter().chain([&part.total]).for_each(|times| table.row(row(times)));
    let mut text = table.render();
    if trace {
        text.push('\n');
        text.push_str(&chunks(part));
    }
    text
}

/// One line a chunk: what it is, then its stages and their sum.
fn chunks(part: &LatencyBreakdown) -> String {
    let mut text = String::new();
    for ChunkTimes { worker, peer, job, bytes, age_ms, stages_ns, total_ns } in &part.latest {
        let peer = plain(peer.as_deref().unwrap_or("?"));
        let job = job.map_or_else(|| "of the peer".to_owned(), |job| job.to_string());
        let stages = part.stages.iter().zip(stages_ns);
        let stages =
            stages.map(|(times, ns)| format!("{} {}", plain(&times.stage), microseconds(*ns as f64)));
        let stages: Vec<String> = stages.collect();
        text.push_str(&format!(
            "{peer}, transfer {job}, worker {worker}, {}, {age_ms} ms ago: {} = {}\n",
            units::bytes(*bytes),
            stages.join(" + "),
            microseconds(*total_ns as f64),
        ));
    }
    text
}

fn microseconds(ns: f64) -> String {
    format!("{:.1} us", ns / 1000.0)
}
