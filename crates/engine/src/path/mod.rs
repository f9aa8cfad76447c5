//! How fast a peer may be sent to: one rate for all lanes of a session, found by measurement and kept just under the
//! bottleneck. The dataplane feeds it what the kernel says of the lanes and divides the rate among them; it knows no
//! socket and no clock.
//!
//! Each lane keeps its own congestion control, which finds its window. Together, lanes overrun the buffer of the
//! bottleneck and send a tenth and more twice; a common ceiling at the rate that the path delivers, steered by the
//! queueing delay (round-trip time above its minimum), leaves them nothing to lose.
//!
//! ```text
//! Starting ── queue and no more growth, or loss jumps ─► Steady: queue low → rate up; queue high, or loss jumps → rate
//!                                                       down to what arrives
//! ```
//!
//! Not every delay is a queue of ours: acknowledgements of a thin lane wait for company, others fill the same buffer, air
//! links jitter. A queue that does not shrink although less is sent than went through ([`drain`]) is taken for noise,
//! and where a small queue just stands, more is tried and kept if it arrives ([`probe`]).
mod drain;
mod probe;
mod window;

use crate::io::Time;
use drain::{Drain, EFFECT_SPANS};
use probe::{Probe, Verdict};
use window::Maximum;

/// What the lanes to a peer did since the last sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathSample {
    /// How long that is, in nanoseconds.
    pub span_ns: Time,
    /// Bytes that the peer's kernel acknowledged.
    pub delivered_bytes: u64,
    /// Bytes that the kernel sent again.
    pub resent_bytes: u64,
    /// Round-trip time now, in nanoseconds, over the lanes that are busy.
    pub rtt_ns: Time,
    /// The least that any lane has seen, in nanoseconds.
    pub rtt_min_ns: Time,
    /// Whether there was always more to send than was sent.
    pub demand: Demand,
}

/// Whether the path or the sender was the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Every moment somebody wanted to send more.
    Enough,
    /// At times nobody did.
    Little,
}

/// What kind of path it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMode {
    /// Short: the kernel's congestion control is left alone.
    Datacenter,
    /// Long: lanes are paced together.
    Internet,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guidance {
    /// Ceiling of all lanes together in bytes per second; none = unpaced.
    pub rate_bytes_per_s: Option<u64>,
    /// Lanes that are enough for the path; none = as many as are configured.
    pub lanes: Option<u16>,
    /// What the path is.
    pub mode: PathMode,
    /// What suits its lanes, where it may be chosen.
    pub congestion: Congestion,
}

/// Congestion control of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// Keeps its rate where segments get lost; but it overruns buffers, and pauses every ten seconds to look for the
    /// round trip (draft-cardwell-iccrg-bbr-congestion-control-00, ProbeRTT).
    Bbr,
    /// RFC 9438. Where nothing gets lost the common rate is its only limit.
    Cubic,
}

/// Why the rate changed last, for the log and for `dwcp path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing was measured yet.
    Unknown,
    /// The path is short.
    Short,
    /// The rate that it can carry is not found yet.
    Searching,
    /// A queue had built up.
    Queue,
    /// More was lost than is usual on this path.
    Loss,
    /// There was room.
    Room,
    /// There was nothing more to send.
    Demand,
}

/// The control of one path.
#[derive(Debug)]
pub struct PathControl {
    mode: PathMode,
    phase: Phase,
    rate: f64,
    /// The rate at which a queue was last seen.
    ceiling: f64,
    /// Room was found so many times in a row.
    streak: u32,
    delivered: Maximum,
    delivered_long: Maximum,
    /// Queueing delay that is there whatever we do.
    noise_ns: Time,
    /// Queueing delay of the last sample.
    queue_ns: Time,
    /// What the last sample delivered, per second.
    latest: f64,
    /// The most that a span of the search delivered, per second.
    peak: f64,
    loss: f64,
    /// Spans with enough to send in which nothing was sent again.
    clean: u32,
    congestion: Congestion,
    /// A queue of ours is to go first.
    draining: bool,
    /// Since the first of the cuts that follow each other.
    drain: Option<Drain>,
    probe: Probe,
    /// Spans since there was little to send.
    settled: u32,
    rtt_min_ns: Time,
    now: Time,
    reason: Reason,
    transitions: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Starting,
    Steady,
}

