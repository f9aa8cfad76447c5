//! Arguments of `auth`.
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use crate::units::parse_duration;

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
