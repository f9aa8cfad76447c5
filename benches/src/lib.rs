//! What the benches share: [`data`] sets, [`measure`] CPU time, [`peers`] to compare with, [`node`] a dataplane whose control
//! the bench plays, [`pair`] two of them on loopback and [`far`] at the ends of a long link or [`road`], [`site`] a whole node that is
//! asked over [`http`], [`scratch`] files in memory, [`report`] rounds into tables and ratios.
//!
//! Each binary of this crate is one bench; `cargo xtask bench NAME` builds and runs it. All variants of a bench run in
//! turn, round after round, and every figure that counts is a ratio within a round: the machine may be busy, but it is
//! equally busy for everybody. `DWCP_BENCH_ROUNDS` and `DWCP_BENCH_MIB` change rounds and volume;
//! `DWCP_BENCH_DATAPLANE` names another build of the dataplane.
pub mod data;
pub mod far;
pub mod http;
pub mod measure;
pub mod node;
pub mod pair;
pub mod peers;
pub mod report;
pub mod road;
pub mod scratch;
pub mod site;

/// A number from the environment.
#[must_use]
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
