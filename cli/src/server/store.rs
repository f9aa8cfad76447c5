//! Keeps the dataplane's listening sockets while it is started anew, as systemd does by FileDescriptorStoreMax=: peers
//! that connect meanwhile wait instead of being refused. Where its socket cannot be made, the node works without.
use std::path::Path;
use std::process::Command;

use dwcp_sys::service::{Store, Told};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::context::Context;

pub(super) struct DataplaneStore {
    /// The same socket twice: to wait at, and to read from.
    store: Option<(UnixDatagram, Store)>,
}

impl DataplaneStore {
    pub(super) fn new(context: &Context, runtime: &Path) -> Self {
        let path = runtime.join("notify.sock");
        let store =
            Store::bind(&path).and_then(|store| Ok((UnixDatagram::from_std(store.socket()?)?, store)));
        if let Err(error) = &store {
            context.note(&format!(
                "dwcp server: listening sockets will not outlive the dataplane: {}: {error}",
                path.display()
            ));
        }
        Self { store: store.ok() }
    }

    /// Takes what the dataplane says next; for ever where nothing can be kept.
    pub(super) async fn keep(&mut self) {
        let Some((socket, store)) = &mut self.store else { return std::future::pending().await };
        match socket.async_io(Interest::READABLE, || store.receive()).await {
            // The supervisor judges by life and death alone; states are for managers that show them.
            Ok(Told::Kept(_) | Told::Forgotten(_) | Told::State(_) | Told::Refused) => {}
            // It would fail again at once.
            Err(_) => self.store = None,
        }
    }

    /// Gives the dataplane what its former life left.
    pub(super) fn hand_over(&self, command: &mut Command) {
        if let Some((_, store)) = &self.store {
            store.hand_over(command);
        }
    }
}
