//! Limits of bandwidth that follow the time of the week. Read by the key table; control asks which one is in force.
use crate::units::{Rate, parse_rate};
use crate::value::Value;

/// What may be sent at which time of the week; a limit holds until the next one begins, across midnight and Sunday. Empty:
/// never any limit.
///
/// ```text
/// timetable = limit | entry { " " entry }          limit = rate | "off"
/// entry     = [ days "@" ] HH:MM "," limit         days  = day [ "-" day ] { "," day [ "-" day ] }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timetable {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Bit 0 = Monday.
    days: u8,
    minute_of_day: u16,
    limit: Option<Rate>,
}

/// A minute of the week on some clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeekTime {
    /// 0 = Monday; below 7.
    pub day: u8,
    /// Since midnight; below 1440.
    pub minute_of_day: u16,
}

impl Timetable {
    /// The limit at that time; none = as fast as it goes. What began last counts, so that it does not matter whether the
    /// clock went there or was put there.
    #[must_use]
    pub fn limit_at(&self, now: WeekTime) -> Option<Rate> {
        let now = minute_of_week(now.day, now.minute_of_day);
        let begins = self.entries.iter().flat_map(|entry| entry.begins().map(move |begin| (begin, entry)));
        let last = begins.min_by_key(|(begin, _)| (now + WEEK_MINUTES - begin) % WEEK_MINUTES);
        last.and_then(|(_, entry)| entry.limit)
    }

    fn check(&self) -> Result<(), String> {
        let mut begins: Vec<u16> = self.entries.iter().flat_map(Entry::begins).collect();
        begins.sort_unstable();
        match begins.array_windows().find(|[a, b]| a == b) {
            Some([twice, _]) => Err(format!("two limits begin on {}", show_time(*twice))),
            None => Ok(()),
        }
    }
}

impl Entry {
    fn begins(&self) -> impl Iterator<Item = u16> {
        let (days, minute_of_day) = (self.days, self.minute_of_day);
        (0..7).filter(move |day| days & 1 << day != 0).map(move |day| minute_of_week(day, minute_of_day))
    }

    fn parse(text: &str) -> Option<Self> {
        let (days, rest) = match text.split_once('@') {
            Some((days, rest)) => (parse_days(days)?, rest),
            None => (EVERY_DAY, text),
        };
        let (time, limit) = rest.split_once(',')?;
        Some(Self { days, minute_of_day: parse_time(time)?, limit: parse_limit(limit)? })
    }
}

impl Value for Timetable {
    fn kind() -> String {
        "rate or timetable".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let whole = parse_limit(text).map(|limit| Entry { days: EVERY_DAY, minute_of_day: 0, limit });
        let entries = match whole {
            Some(entry) => entry.limit.map(|_| entry).into_iter().collect(),
            None if text.split_ascii_whitespace().count() > ENTRIES_MAX => {
                return Err(format!("expected at most {ENTRIES_MAX} entries"));
            }
            None => {
                text.split_ascii_whitespace().map(Entry::parse).collect::<Option<Vec<_>>>().ok_or(EXPECTED)?
            }
        };
        let timetable = Self { entries };
        timetable.check()?;
        Ok(timetable)
    }

    fn show(&self) -> String {
        match &self.entries[..] {
            [] => String::new(),
            [Entry { days: EVERY_DAY, minute_of_day: 0, limit }] => show_limit(*limit),
            entries => entries.iter().map(show_entry).collect::<Vec<_>>().join(" "),
        }
    }
}

fn minute_of_week(day: u8, minute_of_day: u16) -> u16 {
    u16::from(day % 7) * DAY_MINUTES + minute_of_day % DAY_MINUTES
}

fn parse_days(text: &str) -> Option<u8> {
    text.split(',').try_fold(0, |days, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day_of(first)?, day_of(last)?);
        // `sat-mon` goes across the end of the week.
        let length = (last + 7 - first) % 7;
        Some((0..=length).fold(days, |days, after| days | 1 << ((first + after) % 7)))
    })
}

fn day_of(text: &str) -> Option<usize> {
    DAYS.iter().position(|day| text.eq_ignore_ascii_case(day))
}

