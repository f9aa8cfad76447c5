//! The paths to all peers: what the workers measured of their lanes goes in, the rate and the number of lanes that
//! follow come out. Workers look here about once a round trip, never per chunk. The decisions are the engine's
//! ([`PathControl`]).
use std::collections::HashMap;
use std::time::{Duration, Instant};

use dwcp_abi::link::{PathFigures, PathLimit};
use dwcp_engine::{Congestion, Demand, Guidance, PathControl, PathMode, PathSample, PeerId, Reason};

/// Paths by peer.
#[derive(Debug, Default)]
pub struct Paths {
    paths: HashMap<PeerId, Path>,
}

/// What one worker measured of its lanes to a peer since it last said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Bytes acknowledged by the peer's kernel.
    pub delivered_bytes: u64,
    /// Bytes sent again by ours.
    pub resent_bytes: u64,
    /// Round-trip time of the busy lanes in nanoseconds; 0 = none is busy.
    pub rtt_ns: u64,
    /// The least of any lane in nanoseconds; 0 = unknown.
    pub rtt_min_ns: u64,
    /// Lanes with something to send.
    pub busy: u16,
}

/// What a worker does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// Ceiling of each lane in bytes per second; none = unpaced.
    pub lane_bytes_per_s: Option<u64>,
    /// Lanes that are enough; none = as configured.
    pub lanes: Option<u16>,
    /// Congestion control that suits it.
    pub congestion: Congestion,
    /// Its round trip is not that of a local network.
    pub is_long: bool,
    /// Most that it was seen to carry lately, or is paced to.
    pub carried_bytes_per_s: Option<u64>,
    /// When to measure next, in nanoseconds from now.
    pub span_ns: u64,
    /// What control shall hear now.
    pub known: Option<Known>,
}

/// From this round trip on a path counts as long, in nanoseconds: a local network has a fifth of it.
const LONG_RTT_NS: u64 = 1_000_000;

/// What control is told of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    mode: PathMode,
    reason: Reason,
    rtt_us: u32,
    rtt_min_us: u32,
    resent_millionths: u32,
    delivered_bytes_per_s: u64,
    ceiling_bytes_per_s: u64,
    busy: u16,
    transitions: u32,
}

impl Known {
    /// As an event.
    #[must_use]
    pub fn figures<'a>(&self, peer: &'a [u8]) -> PathFigures<'a> {
        PathFigures {
            peer,
            internet: self.mode == PathMode::Internet,
            limit: match self.reason {
                Reason::Unknown => PathLimit::Unknown,
                Reason::Short => PathLimit::Short,
                Reason::Searching => PathLimit::Searching,
                Reason::Queue => PathLimit::Queue,
                Reason::Loss => PathLimit::Loss,
                Reason::Room => PathLimit::Room,
                Reason::Demand => PathLimit::Demand,
            },
            rtt_us: self.rtt_us,
            rtt_min_us: self.rtt_min_us,
            resent_millionths: self.resent_millionths,
            delivered_bytes_per_s: self.delivered_bytes_per_s,
            ceiling_bytes_per_s: self.ceiling_bytes_per_s,
            busy: self.busy,
            transitions: self.transitions,
        }
    }
}

#[derive(Debug)]
struct Path {
    control: PathControl,
    /// What is said of it next, and when.
    lately: Lately,
    since: Instant,
    gathered: Gathered,
    carried: Carried,
    rtt_min_ns: u64,
    busy: HashMap<u16, u16>,
    told: (PathMode, Option<u16>, Reason, Congestion),
}

#[derive(Debug, Default)]
struct Gathered {
    delivered_bytes: u64,
    resent_bytes: u64,
    rtt_weighted: u128,
    rtt_weight: u128,
    rtt_min_ns: u64,
    samples: u32,
    samples_busy: u32,
}

