//! The client against scripted HTTP/1.1 conversations on a unix socket. The daemon's own tests cover the other end.
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;
use crate::{Problem, TransferState};

/// Answers one connection: reads a request's head, writes `answer`, hangs up. Gives the request back.
async fn serve_once(socket: &Path, answer: String) -> String {
    let listener = UnixListener::bind(socket).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).await.unwrap();
        assert_ne!(length, 0, "the client hung up");
        request.extend_from_slice(&piece[..length]);
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

fn answer(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}")
}

async fn ask<T>(answer: String, request: impl AsyncFnOnce(Client) -> T) -> (String, T) {
    let directory = std::env::temp_dir().join(format!("dwcp-api-{}-{}", std::process::id(), unique()));
    std::fs::create_dir(&directory).unwrap();
    let socket = directory.join("s");
    let server = serve_once(&socket, answer);
    let client = Client::new(Endpoint::Unix(socket.clone()), Duration::from_secs(60));
    let result = tokio::join!(biased; server, request(client));
    std::fs::remove_dir_all(directory).unwrap();
    result
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test]
async fn a_list_is_asked_for_with_its_query() {
    let body = r#"{"schema":"dwcp.transfers/1","transfers":[],"next_cursor":"a b&c"}"#;
    let query = TransferQuery {
        state: Some(TransferState::Running),
        limit: Some(7),
        cursor: Some("a b&c".to_owned()),
    };
    let (request, list) =
        ask(answer("200 OK", "application/json", body), async |client| client.transfers(&query).await).await;
    assert!(
        request.starts_with("GET /api/v1/dwcp/transfers?state=running&limit=7&cursor=a%20b%26c HTTP/1.1\r\n")
    );
    assert_eq!(list.unwrap().next_cursor.as_deref(), Some("a b&c"));
}

#[tokio::test]
async fn a_document_of_another_version_is_refused() {
    let body = r#"{"schema":"dwcp.peers/2","peers":[]}"#;
    let (_, peers) =
        ask(answer("200 OK", "application/json", body), async |client| client.peers().await).await;
    assert!(matches!(peers, Err(ClientError::Schema { expected: "dwcp.peers/1", .. })));
}

#[tokio::test]
async fn problems_come_back_as_they_are() {
    let mut problem = Problem::new(Problem::UNKNOWN_PEER, "Unknown peer", 404, "no peer is named 'berlim'");
    problem.nearest = Some("berlin".to_owned());
    let body = serde_json::to_string(&problem).unwrap();
    let (_, result) = ask(answer("404 Not Found", Problem::CONTENT_TYPE, &body), async |client| {
        client.transfer(TransferId(7)).await
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "no peer is named 'berlim' (did you mean 'berlin'?)");
    assert!(matches!(error, ClientError::Refused(found) if *found == problem));
}

#[tokio::test]
async fn readiness_comes_with_either_status() {
    let body = r#"{"ready":false,"reasons":["no dataplane"]}"#;
    let (_, ready) =
        ask(answer("503 Service Unavailable", "application/json", body), async |client| client.ready().await)
            .await;
    assert_eq!(ready.unwrap().reasons, ["no dataplane"]);
}

#[tokio::test]
async fn other_programs_are_recognised() {
    let (_, result) =
        ask(answer("404 Not Found", "text/html", "<h1>nginx</h1>"), async |client| client.status().await)
            .await;
    assert!(matches!(result, Err(ClientError::Status { status: 404 })));
    let (_, result) = ask("SSH-2.0-OpenSSH\r\n".to_owned(), async |client| client.status().await).await;
    assert!(matches!(result, Err(ClientError::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_in_a_timeout() {
    let directory = std::env::temp_dir().join(format!("dwcp-api-{}-{}", std::process::id(), unique()));
    std::fs::create_dir(&directory).unwrap();
    let socket = directory.join("s");
    // Bound, never accepted: the kernel's backlog takes the connection.
    let listener = UnixListener::bind(&socket).unwrap();
    let client = Client::new(Endpoint::Unix(socket), Duration::from_secs(5));
    assert!(matches!(client.status().await, Err(ClientError::Timeout { seconds: 5.0 })));
    drop(listener);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let client = Client::new(Endpoint::Unix("/nonexistent/control.sock".into()), Duration::from_secs(5));
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));
}
