//! Arguments of what moves files: `send`, `fetch`, `transfers`.
use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use dwcp_api::{TransferId, TransferQuery, TransferState};

use crate::filters::Filters;
use crate::keep::Keep;

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
    /// Leave files alone whose content is equal at the receiver, whatever their time is. Both ends read all of them
    #[arg(long, short = 'c')]
    pub(crate) checksum: bool,
    /// Delete what the source does not have, inside the directories that are sent, once everything else has arrived.
    /// Nothing is deleted where anything failed; what --exclude leaves out stays
    #[arg(long)]
    pub(crate) delete: bool,
    /// Change nothing, and say what would be sent, replaced and deleted; with -v the first names of it
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) keep: Keep,
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

fn state_parser() -> impl TypedValueParser<Value = TransferState> {
    PossibleValuesParser::new(TransferState::ALL.map(TransferState::name)).map(|name| {
        // Only the names of states pass the parser before.
        TransferState::ALL.into_iter().find(|state| state.name() == name).unwrap_or(TransferState::Queued)
    })
}
