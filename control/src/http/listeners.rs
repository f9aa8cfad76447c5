//! Addresses that cannot be had now, because another program holds them: said once, tried again, and no reason to stop.
//! The unix socket serves the node meanwhile.
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::app::App;

/// One listener as people know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// Such as `HTTPS`.
    pub(super) what: &'static str,
    /// The key that decides the address.
    pub(super) key: &'static str,
}

impl Place {
    /// One try; what stands in the way is said.
    pub(super) async fn bind(self, app: &App) -> Option<TcpListener> {
        match TcpListener::bind(self.address).await {
            Ok(listener) => Some(listener),
            Err(error) => {
                let Self { address, what, key } = self;
                let line = format!(
                    "{what} does not listen on {address}: {error}. `ss -ltnp` says who has the port; free it, or set {key}"
                );
                tracing::error!(component = "http", "{line}; tried again while the rest goes on");
                app.note_error("control", "listener", &line);
                None
            }
        }
    }

    /// The listener that was had at once, or comes to be had later.
    pub(super) async fn wait(self, first: Option<TcpListener>) -> TcpListener {
        if let Some(listener) = first {
            return listener;
        }
        loop {
            tokio::time::sleep(RETRY).await;
            if let Ok(listener) = TcpListener::bind(self.address).await {
                let (address, what) = (self.address.to_string(), self.what);
                tracing::info!(component = "http", address, "{what} listens at last");
                return listener;
            }
        }
    }
}

/// Where it listens; empty where it does not yet.
pub(super) fn address_of(listener: Option<&TcpListener>) -> String {
    let address = listener.and_then(|listener| listener.local_addr().ok());
    address.map_or_else(String::new, |address| address.to_string())
}

const RETRY: Duration = Duration::from_secs(2);