impl Default for PathControl {
    fn default() -> Self {
        Self {
            mode: PathMode::Datacenter,
            phase: Phase::Starting,
            rate: 0.0,
            ceiling: 0.0,
            streak: 0,
            delivered: Maximum::default(),
            delivered_long: Maximum::default(),
            noise_ns: 0,
            queue_ns: 0,
            latest: 0.0,
            peak: 0.0,
            loss: 0.0,
            clean: 0,
            congestion: Congestion::Bbr,
            draining: false,
            drain: None,
            probe: Probe::default(),
            settled: 0,
            rtt_min_ns: 0,
            now: 0,
            reason: Reason::Unknown,
            transitions: 0,
        }
    }
}

impl PathControl {
    /// How long a sample should be, in nanoseconds: about a round trip where the rate is steered.
    #[must_use]
    pub fn span_ns(&self) -> Time {
        match self.mode {
            PathMode::Datacenter if self.rtt_min_ns > 0 => SPAN_MAX_NS,
            PathMode::Datacenter | PathMode::Internet => self.rtt_min_ns.clamp(SPAN_MIN_NS, SPAN_MAX_NS),
        }
    }

    /// Learns the length of the path before anything was sent, in nanoseconds: from the handshake of its first lane.
    pub fn meet(&mut self, rtt_min_ns: Time) {
        if rtt_min_ns > 0 && self.rtt_min_ns == 0 {
            self.rtt_min_ns = rtt_min_ns;
            self.choose_mode();
        }
    }

    /// Takes what was measured.
    pub fn handle(&mut self, sample: &PathSample) {
        self.now += sample.span_ns;
        if sample.span_ns == 0 || sample.rtt_ns == 0 || sample.rtt_min_ns == 0 {
            return;
        }
        self.rtt_min_ns = sample.rtt_min_ns;
        self.choose_mode();
        let arrived = sample.delivered_bytes as f64 * 1e9 / sample.span_ns as f64;
        // Lanes probe and pause in turns, and acknowledgements come in bunches: one span says little.
        let delivered = (arrived + self.latest) / 2.0;
        self.delivered.add(self.now, delivered, self.memory_ns());
        self.delivered_long.add(self.now, delivered, self.memory_ns().max(LONG_NS));
        self.settled = if sample.demand == Demand::Enough { self.settled.saturating_add(1) } else { 0 };
        let sent = (sample.delivered_bytes + sample.resent_bytes).max(1) as f64;
        let loss = sample.resent_bytes as f64 / sent;
        let queue_ns = sample.rtt_ns.saturating_sub(sample.rtt_min_ns);
        match (self.mode, self.phase) {
            (PathMode::Datacenter, _) => (self.phase, self.reason) = (Phase::Starting, Reason::Short),
            (PathMode::Internet, Phase::Starting) => self.search(arrived, queue_ns, loss),
            (PathMode::Internet, Phase::Steady) => self.steer(sample.span_ns, delivered, queue_ns, loss),
        }
        self.rate = self.rate.max(RATE_MIN_BYTES_PER_S as f64);
        self.loss += (loss - self.loss) * LOSS_WEIGHT;
        self.latest = arrived;
        self.choose_congestion(sample);
    }

    /// What follows from it.
    #[must_use]
    pub fn guidance(&self) -> Guidance {
        let rate = match (self.mode, self.phase) {
            (PathMode::Datacenter, _) => None,
            (PathMode::Internet, Phase::Starting) => self.start_ceiling(),
            (PathMode::Internet, Phase::Steady) => Some(self.rate),
        };
        Guidance {
            rate_bytes_per_s: rate.map(|rate| rate as u64),
            lanes: (self.mode == PathMode::Internet).then(|| self.lanes_enough()),
            mode: self.mode,
            congestion: self.congestion,
        }
    }

    /// Why the rate is what it is.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Times that the mode changed.
    #[must_use]
    pub fn transitions(&self) -> u64 {
        self.transitions
    }

