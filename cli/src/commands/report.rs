//! `dwcp report`: one archive for whoever is asked for help: what the node says of itself, what `doctor` finds, versions.
//! Secrets are never in it, because no document has them; `--redact` also takes out names, addresses and paths.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dwcp_api::EventQuery;
use dwcp_api::client::{Client, ClientError};
use serde::Serialize;
use serde_json::Value;

use crate::arguments::Report;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::{doctor, output};

pub(super) async fn run(context: &Context, arguments: &Report) -> Result<Code, Failure> {
    let client = context.client()?;
    let mut parts = collect(&client).await;
    parts.insert("doctor.json", to_text(&doctor::findings(context).await?)?);
    parts.insert("about.json", to_text(&about())?);
    if arguments.redact {
        let redaction = Redaction::new(&parts);
        for text in parts.values_mut() {
            *text = redaction.apply(text);
        }
    }
    let target = arguments.output.clone().unwrap_or_else(|| PathBuf::from("dwcp-report.tar"));
    write(&target, &parts)?;
    if context.json {
        let files: Vec<&str> = parts.keys().copied().collect();
        output::json(
            &serde_json::json!({"schema": "dwcp.report/1", "file": target.display().to_string(), "parts": files}),
        )?;
    } else {
        context.note(&format!(
            "{}: {} parts; look at it before you pass it on",
            target.display(),
            parts.len()
        ));
    }
    Ok(Code::Ok)
}

/// What the daemon has; where it has no answer, why.
async fn collect(client: &Client) -> BTreeMap<&'static str, String> {
    let query = EventQuery { limit: Some(EventQuery::LIMIT_MAX), ..EventQuery::default() };
    let mut parts = BTreeMap::new();
    parts.insert("status.json", part(client.status().await));
    parts.insert("health.json", part(client.health_verbose().await));
    parts.insert("stats.json", part(client.stats().await));
    parts.insert("peers.json", part(client.peers().await));
    parts.insert("config.json", part(client.config_with_origins().await));
    parts.insert("circuit-breakers.json", part(client.circuit_breakers().await));
    parts.insert("components.json", part(client.components().await));
    parts.insert("transfers.json", part(client.transfers(&dwcp_api::TransferQuery::default()).await));
    parts.insert("events.json", part(client.events(&query).await));
    parts.insert("logs.json", part(client.logs(&query).await));
    parts.insert(
        "metrics.txt",
        client.metrics().await.unwrap_or_else(|error| format!("no answer: {error}\n")),
    );
    parts
}

fn part(answer: Result<impl Serialize, ClientError>) -> String {
    match answer {
        Ok(document) => to_text(&document).unwrap_or_default(),
        Err(error) => format!("no answer: {error}\n"),
    }
}

fn to_text(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::general(error.to_string()))?;
    Ok(text + "\n")
}

fn about() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    serde_json::json!({
        "command": env!("CARGO_PKG_VERSION"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "memory": read("/proc/meminfo").lines().next().unwrap_or_default(),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "load": read("/proc/loadavg"),
    })
}

/// Replaces what names this site: the same name by the same word everywhere, so that the parts still fit together.
struct Redaction {
    words: Vec<(String, String)>,
}

impl Redaction {
    /// Finds the names in the documents that have them.
    fn new(parts: &BTreeMap<&'static str, String>) -> Self {
        let mut words = Vec::new();
        let document = |name: &str| parts.get(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let mut add = |kind: &str, name: Option<&str>| {
            let Some(name) = name.filter(|name| name.len() > 1) else { return };
            if !words.iter().any(|(known, _)| known == name) {
                words.push((name.to_owned(), format!("<{kind} {}>", words.len() + 1)));
            }
        };
        if let Some(status) = document("status.json") {
            add("node", status["node_id"].as_str());
            add("identity", status["fingerprint"].as_str());
        }
        for peer in
            document("peers.json").iter().flat_map(|list| list["peers"].as_array().into_iter().flatten())
        {
            add("peer", peer["name"].as_str());
            add("address", peer["address"].as_str());
            add("identity", peer["fingerprint"].as_str());
        }
        let exports = document("config.json").map(|config| config["config"]["exports"].clone());
        for export in exports.iter().flat_map(|list| list.as_array().into_iter().flatten()) {
            add("export", export["name"].as_str());
            add("path", export["path"].as_str());
        }
        for job in document("transfers.json")
            .iter()
            .flat_map(|list| list["transfers"].as_array().into_iter().flatten())
        {
            add("path", job["destination"].as_str());
            job["sources"].as_array().into_iter().flatten().for_each(|source| add("path", source.as_str()));
        }
        // The longest first: a path holds the paths above it.
        words.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { words }
    }

    fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, word) in &self.words {
            text = text.replace(name.as_str(), word);
        }
        addresses(&text)
    }
}

/// IPv4 addresses but those of this host itself become a word.
fn addresses(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, tail) = rest.split_at(start);
        let end = tail.find(|c| !is_part(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        clean.push_str(before);
        let trimmed = word.trim_end_matches('.');
        match trimmed.parse::<std::net::Ipv4Addr>() {
            Ok(ip) if !ip.is_loopback() && !ip.is_unspecified() => {
                clean.push_str("<address>");
                clean.push_str(&word[trimmed.len()..]);
            }
            _ => clean.push_str(word),
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// An archive with the same bytes for the same parts.
fn write(target: &Path, parts: &BTreeMap<&'static str, String>) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::general(format!("{} cannot be written: {error}", target.display()));
    let mut archive = tar::Builder::new(std::fs::File::create(target).map_err(failed)?);
    for (name, text) in parts {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(0);
        archive.append_data(&mut header, format!("dwcp-report/{name}"), text.as_bytes()).map_err(failed)?;
    }
    archive.into_inner().and_then(|file| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> BTreeMap<&'static str, String> {
        let status = r#"{"node_id": "berlin-7", "fingerprint": "sha256:aabb"}"#;
        let peers = r#"{"peers": [{"name": "paris", "address": "paris.example.net:9000", "fingerprint": "sha256:ccdd"}]}"#;
        let events = r#"{"events": [{"message": "paris at 10.1.2.3:9000 went away from berlin-7, 127.0.0.1 stays, version 0.1.0"}]}"#;
        BTreeMap::from([
            ("status.json", status.into()),
            ("peers.json", peers.into()),
            ("events.json", events.into()),
        ])
    }

    #[test]
    fn nothing_that_names_the_site_is_left() {
        let mut parts = parts();
        let redaction = Redaction::new(&parts);
        for text in parts.values_mut() {
            *text = redaction.apply(text);
        }
        let all: String = parts.values().cloned().collect();
        for secret in ["berlin", "paris", "example", "aabb", "ccdd", "10.1.2.3"] {
            assert!(!all.contains(secret), "{secret} is in {all}");
        }
        assert!(all.contains("127.0.0.1 stays, version 0.1.0"), "{all}");
    }

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("r.tar");
        write(&target, &parts()).unwrap();
        let bytes = std::fs::read(&target).unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let Ok(listed) = std::process::Command::new("tar").arg("-tf").arg(&target).output() else { return };
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let names = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(names, "dwcp-report/events.json\ndwcp-report/peers.json\ndwcp-report/status.json\n");
    }
}
