//! `dwcp flows`: the connections that the kernel programs follow.
use dwcp_api::{FlowFigures, FlowList};

use crate::arguments::Flows;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};
use crate::units;

pub(super) async fn run(context: &Context, arguments: &Flows) -> Result<Code, Failure> {
    let client = context.client()?;
    loop {
        let list = client.flows().await?;
        if context.json {
            output::json_line(&list)?;
        } else {
            let clear = if arguments.top.is_some() && output::stdout_is_terminal() { CLEAR } else { "" };
            output::result(&format!("{clear}{}", render(&list, arguments)))?;
        }
        match arguments.top {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Ok(Code::Ok),
        }
    }
}

fn render(list: &FlowList, arguments: &Flows) -> String {
    let wanted = |flow: &&FlowFigures| {
        (arguments.all || flow.state != "closed")
            && arguments.class.as_ref().is_none_or(|class| flow.class == *class)
    };
    let shown: Vec<&FlowFigures> = list.flows.iter().filter(wanted).collect();
    if !list.followed {
        return "connections are not followed: `dwcp debug ebpf` says why\n".to_owned();
    }
    let mut table = Table::new(&[
        ("CLASS", Side::Left),
        ("LOCAL", Side::Left),
        ("REMOTE", Side::Left),
        ("STATE", Side::Left),
        ("RATE", Side::Right),
        ("CEILING", Side::Right),
        ("SENT", Side::Right),
        ("RECEIVED", Side::Right),
        ("RTT", Side::Right),
        ("RESENT", Side::Right),
        ("IDLE", Side::Right),
    ]);
    for flow in &shown {
        let proto = plain(&flow.protocol);
        table.row([
            plain(&flow.class),
            format!("{proto} {}", plain(&flow.local)),
            plain(&flow.remote),
            plain(&flow.state),
            units::rate(flow.rate_bytes_per_s),
            flow.ceiling_bytes_per_s.map_or_else(|| "-".to_owned(), units::rate),
            units::bytes(flow.bytes_sent),
            units::bytes(flow.bytes_received),
            flow.rtt_us.map_or_else(|| "-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1000.0)),
            flow.retransmits.to_string(),
            idle(flow.idle_ms),
        ]);
    }
    format!("{}{} of {} flows\n", table.render(), shown.len(), list.total)
}

/// Tenths below ten seconds.
fn idle(ms: u64) -> String {
    if ms < 10_000 { format!("{:.1} s", ms as f64 / 1000.0) } else { units::seconds(ms / 1000) }
}

/// Home, and everything behind it away.
const CLEAR: &str = "\x1b[H\x1b[J";
