//! `dwcp stats`: every counter there is, cores side by side.
use std::collections::BTreeSet;

use dwcp_api::{BpfStats, CoreStats, Stats};

use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};

pub(super) async fn run(context: &Context) -> Result<Code, Failure> {
    let stats = context.client()?.stats().await?;
    if context.json {
        output::json(&stats)?;
    } else {
        output::result(&render(&stats))?;
    }
    Ok(Code::Ok)
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
