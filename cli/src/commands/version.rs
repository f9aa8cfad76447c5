//! `dwcp version`: of the command, and of the daemon where there is one.
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;

#[derive(Serialize)]
struct Version {
    schema: &'static str,
    command: &'static str,
    daemon: Option<String>,
}

pub(super) async fn run(context: &Context) -> Result<Code, Failure> {
    let command = env!("CARGO_PKG_VERSION");
    let daemon = context.client()?.status().await.ok().map(|status| status.build_version);
    if context.json {
        output::json(&Version { schema: "dwcp.version/1", command, daemon })?;
        return Ok(Code::Ok);
    }
    let daemon = daemon.as_deref().map_or_else(|| "not reachable".to_owned(), output::plain);
    output::result(&format!("dwcp {command}\ndaemon: {daemon}\n"))?;
    Ok(Code::Ok)
}
