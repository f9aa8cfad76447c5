//! `bench delta`: version pairs of `../shared/data/hde` coded against their baselines, side by side with
//! `zstd --patch-from` in the same process and xdelta3 where it is installed. One thread; its own CPU time counts, so
//! that a busy machine disturbs little. A word behind the name selects the pairs that contain it.
//!
//! Targets: 0.84 of the bytes of `zstd -3 --patch-from` over the set, none above 1.02, executables at most 0.65; encoding
//! at least as fast with a cached index and 0.7 without one; decoding above 1.3 GB/s.
mod ours;
mod peers;

use anyhow::{Result, ensure};
use dwcp_benches::data::{self, Pair};
use dwcp_benches::measure::median;
use dwcp_benches::setting;
use serde_json::json;

/// Bytes and seconds of one way to send one pair.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    bytes: usize,
    encode_s: f64,
    /// On top of encoding where nothing is cached.
    index_s: f64,
    decode_s: f64,
}

/// All that is known of one pair.
struct Measured {
    name: String,
    plain: usize,
    ours: Row,
    patch_3: Row,
    patch_1: Row,
    xdelta: Option<Row>,
    method: String,
}

fn main() -> Result<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    let level = u8::try_from(setting("DWCP_BENCH_LEVEL", 3))?;
    let rounds = setting("DWCP_BENCH_ROUNDS", 3);
    let Some(pairs) = data::pairs(&only)? else {
        println!("bench delta: skipped: there is no ../shared/data/hde");
        return Ok(());
    };
    heading();
    let mut all = Vec::new();
    for pair in &pairs {
        let measured = measure(pair, level, rounds)?;
        print(&measured);
        all.push(measured);
    }
    total(&all, level);
    Ok(())
}

fn measure(pair: &Pair, level: u8, rounds: u64) -> Result<Measured> {
    let (mut ours, mut patch_3, mut patch_1) = (Vec::new(), Vec::new(), Vec::new());
    let mut method = String::new();
    for _ in 0..setting("DWCP_BENCH_PROFILE", 0) {
        ours::measure(pair, level)?;
    }
    for _ in 0..rounds.max(1) {
        patch_3.push(peers::patch_from(pair, 3)?);
        let (row, how) = ours::measure(pair, level)?;
        ours.push(row);
        method = how;
        patch_1.push(peers::patch_from(pair, 1)?);
    }
    let xdelta = if setting("DWCP_BENCH_XDELTA", 0) > 0 { peers::xdelta(pair)? } else { None };
    Ok(Measured {
        name: pair.name.clone(),
        plain: pair.target.len(),
        ours: middle(&ours)?,
        patch_3: middle(&patch_3)?,
        patch_1: middle(&patch_1)?,
        xdelta,
        method,
    })
}

fn middle(rows: &[Row]) -> Result<Row> {
    ensure!(rows.windows(2).all(|pair| pair[0].bytes == pair[1].bytes), "the same input gave other bytes");
    let of = |figure: fn(&Row) -> f64| median(rows.iter().map(figure).collect());
    Ok(Row {
        bytes: rows[0].bytes,
        encode_s: of(|row| row.encode_s),
        index_s: of(|row| row.index_s),
        decode_s: of(|row| row.decode_s),
    })
}

fn heading() {
    println!(
        "{:<22} {:>6} {:>9} {:>9} {:>9} {:>6} {:>6} {:>6} {:>6} {:>7} {:>7}  blocks",
        "pair", "MB", "ours", "patch -3", "patch -1", "ratio", "warm", "cold", "MB/s", "decode", "patch's"
    );
}

fn print(row: &Measured) {
    let rate = |seconds: f64| row.plain as f64 * 1e-6 / seconds;
    println!(
        "{:<22} {:>6.1} {:>9} {:>9} {:>9} {:>6.3} {:>6.2} {:>6.2} {:>6.0} {:>7.0} {:>7.0}  {}",
        row.name,
        row.plain as f64 * 1e-6,
        row.ours.bytes,
        row.patch_3.bytes,
        row.patch_1.bytes,
        row.ours.bytes as f64 / row.patch_3.bytes as f64,
        row.patch_3.encode_s / row.ours.encode_s,
        row.patch_3.encode_s / (row.ours.encode_s + row.ours.index_s),
        rate(row.ours.encode_s),
        rate(row.ours.decode_s),
        rate(row.patch_3.decode_s),
        row.method
    );
    if let Some(xdelta) = row.xdelta {
        let ratio = row.ours.bytes as f64 / xdelta.bytes as f64;
        println!("    xdelta3 -9: {} bytes ({ratio:.3}), {:.0} MB/s", xdelta.bytes, rate(xdelta.encode_s));
    }
}

fn total(all: &[Measured], level: u8) {
    let plain: usize = all.iter().map(|row| row.plain).sum();
    let sum = |of: fn(&Measured) -> Row| {
        all.iter().map(of).fold(Row::default(), |sum, row| Row {
            bytes: sum.bytes + row.bytes,
            encode_s: sum.encode_s + row.encode_s,
            index_s: sum.index_s + row.index_s,
            decode_s: sum.decode_s + row.decode_s,
        })
    };
    let (ours, patch_3, patch_1) = (sum(|row| row.ours), sum(|row| row.patch_3), sum(|row| row.patch_1));
    let xdelta =
        all.iter().all(|row| row.xdelta.is_some()).then(|| sum(|row| row.xdelta.unwrap_or_default()));
    let measured =
        Measured { name: "all".into(), plain, ours, patch_3, patch_1, xdelta, method: String::new() };
    print(&measured);
    let worst = all.iter().map(|row| row.ours.bytes as f64 / row.patch_3.bytes as f64).fold(0.0, f64::max);
    let reduction = 100.0 - 100.0 * ours.bytes as f64 / plain as f64;
    println!(
        "{}",
        json!({ "bench": "delta", "level": level, "pairs": all.len(),
            "bytes_ratio": ours.bytes as f64 / patch_3.bytes as f64, "bytes_ratio_worst": worst,
            "speed_ratio_warm": patch_3.encode_s / ours.encode_s,
            "speed_ratio_cold": patch_3.encode_s / (ours.encode_s + ours.index_s),
            "reduction_percent": reduction,
            "decode_mb_per_s": plain as f64 * 1e-6 / ours.decode_s })
    );
}
