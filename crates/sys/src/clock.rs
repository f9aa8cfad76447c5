//! The host's local time. Used where people give times of the day.
#![expect(unsafe_code, reason = "the C library knows the host's time zone")]

/// A minute of the week on the host's clock, in its time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalMinute {
    /// 0 = Monday.
    pub day: u8,
    /// Since midnight; below 1440.
    pub minute_of_day: u16,
}

/// When that is, in seconds since 1970, for the host: daylight saving counts, and another zone that was set since
/// (tzset(3), localtime(3)). `None` for a year that no clock shows.
#[must_use]
pub fn local_minute(unix_seconds: u64) -> Option<LocalMinute> {
    let time = libc::time_t::try_from(unix_seconds).ok()?;
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: it reads TZ and /etc/localtime; nothing here changes the environment after the start, and the library
    // guards what it keeps with a lock.
    unsafe { tzset() };
    // SAFETY: both point to values that live through the call, which keeps neither.
    let made = unsafe { libc::localtime_r(&raw const time, parts.as_mut_ptr()) };
    if made.is_null() {
        return None;
    }
    // SAFETY: all zeros is a valid `tm`, and the call has filled it.
    let parts = unsafe { parts.assume_init() };
    Some(LocalMinute {
        // The library's week begins with Sunday.
        day: u8::try_from((parts.tm_wday + 6) % 7).ok()?,
        minute_of_day: u16::try_from(parts.tm_hour * 60 + parts.tm_min).ok()?,
    })
}

unsafe extern "C" {
    /// tzset(3), which the libc crate does not declare.
    fn tzset();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the zone is, a day later is the next day at the same time, but for an hour at most.
    #[test]
    fn time_goes_on() {
        let begin = 1_767_225_600;
        for day in 0..400 {
            let (now, next) = (local_minute(begin + day * 86_400), local_minute(begin + (day + 1) * 86_400));
            let at = |minute: LocalMinute| i32::from(minute.day) * 1440 + i32::from(minute.minute_of_day);
            let gone = (at(next.unwrap()) - at(now.unwrap())).rem_euclid(7 * 1440);
            assert!((1440 - 180..=1440 + 180).contains(&gone), "day {day}: {gone} minutes");
        }
        assert_eq!(local_minute(u64::MAX), None);
    }
}
