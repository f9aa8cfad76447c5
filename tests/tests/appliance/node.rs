//! A node under `dwcp server`: its directories and configuration, its processes, questions over its socket.
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    name: &'static str,
    home: PathBuf,
    listen: String,
    pause: String,
    supervisor: Child,
}

/// An address that was free a moment ago.
pub(crate) fn address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Node {
    /// Starts a node without peers, and waits until its halves know each other.
    pub(crate) fn start(name: &'static str, home: &Path, listen: &str) -> Self {
        Self::start_with(name, home, listen, "100ms")
    }

    /// The same, with halves that are started anew after `pause`.
    pub(crate) fn start_with(name: &'static str, home: &Path, listen: &str, pause: &str) -> Self {
        for part in ["state", "run", "incoming"] {
            fs::create_dir_all(home.join(part)).unwrap();
        }
        let configuration = write_configuration(home, name, listen, pause, "");
        let log = File::create(home.join("log")).unwrap();
        let supervisor = dwcp()
            .args(["server", "--config"])
            .arg(configuration)
            .arg("--state-dir")
            .arg(home.join("state"))
            .arg("--runtime-dir")
            .arg(home.join("run"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let (home, listen, pause) = (home.to_owned(), listen.to_owned(), pause.to_owned());
        let node = Self { name, home, listen, pause, supervisor };
        node.until("it is ready", || node.is_ok("/ready").then_some(()));
        node.until("it has an identity", || node.fingerprint());
        node
    }

    /// Makes the other one known, reachable at `dial`, and lets it use the directory `incoming`.
    pub(crate) fn meet(&self, other: &Self, dial: &str) {
        self.meet_with(other, dial, "");
    }

    /// The same, with more of a configuration.
    pub(crate) fn meet_with(&self, other: &Self, dial: &str, more: &str) {
        let address = if dial.is_empty() { String::new() } else { format!("address: \"{dial}\", ") };
        let lists = format!(
            "peers:\n  - {{name: {}, {address}identity: \"{}\"}}\nexports:\n  - {{name: incoming, path: \"{}\", access: read-write}}\n{more}",
            other.name,
            other.fingerprint().unwrap(),
            self.incoming().display(),
        );
        let generation = || {
            let stats: Value = serde_json::from_str(&self.get("/api/v1/dwcp/stats")?).ok()?;
            stats["node"]["plan_generation"].as_u64()
        };
        let before = generation();
        write_configuration(&self.home, self.name, &self.listen, &self.pause, &lists);
        kill(Pid::from_raw(self.control()), Signal::SIGHUP).unwrap();
        self.until("the plan is in force", || generation().filter(|&now| Some(now) != before));
    }

    /// `dwcp` for this node.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let log = File::create(self.home.join("command.log")).unwrap();
        let mut command = dwcp();
        command.arg("--socket").arg(self.home.join("run/control.sock")).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.home.join("incoming")
    }

    fn fingerprint(&self) -> Option<String> {
        let status: Value = serde_json::from_str(&self.get("/api/v1/dwcp/status")?).ok()?;
        status["fingerprint"].as_str().map(str::to_owned).filter(|text| !text.is_empty())
    }

    /// The newest transfer.
    pub(crate) fn transfer(&self) -> Option<Value> {
        let list: Value = serde_json::from_str(&self.get("/api/v1/dwcp/transfers")?).ok()?;
        list["transfers"].get(0).cloned()
    }

    /// The body of an answer of 200.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut socket = UnixStream::connect(self.home.join("run/control.sock")).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(socket, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.lines().next()?.contains(" 200").then(|| body.to_owned())
    }

    pub(crate) fn is_ok(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    pub(crate) fn control(&self) -> i32 {
        self.until("control runs", || self.find("dwcp-control"))
    }

    pub(crate) fn dataplane(&self) -> i32 {
        self.until("the dataplane runs", || self.find("dwcp-dataplane"))
    }

    /// The supervisor's child that runs this program.
    pub(crate) fn find(&self, program: &str) -> Option<i32> {
        let supervisor = self.supervisor.id().to_string();
        let pids =
            fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.into_iter().find(|pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // pid (name) state parent: see proc_pid_stat(5); one that ended and was not reaped does not count.
            let Some((name, rest)) = stat.split_once('(').and_then(|(_, stat)| stat.rsplit_once(')')) else {
                return false;
            };
            let mut rest = rest.split_ascii_whitespace();
            name == program && rest.next() != Some("Z") && rest.next() == Some(&supervisor)
        })
    }

    pub(crate) fn kill(&self, pid: i32) {
        self.signal(pid, Signal::SIGKILL);
    }

    pub(crate) fn signal(&self, pid: i32, signal: Signal) {
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Looks again and again until there is something.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "{} not in time: {what}\n{}", self.name, self.log());
            std::thread::yield_now();
        }
    }

    /// What its processes and its last command said.
    pub(crate) fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.home.join(name)).unwrap_or_default();
        format!("{}\n{}", read("log"), read("command.log"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its halves end with it.
        let pid = Pid::from_raw(self.supervisor.id() as i32);
        if kill(pid, Signal::SIGTERM).is_err() {
            return;
        }
        drop(self.supervisor.wait());
    }
}

/// The established TCP connections of a process, by the kernel's numbers of their sockets.
pub(crate) fn connections(pid: i32) -> BTreeSet<u64> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    // Fields of proc_pid_net(5): the fourth is the state, 01 when established, the tenth the inode.
    let established = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        (fields.nth(3)? == "01").then(|| fields.nth(5)?.parse().ok()).flatten()
    });
    let established: BTreeSet<u64> = established.collect();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let sockets =
        links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
    sockets.filter(|inode| established.contains(inode)).collect()
}

fn write_configuration(home: &Path, name: &str, listen: &str, pause: &str, lists: &str) -> PathBuf {
    let text = format!(
        "node: {{name: {name}}}\n\
         peer: {{listen: \"{listen}\"}}\n\
         api: {{listen: \"127.0.0.1:0\"}}\n\
         monitoring: {{metrics_port: 0}}\n\
         dataplane: {{workers: 1}}\n\
         recovery: {{backoff: [{pause}]}}\n\
         {lists}"
    );
    let path = home.join("dwcp.yaml");
    fs::write(&path, text).unwrap();
    path
}

/// The program beside the test.
fn dwcp() -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("dwcp");
    assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DWCP_")) {
        command.env_remove(name);
    }
    command
}
