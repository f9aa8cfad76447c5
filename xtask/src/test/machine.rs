//! The step that needs another kernel: tests of the kernel programs inside the virtual machine, whose kernel has `fq`
//! and is older than tcx. Called by `test`.
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::tally::Tally;
use crate::{Outcome, shell, vm};

/// Builds the tests here and runs some of them there.
pub(super) fn kernel_tests() -> Result<Tally> {
    if !shell::target().join("bpf/dwcp-ebpf").is_file() {
        println!("skipped: the kernel programs are not built");
        return Ok(Tally::skipped());
    }
    let program = test_program()?;
    let words = ["--timeout", "400", "--", "env", "DWCP_TEST_DEMANDS=fq", "RUST_BACKTRACE=0", &program];
    let arguments: Vec<String> = words.into_iter().chain(TESTS).map(String::from).collect();
    Ok(match vm::run(&arguments)? {
        Outcome::Done => Tally::passed(),
        Outcome::Skipped => Tally::skipped(),
        Outcome::Usage | Outcome::Failed(_) => Tally::failed(),
    })
}

/// Path of the compiled tests, as cargo says it in its messages.
fn test_program() -> Result<String> {
    let mut cargo =
        shell::cargo(["test", "--quiet", "--package", "dwcp-dataplane", "--test", "bpf", "--no-run"]);
    let output =
        cargo.arg("--message-format=json").stderr(Stdio::inherit()).output().context("cargo test")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let named = text.lines().filter_map(executable).next_back();
    named.map(String::from).context("cargo names no program of the tests")
}

fn executable(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("\"executable\":\"")?;
    rest.split_once('"').map(|(path, _)| path)
}

/// One at a time: the machine is emulated, and rates are measured. Of the rest this machine's kernel says enough.
const TESTS: [&str; 5] = ["departure", "guard", "lasting", "--test-threads=1", "--show-output"];

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
