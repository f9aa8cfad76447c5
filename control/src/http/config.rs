//! The configuration over HTTP: shown, judged, set, read again. Every change is judged whole before any of it counts.
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use dwcp_api::{
    ConfigChange, ConfigChangeQuery, ConfigDocument, ConfigQuery, ConfigSection, ConfigText, ConfigVerdict,
    Mode, ModeDocument, Problem, paths,
};
use dwcp_config::{Changes, Findings};
use serde_json::Value;

use super::body::read_json;
use super::documents::{json, mode_in_use};
use super::problem::Failure;
use crate::app::App;
use crate::settings::{Keep, SetError};

type Asked<T> = Result<Query<T>, QueryRejection>;

/// The configuration in use; with `If-Match` of a later `PATCH` in mind, its `ETag` is `hash`.
#[utoipa::path(get, path = paths::CONFIG, tag = "configuration", params(ConfigQuery),
    responses((status = 200, body = ConfigDocument), (status = 400, body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    query: Asked<ConfigQuery>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let settings = app.settings();
    let mut document = settings.document();
    document.origins = query.origin.then(|| settings.origins.clone());
    let mut response = json(StatusCode::OK, &document);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", settings.hash)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// The same as `/api/v1/dwcp/config`.
#[utoipa::path(get, path = paths::CONFIG_EFFECTIVE, tag = "configuration", params(ConfigQuery),
    responses((status = 200, body = ConfigDocument), (status = 400, body = Problem)))]
pub(super) async fn effective(app: State<Arc<App>>, query: Asked<ConfigQuery>) -> Result<Response, Failure> {
    show(app, query).await
}

/// Keys of the transport.
#[utoipa::path(get, path = paths::AMST_CONFIG, tag = "configuration", params(ConfigQuery),
    responses((status = 200, body = ConfigSection), (status = 400, body = Problem)))]
pub(super) async fn amst(
    State(app): State<Arc<App>>,
    query: Asked<ConfigQuery>,
) -> Result<Response, Failure> {
    section(&app, "transport.", query)
}

/// Keys of compression.
#[utoipa::path(get, path = paths::HDE_CONFIG, tag = "configuration", params(ConfigQuery),
    responses((status = 200, body = ConfigSection), (status = 400, body = Problem)))]
pub(super) async fn hde(State(app): State<Arc<App>>, query: Asked<ConfigQuery>) -> Result<Response, Failure> {
    section(&app, "compression.", query)
}

fn section(app: &App, prefix: &str, query: Asked<ConfigQuery>) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let settings = app.settings();
    let Value::Object(all) = dwcp_config::effective(&settings.config) else {
        return Ok(json(StatusCode::OK, &()));
    };
    let config =
        all.into_iter().filter(|(key, _)| key.starts_with(prefix)).collect::<serde_json::Map<_, _>>();
    let origins = settings.origins.iter().filter(|(key, _)| key.starts_with(prefix));
    let origins = query.origin.then(|| origins.map(|(key, origin)| (key.clone(), origin.clone())).collect());
    let document = ConfigSection { schema: ConfigSection::SCHEMA, config: config.into(), origins };
    Ok(json(StatusCode::OK, &document))
}

/// Sets keys (`{"transport.max_streams": 512}`) and takes back what was set (`null`). All or nothing; it lasts.
#[utoipa::path(patch, path = paths::CONFIG, tag = "configuration",
    params(ConfigChangeQuery, ("if-match" = Option<String>, Header, description = "`hash` of the configuration that the change is meant for")),
    request_body(content = Object, content_type = "application/json", description = "Canonical keys with their new values; null takes back what was set"),
    responses((status = 200, body = ConfigChange), (status = 400, body = Problem), (status = 412, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    query: Asked<ConfigChangeQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let members: serde_json::Map<String, Value> = read_json(&headers, body, "an object of keys").await?;
    if members.is_empty() || members.len() > KEYS_MAX {
        return Err(Failure::invalid(format!("the body must name 1 to {KEYS_MAX} keys")));
    }
    let changes = members.into_iter().map(|(key, value)| Ok((key, text(value)?)));
    let changes: Changes = changes.collect::<Result<_, Failure>>()?;
    let expected =
        headers.get(header::IF_MATCH).and_then(|tag| tag.to_str().ok()).map(|tag| tag.trim_matches('"'));
    let keep = if query.dry_run { Keep::No } else { Keep::Yes };
    let change = app.set(&changes, expected, keep).map_err(not_set)?;
    if keep == Keep::Yes {
        for KeyText { key, from, to } in change.changes.iter().map(KeyText::from) {
            tracing::info!(component = "control", key, from, to, "configuration set");
        }
    }
    Ok(json(StatusCode::OK, &change))
}

struct KeyText<'a> {
    key: &'a str,
    from: &'a str,
    to: &'a str,
}

