//! `dwcp-control`: the half that decides. It serves HTTP, keeps jobs, watches the dataplane and tells it what to do;
//! payload never passes through it. This file starts the threads and tasks and ends them; each knows its own business.
mod app;
mod arguments;
mod figures;
mod health;
mod http;
mod jobs;
mod link;
mod log;
mod metrics;
mod monitor;
mod notify;
mod peers;
mod settings;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::arguments::{Arguments, Places};
use crate::notify::Notifier;
use crate::settings::Settings;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let path =
        dwcp_config::locate(arguments.config.as_deref(), std::env::var_os("DWCP_CONFIG").map(PathBuf::from));
    let settings = match settings::load(path.as_deref()) {
        Ok(settings) => settings,
        Err(findings) => {
            eprintln!("{findings}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if arguments.validate {
        println!("{}: valid", path.map_or_else(|| "defaults".into(), |path| path.display().to_string()));
        return ExitCode::SUCCESS;
    }
    let level = log::start(settings.config.monitoring.log_level);
    match run(&arguments, settings, path, &level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(component = "control", error = format!("{error:#}"), "cannot run");
            eprintln!("dwcp-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    arguments: &Arguments,
    settings: Settings,
    path: Option<PathBuf>,
    level: &log::LevelHandle,
) -> anyhow::Result<()> {
    let places = Places::new(arguments, &settings.config)?;
    let (store, recovered) = store::Store::open(places.store.clone())?;
    let (unfinished, next_job) = (recovered.unfinished.len(), recovered.next_id);
    let app = Arc::new(App::new(settings, store, recovered, dwcp_sys::doorbell::Doorbell::create()?));
    tracing::info!(
        component = "control",
        version = env!("CARGO_PKG_VERSION"),
        unfinished,
        next_job,
        "control started"
    );
    let link = link::start(Arc::clone(&app), places.dataplane_socket.clone()).context("link thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let result = runtime.block_on(serve(&app, &places, path, level));
    app.stop();
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    if link.join().is_err() {
        tracing::error!(component = "link", "link thread panicked");
    }
    result
}

async fn serve(
    app: &Arc<App>,
    places: &Places,
    path: Option<PathBuf>,
    level: &log::LevelHandle,
) -> anyhow::Result<()> {
    // Before anybody can know that this process runs: an unhandled signal would kill it.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let notifier = Arc::new(Notifier::from_environment());
    let _listeners = http::start(app, places).await?;
    tokio::spawn(monitor::run(Arc::clone(app), Arc::clone(&notifier)));
    notifier.send("READY=1");
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(app, path.as_deref(), level),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notifier.send("STOPPING=1");
    tracing::info!(component = "control", "control stops; transfers go on in the dataplane");
    Ok(())
}

fn reload(app: &Arc<App>, path: Option<&std::path::Path>, level: &log::LevelHandle) {
    match settings::load(path) {
        Ok(settings) => {
            log::set_level(level, settings.config.monitoring.log_level);
            app.use_settings(settings);
            let restart_required = app.settings().restart_required.join(", ");
            tracing::info!(component = "control", restart_required, "configuration loaded again");
        }
        Err(findings) => {
            app.lock().is_reload_failed = true;
            app.note_error("control", "configuration", &findings.to_string());
            tracing::error!(component = "control", %findings, "configuration is wrong: the former one stays in use");
        }
    }
}

/// sysexits.h: something is wrong with the configuration.
const EXIT_CONFIG: u8 = 78;
const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
