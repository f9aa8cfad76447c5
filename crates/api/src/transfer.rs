//! Transfers: what is asked for, and how far it is.
use std::fmt;
use std::ops::Not;
use std::str::FromStr;

use dwcp_abi::wire::{PatternError, PatternText};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::schema::documents;
use crate::{PathText, SchemaName, Timestamp};

documents!(Transfer = "dwcp.transfer/1", TransferList = "dwcp.transfers/1");

/// Most sources of one transfer.
pub const SOURCES_MAX: usize = 256;
/// Most failures that a transfer lists; `counts.failures` has their number.
pub const FAILURES_MAX: usize = 100;
/// Name of the event that carries a transfer on its way.
pub const EVENT_PROGRESS: &str = "progress";
/// Name of the event that carries a transfer's end; the last of its stream.
pub const EVENT_FINISHED: &str = "finished";

/// Number of a transfer, unique on its node for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct TransferId(pub u64);

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for TransferId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From this node to the peer.
    Send,
    /// From the peer to this node.
    Fetch,
}

impl Direction {
    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Fetch => "fetch",
        }
    }
}

/// Body of `POST /api/v1/dwcp/transfers`; answered by 201, `Location` and the [`Transfer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// Which way.
    pub direction: Direction,
    /// Name of the peer.
    pub peer: String,
    /// 1 to [`SOURCES_MAX`] paths: absolute local ones to send; of the peer (absolute or `export/below`) to fetch.
    pub sources: Vec<PathText>,
    /// Where they go: of the peer to send, an absolute local one to fetch.
    pub destination: PathText,
    /// Options.
    #[serde(default)]
    pub options: TransferOptions,
}

/// What a transfer may differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TransferOptions {
    /// Lanes wanted, 1 to 1024; 0 = as configured.
    pub streams: u16,
    /// The receiver keeps files whose size and time are equal already.
    pub skip_unchanged: bool,
    /// The receiver keeps files whose content is equal already, whatever their time is.
    #[serde(skip_serializing_if = "Not::not")]
    pub checksum: bool,
    /// What the source does not have is deleted inside the directories that were sent, once everything else is there, and
    /// only if nothing failed. Names that are left out stay.
    #[serde(skip_serializing_if = "Not::not")]
    pub delete: bool,
    /// Nothing is written, deleted or sent; `changes` says what would be.
    #[serde(skip_serializing_if = "Not::not")]
    pub dry_run: bool,
    /// Files with several names have them at the receiver, too.
    #[serde(skip_serializing_if = "Not::not")]
    pub hard_links: bool,
    /// Extended attributes of users (`user.*`).
    #[serde(skip_serializing_if = "Not::not")]
    pub xattrs: bool,
    /// POSIX access control lists; users and groups in them by number.
    #[serde(skip_serializing_if = "Not::not")]
    pub acls: bool,
    /// Owners, and set-user-ID and set-group-ID bits, where the receiver may.
    #[serde(skip_serializing_if = "Not::not")]
    pub owner: bool,
    /// Groups, where the receiver may.
    #[serde(skip_serializing_if = "Not::not")]
    pub group: bool,
    /// Owners and groups by number; else by name, where both ends know it.
    #[serde(skip_serializing_if = "Not::not")]
    pub numeric_ids: bool,
    /// Devices are made as nodes, where the receiver may.
    #[serde(skip_serializing_if = "Not::not")]
    pub devices: bool,
    /// Named pipes and sockets are made as nodes.
    #[serde(skip_serializing_if = "Not::not")]
    pub specials: bool,
    /// What is left out: the first rule whose pattern matches a name decides, and a name that none matches is sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

/// One rule of what is left out. Patterns are those of rsync: `*`, `**`, `?`, `[…]`, a `/` at the start for the root of what
/// is sent, a `/` at the end for directories only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// What matches is sent.
    Include(PathText),
    /// What matches is not sent, nor is anything inside of it.
    Exclude(PathText),
}

impl Filter {
    /// What names are matched against.
    #[must_use]
    pub fn pattern(&self) -> &PathText {
        match self {
            Self::Include(pattern) | Self::Exclude(pattern) => pattern,
        }
    }

    /// Demands a pattern that can be used: whoever takes one from a person refuses it here, not the job later.
    ///
    /// # Errors
    /// Names the pattern and says what is wrong with it.
    pub fn check(&self) -> Result<(), PatternRefused> {
        let pattern = self.pattern();
        PatternText::parse(pattern.as_bytes())
            .map(|_| ())
            .map_err(|reason| PatternRefused { pattern: pattern.clone(), reason })
    }
}

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern '{pattern}' cannot be used: {reason}")]
pub struct PatternRefused {
    /// Which.
    pub pattern: PathText,
    /// Why.
    pub reason: PatternError,
}

/// How far a transfer is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransferState {
    /// Stored, not yet given to the dataplane.
    Queued,
    /// Waiting for a lane or for the peer's answer.
    Connecting,
    /// Data is moving.
    Running,
    /// All data is at the receiver, which makes it durable.
    Finishing,
    /// The peer, all lanes or the dataplane went away; it is about to be tried again.
    Interrupted,
    /// It rests until it is resumed; what has arrived is kept.
    Paused,
    /// Ended: everything is durable at the receiver.
    Done,
    /// Ended: everything that could be read and written is durable; `failures` says what is not.
    Partial,
    /// Ended: `error` says why and what to do.
    Failed,
    /// Ended: as ordered.
    Cancelled,
}