    fn choose_mode(&mut self) {
        let mode = match self.mode {
            PathMode::Datacenter if self.rtt_min_ns > INTERNET_ABOVE_NS => PathMode::Internet,
            PathMode::Internet if self.rtt_min_ns < DATACENTER_BELOW_NS => PathMode::Datacenter,
            mode => mode,
        };
        if mode != self.mode {
            self.mode = mode;
            self.transitions += 1;
        }
    }

    fn choose_congestion(&mut self, sample: &PathSample) {
        let is_idle = sample.demand == Demand::Little;
        self.clean = if is_idle || sample.resent_bytes > 0 { 0 } else { self.clean.saturating_add(1) };
        let is_found = self.mode == PathMode::Datacenter || self.phase == Phase::Steady;
        // Linux lets the window of an idle lane shrink to its first size, but not bbr's (`tcp_slow_start_after_idle`).
        let is_pausing = is_idle && self.mode == PathMode::Internet;
        if self.loss > LOSSY || is_pausing {
            self.congestion = Congestion::Bbr;
        } else if is_found && self.clean >= CLEAN_SPANS {
            self.congestion = Congestion::Cubic;
        }
    }

    /// Lets the lanes double until a queue builds up and more does not arrive. Where none ever does, there is nothing to
    /// pace. A delay alone means little yet: the kernel remembers that of the handshakes.
    fn search(&mut self, arrived: f64, queue_ns: Time, loss: f64) {
        self.reason = Reason::Searching;
        self.queue_ns = queue_ns;
        let is_growing = arrived > self.peak * GROWING;
        self.peak = self.peak.max(arrived);
        let is_queued = queue_ns > (self.rtt_min_ns / 4).max(QUEUE_NOISE_NS);
        let is_full = is_queued && !is_growing || queue_ns > self.rtt_min_ns * 2;
        if self.settled < SETTLED_SPANS || !(is_full || loss > LOSS_CERTAIN) {
            return;
        }
        self.phase = Phase::Steady;
        self.ceiling = self.peak;
        // What stands in the queue shall leave it within a few round trips.
        self.rate = self.ceiling * DRAIN;
        self.draining = true;
        self.streak = 0;
        self.reason = if is_queued { Reason::Queue } else { Reason::Loss };
    }

    /// While the rate is searched for, it doubles each round trip and no faster, less where a queue begins: BBR's own start
    /// overruns a buffer of one bandwidth-delay product and sends a tenth and more twice.
    fn start_ceiling(&self) -> Option<f64> {
        let first = START_BYTES * 1e9 / self.rtt_min_ns.max(1) as f64;
        let is_near = self.queue_ns > (self.rtt_min_ns / 8).max(QUEUE_NOISE_NS);
        (self.settled > 0).then(|| (self.peak * if is_near { GROWING_SLOWLY } else { DOUBLING }).max(first))
    }

    fn steer(&mut self, span_ns: Time, delivered: f64, queue_ns: Time, loss: f64) {
        if self.settled == 0 {
            // The next burst begins at what went through, not at what might have.
            self.rate = self.rate.min(self.delivered_long.value().max(self.ceiling * DRAIN));
            self.reason = Reason::Demand;
        }
        if self.settled < SETTLED_SPANS {
            (self.drain, self.probe) = (None, Probe::default());
            return;
        }
        self.learn_noise(delivered, queue_ns);
        let low = (self.rtt_min_ns / 16).max(QUEUE_NOISE_NS / 4).max(self.noise_ns);
        let high = low + (self.rtt_min_ns / 12).max(QUEUE_NOISE_NS);
        if queue_ns > high || self.is_lossy(loss) {
            self.give_way((span_ns, delivered), (queue_ns, loss), (low, high));
            return;
        }
        self.drain = None;
        if core::mem::take(&mut self.draining) {
            self.rate = self.rate.max(self.ceiling);
            self.probe = Probe::default();
        } else if queue_ns > low && self.rate > self.ceiling || self.probe.is_running() {
            self.streak = 0;
            self.hold(delivered, queue_ns);
        } else if delivered > self.rate * USED {
            self.probe = Probe::default();
            self.rate = (self.rate * (1.0 + self.gain())).min(self.delivered.value() * AHEAD_MAX);
            self.reason = Reason::Room;
        }
    }

