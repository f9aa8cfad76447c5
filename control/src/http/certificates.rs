//! The certificates of the HTTPS interface, over HTTP.
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use dwcp_api::{CertificateList, Problem, paths};

use super::documents::json;
use super::problem::Failure;
use crate::app::App;
use crate::certificates::{Files, judge};

/// The certificates of the HTTPS interface, their expiry, and what is wrong with them.
#[utoipa::path(get, path = paths::CERTIFICATES, tag = "access",
    responses((status = 200, body = CertificateList), (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let files = Files::of(&app.settings().config.security);
    let (in_use, now_ms) = (app.lock().certificates.clone(), app.now().unix_ms);
    // Files may lie on a disk that does not answer.
    let judged = tokio::task::spawn_blocking(move || judge(&files, &in_use, now_ms)).await;
    let list = judged.map_err(|_| Failure::refused("the certificates could not be read; see the log"))?;
    Ok(json(StatusCode::OK, &list))
}
