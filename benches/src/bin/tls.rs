//! `bench tls`: goodput of the same transfer with and without encryption. Target: at least half.
use anyhow::Result;
use dwcp_benches::node::{Cipher, Shape};
use dwcp_benches::pair::Pair;
use dwcp_benches::report::{Report, Variant};
use dwcp_benches::scratch::Scratch;
use dwcp_benches::setting;

fn main() -> Result<()> {
    let bytes = setting("DWCP_BENCH_MIB", 1024) << 20;
    let scratch = Scratch::new()?;
    let source = scratch.file("source", bytes)?;
    let mut variants: Vec<Variant<'_>> = Vec::new();
    for (label, cipher) in [("clear, 4 lanes", Cipher::Clear), ("tls, 4 lanes", Cipher::Tls)] {
        let (scratch, source) = (&scratch, &source);
        let send = move || {
            let mut pair = Pair::start(scratch, Shape { workers: 1, lanes: 4, cipher })?;
            // The first one opens the lanes and touches the buffers.
            pair.send(source, bytes)?;
            pair.send(source, bytes).map(Some)
        };
        variants.push((label.to_owned(), Box::new(send)));
    }
    let report = Report::run("tls", setting("DWCP_BENCH_ROUNDS", 5), variants)?;
    report.print();
    println!(
        "goodput with encryption: {:.2} of that without (target 0.5)",
        1.0 / report.wall_ratio("tls, 4 lanes")
    );
    Ok(())
}