impl Paths {
    /// Takes a worker's measurement and says what follows.
    pub fn report(&mut self, peer: PeerId, worker: u16, measured: &Measured, now: Instant) -> Advice {
        let path = self.paths.entry(peer).or_insert_with(|| Path::new(now));
        path.busy.insert(worker, measured.busy);
        path.gathered.add(measured);
        path.control.meet(measured.rtt_min_ns);
        if measured.rtt_min_ns > 0 {
            path.rtt_min_ns = measured.rtt_min_ns;
        }
        let span = now.saturating_duration_since(path.since).as_nanos() as u64;
        // The workers' clocks tick on their own: a sample that is nearly long enough is.
        if span + span / 8 >= path.control.span_ns() {
            path.step(peer, span, now);
        }
        Advice { known: path.known(now), ..path.advice() }
    }
}

impl Path {
    fn new(now: Instant) -> Self {
        let control = PathControl::default();
        let told = (control.guidance().mode, None, control.reason(), control.guidance().congestion);
        Self {
            control,
            lately: Lately::new(now),
            since: now,
            gathered: Gathered::default(),
            carried: Carried::new(now),
            rtt_min_ns: 0,
            busy: HashMap::new(),
            told,
        }
    }

    fn step(&mut self, peer: PeerId, span_ns: u64, now: Instant) {
        let gathered = std::mem::take(&mut self.gathered);
        self.since = now;
        let rtt_ns = (gathered.rtt_weighted / gathered.rtt_weight.max(1)) as u64;
        if gathered.samples_busy == gathered.samples {
            self.carried.add(gathered.delivered_bytes.saturating_mul(1_000_000_000) / span_ns.max(1), now);
        }
        self.lately.add(&gathered, rtt_ns);
        self.control.handle(&PathSample {
            span_ns,
            delivered_bytes: gathered.delivered_bytes,
            resent_bytes: gathered.resent_bytes,
            rtt_ns: if rtt_ns == 0 { gathered.rtt_min_ns } else { rtt_ns },
            rtt_min_ns: gathered.rtt_min_ns,
            demand: if gathered.samples_busy == gathered.samples { Demand::Enough } else { Demand::Little },
        });
        let Guidance { rate_bytes_per_s, lanes, mode, congestion } = self.control.guidance();
        tracing::trace!(
            peer = peer.0,
            delivered_bytes_per_s = gathered.delivered_bytes * 1000 / (span_ns / 1_000_000).max(1),
            resent_bytes = gathered.resent_bytes,
            rtt_us = rtt_ns / 1000,
            rtt_min_us = gathered.rtt_min_ns / 1000,
            rate_bytes_per_s,
            reason = ?self.control.reason(),
            "path measured"
        );
        self.tell(peer, rate_bytes_per_s, (mode, lanes, self.control.reason(), congestion));
    }

    fn tell(
        &mut self,
        peer: PeerId,
        rate_bytes_per_s: Option<u64>,
        now: (PathMode, Option<u16>, Reason, Congestion),
    ) {
        let before = std::mem::replace(&mut self.told, now);
        if before.0 != now.0 {
            tracing::info!(peer = peer.0, mode = ?now.0, "path mode changed");
        }
        if before.1 != now.1 {
            let active: u16 = self.busy.values().sum();
            tracing::info!(peer = peer.0, active, target = now.1, "Stream scaling triggered");
        }
        if before.3 != now.3 {
            tracing::info!(peer = peer.0, congestion = ?now.3, "congestion control suits the path");
        }
        if before.2 != now.2 {
            tracing::debug!(peer = peer.0, rate_bytes_per_s, reason = ?now.2, "path rate decided");
        }
    }

    /// About once a second, while bytes move.
    fn known(&mut self, now: Instant) -> Option<Known> {
        let elapsed = now.saturating_duration_since(self.lately.since);
        if elapsed < REPORT_INTERVAL || self.lately.delivered_bytes == 0 {
            return None;
        }
        let lately = std::mem::replace(&mut self.lately, Lately::new(now));
        let sent = (lately.delivered_bytes + lately.resent_bytes).max(1);
        let Guidance { rate_bytes_per_s, mode, .. } = self.control.guidance();
        Some(Known {
            mode,
            reason: self.control.reason(),
            rtt_us: clamped(lately.rtt_ns / 1000),
            rtt_min_us: clamped(lately.rtt_min_ns / 1000),
            resent_millionths: clamped(lately.resent_bytes * 1_000_000 / sent),
            delivered_bytes_per_s: (lately.delivered_bytes as f64 / elapsed.as_secs_f64()) as u64,
            ceiling_bytes_per_s: rate_bytes_per_s.unwrap_or(0),
            busy: self.busy.values().sum(),
            transitions: clamped(self.control.transitions()),
        })
    }

