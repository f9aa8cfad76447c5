//! What the threads of control share: jobs, peers, figures and health behind one lock, and the effects of each change.
//! Called by the link's thread, the store's thread and HTTP; holds the lock for short, never across a wait.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use dwcp_abi::link::Event;
use dwcp_api::{RecentError, Timestamp};
use dwcp_config::{Changes, Config, Findings};
use dwcp_policy::RateLimiter;
use dwcp_sys::doorbell::Doorbell;

use crate::access::ApiKeys;
use crate::figures::{Figures, Rates};
use crate::jobs::{Jobs, Now, Then};
use crate::journal::Journal;
use crate::link::Attachment;
use crate::peers::Peers;
use crate::recovery::{Recoveries, Try};
use crate::settings::{self, Keep, SetError, Settings, Sources};
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

/// Where the round trip in nanoseconds is awaited, or why there is none.
type PingAnswer = tokio::sync::oneshot::Sender<Result<u64, String>>;

/// What stands behind the lock.
pub(crate) struct Shared {
    pub(crate) jobs: Jobs,
    pub(crate) keys: ApiKeys,
    pub(crate) limiter: RateLimiter,
    /// When the certificate of the HTTPS interface expires, in seconds since 1970.
    pub(crate) certificate_expires_s: Option<i64>,
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
    last_instance: Option<u64>,
}

/// Counters of control itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) dataplane_restarts: u64,
    pub(crate) garbage: u64,
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
            certificate_expires_s: None,
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

    /// The configuration in use.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration again and uses it. A wrong one changes nothing.
    ///
    /// # Errors
    /// Every mistake found.
    pub(crate) fn reload(self: &Arc<Self>) -> Result<dwcp_api::ConfigChange, Findings> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match settings::load(&self.sources) {
            Ok(settings) => {
                let change = self.use_settings(settings);
                let restart_required = change.restart_required.join(", ");
                tracing::info!(component = "control", restart_required, "configuration loaded again");
                Ok(change)
            }
            Err(findings) => {
                self.lock().is_reload_failed = true;
                self.note_error("control", "configuration", &findings.to_string());
                tracing::error!(component = "control", %findings, "configuration is wrong: the former one stays in use");
                Err(findings)
            }
        }
    }

    /// What reading the configuration again would change.
    ///
    /// # Errors
    /// Every mistake found.
    pub(crate) fn reload_dry(&self) -> Result<dwcp_api::ConfigChange, Findings> {
        let mut settings = settings::load(&self.sources)?;
        settings.compare_with_start(&self.start_config);
        Ok(settings.change_from(&self.settings(), Keep::No))
    }

    /// Sets and unsets keys, for good.
    ///
    /// # Errors
    /// They are wrong, somebody else was faster, or they cannot be kept; then nothing has changed.
    pub(crate) fn set(
        self: &Arc<Self>,
        changes: &Changes,
        expected_hash: Option<&str>,
        keep: Keep,
    ) -> Result<dwcp_api::ConfigChange, SetError> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.settings();
        if expected_hash.is_some_and(|hash| hash != current.hash) {
            return Err(SetError::Stale);
        }
        let mut settings = settings::set(&self.sources, &current, changes, keep)?;
        if keep == Keep::Yes {
            return Ok(self.use_settings(settings));
        }
        settings.compare_with_start(&self.start_config);
        Ok(settings.change_from(&current, keep))
    }

    /// Uses another configuration from now on.
    fn use_settings(self: &Arc<Self>, mut settings: Settings) -> dwcp_api::ConfigChange {
        settings.compare_with_start(&self.start_config);
        let change = settings.change_from(&self.settings(), Keep::Yes);
        crate::log::set_level(&self.level, settings.config.monitoring.log_level);
        self.change(|shared, _| {
            shared.peers.handle_config(&settings.config);
            shared.tunnels.handle_config(&settings.config);
            shared.jobs.gate.handle_config(&settings.config);
            shared.recoveries.handle_config(&settings.config);
            shared.limiter.set_rate(settings.config.security.rate_limit);
            shared.is_reload_failed = false;
        });
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.generation.fetch_add(1, Ordering::Release);
        self.ring();
        crate::health::check(self, crate::health::Round::Changed);
        change
    }

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

    fn handle_pong(&self, pong: &dwcp_abi::link::Pong<'_>) {
        let sender = self.pings.lock().unwrap_or_else(PoisonError::into_inner).remove(&pong.token);
        let answer = if pong.rtt_ns > 0 { Ok(pong.rtt_ns) } else { Err(crate::jobs::clean(pong.text)) };
        // A request that timed out needs no answer.
        drop(sender.map(|sender| sender.send(answer)));
    }

    /// Changes the tunnels that operators added; the dataplane hears of it with the next plan, which is made now.
    pub(crate) fn change_tunnels(&self, change: impl FnOnce(&mut Tunnels)) {
        change(&mut self.lock().tunnels);
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

/// For the link's thread.
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

impl Shared {
    /// Whether the store's state is another one now.
    fn handle_store_result(&mut self, result: Result<(), StoreError>) -> bool {
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

    fn note_error(&mut self, component: &str, kind: &str, message: &str) {
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

/// Pings that may be awaited at once.
const PINGS_MAX: usize = 64;
const RECENT_ERRORS_MAX: usize = 20;
/// Clients whose requests are counted at once.
const CLIENTS_MAX: usize = 10_000;
