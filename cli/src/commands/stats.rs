//! `dwcp stats`: every counter there is, cores side by side.
use std::collections::BTreeSet;

use dwcp_api::{BpfStats, CompressionStats, CoreStats, Stats};

use crate::arguments::{Stats as Arguments, StatsSubject};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};
use crate::units;

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<Code, Failure> {
    if arguments.subject == Some(StatsSubject::Compression) {
        return compression(context, arguments.detailed).await;
    }
    let stats = context.client()?.stats().await?;
    if context.json {
        output::json(&stats)?;
    } else {
        output::result(&render(&stats))?;
    }
    Ok(Code::Ok)
}

async fn compression(context: &Context, detailed: bool) -> Result<Code, Failure> {
    let stats = context.client()?.compression_stats().await?;
    if context.json {
        output::json(&stats)?;
    } else {
        output::result(&render_compression(&stats, detailed))?;
    }
    Ok(Code::Ok)
}

fn render_compression(stats: &CompressionStats, detailed: bool) -> String {
    let mut table = Table::new(&[("COMPRESSION", Side::Left), ("VALUE", Side::Right)]);
    let none = || "-".to_owned();
    let percent = |share: f64| format!("{share:.1} %");
    let codec = if stats.enabled { plain(&stats.algorithm) } else { "off".to_owned() };
    table.row(["codec".to_owned(), codec]);
    table.row(["saved, 5 minutes".to_owned(), stats.savings_percent.map_or_else(none, percent)]);
    table.row(["original".to_owned(), units::bytes(stats.bytes_original)]);
    table.row(["sent for it".to_owned(), units::bytes(stats.bytes_compressed)]);
    if detailed {
        let hits = stats.delta_hit_rate.map(|rate| 100.0 * rate);
        table.row(["of that, sent as differences".to_owned(), units::bytes(stats.delta_bytes_original)]);
        table.row(["differences".to_owned(), units::bytes(stats.delta_bytes_sent)]);
        table.row(["former versions at both ends".to_owned(), hits.map_or_else(none, percent)]);
        table.row(["chunks that could not be made".to_owned(), stats.delta_chunks_unmade.to_string()]);
        table.row(["versions kept".to_owned(), stats.baselines.to_string()]);
        table.row(["their bytes".to_owned(), units::bytes(stats.baseline_bytes)]);
    }
    table.render()
}

fn render(stats: &Stats) -> String {
    let mut text = String::from("Node\n");
    let mut node = Table::new(&[("COUNTER", Side::Left), ("VALUE", Side::Right)]);
    for (name, value) in &stats.node {
        node.row([plain(name), value.to_string()]);
    }
    text.push_str(&node.render());
    text.push_str("\nCores\n");
    text.push_str(&cores(&stats.cores));
    text.push_str("\nKernel programs\n");
    text.push_str(&bpf(&stats.bpf));
    text
}

fn cores(cores: &[CoreStats]) -> String {
    if cores.is_empty() {
        return "none: the dataplane is not connected\n".to_owned();
    }
    let names: BTreeSet<&String> = cores.iter().flat_map(|core| core.counters.keys()).collect();
    let mut table = Table::new(&[
        ("WORKER", Side::Right),
        ("CPU", Side::Right),
        ("COUNTER", Side::Left),
        ("VALUE", Side::Right),
    ]);
    for name in names {
        for core in cores {
            let Some(value) = core.counters.get(name) else { continue };
            let cpu = core.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string());
            table.row([core.worker.to_string(), cpu, plain(name), value.to_string()]);
        }
    }
    table.render()
}

fn bpf(bpf: &BpfStats) -> String {
    let loaded = if bpf.loaded { "loaded" } else { "not loaded" };
    let mut text = String::new();
    text.push_str(&format!("{loaded}: {}\n", plain(&bpf.reason)));
    if bpf.classes.is_empty() {
        return text;
    }
    let mut table = Table::new(&[
        ("CLASS", Side::Left),
        ("DIRECTION", Side::Left),
        ("CPU", Side::Right),
        ("PACKETS", Side::Right),
        ("BYTES", Side::Right),
    ]);
    for class in &bpf.classes {
        let (packets, bytes) = (class.packets.to_string(), class.bytes.to_string());
        table.row([plain(&class.class), plain(&class.direction), class.cpu.to_string(), packets, bytes]);
    }
    text + &table.render()
}
