//! Round trips that requests wait for. Part of the shared state.
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::App;

/// Where the round trip in nanoseconds is awaited, or why there is none.
pub(super) type PingAnswer = tokio::sync::oneshot::Sender<Result<u64, String>>;

impl App {
    /// Orders one round trip to a peer; `None` without a dataplane, or where too many are awaited.
    pub(crate) fn ping(
        self: &Arc<Self>,
        peer: &str,
    ) -> Option<tokio::sync::oneshot::Receiver<Result<u64, String>>> {
        let token = self.next_ping.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = tokio::sync::oneshot::channel();
        let mut pings = self.pings.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody awaits those whose requests have timed out.
        pings.retain(|_, sender| !sender.is_closed());
        if pings.len() >= PINGS_MAX {
            return None;
        }
        pings.insert(token, sender);
        drop(pings);
        self.change(|shared, _| shared.jobs.command_ping(peer, token)).then_some(answer)
    }

    pub(super) fn handle_pong(&self, pong: &dwcp_abi::link::Pong<'_>) {
        let sender = self.pings.lock().unwrap_or_else(PoisonError::into_inner).remove(&pong.token);
        let answer = if pong.rtt_ns > 0 { Ok(pong.rtt_ns) } else { Err(crate::jobs::clean(pong.text)) };
        // A request that timed out needs no answer.
        drop(sender.map(|sender| sender.send(answer)));
    }
}

/// Pings that may be awaited at once.
const PINGS_MAX: usize = 64;
