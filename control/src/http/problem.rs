//! Errors as `application/problem+json`. Handlers make them, the guard adds path and request id.
use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use dwcp_api::{Problem, paths};

/// A request that was not served.
#[derive(Debug)]
pub(super) struct Failure(Box<Problem>, Option<u64>);

impl Failure {
    pub(super) fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(kind, title, status.as_u16(), detail)), None)
    }

    /// 400: the request is not what the endpoint takes.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Problem::INVALID_REQUEST, "Invalid request", detail)
    }

    /// 422: it is well formed and cannot be done.
    pub(super) fn impossible(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Problem::INVALID_REQUEST, "Invalid request", detail)
    }

    /// 503: not now.
    pub(super) fn refused(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Problem::REFUSED, "Refused", detail)
    }

    /// 404: no such transfer.
    pub(super) fn unknown_transfer(id: &str) -> Self {
        let detail = format!("no transfer has the number {id} (`dwcp transfers` lists them)");
        Self::new(StatusCode::NOT_FOUND, Problem::UNKNOWN_TRANSFER, "Unknown transfer", detail)
    }

    /// The caller may ask again after so many seconds.
    pub(super) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.1 = Some(seconds);
        self
    }

    pub(super) fn with_errors(mut self, errors: Vec<String>) -> Self {
        self.0.errors = errors;
        self
    }

    pub(super) fn with_nearest(mut self, nearest: Option<&str>) -> Self {
        self.0.nearest = nearest.map(str::to_owned);
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Some(seconds) = self.1 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED.as_u16() {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(*self.0);
        response
    }
}

/// Gives a response the problem as its body.
pub(super) fn render(response: Response, problem: &Problem) -> Response {
    let (mut parts, _) = response.into_parts();
    let mut body = serde_json::to_vec(problem).unwrap_or_else(|_| b"{}".to_vec());
    body.push(b'\n');
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::CONTENT_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body))
}

/// 404 for everything that is not routed.
pub(super) async fn unknown_endpoint(uri: Uri) -> Failure {
    let near = dwcp_config::nearest(uri.path(), paths::ALL);
    Failure::new(
        StatusCode::NOT_FOUND,
        Problem::UNKNOWN_ENDPOINT,
        "Unknown endpoint",
        "no such endpoint; `/` lists all",
    )
    .with_nearest(near)
}

/// 405.
pub(super) async fn unknown_method(method: Method) -> Failure {
    let detail = format!("this endpoint does not take {method}");
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, Problem::UNKNOWN_ENDPOINT, "Method not allowed", detail)
}
