//! Transfers: create, list, show, cancel, pause, resume. A request is checked whole before it becomes a job; it is durable before it
//! is answered.
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use dwcp_abi::wire::{FILTER_LIST_BYTES_MAX, FILTER_PATTERN_BYTES_MAX, FILTERS_MAX, filter_rules};
use dwcp_api::{
    Direction, Filter, PathText, Problem, SOURCES_MAX, Transfer, TransferId, TransferList, TransferQuery,
    TransferRequest, paths,
};
use dwcp_policy::{Admission, Refusal};

use super::body::read_json;
use super::documents::json;
use super::problem::Failure;
use crate::app::App;
use crate::jobs::{JobRequest, Order, Pace, fits_the_ring, join_filters};
use crate::store::PageQuery;

/// Orders a transfer; once this answers, it is durable.
#[utoipa::path(post, path = paths::TRANSFERS, tag = "transfers", request_body = TransferRequest,
    params(("idempotency-key" = Option<String>, Header, description = "1 to 64 letters, digits, `-`, `_`, `.`: a repeated request with the same key orders nothing and gets the first one's transfer")),
    responses((status = 201, body = Transfer), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
        (status = 503, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let key = idempotency_key(&headers)?;
    let request: TransferRequest = read_json(&headers, body, "a transfer request").await?;
    check_options(&request)?;
    check_paths(&request)?;
    check_peer(&app, &request.peer)?;
    let request = JobRequest::from(request);
    if !fits_the_ring(&request) {
        return Err(Failure::impossible(
            "the sources and filters are too long for one transfer (16 KiB together): order several",
        ));
    }
    if let Some(key) = &key
        && let Some(response) = replay(&app, key, &request).await?
    {
        return Ok(response);
    }
    let is_enabled = app.settings().config.enabled;
    let admitted = app.change(|shared, now| {
        if key.as_ref().is_some_and(|key| shared.jobs.find_key(key).is_some()) {
            return Err(conflict("another request with this Idempotency-Key is being answered: ask again"));
        }
        let admission = Admission { active_max: JOBS_ACTIVE_MAX };
        admission.admit(is_enabled, shared.jobs.is_draining(), shared.jobs.active()).map_err(refused)?;
        Ok(shared.jobs.create(Arc::new(request), key, now))
    });
    let (id, durable) = admitted?;
    if durable.await != Ok(true) {
        let detail = "the job store did not take it, see /health?verbose=true: nothing was started";
        return Err(Failure::new(StatusCode::INSUFFICIENT_STORAGE, Problem::REFUSED, "Not stored", detail));
    }
    created(&app, id).await
}

async fn created(app: &App, id: u64) -> Result<Response, Failure> {
    let mut response = json(StatusCode::CREATED, &find(app, id).await?);
    if let Ok(location) = HeaderValue::from_str(&paths::transfer(TransferId(id))) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The key of an order that may be repeated.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let usable = |key: &&str| {
        (1..=64).contains(&key.len()) && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match value.to_str().ok().filter(usable) {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Failure::invalid("Idempotency-Key must be 1 to 64 letters, digits, `-`, `_` or `.`")),
    }
}

/// The answer to an order that was given before under the same key.
async fn replay(app: &App, key: &str, request: &JobRequest) -> Result<Option<Response>, Failure> {
    let live = app.lock().jobs.find_key(key);
    let found = match live {
        Some(found) => Some(found),
        None => app.store.by_key(key.to_owned()).await.map_err(unreadable)?,
    };
    let Some(record) = found else { return Ok(None) };
    if *record.request != *request {
        return Err(conflict("this Idempotency-Key was used for another transfer: use a new one"));
    }
    if find(app, record.id).await.is_err() {
        return Err(conflict("the first request with this Idempotency-Key is not durable yet: ask again"));
    }
    let mut response = created(app, record.id).await?;
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    Ok(Some(response))
}

fn conflict(detail: &str) -> Failure {
    Failure::new(StatusCode::CONFLICT, Problem::CONFLICT, "Conflict", detail)
}

fn check_options(request: &TransferRequest) -> Result<(), Failure> {
    if request.options.streams > STREAMS_MAX {
        return Err(Failure::impossible(format!(
            "options.streams must be at most {STREAMS_MAX}; 0 = as configured"
        )));
    }
    if request.sources.is_empty() || request.sources.len() > SOURCES_MAX {
        return Err(Failure::impossible(format!("sources must be 1 to {SOURCES_MAX} paths")));
    }
    check_patterns(&request.options.filters)?;
    check_filters(&join_filters(&request.options.filters))
}

fn check_patterns(filters: &[Filter]) -> Result<(), Failure> {
    match filters.iter().find_map(|filter| filter.check().err()) {
        Some(error) => Err(Failure::invalid(format!("options.filters: {error}"))),
        None => Ok(()),
    }
}

fn check_filters(list: &[u8]) -> Result<(), Failure> {
    match filter_rules(list).find_map(Result::err) {
        Some(error) => Err(Failure::impossible(format!(
            "options.filters must be at most {FILTERS_MAX} patterns of at most {FILTER_PATTERN_BYTES_MAX} bytes, and \
             {FILTER_LIST_BYTES_MAX} together: {error}"
        ))),
        None => Ok(()),
    }
}

fn check_paths(request: &TransferRequest) -> Result<(), Failure> {
    let is_absolute = |path: &&PathText| path.as_bytes().starts_with(b"/");
    let local: &[PathText] = match request.direction {
        Direction::Send => &request.sources,
        Direction::Fetch => std::slice::from_ref(&request.destination),
    };
    match local.iter().find(|path| !is_absolute(path)) {
        Some(path) => Err(Failure::impossible(format!("local paths must be absolute: {path}"))),
        None => Ok(()),
    }
}

fn check_peer(app: &App, peer: &str) -> Result<(), Failure> {
    let shared = app.lock();
    if shared.peers.names().any(|name| name == peer) {
        return Ok(());
    }
    let nearest = dwcp_config::nearest(peer, shared.peers.names());
    let shown: String = peer.chars().filter(|c| !c.is_control()).take(64).collect();
    let detail = format!("no peer is called '{shown}'; the configuration lists them under peers:");
    let failure =
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, Problem::UNKNOWN_PEER, "Unknown peer", detail);
    Err(failure.with_nearest(nearest))
}

fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Disabled => Failure::refused("the node is disabled (enabled: false in the configuration)"),
        Refusal::Draining => {
            Failure::refused("the node is draining: `dwcp undrain` lets it take transfers again")
        }
        Refusal::Full { active_max } => {
            Failure::refused(format!("{active_max} transfers are unfinished, which is the limit"))
        }
    }
}

/// A page of transfers, newest first.
#[utoipa::path(get, path = paths::TRANSFERS, tag = "transfers", params(TransferQuery),
    responses((status = 200, body = TransferList), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<TransferQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(TransferQuery::LIMIT_DEFAULT);
    if limit == 0 || limit > TransferQuery::LIMIT_MAX {
        return Err(Failure::invalid(format!("limit must be from 1 to {}", TransferQuery::LIMIT_MAX)));
    }
    let below = match query.cursor.as_deref().map(str::parse) {
        None => None,
        Some(Ok(below)) => Some(below),
        Some(Err(_)) => return Err(Failure::invalid("cursor must be the next_cursor of another page")),
    };
    let wanted = |transfer: &Transfer| {
        query.state.is_none_or(|state| transfer.state == state)
            && below.is_none_or(|below| transfer.id.0 < below)
    };
    // One more than asked for says whether there is another page.
    let more = usize::from(limit) + 1;
    let mut transfers = stored(&app, &query, below, limit + 1).await?;
    let now_ms = app.now().unix_ms;
    let live: Vec<Transfer> =
        app.lock().jobs.list().map(|(record, pace)| record.document(pace, now_ms)).collect();
    transfers.retain(|stored| !live.iter().any(|live| live.id == stored.id));
    transfers.extend(live.into_iter().filter(wanted));
    transfers.sort_by_key(|transfer| std::cmp::Reverse(transfer.id));
    transfers.truncate(more);
    let has_more = transfers.len() == more;
    transfers.truncate(usize::from(limit));
    let next_cursor = transfers.last().filter(|_| has_more).map(|last| last.id.to_string());
    Ok(json(StatusCode::OK, &TransferList { schema: TransferList::SCHEMA, transfers, next_cursor }))
}

