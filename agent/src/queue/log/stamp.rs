//! The time that stands in a line of a log. Takes a line; gives its first date and time, in UTC where
//! the line says its zone, else as it is written. Pure.
//!
//! A file's lines as a rule say local time without a zone. Which zone that is needs no setting: the
//! newest line was written when the file was last changed, so the difference of the two is the zone.

use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;

/// Bytes at the begin of a line in which a time is looked for.
const WITHIN_BYTES: usize = 64;
/// Zones are whole quarters of an hour.
const QUARTER_SECS: i64 = 900;
/// The furthest zone from UTC, in seconds.
const ZONE_SECS_MAX: i64 = 14 * 3_600;
/// The most that the newest line may be away from the file's own time; more, and the line's time is not
/// that of its writing.
const APART_SECS_MAX: i64 = 120;

/// A time as a line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    at: UnixMicros,
    zoned: bool,
}

/// How far the local time of a file's lines is ahead of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    ahead_secs: i64,
}

impl Stamp {
    /// The first time at the begin of a line: `2025-12-04 14:32:15,123`, `2025-12-04T05:32:15.123456Z`,
    /// `[2025/12/04 14:32:15 +09:00]`.
    #[must_use]
    pub fn find(line: &str) -> Option<Self> {
        let head = line.as_bytes();
        let head = head.get(..WITHIN_BYTES).unwrap_or(head);
        (0..head.len()).find_map(|at| {
            let before = at.checked_sub(1).and_then(|before| head.get(before));
            if before.is_some_and(u8::is_ascii_digit) {
                return None;
            }
            Self::read(head.get(at..)?)
        })
    }

    /// The instant, where the line says its zone or the file's zone is known.
    #[must_use]
    pub fn instant(self, zone: Option<Zone>) -> Option<UnixMicros> {
        if self.zoned {
            return Some(self.at);
        }
        Some(shifted(self.at, -zone?.ahead_secs))
    }

    fn read(text: &[u8]) -> Option<Self> {
        let mut rest = Digits(text);
        let year = rest.number(4)?;
        let dash = rest.any(b"-/")?;
        let month = rest.number(2)?;
        rest.any(&[dash])?;
        let day = rest.number(2)?;
        rest.any(b"T t_")?;
        let hour = rest.number(2)?;
        rest.any(b":")?;
        let minute = rest.number(2)?;
        rest.any(b":")?;
        let second = rest.number(2)?;
        let fits = (1970..10_000).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        if !fits {
            return None;
        }
        let micros = rest.fraction();
        let zone = rest.zone();
        let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        let at = UnixMicros(u64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(micros)?);
        Some(Self { at: shifted(at, -zone.unwrap_or(0)), zoned: zone.is_some() })
    }
}

impl Zone {
    /// The zone of a file whose newest stamped line was written when the file was last changed.
    #[must_use]
    pub fn of(newest: Stamp, changed: UnixMicros) -> Option<Self> {
        let seconds = |at: UnixMicros| i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX);
        let ahead = seconds(newest.at).saturating_sub(seconds(changed));
        let ahead_secs = ahead.saturating_add(QUARTER_SECS / 2).div_euclid(QUARTER_SECS) * QUARTER_SECS;
        let apart = ahead.saturating_sub(ahead_secs).abs();
        (apart <= APART_SECS_MAX && ahead_secs.abs() <= ZONE_SECS_MAX).then_some(Self { ahead_secs })
    }
}

/// What is left of a text.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        if !number.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        Some(number.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    }

    fn any(&mut self, of: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !of.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    /// `.123` or `,123456789` as microseconds; 0 where there is none.
    fn fraction(&mut self) -> u64 {
        let Some((b'.' | b',', rest)) = self.0.split_first() else { return 0 };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return 0;
        }
        let used = rest.get(..digits.min(6)).unwrap_or_default();
        self.0 = rest.get(digits..).unwrap_or_default();
        let sum = used.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        sum * 10_u64.pow(6 - u32::try_from(used.len()).unwrap_or(6))
    }

    /// `Z`, `+09:00`, `+0900`, also behind a blank: seconds ahead of UTC.
    fn zone(&mut self) -> Option<i64> {
        if self.any(b"Zz").is_some() {
            return Some(0);
        }
        self.any(b" ");
        let sign = if self.any(b"+-")? == b'-' { -1 } else { 1 };
        let hours = self.number(2)?;
        self.any(b":");
        let minutes = self.number(2)?;
        let ahead = hours * 3_600 + minutes * 60;
        (minutes < 60 && ahead <= ZONE_SECS_MAX).then_some(sign * ahead)
    }
}

fn shifted(at: UnixMicros, by_secs: i64) -> UnixMicros {
    let by = Duration::from_secs(by_secs.unsigned_abs());
    if by_secs < 0 { at.minus(by) } else { at.plus(by) }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar, years counted from March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::clock;
    use proptest::prelude::*;

    const AT: UnixMicros = UnixMicros(1_764_826_335_000_000);

    #[test]
    fn a_time_with_a_zone_is_an_instant() {
        for line in [
            "2025-12-04T05:32:15Z stdout",
            "[2025-12-04T14:32:15+09:00] INFO",
            "2025/12/04 14:32:15 +0900 job",
            "{\"time\":\"2025-12-04T14:32:15.000000000+09:00\",\"msg\":\"job\"}",
        ] {
            assert_eq!(Stamp::find(line).unwrap().instant(None), Some(AT), "{line}");
        }
        let exact = Stamp::find("2025-12-04T05:32:15.123456789Z").unwrap().instant(None);
        assert_eq!(exact, Some(UnixMicros(AT.0 + 123_456)));
    }

    #[test]
    fn a_time_without_a_zone_is_of_the_zone_in_which_the_newest_line_is_new() {
        let stamp = Stamp::find("2025-12-04 14:32:15,250 INFO job 1 accepted").unwrap();
        assert_eq!(stamp.instant(None), None);
        let changed = UnixMicros(AT.0 + 3_000_000);
        let zone = Zone::of(stamp, changed);
        assert_eq!(zone, Some(Zone { ahead_secs: 9 * 3_600 }));
        assert_eq!(stamp.instant(zone), Some(UnixMicros(AT.0 + 250_000)));
        assert_eq!(Zone::of(stamp, changed.plus(Duration::from_secs(400))), None, "written at another time");
        assert_eq!(Zone::of(stamp, changed.plus(Duration::from_secs(86_400))), None, "that is no zone");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for line in ["", "job 12345 accepted", "2025-13-04 14:32:15", "20251-12-04 14:32:15", "2025-12-04"] {
            assert_eq!(Stamp::find(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_time_is_read_as_the_clock_writes_it(seconds in 0_u64..253_402_300_800) {
            let at = UnixMicros(seconds * 1_000_000);
            prop_assert_eq!(Stamp::find(&at.to_string()).unwrap().instant(None), Some(at));
            let tokyo = clock::Zone::named("Asia/Kathmandu").unwrap().rfc3339(at);
            if !tokyo.starts_with("10000") {
                prop_assert_eq!(Stamp::find(&tokyo).unwrap().instant(None), Some(at), "{}", tokyo);
            }
        }

        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,80}", digits in "[0-9TZ:,./ +-]{0,40}") {
            for text in [line, digits] {
                let _ = Stamp::find(&text).map(|stamp| (stamp.instant(None), Zone::of(stamp, AT)));
            }
        }
    }
}
