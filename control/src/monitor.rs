//! Once a second: reads the statistics pages, moves the jobs' clock on, checks health, feeds the watchdog; in between,
//! tries to recover what failed. A task of
//! `main`; decides nothing itself.
use std::sync::Arc;
use std::time::Duration;

use dwcp_sys::service::Notifier;

use crate::app::App;
use crate::figures::Figures;
use crate::history::History;

/// Runs until the process ends.
pub(crate) async fn run(app: Arc<App>, notifier: Arc<Notifier>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut links = tokio::time::interval(LINKS_INTERVAL);
    let mut history = History::default();
    loop {
        tokio::select! {
            _ = tick.tick() => {
                turn(&app);
                if let Some(before_ms) = history.poll(app.now(), app.settings().config.state.keep_transfers) {
                    app.store.prune(before_ms);
                }
            }
            _ = links.tick() => {
                let found = crate::links::read(std::path::Path::new(crate::links::ROOT));
                app.lock().links = found;
            }
            () = due(&app) => {}
            // Something has just failed: the next pause counts from now.
            () = app.monitor_wake.notified() => continue,
        }
        app.recover();
        if app.link_idle() < LINK_IDLE_MAX {
            notifier.send("WATCHDOG=1");
        }
    }
}

/// Until recovery has something to try.
async fn due(app: &App) {
    let until = app.lock().recoveries.poll_timeout();
    match until {
        Some(until) => tokio::time::sleep(until.saturating_sub(app.now().uptime)).await,
        None => std::future::pending().await,
    }
}

/// One round.
pub(crate) fn turn(app: &Arc<App>) {
    let agreement = app.cluster.agreement();
    app.change(|shared, now| {
        shared.agreement = agreement;
        shared.jobs.handle_tick(now);
        if let Some(dataplane) = shared.dataplane.clone() {
            shared.figures = Figures::read(&dataplane, &shared.figures);
            let crate::app::Shared { rates, figures, .. } = shared;
            rates.observe(now.uptime, figures);
        }
        let pid = shared.dataplane.as_ref().map(|dataplane| dataplane.attached.pid);
        shared.rates.observe_cpu(now.uptime, crate::metrics::cpu_ns(pid));
    });
    crate::health::check(app, crate::health::Round::Scheduled);
}

/// Cables are plugged in more seldom.
const LINKS_INTERVAL: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(1);
/// The link's thread turns once a second at least, less often only while it waits for a dataplane's answer.
const LINK_IDLE_MAX: Duration = Duration::from_secs(15);
