//! The configuration: as control uses it, and changes of it.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::schema::documents;
use crate::{PathText, SchemaName, Timestamp};

documents!(
    ConfigDocument = "dwcp.config/1",
    ConfigSection = "dwcp.config-section/1",
    ConfigChange = "dwcp.config-change/1",
    ConfigVerdict = "dwcp.config-verdict/1",
);

/// Answer of `GET /api/v1/dwcp/config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigDocument {
    /// `dwcp.config/1`.
    pub schema: SchemaName,
    /// The file; null when defaults are used.
    pub source: Option<PathText>,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// Digest of the files' contents and of what was set, in hexadecimal digits.
    pub hash: String,
    /// What is odd but accepted.
    pub warnings: Vec<String>,
    /// Keys whose new values are used after a restart only.
    pub restart_required: Vec<String>,
    /// Every canonical key with its effective value; secrets are not in it.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
    /// Where each value that is no default comes from; with `?origin=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<BTreeMap<String, String>>,
}

/// Answer of `GET /api/v1/dwcp/amst/config` and `GET /api/v1/dwcp/hde/config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigSection {
    /// `dwcp.config-section/1`.
    pub schema: SchemaName,
    /// Canonical keys of the section with their effective values.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
    /// Where each value that is no default comes from; with `?origin=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<BTreeMap<String, String>>,
}

/// Query of everything that shows configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConfigQuery {
    /// Say where each value comes from.
    #[serde(default)]
    pub origin: bool,
}

/// Query of everything that changes configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConfigChangeQuery {
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer of everything that changes configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigChange {
    /// `dwcp.config-change/1`.
    pub schema: SchemaName,
    /// Whether nothing was changed because only a look was asked for.
    pub dry_run: bool,
    /// Digest of the configuration afterwards.
    pub hash: String,
    /// Every key that has another value now.
    pub changes: Vec<KeyChange>,
    /// Keys that are in use with their new values.
    pub applied: Vec<String>,
    /// Keys whose new values are used after a restart only, from this change or an earlier one.
    pub restart_required: Vec<String>,
    /// What is odd but accepted.
    pub warnings: Vec<String>,
}

/// One key that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyChange {
    /// Canonical name.
    pub key: String,
    /// Value before, as text.
    pub from: String,
    /// Value after, as text.
    pub to: String,
}

/// Body of `POST /api/v1/dwcp/config/validate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    /// A whole configuration file in YAML.
    pub text: String,
}

/// Answer of `POST /api/v1/dwcp/config/validate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigVerdict {
    /// `dwcp.config-verdict/1`.
    pub schema: SchemaName,
    /// Whether the daemon would take it.
    pub valid: bool,
    /// Every mistake, as `file:line:column key: message`.
    pub findings: Vec<String>,
}
