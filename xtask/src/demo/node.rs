//! One of the demo's two nodes: its directories and configuration, its process, and questions to it by `dwcp` and by
//! HTTP over its socket. Called by the demo.
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{janitor::Janitor, json::Json, network::Site, process};
use crate::shell;

/// A node that runs.
#[derive(Debug)]
pub(super) struct Node {
    /// As its peer calls it.
    pub(super) name: &'static str,
    /// Where it runs.
    pub(super) site: Site,
    /// Where everything of it lies.
    pub(super) home: PathBuf,
    /// Process id of `dwcp server`.
    pub(super) supervisor: u32,
    /// Process id of its dataplane.
    pub(super) dataplane: u32,
    /// What its peer must list as its identity.
    pub(super) fingerprint: String,
    program: PathBuf,
}

impl Node {
    /// Starts a node without peers and waits until both halves know each other.
    ///
    /// # Errors
    /// It cannot be started, or does not become ready in time; then with the end of its log.
    pub(super) fn start(
        name: &'static str,
        site: Site,
        run: &Path,
        programs: &Path,
        janitor: &mut Janitor,
    ) -> Result<Self> {
        let home = run.join(name);
        for part in ["state", "run", "data"] {
            fs::create_dir_all(home.join(part)).with_context(|| home.display().to_string())?;
        }
        let program = programs.join("dwcp");
        let mut node =
            Self { name, site, home, supervisor: 0, dataplane: 0, fingerprint: String::new(), program };
        node.write_configuration("")?;
        let mut child = node.spawn()?;
        node.supervisor = child.id();
        janitor.process(child.id())?;
        let status = node.wait_until("to start", || {
            if let Some(status) = child.try_wait()? {
                bail!("`dwcp server` ended: {status}");
            }
            let status = node.ask(&["status"]).ok();
            Ok(status.filter(|status| {
                status.text("dataplane.connected") == "true"
                    && !status.text("fingerprint").is_empty()
                    && status.text("fingerprint") != "null"
            }))
        })?;
        node.dataplane = status.text("dataplane.pid").parse().context("the dataplane's process id")?;
        node.fingerprint = status.text("fingerprint").to_owned();
        Ok(node)
    }

    /// Makes the other one known, lets it use the node's data directory, and waits until the dataplane knows it too.
    ///
    /// # Errors
    /// The configuration cannot be written, or is not taken over in time.
    pub(super) fn meet(&self, other: &Self) -> Result<()> {
        let before = self.ask(&["stats"])?.text("node.plan_generation").to_owned();
        let (name, address, identity) = (other.name, &other.site.peer_listen, &other.fingerprint);
        let data = self.data();
        let lists = format!(
            "peers:\n  - {{name: {name}, address: \"{address}\", identity: \"{identity}\"}}\nexports:\n  \
             - {{name: {EXPORT}, path: \"{}\", access: read-write, peers: [{name}]}}\n",
            data.display()
        );
        self.write_configuration(&lists)?;
        let Some(control) = process::child(self.supervisor, "dwcp-control") else {
            bail!("{} has no dwcp-control", self.name);
        };
        shell::run_quietly(Command::new("sh").args(["-c", "kill -s HUP \"$0\"", &control.to_string()]))?;
        self.wait_until("to take over its peer", || {
            let stats = self.ask(&["stats"])?;
            Ok((stats.text("node.plan_generation") != before).then_some(()))
        })
    }

    /// The directory that its peer may use.
    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Its unix socket for the command and for HTTP.
    pub(super) fn socket(&self) -> PathBuf {
        self.home.join("run/control.sock")
    }

