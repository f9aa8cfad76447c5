//! The peer: perftest's `ib_write_bw`, a server and a client.
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dwcp_sys::rdma::ports;

const MESSAGE_BYTES: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn is_installed() -> bool {
    Command::new("ib_write_bw").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Writes so many bytes, as the client reports its average.
pub(super) fn megabytes_per_s(bytes: u64) -> Result<f64> {
    let count = bytes.div_ceil(MESSAGE_BYTES);
    let mut server = Running(command("rxe0", count)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let client = command("rxe1", count)?.arg("127.0.0.1").output()?;
        let text = String::from_utf8_lossy(&client.stdout);
        if let Some(average) = average(&text) {
            server.0.wait()?;
            return Ok(average);
        }
        // The server may not listen yet.
        if Instant::now() > deadline {
            bail!("ib_write_bw: {text}{}", String::from_utf8_lossy(&client.stderr));
        }
        sleep(Duration::from_millis(100));
    }
}

fn command(device: &str, count: u64) -> Result<Command> {
    let ports = ports();
    let port = ports.iter().find(|port| port.device == device).context("no such port")?;
    let gid = port.choose(IpAddr::from(Ipv4Addr::LOCALHOST), None).context("the port has no address")?;
    let mut command = Command::new("ib_write_bw");
    command.args(["-F", "-d", device, "-x", &gid.index.to_string(), "-s", &MESSAGE_BYTES.to_string()]);
    command.args(["-n", &count.to_string()]);
    Ok(command)
}

/// Column `BW average[MB/sec]`, where perftest's MB are MiB.
fn average(text: &str) -> Option<f64> {
    let mut rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(&"65536") && row.len() >= 4)?;
    row[3].parse::<f64>().ok().map(|mebibytes| mebibytes * f64::from(1 << 20) / 1e6)
}

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, as a rule.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
