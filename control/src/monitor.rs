//! Once a second: reads the statistics pages, moves the jobs' clock on, checks health, feeds the watchdog. A task of
//! `main`; decides nothing itself.
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::figures::Figures;
use crate::notify::Notifier;

/// Runs until the process ends.
pub(crate) async fn run(app: Arc<App>, notifier: Arc<Notifier>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        turn(&app);
        if app.link_idle() < LINK_IDLE_MAX {
            notifier.send("WATCHDOG=1");
        }
    }
}

/// One round.
pub(crate) fn turn(app: &Arc<App>) {
    app.change(|shared, now| {
        shared.jobs.handle_tick(now);
        if let Some(dataplane) = shared.dataplane.clone() {
            shared.figures = Figures::read(&dataplane, &shared.figures);
            let crate::app::Shared { rates, figures, .. } = shared;
            rates.observe(now.uptime, figures);
        }
    });
    crate::health::check(app, crate::health::Round::Scheduled);
}

const TICK: Duration = Duration::from_secs(1);
/// The link's thread turns once a second at least, less often only while it waits for a dataplane's answer.
const LINK_IDLE_MAX: Duration = Duration::from_secs(15);
