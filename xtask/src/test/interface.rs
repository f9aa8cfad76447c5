//! Two steps that need a running control and foreign programs: schemathesis makes requests of the description of the HTTP
//! interface and compares the answers with it; sslscan says what the HTTPS interface speaks. Called by `test`. The
//! control has no dataplane: what it answers then is part of the description, too.
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::tally::Tally;
use crate::shell;

/// Requests made of the description, answers compared with it.
pub(super) fn described() -> Result<Tally> {
    let Some(schemathesis) = tool("schemathesis/bin/schemathesis", "schemathesis") else {
        println!("skipped: schemathesis is not installed (cargo xtask setup --for test says why)");
        return Ok(Tally::skipped());
    };
    let node = Node::start("interface")?;
    let description = format!("http://{}/openapi.json", node.address);
    let mut command = shell::command(schemathesis);
    command.arg("--config-file").arg(shell::root().join("xtask/src/test/schemathesis.toml"));
    command.args(["run", &description, "--no-color", "--max-time", MAX_TIME_S]);
    let said = shell::ask_all(&mut shell::bounded(&command, LIMIT))?;
    // How many requests were made, or everything that is wrong.
    let is_clean = said.is_success;
    let lines = said.text.lines().filter(|line| !is_clean || line.contains("generated"));
    lines.for_each(|line| println!("{line}"));
    ensure!(said.text.contains("generated"), "schemathesis made no requests: {}", said.text);
    Ok(if is_clean { Tally::passed() } else { Tally::failed() })
}

/// TLS 1.3 and nothing older, with the cipher suites of the configuration.
pub(super) fn tls() -> Result<Tally> {
    let Some(sslscan) = tool("sslscan", "sslscan") else {
        println!("skipped: sslscan is not installed (cargo xtask setup --for test says why)");
        return Ok(Tally::skipped());
    };
    let node = Node::start("tls")?;
    let mut command = shell::command(sslscan);
    command.args(["--no-colour", &node.tls_address]);
    let text = shell::run_quietly(&mut shell::bounded(&command, LIMIT))?;
    match complaint(&text) {
        None => Ok(Tally::passed()),
        Some(complaint) => {
            println!("{text}{complaint}");
            Ok(Tally::failed())
        }
    }
}

/// What sslscan saw that it should not have, or the other way round.
fn complaint(text: &str) -> Option<String> {
    let line = |start: &str| text.lines().find(|line| line.starts_with(start));
    for (protocol, state) in PROTOCOLS {
        if !line(protocol).is_some_and(|line| line.ends_with(state)) {
            return Some(format!("{protocol} is not {state}"));
        }
    }
    let suites = text.lines().filter(|line| line.starts_with("Preferred") || line.starts_with("Accepted"));
    let suites: Vec<&str> = suites.collect();
    let strange = suites.iter().find(|line| !SUITES.iter().any(|suite| line.contains(suite)));
    match (suites.len() == SUITES.len(), strange) {
        (_, Some(line)) => Some(format!("a strange cipher suite: {line}")),
        (false, None) => Some(format!("{} cipher suites instead of {}", suites.len(), SUITES.len())),
        (true, None) => None,
    }
}

/// Under `target/tools`, or on the path.
fn tool(unpacked: &str, program: &str) -> Option<PathBuf> {
    let place = shell::target().join("tools").join(unpacked);
    if place.is_file() { Some(place) } else { shell::find(program) }
}

/// A control of its own, with a certificate that the command has made. Ended and removed with the value.
struct Node {
    process: Child,
    folder: PathBuf,
    address: String,
    tls_address: String,
}

impl Node {
    fn start(name: &str) -> Result<Self> {
        let folder = shell::target().join("tools").join(format!("control-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let config = folder.join("dwcp.yaml");
        let file = |name: &str| folder.join(name).display().to_string();
        let text = format!(
            "monitoring: {{metrics_port: 0}}\nsecurity: {{tls: {{cert_file: '{}', key_file: '{}'}}}}\n",
            file("server.crt"),
            file("server.key"),
        );
        std::fs::write(&config, text).context("configuration")?;
        let programs = shell::target().join("debug");
        let mut renew = shell::command(programs.join("dwcp"));
        shell::run_quietly(renew.args(["cert", "renew", "--name", "localhost", "--config"]).arg(&config))?;
        let mut command = shell::command(programs.join("dwcp-control"));
        command.arg("--config").arg(&config).arg("--state-dir").arg(folder.join("state"));
        command.arg("--runtime-dir").arg(folder.join("run"));
        command.args(["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"]);
        let log = File::create(folder.join("log")).context("log")?;
        let process = command.stdout(Stdio::piped()).stderr(log).spawn().context("dwcp-control")?;
        let mut node = Self { process, folder, address: String::new(), tls_address: String::new() };
        node.listen()?;
        Ok(node)
    }

    /// Reads its log until it listens, and the rest away from here, or it would block.
    fn listen(&mut self) -> Result<()> {
        let output = self.process.stdout.take().context("output of dwcp-control")?;
        let mut lines = BufReader::new(output).lines();
        while self.address.is_empty() {
            let Some(line) = lines.next() else { bail!("dwcp-control ended before it listened") };
            let line = line.context("log of dwcp-control")?;
            let Some(address) = between(&line, "\"address\":\"", "\"") else { continue };
            match between(&line, "\"message\":\"", "\"") {
                Some("HTTPS listening") => self.tls_address = address.to_owned(),
                Some("listening") => self.address = address.to_owned(),
                _ => {}
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        ensure!(!self.tls_address.is_empty(), "dwcp-control serves no HTTPS");
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It is being thrown away; that it has ended already is fine.
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inner, _)| inner)
}

/// Of schemathesis; its start and the reading of the description come to it.
const MAX_TIME_S: &str = "45";
const LIMIT: Duration = Duration::from_secs(120);

const PROTOCOLS: [(&str, &str); 6] = [
    ("SSLv2 ", "disabled"),
    ("SSLv3 ", "disabled"),
    ("TLSv1.0 ", "disabled"),
    ("TLSv1.1 ", "disabled"),
    ("TLSv1.2 ", "disabled"),
    ("TLSv1.3 ", "enabled"),
];
/// The defaults of `security.tls.cipher_suites`.
const SUITES: [&str; 2] = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"];

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "SSLv2     disabled\nSSLv3     disabled\nTLSv1.0   disabled\nTLSv1.1   disabled\nTLSv1.2   disabled\n\
        TLSv1.3   enabled\nPreferred TLSv1.3  128 bits  TLS_AES_128_GCM_SHA256  Curve 25519\n\
        Accepted  TLSv1.3  256 bits  TLS_AES_256_GCM_SHA384  Curve 25519\n";

    #[test]
    fn older_protocols_and_other_suites_are_seen() {
        assert_eq!(complaint(GOOD), None);
        for (from, to) in [
            ("TLSv1.2   disabled", "TLSv1.2   enabled"),
            ("TLSv1.3   enabled", "TLSv1.3   disabled"),
            ("SSLv3     disabled\n", ""),
            ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
            ("Accepted ", "Rejected "),
        ] {
            assert!(complaint(&GOOD.replace(from, to)).is_some(), "{from} → {to}");
        }
        assert!(complaint("").is_some());
    }

    #[test]
    fn addresses_are_read_from_the_log() {
        let line = r#"{"level":"INFO","message":"listening","address":"127.0.0.1:4","socket":"x"}"#;
        assert_eq!(between(line, "\"address\":\"", "\""), Some("127.0.0.1:4"));
        assert_eq!(between(line, "\"nothing\":\"", "\""), None);
    }
}
