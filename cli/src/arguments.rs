//! The command line as types. Help texts are what man pages and completions are made of.
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use dwcp_api::{EventQuery, TransferId, TransferQuery, TransferState};

use crate::filters::Filters;
use crate::units::parse_duration;

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
    /// Carry programs' connections: what connects to an address here is connected to a target by a peer
    #[command(subcommand)]
    Tunnel(Tunnel),
    /// Show the node at a glance; exits 0 healthy, 1 degraded, 2 unhealthy, 3 unreachable
    Status(StatusArguments),
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

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// What to show; without it, every counter
    pub(crate) subject: Option<StatsSubject>,
    /// Everything that is known of it
    #[arg(long, requires = "subject")]
    pub(crate) detailed: bool,
}

/// What `stats` can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StatsSubject {
    /// Codecs and differences
    Compression,
}

/// Parts of `compress`.
#[derive(Debug, Subcommand)]
pub(crate) enum Compress {
    /// Say what each codec would make of a file or directory here, at which speed
    Analyze(Analyze),
}

/// Arguments of `compress analyze`.
#[derive(Debug, Args)]
pub(crate) struct Analyze {
    /// File or directory; the first 64 MiB of it are looked at
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// A file that the other end has, to try differences to it as well
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) baseline: Option<PathBuf>,
}

/// Arguments of `send`.
#[derive(Debug, Args)]
#[command(override_usage = "dwcp send [OPTIONS] <SRC>... <PEER:DEST>")]
pub(crate) struct Send {
    /// SRC: files and directories of this node. PEER:DEST, as the last: peer and path there, such as
    /// berlin:/srv/data or berlin:EXPORT/below
    #[arg(required = true, value_name = "SRC|PEER:DEST", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) places: Vec<OsString>,
    #[command(flatten)]
    pub(crate) job: Job,
}

/// Arguments of `fetch`.
#[derive(Debug, Args)]
#[command(override_usage = "dwcp fetch [OPTIONS] <PEER:SRC>... <DEST>")]
pub(crate) struct Fetch {
    /// PEER:SRC: peer and path there, such as berlin:/srv/data or berlin:EXPORT/below; all of one peer. DEST, as the
    /// last: directory of this node that receives
    #[arg(required = true, value_name = "PEER:SRC|DEST", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) places: Vec<OsString>,
    #[command(flatten)]
    pub(crate) job: Job,
}

/// What `send` and `fetch` have in common.
#[derive(Debug, Args)]
pub(crate) struct Job {
    /// Lanes to use, 1 to 1024 [default: as configured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) streams: Option<u16>,
    /// Leave files alone whose size and time are equal at the receiver
    #[arg(long)]
    pub(crate) skip_unchanged: bool,
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// Print the transfer's id and leave; it goes on in the daemon
    #[arg(long, conflicts_with_all = ["progress", "cancel_on_interrupt"])]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) following: Following,
}

/// How to follow a transfer.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Following {
    /// How to show progress
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,
    /// Ctrl-C cancels the transfer instead of leaving it to the daemon
    #[arg(long)]
    pub(crate) cancel_on_interrupt: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// A bar on a terminal, else lines
    Auto,
    /// A bar on stderr
    Bar,
    /// A line each second on stderr
    Line,
    /// A line of JSON on stdout for each report
    Json,
    /// Nothing
    None,
}

/// Arguments of `transfers`.
#[derive(Debug, Args)]
pub(crate) struct Transfers {
    #[command(subcommand)]
    pub(crate) command: Option<TransfersCommand>,
    #[command(flatten)]
    pub(crate) list: TransfersList,
}

/// What to do with transfers.
#[derive(Debug, Subcommand)]
pub(crate) enum TransfersCommand {
    /// List transfers, newest first (what `transfers` alone does)
    List(TransfersList),
    /// Show one transfer
    Show {
        /// Its number
        id: TransferId,
    },
    /// Cancel a transfer
    Cancel {
        /// Its number
        id: TransferId,
    },
    /// Follow a transfer to its end
    Follow {
        /// Its number
        id: TransferId,
        #[command(flatten)]
        following: Following,
    },
}