    /// Down to less than arrives, unless that has been tried and the delay has not followed: then it is not our queue.
    fn give_way(
        &mut self,
        (span_ns, delivered): (Time, f64),
        (queue_ns, loss): (Time, f64),
        (low, high): (Time, Time),
    ) {
        self.probe = Probe::default();
        self.streak = 0;
        let begun = Drain {
            rate: self.rate,
            ceiling: delivered.max(self.latest),
            queue_ns,
            owed_ns: 0.0,
            latest: [self.rate; 2],
            spans: EFFECT_SPANS,
        };
        let drain = self.drain.get_or_insert(begun);
        drain.go_on(span_ns, self.rate, delivered);
        if queue_ns > high && drain.is_in_vain(queue_ns, self.rtt_min_ns) {
            self.noise_ns = queue_ns;
            self.rate = self.rate.max(drain.rate);
            self.ceiling = self.rate * AHEAD_MAX;
            self.reason = Reason::Room;
            (self.drain, self.draining) = (None, false);
            return;
        }
        if !drain.may_cut(self.rate, delivered) {
            return;
        }
        drain.spans = 0;
        // While a queue stands, what arrives is what the bottleneck carries.
        self.ceiling = delivered.max(self.latest);
        let excess = queue_ns.saturating_sub(low) as f64 / (4 * self.rtt_min_ns) as f64;
        // Little delay and little that arrives: the lanes pause by themselves, as BBR's do to look for the round trip.
        let is_ours = queue_ns > self.rtt_min_ns / 4 || self.is_lossy(loss);
        let least = self.rate * if is_ours { 0.5 } else { 0.85 };
        let cut = (self.ceiling * (1.0 - excess.clamp(CUT_MIN, CUT_MAX))).max(least);
        self.rate = self.rate.min(cut);
        self.draining = true;
        self.reason = if queue_ns > high { Reason::Queue } else { Reason::Loss };
    }

    /// A small queue stands above the rate that made one last time.
    fn hold(&mut self, delivered: f64, queue_ns: Time) {
        match self.probe.step(self.rate, delivered, queue_ns, self.rtt_min_ns) {
            Verdict::Wait => {}
            Verdict::Try => self.rate *= 1.0 + probe::STEP,
            Verdict::Follows => {
                // The wall, if there is one, stands further off.
                self.ceiling = self.rate * AHEAD_MAX;
                self.reason = Reason::Room;
            }
            Verdict::Full => {
                self.noise_ns = 0;
                self.ceiling = delivered;
                self.rate = self.rate.min(delivered * DRAIN);
                self.draining = true;
                self.reason = Reason::Queue;
            }
        }
    }

    /// Much more gets lost than is usual here: a policer, or a buffer too small to show a queue.
    fn is_lossy(&self, loss: f64) -> bool {
        loss > LOSS_JUMP && loss > self.loss * 4.0
    }

    /// Around the rate that made a queue last time one goes slowly, elsewhere faster with each step.
    fn gain(&mut self) -> f64 {
        if self.rate > self.ceiling * 0.94 && self.rate < self.ceiling * 1.06 {
            self.streak = 0;
            return GAIN_FIRST;
        }
        let gain = GAIN_FIRST * f64::from(1u32 << self.streak.min(5));
        self.streak += 1;
        gain.min(GAIN_MAX)
    }

    /// A queue that stands although much less is sent than went through lately, and all of that arrives, is not ours:
    /// the link's jitter, or somebody else who fills the buffer. Giving way to it any further would end in silence.
    fn learn_noise(&mut self, delivered: f64, queue_ns: Time) {
        let is_quiet = self.rate < self.delivered_long.value() * 0.85
            && (self.rate * 0.9..self.rate * 1.03).contains(&delivered);
        let is_going = queue_ns < self.queue_ns - self.queue_ns / 16;
        self.queue_ns = queue_ns;
        if queue_ns < self.noise_ns {
            self.noise_ns -= (self.noise_ns - queue_ns) / 8;
        } else if is_quiet && !is_going {
            self.noise_ns += (queue_ns - self.noise_ns) / 8;
        }
        // What was taken for noise by mistake is looked at again.
        self.noise_ns -= self.noise_ns / 256;
    }

