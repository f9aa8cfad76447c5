//! What one direction of a link is like, as text and as values: `rate=1gbit,delay=50ms,loss=0.1%`. Read from command
//! lines and tests; `direction` obeys it.
use std::str::FromStr;

use crate::loss::Loss;
use crate::quantity::{probability, rate_bits_per_s, size_bytes, time_ns};

/// One direction of a link. The default is a wire without limit, delay or loss.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spec {
    /// Rate of the bottleneck in bits per second, IP headers included; `None` = no bottleneck.
    pub rate_bits_per_s: Option<u64>,
    /// Time that every segment takes behind the bottleneck, in nanoseconds.
    pub delay_ns: u64,
    /// Most by which the delay swings above `delay_ns`, in nanoseconds. It swings slowly and overtakes nothing.
    pub jitter_ns: u64,
    /// Which segments are lost behind the bottleneck; they have used its time.
    pub loss: Loss,
    /// Which segments are held back, so that later ones overtake them.
    pub reorder: Option<Reorder>,
    /// Probability that a segment arrives twice.
    pub duplicate: f64,
    /// Room before the bottleneck.
    pub buffer: Buffer,
    /// When nothing arrives at the bottleneck.
    pub outages: Vec<Outage>,
}

/// Segments that are held back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reorder {
    /// Of a segment.
    pub probability: f64,
    /// How long, in nanoseconds.
    pub delay_ns: u64,
}

/// Room before a bottleneck; what does not fit is dropped (tail drop).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Buffer {
    /// So many bytes.
    Bytes(u64),
    /// So many times what the link holds in one round trip.
    RoundTrips(f64),
}

impl Default for Buffer {
    fn default() -> Self {
        Self::RoundTrips(1.0)
    }
}

/// A time without link, counted from the emulator's start, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// First moment.
    pub start_ns: u64,
    /// How long.
    pub length_ns: u64,
}

impl Outage {
    pub(crate) fn covers(&self, now_ns: u64) -> bool {
        now_ns >= self.start_ns && now_ns - self.start_ns < self.length_ns
    }
}

/// Why a text describes no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A part is no `key=value` with a known key.
    #[error("'{0}': there are {KEYS}")]
    UnknownKey(String),
    /// A value does not read as what it should be.
    #[error("'{0}': {1}")]
    Value(String, &'static str),
    /// More outages than anybody needs.
    #[error("at most {OUTAGES_MAX} outages")]
    TooManyOutages,
}

impl Spec {
    /// How many bytes the buffer holds on a path of this round trip; `None` = no bound.
    pub(crate) fn buffer_bytes(&self, round_trip_ns: u64) -> Option<u64> {
        let rate_bits_per_s = self.rate_bits_per_s?;
        Some(match self.buffer {
            Buffer::Bytes(bytes) => bytes,
            Buffer::RoundTrips(times) => {
                let bytes = times * rate_bits_per_s as f64 / 8.0 * round_trip_ns as f64 / 1e9;
                // A link without delay still has a queue.
                (bytes as u64).max(BUFFER_BYTES_MIN)
            }
        })
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "rate" => {
                let rate = rate_bits_per_s(value).filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
                self.rate_bits_per_s = Some(rate.ok_or("a rate of 1kbit to 100gbit")?);
            }
            "delay" => self.delay_ns = delay(value)?,
            "jitter" => self.jitter_ns = delay(value)?,
            "loss" => self.loss = loss(value)?,
            "reorder" => self.reorder = Some(reorder(value)?),
            "duplicate" => self.duplicate = probability(value).ok_or("a percentage")?,
            "buffer" => self.buffer = buffer(value)?,
            "outage" => self.outages.push(outage(value)?),
            _ => return Err(UNKNOWN),
        }
        Ok(())
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut spec = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| SpecError::UnknownKey(part.to_owned()))?;
            spec.set(key, value).map_err(|expected| match expected {
                UNKNOWN => SpecError::UnknownKey(key.to_owned()),
                expected => SpecError::Value(part.to_owned(), expected),
            })?;
            if spec.outages.len() > OUTAGES_MAX {
                return Err(SpecError::TooManyOutages);
            }
        }
        Ok(spec)
    }
}

fn delay(value: &str) -> Result<u64, &'static str> {
    time_ns(value).filter(|&time| time <= DELAY_NS_MAX).ok_or("a time up to 10s")
}

