//! `dwcp debug`: the node's parts in detail.
use dwcp_api::KernelReport;

use crate::arguments::Debug;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};

pub(super) async fn run(context: &Context, part: &Debug) -> Result<Code, Failure> {
    match part {
        Debug::Ebpf => ebpf(context).await,
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
        output::result(&render(&report))?;
    }
    Ok(if has_trouble { Code::General } else { Code::Ok })
}

fn render(report: &KernelReport) -> String {
    let mut table = Table::new(&[("WHAT", Side::Left), ("NAME", Side::Left), ("", Side::Left)]);
    for entry in &report.entries {
        table.row([plain(&entry.kind), plain(&entry.name), plain(&entry.detail)]);
    }
    table.render()
}
