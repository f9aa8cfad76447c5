//! Certificates of the HTTPS interface: what they say, and what is wrong with them.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema::documents;
use crate::{PathText, SchemaName, Timestamp};

documents!(CertificateList = "dwcp.certificates/1");

/// Answer of `GET /api/v1/dwcp/certificates`: the files as they are now, which may be newer than what is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateList {
    /// `dwcp.certificates/1`.
    pub schema: SchemaName,
    /// Whether HTTPS is served.
    pub serving: bool,
    /// Of the interface, the first of its chain; then those whose signature makes a client's certificate count.
    pub certificates: Vec<CertificateFigures>,
    /// What was looked at, and what is wrong.
    pub findings: Vec<CertificateFinding>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateFigures {
    /// `server` or `ca`.
    pub name: String,
    /// Where it lies.
    pub file: PathText,
    /// Its subject.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// DNS names and addresses that it is for.
    pub names: Vec<String>,
    /// From when on it is valid.
    pub valid_from: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Whole days until then; negative afterwards.
    pub days_left: i64,
    /// `sha256:` and 64 hexadecimal digits.
    pub fingerprint: String,
    /// Whether connections are served with it, or judged by it, now.
    pub in_use: bool,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateFinding {
    /// Stable name, such as `certificate.expiry`.
    pub id: String,
    /// How it is.
    pub verdict: CertificateVerdict,
    /// What was found.
    pub detail: String,
    /// What to do.
    pub next: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertificateVerdict {
    /// As it should be.
    Ok,
    /// Works, and will not for long, or not for everybody.
    Warn,
    /// Keeps clients out, or lets others in.
    Fail,
}

/// From so many days before its expiry on, a certificate is warned of.
pub const CERTIFICATE_WARNING_DAYS: i64 = 14;
