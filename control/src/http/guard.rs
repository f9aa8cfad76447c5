//! What every request passes: who may ask what, how long it may take, its id, its count. Loopback is trusted only
//! where no web page can stand behind it: a page on another site can make a browser of this host send requests, and
//! a name that resolves to 127.0.0.1 lets it read the answers.
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dwcp_api::{Problem, paths};

use super::problem::Failure;
use crate::app::App;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerKind {
    /// The unix socket; its mode says who may connect.
    Unix,
    /// This host.
    Loopback,
    /// Any other host.
    Remote,
}

/// Wraps every handler.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str()).to_owned();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let id = request_id(request.headers());
    let kind = request.extensions().get::<PeerKind>().copied().unwrap_or(PeerKind::Remote);
    let trusts_loopback = app.settings().config.security.trust_loopback;
    let result = match permit(kind, trusts_loopback, &path, request.headers()) {
        Ok(()) => tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await.map_err(|_| {
            Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "about:blank",
                "Timed out",
                "the request took too long",
            )
        }),
        Err(failure) => Err(failure),
    };
    let mut response = match result {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    };
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.instance = Some(path);
        problem.request_id = Some(id.clone());
        response = super::problem::render(response, &problem);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    app.http.count(&route, &method, response.status(), begin.elapsed());
    response
}

fn permit(kind: PeerKind, trusts_loopback: bool, path: &str, headers: &HeaderMap) -> Result<(), Failure> {
    if kind == PeerKind::Unix || is_public(path) {
        return Ok(());
    }
    let refuse =
        |detail: &str| Err(Failure::new(StatusCode::FORBIDDEN, Problem::PERMISSION, "Not permitted", detail));
    if kind == PeerKind::Remote {
        return refuse(
            "from other hosts only health, readiness and metrics are served: use `dwcp` on the node itself, or its socket by way of `ssh -L`",
        );
    }
    if !trusts_loopback {
        return refuse("security.trust_loopback is false: use the unix socket");
    }
    if !host_is_local(headers) {
        return refuse("the Host header must be localhost, 127.0.0.1 or [::1]");
    }
    let is_foreign =
        headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if headers.contains_key(header::ORIGIN) || is_foreign {
        return refuse("requests from web pages are not taken");
    }
    Ok(())
}

fn is_public(path: &str) -> bool {
    let fixed = [paths::HEALTH, paths::READY, paths::LIVE, paths::METRICS, paths::BREAKER_STATE];
    let mut all = fixed.into_iter().chain(paths::READY_ALIASES).chain(paths::LIVE_ALIASES);
    all.any(|public| public == path)
}

fn host_is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| name.eq_ignore_ascii_case(local))
}

/// The caller's id where it is harmless, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let given = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match given.filter(harmless) {
        Some(id) => id.to_owned(),
        None => format!("{}-{}", std::process::id(), NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
    }
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_local_programs_are_trusted() {
        let ok = |kind, trust, path: &str, pairs: &[(&'static str, &'static str)]| {
            permit(kind, trust, path, &headers(pairs)).is_ok()
        };
        let status = paths::STATUS;
        assert!(ok(PeerKind::Unix, false, status, &[]));
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]", "[::1]:8080"] {
            assert!(ok(PeerKind::Loopback, true, status, &[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:80", ""]
        {
            assert!(!ok(PeerKind::Loopback, true, status, &[("host", host)]), "{host}");
        }
        let local = ("host", "localhost");
        assert!(!ok(PeerKind::Loopback, true, status, &[]));
        assert!(!ok(PeerKind::Loopback, false, status, &[local]));
        assert!(!ok(PeerKind::Loopback, true, status, &[local, ("origin", "http://localhost:8080")]));
        assert!(!ok(PeerKind::Loopback, true, status, &[local, ("sec-fetch-site", "cross-site")]));
        assert!(ok(PeerKind::Loopback, true, status, &[local, ("sec-fetch-site", "none")]));
        assert!(!ok(PeerKind::Remote, true, status, &[local]));
        for path in ["/health", "/ready", "/readyz", "/live", "/metrics"] {
            assert!(ok(PeerKind::Remote, true, path, &[("host", "node-1")]), "{path}");
        }
    }
}