    /// What `dwcp ARGUMENTS --json` answers.
    ///
    /// # Errors
    /// It fails, or is no JSON.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<Json> {
        Json::parse(&shell::run_quietly(self.dwcp().args(arguments).arg("--json"))?)
    }

    /// Runs `dwcp` for this node in the terminal, at most two minutes; it shows the command first.
    ///
    /// # Errors
    /// It fails.
    pub(super) fn show(&self, shown: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
        println!("\n{}$ dwcp {shown}", self.name);
        let mut command = self.dwcp();
        command.args(arguments);
        shell::run(&mut shell::bounded(&command, COMMAND_MAX))
    }

    /// What a GET of this path answers over the unix socket.
    ///
    /// # Errors
    /// Nobody answers, or not with 200.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        let mut socket =
            UnixStream::connect(self.socket()).with_context(|| self.socket().display().to_string())?;
        socket.set_read_timeout(Some(READY_MAX))?;
        write!(socket, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.lines().next().unwrap_or_default();
        if !status.contains(" 200") {
            bail!("GET {path} answers: {status}");
        }
        Ok(body.to_owned())
    }

    /// `dwcp` for this node.
    fn dwcp(&self) -> Command {
        let mut command = shell::command(&self.program);
        command.arg("--socket").arg(self.socket());
        command
    }

    fn configuration(&self) -> PathBuf {
        self.home.join("dwcp.yaml")
    }

    /// Both nodes would choose the same core of the one machine that they share: they are given different ones.
    fn core(&self) -> String {
        let machine = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        if machine < 2 {
            return String::new();
        }
        format!("dataplane: {{cores: [{}]}}\n", usize::from(self.name != super::SENDER))
    }

    fn write_configuration(&self, lists: &str) -> Result<()> {
        let text = format!(
            "node: {{name: {}}}\npeer: {{listen: \"{}\"}}\napi: {{listen: \"{}\"}}\nmonitoring: {{metrics_port: 0}}\n{}{lists}",
            self.name,
            self.site.peer_listen,
            self.site.api_listen,
            self.core()
        );
        let path = self.configuration();
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::create(self.log()).with_context(|| self.log().display().to_string())?;
        let mut command = self.site.command(&self.program);
        command.arg("server").arg("--config").arg(self.configuration());
        command
            .arg("--state-dir")
            .arg(self.home.join("state"))
            .arg("--runtime-dir")
            .arg(self.home.join("run"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DWCP_")) {
            command.env_remove(name);
        }
        // A process group of its own: Ctrl-C in the terminal is for the demo, whose janitor stops the nodes.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("start {}", self.program.display()))
    }

    fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Changes the configuration by a command, and waits until the dataplane works with it.
    ///
    /// # Errors
    /// It is refused, or not taken over in time.
    pub(super) fn change(&self, command: &str) -> Result<()> {
        let generation =
            || Ok::<_, anyhow::Error>(self.ask(&["stats"])?.text("node.plan_generation").to_owned());
        let before = generation()?;
        let words: Vec<&std::ffi::OsStr> = command.split(' ').map(std::ffi::OsStr::new).collect();
        self.show(command, &words)?;
        self.wait_until("to take over a setting", || Ok((generation()? != before).then_some(())))
    }

    /// Looks again and again until there is an answer.
    ///
    /// # Errors
    /// There is none in time, or looking fails.
    pub(super) fn wait_until<T>(
        &self,
        what: &str,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            match ready() {
                Ok(Some(value)) => return Ok(value),
                Ok(None) if started.elapsed() < READY_MAX => sleep(Duration::from_millis(50)),
                Ok(None) => {
                    bail!("{} needs more than {} s {what}{}", self.name, READY_MAX.as_secs(), self.log_end())
                }
                Err(error) => bail!("{} fails {what}: {error:#}{}", self.name, self.log_end()),
            }
        }
    }

    /// The last lines of its log, each on a line.
    pub(super) fn log_end(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..]
            .iter()
            .map(|line| format!("\n  {}: {line}", self.name))
            .collect()
    }
}

/// Name of each node's export.
pub(super) const EXPORT: &str = "incoming";
const READY_MAX: Duration = Duration::from_secs(20);
const COMMAND_MAX: Duration = Duration::from_secs(120);
const ANSWER_BYTES_MAX: u64 = 4 << 20;
const LOG_LINES: usize = 8;
