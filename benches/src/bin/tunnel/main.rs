//! `bench tunnel`: what a tunnel costs. Round trips of small requests over an emulated link of 100 Mbit/s and 50 ms, through
//! a tunnel and over a plain connection, with the link idle and beside one of our bulk transfers; and bytes per second over
//! loopback, through a tunnel, two socats and nothing.
//!
//! `DWCP_BENCH_SECONDS` is the length of each row of round trips, `DWCP_BENCH_MIB` what is copied.
mod copies;
mod trips;

use anyhow::Result;
use dwcp_abi::link::{Setup, Tunnel, TunnelAllow};
use dwcp_benches::report::load;
use dwcp_benches::scratch::Scratch;
use dwcp_benches::setting;
use dwcp_wan::unavailable;

fn main() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut json = serde_json::Map::new();
    match unavailable() {
        Some(reason) => println!("bench tunnel: round trips skipped: {reason}"),
        None => {
            let seconds = setting("DWCP_BENCH_SECONDS", 15).clamp(5, 600);
            json.insert("trips".into(), trips::run(&scratch, seconds)?);
        }
    }
    let bytes = setting("DWCP_BENCH_MIB", 1024).max(1) << 20;
    json.insert("copies".into(), copies::run(&scratch, bytes, setting("DWCP_BENCH_ROUNDS", 3))?);
    println!("one run, load {}", load());
    println!("{}", serde_json::json!({ "bench": "tunnel", "rows": json }));
    Ok(())
}

/// The near end's tunnel.
fn listening<'a>(listen: &'a str, target: &'a str) -> Setup<'a> {
    Setup::Tunnel(Tunnel { listen: listen.as_bytes(), peer: b"peer", target: target.as_bytes() })
}

/// The far end's permission: anything on loopback.
fn allowing() -> Setup<'static> {
    Setup::TunnelAllow(TunnelAllow { peer: b"", host: b"127.0.0.1", port_first: 1, port_last: u16::MAX })
}
