//! Running other programs: where the workspace is, what is on the path, bounded and quiet runs. Used by all commands.
use std::{
    ffi::OsStr,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's output directory.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// A command in the root of the workspace, without the variables that `cargo run` gave this process: they would
/// pin another toolchain's or another package's build.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let leaked = text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_");
        if leaked
            || matches!(&*text, "CARGO" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT" | "LD_LIBRARY_PATH")
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Cargo of the workspace's own toolchain.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut cargo = command("cargo");
    cargo.args(arguments);
    cargo
}

/// The same command under `timeout`: past `limit` it and all that it started are ended. In a terminal it stays in
/// the foreground so that Ctrl-C reaches it, and then only the command itself is ended.
pub(crate) fn bounded(command: &Command, limit: Duration) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.arg("--kill-after=10");
    if std::io::stdin().is_terminal() {
        bounded.arg("--foreground");
    }
    bounded.arg(limit.as_secs().to_string()).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        bounded.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    bounded
}

/// Runs to the end with this process's output.
///
/// # Errors
/// It cannot be started, or ends with a failure.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| described(command))?;
    if !status.success() {
        bail!("{} failed: {status}", described(command));
    }
    Ok(())
}

/// Runs to the end without output; the last lines of what it wrote become part of the error.
///
/// # Errors
/// It cannot be started, or ends with a failure.
pub(crate) fn run_quietly(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| described(command))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}: {}", described(command), output.status, last_lines(&complaint));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a command has written to both outputs, and whether it liked the world.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) is_success: bool,
    pub(crate) text: String,
}

/// Runs to the end; failing is an answer.
///
/// # Errors
/// It cannot be started.
pub(crate) fn ask_all(command: &mut Command) -> Result<Said> {
    let output = command.stdin(Stdio::null()).output().with_context(|| described(command))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Said { is_success: output.status.success(), text: text.concat() })
}

/// What a command writes, or `None` where it cannot run or fails.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    run_quietly(command).ok()
}

/// First of the folders on the path that holds this program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Whether this process may do what root may.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

fn described(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    let words: Vec<_> = std::iter::once(command.get_program().to_string_lossy()).chain(arguments).collect();
    words.join(" ")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(COMPLAINT_LINES_MAX)..].join(" | ")
}

const COMPLAINT_LINES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_carry_the_complaint() {
        let error =
            run_quietly(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
        assert!(run_quietly(&mut Command::new("/nonexistent/program")).is_err());
    }

    #[test]
    fn bounded_commands_keep_arguments_and_environment() {
        let mut inner = Command::new("sh");
        inner.args(["-c", "echo $GREETING"]).env("GREETING", "good day");
        let text = run_quietly(&mut bounded(&inner, Duration::from_secs(60))).unwrap();
        assert_eq!(text.trim(), "good day");
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
