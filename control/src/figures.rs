//! One look at the dataplane's statistics pages, and what follows from two looks. Taken once a second by the monitor;
//! everything that is served comes from here, so that no request costs the dataplane anything.
use std::collections::VecDeque;
use std::time::Duration;

use dwcp_abi::shm::{NodeCounter, NodeFigures, WorkerCounter, WorkerSnapshot};
use dwcp_api::{Feature, FeatureState};

use crate::jobs::RateMeter;
use crate::link::Attachment;

/// The last consistent copy of every page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) workers: Vec<WorkerSnapshot>,
    pub(crate) node: NodeFigures,
    pub(crate) features: Vec<Feature>,
}

impl Figures {
    /// Reads all pages. A page that is never consistent keeps its former value; a stale heartbeat then tells.
    pub(crate) fn read(attachment: &Attachment, before: &Self) -> Self {
        let workers =
            attachment.workers.iter().enumerate().filter_map(|(index, region)| {
                region.stats().ok().or_else(|| before.workers.get(index).cloned())
            });
        Self {
            workers: workers.collect(),
            node: attachment.node.figures().unwrap_or_else(|_| before.node.clone()),
            features: features(attachment).unwrap_or_else(|| before.features.clone()),
        }
    }

    /// Sum of a counter over all workers.
    pub(crate) fn sum(&self, counter: WorkerCounter) -> u64 {
        self.workers.iter().fold(0, |sum, worker| sum.wrapping_add(worker.value(counter)))
    }

    /// What differences did.
    pub(crate) fn deltas(&self) -> Deltas {
        Deltas {
            bytes_original: self.sum(WorkerCounter::DeltaBytesIn),
            bytes_sent: self.sum(WorkerCounter::DeltaBytesOut),
            chunks_unmade: self.sum(WorkerCounter::DeltaChunksUnmade),
            named: self.node.value(NodeCounter::BaselinesNamed),
            found: self.node.value(NodeCounter::BaselinesFound),
            baselines: self.node.value(NodeCounter::BaselinesKept),
            baseline_bytes: self.node.value(NodeCounter::BaselineBytes),
        }
    }

    /// Age of the oldest heartbeat of all workers and of the node.
    pub(crate) fn heartbeat_age(&self, monotonic_ns: u64) -> Option<Duration> {
        let node = (self.node.value(NodeCounter::HeartbeatNs) != 0)
            .then(|| self.node.value(NodeCounter::HeartbeatNs));
        let workers = self.workers.iter().map(|worker| worker.value(WorkerCounter::HeartbeatNs));
        let oldest = workers.chain(node).min()?;
        Some(Duration::from_nanos(monotonic_ns.saturating_sub(oldest)))
    }
}

/// Differences to what receivers have, since the dataplane started, and what is kept for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deltas {
    pub(crate) bytes_original: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) chunks_unmade: u64,
    pub(crate) baselines: u64,
    pub(crate) baseline_bytes: u64,
    named: u64,
    found: u64,
}

impl Deltas {
    /// Share of the bytes that differences saved; none before the first.
    pub(crate) fn saved(&self) -> Option<f64> {
        (self.bytes_original > 0).then(|| 1.0 - self.bytes_sent as f64 / self.bytes_original as f64)
    }

    /// Share of the files that both ends had a former version of; none before the first.
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        (self.named > 0).then(|| self.found as f64 / self.named as f64)
    }
}

fn features(attachment: &Attachment) -> Option<Vec<Feature>> {
    let text = attachment.node.features().ok()?;
    let feature = |line: dwcp_abi::shm::Feature<'_>| Feature {
        name: crate::jobs::clean(line.name.as_bytes()),
        state: match line.state {
            "on" => FeatureState::On,
            "off" => FeatureState::Off,
            _ => FeatureState::Unavailable,
        },
        reason: crate::jobs::clean(line.reason.as_bytes()),
    };
    Some(text.lines().take(FEATURES_MAX).map(feature).collect())
}

/// Rates over the last seconds, from figures that come once a second.
#[derive(Debug)]
pub(crate) struct Rates {
    cores: Vec<CoreRates>,
    goodput: RateMeter,
    cpu_ns: RateMeter,
    plain: Window,
    jobs: Window,
}

#[derive(Debug, Clone)]
pub(crate) struct CoreRates {
    pub(crate) sent: RateMeter,
    pub(crate) received: RateMeter,
    pub(crate) busy_ns: RateMeter,
}

