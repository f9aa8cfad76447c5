//! The command line as types, a file for each group of commands. Help texts are what man pages and completions are
//! made of.
mod access;
mod backup;
mod cluster;
mod config;
mod host;
mod node;
mod peers;
mod transfers;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use dwcp_api::TransferId;

use crate::units::parse_duration;

pub(crate) use access::{Auth, AuthKey, Cert, Renew, RoleName, TokenArguments};
pub(crate) use backup::{Backup, Restore};
pub(crate) use cluster::{Cluster, ClusterSelf};
pub(crate) use config::Config;
pub(crate) use host::{Analyze, Compress, Tune};
pub(crate) use node::{
    CircuitBreaker, Debug, DebugLatency, Doctor, Events, Flows, HostRole, Level, Report, Stats, StatsSubject,
    StatusArguments, Top, TransportMode, WaitFor,
};
pub(crate) use peers::{Ping, Tunnel};
pub(crate) use transfers::{
    Fetch, Following, Job, Progress, Send, Transfers, TransfersCommand, TransfersList,
};

/// Moves data between sites, and looks after the node that does it.
#[derive(Debug, Parser)]
#[command(name = "dwcp", version, about, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Arguments of every subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print the result as JSON, with its type in "schema"
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Socket of the daemon [default: $DWCP_SOCKET, then control.sock in $RUNTIME_DIRECTORY, /run/dwcp,
    /// /var/lib/dwcp/run]
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "addr")]
    pub(crate) socket: Option<PathBuf>,
    /// Address of the daemon instead of its socket, such as http://127.0.0.1:8080
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) addr: Option<String>,
    /// How long to wait for the daemon [default: 10s for an answer, 30s for its return while following]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// No colours; as NO_COLOR=1 does
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// No notes and no progress, only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say which daemon is asked
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the node in the foreground: start both halves, restart the one that dies
    Server(Server),
    /// Send files and directories to a peer
    Send(Send),
    /// Fetch files and directories from a peer
    Fetch(Fetch),
    /// List, show, follow and cancel transfers
    Transfers(Transfers),
    /// Let a transfer rest until it is resumed; what has arrived is kept
    Pause {
        /// Its number
        id: TransferId,
    },
    /// Let a paused transfer go on
    Resume {
        /// Its number
        id: TransferId,
    },
    /// Carry programs' connections: what connects to an address here is connected to a target by a peer
    #[command(subcommand)]
    Tunnel(Tunnel),
    /// Show the node at a glance; exits 0 healthy, 1 degraded, 2 unhealthy, 3 unreachable
    Status(StatusArguments),
    /// Watch the node as an instrument: rates, cores, peers, transfers; q quits
    Top(Top),
    /// Print the counters: per core, of the node, of the kernel programs; or what compression did
    Stats(Stats),
    /// List the connections that the kernel programs follow: bytes, rates, round trips, what was sent again
    Flows(Flows),
    /// Look for what keeps the node from working well, and say what to do
    Doctor(Doctor),
    /// Look into the node's parts
    #[command(subcommand)]
    Debug(Debug),
    /// Say what of this host could serve the node better, do it until the next boot, take it back
    Tune(Tune),
    /// Look at what compression would do
    #[command(subcommand)]
    Compress(Compress),
    /// Show, explain, check and change the configuration
    #[command(subcommand)]
    Config(Config),
    /// Show the circuit breakers, or close them
    #[command(subcommand, name = "circuit-breaker")]
    CircuitBreaker(CircuitBreaker),
    /// Agree with other nodes: members, and values that are the same at all of them
    #[command(subcommand)]
    Cluster(Cluster),
    /// List what happened to the node
    Events(Events),
    /// Print what control logs
    Logs(Events),
    /// Wait until the node is ready, drained or stopped, 30s or --timeout at most
    Wait {
        /// For what
        what: WaitFor,
    },
    /// Take no new transfers and wait until none is under way, 5m or --timeout at most
    Shutdown {
        /// Required: the processes themselves are stopped by their service manager
        #[arg(long, required = true)]
        drain: bool,
    },
    /// The same as `shutdown --drain`
    Drain,
    /// Take transfers again
    Undrain,
    /// Write an archive for whoever is asked for help: documents, figures, events, findings; no secrets
    Report(Report),
    /// Say who may use the node from other hosts
    #[command(subcommand)]
    Auth(Auth),
    /// Look after the certificates of the HTTPS interface
    #[command(subcommand)]
    Cert(Cert),
    /// List who changed what, newest first
    Audit {
        /// At most so many [default: 100]
        #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        lines: Option<u16>,
    },
    /// Copy what the node knows of transfers, or check a copy
    #[command(subcommand)]
    Backup(Backup),
    /// Give a drained node such a copy for its next start
    #[command(subcommand)]
    Restore(Restore),
    /// Print the fingerprint that peers list as this node's identity
    Identity,
    /// Say what was measured of the path to a peer, and what keeps it from being faster
    Path {
        /// Its name
        peer: String,
    },
    /// Measure round trips to a peer over an authenticated connection
    Ping(Ping),
    /// List the peers
    Peers,
    /// Print the version of the command and of the daemon
    Version,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages
    Man {
        /// Directory to write them to; it must exist
        directory: PathBuf,
    },
    /// Become one half of the node, and die with the process that asked for it
    #[command(hide = true)]
    Half(Half),
}