/// What the store has for the page. Unfinished jobs are newer in memory and replace what comes from here.
async fn stored(
    app: &App,
    query: &TransferQuery,
    below: Option<u64>,
    limit: u16,
) -> Result<Vec<Transfer>, Failure> {
    if query.state.is_some_and(|state| !state.is_final()) {
        return Ok(Vec::new());
    }
    let page = app.store.page(PageQuery { state: query.state, below, limit }).await.map_err(unreadable)?;
    Ok(page.iter().map(|record| record.document(Pace::default(), app.now().unix_ms)).collect())
}

/// One transfer.
#[utoipa::path(get, path = paths::TRANSFER_PATTERN, tag = "transfers", params(("id" = u64, Path, description = "Its number")),
    responses((status = 200, body = Transfer), (status = 404, body = Problem)))]
pub(super) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let document = find(&app, parse_id(&id)?).await?;
    Ok(json(StatusCode::OK, &document))
}

/// Asks for a transfer's end; the state follows when the dataplane agrees.
#[utoipa::path(delete, path = paths::TRANSFER_PATTERN, tag = "transfers", params(("id" = u64, Path, description = "Its number")),
    responses((status = 202, body = Transfer), (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let order = app.change(|shared, now| shared.jobs.cancel(id, now));
    obeyed(&app, id, order).await
}

/// Lets a transfer rest until it is resumed; the state follows when the dataplane has ended the attempt.
#[utoipa::path(post, path = paths::TRANSFER_PAUSE_PATTERN, tag = "transfers", params(("id" = u64, Path, description = "Its number")),
    responses((status = 202, body = Transfer), (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn pause(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let order = app.change(|shared, _| shared.jobs.pause(id));
    obeyed(&app, id, order).await
}

/// Lets a transfer go on with what has arrived.
#[utoipa::path(post, path = paths::TRANSFER_RESUME_PATTERN, tag = "transfers", params(("id" = u64, Path, description = "Its number")),
    responses((status = 202, body = Transfer), (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn resume(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let order = app.change(|shared, _| shared.jobs.resume(id));
    obeyed(&app, id, order).await
}

/// The answer to an order, when it is durable.
async fn obeyed(app: &App, id: u64, order: Order) -> Result<Response, Failure> {
    match order {
        Order::Accepted(durable) => {
            if durable.await != Ok(true) {
                return Err(Failure::refused("the job store did not take it, see /health?verbose=true"));
            }
        }
        Order::Already => {}
        Order::Late => {
            let detail = format!("transfer {id} is ending");
            return Err(Failure::new(StatusCode::CONFLICT, Problem::FINISHED, "Finished", detail));
        }
        Order::Unknown => {
            let document = find(app, id).await?;
            let detail = format!("transfer {id} has ended already: {}", document.state.name());
            return Err(Failure::new(StatusCode::CONFLICT, Problem::FINISHED, "Finished", detail));
        }
    }
    Ok(json(StatusCode::ACCEPTED, &find(app, id).await?))
}

/// A number that is no number names no transfer.
pub(super) fn parse_id(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| {
        Failure::unknown_transfer(&text.chars().filter(|c| !c.is_control()).take(32).collect::<String>())
    })
}

/// One transfer, from memory or from the store.
pub(super) async fn find(app: &App, id: u64) -> Result<Transfer, Failure> {
    if let Some((record, pace)) = live(app, id) {
        return Ok(record.document(pace, app.now().unix_ms));
    }
    let stored = app.store.one(id).await.map_err(unreadable)?;
    let record = stored.ok_or_else(|| Failure::unknown_transfer(&id.to_string()))?;
    Ok(record.document(Pace::default(), app.now().unix_ms))
}

fn live(app: &App, id: u64) -> Option<(crate::jobs::JobRecord, Pace)> {
    app.lock().jobs.show(id)
}

fn unreadable(error: crate::store::StoreError) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "about:blank", "Store", error.to_string())
}

const JOBS_ACTIVE_MAX: usize = 1000;
const STREAMS_MAX: u16 = 1024;
