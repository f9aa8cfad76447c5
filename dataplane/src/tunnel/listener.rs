//! Listeners of tunnels: as the plan says, tried again while they cannot be had. Used by [`super::turn`].
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::listeners::Listeners;
use crate::plan::Tunnel;

/// A listener.
pub(super) struct Listener {
    pub(super) tunnel: Tunnel,
    state: State,
    pub(super) figures: ListenerFigures,
}

enum State {
    Standing { listener: TcpListener, number: u64, is_ready: bool },
    Failed { text: String, retry_at: Instant },
}

/// What happened at a listener.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ListenerFigures {
    pub(super) open: u32,
    pub(super) opened: u64,
    pub(super) refused: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) last_refusal: String,
}

impl Listener {
    pub(super) fn new(tunnel: Tunnel, now: Instant) -> Self {
        let state = State::Failed { text: String::new(), retry_at: now };
        Self { tunnel, state, figures: ListenerFigures::default() }
    }

    /// When it is to be tried next.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(&self.state, State::Failed { retry_at, .. } if *retry_at <= now)
    }

    /// Tries to listen. `watch` registers the socket and says its number.
    pub(super) fn open(
        &mut self,
        now: Instant,
        listeners: &Listeners,
        watch: impl FnOnce(&TcpListener) -> io::Result<u64>,
    ) {
        let opened = open(&self.tunnel.listen, listeners).and_then(|listener| {
            let number = watch(&listener)?;
            Ok(State::Standing { listener, number, is_ready: true })
        });
        let (listen, peer) = (&self.tunnel.listen, &self.tunnel.peer);
        match opened {
            Ok(state) => {
                let destination = &self.tunnel.target;
                tracing::info!(listen, %peer, destination, "tunnel listens");
                self.state = state;
            }
            Err(error) => {
                let text = explain(listen, &error);
                // Said once, not at every try.
                if !matches!(&self.state, State::Failed { text: before, .. } if *before == text) {
                    tracing::warn!(listen, %peer, text, "tunnel does not listen");
                }
                self.state = State::Failed { text, retry_at: now + RETRY_INTERVAL };
            }
        }
    }

    /// Somebody connects.
    pub(super) fn handle_ready(&mut self) {
        if let State::Standing { is_ready, .. } = &mut self.state {
            *is_ready = true;
        }
    }

    /// The next connection; `None` = nobody, or none at present: without descriptors it is asked again at the next turn.
    pub(super) fn accept(&mut self) -> Option<TcpStream> {
        let State::Standing { listener, is_ready, .. } = &mut self.state else { return None };
        if !*is_ready {
            return None;
        }
        match listener.accept() {
            Ok((stream, _)) => stream.set_nonblocking(true).is_ok().then_some(stream),
            Err(error) => {
                *is_ready = error.kind() != io::ErrorKind::WouldBlock;
                if *is_ready {
                    tracing::debug!(listen = self.tunnel.listen, %error, "a tunnel's connection was lost");
                }
                None
            }
        }
    }

    /// It goes for good: nothing is kept of it.
    pub(super) fn close(&self, listeners: &Listeners) {
        if let State::Standing { listener, .. } = &self.state
            && let Ok(address) = listener.local_addr()
        {
            listeners.forget(address);
        }
    }

    /// Its number among the sources, while it stands.
    pub(super) fn number(&self) -> Option<u64> {
        match &self.state {
            State::Standing { number, .. } => Some(*number),
            State::Failed { .. } => None,
        }
    }

    /// Why it does not listen; none = it does.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Standing { .. } => None,
            State::Failed { text, .. } => Some(text),
        }
    }

    /// A connection came to nothing.
    pub(super) fn note_refusal(&mut self, text: &str) {
        self.figures.refused += 1;
        self.figures.last_refusal = text.to_owned();
    }
}

fn open(listen: &str, listeners: &Listeners) -> io::Result<TcpListener> {
    let address = listen.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    listeners.listen(address)
}

fn explain(listen: &str, error: &io::Error) -> String {
    let port = listen.rsplit_once(':').map_or("", |(_, port)| port);
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{listen} is taken by another program: stop it (`ss -ltnp 'sport = :{port}'` names it), or choose another address"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{listen} is no address of this host: `ip address` lists them")
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "{listen} may not be listened at by this user: ports below 1024 need CAP_NET_BIND_SERVICE"
            )
        }
        _ => format!("{listen} cannot be listened at: {error}"),
    }
}

const RETRY_INTERVAL: Duration = Duration::from_secs(5);