/// Which transfers to list.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct TransfersList {
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = state_parser())]
    pub(crate) state: Option<TransferState>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(TransferQuery::LIMIT_MAX)))]
    pub(crate) limit: Option<u16>,
    /// Go on where the page before ended: its "next_cursor"
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Show it again and again, every 2s or as given
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = parse_duration)]
    pub(crate) watch: Option<Duration>,
}

/// Arguments of `flows`.
#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Show them again and again, busiest first, every 2s or as given
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = parse_duration)]
    pub(crate) top: Option<Duration>,
    /// Connections that have ended too
    #[arg(long)]
    pub(crate) all: bool,
    /// Only those of a class: bulk, tunnel, control, consensus
    #[arg(long, value_name = "CLASS", value_parser = PossibleValuesParser::new(["bulk", "tunnel", "control", "consensus"]))]
    pub(crate) class: Option<String>,
}

/// Arguments of `tune`.
#[derive(Debug, Args)]
pub(crate) struct Tune {
    /// Only say what would be done, and why (the default)
    #[arg(long, conflicts_with_all = ["apply", "revert"])]
    pub(crate) plan: bool,
    /// Do it, and keep what is replaced
    #[arg(long, conflicts_with = "revert")]
    pub(crate) apply: bool,
    /// Put back what was replaced
    #[arg(long)]
    pub(crate) revert: bool,
    /// Only steps of these kinds
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub(crate) only: Vec<crate::tune::Kind>,
    /// The interfaces to look at [default: all that have a device and are up]
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Vec<String>,
    /// The configuration to tune for [default: $DWCP_CONFIG, then /etc/dwcp]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where what is replaced is kept
    #[arg(
        long,
        value_name = "DIR",
        env = "DWCP_STATE_DIR",
        hide_env_values = true,
        default_value = "/var/lib/dwcp/state"
    )]
    pub(crate) state_dir: PathBuf,
}

/// Parts of the node to look into.
#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Programs in the kernel: maps, attachments, pins, and what the verifier said where one was refused
    Ebpf,
    /// How the members of the cluster agree; exits 1 while they do not
    Consensus,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The configuration to judge [default: $DWCP_CONFIG, then /etc/dwcp]
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
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check a configuration and name every mistake by file, line and column; exits 0 or 78
    Validate {
        /// The file [default: $DWCP_CONFIG, then /etc/dwcp]
        file: Option<PathBuf>,
    },
    /// Show the values in use: the daemon's, or what a file would give
    Show {
        /// A file to show instead of the daemon's values
        file: Option<PathBuf>,
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print the value of one key
    Get {
        /// Such as transport.max_streams
        key: String,
    },
    /// Set keys, for good: at once where that is possible, else with the next restart
    Set {
        /// Such as transport.max_streams=512
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_assignment)]
        assignments: Vec<(String, String)>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Take back what was set
    Unset {
        /// Keys
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Say what the files hold that the daemon does not use yet
    Diff,
    /// Read the files again; a wrong configuration changes nothing
    Reload,
    /// Say what a key does
    Explain {
        /// Such as transport.max_streams
        key: String,
    },
}

/// Arguments of `ping`.
#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// Its name
    pub(crate) peer: String,
    /// How many
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,
    /// How long to wait between two
    #[arg(short, long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
}

/// What to do with tunnels.
#[derive(Debug, Subcommand)]
pub(crate) enum Tunnel {
    /// Listen here, and let a peer connect what comes to a target that its `tunnels.allow` has; kept until `remove`
    Add {
        /// A port, listened at on loopback only, or an address such as 127.0.0.1:15432
        listen: String,
        /// The peer, and host and port as seen from it, such as paris:127.0.0.1:5432
        #[arg(value_name = "PEER:HOST:PORT")]
        destination: String,
    },
    /// List the tunnels, and what peers have connected here
    List,
    /// Stop listening; connections that stand run to their ends
    Remove {
        /// The port or address, as when it was added
        listen: String,
    },
}

