//! One file for each subcommand. `main` calls [`run`]; each subcommand gives back what to leave with.
mod auth;
mod backup;
mod breaker;
mod certificates;
mod cluster;
mod compress;
pub(crate) mod config;
mod debug;
mod drain;
mod events;
mod flows;
mod generate;
mod identity;
mod path;
mod peers;
mod ping;
mod renew;
mod report;
mod stats;
mod status;
mod transfer;
mod transfers;
mod tunnel;
mod version;
mod wait;

use crate::arguments::{Auth, Cli, Command};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::{doctor, server, top, tune};

/// Does what the arguments say.
pub(crate) async fn run(cli: Cli) -> Result<Code, Failure> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Server(arguments) => server::run(&context, &arguments).await,
        Command::Send(arguments) => transfer::send(&context, &arguments).await,
        Command::Fetch(arguments) => transfer::fetch(&context, &arguments).await,
        Command::Transfers(arguments) => transfers::run(&context, arguments).await,
        Command::Pause { id } => transfers::pause(&context, id).await,
        Command::Resume { id } => transfers::resume(&context, id).await,
        Command::Status(arguments) => status::run(&context, arguments.watch).await,
        Command::Top(arguments) => top::run(&context, &arguments).await,
        Command::Stats(stats) => stats::run(&context, &stats).await,
        Command::Flows(arguments) => flows::run(&context, &arguments).await,
        Command::Debug(part) => debug::run(&context, &part).await,
        Command::Tune(arguments) => tune::run(&context, &arguments),
        Command::Doctor(arguments) => doctor::run(&context, &arguments).await,
        Command::Compress(command) => compress::run(&context, &command),
        Command::Config(command) => config::run(&context, command).await,
        Command::CircuitBreaker(command) => breaker::run(&context, command).await,
        Command::Cluster(command) => cluster::run(&context, command).await,
        Command::Events(arguments) => events::run(&context, events::Source::Events, &arguments).await,
        Command::Logs(arguments) => events::run(&context, events::Source::Logs, &arguments).await,
        Command::Wait { what } => wait::run(&context, what).await,
        Command::Shutdown { drain: _ } | Command::Drain => drain::drain(&context).await,
        Command::Undrain => drain::undrain(&context).await,
        Command::Report(arguments) => report::run(&context, &arguments).await,
        Command::Auth(Auth::Key(command)) => auth::keys(&context, command).await,
        Command::Auth(Auth::Token(arguments)) => auth::token(&context, arguments).await,
        Command::Auth(Auth::Rotate) => auth::rotate(&context).await,
        Command::Cert(command) => certificates::run(&context, command).await,
        Command::Audit { lines } => auth::audit(&context, lines).await,
        Command::Backup(command) => backup::back_up(&context, command).await,
        Command::Restore(command) => backup::restore(&context, command).await,
        Command::Identity => identity::run(&context).await,
        Command::Path { peer } => path::run(&context, &peer).await,
        Command::Tunnel(command) => tunnel::run(&context, command).await,
        Command::Ping(arguments) => ping::run(&context, &arguments).await,
        Command::Peers => peers::run(&context).await,
        Command::Version => version::run(&context).await,
        Command::Completion { shell } => generate::completion(shell),
        Command::Man { directory } => generate::man(&directory),
        Command::Half(arguments) => server::become_half(&arguments),
    }
}
