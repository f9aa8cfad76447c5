//! What every request passes: who may ask what, how long it may take, its id, its count. Loopback is trusted only
//! where no web page can stand behind it: a page on another site can make a browser of this host send requests, and
//! a name that resolves to 127.0.0.1 lets it read the answers.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dwcp_api::{Problem, Role, paths};

use super::caller::{Caller, PeerKind, Shown, identify};
use super::problem::Failure;
use crate::access::AuditRecord;
use crate::app::App;

/// What of a request decides whether it is served.
struct Asked<'a> {
    kind: PeerKind,
    shown: Option<&'a Shown>,
    method: &'a Method,
    path: &'a str,
}

/// Wraps every handler.
pub(super) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let id = request_id(request.headers());
    let kind = request.extensions().get::<PeerKind>().copied().unwrap_or(PeerKind::Remote { ip: NOBODY });
    let shown = request.extensions().get::<Option<Arc<Shown>>>().cloned().flatten();
    let mut caller = None;
    let asked = Asked { kind, shown: shown.as_deref(), method: &method, path: &path };
    let admitted = admit(&app, &asked, request.headers(), &mut caller);
    if let Some(caller) = caller.clone() {
        request.extensions_mut().insert(caller);
    }
    let result = match admitted {
        Ok(()) => tokio::time::timeout(timeout_of(&path), next.run(request)).await.map_err(|_| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Failure::new(status, "about:blank", "Timed out", "the request took too long")
        }),
        Err(failure) => Err(failure),
    };
    let mut response = match result {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    };
    let is_change = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&method);
    if is_change {
        audit(&app, kind, caller, &method, &path, response.status(), &id);
    }
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.instance = Some(path);
        problem.request_id = Some(id.clone());
        response = super::problem::render(response, &problem);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    app.http.count(route, &method, response.status(), begin.elapsed());
    response
}

/// Whether the request may be served; says who the caller is where that was asked at all.
fn admit(
    app: &App,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    caller: &mut Option<Caller>,
) -> Result<(), Failure> {
    if is_public(asked.path) && asked.method != Method::POST {
        return Ok(());
    }
    if asked.kind == PeerKind::Loopback && app.settings().config.security.trust_loopback {
        no_web_page(headers)?;
    }
    let known = caller.insert(identify(app, asked.kind, asked.shown, headers));
    limit(app, asked.kind, known)?;
    permit(asked.kind, known, asked.method, asked.path)
}

/// A key has its requests, and an address that is nobody has its own: who guesses keys runs out of them.
fn limit(app: &App, kind: PeerKind, caller: &Caller) -> Result<(), Failure> {
    let client = match kind {
        PeerKind::Unix { .. } | PeerKind::Loopback => return Ok(()),
        PeerKind::Remote { ip } | PeerKind::Secure { ip } if caller.role.is_none() => network(ip),
        PeerKind::Remote { .. } | PeerKind::Secure { .. } => caller.client.clone(),
    };
    let now = app.now().uptime;
    let verdict = app.lock().limiter.handle_request(&client, now);
    if verdict.is_served {
        return Ok(());
    }
    app.http.count_limited();
    let seconds = verdict.retry_after.as_secs_f64().ceil() as u64;
    let detail = format!("too many requests: again in {seconds} s (security.rate_limit)");
    let failure =
        Failure::new(StatusCode::TOO_MANY_REQUESTS, Problem::RATE_LIMITED, "Too many requests", detail);
    Err(failure.with_retry_after(seconds.max(1)))
}

/// The part of an address that stands for one client: an IPv6 site has 2^64 of its own.
fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("{}/64", std::net::Ipv6Addr::from(u128::from(ip) >> 64 << 64)),
    }
}

fn permit(kind: PeerKind, caller: &Caller, method: &Method, path: &str) -> Result<(), Failure> {
    let refuse =
        |detail: &str| Err(Failure::new(StatusCode::FORBIDDEN, Problem::PERMISSION, "Not permitted", detail));
    let Some(role) = caller.role else {
        return match kind {
            PeerKind::Secure { .. } => Err(Failure::new(
                StatusCode::UNAUTHORIZED,
                Problem::UNAUTHENTICATED,
                "Who are you",
                caller.why.as_deref().unwrap_or(WHO),
            )),
            PeerKind::Loopback => refuse("security.trust_loopback is false: use the unix socket"),
            PeerKind::Unix { .. } | PeerKind::Remote { .. } => refuse(
                "from other hosts only health, readiness and metrics are served in clear: use HTTPS (api.tls_listen), `dwcp` on the node itself, or its socket by way of `ssh -L`",
            ),
        };
    };
    let needed = crate::access::required(method, path);
    if role >= needed {
        return Ok(());
    }
    let way_out = match kind {
        PeerKind::Unix { .. } => "use sudo",
        PeerKind::Loopback | PeerKind::Remote { .. } | PeerKind::Secure { .. } => {
            "use a key, a token or a certificate with that role"
        }
    };
    refuse(&format!("this needs the role {}, {} has {}: {way_out}", needed.name(), caller.name, role.name()))
}

