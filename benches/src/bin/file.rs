//! `bench file`: one large file from memory (tmpfs) to memory on the other node, both ends' CPU time together, against
//! `iperf3 -P 1` for the same bytes, `cp` and rsync's daemon. Targets: at most 2.2 of iperf3 in clear and 3.2 encrypted;
//! no longer than `cp`, and a third of rsync.
use anyhow::Result;
use dwcp_benches::node::{Cipher, Shape};
use dwcp_benches::pair::Pair;
use dwcp_benches::report::{Report, Variant};
use dwcp_benches::scratch::{Scratch, same};
use dwcp_benches::{peers, setting};

const SHAPES: &[(&str, Shape)] = &[
    ("dwcp clear, 1 lane, 1 worker", Shape { workers: 1, lanes: 1, cipher: Cipher::Clear }),
    ("dwcp clear, 2 lanes, 1 worker", Shape { workers: 1, lanes: 2, cipher: Cipher::Clear }),
    ("dwcp clear, 4 lanes, 1 worker", Shape { workers: 1, lanes: 4, cipher: Cipher::Clear }),
    ("dwcp clear, 8 lanes, 1 worker", Shape { workers: 1, lanes: 8, cipher: Cipher::Clear }),
    ("dwcp clear, 4 lanes, 2 workers", Shape { workers: 2, lanes: 4, cipher: Cipher::Clear }),
    ("dwcp tls, 1 lane, 1 worker", Shape { workers: 1, lanes: 1, cipher: Cipher::Tls }),
    ("dwcp tls, 4 lanes, 1 worker", Shape { workers: 1, lanes: 4, cipher: Cipher::Tls }),
    ("dwcp tls, 4 lanes, 2 workers", Shape { workers: 2, lanes: 4, cipher: Cipher::Tls }),
];

fn main() -> Result<()> {
    let bytes = setting("DWCP_BENCH_MIB", 2048) << 20;
    let scratch = Scratch::new()?;
    let warm = scratch.file("warm", 64 << 20)?;
    let source = scratch.file("source", bytes)?;
    let mut variants: Vec<Variant<'_>> = vec![
        ("iperf3 -P 1".to_owned(), Box::new(|| peers::iperf3(1, bytes))),
        ("cp".to_owned(), Box::new(|| peers::copy(&source, &scratch.fresh("to")?, bytes))),
        ("rsync daemon".to_owned(), Box::new(|| peers::rsync(&source, &scratch.fresh("to")?, bytes))),
    ];
    let only = std::env::args().nth(1).unwrap_or_default();
    for &(label, shape) in SHAPES.iter().filter(|(label, _)| label.contains(&only)) {
        let (scratch, warm, source) = (&scratch, &warm, &source);
        let mut checked = false;
        let send = move || {
            scratch.fresh("to")?;
            let mut pair = Pair::start(scratch, shape)?;
            pair.send(warm, 64 << 20)?;
            let cost = pair.send(source, bytes)?;
            if !std::mem::replace(&mut checked, true) {
                same(source, &pair.arrived().join("source"))?;
            }
            Ok(Some(cost))
        };
        variants.push((label.to_owned(), Box::new(send)));
    }
    Report::run("file", setting("DWCP_BENCH_ROUNDS", 3), variants)?.print();
    Ok(())
}
