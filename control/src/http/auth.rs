//! API keys over HTTP, and the audit log.
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwcp_api::{
    AuditList, AuditQuery, KeyCreated, KeyFigures, KeyList, KeyRequest, Problem, Timestamp, paths,
};

use super::body::read_json;
use super::documents::json;
use super::problem::Failure;
use crate::access::{ApiKey, RANDOM_BYTES, new_key};
use crate::app::App;

/// Every API key, without the keys themselves.
#[utoipa::path(get, path = paths::AUTH_KEYS, tag = "access",
    responses((status = 200, body = KeyList), (status = 403, body = Problem)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    let keys = app.lock().keys.list().map(figures).collect();
    json(StatusCode::OK, &KeyList { schema: KeyList::SCHEMA, keys })
}

/// Makes an API key. This answer is the only place where it is ever shown.
#[utoipa::path(post, path = paths::AUTH_KEYS, tag = "access", request_body = KeyRequest,
    responses((status = 201, body = KeyCreated), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 503, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let request: KeyRequest = read_json(&headers, body, "a request for a key").await?;
    check_name(&request.name)?;
    if request.ttl_seconds.is_some_and(|seconds| seconds == 0 || seconds > TTL_S_MAX) {
        return Err(Failure::invalid(format!("ttl_seconds must be from 1 to {TTL_S_MAX}")));
    }
    if app.lock().keys.is_full() {
        return Err(Failure::refused("there are as many keys as may be: revoke some"));
    }
    let random = random().map_err(|error| Failure::refused(format!("no random bytes: {error}")))?;
    let now_ms = app.now().unix_ms;
    let expires_ms = request.ttl_seconds.map(|seconds| now_ms.saturating_add(seconds * 1000));
    let (key, text) = new_key(request.name, request.role, expires_ms, &random, now_ms);
    app.store.insert_key(key.clone()).await.map_err(not_stored)?;
    let document = KeyCreated { schema: KeyCreated::SCHEMA, key: text, figures: figures(&key) };
    app.lock().keys.insert(key);
    Ok(json(StatusCode::CREATED, &document))
}

/// Revokes an API key: it counts no longer from this answer on.
#[utoipa::path(delete, path = paths::AUTH_KEY_PATTERN, tag = "access", params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = KeyList), (status = 403, body = Problem), (status = 404, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn revoke(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let Some(key) = app.lock().keys.remove(&id) else {
        let id: String = id.chars().filter(|c| c.is_ascii_alphanumeric()).take(64).collect();
        let detail = format!("no key has the id {id} (`dwcp auth key list` has them)");
        return Err(Failure::new(StatusCode::NOT_FOUND, Problem::UNKNOWN_KEY, "Unknown key", detail));
    };
    if let Err(error) = app.store.delete_key(id).await {
        // It would count again after the next start: say so instead of pretending.
        app.lock().keys.insert(key);
        return Err(not_stored(error));
    }
    Ok(list(State(app)).await)
}

fn figures(key: &ApiKey) -> KeyFigures {
    KeyFigures {
        id: key.id.clone(),
        name: key.name.clone(),
        role: key.role,
        created_at: Timestamp::from_unix_ms(key.created_ms),
        expires_at: key.expires_ms.map(Timestamp::from_unix_ms),
    }
}

/// Who changed what, or tried to.
#[utoipa::path(get, path = paths::AUDIT, tag = "access", params(AuditQuery),
    responses((status = 200, body = AuditList), (status = 400, body = Problem), (status = 403, body = Problem)))]
pub(super) async fn audit(
    State(app): State<Arc<App>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(AUDIT_LIMIT_DEFAULT);
    if limit == 0 || limit > AUDIT_LIMIT_MAX {
        return Err(Failure::invalid(format!("limit must be from 1 to {AUDIT_LIMIT_MAX}")));
    }
    let records = app.store.audited(limit).await.map_err(not_stored)?;
    let entries = records.into_iter().map(crate::access::AuditRecord::document).collect();
    Ok(json(StatusCode::OK, &AuditList { schema: AuditList::SCHEMA, entries }))
}

fn not_stored(error: crate::store::StoreError) -> Failure {
    let status = StatusCode::INSUFFICIENT_STORAGE;
    Failure::new(status, Problem::REFUSED, "Not stored", format!("nothing was changed: {error}"))
}

/// Names of keys and tokens are shown to people.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    let is_usable =
        (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if is_usable {
        return Ok(());
    }
    Err(Failure::invalid(format!("name must be 1 to {NAME_CHARS_MAX} printable characters")))
}

/// From the kernel.
fn random() -> std::io::Result<[u8; RANDOM_BYTES]> {
    use std::io::Read;
    let mut bytes = [0; RANDOM_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

const NAME_CHARS_MAX: usize = 64;
/// Ten years.
const TTL_S_MAX: u64 = 10 * 366 * 24 * 3600;
const AUDIT_LIMIT_DEFAULT: u16 = 100;
const AUDIT_LIMIT_MAX: u16 = 1000;
