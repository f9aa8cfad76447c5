//! `bench codecs`: every object of `../shared/data/hde` in plain blocks of 512 KiB, codec by codec: the figures that the
//! cost model begins with (`crates/hde/src/cost.rs`), and what noise costs. One thread; its own CPU time counts.
use anyhow::{Result, ensure};
use dwcp_benches::data;
use dwcp_benches::measure::{median, thread_cpu_s};
use dwcp_benches::setting;
use dwcp_hde::{
    BlockCodec, Choice, Chooser, Conditions, Configured, Decoder, Encoder, Limits, ObjectMemory, Probe,
    encoded_length_max,
};
use serde_json::json;

const BLOCK_BYTES: usize = 512 * 1024;

fn main() -> Result<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    let Some(objects) = data::objects(&only)? else {
        println!("bench codecs: skipped: there is no ../shared/data/hde");
        return Ok(());
    };
    let blocks: Vec<&[u8]> = objects.iter().flat_map(|(_, bytes)| bytes.chunks(BLOCK_BYTES)).collect();
    let plain: usize = blocks.iter().map(|block| block.len()).sum();
    let expected = expected_bytes(&blocks);
    println!("{:<10} {:>11} {:>9} {:>9} {:>9}", "codec", "reduction %", "factor", "encode", "decode");
    let mut rows = Vec::new();
    for choice in choices()? {
        let (bytes, encode_s, decode_s) = measure(&blocks, choice)?;
        let reduction = 100.0 - 100.0 * bytes as f64 / plain as f64;
        let factor = bytes as f64 / expected;
        let rate = |seconds: f64| plain as f64 * 1e-6 / seconds;
        let label = format!("{:?} {}", choice.codec(), choice.level());
        println!(
            "{label:<10} {reduction:>11.1} {factor:>9.3} {:>9.0} {:>9.0}",
            rate(encode_s),
            rate(decode_s)
        );
        rows.push(json!({ "codec": label, "reduction_percent": reduction,
            "encode_mb_per_s": rate(encode_s), "decode_mb_per_s": rate(decode_s) }));
    }
    let noise = noise_rate()?;
    println!(
        "noise: chosen, stored and checksummed at {noise:.0} MB/s; {:.1} MB of data in all",
        plain as f64 * 1e-6
    );
    println!("{}", json!({ "bench": "codecs", "rows": rows, "noise_mb_per_s": noise }));
    Ok(())
}

fn choices() -> Result<Vec<Choice>> {
    let levels = [1, 3, 6, 9, 12, 15];
    let slowest = setting("DWCP_BENCH_LEVEL_MAX", 15);
    let zstd = levels.into_iter().filter(|level| u64::from(*level) <= slowest);
    let zstd = zstd.map(|level| Ok(Choice::new(BlockCodec::Zstd, level)?));
    [Ok(Choice::RAW), Ok(Choice::LZ4), Ok(Choice::SNAPPY)].into_iter().chain(zstd).collect()
}

/// What the probe expects of all blocks together.
fn expected_bytes(blocks: &[&[u8]]) -> f64 {
    let mut probe = Probe::new();
    let expected = |block: &&[u8]| {
        let estimate = probe.estimate(block);
        let share = estimate.matches_thousandths.min(estimate.entropy_thousandths);
        block.len() as f64 * f64::from(share) / 1000.0
    };
    blocks.iter().map(expected).sum()
}

fn measure(blocks: &[&[u8]], choice: Choice) -> Result<(usize, f64, f64)> {
    let limits = Limits::new(BLOCK_BYTES as u32, 1000)?;
    let (mut encoder, mut decoder) = (Encoder::new(limits), Decoder::new(limits));
    let mut coded = vec![1; encoded_length_max(BLOCK_BYTES)];
    let mut plain = vec![1; BLOCK_BYTES];
    let (mut bytes, mut encode_s, mut decode_s) = (0, 0.0, 0.0);
    for block in blocks {
        let start = thread_cpu_s()?;
        let length = encoder.encode(block, choice, &mut coded)?.length;
        let encoded = thread_cpu_s()?;
        let decoded = decoder.decode(&coded[..length], block.len() as u32, &mut plain)?;
        decode_s += thread_cpu_s()? - encoded;
        encode_s += encoded - start;
        bytes += length;
        ensure!(plain[..decoded] == **block, "a block came back wrong");
    }
    Ok((bytes, encode_s, decode_s))
}

/// Plain bytes per second of choosing and encoding what does not compress.
fn noise_rate() -> Result<f64> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let noise: Vec<u8> = (0..(16 << 20) / 8).flat_map(|_| next()).collect();
    let limits = Limits::new(BLOCK_BYTES as u32, 1000)?;
    let mut encoder = Encoder::new(limits);
    let mut coded = vec![1; encoded_length_max(BLOCK_BYTES)];
    let conditions = Conditions {
        link_bytes_per_s: Some(125_000_000),
        cores_thousandths: 1000,
        configured: Configured::Auto,
    };
    let mut rates = Vec::new();
    for _ in 0..5 {
        let (mut chooser, mut memory) = (Chooser::new(), ObjectMemory::default());
        let start = thread_cpu_s()?;
        for block in noise.chunks(BLOCK_BYTES) {
            let choice = chooser.choose(block, &conditions, &mut memory);
            let encoded = encoder.encode(block, choice, &mut coded)?;
            memory.record(choice, encoded);
        }
        rates.push(noise.len() as f64 * 1e-6 / (thread_cpu_s()? - start));
    }
    Ok(median(rates))
}
