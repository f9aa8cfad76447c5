//! `dwcp-control`: the half that decides. It serves HTTP, keeps jobs, watches the dataplane and tells it what to do;
//! payload never passes through it. This file starts the threads and tasks and ends them; each knows its own business.
mod access;
mod app;
mod arguments;
mod certificates;
mod cluster;
mod figures;
mod health;
mod history;
mod http;
mod jobs;
mod journal;
mod link;
mod links;
mod log;
mod metrics;
mod monitor;
mod paths;
mod peers;
mod recovery;
mod settings;
mod store;
mod tokens;
mod tunnels;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use dwcp_sys::service::Notifier;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::arguments::{Arguments, Places};
use crate::journal::Journal;
use crate::settings::{Settings, Sources};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let path =
        dwcp_config::locate(arguments.config.as_deref(), std::env::var_os("DWCP_CONFIG").map(PathBuf::from));
    let overrides = Some(arguments.state_dir.join(OVERRIDES_NAME));
    let sources = Sources { file: path, overrides };
    let settings = match settings::load(&sources) {
        Ok(settings) => settings,
        Err(findings) => {
            eprintln!("{findings}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if arguments.validate {
        let file = sources.file.as_ref().map_or_else(|| "defaults".into(), |path| path.display().to_string());
        println!("{file}: valid");
        return ExitCode::SUCCESS;
    }
    let journal = Arc::new(Journal::default());
    let level = log::start(settings.config.monitoring.log_level, Arc::clone(&journal));
    let start = Start { settings, sources, journal, level };
    match run(&arguments, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(component = "control", error = format!("{error:#}"), "cannot run");
            eprintln!("dwcp-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was there before anything ran.
pub(crate) struct Start {
    pub(crate) settings: Settings,
    pub(crate) sources: Sources,
    pub(crate) journal: Arc<Journal>,
    pub(crate) level: log::LevelHandle,
}

#[cfg(test)]
impl Start {
    /// Defaults, and a log that nobody reads.
    pub(crate) fn of_defaults() -> Self {
        let sources = Sources::default();
        let settings = settings::load(&sources).unwrap();
        Self { settings, sources, journal: Arc::default(), level: log::unread() }
    }
}

fn run(arguments: &Arguments, start: Start) -> anyhow::Result<()> {
    let places = Places::new(arguments, &start.settings.config)?;
    let (store, recovered) = store::Store::open(store_place(&start.settings.config.state, &places)?)?;
    let (unfinished, next_job) = (recovered.unfinished.len(), recovered.next_id);
    let mut app = App::new(start, store, recovered, dwcp_sys::doorbell::Doorbell::create()?);
    app.store_file.clone_from(&places.store);
    app.cluster = cluster::Cluster::new(&arguments.state_dir);
    let tokens = tokens::Keyring::open(&arguments.state_dir);
    if let Some(trouble) = tokens.trouble() {
        tracing::error!(
            component = "http",
            trouble,
            "no token counts: the keys cannot be read (`dwcp auth rotate`)"
        );
        app.note_error("control", "token_keys", trouble);
    }
    app.tokens = std::sync::Mutex::new(tokens);
    let app = Arc::new(app);
    tracing::info!(
        component = "control",
        version = env!("CARGO_PKG_VERSION"),
        unfinished,
        next_job,
        "control started"
    );
    let link = link::start(Arc::clone(&app), places.dataplane_socket.clone()).context("link thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let result = runtime.block_on(serve(&app, &places));
    app.stop();
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    if link.join().is_err() {
        tracing::error!(component = "link", "link thread panicked");
    }
    result
}

/// Where the configuration wants the state.
fn store_place(state: &dwcp_config::State, places: &Places) -> anyhow::Result<store::Place> {
    let file = places.store.clone();
    Ok(match state.backend {
        dwcp_config::StateBackend::Embedded => store::Place::File(file),
        dwcp_config::StateBackend::Postgres => {
            let server = store::Server::new(state).map_err(anyhow::Error::msg)?;
            store::Place::Server { server, copies: file }
        }
    })
}

async fn serve(app: &Arc<App>, places: &Places) -> anyhow::Result<()> {
    // Before anybody can know that this process runs: an unhandled signal would kill it.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let notifier = Arc::new(Notifier::from_environment());
    let _listeners = http::start(app, places).await?;
    resume_cluster(app).await;
    tokio::spawn(cluster::adapt::run(Arc::clone(app)));
    tokio::spawn(monitor::run(Arc::clone(app), Arc::clone(&notifier)));
    notifier.send("READY=1");
    loop {
        tokio::select! {
            _ = hangup.recv() => drop(app.reload()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notifier.send("STOPPING=1");
    app.cluster.stop();
    tracing::info!(component = "control", "control stops; transfers go on in the dataplane");
    Ok(())
}

/// A cluster that cannot be gone on with keeps nothing else from working.
async fn resume_cluster(app: &Arc<App>) {
    let listen = app.settings().config.consensus.listen;
    if let Err(error) = app.cluster.resume(listen).await {
        tracing::error!(component = "acp", %error, "not a member of the cluster for now");
        app.note_error("acp", "cluster", &error.to_string());
    }
}

/// sysexits.h: something is wrong with the configuration.
const EXIT_CONFIG: u8 = 78;
/// What `dwcp config set` writes, in the state directory.
const OVERRIDES_NAME: &str = "overrides.yaml";
const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