    fn advice(&self) -> Advice {
        let Guidance { rate_bytes_per_s, lanes, congestion, .. } = self.control.guidance();
        let busy = self.busy.values().map(|&busy| u64::from(busy)).sum::<u64>().max(1);
        Advice {
            lane_bytes_per_s: rate_bytes_per_s.map(|rate| (rate / busy).max(1)),
            lanes,
            congestion,
            is_long: self.rtt_min_ns >= LONG_RTT_NS,
            carried_bytes_per_s: rate_bytes_per_s.or(self.carried.most()),
            span_ns: self.control.span_ns(),
            known: None,
        }
    }
}

fn clamped(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// What happened since control last heard of a path.
#[derive(Debug)]
struct Lately {
    since: Instant,
    delivered_bytes: u64,
    resent_bytes: u64,
    rtt_ns: u64,
    rtt_min_ns: u64,
}

impl Lately {
    fn new(since: Instant) -> Self {
        Self { since, delivered_bytes: 0, resent_bytes: 0, rtt_ns: 0, rtt_min_ns: 0 }
    }

    fn add(&mut self, gathered: &Gathered, rtt_ns: u64) {
        self.delivered_bytes += gathered.delivered_bytes;
        self.resent_bytes += gathered.resent_bytes;
        if rtt_ns > 0 {
            self.rtt_ns = rtt_ns;
        }
        if gathered.rtt_min_ns > 0 {
            self.rtt_min_ns = gathered.rtt_min_ns;
        }
    }
}

/// Most bytes per second of the latest ten to twenty seconds in which something was sent.
#[derive(Debug)]
struct Carried {
    since: Instant,
    latest: u64,
    before: u64,
}

impl Carried {
    fn new(since: Instant) -> Self {
        Self { since, latest: 0, before: 0 }
    }

    fn add(&mut self, bytes_per_s: u64, now: Instant) {
        if now.saturating_duration_since(self.since) > CARRIED_SPAN {
            *self = Self { since: now, latest: 0, before: self.latest };
        }
        self.latest = self.latest.max(bytes_per_s);
    }

    fn most(&self) -> Option<u64> {
        let most = self.latest.max(self.before);
        (most > 0).then_some(most)
    }
}

const CARRIED_SPAN: Duration = Duration::from_secs(10);

/// Control hears of a path so often at most.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Gathered {
    fn add(&mut self, measured: &Measured) {
        self.delivered_bytes += measured.delivered_bytes;
        self.resent_bytes += measured.resent_bytes;
        // Lanes that carry more say more about the queue.
        let weight = u128::from(measured.delivered_bytes) + 1;
        if measured.rtt_ns > 0 {
            self.rtt_weighted += u128::from(measured.rtt_ns) * weight;
            self.rtt_weight += weight;
        }
        if measured.rtt_min_ns > 0 && (self.rtt_min_ns == 0 || measured.rtt_min_ns < self.rtt_min_ns) {
            self.rtt_min_ns = measured.rtt_min_ns;
        }
        self.samples += 1;
        self.samples_busy += u32::from(measured.busy > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_what_the_path_carries() {
        let (mut paths, start) = (Paths::default(), Instant::now());
        let mut rtt_ns = 50_000_000;
        let mut advice = [None, None];
        for round in 1..200u32 {
            for worker in 0..2 {
                let measured = Measured {
                    delivered_bytes: 2_500_000,
                    resent_bytes: 0,
                    rtt_ns,
                    rtt_min_ns: 50_000_000,
                    busy: 2,
                };
                let now = start + Duration::from_millis(50) * round;
                advice[usize::from(worker)] = Some(paths.report(PeerId(1), worker, &measured, now));
            }
            rtt_ns = if round == 20 { 80_000_000 } else { 52_000_000 };
        }
        let advice = advice[0].take().expect("reported");
        let all = advice.lane_bytes_per_s.expect("paced") * 4;
        assert!((80_000_000..126_000_000).contains(&all), "{all} of 100 MB/s");
        assert_eq!(advice.lanes, Some(16));
    }
}
