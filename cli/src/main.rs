//! `dwcp`, the operator's command. Everything but `server`, `config`, `doctor` and `tune` is a conversation with control's
//! HTTP interface; nothing here moves data or decides how it moves.
mod arguments;
mod commands;
mod configuration;
mod context;
mod cores;
mod doctor;
mod endpoint;
mod exit;
mod filters;
mod follow;
mod keep;
mod multicall;
mod output;
mod remote;
mod server;
mod table;
mod top;
mod tune;
mod units;

use std::process::ExitCode;

use clap::Parser;

use crate::exit::{Code, Failure};

fn main() -> ExitCode {
    let arguments = multicall::rewrite(std::env::args_os().collect());
    // Parsing prints help and its own errors, and leaves with 0 or 2.
    let cli = arguments::Cli::parse_from(arguments);
    match run(cli) {
        Ok(code) => code.into(),
        Err(failure) => {
            failure.print();
            failure.code.into()
        }
    }
}

fn run(cli: arguments::Cli) -> Result<Code, Failure> {
    // One thread: parent-death signals belong to the thread that started a child.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::general(format!("cannot start: {error}")))?;
    let result = runtime.block_on(commands::run(cli));
    // A name that is still being looked up must not keep the command from leaving.
    runtime.shutdown_background();
    result
}
