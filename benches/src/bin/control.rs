//! `bench control`: what control itself costs where there is much to say and to remember. A scrape with 64 cores and 100
//! peers (target: 5 ms), memory with 100,000 transfers in the history after every page of it was asked for (target:
//! 100 MiB), and the time from its start until transfers are taken (target: 1 s).
//!
//! The 64 cores are 64 workers of a real dataplane, idle, on however many cores there are; the peers are configured and
//! away. On a busy machine the CPU time of a scrape says more than its duration, so both are printed.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_benches::http::Connection;
use dwcp_benches::measure::{median, peak_resident_bytes, process_cpu};
use dwcp_benches::peers::free_port;
use dwcp_benches::report::load;
use dwcp_benches::scratch::Scratch;
use dwcp_benches::setting;
use serde_json::Value;

fn main() -> Result<()> {
    let scratch = Scratch::new()?;
    let place = Place::new(scratch.fresh("control")?)?;
    let dataplane = place.start("dwcp-dataplane", &[])?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let (control, start_s) = place.control()?;
        starts.push(start_s);
        drop(control);
    }
    let (control, _) = place.control()?;
    let scrape = scrape(&place, &control)?;
    drop(control);

    let jobs = setting("DWCP_BENCH_JOBS", 100_000);
    remember(&place.home.join("state/control.db"), jobs)?;
    let (control, start_s) = place.control()?;
    let listed = list(&place)?;
    let memory = peak_resident_bytes(control.0.id())?;
    drop((control, dataplane));

    let start = median(starts);
    let mib = memory as f64 / f64::from(1 << 20);
    println!(
        "from start to ready: {start:.3} s, median of {STARTS} (target 1); with the history {start_s:.3} s"
    );
    println!(
        "a scrape of {CORES} cores and {PEERS} peers, {} bytes: median {:.3} ms, 99 of 100 {:.3} ms (target 5), \
         {:.3} ms of CPU",
        scrape.bytes, scrape.median_ms, scrape.p99_ms, scrape.cpu_ms
    );
    println!(
        "memory after {listed} of {jobs} transfers of the history were listed: {mib:.1} MiB (target 100)"
    );
    println!("load {}", load());
    println!(
        "{}",
        serde_json::json!({
            "bench": "control", "start_s": start, "start_with_history_s": start_s, "scrape_median_ms": scrape.median_ms,
            "scrape_p99_ms": scrape.p99_ms, "scrape_cpu_ms": scrape.cpu_ms, "scrape_bytes": scrape.bytes,
            "listed": listed, "memory_mib": mib,
        })
    );
    ensure!(listed == jobs, "the history lists {listed} of {jobs} transfers");
    Ok(())
}

