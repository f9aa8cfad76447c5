//! Entry point of `dwcp-dataplane`: flags, log, signals. Everything else is in the library.
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwcp_dataplane::link::{Manager, Paths, serve};
use dwcp_dataplane::listeners::Listeners;
use dwcp_sys::service::{Notifier, inherited};

const USAGE: &str = "\
usage: dwcp-dataplane [--state-dir DIR] [--runtime-dir DIR]

Moves bytes between nodes, as dwcp-control tells it. `dwcp server` starts both.

  --state-dir DIR    identity of the node            (default /var/lib/dwcp/state)
  --runtime-dir DIR  dataplane.sock, for control     (default /run/dwcp)
  --config FILE      accepted and left to dwcp-control, so that both can be started alike
  --version          print the version

DWCP_LOG_LEVEL: error, warn, info (default), debug or trace.";

fn main() -> ExitCode {
    // Before anything is opened.
    let former = inherited();
    let paths = match parse(std::env::args_os().skip(1)) {
        Ok(Some(paths)) => paths,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dwcp-dataplane: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    start_log();
    let stop = Arc::new(AtomicBool::new(false));
    if let Err(error) = catch_signals(&stop) {
        tracing::error!(%error, "signals cannot be caught");
        return ExitCode::FAILURE;
    }
    let notifier = Arc::new(Notifier::from_environment());
    let listeners = Arc::new(Listeners::new(Arc::clone(&notifier), former));
    match serve(&paths, Manager { notifier, listeners }, &|| stop.load(Ordering::Relaxed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "dataplane ends");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<Option<Paths>, String> {
    let mut paths =
        Paths { state: PathBuf::from("/var/lib/dwcp/state"), runtime: PathBuf::from("/run/dwcp") };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.into())),
            None => (text, None),
        };
        let mut value = || inline.clone().or_else(|| arguments.next()).ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--state-dir" => paths.state = PathBuf::from(value()?),
            "--runtime-dir" => paths.runtime = PathBuf::from(value()?),
            "--config" => drop(value()?),
            "--version" => {
                println!("dwcp-dataplane {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            other => return Err(format!("unknown flag {other}")),
        }
    }
    Ok(Some(paths))
}

fn start_log() {
    let level = std::env::var("DWCP_LOG_LEVEL").unwrap_or_else(|_| "info".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&level)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() { log.init() } else { log.json().flatten_event(true).init() }
}

/// SIGTERM and SIGINT end the loop at its next turn.
fn catch_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Before any other thread exists, so that all of them inherit it.
    signals.thread_block()?;
    let stop = Arc::clone(stop);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}
