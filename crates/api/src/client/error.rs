//! What can go wrong between a client and control, as far as a caller can act on it.
use std::io;

use super::Endpoint;
use crate::Problem;

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot reach the daemon at {endpoint}: {source}")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is there but this user may not use it.
    #[error("no permission to use {endpoint}: {source}")]
    Permission {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// No complete answer in time.
    #[error("no answer from the daemon within {seconds} s")]
    Timeout {
        /// How long was waited.
        seconds: f64,
    },
    /// The connection broke in the middle of a request or answer.
    #[error("the connection to the daemon was lost: {0}")]
    Lost(#[source] hyper::Error),
    /// The daemon said no.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// An answer that this version does not expect.
    #[error(
        "the daemon answered with the unexpected status {status}: is it another version, or another program?"
    )]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// A body that does not fit its type.
    #[error("the daemon's answer is not what this version expects: {0}")]
    Decode(#[source] serde_json::Error),
    /// A document of another type or version.
    #[error(
        "the daemon's answer is a {found}, expected {expected}: command and daemon are of different versions"
    )]
    Schema {
        /// What was expected.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// An answer beyond its bound.
    #[error("the daemon's answer is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// What was to take the answer did not.
    #[error("the answer cannot be written: {0}")]
    Output(#[source] io::Error),
    /// Not text.
    #[error("the daemon's answer is not UTF-8")]
    Utf8,
    /// The address or path is not one that HTTP can carry.
    #[error("not a usable address: {0}")]
    Address(#[source] hyper::http::Error),
}
