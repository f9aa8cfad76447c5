//! `build-ebpf`: compiles the kernel programs. Finds a compiler that has the source of `core` and bpf-linker, or says
//! in one line what is missing. It installs nothing; `setup` does.
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{Outcome, shell, suggest};

/// Entry point of the command.
///
/// # Errors
/// The build fails.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    let profile = match arguments {
        [] => "debug",
        [flag] if flag == "--release" => "release",
        [other, ..] => {
            eprintln!(
                "xtask build-ebpf: unknown argument '{other}'{}",
                suggest::hint(other, ["--release"].into_iter())
            );
            return Ok(Outcome::Usage);
        }
    };
    let started = Instant::now();
    match build(profile)? {
        Built::Object(object) => {
            println!("build-ebpf: {} ({:.1} s)", object.display(), started.elapsed().as_secs_f64());
            Ok(Outcome::Done)
        }
        Built::Impossible(reason) => {
            println!("build-ebpf: skipped: {reason}; `cargo xtask setup` installs it where it may");
            Ok(Outcome::Skipped)
        }
    }
}

/// What came of a build.
#[derive(Debug)]
pub(crate) enum Built {
    /// The object is here.
    Object(PathBuf),
    /// This machine lacks what is named.
    Impossible(String),
}

/// Builds the object, puts it at `target/bpf/dwcp-ebpf` and beside the binaries of `profile` (a folder of `target`).
///
/// # Errors
/// The compiler is there and fails, or the object cannot be copied.
pub(crate) fn build(profile: &str) -> Result<Built> {
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(reason) => return Ok(Built::Impossible(reason)),
    };
    let folder = shell::target().join("bpf");
    let mut cargo = toolchain.cargo();
    cargo.args(["build", "--quiet", "--package", "dwcp-ebpf", "--bin", "dwcp-ebpf", "--profile", "bpf"]);
    cargo.args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"]).arg(&folder);
    // Without it the object has no .BTF, and the kernel's complaints no line numbers.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Clink-arg=--btf").env_remove("RUSTFLAGS");
    shell::run(&mut shell::bounded(&cargo, LIMIT))?;

    let built = folder.join(TARGET).join("bpf/dwcp-ebpf");
    let object = folder.join("dwcp-ebpf");
    place(&built, &object)?;
    let beside = shell::target().join(profile);
    std::fs::create_dir_all(&beside).with_context(|| beside.display().to_string())?;
    place(&built, &beside.join("dwcp-ebpf.o"))?;
    Ok(Built::Object(object))
}

fn place(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// What compiles the kernel programs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's nightly with rust-src.
    Nightly,
    /// Debian's rustc-web, cargo-web and rust-web-src.
    Debian,
}

impl Toolchain {
    /// Compiler and linker, or what is missing.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn find() -> Result<Self, String> {
        let compiler = Self::find_compiler();
        let linker = shell::find("bpf-linker");
        match (compiler, linker) {
            (Some(toolchain), Some(_)) => Ok(toolchain),
            (Some(_), None) => Err("bpf-linker is not installed".into()),
            (None, Some(_)) => Err(format!("{NO_COMPILER} is installed")),
            (None, None) => Err(format!("{NO_COMPILER} is installed, and no bpf-linker")),
        }
    }

    /// The compiler alone.
    pub(crate) fn find_compiler() -> Option<Self> {
        if nightly_root().is_some_and(|root| root.join(SOURCE).is_dir()) && nightly_fits_linker() {
            return Some(Self::Nightly);
        }
        let version = shell::ask(Command::new(DEBIAN_RUSTC).arg("-vV"))?;
        let source = shell::ask(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
        let source = Path::new(source.trim()).join(SOURCE);
        let complete = source.is_dir() && Path::new(DEBIAN_CARGO).is_file();
        (complete && fits_linker(&version)).then_some(Self::Debian)
    }

    /// A nightly that would do if it had rust-src.
    pub(crate) fn nightly_lacks_source() -> bool {
        nightly_root().is_some_and(|root| !root.join(SOURCE).is_dir()) && nightly_fits_linker()
    }

    fn cargo(self) -> Command {
        match self {
            Self::Nightly => {
                let mut cargo = shell::command("rustup");
                cargo.args(["run", "nightly", "cargo"]);
                cargo
            }
            Self::Debian => {
                let mut cargo = shell::command(DEBIAN_CARGO);
                // A stable compiler: build-std asks for leave.
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }
}

fn nightly_root() -> Option<PathBuf> {
    let answer =
        shell::ask(shell::command("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
    Some(PathBuf::from(answer.trim()))
}

fn nightly_fits_linker() -> bool {
    let answer = shell::ask(shell::command("rustup").args(["run", "nightly", "rustc", "-vV"]));
    answer.is_some_and(|version| fits_linker(&version))
}

/// bpf-linker reads the bitcode of its own LLVM and of older ones only.
fn fits_linker(version: &str) -> bool {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = llvm.and_then(|llvm| llvm.split('.').next()).and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major <= LINKER_LLVM_MAJOR)
}

const NO_COMPILER: &str = "neither a rustup nightly with rust-src nor Debian's rustc-web with rust-web-src";
const TARGET: &str = "bpfel-unknown-none";
const SOURCE: &str = "lib/rustlib/src/rust/library/core";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const LINKER_LLVM_MAJOR: u32 = 22;
const LIMIT: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_reads_its_own_llvm_and_older() {
        assert!(fits_linker("rustc 1.96.0\nLLVM version: 22.1.8\n"));
        assert!(fits_linker("LLVM version: 19.1.7"));
        assert!(!fits_linker("LLVM version: 23.0.0"));
        assert!(!fits_linker(""));
    }
}
