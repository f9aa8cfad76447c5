//! `bench small`: 10,000 small files (133 MB) from memory to memory on the other node, both ends' CPU time together,
//! against `cp -r` (target: at most 1.6 of it) and rsync's daemon.
use anyhow::Result;
use dwcp_benches::node::{Cipher, Shape};
use dwcp_benches::pair::Pair;
use dwcp_benches::report::{Report, Variant};
use dwcp_benches::scratch::{Scratch, same};
use dwcp_benches::{peers, setting};

const FILES: u64 = 10_000;
const BYTES_MEAN: u64 = 13_300;

const SHAPES: &[(&str, Shape)] = &[
    ("dwcp clear, 1 lane, 1 worker", Shape { workers: 1, lanes: 1, cipher: Cipher::Clear }),
    ("dwcp clear, 4 lanes, 1 worker", Shape { workers: 1, lanes: 4, cipher: Cipher::Clear }),
    ("dwcp clear, 4 lanes, 2 workers", Shape { workers: 2, lanes: 4, cipher: Cipher::Clear }),
    ("dwcp tls, 4 lanes, 1 worker", Shape { workers: 1, lanes: 4, cipher: Cipher::Tls }),
];

fn main() -> Result<()> {
    let scratch = Scratch::new()?;
    let (warm, warm_bytes) = scratch.tree("warm", 300, BYTES_MEAN)?;
    let (source, bytes) = scratch.tree("source", FILES, BYTES_MEAN)?;
    println!("bench small: {FILES} files, {:.1} MB", bytes as f64 / 1e6);
    let mut variants: Vec<Variant<'_>> = vec![
        ("cp -r".to_owned(), Box::new(|| peers::copy(&source, &scratch.fresh("to")?, bytes))),
        ("rsync daemon".to_owned(), Box::new(|| peers::rsync(&source, &scratch.fresh("to")?, bytes))),
    ];
    let only = std::env::args().nth(1).unwrap_or_default();
    for &(label, shape) in SHAPES.iter().filter(|(label, _)| label.contains(&only)) {
        let (scratch, warm, source) = (&scratch, &warm, &source);
        let send = move || {
            let mut pair = Pair::start(scratch, shape)?;
            pair.send(warm, warm_bytes)?;
            let cost = pair.send(source, bytes)?;
            let name = "source/042/04242";
            same(&source.with_file_name(name), &pair.arrived().join(name))?;
            Ok(Some(cost))
        };
        variants.push((label.to_owned(), Box::new(send)));
    }
    Report::run("small", setting("DWCP_BENCH_ROUNDS", 5), variants)?.print();
    Ok(())
}
