//! Reads the bodies of requests: their type, their length, their JSON. Used by every handler that takes one.
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use dwcp_api::Problem;
use serde::de::DeserializeOwned;

use super::problem::Failure;

/// The body as JSON; `what` it should be, for people.
pub(super) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    what: &str,
) -> Result<T, Failure> {
    // A form of a web page cannot send this type without being asked first.
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let detail = "Content-Type must be application/json";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Failure::new(status, Problem::INVALID_REQUEST, "Unsupported type", detail));
    }
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        let detail = format!("the body is longer than {BODY_BYTES_MAX} bytes, or broke off");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, Problem::INVALID_REQUEST, "Too large", detail)
    })?;
    serde_json::from_slice(&body).map_err(|error| Failure::invalid(format!("not {what}: {error}")))
}

const BODY_BYTES_MAX: usize = 1 << 20;
