//! Copies of the state: made while the node works, judged, and handed back for the next start.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use dwcp_api::{BackupVerdict, ConfigChangeQuery, Problem, paths};
use tokio_stream::StreamExt;

use super::documents::json;
use super::problem::Failure;
use crate::app::App;
use crate::store::{inspect, pending};

/// A consistent copy of the transfers, as an SQLite file. Neither configuration nor identity is in it.
#[utoipa::path(post, path = paths::BACKUP, tag = "state",
    responses((status = 200, content_type = "application/vnd.sqlite3", body = Vec<u8>), (status = 507, body = Problem)))]
pub(super) async fn backup(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let aside = Aside::new(&app.store_file);
    app.store.copy(aside.0.clone()).await.map_err(|error| no_room(&error.to_string()))?;
    let bytes = std::fs::read(&aside.0).map_err(|error| no_room(&error.to_string()))?;
    tracing::info!(component = "store", bytes = bytes.len(), "state backed up");
    app.note_backup(bytes.len() as u64);
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SQLITE));
    if let Ok(digest) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        headers.insert(header::ETAG, digest);
    }
    Ok(response)
}

/// Takes a copy for the next start of control; what is there now is kept beside it. Only while the node is drained;
/// `?dry_run=true` judges the copy at any time.
#[utoipa::path(post, path = paths::RESTORE, tag = "state", params(ConfigChangeQuery),
    request_body(content = Vec<u8>, content_type = "application/vnd.sqlite3"),
    responses((status = 200, body = BackupVerdict), (status = 202, body = BackupVerdict), (status = 400, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    query: Result<Query<ConfigChangeQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value != SQLITE) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let detail = format!("Content-Type must be {SQLITE}");
        return Err(Failure::new(status, Problem::INVALID_REQUEST, "Unsupported type", detail));
    }
    let is_drained = {
        let shared = app.lock();
        shared.jobs.is_draining() && shared.jobs.under_way() == 0
    };
    if !query.dry_run && !is_drained {
        return Err(Failure::refused("the node must be drained first: `dwcp shutdown --drain`"));
    }
    let aside = Aside::new(&app.store_file);
    receive(body, &aside.0).await?;
    let facts = inspect(&aside.0).map_err(|error| Failure::impossible(error.to_string()))?;
    let verdict = BackupVerdict {
        schema: BackupVerdict::SCHEMA,
        layout: facts.layout.unsigned_abs(),
        transfers: facts.transfers,
        unfinished: facts.unfinished,
        waits_for_restart: !query.dry_run,
    };
    if query.dry_run {
        return Ok(json(StatusCode::OK, &verdict));
    }
    std::fs::rename(&aside.0, pending(&app.store_file)).map_err(|error| no_room(&error.to_string()))?;
    tracing::warn!(
        component = "store",
        transfers = facts.transfers,
        "state waits for the next start of control"
    );
    Ok(json(StatusCode::ACCEPTED, &verdict))
}

async fn receive(body: Body, target: &Path) -> Result<(), Failure> {
    let write_error = |error: std::io::Error| no_room(&error.to_string());
    let mut file = std::fs::File::create(target).map_err(write_error)?;
    let mut stream = body.into_data_stream();
    let mut total = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| Failure::invalid("the body broke off"))?;
        total += piece.len() as u64;
        if total > COPY_BYTES_MAX {
            let detail = format!("a copy may have {COPY_BYTES_MAX} bytes at most");
            return Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Problem::INVALID_REQUEST,
                "Too large",
                detail,
            ));
        }
        file.write_all(&piece).map_err(write_error)?;
    }
    file.sync_all().map_err(write_error)
}

fn no_room(reason: &str) -> Failure {
    let detail = format!("the state directory did not take it: {reason}");
    Failure::new(StatusCode::INSUFFICIENT_STORAGE, Problem::REFUSED, "Not stored", detail)
}

/// A file beside the store that is gone with the request.
struct Aside(PathBuf);

impl Aside {
    fn new(store: &Path) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        // Relaxed: only the number must differ.
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(store.with_extension(format!("db.aside-{}-{number}", std::process::id())))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // It may never have been made, or have moved on.
        drop(std::fs::remove_file(&self.0));
    }
}

const SQLITE: &str = "application/vnd.sqlite3";
const COPY_BYTES_MAX: u64 = 1 << 30;
