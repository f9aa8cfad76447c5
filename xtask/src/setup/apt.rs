//! Debian packages: which are missing, and installing them in one go. Called by `setup` and its parts.
use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Result;

use super::Report;
use crate::shell;

/// Installs those of `packages` that are missing; says why not in one line where it may not. True when all of them
/// are there afterwards.
pub(crate) fn install(packages: &[&str], report: &mut Report) -> bool {
    let missing = missing(packages);
    if missing.is_empty() {
        return true;
    }
    let list = missing.join(" ");
    if let Some(obstacle) = obstacle() {
        report.lacks(format!("{list} ({obstacle})"));
        return false;
    }
    println!("setup: installing {list}");
    match update().and_then(|()| apt_get(["install", "-y", "--no-install-recommends"], &missing)) {
        Ok(()) => {
            report.did(list);
            true
        }
        Err(error) => {
            report.lacks(format!("{list} ({error:#})"));
            false
        }
    }
}

/// Those of `packages` that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    // It fails as soon as one name is unknown to it, and prints the others all the same.
    let answer = Command::new("dpkg-query")
        .args(["-W", "-f=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output();
    let Ok(answer) = answer else {
        return packages.to_vec();
    };
    let text = String::from_utf8_lossy(&answer.stdout);
    let installed = |name: &str| text.lines().any(|line| line == format!("{name} installed"));
    packages.iter().copied().filter(|name| !installed(name)).collect()
}

/// Why nothing can be installed; `None` where it can.
pub(crate) fn obstacle() -> Option<&'static str> {
    if shell::find("apt-get").is_none() {
        return Some("this system has no apt-get");
    }
    (!shell::is_root()).then_some("needs root")
}

/// Refreshes the package lists, once in the life of this process.
///
/// # Errors
/// apt-get fails.
pub(crate) fn update() -> Result<()> {
    // Relaxed: one thread; a static only because the calls are far apart.
    if UPDATED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    apt_get(["update", "-q", "-q"], &[])
}

fn apt_get<const N: usize>(arguments: [&str; N], packages: &[&str]) -> Result<()> {
    let mut command = shell::command("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Another apt may be at work on a fresh machine: wait for it.
    command.args(["-o", "DPkg::Lock::Timeout=120"]).args(arguments).args(packages);
    shell::run_quietly(&mut shell::bounded(&command, LIMIT))?;
    Ok(())
}

static UPDATED: AtomicBool = AtomicBool::new(false);

const LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_packages_are_missing() {
        assert_eq!(missing(&["no-such-package-anywhere"]), ["no-such-package-anywhere"]);
    }
}
