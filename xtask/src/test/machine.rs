//! The step that needs another kernel: tests inside the virtual machine, whose kernel has `fq` and RDMA ports, and is older
//! than tcx. One boot for all of them. Called by `test`.
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::tally::Tally;
use crate::{Outcome, shell, vm};

/// Builds the tests here and runs some of them there.
pub(super) fn run() -> Result<Tally> {
    let mut suites = vec![
        Suite { package: "dwcp-sys", program: "rdma", filters: &[] },
        Suite { package: "dwcp-dataplane", program: "pair", filters: &["rdma::"] },
    ];
    if shell::target().join("bpf/dwcp-ebpf").is_file() {
        suites.insert(0, Suite { package: "dwcp-dataplane", program: "bpf", filters: &KERNEL_PROGRAMS });
    } else {
        println!("skipped: the kernel programs are not built");
    }
    let mut script = "status=0\n".to_owned();
    for suite in &suites {
        let program = suite.compiled()?;
        let words = [&[program.as_str()][..], suite.filters].concat();
        // One at a time: the machine is emulated, rates are measured, and wires are cut.
        script += &format!("{} --test-threads=1 --show-output || status=1\n", words.join(" "));
    }
    script += "exit $status\n";
    let words = ["--rdma", "--timeout", "700", "--", "env", "DWCP_TEST_DEMANDS=fq,rdma", "RUST_BACKTRACE=0"];
    let arguments: Vec<String> = words.into_iter().chain(["sh", "-c", &script]).map(String::from).collect();
    Ok(match vm::run(&arguments)? {
        Outcome::Done => Tally::passed(),
        Outcome::Skipped => Tally::skipped(),
        Outcome::Usage | Outcome::Failed(_) => Tally::failed(),
    })
}

/// Tests of one program.
struct Suite {
    package: &'static str,
    program: &'static str,
    /// Parts of their names; all of them where there is none.
    filters: &'static [&'static str],
}

impl Suite {
    /// Path of the compiled program, as cargo says it in its messages.
    fn compiled(&self) -> Result<String> {
        let mut cargo =
            shell::cargo(["test", "--quiet", "--package", self.package, "--test", self.program, "--no-run"]);
        let output =
            cargo.arg("--message-format=json").stderr(Stdio::inherit()).output().context("cargo test")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let named = text.lines().filter_map(executable).rfind(|path| path.contains(self.program));
        named.map(String::from).context("cargo names no program of the tests")
    }
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
