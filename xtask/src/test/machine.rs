//! The steps that need another machine: tests of the kernel programs and of RDMA inside the virtual one, whose kernel has
//! `fq` and RDMA ports and is older than tcx, in one boot; and of the package and its units under a systemd that boots
//! there. Called by `test`.
use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result};

use super::tally::Tally;
use crate::{Outcome, dist, shell, vm};

/// The tests that every run has: they take minutes, because the machine is emulated.
pub(super) fn essential() -> Result<Tally> {
    run(&["rdma::rdma_carries_a_tree_in_clear", "rdma::rdma_whose_packets_are_lost"])
}

/// All of them.
pub(super) fn all() -> Result<Tally> {
    run(&["rdma::"])
}

/// Builds the tests here and runs some of them there; of the transfers over RDMA those with these parts of names.
fn run(transfers: &[&str]) -> Result<Tally> {
    let mut suites = vec![
        Suite { package: "dwcp-sys", program: "rdma", filters: &[] },
        Suite { package: "dwcp-dataplane", program: "pair", filters: transfers },
    ];
    if shell::target().join("bpf/dwcp-ebpf").is_file() {
        suites.insert(0, Suite { package: "dwcp-dataplane", program: "bpf", filters: &KERNEL_PROGRAMS });
    } else {
        println!("skipped: the kernel programs are not built");
    }
    let mut script = "status=0\n".to_owned();
    for suite in &suites {
        let program = test_program(suite.package, suite.program)?;
        let words = [&[program.as_str()][..], suite.filters].concat();
        // One at a time: the machine is emulated, rates are measured, and wires are cut.
        script += &format!("{} --test-threads=1 --show-output || status=1\n", words.join(" "));
    }
    script += "exit $status\n";
    let words = ["--rdma", "--timeout", "700", "--", "env", "DWCP_TEST_DEMANDS=fq,rdma", "RUST_BACKTRACE=0"];
    let arguments: Vec<String> = words.into_iter().chain(["sh", "-c", &script]).map(String::from).collect();
    in_machine(&arguments)
}

/// Makes a package of the programs that the other tests use, and has it installed, run and purged in there.
pub(super) fn package_tests() -> Result<Tally> {
    if shell::find("dpkg-deb").is_none() || !Path::new("/lib/systemd/systemd").exists() {
        println!("skipped: this system has no dpkg-deb or no systemd");
        return Ok(Tally::skipped());
    }
    // Not compressed: an emulated processor unpacks slowly.
    let package = dist::package(&shell::target().join("debug"), &shell::target().join("vm/dist"), "none")?;
    let program = test_program("dwcp-tests", "booted")?;
    let package = format!("DWCP_TEST_PACKAGE={}", package.display());
    let words = ["--systemd", "--timeout", "400", "--", "env", &package, "RUST_BACKTRACE=0", &program];
    let arguments: Vec<String> = words.into_iter().chain(["--nocapture"]).map(String::from).collect();
    in_machine(&arguments)
}

fn in_machine(arguments: &[String]) -> Result<Tally> {
    Ok(match vm::run(arguments)? {
        Outcome::Done => Tally::passed(),
        Outcome::Skipped => Tally::skipped(),
        Outcome::Usage | Outcome::Failed(_) => Tally::failed(),
    })
}

/// Tests of one program.
struct Suite<'a> {
    package: &'a str,
    program: &'a str,
    /// Parts of their names; all of them where there is none.
    filters: &'a [&'a str],
}

/// Path of the compiled tests, as cargo says it in its messages.
fn test_program(package: &str, test: &str) -> Result<String> {
    let mut cargo = shell::cargo(["test", "--quiet", "--package", package, "--test", test, "--no-run"]);
    let output =
        cargo.arg("--message-format=json").stderr(Stdio::inherit()).output().context("cargo test")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let named = text.lines().filter_map(executable).rfind(|path| path.contains(test));
    named.map(String::from).context("cargo names no program of the tests")
}

fn executable(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("\"executable\":\"")?;
    rest.split_once('"').map(|(path, _)| path)
}

/// Of the rest this machine's kernel says enough.
const KERNEL_PROGRAMS: [&str; 3] = ["departure", "guard", "lasting"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_named_in_cargos_messages() {
        let line =
            r#"{"reason":"compiler-artifact","filenames":["/t/bpf-1"],"executable":"/t/bpf-1","fresh":true}"#;
        assert_eq!(executable(line), Some("/t/bpf-1"));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
    }
}
