//! `test` and `ci`: every check in order, each announced and timed, and one summary line at the end that a runner can
//! read: `N passed, N failed, N skipped`. A failed step does not stop the ones after it.
mod interface;
mod machine;
mod tally;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tally::{Reader, Shown, Tally};

use crate::{
    Outcome, ebpf,
    setup::{self, Group},
    shell,
};

/// Entry point of `test`.
///
/// # Errors
/// None today: what fails is counted and printed.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    let mut filter = None;
    let mut pace = Pace::Full;
    for argument in arguments {
        match argument.as_str() {
            "--quick" => pace = Pace::Quick,
            "--interface" => return Ok(interface_alone()),
            "--machine" => pace = Pace::Machine,
            flag if flag.starts_with('-') => {
                eprintln!(
                    "xtask test: unknown argument '{flag}'; there are: FILTER, --quick, --interface, --machine"
                );
                return Ok(Outcome::Usage);
            }
            name => filter = Some(name),
        }
    }
    let mut session = Session::default();
    match filter {
        Some(filter) => session.step("tests", || cargo_tests(&["--workspace"], Some(filter))),
        None if pace == Pace::Machine => session.machine(),
        None => session.everything(pace),
    }
    Ok(session.finish())
}

/// Entry point of `ci`.
///
/// # Errors
/// None today: what fails is counted and printed.
pub(crate) fn run_ci(arguments: &[String]) -> Result<Outcome> {
    if let Some(argument) = arguments.first() {
        eprintln!("xtask ci: unknown argument '{argument}'; it takes none");
        return Ok(Outcome::Usage);
    }
    let mut session = Session::default();
    session.everything(Pace::Full);
    session.step("licences and advisories", dependencies);
    Ok(session.finish())
}

/// The steps that foreign programs take, for whoever changes the interface.
fn interface_alone() -> Outcome {
    setup::prepare(&[Group::Test]);
    let mut session = Session::default();
    session.step("binaries", || {
        checked(&mut shell::cargo(["build", "--package", "dwcp-cli", "--package", "dwcp-control"]))
    });
    session.interface();
    session.finish()
}

/// How much is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// All.
    Full,
    /// Without what takes minutes and rarely fails: set-up, lints, kernel programs, the virtual machine, models of memory
    /// order.
    Quick,
    /// What runs in the virtual machine, and nothing else.
    Machine,
}

#[derive(Debug, Default)]
struct Session {
    total: Tally,
    failed_steps: Vec<&'static str>,
}

impl Session {
    fn everything(&mut self, pace: Pace) {
        if pace == Pace::Full {
            setup::prepare(&[Group::Test]);
        }
        self.step("format", || checked(&mut shell::cargo(["fmt", "--all", "--check"])));
        if pace == Pace::Full {
            self.step("kernel programs", kernel_programs);
            self.step("lints", lints);
        }
        // The end-to-end tests start the binaries; the same profile as the tests, so that nothing is built twice.
        self.step("binaries", || checked(&mut shell::cargo(["build", "--workspace", "--bins"])));
        self.step("tests", || cargo_tests(&["--workspace"], None));
        if pace == Pace::Full {
            self.interface();
            self.step(MACHINE_STEP, machine::essential);
            self.step("memory-order models", loom);
        }
    }

    fn interface(&mut self) {
        self.step("HTTP interface against its description", interface::described);
        self.step("what HTTPS speaks", interface::tls);
    }

    fn machine(&mut self) {
        self.step(MACHINE_STEP, machine::all);
        self.step("package and units in the virtual machine", machine::package_tests);
    }

    fn step(&mut self, name: &'static str, body: impl FnOnce() -> Result<Tally>) {
        println!("==> {name}");
        let started = Instant::now();
        let tally = body().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Tally::failed()
        });
        println!("==> {name}: {tally} ({:.1} s)", started.elapsed().as_secs_f64());
        if tally.failed > 0 {
            self.failed_steps.push(name);
        }
        self.total.add(tally);
    }

    fn finish(self) -> Outcome {
        if !self.failed_steps.is_empty() {
            println!("failed: {}", self.failed_steps.join(", "));
        }
        println!("{}", self.total);
        if self.total.failed == 0 { Outcome::Done } else { Outcome::Failed(1) }
    }
}

/// A command that passes or fails as a whole.
fn checked(command: &mut Command) -> Result<Tally> {
    shell::run(&mut shell::bounded(command, STEP_LIMIT))?;
    Ok(Tally::passed())
}

fn lints() -> Result<Tally> {
    let arguments = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    checked(&mut shell::cargo(arguments))
}

fn kernel_programs() -> Result<Tally> {
    match ebpf::build("debug")? {
        ebpf::Built::Object(_) => Ok(Tally::passed()),
        ebpf::Built::Impossible(reason) => {
            println!("skipped: {reason}");
            Ok(Tally::skipped())
        }
    }
}

/// Loom replaces the atomics of `abi` and `sys` and tries every order of the threads: its own build, its own folder.
fn loom() -> Result<Tally> {
    let mut cargo = shell::cargo([
        "test",
        "--package",
        "dwcp-abi",
        "--package",
        "dwcp-sys",
        "--lib",
        "--release",
        "--target-dir",
    ]);
    cargo.arg(shell::target().join("loom")).args(["--", "--show-output"]);
    cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_PROFILE_RELEASE_LTO", "off");
    cargo.env("CARGO_PROFILE_RELEASE_PANIC", "unwind");
    tallied(&mut cargo)
}

fn cargo_tests(packages: &[&str], filter: Option<&str>) -> Result<Tally> {
    let mut cargo = shell::cargo(["test", "--no-fail-fast"]);
    cargo.args(packages).arg("--").args(filter).arg("--show-output");
    tallied(&mut cargo)
}

fn dependencies() -> Result<Tally> {
    if shell::find("cargo-deny").is_none() {
        println!("skipped: cargo-deny is not installed");
        return Ok(Tally::skipped());
    }
    checked(&mut shell::cargo(["deny", "--workspace", "check", "licenses", "bans", "sources"]))
}

/// Runs `cargo test`, shows what matters of its output and counts.
fn tallied(command: &mut Command) -> Result<Tally> {
    let mut child = shell::bounded(command, STEP_LIMIT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo test does not start")?;
    let mut reader = Reader::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("output of cargo test")?;
            let line = String::from_utf8_lossy(&line);
            if reader.read(&line) == Shown::Yes {
                println!("{line}");
            }
        }
    }
    let status = child.wait().context("cargo test")?;
    let mut tally = reader.tally();
    if !status.success() && tally.failed == 0 {
        println!("cargo test: {status}");
        tally.add(Tally::failed());
    }
    Ok(tally)
}

/// Nothing here takes this long; what does hangs.
const STEP_LIMIT: Duration = Duration::from_secs(1200);
const MACHINE_STEP: &str = "kernel programs and RDMA in the virtual machine";
