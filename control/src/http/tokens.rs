//! Tokens over HTTP: made for whoever is known already, with at most what that caller may do.
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwcp_api::{Problem, Timestamp, TokenIssued, TokenKey, TokenKeyList, TokenRequest, paths};

use super::body::read_json;
use super::caller::{Caller, Means};
use super::documents::json;
use super::problem::Failure;
use crate::app::App;
use crate::tokens::{KeyInfo, KeyringError, Order};

/// Makes a token, a JWT signed by EdDSA, for `Authorization: Bearer` at the HTTPS interface. A token opens at most what
/// its caller may do, and makes no further ones.
#[utoipa::path(post, path = paths::AUTH_TOKEN, tag = "access", request_body = TokenRequest,
    responses((status = 201, body = TokenIssued), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 503, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn issue(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let request: TokenRequest = read_json(&headers, body, "a request for a token").await?;
    super::auth::check_name(&request.name)?;
    let longest_s = app.settings().config.security.jwt_ttl.as_secs();
    let lifetime_s = request.ttl_seconds.unwrap_or(longest_s);
    if lifetime_s == 0 || lifetime_s > longest_s {
        return Err(Failure::invalid(format!(
            "ttl_seconds must be from 1 to {longest_s} (security.jwt_ttl)"
        )));
    }
    may_have(&caller, &request)?;
    let (name, role) = (request.name, request.role);
    let order = Order { issuer: app.node_id.clone(), subject: name.clone(), role, lifetime_s };
    let (token, claims) =
        on_disk(&app, move |app, now_ms| app.tokens().issue(order, now_ms)).await?.map_err(failure)?;
    let expires_at = Timestamp::from_unix_ms(claims.exp.saturating_mul(1000));
    let issued = TokenIssued { schema: TokenIssued::SCHEMA, token, id: claims.jti, name, role, expires_at };
    Ok(json(StatusCode::CREATED, &issued))
}

/// The keys that tokens are signed with, without the keys themselves.
#[utoipa::path(get, path = paths::AUTH_TOKEN_KEYS, tag = "access",
    responses((status = 200, body = TokenKeyList), (status = 403, body = Problem)))]
pub(super) async fn keys(State(app): State<Arc<App>>) -> Response {
    let tokens = app.tokens();
    let key = |KeyInfo { id, created_ms, signs }| TokenKey {
        id,
        created_at: Timestamp::from_unix_ms(created_ms),
        signs,
    };
    let keys = tokens.keys().into_iter().map(key).collect();
    let trouble = tokens.trouble().map(str::to_owned);
    json(StatusCode::OK, &TokenKeyList { schema: TokenKeyList::SCHEMA, keys, trouble })
}

/// Replaces the key that signs tokens: none counts any more that was made before.
#[utoipa::path(post, path = paths::AUTH_TOKEN_KEYS, tag = "access",
    responses((status = 200, body = TokenKeyList), (status = 403, body = Problem), (status = 503, body = Problem),
        (status = 507, body = Problem)))]
pub(super) async fn rotate(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    on_disk(&app, |app, now_ms| app.tokens().rotate(now_ms)).await?.map_err(failure)?;
    tracing::warn!(component = "http", "signing key of tokens replaced: no earlier token counts");
    Ok(keys(State(app)).await)
}

/// Otherwise a token that was stolen could be renewed for ever, and a reader could make itself an administrator.
fn may_have(caller: &Caller, request: &TokenRequest) -> Result<(), Failure> {
    let refuse = |detail: String| {
        Err(Failure::new(StatusCode::FORBIDDEN, Problem::PERMISSION, "Not permitted", detail))
    };
    if caller.means == Means::Token {
        return refuse(
            "a token makes no further ones: use an API key, a certificate or the node itself".into(),
        );
    }
    match caller.role {
        Some(role) if role >= request.role => Ok(()),
        role => refuse(format!(
            "{} has the role {} and can give no more than that",
            caller.name,
            role.map_or("none", dwcp_api::Role::name)
        )),
    }
}

/// Away from the thread that serves requests: a new key is flushed to the disk.
async fn on_disk<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App, u64) -> T + Send + 'static,
) -> Result<T, Failure> {
    let (app, now_ms) = (Arc::clone(app), app.now().unix_ms);
    let done = tokio::task::spawn_blocking(move || work(&app, now_ms)).await;
    done.map_err(|_| Failure::refused("the keys of tokens could not be used; see the log"))
}

fn failure(error: KeyringError) -> Failure {
    match error {
        KeyringError::Unwritable { .. } => {
            let detail = format!("nothing was changed: {error}");
            Failure::new(StatusCode::INSUFFICIENT_STORAGE, Problem::REFUSED, "Not stored", detail)
        }
        KeyringError::Unusable { .. } | KeyringError::NoRandom => Failure::refused(error.to_string()),
    }
}
