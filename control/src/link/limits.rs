//! What may be sent at this moment: the configured ceilings, and the timetables by the host's local time. A part of the
//! plan that changes without anybody's doing; the link's thread asks once a second.
use std::time::Duration;

use dwcp_config::{Config, Timetable, WeekTime};
use dwcp_sys::clock::local_minute;

use crate::jobs::Now;

/// Ceilings in bytes per second; 0 = none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Of all lanes together.
    pub(super) total: u64,
    /// Of the lanes to each peer, in the order of the configuration.
    pub(super) peers: Vec<u64>,
}

/// The limits that the dataplane was told.
#[derive(Default)]
pub(super) struct Schedule {
    told: Limits,
    looked: Duration,
}

impl Schedule {
    /// The limits for a plan that is made now.
    pub(super) fn begin(&mut self, config: &Config, now: Now) -> &Limits {
        self.looked = now.uptime;
        self.told = Limits::at(config, now.unix_ms / 1000);
        &self.told
    }

    /// Whether others are in force by now. Looks once a second: what the clock does in between is seen then.
    pub(super) fn is_over(&mut self, config: &Config, now: Now) -> bool {
        if now.uptime.saturating_sub(self.looked) < LOOK {
            return false;
        }
        self.looked = now.uptime;
        let is_over = Limits::at(config, now.unix_ms / 1000) != self.told;
        if is_over {
            tracing::info!(component = "link", "limits of bandwidth are others at this time of the day");
        }
        is_over
    }
}

impl Limits {
    /// Those in force at that time, in seconds since 1970.
    pub(super) fn at(config: &Config, unix_seconds: u64) -> Self {
        if !config.transport.enable_pacing {
            return Self { total: 0, peers: vec![0; config.peers.len()] };
        }
        let now = local_minute(unix_seconds).map_or_else(WeekTime::default, |now| WeekTime {
            day: now.day,
            minute_of_day: now.minute_of_day,
        });
        let limit = |timetable: &Timetable| timetable.limit_at(now).map_or(0, dwcp_config::Rate::bytes_per_s);
        let (fixed, timed) =
            (config.transport.pacing_rate.bytes_per_s(), limit(&config.transport.bandwidth_limit));
        let total = [fixed, timed].into_iter().filter(|&rate| rate > 0).min().unwrap_or(0);
        Self { total, peers: config.peers.iter().map(|peer| limit(&peer.bandwidth_limit)).collect() }
    }
}

const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Limits {
        Limits::at(&dwcp_config::parse(text, "f.yaml").unwrap(), 1_800_000_000)
    }

    /// A minute, and the clock put by half a day, each end what was told; an hour of nothing does not.
    #[test]
    fn the_clock_alone_ends_what_was_told() {
        let text: String = (0..24).map(|hour| format!("{hour:02}:00,{}Mbps ", hour + 1)).collect();
        let config =
            dwcp_config::parse(&format!("transport: {{bandwidth_limit: '{text}'}}"), "f.yaml").unwrap();
        let mut schedule = Schedule::default();
        let at =
            |uptime_s, unix_s: u64| Now { uptime: Duration::from_secs(uptime_s), unix_ms: unix_s * 1000 };
        // No zone is off by less than a quarter of an hour: seven minutes after a quarter are no border.
        let begin = 1_800_000_000 / 900 * 900 + 420;
        let first = schedule.begin(&config, at(0, begin)).clone();
        assert!(!schedule.is_over(&config, at(1, begin + 1)));
        assert!(!schedule.is_over(&config, at(1, begin + 3600)), "looks once a second");
        assert!(schedule.is_over(&config, at(2, begin + 3600)));
        assert_ne!(*schedule.begin(&config, at(2, begin + 3600)), first);
        assert!(!schedule.is_over(&config, at(4, begin + 3600)));
        assert!(schedule.is_over(&config, at(5, begin)), "the clock was put back");
    }

    #[test]
    fn the_lower_ceiling_counts_and_pacing_switches_all_off() {
        let peer = "peers: [{name: a, identity: 'sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff', bandwidth_limit: 8Mbps}]";
        let of = |transport: &str| limits(&format!("transport: {{{transport}}}\n{peer}\n"));
        let expect = |total, peer| Limits { total, peers: vec![peer] };
        assert_eq!(of("pacing_rate: 80Mbps"), expect(10_000_000, 1_000_000));
        assert_eq!(of("pacing_rate: 80Mbps, bandwidth_limit: 16Mbps"), expect(2_000_000, 1_000_000));
        assert_eq!(of("pacing_rate: 80Mbps, bandwidth_limit: 160Mbps"), expect(10_000_000, 1_000_000));
        assert_eq!(of("bandwidth_limit: off"), expect(0, 1_000_000));
        assert_eq!(of("bandwidth_limit: 16Mbps, enable_pacing: false"), expect(0, 0));
    }
}
