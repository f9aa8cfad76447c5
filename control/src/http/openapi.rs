//! The interface as OpenAPI 3.1, made of the descriptions beside the handlers. `openapi.json` in docs/ is the same,
//! kept true by a test.
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

/// Title, version and tags; everything else comes from the handlers.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "DWCP control", description = "HTTP interface of a DWCP node. Errors are RFC 9457 problems.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")),
    tags(
        (name = "probes", description = "For load balancers and monitors; open to every host"),
        (name = "node", description = "The node at a glance and in detail"),
        (name = "transfers", description = "Ordering, following and cancelling transfers"),
        (name = "tunnels", description = "Programs' connections that a peer connects to their targets"),
        (name = "configuration", description = "Showing, judging and changing the configuration"),
        (name = "access", description = "API keys and the audit log"),
        (name = "state", description = "Copies of what the node knows"),
        (name = "circuit breakers", description = "What holds transfers back while something keeps failing"),
    ),
)]
struct Head;

/// The document without its paths.
pub(super) fn head() -> OpenApi {
    Head::openapi()
}

/// The whole document, rendered once.
#[derive(Clone)]
pub(super) struct Rendered(Bytes);

impl Rendered {
    pub(super) fn new(description: OpenApi) -> Self {
        // Our own description always serializes.
        let mut text = description.to_pretty_json().unwrap_or_default();
        text.push('\n');
        Self(text.into())
    }

    pub(super) fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.0.clone()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_description_is_true() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let (_, description) = super::super::documented().split_for_parts();
        let rendered = Rendered::new(description).0;
        if std::env::var_os("DWCP_BLESS").is_some() {
            std::fs::write(&path, &rendered).unwrap();
        }
        let found = std::fs::read(path).unwrap_or_default();
        assert!(
            found == rendered,
            "docs/openapi.json is old: DWCP_BLESS=1 cargo test -p dwcp-control description"
        );
    }

    #[test]
    fn no_get_changes_anything_and_every_answer_is_described() {
        let (_, description) = super::super::documented().split_for_parts();
        let document = serde_json::to_value(description).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 20, "{}", paths.len());
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(!operation["responses"].as_object().unwrap().is_empty(), "{method} {path}");
                assert!(
                    operation["description"].is_string() || operation["summary"].is_string(),
                    "{method} {path}"
                );
                assert!(method != "get" || operation.get("requestBody").is_none(), "{path}");
            }
        }
    }
}
