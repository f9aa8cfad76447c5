//! One HTTP/1.1 exchange: connect, send, read a bounded answer.
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{ClientError, Endpoint, from_json};
use crate::Problem;

/// Connects, sends one request with or without JSON, and waits for the head of its answer.
pub(super) async fn open(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<Response<Incoming>, ClientError> {
    open_as(endpoint, method, path, "application/json", body).await
}

/// As [`open`], with a body of another type.
pub(super) async fn open_as(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    content_type: &'static str,
    body: Option<Vec<u8>>,
) -> Result<Response<Incoming>, ClientError> {
    let request = request(endpoint, method, path, content_type, body)?;
    match endpoint {
        Endpoint::Unix(socket) => match UnixStream::connect(socket).await {
            Ok(stream) => exchange(stream, request).await,
            Err(source) => Err(connect_error(endpoint, source)),
        },
        Endpoint::Tcp(authority) => match TcpStream::connect(authority.as_str()).await {
            Ok(stream) => exchange(stream, request).await,
            Err(source) => Err(connect_error(endpoint, source)),
        },
    }
}

/// A whole answer in memory.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    body: Bytes,
}

impl Reply {
    /// Reads the body, at most [`BODY_BYTES_MAX`].
    pub(super) async fn read(response: Response<Incoming>) -> Result<Self, ClientError> {
        let status = response.status();
        let limited = Limited::new(response.into_body(), BODY_BYTES_MAX);
        let body = match limited.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => return Err(ClientError::Lost(*error)),
                Err(error) => {
                    debug_assert!(error.is::<LengthLimitError>());
                    return Err(ClientError::TooLong { bytes_max: BODY_BYTES_MAX });
                }
            },
        };
        Ok(Self { status, body })
    }

    /// The body as JSON, where the status is one of `expected`.
    pub(super) fn parse_with<T: DeserializeOwned>(self, expected: &[StatusCode]) -> Result<T, ClientError> {
        if !expected.contains(&self.status) {
            return Err(self.into_error());
        }
        from_json(&self.body)
    }

    /// The body as text, where the status is 200.
    pub(super) fn text(self) -> Result<String, ClientError> {
        if self.status != StatusCode::OK {
            return Err(self.into_error());
        }
        String::from_utf8(self.body.into()).map_err(|_| ClientError::Utf8)
    }

    /// The problem that the body describes, else the bare status.
    pub(super) fn into_error(self) -> ClientError {
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(_not_a_problem) => ClientError::Status { status: self.status.as_u16() },
        }
    }
}

fn request(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    content_type: &'static str,
    body: Option<Vec<u8>>,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let host = match endpoint {
        Endpoint::Unix(_) => "localhost",
        Endpoint::Tcp(authority) => authority,
    };
    let mut builder = Request::builder().method(method).uri(path).header(HOST, host).header(ACCEPT, "*/*");
    if body.is_some() {
        builder = builder.header(CONTENT_TYPE, content_type);
    }
    builder.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(ClientError::Address)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Lost)?;
    // The task ends with the connection: at the end of the answer, or when its body is dropped. What goes wrong
    // there reaches the caller through the request or the body.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(ClientError::Lost)
}

fn connect_error(endpoint: &Endpoint, source: std::io::Error) -> ClientError {
    let endpoint = endpoint.clone();
    if source.kind() == std::io::ErrorKind::PermissionDenied {
        return ClientError::Permission { endpoint, source };
    }
    ClientError::Unreachable { endpoint, source }
}

/// Longest answer; the largest page of transfers with every failure listed stays below it in practice.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
