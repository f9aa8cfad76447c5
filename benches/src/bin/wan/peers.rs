//! The programs that we compare ourselves with, at the ends of a link. `None` = not installed.
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dwcp_benches::peers::installed;
use dwcp_benches::scratch::{Scratch, same};
use serde_json::Value;

use crate::row::Outcome;
use dwcp_benches::road::{Congestion, FIRST, Road, SECOND, SETTLED, await_listener, rsync_daemon, start};

const PORT: u16 = 5_201;

/// So many streams for so many seconds; counted where they arrive.
pub(crate) fn iperf3(
    road: &Road,
    seconds: u64,
    streams: u16,
    congestion: Congestion,
) -> Result<Option<Outcome>> {
    if !installed("iperf3") {
        return Ok(None);
    }
    let mut server = Command::new("iperf3");
    server.args(["-s", "-1", "-J", "-i", "1"]).stdout(Stdio::piped());
    let mut server = start(road.second(), &mut server)?;
    let mut output = server.0.stdout.take().context("piped")?;
    let reading = std::thread::spawn(move || std::io::read_to_string(&mut output));
    await_listener(road.second(), PORT)?;
    let ((), counted) = road.count(|| {
        let mut client = Command::new("iperf3");
        client.args(["-c", SECOND, "-C", congestion.name(), "-J", "-P", &streams.to_string()]);
        client.args(["-t", &seconds.to_string()]).stdout(Stdio::null());
        let status = start(road.first(), &mut client)?.0.wait()?;
        ensure!(status.success(), "iperf3: {status}");
        Ok(())
    })?;
    server.0.wait()?;
    let text = reading.join().ok().context("iperf3's report")??;
    let report: Value = serde_json::from_str(&text)?;
    let intervals = report["intervals"].as_array().context("iperf3's intervals")?;
    let sum = |from: f64| {
        let sums = intervals.iter().map(|interval| &interval["sum"]);
        // What trickles in after the client's end is no whole interval.
        let whole =
            sums.filter(|sum| sum["seconds"].as_f64() > Some(0.5) && sum["start"].as_f64() > Some(from));
        whole.fold((0, 0.0), |(bytes, seconds), sum| {
            (bytes + sum["bytes"].as_u64().unwrap_or(0), seconds + sum["seconds"].as_f64().unwrap_or(0.0))
        })
    };
    Ok(Some(Outcome { all: sum(-1.0), settled: Some(sum(SETTLED.as_secs_f64() - 0.1)), counted }))
}

/// rsync's daemon for so many seconds of a file that takes longer.
pub(crate) fn rsync_for(
    road: &Road,
    scratch: &Scratch,
    source: &Path,
    seconds: u64,
) -> Result<Option<Outcome>> {
    if !installed("rsync") {
        return Ok(None);
    }
    let (_daemon, to) = rsync_daemon(road, scratch, PORT)?;
    let arriving = to.join(source.file_name().context("a file")?);
    let size = || fs::metadata(&arriving).map_or(0, |metadata| metadata.len());
    let ((all, settled), counted) = road.count(|| {
        let begun = Instant::now();
        let _client = start(road.first(), rsync_client(source).stderr(Stdio::null()))?;
        sleep(SETTLED);
        let (early_bytes, early) = (size(), begun.elapsed().as_secs_f64());
        sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed()));
        let (bytes, taken) = (size(), begun.elapsed().as_secs_f64());
        Ok(((bytes, taken), (bytes - early_bytes, taken - early)))
    })?;
    Ok(Some(Outcome { all, settled: Some(settled), counted }))
}

/// rsync's daemon: a file or tree from start to end.
pub(crate) fn rsync(road: &Road, scratch: &Scratch, source: &Path, bytes: u64) -> Result<Option<Outcome>> {
    if !installed("rsync") {
        return Ok(None);
    }
    let (_daemon, to) = rsync_daemon(road, scratch, PORT)?;
    let run = || finished(road.first(), &mut rsync_client(source));
    let outcome = timed(road, bytes, run)?;
    if source.is_file() {
        same(source, &to.join(source.file_name().context("a file")?))?;
    }
    Ok(Some(outcome))
}

fn rsync_client(source: &Path) -> Command {
    let mut client = Command::new("rsync");
    client.args(["-a", "-W", "--inplace"]).arg(source).arg(format!("rsync://{SECOND}:{PORT}/data/"));
    client
}

/// rclone fetches over http, 16 streams.
pub(crate) fn rclone(road: &Road, scratch: &Scratch, source: &Path, bytes: u64) -> Result<Option<Outcome>> {
    let Some(_server) = http_server(road, source)? else { return Ok(None) };
    let (to, name) = (scratch.fresh("to")?, file_name(source)?);
    let run = || {
        let mut client = Command::new("rclone");
        client.args(["copyto", "--config=/dev/null", "--multi-thread-streams=16"]);
        client.args(["--multi-thread-cutoff=1M", &format!("--http-url=http://{FIRST}:{PORT}")]);
        client.arg(format!(":http:{name}")).arg(to.join(&name));
        finished(road.second(), &mut client)
    };
    let outcome = timed(road, bytes, run)?;
    same(source, &to.join(&name))?;
    Ok(Some(outcome))
}

/// aria2 fetches over http, 16 connections.
pub(crate) fn aria2(road: &Road, scratch: &Scratch, source: &Path, bytes: u64) -> Result<Option<Outcome>> {
    if !installed("aria2c") {
        return Ok(None);
    }
    let Some(_server) = http_server(road, source)? else { return Ok(None) };
    let (to, name) = (scratch.fresh("to")?, file_name(source)?);
    let run = || {
        let mut client = Command::new("aria2c");
        client.args(["-q", "-x16", "-s16", "-k1M", "--file-allocation=none", "-d"]).arg(&to);
        client.arg(format!("http://{FIRST}:{PORT}/{name}"));
        finished(road.second(), &mut client)
    };
    let outcome = timed(road, bytes, run)?;
    same(source, &to.join(&name))?;
    Ok(Some(outcome))
}

/// rclone's own server, which knows ranges.
fn http_server(road: &Road, source: &Path) -> Result<Option<dwcp_benches::road::Running>> {
    if !installed("rclone") {
        return Ok(None);
    }
    let mut server = Command::new("rclone");
    server.args(["serve", "http", "--config=/dev/null", "-q", "--addr", &format!("{FIRST}:{PORT}")]);
    server.arg(source.parent().context("a file in a folder")?).stderr(Stdio::null());
    let server = start(road.first(), &mut server)?;
    await_listener(road.first(), PORT)?;
    Ok(Some(server))
}

fn file_name(path: &Path) -> Result<String> {
    Ok(path.file_name().context("a file")?.to_string_lossy().into_owned())
}

fn timed(road: &Road, bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let (taken, counted) = road.count(|| {
        let begun = Instant::now();
        work()?;
        Ok(begun.elapsed().as_secs_f64())
    })?;
    Ok(Outcome { all: (bytes, taken), settled: None, counted })
}

/// Runs a program to its end, which must come before patience is over.
fn finished(end: &dwcp_wan::Namespace, command: &mut Command) -> Result<()> {
    let mut running = start(end, command.stdout(Stdio::null()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = running.0.try_wait()? {
            ensure!(status.success(), "{command:?}: {status}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{command:?}: not done after {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(2));
    }
}

/// Cubic on a lossy link may take hours; more than this is no figure any more.
const PATIENCE: Duration = Duration::from_secs(120);
