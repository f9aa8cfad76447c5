//! `dwcp server` with halves that are tiny programs of the test: starting, restarting, stopping, and not outliving.
mod support;

use std::io::{BufRead, BufReader, Lines, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A copy of the command with halves of our own beside it, as an installation has.
struct Installation {
    directory: tempfile::TempDir,
}

impl Installation {
    fn new(dataplane: &str, control: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A link where that is possible: a copy is busy while a child of another test still has it open for writing.
        let (program, link) = (env!("CARGO_BIN_EXE_dwcp"), directory.path().join("dwcp"));
        std::fs::hard_link(program, &link).or_else(|_| std::fs::copy(program, &link).map(drop)).unwrap();
        for (name, script) in [("dwcp-dataplane", dataplane), ("dwcp-control", control)] {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn start(&self) -> Server {
        let mut command = Command::new(self.path().join("dwcp"));
        command.arg("server").arg("--state-dir").arg(self.path().join("state"));
        command.arg("--runtime-dir").arg(self.path().join("run"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("DWCP_CONFIG", "");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Server { child, stderr }
    }
}

struct Server {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Server {
    /// Reads what it says up to a line with `part`.
    fn until(&mut self, part: &str) -> String {
        let mut said = Vec::new();
        for line in self.stderr.by_ref() {
            let line = line.unwrap();
            if line.contains(part) {
                return line;
            }
            said.push(line);
        }
        panic!("it never said '{part}': {said:?}");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// The exit code and all that it still said. The pipes end when the last process that holds them is gone.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let said = self.stderr.by_ref().map(Result::unwrap).collect();
        let mut nothing = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut nothing).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

fn pid_of(line: &str) -> Pid {
    let (_, pid) = line.rsplit_once("(pid ").unwrap();
    Pid::from_raw(pid.trim_end_matches(')').parse().unwrap())
}

const LIVES: &str = "exec sleep 1000";

#[test]
fn both_start_and_stop_in_order() {
    for stop in [Signal::SIGTERM, Signal::SIGINT] {
        let installation = Installation::new(LIVES, LIVES);
        let mut server = installation.start();
        server.until("started dwcp-dataplane");
        server.until("started dwcp-control");
        server.signal(stop);
        let (code, said) = server.end();
        assert_eq!(code, Some(0));
        let ends: Vec<&String> = said.iter().filter(|line| line.contains("ended")).collect();
        assert!(ends[0].contains("dwcp-control") && ends[1].contains("dwcp-dataplane"), "{said:?}");
        assert!(installation.path().join("state").is_dir() && installation.path().join("run").is_dir());
    }
}

#[test]
fn a_half_that_dies_is_started_again() {
    let installation = Installation::new(LIVES, LIVES);
    let mut server = installation.start();
    server.until("started dwcp-dataplane");
    let control = pid_of(&server.until("started dwcp-control"));
    // Before it became the half it would only end the helper that becomes it, with the same result.
    kill(control, Signal::SIGKILL).unwrap();
    server.until("dwcp-control was ended by signal 9");
    server.until("starting dwcp-control again in 1 s");
    assert_ne!(pid_of(&server.until("started dwcp-control")), control);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn the_halves_get_their_arguments() {
    let tell = "echo \"$0 $*\" >&2; exec sleep 1000";
    let installation = Installation::new(tell, tell);
    let mut server = installation.start();
    let line = server.until("--state-dir");
    let path = installation.path().display();
    assert!(line.contains(&format!("--state-dir {path}/state --runtime-dir {path}/run")), "{line}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn halves_do_not_outlive_a_killed_supervisor() {
    let tell = "echo lives >&2; exec sleep 1000";
    let installation = Installation::new(tell, tell);
    let mut server = installation.start();
    server.until("lives");
    server.until("lives");
    server.signal(Signal::SIGKILL);
    // Returns only when nobody holds the pipes any more.
    assert_eq!(server.end().0, None);
}

#[test]
fn a_half_that_refuses_the_configuration_stops_the_node() {
    let installation = Installation::new(LIVES, "exit 78");
    let (code, said) = installation.start().end();
    assert_eq!(code, Some(78), "{said:?}");
    assert!(said.iter().any(|line| line.contains("dwcp-control refuses the configuration")), "{said:?}");
}

#[test]
fn a_missing_half_is_named() {
    let installation = Installation::new(LIVES, LIVES);
    std::fs::remove_file(installation.path().join("dwcp-control")).unwrap();
    let (code, said) = installation.start().end();
    assert_eq!(code, Some(1));
    assert!(said.iter().any(|line| line.contains("cannot find dwcp-control")), "{said:?}");
}

#[test]
fn other_names_are_the_server() {
    let installation = Installation::new(LIVES, LIVES);
    for name in ["dwcp-manager", "dwcp-api-server"] {
        let link = installation.path().join(name);
        std::os::unix::fs::symlink("dwcp", &link).unwrap();
        let ran = support::Ran::of(Command::new(&link).arg("--help").env_clear());
        assert!(ran.stdout.contains("--state-dir"), "{}", ran.stdout);
    }
}
