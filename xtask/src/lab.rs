//! `lab [WORD…]`: long links in virtual time. The bench `lab` runs with the daemons in a machine that holds all its files
//! and whose clock counts instructions, so that its figures are the same on a busy machine and can be a gate. Words are
//! the bench's; variables `DWCP_…` reach it too.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    Outcome, shell,
    vm::{self, Files, Guest, image},
};

/// Entry point of the command.
///
/// # Errors
/// A build fails, or the machine cannot be made.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    let build = ["build", "--quiet", "--release", "--package", "dwcp-benches", "--package", "dwcp-dataplane"];
    shell::run(shell::cargo(build).args(["--bin", "lab", "--bin", "dwcp-dataplane"]))?;
    start("release", arguments)
}

/// Runs the programs that are built in this profile.
///
/// # Errors
/// The machine cannot be made.
pub(crate) fn start(profile: &str, words: &[String]) -> Result<Outcome> {
    let Some(tools) = TOOLS.iter().map(|name| find(name)).collect::<Option<Vec<_>>>() else {
        println!("lab: skipped: {} of iproute2 are not installed", TOOLS.join(" and "));
        return Ok(Outcome::Skipped);
    };
    let guest = Guest { files: Files::Image, boot_limit: vm::BOOT_LIMIT, limit: LIMIT, memory_mib: 2048 };
    vm::start(&guest, |kernel, folder| {
        let root = folder.join("root");
        let insert = image::foundation(kernel, &root)?;
        for name in PROGRAMS {
            install(&shell::target().join(profile).join(name), &root.join("lab").join(name), &root)?;
        }
        for tool in &tools {
            install(tool, &root.join("lab").join(tool.file_name().context("tool")?), &root)?;
        }
        image::seal(folder, &init(&insert, words))
    })
}

/// The first and only process beside those that it starts. Programs stand before busybox's namesakes.
fn init(insert: &str, words: &[String]) -> String {
    format!(
        "#!/bin/busybox sh\n\
         export PATH=/lab:/bin\n\
         /bin/busybox --install -s /bin\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         mkdir -p /dev/shm /tmp; mount -t tmpfs shm /dev/shm; mount -t tmpfs tmp /tmp\n\
         {insert}\
         ip link set lo up\n\
         stty -F /dev/ttyS0 raw\n\
         echo booted > /dev/ttyS1\n\
         {}lab {} < /dev/null > /dev/ttyS0 2>&1\n\
         echo \"exit $?\" > /dev/ttyS1\n\
         poweroff -f\n",
        environment(std::env::vars()),
        words.join(" ")
    )
}

/// Assignments before the bench's name.
fn environment(variables: impl Iterator<Item = (String, String)>) -> String {
    let ours = variables.filter(|(name, _)| name.starts_with("DWCP_"));
    ours.map(|(name, value)| format!("{name}={} ", image::quoted(&value))).collect()
}

/// Copies a program to `target`, and the libraries that it is linked with to their places below `root`.
fn install(program: &Path, target: &Path, root: &Path) -> Result<()> {
    copy(program, target)?;
    let listed = shell::run_quietly(shell::command("ldd").arg(program))?;
    for library in listed.lines().filter_map(library) {
        copy(library, &root.join(library.strip_prefix("/").unwrap_or(library)))?;
    }
    Ok(())
}

/// The path in a line of ldd(1): `name => /path (0x…)` or `/path (0x…)`.
fn library(line: &str) -> Option<&Path> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(Path::new)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::copy(from, to).with_context(|| format!("{}: is it built?", from.display()))?;
    Ok(())
}

/// Tools of an administrator are not on everybody's path.
fn find(tool: &str) -> Option<PathBuf> {
    let elsewhere = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(tool));
    shell::find(tool).or_else(|| elsewhere.into_iter().find(|path| path.is_file()))
}

const PROGRAMS: [&str; 2] = ["lab", "dwcp-dataplane"];
const TOOLS: [&str; 2] = ["ip", "tc"];
const LIMIT: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let path = |line| library(line).map(|path| path.display().to_string());
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007ffd)"), None);
        assert_eq!(path("\tlibc.so.6 => /lib/libc.so.6 (0x00007f)").as_deref(), Some("/lib/libc.so.6"));
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x7f)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
    }

    #[test]
    fn words_reach_the_bench() {
        let text = init("insmod /modules/a.ko\n", &["100,80,1".into(), "--gate".into()]);
        assert!(text.contains("lab 100,80,1 --gate <"), "{text}");
        let variables = [("DWCP_LOG_LEVEL", "trace"), ("HOME", "/root")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(environment(variables.into_iter()), "DWCP_LOG_LEVEL='trace' ");
    }
}
