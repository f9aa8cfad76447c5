//! Getting failed parts of the node back: when to try is `dwcp_policy`'s, what a try does is here. Driven by the
//! monitor; each part is tried by itself, and nothing is done to the others.
use std::time::Duration;

use dwcp_config::Config;
use dwcp_policy::{Recovery, RecoveryLimits, RecoveryState};

use crate::jobs::Now;

/// What can be got back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Dataplane,
    Store,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Store => "store",
        }
    }
}

/// What a try does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    /// Connect to the dataplane now, or end the one that is attached and does not turn: its service manager starts
    /// another one.
    Dataplane,
    /// Write to the store.
    Store,
}

/// All parts.
pub(crate) struct Recoveries {
    dataplane: Recovery,
    store: Recovery,
    interval: Duration,
    checked: Duration,
}

impl Recoveries {
    pub(crate) fn new(config: &Config) -> Self {
        let new = || Recovery::new(limits(config));
        Self { dataplane: new(), store: new(), interval: interval(config), checked: Duration::ZERO }
    }

    /// Other limits from now on.
    pub(crate) fn handle_config(&mut self, config: &Config) {
        self.dataplane.set_limits(limits(config));
        self.store.set_limits(limits(config));
        self.interval = interval(config);
    }

    /// A look at a part.
    pub(crate) fn handle_look(&mut self, part: Part, works: bool, now: Now) {
        let recovery = self.part(part);
        let before = recovery.state();
        if works {
            recovery.handle_success();
        } else {
            recovery.handle_failure(now.uptime);
        }
        let after = recovery.state();
        if before != after {
            let (part, from, to) = (part.name(), word(before), word(after));
            tracing::info!(component = "recovery", part, from, to, "recovery changed");
        }
    }

    /// An operator wants everything tried again.
    pub(crate) fn reset(&mut self, now: Now) {
        self.dataplane.reset(now.uptime);
        self.store.reset(now.uptime);
    }

    /// What is due. The interval of the health checks tries the store even where nothing is known to be wrong: an idle
    /// node learns of a full disk that way.
    pub(crate) fn poll(&mut self, now: Now) -> Vec<Try> {
        let mut tries = Vec::new();
        let is_check = now.uptime.saturating_sub(self.checked) >= self.interval;
        if is_check {
            self.checked = now.uptime;
            self.dataplane.handle_check();
            self.store.handle_check();
        }
        if self.dataplane.poll_try(now.uptime) {
            tries.push(Try::Dataplane);
        }
        if self.store.poll_try(now.uptime) || is_check {
            tries.push(Try::Store);
        }
        tries
    }

    /// When [`Self::poll`] has something new, at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.dataplane.poll_timeout().into_iter().chain(self.store.poll_timeout()).min()
    }

    pub(crate) fn state(&self, part: Part) -> RecoveryState {
        match part {
            Part::Dataplane => self.dataplane.state(),
            Part::Store => self.store.state(),
        }
    }

    /// Tries and recoveries since the start.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let tries = self.dataplane.tries_total() + self.store.tries_total();
        (tries, self.dataplane.successes_total() + self.store.successes_total())
    }

    fn part(&mut self, part: Part) -> &mut Recovery {
        match part {
            Part::Dataplane => &mut self.dataplane,
            Part::Store => &mut self.store,
        }
    }
}

fn word(state: RecoveryState) -> &'static str {
    match state {
        RecoveryState::Working => "working",
        RecoveryState::Recovering => "recovering",
        RecoveryState::GivenUp => "given up",
    }
}

fn limits(config: &Config) -> RecoveryLimits {
    RecoveryLimits { tries_max: config.recovery.max_retries, pauses: config.recovery.backoff.clone() }
}

fn interval(config: &Config) -> Duration {
    config.monitoring.health_check_interval
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        // The clock that people read runs backwards here: nothing may depend on it.
        Now { uptime: Duration::from_millis(ms), unix_ms: 10_000_000 - ms }
    }

    /// What is tried, and when, looking every 100 ms.
    fn tries(recoveries: &mut Recoveries, from_ms: u64, to_ms: u64) -> Vec<(u64, Try)> {
        let looks = (from_ms..to_ms).step_by(100);
        looks.flat_map(|ms| recoveries.poll(at(ms)).into_iter().map(move |tried| (ms, tried))).collect()
    }

    #[test]
    fn each_part_is_tried_by_itself_and_by_the_configured_pauses() {
        let mut recoveries = Recoveries::new(&Config::default());
        recoveries.handle_look(Part::Dataplane, false, at(0));
        let dataplane = |ms| (ms, Try::Dataplane);
        assert_eq!(tries(&mut recoveries, 0, 9_000), [dataplane(1000), dataplane(3000), dataplane(7000)]);
        assert_eq!(recoveries.state(Part::Dataplane), RecoveryState::Recovering);
        // The check at ten seconds comes before the verdict; the one at twenty tries what was given up.
        assert_eq!(
            tries(&mut recoveries, 9_000, 20_100),
            [(10_000, Try::Store), dataplane(20_000), (20_000, Try::Store)]
        );
        assert_eq!(recoveries.state(Part::Store), RecoveryState::Working);
        recoveries.handle_look(Part::Dataplane, true, at(20_500));
        assert_eq!(tries(&mut recoveries, 20_100, 30_100), [(30_000, Try::Store)]);
        assert_eq!(recoveries.totals(), (4, 1));
    }

    #[test]
    fn other_limits_count_at_once() {
        let mut config = Config::default();
        let mut recoveries = Recoveries::new(&config);
        config.recovery.max_retries = 1;
        config.recovery.backoff = vec![Duration::from_millis(200)];
        config.monitoring.health_check_interval = Duration::from_secs(1);
        recoveries.handle_config(&config);
        recoveries.handle_look(Part::Store, false, at(0));
        let store = |ms| (ms, Try::Store);
        assert_eq!(tries(&mut recoveries, 0, 2_100), [store(200), store(1000), store(2000)]);
        assert_eq!(recoveries.state(Part::Store), RecoveryState::GivenUp);
        recoveries.reset(at(2_100));
        assert_eq!(tries(&mut recoveries, 2_100, 2_200), [store(2100)]);
    }
}
