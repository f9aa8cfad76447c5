//! Typed client of control's HTTP interface, over a unix socket or plain TCP. One connection per request: the
//! command lives for a moment, and a connection that follows a transfer must not hold up another request.
mod cluster;
mod connection;
mod error;
mod events;
mod node;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::ClientError;
pub use events::{TransferEvent, TransferEvents};

use crate::{
    CompressionStats, ConfigDocument, Document, Health, PeerList, Ready, Stats, Status, Transfer, TransferId,
    TransferList, TransferQuery, TransferRequest, paths,
};
use connection::Reply;

/// Where control listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`, plain HTTP.
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// A client of one control. Cheap to make: nothing is opened before the first request.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
}

impl Client {
    /// A client of the control at `endpoint`; `timeout` bounds each whole request.
    #[must_use]
    pub fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self { endpoint, timeout }
    }

    /// Where it asks.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `GET /health`; an unhealthy node answers too.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn health(&self) -> Result<Health, ClientError> {
        let reply = self.exchange(Method::GET, paths::HEALTH, None).await?;
        reply.parse_with(&[StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE])
    }

    /// `GET /ready`; a node that is not ready answers too.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn ready(&self) -> Result<Ready, ClientError> {
        let reply = self.exchange(Method::GET, paths::READY, None).await?;
        reply.parse_with(&[StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE])
    }

    /// `GET /metrics`, the Prometheus text.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.exchange(Method::GET, paths::METRICS, None).await?.text()
    }

    /// `GET /api/v1/dwcp/status`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.document(paths::STATUS).await
    }

    /// `GET /api/v1/dwcp/stats`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.document(paths::STATS).await
    }

    /// `GET /api/v1/dwcp/hde/stats`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn compression_stats(&self) -> Result<CompressionStats, ClientError> {
        self.document(paths::HDE_STATS).await
    }

    /// `GET /api/v1/dwcp/peers`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn peers(&self) -> Result<PeerList, ClientError> {
        self.document(paths::PEERS).await
    }

    /// `GET /api/v1/dwcp/config`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn config(&self) -> Result<ConfigDocument, ClientError> {
        self.document(paths::CONFIG).await
    }

    /// `GET /api/v1/dwcp/transfers`, one page.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn transfers(&self, query: &TransferQuery) -> Result<TransferList, ClientError> {
        self.document(&with_query(paths::TRANSFERS, query)).await
    }

    /// `GET /api/v1/dwcp/transfers/{id}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn transfer(&self, id: TransferId) -> Result<Transfer, ClientError> {
        self.document(&paths::transfer(id)).await
    }

    /// `POST /api/v1/dwcp/transfers`: once this returns, the transfer is durable.
    ///
    /// # Errors
    /// Any [`ClientError`]; after [`ClientError::Timeout`] or [`ClientError::Lost`] the transfer may exist.
    pub async fn create_transfer(&self, request: &TransferRequest) -> Result<Transfer, ClientError> {
        let body = to_json(request)?;
        let reply = self.exchange(Method::POST, paths::TRANSFERS, Some(body)).await?;
        check(reply.parse_with(&[StatusCode::CREATED])?)
    }

    /// `DELETE /api/v1/dwcp/transfers/{id}`: asks for the end; the state follows when the dataplane agrees.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn cancel_transfer(&self, id: TransferId) -> Result<Transfer, ClientError> {
        let reply = self.exchange(Method::DELETE, &paths::transfer(id), None).await?;
        check(reply.parse_with(&[StatusCode::ACCEPTED])?)
    }

    /// `POST …/{id}/pause`: lets it rest; the state follows when the dataplane has ended the attempt.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn pause_transfer(&self, id: TransferId) -> Result<Transfer, ClientError> {
        let reply = self.exchange(Method::POST, &paths::transfer_pause(id), None).await?;
        check(reply.parse_with(&[StatusCode::ACCEPTED])?)
    }

    /// `POST …/{id}/resume`: lets it go on with what has arrived.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn resume_transfer(&self, id: TransferId) -> Result<Transfer, ClientError> {
        let reply = self.exchange(Method::POST, &paths::transfer_resume(id), None).await?;
        check(reply.parse_with(&[StatusCode::ACCEPTED])?)
    }

    /// `GET …/{id}/events`: the transfer's states until its end.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn follow_transfer(&self, id: TransferId) -> Result<TransferEvents, ClientError> {
        let path = paths::transfer_events(id);
        let opening = connection::open(&self.endpoint, Method::GET, &path, None);
        let response = self.within(opening).await?;
        if response.status() != StatusCode::OK {
            return Err(self.within(Reply::read(response)).await?.into_error());
        }
        Ok(TransferEvents::new(response.into_body()))
    }

    async fn document<T: Document>(&self, path: &str) -> Result<T, ClientError> {
        let reply = self.exchange(Method::GET, path, None).await?;
        check(reply.parse_with(&[StatusCode::OK])?)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Reply, ClientError> {
        let work = async {
            let response = connection::open(&self.endpoint, method, path, body).await?;
            Reply::read(response).await
        };
        self.within(work).await
    }

    /// As [`Self::exchange`], for a body that is no JSON; not bounded in time.
    async fn send_bytes(
        &self,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Reply, ClientError> {
        Reply::read(connection::open_as(&self.endpoint, Method::POST, path, content_type, Some(body)).await?)
            .await
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ClientError::Timeout { seconds: self.timeout.as_secs_f64() }),
        }
    }
}

/// Refuses a document of another type or version.
fn check<T: Document>(document: T) -> Result<T, ClientError> {
    let found = document.schema().as_str();
    if found == T::NAME {
        return Ok(document);
    }
    Err(ClientError::Schema { expected: T::NAME, found: found.to_owned() })
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(ClientError::Decode)
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(ClientError::Decode)
}

fn with_query(path: &str, query: &TransferQuery) -> String {
    let mut pairs = Vec::new();
    if let Some(state) = query.state {
        pairs.push(format!("state={}", state.name()));
    }
    if let Some(limit) = query.limit {
        pairs.push(format!("limit={limit}"));
    }
    if let Some(cursor) = &query.cursor {
        pairs.push(format!("cursor={}", percent_encode(cursor)));
    }
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// All but the unreserved characters of RFC 3986 section 2.3.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
