//! `dwcp identity`: the fingerprint that peers list.
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;

#[derive(Serialize)]
struct Identity {
    schema: &'static str,
    node_id: String,
    fingerprint: String,
}

pub(super) async fn run(context: &Context) -> Result<Code, Failure> {
    let status = context.client()?.status().await?;
    let Some(fingerprint) = status.fingerprint else {
        return Err(Failure::new(Code::Refused, "the daemon does not know its identity yet")
            .with_hint("it is made by the dataplane at its first start: see `dwcp status`"));
    };
    if context.json {
        output::json(&Identity { schema: "dwcp.identity/1", node_id: status.node_id, fingerprint })?;
        return Ok(Code::Ok);
    }
    output::result(&format!("{}\n", output::plain(&fingerprint)))?;
    if output::stdout_is_terminal() {
        let name = output::plain(&status.node_id);
        context.note(&format!("give it to each peer: under `peers:`, `name: {name}`, as its `identity:`"));
    }
    Ok(Code::Ok)
}
