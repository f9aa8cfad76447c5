//! `build`: the release binaries and, beside them, the kernel programs. Called by people, `install`, `demo`, `bench`.
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{Outcome, ebpf, ebpf::Built, shell};

/// Entry point of the command.
///
/// # Errors
/// A build fails.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    if let Some(argument) = arguments.first() {
        eprintln!("xtask build: unknown argument '{argument}'; it takes none");
        return Ok(Outcome::Usage);
    }
    let started = Instant::now();
    let folder = release()?;
    println!("build: {} ({:.1} s)", folder.display(), started.elapsed().as_secs_f64());
    Ok(Outcome::Done)
}

/// Builds everything that an operator runs; the folder that holds it.
///
/// # Errors
/// A build fails. That the kernel programs cannot be built here is printed, not an error.
pub(crate) fn release() -> Result<PathBuf> {
    let mut cargo = shell::cargo(["build", "--release"]);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    cargo.args(hwloc_features());
    shell::run(&mut shell::bounded(&cargo, LIMIT))?;
    match ebpf::build("release")? {
        Built::Object(object) => println!("build: kernel programs {}", object.display()),
        Built::Impossible(reason) => println!("build: no kernel programs: {reason}; everything else works"),
    }
    Ok(shell::target().join("release"))
}

/// Packages and binaries that an operator runs.
pub(crate) const PACKAGES: [&str; 3] = ["dwcp-cli", "dwcp-control", "dwcp-dataplane"];

/// The topology library is linked where it is there; topology comes from sysfs otherwise.
fn hwloc_features() -> &'static [&'static str] {
    let there = shell::ask(Command::new("pkg-config").args(["--exists", "hwloc"])).is_some();
    if there { &["--features", "dwcp-sys/hwloc"] } else { &[] }
}

const LIMIT: Duration = Duration::from_secs(1800);