/// Two counters over five minutes.
#[derive(Debug, Default)]
struct Window {
    samples: VecDeque<(Duration, u64, u64)>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            cores: Vec::new(),
            goodput: RateMeter::new(GOODPUT_WINDOW),
            cpu_ns: RateMeter::new(CPU_WINDOW),
            plain: Window::default(),
            jobs: Window::default(),
        }
    }
}

impl Rates {
    /// One more look.
    pub(crate) fn observe(&mut self, now: Duration, figures: &Figures) {
        let meter = || RateMeter::new(CORE_WINDOW);
        let new = || CoreRates { sent: meter(), received: meter(), busy_ns: meter() };
        self.cores.resize_with(figures.workers.len(), new);
        for (rates, worker) in self.cores.iter_mut().zip(&figures.workers) {
            rates.sent.observe(now, worker.value(WorkerCounter::BytesSent));
            rates.received.observe(now, worker.value(WorkerCounter::BytesReceived));
            rates.busy_ns.observe(now, worker.value(WorkerCounter::BusyNs));
        }
        let plain = figures.sum(WorkerCounter::PlainBytesSent);
        self.goodput.observe(now, plain.wrapping_add(figures.sum(WorkerCounter::PlainBytesReceived)));
        let (input, output) =
            (figures.sum(WorkerCounter::CompressBytesIn), figures.sum(WorkerCounter::CompressBytesOut));
        self.plain.observe(now, input, output);
        self.jobs.observe(now, figures.sum(WorkerCounter::Requests), figures.sum(WorkerCounter::JobsFailed));
    }

    /// CPU time of both processes so far.
    pub(crate) fn observe_cpu(&mut self, now: Duration, total_ns: u64) {
        self.cpu_ns.observe(now, total_ns);
    }

    /// CPU time of both processes over the last seconds, in percent of one core.
    pub(crate) fn cpu_percent(&self) -> f64 {
        self.cpu_ns.per_second().unwrap_or(0.0) / 1e7
    }

    /// Rates of one worker.
    pub(crate) fn core(&self, worker: usize) -> Option<&CoreRates> {
        self.cores.get(worker)
    }

    /// Plain bytes per second over a minute; none while nothing moves.
    pub(crate) fn goodput(&self) -> Option<f64> {
        self.goodput.per_second().filter(|rate| *rate > 0.0)
    }

    /// Original by compressed bytes over five minutes; none until 1 MiB was compressed.
    pub(crate) fn compression_ratio(&self) -> Option<f64> {
        let (input, output) = self.plain.growth()?;
        (input >= COMPRESSED_BYTES_MIN && output > 0).then(|| input as f64 / output as f64)
    }

    /// Percent of the jobs that failed, over five minutes; zero while there were none.
    pub(crate) fn error_percent(&self) -> f64 {
        let (begun, failed) = self.jobs.growth().unwrap_or((0, 0));
        if begun == 0 { 0.0 } else { 100.0 * failed as f64 / begun as f64 }
    }
}

impl Window {
    /// By how much both have grown.
    fn growth(&self) -> Option<(u64, u64)> {
        let (&(_, first_a, first_b), &(_, last_a, last_b)) = (self.samples.front()?, self.samples.back()?);
        Some((last_a.wrapping_sub(first_a), last_b.wrapping_sub(first_b)))
    }

    fn observe(&mut self, now: Duration, input: u64, output: u64) {
        if self.samples.back().is_some_and(|&(_, before, _)| input < before) {
            self.samples.clear();
        }
        while self.samples.front().is_some_and(|&(at, ..)| now.saturating_sub(at) > COMPRESSION_WINDOW) {
            self.samples.pop_front();
        }
        if self.samples.back().is_none_or(|&(at, ..)| now.saturating_sub(at) >= WINDOW_STEP) {
            self.samples.push_back((now, input, output));
        }
    }
}

/// The clock that heartbeats are written by.
pub(crate) fn monotonic_ns() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // CLOCK_MONOTONIC exists on every Linux; without it every heartbeat would count as fresh.
    time.map_or(0, |time| (time.tv_sec() as u64).saturating_mul(1_000_000_000) + time.tv_nsec() as u64)
}

const FEATURES_MAX: usize = 64;
const CORE_WINDOW: Duration = Duration::from_secs(4);
const CPU_WINDOW: Duration = Duration::from_secs(10);
const GOODPUT_WINDOW: Duration = Duration::from_secs(60);
const COMPRESSION_WINDOW: Duration = Duration::from_secs(300);
const COMPRESSED_BYTES_MIN: u64 = 1 << 20;
const WINDOW_STEP: Duration = Duration::from_secs(1);
