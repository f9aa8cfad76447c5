//! Arguments of `auth` and `cert`.
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

use crate::units::parse_duration;

/// What to do with access.
#[derive(Debug, Subcommand)]
pub(crate) enum Auth {
    /// API keys, for `Authorization: Bearer` at api.tls_listen
    #[command(subcommand)]
    Key(AuthKey),
    /// Make a token, which is used like a key and expires by itself within the hour
    Token(TokenArguments),
    /// Replace the key that signs tokens: none counts any more that was made before
    Rotate,
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

/// Arguments of `auth token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    /// Who is to use it
    #[arg(long)]
    pub(crate) name: String,
    /// What it may do
    #[arg(long, value_enum)]
    pub(crate) role: RoleName,
    /// Until it expires [default: security.jwt_ttl, which is also the most]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
}

/// What to do about the certificates of the HTTPS interface.
#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// List them, with their expiry
    List,
    /// Show everything that they say
    Show {
        /// Only this one: server or ca
        #[arg(value_parser = PossibleValuesParser::new(["server", "ca"]))]
        name: Option<String>,
    },
    /// Look for what is wrong with them; exits 1 where something keeps clients out, or lets others in
    Check,
    /// Make a new key and certificate, for the names that the former one has
    Renew(Renew),
}

/// Arguments of `cert renew`.
#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// A host name or address that it is for; may be repeated [default: those of the former one, else this host's]
    #[arg(long, value_name = "HOST")]
    pub(crate) name: Vec<String>,
    /// Days until it expires
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=825))]
    pub(crate) days: u16,
    /// Certificate of an authority that signs it
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub(crate) ca: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "ca")]
    pub(crate) ca_key: Option<PathBuf>,
    /// Sign it with its own key though the former one is signed by an authority
    #[arg(long, conflicts_with = "ca")]
    pub(crate) self_signed: bool,
    /// The configuration that says where the files lie [default: $DWCP_CONFIG, then /etc/dwcp]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}