impl TransferState {
    /// Every state, in the order of a transfer's life.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Connecting,
        Self::Running,
        Self::Finishing,
        Self::Interrupted,
        Self::Paused,
        Self::Done,
        Self::Partial,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued
            | Self::Connecting
            | Self::Running
            | Self::Finishing
            | Self::Interrupted
            | Self::Paused => false,
            Self::Done | Self::Partial | Self::Failed | Self::Cancelled => true,
        }
    }

    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Interrupted => "interrupted",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a transfer has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Files, directories, links that are complete at the receiver.
    pub entries_done: u64,
    /// Entries found so far.
    pub entries_total: u64,
    /// Plain bytes acknowledged by the receiver.
    pub bytes_done: u64,
    /// Plain bytes found so far.
    pub bytes_total: u64,
    /// Bytes that crossed the wire for it, frames included.
    pub bytes_wire: u64,
    /// Bytes that had to be sent again.
    pub bytes_resent: u64,
    /// Plain bytes that were at the receiver from a former attempt: done, and not sent by this one.
    #[serde(default)]
    pub bytes_resumed: u64,
    /// Entries that failed.
    pub failures: u64,
}

/// One entry that could not be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferFailure {
    /// Which; null where the failure belongs to no single entry.
    pub path: Option<PathText>,
    /// Why, and the way out.
    pub error: String,
}

/// What a transfer has changed at its receiver, or would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// Entries that would be new. Only a dry run counts them, as it does the next two.
    pub created: u64,
    /// Entries that would take the place of others.
    pub replaced: u64,
    /// Bytes of files among these.
    pub bytes: u64,
    /// Entries that were deleted, or would be.
    pub deleted: u64,
    /// The first names, as many as fit 8 KiB.
    pub names: Vec<ChangedName>,
}

/// One name that is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedName {
    /// What happens to it.
    pub change: Change,
    /// Its path below the destination.
    pub path: PathText,
}

/// What happens to a name at the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Created,
    /// Something else was there.
    Replaced,
    /// The source does not have it.
    Deleted,
}

impl Change {
    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Deleted => "deleted",
        }
    }
}

/// One transfer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    /// `dwcp.transfer/1`.
    pub schema: SchemaName,
    /// Its number.
    pub id: TransferId,
    /// Which way.
    pub direction: Direction,
    /// Name of the peer.
    pub peer: String,
    /// As asked for.
    pub sources: Vec<PathText>,
    /// As asked for.
    pub destination: PathText,
    /// As asked for.
    pub options: TransferOptions,
    /// How far.
    pub state: TransferState,
    /// 1 at first, one more at each new try.
    pub attempt: u32,
    /// Whether `counts.*_total` will not grow any more.
    pub scanned: bool,
    /// Lanes of its session now; after its end the most that it had.
    pub lanes: u16,
    /// Figures of the current attempt.
    pub counts: Counts,
    /// Plain bytes per second: over the last few seconds, after its end over its whole life.
    pub rate_bytes_per_s: u64,
    /// Plain bytes by wire bytes; null until known.
    pub ratio: Option<f64>,
    /// Seconds left at this rate; null until known.
    pub eta_seconds: Option<u64>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the dataplane first took it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// From the first start to now or to the end.
    pub elapsed_seconds: f64,
    /// Why it failed, was interrupted or is partial, and the way out.
    pub error: Option<String>,
    /// The first [`FAILURES_MAX`] entries that failed.
    pub failures: Vec<TransferFailure>,
    /// What was or would be changed, once a transfer with `delete` or `dry_run` has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// What an operator should know though nothing failed, such as an option that the receiver could not follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Answer of `GET /api/v1/dwcp/transfers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TransferList {
    /// `dwcp.transfers/1`.
    pub schema: SchemaName,
    /// Newest first.
    pub transfers: Vec<Transfer>,
    /// Give it as `cursor` for the older ones; null at the end.
    pub next_cursor: Option<String>,
}

/// Query of `GET /api/v1/dwcp/transfers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TransferQuery {
    /// Only those in this state.
    #[serde(default)]
    pub state: Option<TransferState>,
    /// At most so many, 1 to [`TransferQuery::LIMIT_MAX`]; [`TransferQuery::LIMIT_DEFAULT`] when left out.
    #[serde(default)]
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
}

impl TransferQuery {
    /// Page size when none is given.
    pub const LIMIT_DEFAULT: u16 = 50;
    /// Largest page.
    pub const LIMIT_MAX: u16 = 500;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_json_texts() {
        for state in TransferState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        for direction in [Direction::Send, Direction::Fetch] {
            assert_eq!(serde_json::to_value(direction).unwrap(), direction.name());
        }
    }

    #[test]
    fn a_request_takes_no_unknown_members() {
        let good = r#"{"direction":"send","peer":"berlin","sources":["/a"],"destination":"b"}"#;
        let request: TransferRequest = serde_json::from_str(good).unwrap();
        assert_eq!(request.options, TransferOptions::default());
        for bad in [
            r#"{"direction":"send","peer":"berlin","sources":["/a"],"destination":"b","stream":4}"#,
            r#"{"direction":"send","peer":"berlin","sources":["/a"],"destination":"b","options":{"stream":4}}"#,
            r#"{"direction":"sideways","peer":"berlin","sources":["/a"],"destination":"b"}"#,
            r#"{"direction":"send","peer":"berlin","sources":[""],"destination":"b"}"#,
        ] {
            assert!(serde_json::from_str::<TransferRequest>(bad).is_err(), "{bad}");
        }
    }
}
