//! `dwcp completion` and `dwcp man`: made from the argument definition, so that they cannot be wrong.
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell as ClapShell;

use crate::arguments::{Cli, Shell};
use crate::exit::{Code, Failure};
use crate::output;

pub(super) fn completion(shell: Shell) -> Result<Code, Failure> {
    let shell = match shell {
        Shell::Bash => ClapShell::Bash,
        Shell::Zsh => ClapShell::Zsh,
        Shell::Fish => ClapShell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dwcp", &mut script);
    let script = String::from_utf8(script).map_err(|error| Failure::general(error.to_string()))?;
    output::result(&script)?;
    Ok(Code::Ok)
}

pub(super) fn man(directory: &Path) -> Result<Code, Failure> {
    clap_mangen::generate_to(Cli::command(), directory).map_err(|error| {
        Failure::general(format!("cannot write manual pages to {}: {error}", directory.display()))
    })?;
    Ok(Code::Ok)
}
