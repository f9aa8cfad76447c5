//! `bench rdma`: a stream over a queue pair, as lanes use it, against perftest's `ib_write_bw` between the same two ports in
//! the same run. Target: 0.7 of it. Both write 64 KiB at a time; what arrives is copied out and confirmed here, and left
//! where it is there.
//!
//! Without ports `rxe0` and `rxe1` it runs in the virtual machine, over soft-RoCE: then the ratio says what our own code costs
//! beside the kernel's, and nothing of hardware.
mod ours;
mod peer;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use dwcp_benches::measure::median;
use dwcp_benches::setting;
use serde_json::json;

const TARGET: f64 = 0.7;

fn main() -> Result<()> {
    if Path::new("/sys/class/infiniband/rxe1").exists() {
        return run();
    }
    let own = std::env::current_exe()?;
    let status = Command::new("cargo").args(["xtask", "vm", "--rdma", "--"]).arg(own).status();
    ensure!(status.context("cargo xtask vm")?.success(), "it failed in the virtual machine");
    Ok(())
}

fn run() -> Result<()> {
    let (rounds, bytes) = (setting("DWCP_BENCH_ROUNDS", 5), setting("DWCP_BENCH_MIB", 64) << 20);
    if !peer::is_installed() {
        println!("bench rdma: skipped: perftest is not installed: `cargo xtask setup --for vm`");
        return Ok(());
    }
    let (mut rates, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    println!("{:<8} {:>14} {:>14} {:>8}", "round", "stream MB/s", "ib_write_bw", "ratio");
    for round in 0..=rounds {
        let (ours, peer) = (ours::megabytes_per_s(bytes)?, peer::megabytes_per_s(bytes)?);
        // The first warms caches up.
        if round == 0 {
            continue;
        }
        println!("{round:<8} {ours:>14.1} {peer:>14.1} {:>8.2}", ours / peer);
        rates.push(ours);
        theirs.push(peer);
        ratios.push(ours / peer);
    }
    let ratio = median(ratios);
    println!("median ratio {ratio:.2}, target {TARGET}");
    println!(
        "{}",
        json!({ "bench": "rdma", "bytes": bytes, "stream_mb_per_s": median(rates), "ib_write_bw_mb_per_s": median(theirs),
            "ratio": ratio, "met": ratio >= TARGET })
    );
    Ok(())
}
