//! A whole node for a bench: a real control and a real dataplane in a directory of their own, asked over HTTP.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::http::Connection;
use crate::peers::free_port;

/// A running node. Its processes end with it.
pub struct Site {
    name: &'static str,
    home: PathBuf,
    core: u16,
    api: String,
    /// Where its peers dial it.
    pub peer_address: String,
    dataplane: Child,
    control: Child,
}

impl Site {
    /// Starts a node whose one worker has this core, and waits until it is ready.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(home: PathBuf, name: &'static str, core: u16) -> Result<Self> {
        for part in ["state", "run", "export"] {
            fs::create_dir_all(home.join(part))?;
        }
        let (api, peer_address) =
            (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
        configure(&home, name, core, &api, &peer_address, "")?;
        let start = |program: &str, more: &[&str]| -> Result<Child> {
            let path = std::env::current_exe()?.with_file_name(program);
            let mut command = Command::new(&path);
            command.arg("--state-dir").arg(home.join("state")).arg("--runtime-dir").arg(home.join("run"));
            command.args(more).env("DWCP_LOG_LEVEL", "error").stdout(Stdio::null());
            command
                .spawn()
                .with_context(|| format!("{}: build it first, as cargo xtask bench does", path.display()))
        };
        let dataplane = start("dwcp-dataplane", &[])?;
        let config = home.join("dwcp.yaml").display().to_string();
        let control = start("dwcp-control", &["--config", &config])?;
        let site = Self { name, home, core, api, peer_address, dataplane, control };
        site.until("ready", || Some(site.ask("/ready").ok()?["ready"] == true).filter(|ready| *ready))?;
        Ok(site)
    }

    /// Makes the other one known, reachable at `dial` (empty = it dials us), and lets it write `export`.
    ///
    /// # Errors
    /// The plan is not taken.
    pub fn meet(&self, other: &Self, dial: &str) -> Result<()> {
        let identity = other.until("known by its fingerprint", || {
            other.ask("/api/v1/dwcp/status").ok()?["fingerprint"].as_str().map(str::to_owned)
        })?;
        let address = if dial.is_empty() { String::new() } else { format!("address: '{dial}', ") };
        let lists = format!(
            "peers: [{{name: {}, {address}identity: '{identity}'}}]\n\
             exports: [{{name: data, path: '{}', access: read-write}}]\n",
            other.name,
            self.home.join("export").display(),
        );
        let generation = || self.ask("/api/v1/dwcp/stats").ok()?["node"]["plan_generation"].as_u64();
        let before = generation();
        configure(&self.home, self.name, self.core, &self.api, &self.peer_address, &lists)?;
        kill(Pid::from_raw(self.control.id() as i32), Signal::SIGHUP)?;
        self.until("in force with its plan", || generation().filter(|now| Some(*now) != before))?;
        Ok(())
    }

    /// Where its HTTP interface listens.
    #[must_use]
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Process id of control.
    #[must_use]
    pub fn control(&self) -> u32 {
        self.control.id()
    }

    /// Where things arrive.
    #[must_use]
    pub fn export(&self) -> PathBuf {
        self.home.join("export")
    }

    /// Orders a transfer to the peer's export; its number.
    ///
    /// # Errors
    /// It is refused.
    pub fn order(&self, peer: &str, source: &Path, lanes: u16) -> Result<u64> {
        let body = serde_json::json!({
            "direction": "send", "peer": peer, "sources": [source.to_string_lossy()], "destination": "data/",
            "options": { "streams": lanes },
        });
        let mut connection = Connection::open(&self.api)?;
        let (status, answer) = connection.post("/api/v1/dwcp/transfers", &body.to_string())?;
        ensure!(status == 201, "{}", String::from_utf8_lossy(answer));
        let answer: Value = serde_json::from_slice(answer)?;
        answer["id"].as_u64().context("a transfer without a number")
    }

    /// The transfer as it is now.
    ///
    /// # Errors
    /// There is no answer.
    pub fn transfer(&self, id: u64) -> Result<Value> {
        self.ask(&format!("/api/v1/dwcp/transfers/{id}"))
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let mut connection = Connection::open(&self.api)?;
        Ok(serde_json::from_slice(connection.get(path)?.1)?)
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = look() {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("{} is not {what} in time", self.name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in [&mut self.control, &mut self.dataplane] {
            // It may have ended before.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn configure(home: &Path, name: &str, core: u16, api: &str, peer: &str, lists: &str) -> Result<()> {
    let text = format!(
        "node: {{name: {name}}}\npeer: {{listen: '{peer}'}}\napi: {{listen: '{api}'}}\n\
         monitoring: {{metrics_port: 0, log_level: error}}\nsecurity: {{enable_tls: false}}\n\
         transport: {{congestion_algorithm: cubic}}\ndataplane: {{workers: 1, cores: [{core}]}}\n{lists}"
    );
    Ok(fs::write(home.join("dwcp.yaml"), text)?)
}

const PATIENCE: Duration = Duration::from_secs(30);
