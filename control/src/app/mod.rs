//! What the threads of control share: jobs, peers, figures and health behind one lock, and the effects of each change.
//! Called by the link's thread, the store's thread and HTTP; holds the lock for short, never across a wait.
mod configuration;
mod link;
mod pings;
mod shared;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use dwcp_api::Timestamp;
use dwcp_config::Config;
use dwcp_policy::RateLimiter;
use dwcp_sys::doorbell::Doorbell;

use self::pings::PingAnswer;
pub(crate) use self::shared::{Shared, Totals};
use crate::access::ApiKeys;
use crate::figures::{Figures, Rates};
use crate::jobs::{Jobs, Now, Then};
use crate::journal::Journal;
use crate::peers::Peers;
use crate::recovery::{Recoveries, Try};
use crate::settings::{Settings, Sources};
use crate::store::{Change, Recovered, Store, StoreError};
use crate::tunnels::Tunnels;

/// The shared state of the process.
pub(crate) struct App {
    /// Rings the link's thread: commands, a new plan, the end.
    pub(crate) wake: Doorbell,
    pub(crate) store: Store,
    pub(crate) http: crate::metrics::HttpCounters,
    pub(crate) health: RwLock<Arc<crate::health::Rendered>>,
    /// Wakes the monitor before its second is over.
    pub(crate) monitor_wake: tokio::sync::Notify,
    pub(crate) node_id: String,
    /// What the processes were started with.
    pub(crate) start_config: Config,
    pub(crate) journal: Arc<Journal>,
    /// This node's part in a cluster, if it has any.
    pub(crate) cluster: crate::cluster::Cluster,
    /// Keys that tokens are signed with. A lock of its own: their file is written under it.
    pub(crate) tokens: Mutex<crate::tokens::Keyring>,
    /// The store's file; copies are made beside it.
    pub(crate) store_file: std::path::PathBuf,
    sources: Sources,
    level: crate::log::LevelHandle,
    /// One change of the configuration at a time.
    changing: Mutex<()>,
    start: Instant,
    shared: Mutex<Shared>,
    settings: RwLock<Arc<Settings>>,
    generation: AtomicU64,
    is_stopping: AtomicBool,
    link_alive_ms: AtomicU64,
    wants_restart: AtomicBool,
    pings: Mutex<std::collections::HashMap<u64, PingAnswer>>,
    next_ping: AtomicU64,
}

impl App {
    /// Puts everything together; starts nothing.
    pub(crate) fn new(start: crate::Start, store: Store, mut recovered: Recovered, wake: Doorbell) -> Self {
        let crate::Start { settings, sources, journal, level } = start;
        let config = &settings.config;
        let mut peers = Peers::default();
        peers.handle_config(config);
        let shared = Shared {
            keys: ApiKeys::new(std::mem::take(&mut recovered.keys)),
            limiter: RateLimiter::new(config.security.rate_limit, CLIENTS_MAX),
            certificates: Vec::new(),
            tunnels: Tunnels::new(std::mem::take(&mut recovered.tunnels)),
            jobs: Jobs::new(recovered, config),
            peers,
            recoveries: Recoveries::new(config),
            dataplane: None,
            fingerprint: None,
            figures: Figures::default(),
            rates: Rates::default(),
            links: Vec::new(),
            recent_errors: VecDeque::new(),
            totals: Totals::default(),
            link_trouble: None,
            is_version_wrong: false,
            store_trouble: None,
            agreement: None,
            is_reload_failed: false,
            backup: None,
            metrics_listener: None,
            attached_ns: 0,
            last_instance: None,
        };
        Self {
            wake,
            store,
            http: crate::metrics::HttpCounters::default(),
            health: RwLock::new(Arc::new(crate::health::Rendered::starting())),
            monitor_wake: tokio::sync::Notify::new(),
            node_id: node_id(config),
            start_config: config.clone(),
            journal,
            cluster: crate::cluster::Cluster::new(std::path::Path::new("")),
            tokens: Mutex::default(),
            store_file: std::path::PathBuf::new(),
            sources,
            level,
            changing: Mutex::new(()),
            start: Instant::now(),
            shared: Mutex::new(shared),
            settings: RwLock::new(Arc::new(settings)),
            generation: AtomicU64::new(unix_ms()),
            is_stopping: AtomicBool::new(false),
            link_alive_ms: AtomicU64::new(0),
            wants_restart: AtomicBool::new(false),
            pings: Mutex::default(),
            next_ping: AtomicU64::new(1),
        }
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        Now { uptime: self.start.elapsed(), unix_ms: unix_ms() }
    }