/// A node's directory and address.
struct Place {
    home: PathBuf,
    api: String,
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended before.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Place {
    fn new(home: PathBuf) -> Result<Self> {
        for part in ["state", "run"] {
            fs::create_dir_all(home.join(part))?;
        }
        let api = format!("127.0.0.1:{}", free_port()?);
        let peer = free_port()?;
        let mut text = format!(
            "peer: {{listen: '127.0.0.1:{peer}'}}\napi: {{listen: '{api}'}}\n\
             monitoring: {{metrics_port: 0, log_level: error}}\n\
             dataplane: {{workers: {CORES}, buffer_memory: 64MiB}}\npeers:\n"
        );
        for number in 0..PEERS {
            let identity = number + 1;
            text.push_str(&format!("  - {{name: peer-{number}, identity: 'sha256:{identity:064x}'}}\n"));
        }
        fs::write(home.join("dwcp.yaml"), text)?;
        Ok(Self { home, api })
    }

    fn start(&self, program: &str, more: &[&str]) -> Result<Running> {
        let path = std::env::current_exe()?.with_file_name(program);
        let mut command = Command::new(&path);
        command.arg("--state-dir").arg(self.home.join("state"));
        command.arg("--runtime-dir").arg(self.home.join("run"));
        command.args(more).env("DWCP_LOG_LEVEL", "error").stdout(Stdio::null());
        let child = command.spawn();
        child
            .map(Running)
            .with_context(|| format!("{}: build it first, as cargo xtask bench does", path.display()))
    }

    /// A control, and the seconds until it was ready.
    fn control(&self) -> Result<(Running, f64)> {
        let config = self.home.join("dwcp.yaml").display().to_string();
        let begin = Instant::now();
        let control = self.start("dwcp-control", &["--config", &config])?;
        while begin.elapsed() < PATIENCE {
            let answer = Connection::open(&self.api).ok();
            if answer.is_some_and(|mut open| open.get("/ready").is_ok_and(|(status, _)| status == 200)) {
                return Ok((control, begin.elapsed().as_secs_f64()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("control is not ready in time")
    }
}

/// What a scrape costs.
struct Scrape {
    bytes: usize,
    median_ms: f64,
    p99_ms: f64,
    cpu_ms: f64,
}

fn scrape(place: &Place, control: &Running) -> Result<Scrape> {
    let mut connection = Connection::open(&place.api)?;
    let (_, page) = connection.get("/metrics")?;
    let (bytes, text) = (page.len(), String::from_utf8_lossy(page).into_owned());
    let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    let (cores, peers) =
        (count("dwcp_dataplane_core_busy_seconds_total{"), count("dwcp_peer_circuit_breaker_state{"));
    ensure!((cores, peers) == (CORES, PEERS), "the page shows {cores} cores and {peers} peers");
    let before = process_cpu(control.0.id())?;
    let mut seconds = Vec::new();
    for _ in 0..SCRAPES {
        seconds.push(connection.time("/metrics")?.as_secs_f64());
    }
    let cpu_s = (process_cpu(control.0.id())? - before).as_secs_f64();
    seconds.sort_by(f64::total_cmp);
    let p99_ms = seconds[SCRAPES * 99 / 100] * 1e3;
    Ok(Scrape { bytes, median_ms: median(seconds) * 1e3, p99_ms, cpu_ms: cpu_s * 1e3 / SCRAPES as f64 })
}

/// Writes transfers that ended a moment ago, as control would have: a week of them in one go.
fn remember(database: &Path, jobs: u64) -> Result<()> {
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    let mut connection = rusqlite::Connection::open(database)?;
    let transaction = connection.transaction()?;
    {
        // One path, as a list of paths has it: its length, then its bytes.
        let source = b"/srv/data/some/where/a-file-of-usual-length.bin";
        let sources = [&(source.len() as u16).to_le_bytes()[..], source].concat();
        let mut insert = transaction.prepare(
            "INSERT INTO jobs (direction, peer, sources, destination, streams, skip_unchanged, created_ms, state, attempt,
             bytes_done, bytes_total, started_ms, finished_ms)
             VALUES ('send', 'peer-1', ?1, x'2f696e', 0, 0, ?2, 'done', 1, 1000000, 1000000, ?2, ?2)",
        )?;
        for number in 0..jobs {
            insert.execute(rusqlite::params![sources, now_ms - (jobs - number) as i64])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Every page of the history; how many transfers there are.
fn list(place: &Place) -> Result<u64> {
    let mut connection = Connection::open(&place.api)?;
    let (mut listed, mut cursor) = (0, None::<String>);
    loop {
        let more = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let (status, body) = connection.get(&format!("/api/v1/dwcp/transfers?limit=500{more}"))?;
        ensure!(status == 200, "{}", String::from_utf8_lossy(body));
        let page: Value = serde_json::from_slice(body)?;
        listed += page["transfers"].as_array().context("a page without transfers")?.len() as u64;
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(listed);
        }
    }
}

const CORES: usize = 64;
const PEERS: usize = 100;
const STARTS: usize = 5;
const SCRAPES: usize = 500;
const PATIENCE: Duration = Duration::from_secs(60);
