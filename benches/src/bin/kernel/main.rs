//! `bench kernel [cost|pace]`: what the kernel programs cost per packet, by the kernel's own timing of a test run, and how
//! exactly and how soon a connection follows the rate of its class. Needs root and the object; says so otherwise.
mod cost;
mod pace;

use std::path::PathBuf;

use anyhow::Result;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |word: &str| words.is_empty() || words.iter().any(|known| known == word);
    if !nix::unistd::geteuid().is_root() {
        println!("bench kernel: skipped: needs root");
        return Ok(());
    }
    let candidates = dwcp_dataplane::bpf::object_candidates();
    let Some(object) = candidates.iter().find(|path| path.is_file()).cloned() else {
        println!("bench kernel: skipped: no kernel object: `cargo xtask build-ebpf --release`");
        return Ok(());
    };
    if wanted("cost") {
        cost::run(&object)?;
    }
    if wanted("pace") {
        pace::run(PathBuf::from(&object))?;
    }
    Ok(())
}
