//! A row of the table: what a program got out of a link, in shares.
use dwcp_wan::Snapshot;
use serde_json::{Value, json};

use dwcp_benches::road::{Counted, LinkRow};

/// What a program did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Payload that arrived, and in how many seconds from the start.
    pub(crate) all: (u64, f64),
    /// The same once the start was over.
    pub(crate) settled: Option<(u64, f64)>,
    pub(crate) counted: Counted,
}

#[derive(Debug)]
pub(crate) struct Row {
    label: String,
    seconds: f64,
    share: f64,
    /// Of the link's rate, after the first two seconds.
    share_settled: Option<f64>,
    /// The same, of what TCP can carry.
    of_possible: Option<f64>,
    resent: f64,
    queue_mean_ms: f64,
    queue_p95_ms: f64,
    idle: f64,
    relay_cpu: f64,
    void: Option<String>,
}

impl Row {
    pub(crate) fn new(label: String, link: &LinkRow, outcome: Outcome, link_total: &Snapshot) -> Self {
        let share = |(bytes, seconds): (u64, f64)| bytes as f64 * 8.0 / seconds / link.rate_bits_per_s as f64;
        let settled = &outcome.counted.settled;
        let share_settled = outcome.settled.map(share);
        let ms = |time_ns: u64| time_ns as f64 / 1e6;
        // The bottleneck's own view: what passed it took so long.
        let busy_ns = settled.bytes as f64 * 8e9 / link.rate_bits_per_s as f64;
        Self {
            label,
            seconds: outcome.all.1,
            share: share(outcome.all),
            share_settled,
            of_possible: share_settled.map(|share| share / (PAYLOAD_SHARE * (1.0 - link.loss))),
            resent: outcome.counted.resent,
            queue_mean_ms: ms(settled.queue.mean_ns()),
            queue_p95_ms: ms(settled.queue.quantile_ns(0.95)),
            idle: settled.idle_ns as f64 / (settled.idle_ns as f64 + busy_ns).max(1.0),
            relay_cpu: link_total.cpu_ns as f64 / link_total.at_ns.max(1) as f64,
            void: link_total.void(),
        }
    }

    pub(crate) fn print(&self) {
        let optional = |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.2}"));
        println!(
            "{:<52} {:>7.2} {:>6.2} {:>7} {:>8} {:>6.1}% {:>8.1} {:>8.1} {:>5.2} {}",
            self.label,
            self.seconds,
            self.share,
            optional(self.share_settled),
            optional(self.of_possible),
            self.resent * 100.0,
            self.queue_mean_ms,
            self.queue_p95_ms,
            self.idle,
            self.void.as_deref().unwrap_or_default()
        );
    }

    pub(crate) fn json(&self) -> Value {
        let rounded = |figure: f64| (figure * 1e4).round() / 1e4;
        json!({
            "label": self.label, "seconds": rounded(self.seconds), "share": rounded(self.share),
            "share_settled": self.share_settled.map(rounded), "of_possible": self.of_possible.map(rounded),
            "resent": rounded(self.resent), "queue_mean_ms": rounded(self.queue_mean_ms),
            "queue_p95_ms": rounded(self.queue_p95_ms), "idle": rounded(self.idle),
            "relay_cpu": rounded(self.relay_cpu), "void": self.void,
        })
    }
}

pub(crate) fn print_header() {
    println!(
        "{:<52} {:>7} {:>6} {:>7} {:>8} {:>7} {:>8} {:>8} {:>5}",
        "", "seconds", "share", "from 2s", "possible", "resent", "queue ms", "p95 ms", "idle"
    );
}

/// Payload of TCP with time stamps in an IP packet of 1500 bytes.
const PAYLOAD_SHARE: f64 = 1_448.0 / 1_500.0;
