//! Copies of the state.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::SchemaName;
use crate::schema::documents;

documents!(BackupVerdict = "dwcp.backup-verdict/1");

/// Answer of `POST /api/v1/dwcp/restore`: the copy is whole and fits this version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupVerdict {
    /// `dwcp.backup-verdict/1`.
    pub schema: SchemaName,
    /// Version of its layout.
    pub layout: u64,
    /// Transfers in it.
    pub transfers: u64,
    /// Of those, such that have not ended: they begin anew.
    pub unfinished: u64,
    /// Whether it is used after the next start of control; false where it was only judged.
    pub waits_for_restart: bool,
}
