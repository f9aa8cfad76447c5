//! Accepts and serves connections, so many at once and each for so long. Called by the listeners; knows no route.
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::caller::{PeerKind, Shown};
use super::tls::Tls;
use crate::app::App;

/// Serves the unix socket until the process ends.
pub(super) async fn serve_unix(listener: UnixListener, router: Router, app: Arc<App>) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Whoever the kernel does not name is nobody.
                let uid = stream.peer_cred().map_or(u32::MAX, |credentials| credentials.uid());
                start(stream, router.clone().layer(Extension(PeerKind::Unix { uid })), &limit);
            }
            Err(error) => pause(&app, &error).await,
        }
    }
}

/// Serves one TCP listener until the process ends.
pub(super) async fn serve_tcp(listener: TcpListener, router: Router, app: Arc<App>) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let ip = peer.ip().to_canonical();
                let kind = if ip.is_loopback() { PeerKind::Loopback } else { PeerKind::Remote { ip } };
                start(stream, router.clone().layer(Extension(kind)), &limit);
            }
            Err(error) => pause(&app, &error).await,
        }
    }
}

/// Serves the listener for other hosts until the process ends. A handshake has so long, and counts as a connection.
pub(super) async fn serve_tls(listener: TcpListener, tls: Arc<Tls>, router: Router, app: Arc<App>) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else { continue };
                let (acceptor, router) = (tls.acceptor(), router.clone());
                tokio::spawn(async move {
                    let kind = PeerKind::Secure { ip: peer.ip().to_canonical() };
                    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let certificates = stream.get_ref().1.peer_certificates();
                            let shown = certificates.and_then(|chain| Shown::of(chain.first()?));
                            serve(stream, router.layer(Extension(kind)).layer(Extension(shown))).await;
                        }
                        Ok(Err(error)) => tracing::debug!(component = "http", %error, "no TLS handshake"),
                        Err(_) => tracing::debug!(component = "http", "TLS handshake took too long"),
                    }
                    drop(permit);
                });
            }
            Err(error) => pause(&app, &error).await,
        }
    }
}

/// Connections beyond the bound are closed at once: waiting ones would cost as much as served ones.
fn start(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    limit: &Arc<Semaphore>,
) {
    let Ok(permit) = Arc::clone(limit).try_acquire_owned() else { return };
    tokio::spawn(async move {
        serve(stream, router).await;
        drop(permit);
    });
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::trace!(component = "http", %error, "connection ended");
    }
}

/// Out of descriptors, most likely: give the others time to end.
async fn pause(app: &App, error: &std::io::Error) {
    tracing::warn!(component = "http", %error, "connection not accepted");
    app.note_error("control", "accept", &error.to_string());
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

const CONNECTIONS_MAX: usize = 512;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const HEADER_BYTES_MAX: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
