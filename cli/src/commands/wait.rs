//! `dwcp wait`: returns when the node is ready, drained or gone. Units and scripts call it instead of sleeping.
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use dwcp_api::client::ClientError;
use tokio::time::Instant;

use crate::arguments::WaitFor;
use crate::context::Context;
use crate::exit::{Code, Failure};

pub(super) async fn run(context: &Context, wanted: WaitFor) -> Result<Code, Failure> {
    let until = Instant::now() + context.return_timeout();
    loop {
        let obstacle = match wanted {
            WaitFor::Ready => not_ready(context).await?,
            WaitFor::Drained => not_drained(context).await?,
            WaitFor::Stopped => not_stopped(context),
        };
        let Some(obstacle) = obstacle else { return Ok(Code::Ok) };
        if Instant::now() >= until {
            let seconds = context.return_timeout().as_secs_f64();
            let word = wanted.word();
            return Err(Failure::new(Code::Timeout, format!("not {word} within {seconds} s: {obstacle}"))
                .with_hint("wait longer with --timeout, or see `dwcp doctor`"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why it is not ready; a daemon that is not there yet may still come.
async fn not_ready(context: &Context) -> Result<Option<String>, Failure> {
    match context.client()?.ready().await {
        Ok(ready) if ready.ready => Ok(None),
        Ok(ready) => Ok(Some(ready.reasons.join("; "))),
        Err(error) => passing(error).map(Some),
    }
}

async fn not_drained(context: &Context) -> Result<Option<String>, Failure> {
    let status = context.client()?.drain_status().await?;
    if status.drained {
        return Ok(None);
    }
    if !status.draining {
        return Err(Failure::new(Code::Refused, "the node is not draining")
            .with_hint("begin it with `dwcp shutdown --drain`"));
    }
    Ok(Some(format!("{} transfers are under way", status.under_way)))
}

/// A socket that takes connections belongs to a process that lives.
fn not_stopped(context: &Context) -> Option<String> {
    let mut alive = context.sockets().into_iter().filter(|socket| is_served(socket));
    alive.next().map(|socket| format!("somebody listens at {}", socket.display()))
}

fn is_served(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

/// What may pass while a daemon starts, as text; everything else ends the waiting.
fn passing(error: ClientError) -> Result<String, Failure> {
    match &error {
        ClientError::Unreachable { .. } | ClientError::Timeout { .. } | ClientError::Lost(_) => {
            Ok(error.to_string())
        }
        _ => Err(error.into()),
    }
}

const PAUSE: Duration = Duration::from_millis(100);