impl<'a> From<&'a dwcp_api::KeyChange> for KeyText<'a> {
    fn from(change: &'a dwcp_api::KeyChange) -> Self {
        Self { key: &change.key, from: &change.from, to: &change.to }
    }
}

/// A JSON value as the text that a configuration file would have.
fn text(value: Value) -> Result<Option<String>, Failure> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => value,
        Value::Array(items) => {
            let items = items.into_iter().map(|item| match item {
                Value::Array(_) | Value::Object(_) | Value::Null => {
                    Err(Failure::invalid("a list may hold single values only"))
                }
                item => text(item).map(Option::unwrap_or_default),
            });
            items.collect::<Result<Vec<_>, _>>()?.join(",")
        }
        Value::Object(_) => {
            return Err(Failure::invalid("keys are given whole, such as \"transport.max_streams\": 512"));
        }
    };
    if text.len() > VALUE_BYTES_MAX {
        return Err(Failure::invalid(format!("a value is longer than {VALUE_BYTES_MAX} bytes")));
    }
    Ok(Some(text))
}

fn not_set(error: SetError) -> Failure {
    match error {
        SetError::Wrong(findings) => wrong(&findings),
        SetError::Stale => {
            let status = StatusCode::PRECONDITION_FAILED;
            Failure::new(status, Problem::CONFLICT, "Changed in between", error.to_string())
        }
        SetError::Unwritable { .. } | SetError::NoPlace => Failure::refused(error.to_string()),
    }
}

fn wrong(findings: &Findings) -> Failure {
    let errors: Vec<String> = findings.0.iter().map(ToString::to_string).collect();
    let detail = format!("the configuration would be wrong, nothing was changed: {}", errors.join("; "));
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, Problem::CONFIGURATION, "Wrong configuration", detail)
        .with_errors(errors)
}

/// Judges a whole file; nothing is changed.
#[utoipa::path(post, path = paths::CONFIG_VALIDATE, tag = "configuration", request_body = ConfigText,
    responses((status = 200, body = ConfigVerdict), (status = 400, body = Problem), (status = 413, body = Problem),
        (status = 415, body = Problem)))]
pub(super) async fn validate(headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let ConfigText { text } = read_json(&headers, body, "a configuration").await?;
    let findings = match dwcp_config::parse(&text, "config.yaml") {
        Ok(_) => Vec::new(),
        Err(findings) => findings.0.iter().map(ToString::to_string).collect(),
    };
    let verdict = ConfigVerdict { schema: ConfigVerdict::SCHEMA, valid: findings.is_empty(), findings };
    Ok(json(StatusCode::OK, &verdict))
}

/// Reads files, overrides and environment again, as SIGHUP does. A wrong configuration changes nothing.
#[utoipa::path(post, path = paths::CONFIG_RELOAD, tag = "configuration", params(ConfigChangeQuery),
    responses((status = 200, body = ConfigChange), (status = 400, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn reload(
    State(app): State<Arc<App>>,
    query: Asked<ConfigChangeQuery>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let change = if query.dry_run { app.reload_dry() } else { app.reload() };
    Ok(json(StatusCode::OK, &change.map_err(|findings| wrong(&findings))?))
}

/// How links are treated.
#[utoipa::path(get, path = paths::MODE, tag = "configuration", responses((status = 200, body = ModeDocument)))]
pub(super) async fn mode(State(app): State<Arc<App>>) -> Response {
    let mode = mode_in_use(&app.settings().config);
    json(StatusCode::OK, &ModeDocument { schema: ModeDocument::SCHEMA, mode })
}

/// Sets the mode, as `PATCH` of the configuration does.
#[utoipa::path(put, path = paths::MODE, tag = "configuration", request_body = ModeDocument,
    responses((status = 200, body = ModeDocument), (status = 400, body = Problem), (status = 413, body = Problem),
        (status = 415, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn set_mode(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let ModeDocument { mode, .. } = read_json(&headers, body, "a mode").await?;
    let name = Mode::name(mode).to_owned();
    app.set(&Changes::from([("mode".to_owned(), Some(name))]), None, Keep::Yes).map_err(not_set)?;
    Ok(json(StatusCode::OK, &ModeDocument { schema: ModeDocument::SCHEMA, mode }))
}

const KEYS_MAX: usize = 100;
const VALUE_BYTES_MAX: usize = 4096;
