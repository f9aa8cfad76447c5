//! What stands behind the lock of the shared state.
use std::collections::VecDeque;
use std::sync::Arc;

use dwcp_api::{RecentError, Timestamp};
use dwcp_policy::RateLimiter;

use super::unix_ms;
use crate::access::ApiKeys;
use crate::figures::{Figures, Rates};
use crate::jobs::Jobs;
use crate::link::Attachment;
use crate::peers::Peers;
use crate::recovery::Recoveries;
use crate::store::StoreError;
use crate::tunnels::Tunnels;

/// What stands behind the lock.
pub(crate) struct Shared {
    pub(crate) jobs: Jobs,
    pub(crate) keys: ApiKeys,
    pub(crate) limiter: RateLimiter,
    /// Those that the HTTPS interface uses; none where there is no such interface.
    pub(crate) certificates: Vec<crate::certificates::InUse>,
    pub(crate) peers: Peers,
    pub(crate) tunnels: Tunnels,
    pub(crate) recoveries: Recoveries,
    pub(crate) dataplane: Option<Arc<Attachment>>,
    /// SHA-256 of the node's certificate, once the dataplane said it.
    pub(crate) fingerprint: Option<[u8; 32]>,
    pub(crate) figures: Figures,
    pub(crate) rates: Rates,
    pub(crate) links: Vec<crate::links::Link>,
    pub(crate) recent_errors: VecDeque<RecentError>,
    pub(crate) totals: Totals,
    /// Why there is no dataplane.
    pub(crate) link_trouble: Option<String>,
    /// The dataplane speaks another version: only a person helps.
    pub(crate) is_version_wrong: bool,
    pub(crate) store_trouble: Option<String>,
    /// How the cluster does that this node is in; `None` where it is in none.
    pub(crate) agreement: Option<crate::cluster::Agreement>,
    pub(crate) is_reload_failed: bool,
    /// When the last copy of the state was made, and its bytes.
    pub(crate) backup: Option<(u64, u64)>,
    pub(crate) metrics_listener: Option<(u16, bool)>,
    /// When the dataplane was attached, by the clock of its heartbeats.
    pub(crate) attached_ns: u64,
    pub(super) last_instance: Option<u64>,
}

/// Counters of control itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) dataplane_restarts: u64,
    pub(crate) garbage: u64,
}

impl Shared {
    /// Whether the store's state is another one now.
    pub(super) fn handle_store_result(&mut self, result: Result<(), StoreError>) -> bool {
        let before = self.store_trouble.is_some();
        match result {
            Ok(()) if self.jobs.unstored() == 0 => self.store_trouble = None,
            Ok(()) => {}
            Err(error) => {
                let text = error.to_string();
                if !before {
                    self.note_error("store", "write", &text);
                }
                self.store_trouble = Some(text);
            }
        }
        before != self.store_trouble.is_some()
    }

    pub(super) fn note_error(&mut self, component: &str, kind: &str, message: &str) {
        let error = RecentError {
            timestamp: Timestamp::from_unix_ms(unix_ms()),
            component: component.to_owned(),
            kind: kind.to_owned(),
            message: message.to_owned(),
        };
        self.recent_errors.truncate(RECENT_ERRORS_MAX - 1);
        self.recent_errors.push_front(error);
    }
}

const RECENT_ERRORS_MAX: usize = 20;
