//! Requests about the node itself: breakers, configuration, draining, events. Part of the client.
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};

use super::connection::{self, Reply};
use super::{Client, ClientError, check, percent_encode, to_json};
use crate::{
    AuditList, BackupVerdict, BreakerReset, CertificateList, CircuitBreakers, ComponentList, ConfigChange,
    ConfigDocument, Document, DrainStatus, EventList, EventQuery, FlowList, Health, KernelReport, KeyCreated,
    KeyList, KeyRequest, LatencyQuery, LatencyReport, LogLines, PingAnswer, TokenIssued, TokenKeyList,
    TokenRequest, TransportReport, TunnelAnswer, TunnelList, TunnelRequest, paths,
};

impl Client {
    /// `GET /api/v1/dwcp/circuit-breakers`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn circuit_breakers(&self) -> Result<CircuitBreakers, ClientError> {
        self.document(paths::BREAKERS).await
    }

    /// `POST /circuit-breaker/reset`: of one peer, or of all.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn reset_circuit_breaker(&self, peer: Option<&str>) -> Result<BreakerReset, ClientError> {
        let path = match peer {
            Some(peer) => format!("{}?peer={}", paths::BREAKER_RESET, percent_encode(peer)),
            None => paths::BREAKER_RESET.to_owned(),
        };
        self.change(Method::POST, &path, None, StatusCode::OK).await
    }

    /// `POST /api/v1/dwcp/peers/{name}/ping`: one round trip.
    ///
    /// # Errors
    /// Any [`ClientError`]; that nobody answered is none.
    pub async fn ping(&self, peer: &str) -> Result<PingAnswer, ClientError> {
        let path = paths::PING_PATTERN.replace("{name}", &percent_encode(peer));
        self.change(Method::POST, &path, None, StatusCode::OK).await
    }

    /// `GET /api/v1/dwcp/tunnels`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn tunnels(&self) -> Result<TunnelList, ClientError> {
        self.document(paths::TUNNELS).await
    }

    /// `POST /api/v1/dwcp/tunnels`.
    ///
    /// # Errors
    /// Any [`ClientError`]; then there is no such tunnel.
    pub async fn add_tunnel(&self, request: &TunnelRequest) -> Result<TunnelAnswer, ClientError> {
        self.change(Method::POST, paths::TUNNELS, Some(to_json(request)?), StatusCode::CREATED).await
    }

    /// `DELETE /api/v1/dwcp/tunnels?listen=…`: what is left.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn remove_tunnel(&self, listen: &str) -> Result<TunnelList, ClientError> {
        let path = format!("{}?listen={}", paths::TUNNELS, percent_encode(listen));
        self.change(Method::DELETE, &path, None, StatusCode::OK).await
    }

    /// `GET /api/v1/dwcp/flows`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn flows(&self) -> Result<FlowList, ClientError> {
        self.document(paths::FLOWS).await
    }

    /// `GET /api/v1/dwcp/kernel`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn kernel(&self) -> Result<KernelReport, ClientError> {
        self.document(paths::KERNEL).await
    }

    /// `GET /api/v1/dwcp/debug/transport?mode=rdma`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn rdma(&self) -> Result<TransportReport, ClientError> {
        self.document(&format!("{}?mode=rdma", paths::DEBUG_TRANSPORT)).await
    }

    /// `GET /api/v1/dwcp/debug/latency`.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Problem`] where there is no such peer.
    pub async fn latency(&self, query: &LatencyQuery) -> Result<LatencyReport, ClientError> {
        let job = query.job.map(|job| format!("job={job}"));
        let peer = query.peer.as_ref().map(|peer| format!("peer={}", percent_encode(peer)));
        let query: Vec<String> = job.into_iter().chain(peer).collect();
        self.document(&format!("{}?{}", paths::DEBUG_LATENCY, query.join("&"))).await
    }

    /// `GET /health?verbose=true`; an unhealthy node answers too.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn health_verbose(&self) -> Result<Health, ClientError> {
        let reply = self.exchange(Method::GET, &format!("{}?verbose=true", paths::HEALTH), None).await?;
        reply.parse_with(&[StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE])
    }

    /// `GET /api/v1/dwcp/components`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn components(&self) -> Result<ComponentList, ClientError> {
        self.document(paths::COMPONENTS).await
    }

    /// `GET /api/v1/dwcp/config?origin=true`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn config_with_origins(&self) -> Result<ConfigDocument, ClientError> {
        self.document(&format!("{}?origin=true", paths::CONFIG)).await
    }

    /// `PATCH /api/v1/dwcp/config`: an object of keys; null takes back what was set.
    ///
    /// # Errors
    /// Any [`ClientError`]; then nothing has changed.
    pub async fn set_config(
        &self,
        changes: &serde_json::Map<String, serde_json::Value>,
        dry_run: bool,
    ) -> Result<ConfigChange, ClientError> {
        let path = format!("{}?dry_run={dry_run}", paths::CONFIG);
        self.change(Method::PATCH, &path, Some(to_json(changes)?), StatusCode::OK).await
    }

    /// `POST /api/v1/dwcp/config/reload`.
    ///
    /// # Errors
    /// Any [`ClientError`]; then nothing has changed.
    pub async fn reload_config(&self, dry_run: bool) -> Result<ConfigChange, ClientError> {
        let path = format!("{}?dry_run={dry_run}", paths::CONFIG_RELOAD);
        self.change(Method::POST, &path, None, StatusCode::OK).await
    }

    /// `GET /api/v1/dwcp/drain`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn drain_status(&self) -> Result<DrainStatus, ClientError> {
        self.document(paths::DRAIN).await
    }

    /// `POST /api/v1/dwcp/drain`: no new transfers from now on.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn drain(&self) -> Result<DrainStatus, ClientError> {
        self.change(Method::POST, paths::DRAIN, None, StatusCode::ACCEPTED).await
    }

    /// `DELETE /api/v1/dwcp/drain`: transfers again.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn undrain(&self) -> Result<DrainStatus, ClientError> {
        self.change(Method::DELETE, paths::DRAIN, None, StatusCode::OK).await
    }

    /// `GET /api/v1/dwcp/events`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn events(&self, query: &EventQuery) -> Result<EventList, ClientError> {
        self.document(&with_query(paths::EVENTS, query)).await
    }

    /// `GET /api/v1/dwcp/logs`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn logs(&self, query: &EventQuery) -> Result<LogLines, ClientError> {
        self.document(&with_query(paths::LOGS, query)).await
    }

    /// `GET /api/v1/auth/keys`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn api_keys(&self) -> Result<KeyList, ClientError> {
        self.document(paths::AUTH_KEYS).await
    }

    /// `POST /api/v1/auth/keys`: the only answer that has the key.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn create_api_key(&self, request: &KeyRequest) -> Result<KeyCreated, ClientError> {
        self.change(Method::POST, paths::AUTH_KEYS, Some(to_json(request)?), StatusCode::CREATED).await
    }

    /// `DELETE /api/v1/auth/keys/{id}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn revoke_api_key(&self, id: &str) -> Result<KeyList, ClientError> {
        let path = format!("{}/{}", paths::AUTH_KEYS, percent_encode(id));
        self.change(Method::DELETE, &path, None, StatusCode::OK).await
    }

    /// `GET /api/v1/dwcp/certificates`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn certificates(&self) -> Result<CertificateList, ClientError> {
        self.document(paths::CERTIFICATES).await
    }

    /// `POST /api/v1/auth/token`.
    ///
    /// # Errors
    /// Any [`ClientError`]; then there is no token.
    pub async fn issue_token(&self, request: &TokenRequest) -> Result<TokenIssued, ClientError> {
        self.change(Method::POST, paths::AUTH_TOKEN, Some(to_json(request)?), StatusCode::CREATED).await
    }

    /// `GET /api/v1/auth/token-keys`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn token_keys(&self) -> Result<TokenKeyList, ClientError> {
        self.document(paths::AUTH_TOKEN_KEYS).await
    }

    /// `POST /api/v1/auth/token-keys`: a new key; no token counts that was made before.
    ///
    /// # Errors
    /// Any [`ClientError`]; then the former keys stay.
    pub async fn rotate_token_keys(&self) -> Result<TokenKeyList, ClientError> {
        self.change(Method::POST, paths::AUTH_TOKEN_KEYS, None, StatusCode::OK).await
    }

    /// `GET /api/v1/dwcp/audit`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn audit(&self, limit: Option<u16>) -> Result<AuditList, ClientError> {
        let query = limit.map(|limit| format!("?limit={limit}")).unwrap_or_default();
        self.document(&format!("{}{query}", paths::AUDIT)).await
    }

    /// `POST /api/v1/dwcp/backup`: the copy's bytes, written to `target` as they come. Not bounded in time.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Output`] where `target` does not take them.
    pub async fn back_up(&self, target: &mut impl std::io::Write) -> Result<u64, ClientError> {
        let response = connection::open(&self.endpoint, Method::POST, paths::BACKUP, None).await?;
        if response.status() != StatusCode::OK {
            return Err(Reply::read(response).await?.into_error());
        }
        let mut body = response.into_body();
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(ClientError::Lost)?.into_data() else { continue };
            target.write_all(&piece).map_err(ClientError::Output)?;
            total += piece.len() as u64;
        }
        target.flush().map_err(ClientError::Output)?;
        Ok(total)
    }

    /// `POST /api/v1/dwcp/restore`: the node takes the copy for its next start, or only judges it.
    ///
    /// # Errors
    /// Any [`ClientError`]; then nothing has changed.
    pub async fn restore(&self, copy: Vec<u8>, dry_run: bool) -> Result<BackupVerdict, ClientError> {
        let path = format!("{}?dry_run={dry_run}", paths::RESTORE);
        let reply = self.send_bytes(&path, "application/vnd.sqlite3", copy).await?;
        check(reply.parse_with(&[StatusCode::OK, StatusCode::ACCEPTED])?)
    }

    /// A request that changes something, and its document.
    pub(super) async fn change<T: Document>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        expected: StatusCode,
    ) -> Result<T, ClientError> {
        let reply = self.exchange(method, path, body).await?;
        check(reply.parse_with(&[expected])?)
    }
}

fn with_query(path: &str, query: &EventQuery) -> String {
    let mut pairs = Vec::new();
    if let Some(after) = query.after {
        pairs.push(format!("after={after}"));
    }
    if let Some(limit) = query.limit {
        pairs.push(format!("limit={limit}"));
    }
    if let Some(component) = &query.component {
        pairs.push(format!("component={}", percent_encode(component)));
    }
    if let Some(wait) = query.wait {
        pairs.push(format!("wait={wait}"));
    }
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}