    /// The lock. A thread that panicked with it has left whole values behind: every change is one assignment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of tokens. A thread that panicked with them has left whole values behind.
    pub(crate) fn tokens(&self) -> MutexGuard<'_, crate::tokens::Keyring> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes shared state, then carries out what follows for store and link.
    pub(crate) fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut Shared, Now) -> R) -> R {
        let now = self.now();
        let mut shared = self.lock();
        let result = change(&mut shared, now);
        while let Some(effect) = shared.jobs.poll_effect() {
            self.write(effect.record, effect.then);
        }
        let has_commands = shared.jobs.has_commands();
        drop(shared);
        if has_commands {
            self.ring();
        }
        result
    }

    fn write(self: &Arc<Self>, record: crate::jobs::JobRecord, then: Then) {
        let change = if matches!(then, Then::Created(_)) { Change::Insert } else { Change::Update };
        let (app, id) = (Arc::clone(self), record.id);
        self.store.write(record, change, move |result| app.handle_stored(id, then, result));
    }

    fn handle_stored(self: &Arc<Self>, id: u64, then: Then, result: Result<(), StoreError>) {
        let is_changed = self.change(|shared, now| {
            shared.jobs.handle_stored(id, then, result.is_ok(), now);
            shared.handle_store_result(result)
        });
        if is_changed {
            crate::health::check(self, crate::health::Round::Changed);
        }
    }

    /// Does what recovery wants done now.
    pub(crate) fn recover(self: &Arc<Self>) {
        for wanted in self.change(|shared, now| shared.recoveries.poll(now)) {
            match wanted {
                Try::Dataplane => self.recover_dataplane(),
                Try::Store => {
                    let app = Arc::clone(self);
                    self.store.probe(move |result| {
                        if app.change(|shared, _| shared.handle_store_result(result)) {
                            crate::health::check(&app, crate::health::Round::Changed);
                        }
                    });
                }
            }
        }
    }

    fn recover_dataplane(self: &Arc<Self>) {
        let is_stuck = self.change(|shared, now| {
            // It has failed once more: the last try, or the first look, was in vain.
            shared.jobs.gate.node().handle_failure(now.uptime);
            crate::health::is_stuck(shared)
        });
        self.wants_restart.store(is_stuck, Ordering::Release);
        self.ring();
    }

    /// Whether the attached dataplane is to be ended; true once for each try.
    pub(crate) fn takes_restart(&self) -> bool {
        self.wants_restart.swap(false, Ordering::AcqRel)
    }

    fn ring(&self) {
        if let Err(error) = self.wake.ring() {
            tracing::error!(component = "link", %error, "link not woken");
        }
    }

    /// Changes the tunnels that operators added; the dataplane hears of it with the next plan, which is made now.
    pub(crate) fn change_tunnels(&self, change: impl FnOnce(&mut Tunnels)) {
        change(&mut self.lock().tunnels);
        self.renew_plan();
    }

    /// Makes the dataplane hear of a new plan.
    pub(crate) fn renew_plan(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.ring();
    }

    /// Ends the link's thread at its next turn.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.ring();
    }

    /// Keeps one of the last errors for `/health?verbose=true`.
    pub(crate) fn note_error(&self, component: &str, kind: &str, message: &str) {
        self.lock().note_error(component, kind, message);
    }

    /// A copy of the state was made.
    pub(crate) fn note_backup(&self, bytes: u64) {
        self.lock().backup = Some((unix_ms(), bytes));
    }

    /// How long the link's thread has not turned.
    pub(crate) fn link_idle(&self) -> Duration {
        let alive = Duration::from_millis(self.link_alive_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(alive)
    }
}

fn node_id(config: &Config) -> String {
    if !config.node_name.is_empty() {
        return config.node_name.clone();
    }
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    host.unwrap_or_else(|| "node".into())
}

fn unix_ms() -> u64 {
    Timestamp::from(SystemTime::now()).unix_ms()
}

/// Clients whose requests are counted at once.
const CLIENTS_MAX: usize = 10_000;
