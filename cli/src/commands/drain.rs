//! `dwcp shutdown --drain`, `dwcp drain` and `dwcp undrain`: no new transfers, and wait for those that are under way.
//! The processes stay up, drained, until their service manager stops them.
use std::time::Duration;

use dwcp_api::DrainStatus;
use tokio::time::Instant;

use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;

/// Drains and waits.
pub(super) async fn drain(context: &Context) -> Result<Code, Failure> {
    let client = context.client()?;
    let until = Instant::now() + context.timeout_or(DRAIN_TIMEOUT);
    let mut status = client.drain().await?;
    let mut said = None;
    while !status.drained {
        if said != Some(status.under_way) {
            said = Some(status.under_way);
            context.note(&format!("{} transfers are under way", status.under_way));
        }
        if Instant::now() >= until {
            let count = status.under_way;
            return Err(Failure::new(Code::Timeout, format!("{count} transfers are still under way"))
                .with_hint("the node goes on draining: wait longer with `dwcp wait drained --timeout 1h`, or take transfers again with `dwcp undrain`"));
        }
        tokio::time::sleep(PAUSE).await;
        status = client.drain_status().await?;
    }
    show(context, &status)?;
    context.note("drained: `systemctl stop dwcp` ends the node, `dwcp undrain` takes transfers again");
    Ok(Code::Ok)
}

/// Takes transfers again.
pub(super) async fn undrain(context: &Context) -> Result<Code, Failure> {
    let status = context.client()?.undrain().await?;
    show(context, &status)?;
    context.note("the node takes transfers again");
    Ok(Code::Ok)
}

fn show(context: &Context, status: &DrainStatus) -> Result<(), Failure> {
    if context.json { output::json(status) } else { Ok(()) }
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);
