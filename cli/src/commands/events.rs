//! `dwcp events` and `dwcp logs`: what happened to the node, and what control logs; once, or as it comes.
use dwcp_api::client::{Client, ClientError};
use dwcp_api::{EventQuery, NodeEvent};

use crate::arguments::{Events, Level};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, Tone, plain};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Events,
    Logs,
}

pub(super) async fn run(context: &Context, source: Source, arguments: &Events) -> Result<Code, Failure> {
    let client = context.client()?;
    let mut query = EventQuery {
        limit: arguments.lines,
        component: arguments.component.clone(),
        ..EventQuery::default()
    };
    let found = read(&client, source, &query).await?;
    print(context, &found, arguments.level)?;
    if !arguments.follow {
        if found.is_empty() {
            context.note("nothing yet: only what happened since the daemon started is kept");
        }
        return Ok(Code::Ok);
    }
    (query.limit, query.wait) = (Some(EventQuery::LIMIT_MAX), Some(WAIT_S));
    query.after = found.last().map(|event| event.number);
    loop {
        let found = tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map(|()| Code::Interrupted).map_err(|error| Failure::general(error.to_string()));
            }
            found = read(&client, source, &query) => found?,
        };
        print(context, &found, arguments.level)?;
        query.after = found.last().map(|event| event.number).or(query.after);
    }
}

async fn read(client: &Client, source: Source, query: &EventQuery) -> Result<Vec<NodeEvent>, ClientError> {
    match source {
        Source::Events => client.events(query).await.map(|list| list.events),
        Source::Logs => client.logs(query).await.map(|list| list.lines),
    }
}

fn print(context: &Context, events: &[NodeEvent], level: Option<Level>) -> Result<(), Failure> {
    let wanted = |event: &&NodeEvent| level.is_none_or(|level| level.takes(&event.level));
    for event in events.iter().filter(wanted) {
        if context.json {
            output::json_line(event)?;
        } else {
            output::result(&render(context, event))?;
        }
    }
    Ok(())
}

fn render(context: &Context, event: &NodeEvent) -> String {
    let tone = match event.level.as_str() {
        "error" => Tone::Bad,
        "warn" => Tone::Odd,
        _ => Tone::Good,
    };
    let level = context.colour.paint(tone, &format!("{:<5}", plain(&event.level)));
    let fields = event.fields.iter().filter(|(_, value)| !value.is_null());
    let fields = fields.map(|(name, value)| match value {
        serde_json::Value::String(text) => format!(" {}={}", plain(name), plain(text)),
        other => format!(" {}={}", plain(name), plain(&other.to_string())),
    });
    let (component, message) = (plain(&event.component), plain(&event.message));
    format!("{}  {level}  {component:<9}  {message}{}\n", event.timestamp, fields.collect::<String>())
}

/// Below the usual timeout of a request.
const WAIT_S: u16 = 5;
