//! Who may do what: roles, API keys, the audit log.
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::schema::documents;
use crate::{SchemaName, Timestamp};

documents!(
    KeyList = "dwcp.api-keys/1",
    KeyCreated = "dwcp.api-key/1",
    TokenIssued = "dwcp.token/1",
    TokenKeyList = "dwcp.token-keys/1",
    AuditList = "dwcp.audit/1",
);

/// What somebody may do; each role may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Read,
    /// Order and cancel transfers, close circuit breakers, drain.
    Operate,
    /// Change the node: configuration, state, API keys.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    /// The JSON text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// Body of `POST /api/v1/auth/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// For people: what uses it. At most 64 printable characters.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Seconds until it expires; never where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// One API key, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyFigures {
    /// The part of the key that is no secret.
    pub id: String,
    /// What uses it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires; null = never.
    pub expires_at: Option<Timestamp>,
}

/// Answer of `POST /api/v1/auth/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyCreated {
    /// `dwcp.api-key/1`.
    pub schema: SchemaName,
    /// The key, for `Authorization: Bearer`. Nobody can show it again.
    pub key: String,
    /// What is known of it.
    #[serde(flatten)]
    pub figures: KeyFigures,
}

/// Answer of `GET /api/v1/auth/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// `dwcp.api-keys/1`.
    pub schema: SchemaName,
    /// By id.
    pub keys: Vec<KeyFigures>,
}

/// Body of `POST /api/v1/auth/token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// For people: who uses it. At most 64 printable characters.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// What it may do: at most what the caller may.
    pub role: Role,
    /// Seconds until it expires, `security.jwt_ttl` at most; as many where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub ttl_seconds: Option<u64>,
}

/// Answer of `POST /api/v1/auth/token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenIssued {
    /// `dwcp.token/1`.
    pub schema: SchemaName,
    /// The token, for `Authorization: Bearer`.
    pub token: String,
    /// Its number; the audit log names it.
    pub id: String,
    /// Who uses it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// Answer of `GET` and `POST /api/v1/auth/token-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenKeyList {
    /// `dwcp.token-keys/1`.
    pub schema: SchemaName,
    /// The one that signs first; none before the first token.
    pub keys: Vec<TokenKey>,
    /// Why no token counts, where that is so.
    pub trouble: Option<String>,
}

/// One key that tokens are signed with; the key itself never leaves the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenKey {
    /// `kid` of its tokens.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it signs, or only counts until its last tokens have expired.
    pub signs: bool,
}

/// Query of `GET /api/v1/dwcp/audit`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// At most so many, the newest; 100 where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u16>,
}

/// Answer of `GET /api/v1/dwcp/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// `dwcp.audit/1`.
    pub schema: SchemaName,
    /// Newest first.
    pub entries: Vec<AuditEntry>,
}

/// Somebody changed something, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When.
    pub timestamp: Timestamp,
    /// `uid N`, `loopback`, `key ID`, `token NAME ID`, `certificate NAME`, or the address of a stranger.
    pub who: String,
    /// The role that the caller has; empty for strangers.
    pub role: String,
    /// Such as `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What was answered.
    pub status: u16,
    /// The request's id.
    pub request_id: String,
}
