//! The real binary as a child, and the other end of its link played by the test. Shared by the behaviour tests.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::allow_attributes, reason = "whether something is unused differs between the test binaries")]

pub(crate) mod dataplane;
pub(crate) mod https;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const IDENTITY: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A directory with everything that a control needs.
pub(crate) struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        site.configure("");
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the configuration: one peer, and what is given.
    pub(crate) fn configure(&self, more: &str) {
        self.configure_with("log_level: info", more);
    }

    /// The same, with one more key of `monitoring:`.
    pub(crate) fn configure_with(&self, monitoring: &str, more: &str) {
        let peers = format!("peers: [{{name: paris, identity: '{IDENTITY}'}}]\n");
        let text = format!("{peers}monitoring: {{metrics_port: 0, {monitoring}}}\n{more}");
        std::fs::write(self.path("dwcp.yaml"), text).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dwcp-control"));
        command.env_clear().arg("--config").arg(self.path("dwcp.yaml"));
        command.arg("--state-dir").arg(self.path("state")).arg("--runtime-dir").arg(self.path("run"));
        command.args(["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"]);
        command
    }

    pub(crate) fn start(&self) -> Control {
        self.start_with(&[])
    }

    /// With more arguments, which win over the usual ones.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Control {
        let mut child = self.command().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut tls_address = None;
        let address = loop {
            let line = lines.next().expect("control ended before it listened").unwrap();
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON line: {line}"));
            if line["message"] == "HTTPS listening" {
                tls_address = line["address"].as_str().map(str::to_owned);
            }
            if line["message"] == "listening" {
                break line["address"].as_str().unwrap().to_owned();
            }
        };
        // Somebody must read the log, or the child blocks.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Control { child, socket: self.path("run/control.sock"), address, tls_address }
    }

    pub(crate) fn dataplane_socket(&self) -> PathBuf {
        self.path("run/dataplane.sock")
    }
}

/// A running control. Killed when dropped.
pub(crate) struct Control {
    pub(crate) child: Child,
    socket: PathBuf,
    pub(crate) address: String,
    /// Of the HTTPS interface, where there is a certificate.
    pub(crate) tls_address: Option<String>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let wanted = format!("{}: ", name.to_ascii_lowercase());
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&wanted))?;
        Some(line[wanted.len()..].to_owned())
    }
}

impl Control {
    /// `kill -9`, and its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// A request over the unix socket.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{}", body_headers(body));
        exchange(UnixStream::connect(&self.socket).unwrap(), &head, body)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// A request over TCP with these header lines.
    pub(crate) fn ask_tcp(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\n{lines}{}", body_headers(body));
        exchange(TcpStream::connect(&self.address).unwrap(), &head, body)
    }

    /// Orders a transfer and gives its number.
    pub(crate) fn order(&self) -> u64 {
        let answer = self.ask("POST", "/api/v1/dwcp/transfers", ORDER);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.json()["id"].as_u64().unwrap();
        assert_eq!(answer.header("location").unwrap(), format!("/api/v1/dwcp/transfers/{id}"));
        id
    }

    pub(crate) fn transfer(&self, id: u64) -> Value {
        self.get(&format!("/api/v1/dwcp/transfers/{id}")).json()
    }

    /// The transfer once it is in that state.
    pub(crate) fn wait_for_state(&self, id: u64, state: &str) -> Value {
        wait_for(&format!("transfer {id} to be {state}"), || {
            Some(self.transfer(id)).filter(|transfer| transfer["state"] == state)
        })
    }
}

pub(crate) const ORDER: &str =
    r#"{"direction":"send","peer":"paris","sources":["/srv/a","/srv/b"],"destination":"in/x"}"#;

fn body_headers(body: &str) -> String {
    if body.is_empty() {
        return "connection: close\r\n".into();
    }
    format!("connection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len())
}

fn exchange(mut stream: impl Read + Write, head: &str, body: &str) -> Answer {
    // A server that refuses a large body may close before it has read it.
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP answer");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// Asks again until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    while begin.elapsed() < DEADLINE {
        if let Some(found) = look() {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("waited in vain for {what}");
}

pub(crate) fn wait_for_path(path: &Path) {
    wait_for(&path.display().to_string(), || path.exists().then_some(()));
}
