//! What the demo prints at the end: figures of the jobs, of the cores, what of the kernel is in use, and `/metrics`.
//! It only asks and prints.
use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::json::Json;
use super::node::Node;

/// One transfer that the demo made.
#[derive(Debug)]
pub(super) struct Job {
    /// What it was, in a few words.
    pub(super) title: String,
    /// The transfer as control shows it after its end.
    pub(super) transfer: Json,
    /// Processor time of both dataplanes meanwhile, in seconds.
    pub(super) cpu_s: [f64; 2],
}

/// Prints everything.
///
/// # Errors
/// A node does not answer, or `/metrics` holds nothing of ours.
pub(super) fn print(jobs: &[Job], nodes: [&Node; 2]) -> Result<()> {
    println!(
        "\nTransfers (CPU: seconds of the dataplanes for each GiB, {} and {})",
        nodes[0].name, nodes[1].name
    );
    print_table(&job_rows(jobs));
    println!("\nCores");
    print_table(&core_rows(nodes)?);
    print_features(nodes[0])?;
    print_classes(nodes)?;
    print_metrics(nodes[0])
}

fn job_rows(jobs: &[Job]) -> Vec<Vec<String>> {
    let mut rows = vec![words("WHAT ENTRIES SIZE TIME GOODPUT LANES RATIO CPU CPU")];
    for job in jobs {
        let transfer = &job.transfer;
        let (bytes, seconds) = (transfer.number("counts.bytes_done"), transfer.number("elapsed_seconds"));
        let cpu = job.cpu_s.map(|cpu_s| format!("{:.2}", cpu_s / (bytes / GIB).max(f64::EPSILON)));
        let [sender, receiver] = cpu;
        rows.push(vec![
            job.title.clone(),
            transfer.text("counts.entries_done").to_owned(),
            mib(bytes),
            format!("{seconds:.2} s"),
            format!("{}/s", mib(bytes / seconds.max(0.001))),
            transfer.text("lanes").to_owned(),
            format!("{:.2}", transfer.number("ratio")),
            sender,
            receiver,
        ]);
    }
    rows
}

fn core_rows(nodes: [&Node; 2]) -> Result<Vec<Vec<String>>> {
    let mut rows = vec![words("NODE WORKER LANES SENT RECEIVED FRAMES-OUT FRAMES-IN COMPLETIONS BUSY")];
    for node in nodes {
        for core in node.ask(&["stats"])?.list("cores") {
            let counter = |name: &str| core.number(&format!("counters.{name}"));
            rows.push(vec![
                node.name.to_owned(),
                core.text("worker").to_owned(),
                counter("lanes").to_string(),
                mib(counter("bytes_sent")),
                mib(counter("bytes_received")),
                counter("frames_sent").to_string(),
                counter("frames_received").to_string(),
                counter("completions").to_string(),
                format!("{:.2} s", counter("busy_ns") / 1e9),
            ]);
        }
    }
    Ok(rows)
}

fn print_features(node: &Node) -> Result<()> {
    println!("\nIn use on this machine, and what is not and why");
    let status = node.ask(&["status"])?;
    for feature in status.list("dataplane.features") {
        let (state, name, reason) = (feature.text("state"), feature.text("name"), feature.text("reason"));
        println!("  {state:<12} {name}{}{reason}", if reason.is_empty() { "" } else { ": " });
    }
    let peers = node.ask(&["peers"])?;
    let encrypted = peers.list("peers").iter().map(|peer| peer.text("encrypted")).next().unwrap_or_default();
    match encrypted {
        "true" => println!("  on           TLS 1.3 on every lane, both ends known by fingerprint"),
        "false" => println!("  off          TLS: security.enable_tls is false"),
        _ => println!("  unknown      TLS: no lane stands any more"),
    }
    Ok(())
}

fn print_classes(nodes: [&Node; 2]) -> Result<()> {
    println!("\nPackets by class, as the kernel program counts them");
    let mut rows = vec![words("NODE CLASS DIRECTION PACKETS BYTES")];
    for node in nodes {
        let stats = node.ask(&["stats"])?;
        if stats.text("bpf.loaded") != "true" {
            println!("  none on {}: {}", node.name, stats.text("bpf.reason"));
            continue;
        }
        let mut sums: BTreeMap<(&str, &str), (f64, f64)> = BTreeMap::new();
        for class in stats.list("bpf.classes") {
            let sum = sums.entry((class.text("class"), class.text("direction"))).or_default();
            sum.0 += class.number("packets");
            sum.1 += class.number("bytes");
        }
        for ((class, direction), (packets, bytes)) in sums {
            rows.push(vec![
                node.name.to_owned(),
                class.into(),
                direction.into(),
                packets.to_string(),
                mib(bytes),
            ]);
        }
    }
    if rows.len() > 1 {
        print_table(&rows);
    }
    Ok(())
}

fn print_metrics(node: &Node) -> Result<()> {
    let text = node.get("/metrics")?;
    let ours: Vec<_> = text.lines().filter(|line| line.starts_with("dwcp_")).collect();
    if ours.is_empty() {
        bail!("/metrics of {} holds no line that begins with dwcp_", node.name);
    }
    println!("\n/metrics of {}: {} lines of ours, the first {METRICS_SHOWN} of them", node.name, ours.len());
    for line in ours.iter().take(METRICS_SHOWN) {
        println!("  {line}");
    }
    println!("An installed node answers `curl http://localhost:8080/metrics`.");
    Ok(())
}

/// The first row is the head; the first column stands left, all others right.
fn print_table(rows: &[Vec<String>]) {
    for line in table(rows) {
        println!("{line}");
    }
}

fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("  {}", cells.collect::<Vec<_>>().join("  "))
    };
    rows.iter().map(line).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / MIB)
}

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1024.0 * MIB;
const METRICS_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_line_up() {
        let lines = table(&[words("A BB"), words("long 1")]);
        assert_eq!(lines, ["  A     BB", "  long   1"]);
    }

    #[test]
    fn a_job_becomes_a_row() {
        let text = "{\"counts\": {\"bytes_done\": 1073741824, \"entries_done\": 3}, \"elapsed_seconds\": 2.0, \"lanes\": 4, \"ratio\": 1.5}";
        let job = Job { title: "x".into(), transfer: Json::parse(text).unwrap(), cpu_s: [0.5, 1.0] };
        let rows = job_rows(&[job]);
        let wanted = ["x", "3", "1024.0 MiB", "2.00 s", "512.0 MiB/s", "4", "1.50", "0.50", "1.00"];
        assert_eq!(rows[1], wanted);
    }
}