    /// As many lanes as fill the path with windows that any kernel grants, and a few for those that wait for a loss. But
    /// each is to be through with a chunk soon: at the end of an object all wait for the slowest, and acknowledgements of
    /// thin lanes wait for company.
    fn lanes_enough(&self) -> u16 {
        let rate = self.delivered.value().max(self.rate);
        let flying = rate * self.rtt_min_ns as f64 / 1e9;
        let lanes = (flying / LANE_WINDOW_BYTES) as u64 + 1;
        let most = if self.loss > LOSSY {
            (rate / LANE_RATE_BYTES_PER_S) as u64
        } else {
            (rate * self.chunk_ns() / 1e9 / CHUNK) as u64
        };
        let few = if self.phase == Phase::Starting { LANES_FEW } else { LANES_LEAST_KNOWN };
        let most = most.clamp(few, LANES_MOST);
        lanes.clamp(LANES_LEAST.min(most), most) as u16
    }

    /// How long a chunk may take a lane.
    fn chunk_ns(&self) -> f64 {
        (2 * self.rtt_min_ns).max(CHUNK_NS) as f64
    }

    fn memory_ns(&self) -> Time {
        (self.rtt_min_ns * 10).max(1_000_000_000)
    }
}

/// Between the two the mode stays what it was.
const INTERNET_ABOVE_NS: Time = 6_000_000;
const DATACENTER_BELOW_NS: Time = 4_000_000;
/// How long the best of what went through is held against what goes now.
const LONG_NS: Time = 4_000_000_000;
const SPAN_MIN_NS: Time = 40_000_000;
const SPAN_MAX_NS: Time = 500_000_000;
/// Delays that schedulers and wireless links add without any queue of ours.
const QUEUE_NOISE_NS: Time = 3_000_000;
/// Spans after which what is measured is that of a sender with enough to send.
const SETTLED_SPANS: u32 = 3;
/// Growth from one round trip to the next below which the lanes no longer double.
const GROWING: f64 = 1.25;
/// What is allowed where a queue begins, or seems to.
const GROWING_SLOWLY: f64 = 1.5;
/// A little more than what the lanes do by themselves, so that they are not held back by a late measurement.
const DOUBLING: f64 = 2.2;
/// What may be in flight before anything is known: the first windows (RFC 6928) of the least lanes, twice.
const START_BYTES: f64 = 2.0 * LANES_LEAST as f64 * 14_600.0;
const DRAIN: f64 = 0.9;
/// Share of the rate that must be used before there is a reason to raise it.
const USED: f64 = 0.85;
const GAIN_FIRST: f64 = 0.01;
const GAIN_MAX: f64 = 0.25;
const AHEAD_MAX: f64 = 1.25;
const CUT_MIN: f64 = 0.02;
const CUT_MAX: f64 = 0.3;
/// A share of repeats that is no accident where there was little before.
const LOSS_JUMP: f64 = 0.1;
/// A share of repeats that only an overrun buffer explains.
const LOSS_CERTAIN: f64 = 0.2;
const LOSS_WEIGHT: f64 = 0.1;
/// Below it segments are too far apart to tell a queue from an acknowledgement that waits: the lanes' own congestion
/// control is left alone there. Whatever is misread, a path is not slowed down further.
const RATE_MIN_BYTES_PER_S: u64 = 256 * 1024;
/// Half of what Linux lets a send buffer grow to by default (`tcp_wmem`, 4 MiB).
const LANE_WINDOW_BYTES: f64 = 2_097_152.0;
/// Eight segments in the 40 ms for which Linux may hold an acknowledgement back (`TCP_DELACK_MIN`).
const LANE_RATE_BYTES_PER_S: f64 = 290_000.0;
const LANES_FEW: u64 = 4;
/// Where the rate is known to be low: a chunk shall not take a minute.
const LANES_LEAST_KNOWN: u64 = 2;
/// A share of repeats that makes windows small, so that more lanes are worth it.
const LOSSY: f64 = 0.0005;
/// Spans without repeats after which a path counts as one that loses nothing.
const CLEAN_SPANS: u32 = 8;
const CHUNK: f64 = dwcp_abi::wire::CHUNK_BYTES as f64;
const CHUNK_NS: Time = 200_000_000;
const LANES_LEAST: u64 = 16;
const LANES_MOST: u64 = 64;

#[cfg(test)]
mod tests;
