//! Compression of chunks, as configured, and only while it helps: a worker tries both ways for a moment, keeps the one
//! by which more plain bytes were acknowledged, and tries again later. What a chunk costs is decided by `hde`.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use dwcp_abi::link::Transport;
use dwcp_abi::wire::{BlockCodec, CHUNK_BYTES};
use dwcp_hde::{Choice, Chooser, Conditions, Configured, Decoder, Encoder, Limits, ObjectMemory};

/// A worker's codecs.
pub(super) struct Coding {
    encoder: Encoder,
    decoder: Decoder,
    chooser: Chooser,
    /// What is known of objects under way; forgotten when there are many.
    memories: HashMap<(u64, u64), ObjectMemory>,
    configured: Option<Choice>,
    adaptive: bool,
    trial: Trial,
}

/// Objects whose compressibility is remembered.
const MEMORIES_MAX: usize = 256;

impl Coding {
    pub(super) fn new(transport: &Transport) -> Self {
        let configured = configured(transport);
        let ratio = u32::from(transport.codec_ratio_min_thousandths).max(1000);
        let Ok(limits) = Limits::new(CHUNK_BYTES, ratio) else {
            unreachable!("a chunk is shorter than the longest block, and the ratio is within its bounds");
        };
        Self {
            encoder: Encoder::new(limits),
            decoder: Decoder::new(limits),
            chooser: Chooser::new(),
            memories: HashMap::new(),
            configured,
            adaptive: transport.codec_adaptive,
            trial: Trial { plain_rate_max: configured.map_or(0, hopeless_from), ..Trial::default() },
        }
    }

    /// Whether chunks are to be coded now.
    pub(super) fn is_on(&self) -> bool {
        self.configured.is_some() && (!self.adaptive || self.trial.coded())
    }

    /// Looks at how much was acknowledged, and changes over where that is due.
    pub(super) fn watch(&mut self, now: Instant, acknowledged_bytes: u64) {
        if self.configured.is_some() && self.adaptive {
            self.trial.step(now, acknowledged_bytes);
        }
    }

    /// Codes a chunk of an object into `out`; none where it is better sent as it is.
    pub(super) fn encode(&mut self, object: (u64, u64), plain: &[u8], out: &mut [u8]) -> Option<usize> {
        let configured = Configured::Fixed(self.configured?);
        if self.memories.len() >= MEMORIES_MAX && !self.memories.contains_key(&object) {
            self.memories.clear();
        }
        let memory = self.memories.entry(object).or_default();
        let conditions = Conditions { link_bytes_per_s: None, cores_thousandths: 1000, configured };
        let choice = self.chooser.choose(plain, &conditions, memory);
        if choice == Choice::RAW {
            return None;
        }
        let encoded = self.encoder.encode(plain, choice, out).ok()?;
        memory.record(choice, encoded);
        (encoded.codec != BlockCodec::Raw).then_some(encoded.length)
    }

    /// Decodes a block that must have so many plain bytes.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        plain_length: u32,
        out: &mut [u8],
    ) -> Result<usize, dwcp_hde::DecodeError> {
        self.decoder.decode(block, plain_length, out)
    }
}

fn configured(transport: &Transport) -> Option<Choice> {
    match transport.codec {
        1 => Some(Choice::LZ4),
        2 => Some(Choice::SNAPPY),
        3 => Some(Choice::new(BlockCodec::Zstd, transport.codec_level).unwrap_or(Choice::ZSTD_3)),
        _ => None,
    }
}

/// Plain bytes per second of a worker above which coding is not even tried: half of what one core encodes (measured over
/// version pairs and single objects: LZ4 750 MB/s, Snappy 736, Zstandard 640 at level 1, 271 at 3, 63 at 9). Nearer to
/// its own speed a codec could win a little only where data is very compressible, and a trial costs everybody else.
fn hopeless_from(choice: Choice) -> u64 {
    match (choice.codec(), choice.level()) {
        (BlockCodec::Raw, _) => 0,
        (BlockCodec::Lz4 | BlockCodec::Snappy, _) => 370_000_000,
        (BlockCodec::Zstd, 0..=1) => 320_000_000,
        (BlockCodec::Zstd, 2..=3) => 135_000_000,
        (BlockCodec::Zstd, 4..=9) => 60_000_000,
        (BlockCodec::Zstd, _) => 15_000_000,
        // Against baselines; not chosen here.
        (BlockCodec::Same | BlockCodec::Delta | BlockCodec::Reference, _) => 0,
    }
}