fn parse_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let is_plain = |text: &str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(hours) || minutes.len() != 2 || !is_plain(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

fn parse_limit(text: &str) -> Option<Option<Rate>> {
    if text == "off" || text == "0" {
        return Some(None);
    }
    parse_rate(text).ok().filter(|rate| (RATE_MIN..=RATE_MAX).contains(&rate.bits_per_s)).map(Some)
}

fn show_entry(entry: &Entry) -> String {
    let Entry { days, minute_of_day, limit } = *entry;
    let (hours, minutes) = (minute_of_day / 60, minute_of_day % 60);
    let names: Vec<&str> = (0..7).filter(|day| days & 1 << day != 0).map(|day| DAYS[day]).collect();
    let days = if days == EVERY_DAY { String::new() } else { names.join(",") + "@" };
    format!("{days}{hours:02}:{minutes:02},{}", show_limit(limit))
}

fn show_limit(limit: Option<Rate>) -> String {
    limit.map_or_else(|| "off".into(), |rate| rate.to_string())
}

fn show_time(minute_of_week: u16) -> String {
    let (day, minute) = (minute_of_week / DAY_MINUTES, minute_of_week % DAY_MINUTES);
    format!("{} at {:02}:{:02}", DAYS[usize::from(day) % 7], minute / 60, minute % 60)
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0b111_1111;
const DAY_MINUTES: u16 = 24 * 60;
const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;
const ENTRIES_MAX: usize = 64;
/// Bits per second, as of the other rates.
const RATE_MIN: u64 = 64_000;
const RATE_MAX: u64 = 10_000_000_000_000;
const EXPECTED: &str = "expected a rate of at least 64kbps such as 10Mbps, `off`, or a timetable such as \
    `08:00,10Mbps 18:00,off` or `mon-fri@08:00,10Mbps mon-fri@18:00,off`";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timetable: &str, day: u8, hours: u16, minutes: u16) -> u64 {
        let now = WeekTime { day, minute_of_day: hours * 60 + minutes };
        Timetable::parse(timetable).unwrap().limit_at(now).map_or(0, |rate| rate.bits_per_s / 1_000_000)
    }

    #[test]
    fn what_began_last_is_in_force() {
        let office = "08:00,10Mbps 18:00,off";
        assert_eq!([at(office, 2, 7, 59), at(office, 2, 8, 0), at(office, 2, 17, 59)], [0, 10, 10]);
        assert_eq!([at(office, 2, 18, 0), at(office, 0, 0, 0)], [0, 0]);
        let days = "mon-fri@08:00,10Mbps fri@18:00,100Mbps";
        assert_eq!([at(days, 0, 7, 0), at(days, 0, 8, 0), at(days, 3, 23, 59)], [100, 10, 10]);
        assert_eq!([at(days, 4, 18, 0), at(days, 5, 12, 0), at(days, 6, 23, 59)], [100, 100, 100]);
        assert_eq!([at("8Mbps", 0, 0, 0), at("8Mbps", 6, 23, 59), at("off", 1, 1, 1)], [8, 8, 0]);
        assert_eq!(
            [at("sat-mon@10:00,5Mbps tue@00:00,off", 0, 9, 0), at("sun@01:00,5Mbps", 0, 0, 0)],
            [5, 5]
        );
    }

    /// A clock that is put forward or back, or a night that has an hour twice or not at all, leads to the limit of the hour.
    #[test]
    fn a_clock_that_jumps_leads_to_the_limit_of_the_hour() {
        let timetable = Timetable::parse("02:30,10Mbps 03:30,20Mbps").unwrap();
        let rate = |minute_of_day| timetable.limit_at(WeekTime { day: 6, minute_of_day }).unwrap().bits_per_s;
        // 01:59 is followed by 03:00, or by 01:00.
        assert_eq!([rate(119), rate(180), rate(60)], [20_000_000, 10_000_000, 20_000_000]);
    }

    /// Every minute of the week against a walk through it.
    #[test]
    fn every_minute_of_the_week_has_the_limit_of_the_last_begin() {
        let timetable = Timetable::parse("00:00,1Mbps tue,thu@12:15,2Mbps sun@23:59,off").unwrap();
        let mut current = None;
        for turn in 0..2 {
            for minute in 0..WEEK_MINUTES {
                let (day, minute_of_day) = ((minute / DAY_MINUTES) as u8, minute % DAY_MINUTES);
                current = match (day, minute_of_day) {
                    (_, 0) => Some(1_000_000),
                    (1 | 3, 735) => Some(2_000_000),
                    (6, 1439) => None,
                    _ => current,
                };
                let found = timetable.limit_at(WeekTime { day, minute_of_day });
                assert_eq!(found.map(|rate| rate.bits_per_s), current, "turn {turn}, minute {minute}");
            }
        }
    }

    #[test]
    fn what_is_shown_reads_as_the_same() {
        for text in ["", "10Mbps", "08:00,10Mbps 18:00,off", "mon,tue,sun@08:05,1Gbps fri@00:00,off"] {
            let timetable = Timetable::parse(text).unwrap();
            assert_eq!(timetable.show(), text);
        }
        assert_eq!(Timetable::parse("off").unwrap(), Timetable::default());
        assert_eq!(Timetable::parse("sat-mon@8:00,10Mbps").unwrap().show(), "mon,sat,sun@08:00,10Mbps");
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "fast",
            "1kbps",
            "24:00,1Mbps",
            "08:60,1Mbps",
            "8,1Mbps",
            "08:00",
            "08:00,",
            "x@08:00,1Mbps",
            "mon-@08:00,off",
            "+8:00,1Mbps",
            "08:0,1Mbps",
            "@08:00,1Mbps",
            "08:00,1Mbps,2Mbps",
            "08:00;1Mbps",
            "08:00,-1",
        ] {
            let parsed = Timetable::parse(text);
            assert!(parsed.is_err(), "{text}: {parsed:?}");
        }
        let twice = Timetable::parse("08:00,1Mbps sun@08:00,2Mbps").unwrap_err();
        assert_eq!(twice, "two limits begin on sun at 08:00");
        let many: String = (0..65).map(|minute| format!("00:{:02},off ", minute % 60)).collect();
        assert!(Timetable::parse(&many).unwrap_err().contains("at most 64"));
    }
}
