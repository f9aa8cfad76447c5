//! `dwcp status`: the node at a glance, once or again and again. Its exit code is the node's health.
use std::time::Duration;

use dwcp_api::client::{Client, ClientError};
use dwcp_api::{DataplaneStatus, Health, HealthStatus, Status};
use serde_json::Value;

use crate::context::Context;
use crate::cores::{self, Column};
use crate::exit::{Code, Failure};
use crate::output::{self, Colour, Tone, plain};
use crate::table::Side;
use crate::units;

pub(super) async fn run(context: &Context, watch: Option<Duration>) -> Result<Code, Failure> {
    let client = context.client()?;
    match watch {
        None => once(context, &client).await,
        Some(interval) => again(context, &client, interval).await,
    }
}

async fn once(context: &Context, client: &Client) -> Result<Code, Failure> {
    let (status, health) = ask(client).await.map_err(as_unreachable)?;
    print(context, &status, &health)?;
    Ok(code(health.status))
}

/// Until Ctrl-C. A daemon that goes away is said to be away, and looked for again.
async fn again(context: &Context, client: &Client, interval: Duration) -> Result<Code, Failure> {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map(|()| Code::Interrupted).map_err(|error| Failure::general(error.to_string()));
            }
            _ = ticks.tick() => {}
        }
        let answer = ask(client).await;
        if output::stdout_is_terminal() && !context.json {
            output::result(CLEAR)?;
        }
        match answer {
            Ok((status, health)) => print(context, &status, &health)?,
            Err(error) => as_unreachable(error).print(),
        }
        if !context.json {
            output::result("\n")?;
        }
    }
}

async fn ask(client: &Client) -> Result<(Status, Health), ClientError> {
    Ok((client.status().await?, client.health().await?))
}

/// For `status` 1 and 2 are states of the node, and whatever keeps it from being known is 3.
fn as_unreachable(error: ClientError) -> Failure {
    let mut failure = Failure::from(error);
    if failure.code != Code::Permission {
        failure.code = Code::Unreachable;
    }
    failure
}

fn code(health: HealthStatus) -> Code {
    match health {
        HealthStatus::Healthy => Code::Ok,
        HealthStatus::Degraded => Code::General,
        HealthStatus::Unhealthy => Code::Usage,
    }
}

fn print(context: &Context, status: &Status, health: &Health) -> Result<(), Failure> {
    if !context.json {
        return output::result(&render(status, health, context.colour));
    }
    let mut document = serde_json::to_value(status).map_err(|error| Failure::general(error.to_string()))?;
    if let Value::Object(members) = &mut document {
        members.insert("health".to_owned(), Value::from(health.status.name()));
        members.insert("unhealthy_components".to_owned(), Value::from(health.unhealthy_components.clone()));
    }
    output::json_line(&document)
}

fn render(status: &Status, health: &Health, colour: Colour) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{:<11}{value}\n", format!("{name}:")));
    };
    let node = format!("{} ({}, {})", status.node_id, status.environment, status.build_version);
    line("Node", &plain(&node));
    line("Mode", status.mode.name());
    line("Health", &health_text(status, health, colour));
    line("Streams", &status.streams.to_string());
    line("Peers", &format!("{} of {} up", status.peers.up, status.peers.total));
    line("Transfers", &format!("{} active", status.transfers_active));
    line("Rollout", &format!("{} %, {}", status.rollout_percentage, plain(&status.phase)));
    line("Uptime", &units::seconds(status.uptime_seconds));
    line("Dataplane", &dataplane_text(&status.dataplane, colour));
    if let Some(fingerprint) = &status.fingerprint {
        line("Identity", &plain(fingerprint));
    }
    for feature in &status.dataplane.features {
        let reason = if feature.reason.is_empty() { String::new() } else { format!(" ({})", feature.reason) };
        line("Feature", &plain(&format!("{} {}{reason}", feature.name, feature.state.name())));
    }
    if !status.cores.is_empty() {
        text.push('\n');
        text.push_str(&cores::table(&status.cores, &TOTALS));
    }
    text
}

fn health_text(status: &Status, health: &Health, colour: Colour) -> String {
    let tone = match health.status {
        HealthStatus::Healthy => Tone::Good,
        HealthStatus::Degraded => Tone::Odd,
        HealthStatus::Unhealthy => Tone::Bad,
    };
    let mut text = colour.paint(tone, health.status.name());
    if !health.unhealthy_components.is_empty() {
        text.push_str(&format!(": {}", plain(&health.unhealthy_components.join(", "))));
    }
    if let Some(error) = &health.error {
        text.push_str(&format!(" ({})", plain(error)));
    }
    if !status.enabled {
        text.push_str(", disabled by configuration");
    }
    if status.drained {
        text.push_str(", drained");
    }
    text
}

fn dataplane_text(dataplane: &DataplaneStatus, colour: Colour) -> String {
    let restarts = match dataplane.restarts {
        1 => "1 restart".to_owned(),
        count => format!("{count} restarts"),
    };
    if !dataplane.connected {
        return format!("{}, {restarts}", colour.paint(Tone::Bad, "not connected"));
    }
    let pid = dataplane.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    let workers = match dataplane.workers {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    };
    format!("{}, pid {pid}, {workers}, {restarts}", colour.paint(Tone::Good, "connected"))
}

/// What cores did since they started, and how busy they are.
const TOTALS: [Column; 3] = [
    ("SENT", Side::Right, |core| units::bytes(core.bytes_sent)),
    ("RECEIVED", Side::Right, |core| units::bytes(core.bytes_received)),
    ("BUSY", Side::Right, |core| {
        core.busy_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0))
    }),
];

/// Home, and clear to the end of the screen.
const CLEAR: &str = "\x1b[H\x1b[J";