/// `1%`, `1%x20` (bursts of 20) or `0.1%/10%/0%/50%` (Gilbert-Elliott).
fn loss(value: &str) -> Result<Loss, &'static str> {
    const EXPECTED: &str =
        "1%, bursts as 0.1%x20, or Gilbert-Elliott as TO_BAD%/TO_GOOD%/LOSS_GOOD%/LOSS_BAD%";
    if let Some((share, length)) = value.split_once('x') {
        let length = length.parse().ok().filter(|length| (1..=1_000_000).contains(length));
        let bursts = probability(share).zip(length);
        return bursts.map(|(probability, length)| Loss::Bursts { probability, length }).ok_or(EXPECTED);
    }
    let shares: Option<Vec<f64>> = value.split('/').map(probability).collect();
    match *shares.ok_or(EXPECTED)?.as_slice() {
        [probability] => Ok(Loss::Random { probability }),
        [to_bad, to_good, loss_good, loss_bad] => {
            Ok(Loss::GilbertElliott { to_bad, to_good, loss_good, loss_bad })
        }
        _ => Err(EXPECTED),
    }
}

fn reorder(value: &str) -> Result<Reorder, &'static str> {
    let read = || {
        let (share, held) = value.split_once('@')?;
        Some(Reorder { probability: probability(share)?, delay_ns: delay(held).ok()? })
    };
    read().ok_or("a share and how long it is held back, as 1%@5ms")
}

fn buffer(value: &str) -> Result<Buffer, &'static str> {
    let times = value.strip_suffix("bdp").and_then(|times| times.parse::<f64>().ok());
    let times = times.filter(|times| (0.0..=100.0).contains(times)).map(Buffer::RoundTrips);
    times
        .or_else(|| size_bytes(value).map(Buffer::Bytes))
        .ok_or("a size, as 256kib, or round trips, as 1.5bdp")
}

fn outage(value: &str) -> Result<Outage, &'static str> {
    let read = || {
        let (start, length) = value.split_once('+')?;
        Some(Outage { start_ns: time_ns(start)?, length_ns: time_ns(length)? })
    };
    read().ok_or("start and length, as 3s+500ms")
}

const KEYS: &str =
    "rate=1gbit delay=50ms jitter=1ms loss=0.1% reorder=1%@5ms duplicate=0.1% buffer=1bdp outage=3s+500ms";
const UNKNOWN: &str = "unknown";
const RATE_MIN: u64 = 1_000;
const RATE_MAX: u64 = 100_000_000_000;
const DELAY_NS_MAX: u64 = 10_000_000_000;
const OUTAGES_MAX: usize = 1_000;
const BUFFER_BYTES_MIN: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Spec {
        text.parse().unwrap()
    }

    #[test]
    fn everything_can_be_said() {
        let spec = read(
            "rate=1gbit, delay=50ms,jitter=2ms,loss=0.1%,reorder=1%@5ms,duplicate=2%,buffer=256kib,outage=1s+20ms",
        );
        let expected = Spec {
            rate_bits_per_s: Some(1_000_000_000),
            delay_ns: 50_000_000,
            jitter_ns: 2_000_000,
            loss: Loss::Random { probability: 0.001 },
            reorder: Some(Reorder { probability: 0.01, delay_ns: 5_000_000 }),
            duplicate: 0.02,
            buffer: Buffer::Bytes(262_144),
            outages: vec![Outage { start_ns: 1_000_000_000, length_ns: 20_000_000 }],
        };
        assert_eq!(spec, expected);
        assert_eq!(read(""), Spec::default());
        assert_eq!(read("loss=0.1%x20").loss, Loss::Bursts { probability: 0.001, length: 20 });
        assert!(matches!(read("loss=1%/10%/0%/50%").loss, Loss::GilbertElliott { .. }));
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        assert!(matches!("speed=1".parse::<Spec>(), Err(SpecError::UnknownKey(_))));
        let wrong =
            ["rate=fast", "rate=0bit", "delay=11s", "loss=1", "loss=1%/2%", "loss=1%x0", "reorder=1%"];
        for text in wrong.into_iter().chain(["buffer=much", "outage=1s", "duplicate=200%", "buffer=-1bdp"]) {
            assert!(matches!(text.parse::<Spec>(), Err(SpecError::Value(..))), "{text}");
        }
        assert_eq!("outage=1s+1s,".repeat(1_001).parse::<Spec>(), Err(SpecError::TooManyOutages));
    }

    #[test]
    fn buffers_follow_the_link() {
        let spec = read("rate=100mbit,buffer=2bdp");
        assert_eq!(spec.buffer_bytes(100_000_000), Some(2_500_000));
        assert_eq!(read("rate=100mbit,buffer=9kib").buffer_bytes(1), Some(9_216));
        assert_eq!(read("delay=1ms").buffer_bytes(1), None);
    }
}
