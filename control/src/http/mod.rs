//! The HTTP interface: listeners, routes, limits. Handlers read shared state and order changes through the app; none
//! waits for the dataplane.
mod auth;
mod backup;
mod body;
mod breakers;
mod caller;
mod certificates;
mod cluster;
mod config;
mod connection;
mod documents;
mod events;
mod guard;
mod kernel;
mod latency;
mod listeners;
mod node;
mod openapi;
mod ping;
mod probes;
mod problem;
mod tls;
mod tokens;
mod transfers;
mod transport;
mod tunnels;

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use dwcp_api::paths;
use tokio::net::{TcpListener, UnixListener};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::listeners::Place;
use crate::app::App;
use crate::arguments::Places;

/// Binds every listener and starts serving. The unix socket disappears with the value.
///
/// # Errors
/// A socket that cannot be had, or files of HTTPS that are wrong. Ports that are taken are waited for.
pub(crate) async fn start(app: &Arc<App>, places: &Places) -> anyhow::Result<SocketFile> {
    let router = router(app);
    let (unix, file) = bind_unix(&places.socket)?;
    let place = Place { address: places.listen, what: "HTTP", key: "api.listen" };
    let tcp = place.bind(app).await;
    let (address, socket) = (listeners::address_of(tcp.as_ref()), places.socket.display().to_string());
    start_metrics(app, places).await;
    start_tls(app, places, &router).await?;
    tracing::info!(component = "http", address, socket, "listening");
    tokio::spawn(connection::serve_unix(unix, router.clone(), Arc::clone(app)));
    let app = Arc::clone(app);
    tokio::spawn(async move { connection::serve_tcp(place.wait(tcp).await, router, app).await });
    Ok(file)
}

/// The listener for other hosts, where there is a certificate for it.
async fn start_tls(app: &Arc<App>, places: &Places, router: &Router) -> anyhow::Result<()> {
    let settings = app.settings();
    let files = crate::certificates::Files::of(&settings.config.security);
    let file = files.certificate.display().to_string();
    if !files.certificate.exists() {
        tracing::info!(component = "http", file, "no HTTPS: there is no certificate");
        return Ok(());
    }
    let tls = tls::Tls::load(files).context("HTTPS")?;
    app.lock().certificates = tls.in_use();
    let place = Place { address: places.tls_listen, what: "HTTPS", key: "api.tls_listen" };
    let listener = place.bind(app).await;
    let address = listeners::address_of(listener.as_ref());
    tracing::info!(component = "http", address, file, "HTTPS listening");
    let (tls, router, app) = (Arc::new(tls), router.clone(), Arc::clone(app));
    tokio::spawn(Arc::clone(&tls).follow(Arc::clone(&app)));
    tokio::spawn(async move { connection::serve_tls(place.wait(listener).await, tls, router, app).await });
    Ok(())
}

/// The second listener is a convenience: Prometheus itself often has its port.
async fn start_metrics(app: &Arc<App>, places: &Places) {
    let settings = app.settings();
    let monitoring = &settings.config.monitoring;
    let port = monitoring.metrics_port;
    if port == 0 || !monitoring.prometheus_enabled || port == places.listen.port() {
        return;
    }
    let address = SocketAddr::new(places.listen.ip(), port);
    let result = bind_tcp(address).await;
    app.lock().metrics_listener = Some((port, result.is_ok()));
    match result {
        Ok(listener) => {
            let path = monitoring.metrics_path.clone();
            let routes = Router::new().route(&path, get(probes::metrics)).with_state(Arc::clone(app));
            let routes = with_fallbacks(routes, app);
            tokio::spawn(connection::serve_tcp(listener, routes, Arc::clone(app)));
        }
        Err(error) => {
            let (address, api) = (address.to_string(), places.listen.to_string());
            tracing::warn!(component = "http", address, %error, "no second metrics listener; /metrics stays on {api}");
            app.note_error("control", "metrics_listener", &format!("{address}: {error}"));
        }
    }
}

