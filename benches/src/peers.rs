//! The programs that we compare ourselves with. Each runs from start to end inside a measurement, servers included, so
//! that the CPU time of both ends is counted. `None` = not installed.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};

use crate::measure::{Cost, children};

/// How long a server may take to come up or go down.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a program is in the path.
#[must_use]
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A port that was free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// iperf3 over loopback with cubic: so many bytes over so many streams. Wall time is that of the test itself.
///
/// # Errors
/// It fails.
pub fn iperf3(streams: u16, bytes: u64) -> Result<Option<Cost>> {
    if !installed("iperf3") {
        return Ok(None);
    }
    let port = free_port()?.to_string();
    let mut wall_s = 0.0;
    let cost = children(bytes, || {
        let mut server = Command::new("iperf3")
            .args(["-s", "-1", "-B", "127.0.0.1", "--forceflush", "-p", &port])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(server.stdout.take().context("piped")?);
        let mut lines = output.lines();
        while !lines.next().context("iperf3 -s said nothing")??.contains("listening") {}
        let client = Command::new("iperf3")
            .args(["-c", "127.0.0.1", "-C", "cubic", "-J", "-p", &port])
            .args(["-P", &streams.to_string(), "-n", &bytes.to_string()])
            .output()?;
        // What the server prints must go somewhere until it ends.
        lines.for_each(drop);
        ensure!(server.wait()?.success() && client.status.success(), "iperf3 failed");
        let report: serde_json::Value = serde_json::from_slice(&client.stdout)?;
        wall_s = report["end"]["sum_received"]["seconds"].as_f64().context("iperf3's report")?;
        Ok(())
    })?;
    Ok(Some(Cost { wall_s, ..cost }))
}

/// `cp -r` of a file or tree into a directory.
///
/// # Errors
/// It fails.
pub fn copy(source: &Path, directory: &Path, bytes: u64) -> Result<Option<Cost>> {
    let run = || run(Command::new("cp").arg("-r").arg(source).arg(directory));
    children(bytes, run).map(Some)
}

/// rsync to a daemon of its own on loopback: whole files, in place.
///
/// # Errors
/// It fails.
pub fn rsync(source: &Path, directory: &Path, bytes: u64) -> Result<Option<Cost>> {
    if !installed("rsync") {
        return Ok(None);
    }
    let port = free_port()?;
    let rights = if getuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
    let configuration = directory.with_extension("rsyncd.conf");
    let text = format!("use chroot = no\n{rights}[data]\npath = {}\nread only = no\n", directory.display());
    fs::write(&configuration, text)?;
    let mut wall_s = 0.0;
    let cost = children(bytes, || {
        let mut daemon = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--config={}", configuration.display()))
            .spawn()?;
        await_port(port)?;
        let start = Instant::now();
        let sent = run(Command::new("rsync")
            .args(["-a", "-W", "--inplace"])
            .arg(source)
            .arg(format!("rsync://127.0.0.1:{port}/data/")));
        wall_s = start.elapsed().as_secs_f64();
        stop(&mut daemon)?;
        sent
    })?;
    Ok(Some(Cost { wall_s, ..cost }))
}

/// Runs a command to its end.
fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn await_port(port: u16) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = TcpStream::connect(("127.0.0.1", port)) {
        ensure!(Instant::now() < deadline, "port {port}: {error}");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Ends a daemon when its children are done, so that their time is counted.
fn stop(daemon: &mut Child) -> Result<()> {
    let pid = daemon.id();
    let deadline = Instant::now() + PATIENCE;
    let children = format!("/proc/{pid}/task/{pid}/children");
    while fs::read_to_string(&children).is_ok_and(|list| !list.trim().is_empty()) && Instant::now() < deadline
    {
        sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM)?;
    daemon.wait()?;
    Ok(())
}