/// Arguments of `server`.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The configuration [default: $DWCP_CONFIG, then /etc/dwcp]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where identity and transfers are kept
    #[arg(
        long,
        value_name = "DIR",
        env = "DWCP_STATE_DIR",
        hide_env_values = true,
        default_value = "/var/lib/dwcp/state"
    )]
    pub(crate) state_dir: PathBuf,
    /// Where the sockets are made [default: $RUNTIME_DIRECTORY, else /run/dwcp, else /var/lib/dwcp/run]
    #[arg(long, value_name = "DIR", env = "DWCP_RUNTIME_DIR", hide_env_values = true)]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Only check the configuration
    #[arg(long)]
    pub(crate) validate: bool,
}

/// Arguments of the hidden `half`.
#[derive(Debug, Args)]
pub(crate) struct Half {
    /// Process id of the one who asked
    #[arg(long)]
    pub(crate) parent: i32,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// Shells with completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

const EXIT_CODES: &str = "\
Exit codes:
  0 done   1 failed   2 wrong arguments   3 cannot reach the daemon   4 timed out   5 refused now
  6 some entries failed   7 not permitted   77 skipped   78 wrong configuration   130 Ctrl-C
  status: 0 healthy   1 degraded   2 unhealthy   3 unreachable";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_between_places() {
        let cli = Cli::try_parse_from(["dwcp", "send", "a", "b", "--streams", "4", "berlin:/c"]).unwrap();
        let Command::Send(send) = cli.command else { panic!("not a send") };
        assert_eq!(send.places, ["a", "b", "berlin:/c"]);
        assert_eq!(send.job.streams, Some(4));
    }

    #[test]
    fn names_that_look_like_options_come_after_two_dashes() {
        let cli = Cli::try_parse_from(["dwcp", "send", "--", "-a", "berlin:-b"]).unwrap();
        let Command::Send(send) = cli.command else { panic!("not a send") };
        assert_eq!(send.places, ["-a", "berlin:-b"]);
    }

    #[test]
    fn watch_has_a_default() {
        for (argument, watch) in [("--watch", 2000), ("--watch=500ms", 500)] {
            let cli = Cli::try_parse_from(["dwcp", "status", argument]).unwrap();
            let Command::Status(status) = cli.command else { panic!("not a status") };
            assert_eq!(status.watch, Some(Duration::from_millis(watch)));
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for arguments in [
            &["dwcp", "send"][..],
            &["dwcp", "send", "--streams", "0", "a", "b:c"],
            &["dwcp", "send", "--streams", "1025", "a", "b:c"],
            &["dwcp", "send", "--detach", "--progress", "bar", "a", "b:c"],
            &["dwcp", "send", "--exclude", "", "a", "b:c"],
            &["dwcp", "send", "--include", "x[y", "a", "b:c"],
            &["dwcp", "transfers", "show", "seven"],
            &["dwcp", "transfers", "--state", "bored"],
            &["dwcp", "--socket", "a", "--addr", "b", "status"],
            &["dwcp", "status", "--timeout", "0s"],
            &["dwcp", "-q", "-v", "status"],
        ] {
            assert!(Cli::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn the_nearest_command_is_named() {
        let error = Cli::try_parse_from(["dwcp", "statsu"]).unwrap_err().to_string();
        assert!(error.contains("'status'") || error.contains("'stats'"), "{error}");
        let error =
            Cli::try_parse_from(["dwcp", "send", "--skip-unchange", "a", "b:c"]).unwrap_err().to_string();
        assert!(error.contains("--skip-unchanged"), "{error}");
    }
}
