//! Cleans up after the demo, however it ends. A second process of this program in a process group of its own, which
//! Ctrl-C does not reach, holds the list of what was made; when the demo's end of the pipe closes it removes all of
//! it. So an interrupt, a `kill -9` and a panic leave nothing behind, without a signal handler. Called by the demo.
use std::fs::{self, Permissions};
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::process;
use crate::shell;

/// The demo's end: what is told here is removed at the end.
pub(super) struct Janitor {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Janitor {
    /// Starts the other process.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start() -> Result<Self> {
        let program = std::env::current_exe().context("find the program itself")?;
        let mut command = Command::new(program);
        command.args(["demo", ARGUMENT]).process_group(0).stdin(Stdio::piped());
        let mut child = command.spawn().context("start the process that cleans up")?;
        let orders = child.stdin.take();
        Ok(Self { child, orders })
    }

    /// A process to end, with all that it started.
    ///
    /// # Errors
    /// The other process is gone.
    pub(super) fn process(&mut self, pid: u32) -> Result<()> {
        let start = process::start_ticks(pid).unwrap_or(0);
        self.order(&format!("process {pid} {start}"))
    }

    /// A network namespace to delete; told before it is made.
    ///
    /// # Errors
    /// The other process is gone.
    pub(super) fn namespace(&mut self, name: &str) -> Result<()> {
        self.order(&format!("namespace {name}"))
    }

    /// A directory to remove with all that is in it; told before it is made.
    ///
    /// # Errors
    /// The other process is gone.
    pub(super) fn directory(&mut self, path: &Path) -> Result<()> {
        self.order(&format!("directory {}", path.display()))
    }

    /// Everything stays.
    ///
    /// # Errors
    /// The other process is gone.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.order("keep")
    }

    /// Cleans up and waits for it.
    ///
    /// # Errors
    /// Something is left; the other process has said what.
    pub(super) fn finish(mut self) -> Result<()> {
        self.order("finish")?;
        drop(self.orders.take());
        let status = self.child.wait().context("wait for the process that cleans up")?;
        if !status.success() {
            bail!("not everything could be cleaned up");
        }
        Ok(())
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let Some(orders) = &mut self.orders else { bail!("nobody cleans up any more") };
        writeln!(orders, "{order}").context("tell the process that cleans up")
    }
}

/// The hidden argument that makes this program the other process.
pub(super) const ARGUMENT: &str = "--janitor";

/// Life of the other process; whether everything could be removed.
pub(super) fn serve() -> bool {
    let mut orders = Orders::default();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        orders.note(&line);
    }
    if orders.keep {
        return true;
    }
    if !orders.finish {
        say("demo: interrupted; cleaning up");
    }
    let complaints = orders.carry_out();
    for complaint in &complaints {
        say(&format!("demo: not cleaned up: {complaint}"));
    }
    complaints.is_empty()
}

#[derive(Debug, Default)]
struct Orders {
    processes: Vec<(u32, u64)>,
    namespaces: Vec<String>,
    directories: Vec<PathBuf>,
    keep: bool,
    finish: bool,
}

impl Orders {
    fn note(&mut self, line: &str) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "process" => {
                let numbers = rest
                    .split_once(' ')
                    .and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
                self.processes.extend(numbers);
            }
            "namespace" => self.namespaces.push(rest.to_owned()),
            "directory" => self.directories.push(PathBuf::from(rest)),
            "keep" => self.keep = true,
            "finish" => self.finish = true,
            _ => {}
        }
    }

    fn carry_out(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        self.signal_all("TERM");
        if !self.wait_for_all(TERM_MAX) {
            self.signal_all("KILL");
            if !self.wait_for_all(KILL_MAX) {
                complaints.push("a process does not end".to_owned());
            }
        }
        for name in &self.namespaces {
            let known = Path::new("/run/netns").join(name).exists();
            if known
                && let Err(error) = shell::run_quietly(Command::new("ip").args(["netns", "delete", name]))
            {
                complaints.push(error.to_string());
            }
        }
        for directory in &self.directories {
            if let Err(error) = remove(directory) {
                complaints.push(format!("{}: {error}", directory.display()));
            }
        }
        complaints
    }

    fn signal_all(&self, signal: &str) {
        for &(pid, start) in self.processes.iter().filter(|(pid, start)| lives(*pid, *start)) {
            debug_assert!(start > 0, "a process that lives has started");
            // One that ends meanwhile is as good.
            shell::ask(Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid.to_string()]));
        }
    }

    fn wait_for_all(&self, limit: Duration) -> bool {
        let started = Instant::now();
        while self.processes.iter().any(|(pid, start)| lives(*pid, *start)) {
            if started.elapsed() > limit {
                return false;
            }
            sleep(Duration::from_millis(20));
        }
        true
    }
}

/// Whether it is still the same process, and has not ended.
fn lives(pid: u32, start: u64) -> bool {
    process::start_ticks(pid) == Some(start) && !process::is_zombie(pid)
}

/// Removes a tree; copies of directories that nobody may write are made writable first.
fn remove(directory: &Path) -> std::io::Result<()> {
    if fs::remove_dir_all(directory).is_ok() || !directory.exists() {
        return Ok(());
    }
    open_up(directory)?;
    fs::remove_dir_all(directory)
}

fn open_up(directory: &Path) -> std::io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn say(text: &str) {
    // The terminal may be gone.
    writeln!(std::io::stderr(), "{text}").unwrap_or_default();
}

/// `dwcp server` gives each half 10 s.
const TERM_MAX: Duration = Duration::from_secs(22);
const KILL_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_understood_and_noise_is_not() {
        let mut orders = Orders::default();
        for line in ["process 12 34", "process x y", "namespace a", "directory /a b", "finish", "", "dance"] {
            orders.note(line);
        }
        assert_eq!(orders.processes, [(12, 34)]);
        assert_eq!(orders.directories, [PathBuf::from("/a b")]);
        assert!(orders.finish && !orders.keep);
    }

    #[test]
    fn everything_ordered_is_removed() {
        let directory = std::env::temp_dir().join(format!("dwcp-demo-test-{}", std::process::id()));
        fs::create_dir_all(directory.join("a")).unwrap();
        fs::set_permissions(directory.join("a"), Permissions::from_mode(0o500)).unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let start = process::start_ticks(child.id()).unwrap();
        let orders = Orders {
            processes: vec![(child.id(), start)],
            directories: vec![directory.clone()],
            ..Orders::default()
        };
        assert!(orders.carry_out().is_empty());
        assert!(!directory.exists() && !child.wait().unwrap().success());
    }
}
