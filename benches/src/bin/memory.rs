//! `bench memory`: the most memory that two dataplanes with default settings ever hold, while a large file, many small
//! files and many lanes pass. Target: under 256 MiB each.
use anyhow::Result;
use dwcp_benches::node::{BUFFER_BYTES, Cipher, Shape};
use dwcp_benches::pair::Pair;
use dwcp_benches::scratch::Scratch;
use dwcp_benches::setting;
use serde_json::json;

const TARGET_BYTES: u64 = 256 << 20;

fn main() -> Result<()> {
    let scratch = Scratch::new()?;
    let bytes = setting("DWCP_BENCH_MIB", 2048) << 20;
    let large = scratch.file("large", bytes)?;
    let (small, small_bytes) = scratch.tree("small", 10_000, 13_300)?;
    println!("{:<34} {:>12} {:>12}", "peak resident MiB", "sender", "receiver");
    let mut rows = Vec::new();
    for (workers, lanes, cipher) in
        [(1, 4, Cipher::Clear), (1, 32, Cipher::Clear), (2, 32, Cipher::Tls), (2, 200, Cipher::Tls)]
    {
        let mut pair = Pair::start(&scratch, Shape { workers, lanes, cipher })?;
        for (what, source, bytes) in [("file", &large, bytes), ("10,000 files", &small, small_bytes)] {
            pair.send(source, bytes)?;
            let (sender, receiver) = pair.peak_resident_bytes()?;
            let label = format!("{what}, {workers} workers, {lanes} lanes, {cipher:?}");
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            println!("{label:<34} {:>12.1} {:>12.1}", mib(sender), mib(receiver));
            rows.push(json!({ "what": label, "sender_bytes": sender, "receiver_bytes": receiver,
                "met": sender.max(receiver) < TARGET_BYTES }));
        }
    }
    println!("{}", json!({ "bench": "memory", "buffer_bytes": BUFFER_BYTES, "rows": rows }));
    Ok(())
}
