//! Arguments of what looks at the node, or waits for it.
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use dwcp_api::EventQuery;

use crate::units::parse_duration;

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Time between two pictures
    #[arg(short, long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    pub(crate) interval: Duration,
    /// Leave after so many pictures
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u32>,
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

/// Parts of the node to look into.
#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Programs in the kernel: maps, attachments, pins, and what the verifier said where one was refused
    Ebpf,
    /// What lanes can go over, and why not: devices, addresses, modules, limits; exits 1 where it is not usable
    Transport(DebugTransport),
    /// Where the time of chunks goes: one of 16 in each direction is timed from stage to stage, always
    Latency(DebugLatency),
    /// How the members of the cluster agree; exits 1 while they do not
    Consensus,
}

/// Arguments of `debug latency`.
#[derive(Debug, Args)]
pub(crate) struct DebugLatency {
    /// Also show the last chunks one by one, stage by stage
    #[arg(long)]
    pub(crate) trace: bool,
    /// Only chunks of this transfer, or to and from this peer
    #[arg(value_name = "JOB|PEER")]
    pub(crate) subject: Option<String>,
}

/// Arguments of `debug transport`.
#[derive(Debug, Args)]
pub(crate) struct DebugTransport {
    /// The transport
    #[arg(long, value_enum)]
    pub(crate) mode: TransportMode,
}

/// What `debug transport` looks into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportMode {
    /// RDMA queue pairs
    Rdma,
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
    /// Also judge whether this host is large enough for a role
    #[arg(long, value_enum)]
    pub(crate) role: Option<HostRole>,
    /// A host that is too small for its role fails
    #[arg(long, requires = "role")]
    pub(crate) strict: bool,
}

/// What a host is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostRole {
    /// 4 cores, 8 GiB, 100 GiB of disk, 1 Gbit/s
    Edge,
    /// 8 cores, 16 GiB, 100 GiB of disk
    Manager,
    /// 16 cores, 32 GiB, 500 GiB of disk, 10 Gbit/s
    Consensus,
    /// 8 cores, 16 GiB, 50 GiB of disk
    Ml,
}

impl HostRole {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Manager => "manager",
            Self::Consensus => "consensus",
            Self::Ml => "ml",
        }
    }
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