fn no_web_page(headers: &HeaderMap) -> Result<(), Failure> {
    let refuse =
        |detail: &str| Err(Failure::new(StatusCode::FORBIDDEN, Problem::PERMISSION, "Not permitted", detail));
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

/// Notes who changed what, or tried to: in the log, and durably in the store.
fn audit(
    app: &Arc<App>,
    kind: PeerKind,
    caller: Option<Caller>,
    method: &Method,
    path: &str,
    status: StatusCode,
    id: &str,
) {
    let caller = caller.unwrap_or_else(|| Caller::stranger(format!("{kind:?}")));
    let role = caller.role.map_or("", Role::name);
    let (who, method, code) = (caller.name.as_str(), method.as_str(), status.as_u16());
    // Paths of strangers are of their making; what is shown of them is bounded.
    let path: String = path.chars().filter(|c| !c.is_control()).take(PATH_CHARS_MAX).collect();
    tracing::info!(component = "audit", who, role, method, path, status = code, request_id = id, "request");
    if caller.role.is_none() {
        // Strangers must not be able to fill the store.
        return;
    }
    let record = AuditRecord {
        at_ms: app.now().unix_ms,
        who: caller.name.clone(),
        role: role.to_owned(),
        method: method.to_owned(),
        path,
        status: code,
        request_id: id.to_owned(),
    };
    app.store.audit(record, |result| {
        if let Err(error) = result {
            tracing::error!(component = "audit", %error, "audit log not written");
        }
    });
}

/// Copies of the state may be large; who joins a cluster waits for an epoch.
fn timeout_of(path: &str) -> Duration {
    let is_long = [paths::BACKUP, paths::RESTORE, paths::CLUSTER_MEMBERS].contains(&path);
    if is_long { COPY_TIMEOUT } else { REQUEST_TIMEOUT }
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

const WHO: &str = "give an API key (`dwcp auth key create` on the node makes one) or a token (`dwcp auth token`) as `Authorization: Bearer …`, or show a certificate where security.enable_mtls is on";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const COPY_TIMEOUT: Duration = Duration::from_secs(600);
const PATH_CHARS_MAX: usize = 200;
/// A request without a peer, which there is none of.
const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn web_pages_are_no_local_programs() {
        let ok = |pairs: &[(&'static str, &'static str)]| no_web_page(&headers(pairs)).is_ok();
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]", "[::1]:8080"] {
            assert!(ok(&[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:80", ""]
        {
            assert!(!ok(&[("host", host)]), "{host}");
        }
        let local = ("host", "localhost");
        assert!(!ok(&[]));
        assert!(!ok(&[local, ("origin", "http://localhost:8080")]));
        assert!(!ok(&[local, ("sec-fetch-site", "cross-site")]));
        assert!(ok(&[local, ("sec-fetch-site", "none")]) && ok(&[local, ("sec-fetch-site", "same-origin")]));
    }

    #[test]
    fn roles_decide_and_strangers_may_nothing() {
        let caller = |role| Caller { role, ..Caller::stranger("x") };
        let may = |kind, role, method: &Method, path: &str| permit(kind, &caller(role), method, path).is_ok();
        let secure = PeerKind::Secure { ip: IP };
        assert!(may(secure, Some(Role::Read), &Method::GET, paths::STATUS));
        assert!(!may(secure, Some(Role::Read), &Method::POST, paths::TRANSFERS));
        assert!(may(secure, Some(Role::Operate), &Method::POST, paths::TRANSFERS));
        assert!(!may(secure, Some(Role::Operate), &Method::PATCH, paths::CONFIG));
        assert!(may(secure, Some(Role::Admin), &Method::PATCH, paths::CONFIG));
        for kind in [secure, PeerKind::Remote { ip: IP }, PeerKind::Loopback] {
            assert!(!may(kind, None, &Method::GET, paths::STATUS), "{kind:?}");
        }
        for path in ["/health", "/ready", "/readyz", "/live", "/metrics", "/circuit-breaker/state"] {
            assert!(is_public(path), "{path}");
        }
        assert!(!is_public(paths::STATUS) && !is_public("/healthy"));
        assert_eq!(network("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::/64");
    }
}
