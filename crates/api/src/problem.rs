//! Errors as RFC 9457 `application/problem+json`.
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem; `about:blank` where the status says it all.
    #[serde(rename = "type", default = "Problem::blank")]
    pub kind: String,
    /// The kind, for people; the same for every occurrence.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence, for people: names the object and the way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The request's `X-Request-Id`; the logs carry it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Every single mistake, where there may be several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// The nearest name that exists, where the request named one that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

impl Problem {
    /// Media type of the document.
    pub const CONTENT_TYPE: &str = "application/problem+json";
    /// `type`: the request names a peer that is not configured; `nearest` may help.
    pub const UNKNOWN_PEER: &str = "urn:dwcp:problem:unknown-peer";
    /// `type`: no transfer has this id.
    pub const UNKNOWN_TRANSFER: &str = "urn:dwcp:problem:unknown-transfer";
    /// `type`: no tunnel listens at this address.
    pub const UNKNOWN_TUNNEL: &str = "urn:dwcp:problem:unknown-tunnel";
    /// `type`: no API key has this id.
    pub const UNKNOWN_KEY: &str = "urn:dwcp:problem:unknown-key";
    /// `type`: no such endpoint or method.
    pub const UNKNOWN_ENDPOINT: &str = "urn:dwcp:problem:unknown-endpoint";
    /// `type`: the body or the query is not what the endpoint takes.
    pub const INVALID_REQUEST: &str = "urn:dwcp:problem:invalid-request";
    /// `type`: the transfer has ended already, so that it cannot be cancelled.
    pub const FINISHED: &str = "urn:dwcp:problem:finished";
    /// `type`: the caller may not do this.
    pub const PERMISSION: &str = "urn:dwcp:problem:permission";
    /// `type`: the caller has to say who it is.
    pub const UNAUTHENTICATED: &str = "urn:dwcp:problem:unauthenticated";
    /// `type`: too many requests; `Retry-After` says when again.
    pub const RATE_LIMITED: &str = "urn:dwcp:problem:rate-limited";
    /// `type`: the configuration would be wrong; `errors` has every mistake.
    pub const CONFIGURATION: &str = "urn:dwcp:problem:configuration";
    /// `type`: somebody else changed it in between, or the same key was used for another request.
    pub const CONFLICT: &str = "urn:dwcp:problem:conflict";
    /// `type`: the node takes no new work now (draining, disabled, too many transfers).
    pub const REFUSED: &str = "urn:dwcp:problem:refused";

    /// A problem with kind, title, status and detail.
    #[must_use]
    pub fn new(kind: &str, title: &str, status: u16, detail: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            title: title.to_owned(),
            status,
            detail: Some(detail.into()),
            instance: None,
            request_id: None,
            errors: Vec::new(),
            nearest: None,
        }
    }

    fn blank() -> String {
        "about:blank".to_owned()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => f.write_str(detail)?,
            None if self.title.is_empty() => write!(f, "HTTP status {}", self.status)?,
            None => f.write_str(&self.title)?,
        }
        if let Some(nearest) = &self.nearest {
            write!(f, " (did you mean '{nearest}'?)")?;
        }
        Ok(())
    }
}
