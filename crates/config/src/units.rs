//! Sizes, rates and durations as people write them. Called by the key table; the newtypes are used by control.
//!
//! Sizes are integer bytes, `32GB` (10⁹) or `16MiB` (2²⁰). Rates are integer **bits** per second, `10Gbps` or
//! `125MB/s`. Durations are Go's: `150ms`, `1h30m`.
use std::fmt;
use std::time::Duration;

/// An amount of memory or data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A rate, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    /// Bits per second.
    pub bits_per_s: u64,
}

impl Rate {
    /// The same rate in bytes per second, which is the unit of `SO_MAX_PACING_RATE`.
    #[must_use]
    pub fn bytes_per_s(self) -> u64 {
        self.bits_per_s / 8
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        write_exact(f, self.0, &units, "")
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_exact(f, self.bits_per_s, &[("Gbps", 1_000_000_000), ("Mbps", 1_000_000), ("kbps", 1000)], "")
    }
}

fn write_exact(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], plain: &str) -> fmt::Result {
    match units.iter().find(|(_, unit)| value != 0 && value.is_multiple_of(*unit)) {
        Some((name, unit)) => write!(f, "{}{name}", value / unit),
        None => write!(f, "{value}{plain}"),
    }
}

/// `30s`, `1h30m`, `150ms`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut rest_ms = duration.as_millis();
    if rest_ms == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, unit) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if rest_ms >= unit {
            text.push_str(&format!("{}{name}", rest_ms / unit));
            rest_ms %= unit;
        }
    }
    text
}

/// Reads a size.
///
/// # Errors
/// What was expected, for a person.
pub fn parse_size(text: &str) -> Result<ByteSize, String> {
    let units =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("TB", 1_000_000_000_000)];
    let more = [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000), ("kB", 1000), ("B", 1)];
    scaled(text, units.iter().chain(&more))
        .map(ByteSize)
        .ok_or_else(|| "expected a size in bytes such as 65536, 32GB or 16MiB".into())
}

/// Reads a rate.
///
/// # Errors
/// What was expected, for a person.
pub fn parse_rate(text: &str) -> Result<Rate, String> {
    let bits = [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1000), ("Gbps", 1_000_000_000)];
    let more = [("Mbps", 1_000_000), ("Kbps", 1000), ("kbps", 1000), ("bps", 1)];
    let bytes = [("GiB/s", 8 << 30), ("MiB/s", 8 << 20), ("KiB/s", 8 << 10), ("GB/s", 8_000_000_000)];
    let more_bytes = [("MB/s", 8_000_000), ("KB/s", 8000), ("kB/s", 8000), ("B/s", 8)];
    scaled(text, bits.iter().chain(&more).chain(&bytes).chain(&more_bytes))
        .map(|bits_per_s| Rate { bits_per_s })
        .ok_or_else(|| "expected a rate in bits/s such as 1000000000, 10Gbps or 125MB/s".into())
}

/// Reads a Go duration.
///
/// # Errors
/// What was expected, for a person.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration such as 150ms, 30s, 5m or 1h30m".to_owned();
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total_ms = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        total_ms = multiply(number, unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(wrong)?;
        rest = next;
    }
    if text.trim().is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(total_ms)) }
}

fn scaled<'a>(text: &str, mut units: impl Iterator<Item = &'a (&'a str, u64)>) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let factor = if unit.is_empty() { 1 } else { units.find(|(name, _)| *name == unit)?.1 };
    multiply(&number.replace('_', ""), factor)
}

/// `number` (digits, perhaps with a fraction) times `factor`, rounded down; none when it is no number or too large.
fn multiply(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let mut total = u128::from(whole) * u128::from(factor);
    if !fraction.is_empty() {
        let digits = fraction.get(..fraction.len().min(9))?;
        let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
        total += u128::from(digits.parse::<u64>().ok()?) * u128::from(factor) / scale;
    }
    u64::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in
            [("16777216", 16 << 20), ("16MiB", 16 << 20), ("32GB", 32_000_000_000), ("1.5 KiB", 1536)]
        {
            assert_eq!(parse_size(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "16 parsecs", "-1", "1e9", "99999999999999999999", "."] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_rates_in_bits() {
        for (text, bits) in
            [("1000000000", 1_000_000_000), ("10Gbps", 10_000_000_000), ("125MB/s", 1_000_000_000)]
        {
            assert_eq!(parse_rate(text), Ok(Rate { bits_per_s: bits }), "{text}");
        }
        assert_eq!(parse_rate("125MB/s").unwrap().bytes_per_s(), 125_000_000);
        assert!(parse_rate("fast").is_err());
    }

    #[test]
    fn reads_durations() {
        for (text, ms) in [("150ms", 150), ("30s", 30_000), ("1h30m", 5_400_000), ("1.5s", 1500), ("0", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "5 parsecs", "1s1", "99999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shows_what_it_reads() {
        for text in ["30s", "1h30m", "150ms", "24h"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["64MiB", "1GiB", "1000"] {
            assert_eq!(parse_size(text).unwrap().to_string(), text);
        }
        assert_eq!(parse_rate("10Gbps").unwrap().to_string(), "10Gbps");
    }
}
