//! `dwcp debug`: the node's parts in detail.
mod latency;

use dwcp_api::{KernelEntry, TransportReport};

use crate::arguments::{Debug, TransportMode};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};

pub(super) async fn run(context: &Context, part: &Debug) -> Result<Code, Failure> {
    match part {
        Debug::Ebpf => ebpf(context).await,
        Debug::Transport(wanted) => match wanted.mode {
            TransportMode::Rdma => rdma(context).await,
        },
        Debug::Latency(wanted) => latency::run(context, wanted).await,
        Debug::Consensus => super::cluster::debug(context).await,
    }
}

/// Exits 1 where something is not as it was asked for.
async fn ebpf(context: &Context) -> Result<Code, Failure> {
    let report = context.client()?.kernel().await?;
    let has_trouble = report.entries.iter().any(|entry| entry.kind == "trouble");
    if context.json {
        output::json(&report)?;
    } else {
        output::result(&render(&report.entries))?;
    }
    Ok(if has_trouble { Code::General } else { Code::Ok })
}

/// Exits 1 where lanes cannot go over it.
async fn rdma(context: &Context) -> Result<Code, Failure> {
    let report = context.client()?.rdma().await?;
    if context.json {
        output::json(&report)?;
    } else {
        output::result(&format!("{}\n\n{}", verdict(&report), render(&report.entries)))?;
    }
    Ok(if report.usable { Code::Ok } else { Code::General })
}

fn verdict(report: &TransportReport) -> String {
    let state = if report.usable { "usable" } else { "not used, lanes are TCP connections" };
    format!("rdma: {state}: {}", plain(&report.why))
}

fn render(entries: &[KernelEntry]) -> String {
    let mut table = Table::new(&[("WHAT", Side::Left), ("NAME", Side::Left), ("", Side::Left)]);
    for entry in entries {
        table.row([plain(&entry.kind), plain(&entry.name), plain(&entry.detail)]);
    }
    table.render()
}
