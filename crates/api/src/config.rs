//! The configuration in use, as control loaded it.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema::documents;
use crate::{PathText, SchemaName, Timestamp};

documents!(ConfigDocument = "dwcp.config/1");

/// Answer of `GET /api/v1/dwcp/config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigDocument {
    /// `dwcp.config/1`.
    pub schema: SchemaName,
    /// The file; null when defaults are used.
    pub source: Option<PathText>,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// Digest of the file's content in hexadecimal digits.
    pub hash: String,
    /// What is odd but accepted.
    pub warnings: Vec<String>,
    /// Keys whose new values are used after a restart only.
    pub restart_required: Vec<String>,
    /// Every canonical key with its effective value; secrets are not in it.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
}
