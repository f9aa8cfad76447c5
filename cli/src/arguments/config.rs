//! Arguments of `config`.
use std::path::PathBuf;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;

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
    /// Rewrite a file of another dialect or version with the names of this one
    Migrate {
        /// The file, together with those that belong to it
        file: PathBuf,
        /// Where to; an existing file is kept with .old at its end [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Set several keys for a purpose; without a name, list the purposes
    Preset {
        /// high-throughput, low-latency, constrained
        #[arg(value_parser = PossibleValuesParser::new(dwcp_config::PRESETS.iter().map(|preset| preset.name)))]
        name: Option<String>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Say what a key does
    Explain {
        /// Such as transport.max_streams
        key: String,
    },
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as transport.max_streams=512")?;
    if key.is_empty() { Err("there is no key before the `=`".into()) } else { Ok((key.into(), value.into())) }
}
