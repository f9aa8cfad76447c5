//! Arguments of what needs no daemon: `tune`, `compress`.
use std::path::PathBuf;

use clap::{Args, Subcommand};

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
