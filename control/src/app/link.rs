//! What the link's thread tells the shared state, and asks of it.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dwcp_abi::link::Event;

use super::App;
use crate::figures::{Figures, Rates};
use crate::link::Attachment;

impl App {
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    pub(crate) fn settings_generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tunnels of the present plan; none while the node is switched off.
    pub(crate) fn tunnels_in_force(&self) -> Vec<dwcp_config::Tunnel> {
        let settings = self.settings();
        if !settings.config.enabled {
            return Vec::new();
        }
        self.lock().tunnels.in_force(&settings.config).into_iter().map(|(tunnel, _)| tunnel).collect()
    }

    pub(crate) fn note_link_alive(&self) {
        let uptime_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.link_alive_ms.store(uptime_ms, Ordering::Relaxed);
    }

    pub(crate) fn has_commands(&self) -> bool {
        self.lock().jobs.has_commands()
    }

    pub(crate) fn next_command(&self, worker: usize) -> Option<Vec<u8>> {
        self.lock().jobs.next_command(worker).map(<[u8]>::to_vec)
    }

    pub(crate) fn handle_command_taken(&self, worker: usize) {
        self.lock().jobs.handle_command_taken(worker);
    }

    pub(crate) fn handle_attached(self: &Arc<Self>, attachment: Attachment) {
        let attached = attachment.attached;
        self.change(|shared, now| {
            let is_new = shared.last_instance.replace(attached.instance) != Some(attached.instance);
            if is_new {
                // A new process may well work where the one before failed.
                let breaker = shared.jobs.gate.node();
                breaker.state(now.uptime);
                breaker.handle_replacement();
                shared.rates = Rates::default();
            }
            shared.totals.dataplane_restarts += u64::from(is_new && shared.fingerprint.is_some());
            shared.fingerprint = Some(attached.fingerprint);
            (shared.link_trouble, shared.is_version_wrong) = (None, false);
            shared.figures = Figures::read(&attachment, &Figures::default());
            shared.attached_ns = crate::figures::monotonic_ns();
            shared.dataplane = Some(Arc::new(attachment));
            shared.jobs.handle_attached(attached.instance, attached.workers, now);
            let (pid, workers) = (attached.pid, attached.workers);
            tracing::info!(component = "link", pid, workers, is_new, "dataplane attached");
        });
        crate::health::check(self, crate::health::Round::Changed);
    }

    pub(crate) fn handle_detached(self: &Arc<Self>) {
        self.change(|shared, _| {
            shared.dataplane = None;
            shared.jobs.handle_detached();
            shared.peers.handle_detached();
            shared.tunnels.handle_detached();
        });
        crate::health::check(self, crate::health::Round::Changed);
    }

    pub(crate) fn handle_link_trouble(&self, trouble: &str, is_version: bool) {
        let mut shared = self.lock();
        shared.is_version_wrong = is_version;
        if shared.link_trouble.as_deref() == Some(trouble) {
            return;
        }
        shared.link_trouble = Some(trouble.to_owned());
        shared.note_error("amst", "link", trouble);
        tracing::warn!(component = "link", trouble, "dataplane not attached");
    }

    pub(crate) fn handle_event(self: &Arc<Self>, worker: usize, event: &Event<'_>) {
        if let Event::Pong(pong) = event {
            self.handle_pong(pong);
        }
        let settings = self.settings();
        let strange = self.change(|shared, now| {
            if let Event::Tunnel(figures) = event {
                shared.tunnels.handle_figures(figures, &settings.config);
            }
            if let Event::TunnelPeer(figures) = event {
                shared.tunnels.handle_peer(figures, &settings.config);
            }
            if let Event::Lane(change) = event {
                shared.peers.handle_lane(worker, change, now);
                if !change.up && !change.text.is_empty() {
                    shared.note_error("amst", "lane", &crate::jobs::clean(change.text));
                }
            }
            if let Event::Path(path) = event {
                shared.peers.handle_path(path, now);
            }
            shared.jobs.handle_event(worker, event, now)
        });
        if let Err(strange) = strange {
            tracing::debug!(component = "link", worker, ?strange, "event does not fit");
            self.lock().totals.garbage += 1;
        }
    }

    pub(crate) fn handle_garbage(self: &Arc<Self>, worker: usize, what: &str) {
        self.change(|shared, _| {
            shared.totals.garbage += 1;
            if shared.totals.garbage.is_power_of_two() {
                tracing::warn!(
                    component = "link",
                    worker,
                    what,
                    total = shared.totals.garbage,
                    "event not understood"
                );
            }
            shared.note_error("control", "event", what);
            shared.jobs.handle_lost_events(worker);
        });
    }
}
