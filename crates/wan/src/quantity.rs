//! Numbers with units, as people write them: `1gbit`, `50ms`, `0.1%`, `256kib`. Called by `spec`.

/// Reads a rate; bits per second.
pub(crate) fn rate_bits_per_s(text: &str) -> Option<u64> {
    scaled(text, &[("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)])
}

/// Reads a time; nanoseconds.
pub(crate) fn time_ns(text: &str) -> Option<u64> {
    scaled(text, &[("ms", 1e6), ("us", 1e3), ("ns", 1.0), ("s", 1e9)])
}

/// Reads a size; bytes.
pub(crate) fn size_bytes(text: &str) -> Option<u64> {
    scaled(text, &[("gib", 1024.0 * MIB), ("mib", MIB), ("kib", 1024.0), ("b", 1.0)])
}

/// Reads a probability: a percentage.
pub(crate) fn probability(text: &str) -> Option<f64> {
    let percent = number(text.strip_suffix('%')?)?;
    (percent <= 100.0).then_some(percent / 100.0)
}

/// The first unit that the text ends with.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let (number_text, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let value = number(number_text)? * factor;
    // Far above anything that makes sense, far below where a float loses whole numbers.
    (value <= 1e15).then_some(value.round() as u64)
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

const MIB: f64 = 1024.0 * 1024.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(rate_bits_per_s("1gbit"), Some(1_000_000_000));
        assert_eq!(rate_bits_per_s("2.5mbit"), Some(2_500_000));
        assert_eq!(time_ns("50ms"), Some(50_000_000));
        assert_eq!(time_ns("1.5s"), Some(1_500_000_000));
        assert_eq!(time_ns("250us"), Some(250_000));
        assert_eq!(size_bytes("256kib"), Some(262_144));
        assert_eq!(probability("0.1%"), Some(0.001));
    }

    #[test]
    fn nonsense() {
        for text in ["", "gbit", "-1gbit", "1", "nanms", "1e300gbit", "infs"] {
            assert_eq!(rate_bits_per_s(text), None, "{text}");
            assert_eq!(time_ns(text), None, "{text}");
        }
        assert_eq!(probability("101%"), None);
        assert_eq!(probability("5"), None);
    }
}
