//! A point in time as RFC 3339 text in UTC with milliseconds. It reads no clock: callers bring the time.
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use utoipa::openapi::{KnownFormat, Object, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// Milliseconds since 1970-01-01T00:00:00Z, from then to the end of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp {
    unix_ms: u64,
}

/// The text is not `YYYY-MM-DDTHH:MM:SS[.fff]Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UTC time like 2026-11-21T09:30:00.000Z")]
pub struct TimestampError;

impl Timestamp {
    /// From milliseconds since 1970, cut at the end of the year 9999.
    #[must_use]
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms: unix_ms.min(UNIX_MS_MAX) }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.unix_ms
    }
}

/// A clock before 1970 counts as 1970.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_of_day(self.unix_ms / MS_PER_DAY);
        let of_day = self.unix_ms % MS_PER_DAY;
        let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (second, ms) = (of_day / 1000 % 60, of_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        Object::builder().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Timestamp {}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let text = text.strip_suffix('Z').ok_or(TimestampError)?;
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let bytes = seconds.as_bytes();
        let shape = bytes.len() == 19
            && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
                .iter()
                .all(|&(at, mark)| bytes[at] == mark);
        if !shape {
            return Err(TimestampError);
        }
        let (year, month, day) = (number(bytes, 0, 4)?, number(bytes, 5, 7)?, number(bytes, 8, 10)?);
        let (hour, minute, second) = (number(bytes, 11, 13)?, number(bytes, 14, 16)?, number(bytes, 17, 19)?);
        let days = day_of_civil(year, month, day);
        // The way back finds the 31st of April and the like.
        if year < 1970 || civil_of_day(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59
        {
            return Err(TimestampError);
        }
        let ms = milliseconds(fraction)?;
        Ok(Self::from_unix_ms(days * MS_PER_DAY + hour * 3_600_000 + minute * 60_000 + second * 1000 + ms))
    }
}

fn number(bytes: &[u8], from: usize, to: usize) -> Result<u64, TimestampError> {
    let mut value = 0;
    for &byte in &bytes[from..to] {
        if !byte.is_ascii_digit() {
            return Err(TimestampError);
        }
        value = value * 10 + u64::from(byte - b'0');
    }
    Ok(value)
}

fn milliseconds(fraction: &str) -> Result<u64, TimestampError> {
    let bytes = fraction.as_bytes();
    if bytes.is_empty() || bytes.len() > 9 || !bytes.iter().all(u8::is_ascii_digit) {
        return Err(TimestampError);
    }
    let digit = |at: usize| bytes.get(at).map_or(0, |byte| u64::from(byte - b'0'));
    Ok(digit(0) * 100 + digit(1) * 10 + digit(2))
}

/// Year, month, day of a day since 1970: Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`, for days after 1970 only.
fn civil_of_day(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day_of_month)
}

/// The way back, `days_from_civil` of the same paper; 0 for what lies before 1970.
fn day_of_civil(year: u64, month: u64, day: u64) -> u64 {
    if year < 1970 || month == 0 || day == 0 {
        return 0;
    }
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_shifted = (month + 9) % 12;
    let of_year = (153 * month_shifted + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era).saturating_sub(719_468)
}

const MS_PER_DAY: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z: four digits of year are all that RFC 3339 has.
const UNIX_MS_MAX: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_254_600_123, "2026-11-21T09:50:00.123Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            let timestamp = Timestamp::from_unix_ms(unix_ms);
            assert_eq!(timestamp.to_string(), text);
            assert_eq!(text.parse(), Ok(timestamp));
        }
        assert_eq!("2026-11-21T09:50:00Z".parse(), Ok(Timestamp::from_unix_ms(1_795_254_600_000)));
    }

    #[test]
    fn every_day_goes_there_and_back() {
        for day in 0..150_000 {
            let (year, month, of_month) = civil_of_day(day);
            assert_eq!(day_of_civil(year, month, of_month), day);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "Z",
            "2026-11-21",
            "2026-11-21T09:50:00",
            "2026-11-21 09:50:00Z",
            "2026-11-31T09:50:00Z",
            "2026-00-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T09:50:00.Z",
            "2026-11-21T09:50:00.1234567890Z",
            "2026-11-21T09:50:0éZ",
            "+026-11-21T09:50:00Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }
}
