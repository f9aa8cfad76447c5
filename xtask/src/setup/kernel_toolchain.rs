//! What building the kernel programs needs: a compiler with the source of `core`, and bpf-linker on the same LLVM.
//! Called by `setup`. A rustup nightly is preferred where there is one; Debian's rustc-web does it otherwise.
use std::time::Duration;

use anyhow::Result;

use super::{Report, apt};
use crate::{ebpf::Toolchain, shell};

/// Installs what is missing of both.
pub(crate) fn install(report: &mut Report) {
    if Toolchain::find().is_err() {
        install_compiler(report);
    }
    if shell::find("bpf-linker").is_none() {
        install_linker(report);
    }
}

fn install_compiler(report: &mut Report) {
    if Toolchain::nightly_lacks_source() {
        let mut add = shell::command("rustup");
        add.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
        if shell::run_quietly(&mut shell::bounded(&add, LIMIT)).is_ok() {
            report.did("rust-src for the nightly toolchain");
        }
    }
    if Toolchain::find_compiler().is_none() {
        apt::install(&["rustc-web", "cargo-web", "rust-web-src"], report);
    }
}

fn install_linker(report: &mut Report) {
    if shell::find("cargo").is_none() {
        report.lacks("bpf-linker (no cargo on the path to build it with)");
        return;
    }
    if !apt::install(&["llvm-22-dev"], report) {
        return;
    }
    println!("setup: building bpf-linker (about a minute)");
    match build_linker() {
        Ok(()) => report.did("bpf-linker"),
        Err(error) => report.lacks(format!("bpf-linker ({error:#})")),
    }
}

/// Built without optimisation: it links one small object, and its own build is what a newcomer waits for.
fn build_linker() -> Result<()> {
    let mut install = shell::cargo(["install", "bpf-linker", "--version", "0.13.0", "--locked", "--quiet"]);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    install.env("LLVM_SYS_221_PREFIX", LLVM_PREFIX).env("LLVM_PREFIX", LLVM_PREFIX);
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.env("CARGO_PROFILE_RELEASE_DEBUG", "false").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    shell::run_quietly(&mut shell::bounded(&install, LIMIT))?;
    Ok(())
}

const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LIMIT: Duration = Duration::from_secs(600);
