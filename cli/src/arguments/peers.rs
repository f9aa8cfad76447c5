//! Arguments of what concerns the path to a peer: `ping`, `tunnel`.
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::units::parse_duration;

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