async fn bind_tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Every route; each is described where its handler stands, and [`openapi`] is made of those descriptions.
fn router(app: &Arc<App>) -> Router {
    let (mut router, description) = documented().split_for_parts();
    let described = openapi::Rendered::new(description);
    router = router.route(paths::OPENAPI, get(move || std::future::ready(described.response())));
    for alias in paths::READY_ALIASES {
        router = router.route(alias, get(probes::ready));
    }
    for alias in paths::LIVE_ALIASES {
        router = router.route(alias, get(probes::live));
    }
    if app.settings().config.monitoring.prometheus_enabled {
        router = router.route(paths::METRICS, get(probes::metrics));
    }
    with_fallbacks(router.with_state(Arc::clone(app)), app)
}

fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(documents::index))
        .routes(routes!(documents::version))
        .routes(routes!(probes::health))
        .routes(routes!(probes::ready))
        .routes(routes!(probes::live))
        .routes(routes!(documents::status))
        .routes(routes!(documents::stats))
        .routes(routes!(documents::peers))
        .routes(routes!(kernel::flows))
        .routes(routes!(kernel::kernel))
        .routes(routes!(transport::transport))
        .routes(routes!(latency::latency))
        .routes(routes!(ping::ping))
        .routes(routes!(node::components))
        .routes(routes!(node::compression))
        .routes(routes!(node::drain_status, node::drain, node::undrain))
        .routes(routes!(node::events))
        .routes(routes!(node::logs))
        .routes(routes!(config::show, config::patch))
        .routes(routes!(config::effective))
        .routes(routes!(config::amst))
        .routes(routes!(config::hde))
        .routes(routes!(config::validate))
        .routes(routes!(config::reload))
        .routes(routes!(config::mode, config::set_mode))
        .routes(routes!(transfers::list, transfers::create))
        .routes(routes!(transfers::show, transfers::cancel))
        .routes(routes!(transfers::pause))
        .routes(routes!(transfers::resume))
        .routes(routes!(events::follow))
        .routes(routes!(tunnels::list, tunnels::add, tunnels::remove))
        .routes(routes!(breakers::list))
        .routes(routes!(breakers::state))
        .routes(routes!(breakers::reset))
        .routes(routes!(backup::backup))
        .routes(routes!(backup::restore))
        .routes(routes!(auth::list, auth::create))
        .routes(routes!(auth::revoke))
        .routes(routes!(certificates::list))
        .routes(routes!(tokens::issue))
        .routes(routes!(tokens::keys, tokens::rotate))
        .routes(routes!(auth::audit))
        .routes(routes!(cluster::init))
        .routes(routes!(cluster::list, cluster::join, cluster::leave))
        .routes(routes!(cluster::token))
        .routes(routes!(cluster::read_value, cluster::put_value, cluster::delete_value))
        .routes(routes!(cluster::consensus, cluster::change_consensus))
        .routes(routes!(cluster::suspects))
}

fn with_fallbacks(router: Router, app: &Arc<App>) -> Router {
    router
        .fallback(problem::unknown_endpoint)
        .method_not_allowed_fallback(problem::unknown_method)
        .layer(from_fn_with_state(Arc::clone(app), guard::guard))
}

/// Removes the socket when the process ends in good order.
pub(crate) struct SocketFile(std::path::PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A successor may have replaced or removed it already.
        drop(std::fs::remove_file(&self.0));
    }
}

fn bind_unix(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let context = || format!("the API cannot listen on {}", path.display());
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            anyhow::bail!("{}: another dwcp-control is listening there; stop it or give --socket", context());
        }
        // Left behind by a process that was killed.
        std::fs::remove_file(path).with_context(context)?;
    }
    let listener = UnixListener::bind(path).with_context(context)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).with_context(context)?;
    Ok((listener, SocketFile(path.to_owned())))
}
