//! The interface as OpenAPI 3.1, made of the descriptions beside the handlers. `openapi.json` in docs/ is the same,
//! kept true by a test.
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use dwcp_api::Problem;
use utoipa::OpenApi as _;
use utoipa::openapi::{self, KnownFormat, OpenApi, RefOr, Schema, SchemaFormat};

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
    pub(super) fn new(mut description: OpenApi) -> Self {
        correct(&mut description);
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

/// Says what the descriptions beside the handlers cannot: the type of errors, in one place; the name of a path's last
/// part, which the router writes with a star; that a number may use all 64 bits.
fn correct(description: &mut OpenApi) {
    let paths = std::mem::take(&mut description.paths.paths);
    description.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    for item in description.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch, &mut item.head];
        for operation in operations.into_iter().flatten() {
            operation.parameters.iter_mut().flatten().for_each(correct_parameter);
            operation.responses.responses.values_mut().for_each(correct_response);
        }
    }
}

fn correct_response(response: &mut RefOr<openapi::Response>) {
    let RefOr::T(response) = response else { return };
    let content = std::mem::take(&mut response.content);
    let typed = |(media_type, content): (String, RefOr<openapi::Content>)| {
        let is_problem = matches!(&content, RefOr::T(content) if is_problem(content.schema.as_ref()));
        (if is_problem { Problem::CONTENT_TYPE.to_owned() } else { media_type }, content)
    };
    response.content = content.into_iter().map(typed).collect();
}

fn is_problem(schema: Option<&RefOr<Schema>>) -> bool {
    matches!(schema, Some(RefOr::Ref(reference)) if reference.ref_location.ends_with("/Problem"))
}

fn correct_parameter(parameter: &mut RefOr<openapi::path::Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else { return };
    let is_signed = schema.format == Some(SchemaFormat::KnownFormat(KnownFormat::Int64));
    if is_signed && schema.minimum.is_some() {
        schema.format = Some(SchemaFormat::Custom("uint64".into()));
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
