//! `wan …`: builds the link emulator and runs it with the given arguments; what they mean is its own business.
use anyhow::{Context as _, Result};

use crate::{Outcome, shell};

/// Entry point of the command.
///
/// # Errors
/// The build fails.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    shell::run(&mut shell::cargo(["build", "--quiet", "--release", "--package", "dwcp-wan"]))?;
    let program = shell::target().join("release/dwcp-wan");
    // Behind `--` even `--help` is the program's.
    let given = arguments.strip_prefix(&["--".to_owned()]).unwrap_or(arguments);
    let status = shell::command(&program).args(given).status().context("dwcp-wan does not start")?;
    Ok(match status.code() {
        Some(0) => Outcome::Done,
        Some(2) => Outcome::Usage,
        Some(77) => Outcome::Skipped,
        code => Outcome::Failed(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
    })
}