/// What to do with the circuit breakers.
#[derive(Debug, Subcommand)]
pub(crate) enum CircuitBreaker {
    /// Show them: that of the node, and one for each peer
    State,
    /// Close all of them, and let what waited go on
    Reset {
        /// Only that of this peer
        #[arg(long, value_name = "PEER")]
        peer: Option<String>,
    },
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Take out names of nodes, peers and exports, addresses and paths
    #[arg(long)]
    pub(crate) redact: bool,
    /// Where to [default: dwcp-report.tar]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What to do with access.
#[derive(Debug, Subcommand)]
pub(crate) enum Auth {
    /// API keys, for `Authorization: Bearer` at api.tls_listen
    #[command(subcommand)]
    Key(AuthKey),
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthKey {
    /// Make a key and print it; it is shown only this once
    Create {
        /// What is to use it
        #[arg(long)]
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: RoleName,
        /// Until it expires, such as 720h [default: never]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        ttl: Option<Duration>,
    },
    /// List the keys, without the keys themselves
    List,
    /// Make a key count no longer
    Revoke {
        /// Its id
        id: String,
    },
}

/// Roles of API keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// Look
    Read,
    /// Order and cancel transfers, close circuit breakers, drain
    Operate,
    /// Everything
    Admin,
}

/// What to do about clusters.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Begin a cluster with this node as its only member
    Init(ClusterSelf),
    /// Have this node admitted by a member that made a token
    Join {
        /// Where that member listens for others, as `dwcp cluster token` says
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// The token
        #[arg(long)]
        token: String,
        #[command(flatten)]
        node: ClusterSelf,
    },
    /// Have the others let this node go
    Leave,
    /// Let another member go, one that is gone for good or was shown to lie
    Remove {
        /// Its name
        node: String,
    },
    /// List the members
    List,
    /// Make a token that admits one node, at this member, within an hour
    Token,
    /// Have the members agree in another way
    Algorithm {
        /// How
        #[arg(value_enum)]
        algorithm: AlgorithmName,
    },
    /// Print a value as it is after everything that any member was told is done
    Get {
        /// Its key
        key: String,
    },
    /// Set a value at all members
    Set {
        /// Its key
        key: String,
        /// To what
        value: String,
    },
    /// Remove a value at all members
    Unset {
        /// Its key
        key: String,
    },
}

/// How this node presents itself to a cluster.
#[derive(Debug, Args)]
pub(crate) struct ClusterSelf {
    /// Its name [default: node.name, else the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_id: Option<String>,
    /// Where the others reach it [default: consensus.address, else consensus.listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    /// Where it stands; for people
    #[arg(long)]
    pub(crate) region: Option<String>,
}

/// Ways to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlgorithmName {
    /// Few nodes, short delays
    Pbft,
    /// Much to order
    Bullshark,
    /// Many nodes, of whom the most trusted decide
    Tpbft,
}

impl AlgorithmName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pbft => "pbft",
            Self::Bullshark => "bullshark",
            Self::Tpbft => "tpbft",
        }
    }
}

/// What to do with copies of the state.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Write a consistent copy while the node works; an SQLite file
    State {
        /// Where to; `-` = standard output
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Check that a copy is whole and fits the daemon's version
    Verify {
        /// The copy
        file: PathBuf,
    },
}

/// What to restore.
#[derive(Debug, Subcommand)]
pub(crate) enum Restore {
    /// Transfers and their history; the node must be drained
    State {
        /// The copy
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// Only check it
        #[arg(long)]
        dry_run: bool,
    },
}

/// Arguments of `events` and `logs`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The newest so many [default: 100]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(EventQuery::LIMIT_MAX)))]
    pub(crate) lines: Option<u16>,
    /// Only of this component, such as health, jobs, link, breaker
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// Only so bad or worse
    #[arg(long, value_enum)]
    pub(crate) level: Option<Level>,
}

/// How bad a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// Whether a line of that level is shown; unknown ones are.
    pub(crate) fn takes(self, name: &str) -> bool {
        Self::from_str(name, true).map_or(true, |level| level >= self)
    }
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// Transfers are taken
    Ready,
    /// No transfer is under way, and none will be
    Drained,
    /// Neither half runs
    Stopped,
}

impl WaitFor {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
        }
    }
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as transport.max_streams=512")?;
    if key.is_empty() { Err("there is no key before the `=`".into()) } else { Ok((key.into(), value.into())) }
}

/// Shells with completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

fn state_parser() -> impl TypedValueParser<Value = TransferState> {
    PossibleValuesParser::new(TransferState::ALL.map(TransferState::name)).map(|name| {
        // Only the names of states pass the parser before.
        TransferState::ALL.into_iter().find(|state| state.name() == name).unwrap_or(TransferState::Queued)
    })
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
