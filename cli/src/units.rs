//! Numbers as people read them: binary multiples for bytes, two units for time.
use std::time::Duration;

/// `1023 B`, `1.5 KiB`, `12 MiB`, `117 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "";
    for name in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        value /= 1024.0;
        unit = name;
        // What would be shown as 1024 belongs to the next unit.
        if value < 1023.5 {
            break;
        }
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `1 entry`, `2 entries`.
pub(crate) fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Bytes per second.
pub(crate) fn rate(bytes_per_s: u64) -> String {
    format!("{}/s", bytes(bytes_per_s))
}

/// `12 s`, `3 min 05 s`, `2 h 07 min`, `5 d 03 h`.
pub(crate) fn seconds(count: u64) -> String {
    let (minutes, hours, days) = (count / 60, count / 3600, count / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{count} s"),
        (0, 0, _) => format!("{minutes} min {:02} s", count % 60),
        (0, _, _) => format!("{hours} h {:02} min", minutes % 60),
        (_, _, _) => format!("{days} d {:02} h", hours % 24),
    }
}

/// `0.42 s` below a minute, then as [`seconds`].
pub(crate) fn elapsed(count: f64) -> String {
    if (0.0..10.0).contains(&count) {
        return format!("{count:.2} s");
    }
    if (0.0..60.0).contains(&count) {
        return format!("{count:.1} s");
    }
    // The cast saturates, and what is not a number becomes 0.
    seconds(count as u64)
}

/// `2.31`, or `-` when not known.
pub(crate) fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// Reads a duration of a command line argument, such as `2s` or `500ms`; zero is none.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match dwcp_config::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than nothing".to_owned()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_change_unit_where_they_would_show_1024() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_188, "9.9 KiB"),
            (10_189, "10 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (3_221_225_472, "3.0 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn time_shows_two_units() {
        for (count, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 00 s"),
            (3599, "59 min 59 s"),
            (7620, "2 h 07 min"),
            (90_000, "1 d 01 h"),
        ] {
            assert_eq!(seconds(count), text);
        }
        assert_eq!(elapsed(0.418), "0.42 s");
        assert_eq!(elapsed(23.14), "23.1 s");
        assert_eq!(elapsed(61.0), "1 min 01 s");
        assert_eq!(elapsed(f64::NAN), "0 s");
    }

    #[test]
    fn a_duration_is_more_than_nothing() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_duration("0s").is_err());
        assert!(parse_duration("soon").is_err());
    }
}
