//! `dwcp ping PEER`: round trips over an authenticated connection, one after the other, and what they say together.
use std::time::Duration;

use dwcp_api::PingAnswer;
use serde_json::json;

use crate::arguments::Ping;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};

pub(super) async fn run(context: &Context, arguments: &Ping) -> Result<Code, Failure> {
    let mut trips_ms = Vec::new();
    let mut sent = 0_u32;
    let mut last_error = None;
    while sent < arguments.count {
        if sent > 0 && !pause(arguments.interval).await {
            break;
        }
        let answer = context.client()?.ping(&arguments.peer).await?;
        sent += 1;
        say(context, sent, &answer)?;
        match answer.rtt_ns {
            Some(rtt_ns) => trips_ms.push(rtt_ns as f64 / 1e6),
            None => last_error = answer.error,
        }
    }
    let summary = Summary::of(sent, &trips_ms);
    if context.json {
        output::json(&summary.json(&arguments.peer, last_error.as_deref()))?;
    } else {
        output::result(&summary.text(&arguments.peer))?;
    }
    Ok(if trips_ms.is_empty() { Code::General } else { Code::Ok })
}

/// False where Ctrl-C ended it: what was measured is still said.
async fn pause(interval: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(interval) => true,
        _ = tokio::signal::ctrl_c() => false,
    }
}

fn say(context: &Context, number: u32, answer: &PingAnswer) -> Result<(), Failure> {
    if context.json {
        return Ok(());
    }
    output::result(&match answer.rtt_ns {
        Some(rtt_ns) => format!("{} {number}: {:.2} ms\n", plain(&answer.peer), rtt_ns as f64 / 1e6),
        None => format!(
            "{} {number}: {}\n",
            plain(&answer.peer),
            plain(answer.error.as_deref().unwrap_or("no answer"))
        ),
    })
}

/// What several round trips say together, in milliseconds.
#[derive(Debug, PartialEq)]
struct Summary {
    sent: u32,
    answered: u32,
    /// Least, mean, most, and standard deviation as ping(8) has it.
    trips: Option<[f64; 4]>,
}

impl Summary {
    fn of(sent: u32, trips_ms: &[f64]) -> Self {
        let count = trips_ms.len() as f64;
        let mean = trips_ms.iter().sum::<f64>() / count;
        let square = trips_ms.iter().map(|trip| trip * trip).sum::<f64>() / count;
        let least = trips_ms.iter().copied().fold(f64::INFINITY, f64::min);
        let most = trips_ms.iter().copied().fold(0.0, f64::max);
        let deviation = (square - mean * mean).max(0.0).sqrt();
        let trips = (!trips_ms.is_empty()).then_some([least, mean, most, deviation]);
        Self { sent, answered: trips_ms.len() as u32, trips }
    }

    fn lost_percent(&self) -> f64 {
        f64::from(self.sent - self.answered) * 100.0 / f64::from(self.sent.max(1))
    }

    fn text(&self, peer: &str) -> String {
        let head = format!(
            "{}: {} sent, {} answered, {:.0} % lost\n",
            plain(peer),
            self.sent,
            self.answered,
            self.lost_percent()
        );
        match self.trips {
            Some([least, mean, most, deviation]) => {
                format!("{head}min/avg/max/mdev {least:.2}/{mean:.2}/{most:.2}/{deviation:.2} ms\n")
            }
            None => head,
        }
    }

    fn json(&self, peer: &str, error: Option<&str>) -> serde_json::Value {
        let part = |index: usize| self.trips.map(|trips| trips[index]);
        json!({
            "schema": "dwcp.ping-summary/1", "peer": peer, "sent": self.sent, "answered": self.answered,
            "lost_percent": self.lost_percent(), "min_ms": part(0), "avg_ms": part(1), "max_ms": part(2),
            "mdev_ms": part(3), "last_error": error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_are_summed_up_as_ping_does() {
        let summary = Summary::of(4, &[10.0, 20.0, 30.0]);
        assert_eq!(
            summary.text("berlin"),
            "berlin: 4 sent, 3 answered, 25 % lost\nmin/avg/max/mdev 10.00/20.00/30.00/8.16 ms\n"
        );
        assert_eq!(Summary::of(2, &[]).text("b"), "b: 2 sent, 0 answered, 100 % lost\n");
        assert_eq!(Summary::of(0, &[]).json("b", None)["min_ms"], serde_json::Value::Null);
    }
}
