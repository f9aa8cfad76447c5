//! What the behaviour tests share: the command as a process, and a daemon that is real HTTP/1.1 on a unix socket.
//! Nothing here knows what a subcommand should do.
#![expect(dead_code, reason = "each test file uses its part of the shared module")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// What the command asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Method and target, such as `GET /health`.
    pub(crate) line: String,
    /// The body.
    pub(crate) body: String,
}

/// Answers one request by writing to its connection; whatever is written is the answer, dropping it hangs up.
pub(crate) type Handler = dyn Fn(&Request, &mut UnixStream) + Send + Sync;

/// A daemon on a socket of its own. Requests that it gets come out of `requests`.
pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    /// What was asked, in order.
    pub(crate) requests: Receiver<Request>,
}

impl Daemon {
    /// Serves until the test ends.
    pub(crate) fn start(handler: impl Fn(&Request, &mut UnixStream) + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("control.sock")).unwrap();
        let (sender, requests) = channel();
        let handler: std::sync::Arc<Handler> = std::sync::Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (sender, handler) = (sender.clone(), handler.clone());
                std::thread::spawn(move || {
                    // Connections that only probe send nothing.
                    let Some(request) = read_request(&mut stream) else { return };
                    // The test may have heard enough.
                    drop(sender.send(request.clone()));
                    handler(&request, &mut stream);
                });
            }
        });
        Self { directory, requests }
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// The command, told to ask this daemon.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = dwcp(arguments);
        command.env("DWCP_SOCKET", self.socket());
        command
    }

    /// Runs the command against this daemon.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }
}

/// The command, in an environment that holds nothing of the machine's.
pub(crate) fn dwcp(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dwcp"));
    command.args(arguments).env_clear().env("DWCP_CONFIG", "").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the command without a daemon.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    Ran::from(dwcp(arguments).output().unwrap())
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Writes a whole answer.
pub(crate) fn answer(stream: &mut UnixStream, status: &str, body: &str) {
    let kind = if status.starts_with('2') { "application/json" } else { "application/problem+json" };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    write(stream, &(head + body));
}

/// Writes the head of a stream of events.
pub(crate) fn answer_events(stream: &mut UnixStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    write(stream, head);
}

/// Writes one event as a chunk of its own.
pub(crate) fn event(stream: &mut UnixStream, name: &str, data: &str) {
    let text = format!("event: {name}\ndata: {data}\n\n");
    write(stream, &format!("{:x}\r\n{text}\r\n", text.len()));
}

/// Writes the beginning of an event whose chunk never ends.
pub(crate) fn half_event(stream: &mut UnixStream) {
    write(stream, "fff\r\nevent: progress\ndata: {\"half");
}

/// Ends a stream of events in good order.
pub(crate) fn end_events(stream: &mut UnixStream) {
    write(stream, "0\r\n\r\n");
}

fn write(stream: &mut UnixStream, text: &str) {
    // The command may have left already, which the test sees from its exit code.
    drop(stream.write_all(text.as_bytes()));
}

fn read_request(stream: &mut UnixStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).ok().filter(|&length| length > 0)?;
        bytes.extend_from_slice(&piece[..length]);
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    let mut body = bytes.split_off(head_end);
    let missing = length.saturating_sub(body.len());
    let mut rest = vec![0; missing];
    stream.read_exact(&mut rest).ok()?;
    body.extend_from_slice(&rest);
    let head = String::from_utf8(bytes).ok()?;
    let line = head.lines().next()?.strip_suffix(" HTTP/1.1")?.to_owned();
    Some(Request { line, body: String::from_utf8(body).ok()? })
}

/// Text of tests/fixtures/`name`.
pub(crate) fn fixture(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// Compares with tests/golden/`name`; writes it instead where `UPDATE_GOLDEN` is set.
#[track_caller]
pub(crate) fn assert_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{name} differs (UPDATE_GOLDEN=1 accepts it)\n--- expected\n{expected}\n--- found\n{found}"
    );
}