/// Which way brings more bytes across: measured, because neither the link's rate nor the processor's share is known.
#[derive(Debug, Default)]
struct Trial {
    phase: Phase,
    until: Option<Instant>,
    bytes_at_start: u64,
    plain_moved: u64,
    /// In bytes per second: above it the codec cannot win.
    plain_rate_max: u64,
    settled: Option<bool>,
    pause: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Plain,
    Coded,
    Settled,
}

/// One way is measured for so long: several round trips of any link.
const MEASURE: Duration = Duration::from_millis(400);
/// First pause between two measurements; doubles up to [`PAUSES_MAX`] times.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES_MAX: u32 = 4;

impl Trial {
    fn coded(&self) -> bool {
        match self.phase {
            Phase::Plain => false,
            Phase::Coded => true,
            Phase::Settled => self.settled == Some(true),
        }
    }

    fn step(&mut self, now: Instant, bytes: u64) {
        let Some(until) = self.until else {
            return self.begin(Phase::Plain, MEASURE, now, bytes);
        };
        if now < until {
            return;
        }
        let moved = bytes.saturating_sub(self.bytes_at_start);
        match self.phase {
            // Nothing was sent: nothing was learnt.
            Phase::Plain | Phase::Coded if moved == 0 => self.begin(Phase::Plain, MEASURE, now, bytes),
            Phase::Plain if moved > self.plain_rate_max * MEASURE.as_millis() as u64 / 1000 => {
                self.settle(false, now, bytes);
            }
            Phase::Plain => {
                self.plain_moved = moved;
                self.begin(Phase::Coded, MEASURE, now, bytes);
            }
            Phase::Coded => {
                // A tenth more, or it is noise.
                let better = moved > self.plain_moved + self.plain_moved / 10;
                self.settle(better, now, bytes);
            }
            Phase::Settled => self.begin(Phase::Plain, MEASURE, now, bytes),
        }
    }

    fn settle(&mut self, better: bool, now: Instant, bytes: u64) {
        self.pause = if self.settled == Some(better) { (self.pause + 1).min(PAUSES_MAX) } else { 0 };
        self.settled = Some(better);
        self.begin(Phase::Settled, PAUSE * (1 << self.pause), now, bytes);
    }

    fn begin(&mut self, phase: Phase, length: Duration, now: Instant, bytes: u64) {
        (self.phase, self.until, self.bytes_at_start) = (phase, Some(now + length), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of 60 s that is coded on a link and a codec with these rates of plain bytes per second.
    fn coded_share(plain: u64, coded: u64) -> f64 {
        let (start, mut bytes, mut coded_steps) = (Instant::now(), 0, 0);
        let mut trial = Trial { plain_rate_max: 135_000_000, ..Trial::default() };
        for step in 0..600 {
            trial.step(start + Duration::from_millis(100) * step, bytes);
            bytes += if trial.coded() { coded / 10 } else { plain / 10 };
            coded_steps += u32::from(trial.coded());
        }
        f64::from(coded_steps) / 600.0
    }

    #[test]
    fn the_faster_way_wins_and_the_other_costs_little() {
        assert!(coded_share(12_000_000, 40_000_000) > 0.85);
        assert!(coded_share(60_000_000, 50_000_000) < 0.10);
        assert_eq!(
            coded_share(1_000_000_000, 250_000_000),
            0.0,
            "a link faster than the codec sees no trial"
        );
        assert!(coded_share(100_000_000, 101_000_000) < 0.10, "no gain is no reason");
    }

    #[test]
    fn an_idle_worker_learns_nothing() {
        let (start, mut trial) = (Instant::now(), Trial::default());
        for step in 0..100 {
            trial.step(start + Duration::from_millis(100) * step, 7);
            assert!(!trial.coded());
        }
    }
}
