//! One node under `dwcp-manager`, and a shell whose path finds the command under all of its names.
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub(crate) struct Node {
    home: TempDir,
    api: u16,
    metrics: u16,
    supervisor: Child,
}

impl Node {
    pub(crate) fn start() -> Self {
        let home = TempDir::new().unwrap();
        for part in ["bin", "etc", "state", "run"] {
            fs::create_dir(home.path().join(part)).unwrap();
        }
        let test = std::env::current_exe().unwrap();
        let programs = test.ancestors().nth(2).unwrap();
        assert!(programs.join("dwcp").exists(), "run `cargo build` first: {}", programs.display());
        for name in ["dwcp", "dwcp-manager", "dwcp-config-validator"] {
            symlink(programs.join("dwcp"), home.path().join("bin").join(name)).unwrap();
        }
        for name in ["dwcp-control", "dwcp-dataplane"] {
            symlink(programs.join(name), home.path().join("bin").join(name)).unwrap();
        }
        let (api, metrics, peer) = (free_port(), free_port(), free_port());
        let etc = |name: &str, text: &str| fs::write(home.path().join("etc").join(name), text).unwrap();
        etc(
            "config.yaml",
            &format!(
                "---\napi:\n  listen: \"127.0.0.1:{api}\"\nmonitoring:\n  metrics_port: {metrics}\npeer:\n  listen: \
                 \"127.0.0.1:{peer}\"\ndataplane:\n  workers: 1\nsecurity:\n  tls:\n    cert_file: /nonexistent.crt\n"
            ),
        );
        etc("wrong.yaml", "transport:\n  min_stream: 3\n");
        etc("old.yaml", "dwcp:\n  transport:\n    streams: 512\n");
        let log = File::create(home.path().join("log")).unwrap();
        let mut command = Command::new(home.path().join("bin/dwcp-manager"));
        command.arg("--config").arg(home.path().join("etc/config.yaml"));
        command.arg("--state-dir").arg(home.path().join("state"));
        command.arg("--runtime-dir").arg(home.path().join("run"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let node = Self { home, api, metrics, supervisor: command.spawn().unwrap() };
        let begin = Instant::now();
        while node.shell("dwcp wait ready --timeout 1s").0 != 0 {
            assert!(begin.elapsed() < PATIENCE, "the node is not ready\n{}", node.log());
        }
        node
    }

    /// Exit status of a line of shell, and all that it said.
    pub(crate) fn shell(&self, line: &str) -> (i32, String) {
        let etc = self.home.path().join("etc").display().to_string();
        let line = line
            .replace(":8080", &format!(":{}", self.api))
            .replace(":9090", &format!(":{}", self.metrics))
            .replace("/etc/dwcp", &etc);
        let mut command = Command::new("sh");
        command.args(["-c", &line]).env("PATH", self.path()).env("NO_COLOR", "1");
        command.env("DWCP_SOCKET", self.home.path().join("run/control.sock"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code().unwrap_or(-1), text.concat())
    }

    fn path(&self) -> String {
        let usual = std::env::var("PATH").unwrap_or_default();
        format!("{}:{usual}", self.home.path().join("bin").display())
    }

    pub(crate) fn has(&self, program: &str) -> bool {
        let found = |folder: PathBuf| Path::is_file(&folder.join(program));
        std::env::split_paths(&self.path()).any(found)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its halves end with it.
        if kill(Pid::from_raw(self.supervisor.id() as i32), Signal::SIGTERM).is_ok() {
            drop(self.supervisor.wait());
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const PATIENCE: Duration = Duration::from_secs(60);
