//! The only reader of time. Everything else takes `now` as an argument.
//!
//! Gives: [`UnixMicros`] for what is stored and shown, an uptime for what is measured (it never
//! steps), and the wording of a time in the configured zone.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMicros(pub u64);

impl UnixMicros {
    /// The same instant in whole milliseconds, the resolution of Prometheus.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        i64::try_from(self.0 / 1_000).unwrap_or(i64::MAX)
    }

    /// The instant of an RFC 3339 text, such as `2025-12-04T05:32:15.000Z`.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let micros = text.parse::<jiff::Timestamp>().ok()?.as_microsecond();
        u64::try_from(micros).ok().map(Self)
    }

    /// Seconds as a float, as Prometheus writes timestamps in its API.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit 53 bits")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This instant moved later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// This instant moved earlier, not before 1970.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// The instant of a `Date` header of HTTP, such as `Thu, 04 Dec 2025 05:32:15 GMT`; in whole seconds.
#[must_use]
pub fn http_date(text: &str) -> Option<UnixMicros> {
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    u64::try_from(at.as_microsecond()).ok().map(UnixMicros)
}

/// The wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
pub fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Time since this process first asked; monotonic.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the monotonic clock")]
pub fn uptime() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// A time zone for display.
#[derive(Clone, Debug)]
pub struct Zone(jiff::tz::TimeZone);

impl Zone {
    /// The zone of an IANA name such as `Asia/Tokyo`.
    ///
    /// # Errors
    /// When no such zone is known; the text names it.
    pub fn named(name: &str) -> Result<Self, String> {
        jiff::tz::TimeZone::get(name).map(Self).map_err(|_| {
            format!("no time zone is called `{name}`; write an IANA name such as Asia/Tokyo or UTC")
        })
    }

    /// Date and time with the zone, `2025-12-04 14:32:15 JST`.
    #[must_use]
    pub fn date_time(&self, at: UnixMicros) -> String {
        self.format(at, "%Y-%m-%d %H:%M:%S %Z")
    }

    /// The time of day alone, `14:32:15`.
    #[must_use]
    pub fn time_of_day(&self, at: UnixMicros) -> String {
        self.format(at, "%H:%M:%S")
    }

    /// The time of day with the zone, `14:32:15 JST`; with the month and day before it, unless that is
    /// the day of `now`.
    #[must_use]
    pub fn moment(&self, at: UnixMicros, now: UnixMicros) -> String {
        let (begins, ends) = self.day(now);
        let today = begins <= at && at < ends;
        self.format(at, if today { "%H:%M:%S %Z" } else { "%m-%d %H:%M:%S %Z" })
    }

    /// The hour and minute alone, `14:32`.
    #[must_use]
    pub fn hour_minute(&self, at: UnixMicros) -> String {
        self.format(at, "%H:%M")
    }

    /// The day of an instant in this zone: when it begins and when the next one does. Not always 24
    /// hours: clocks are set.
    #[must_use]
    pub fn day(&self, at: UnixMicros) -> (UnixMicros, UnixMicros) {
        let micros = i64::try_from(at.0).unwrap_or(i64::MAX);
        let bounds = || {
            let here = jiff::Timestamp::from_microsecond(micros).ok()?.to_zoned_datetime(self.0.clone());
            let begins = here.start_of_day().ok()?;
            let ends = begins.tomorrow().ok()?.start_of_day().ok()?;
            let instant = |timestamp: jiff::Timestamp| u64::try_from(timestamp.as_microsecond()).ok();
            let begins_us = instant(begins.timestamp()).unwrap_or(0);
            Some((UnixMicros(begins_us), UnixMicros(instant(ends.timestamp())?)))
        };
        bounds().unwrap_or((at, at))
    }

    /// The time of day in milliseconds, `14:32:15.123`.
    #[must_use]
    pub fn time_of_day_ms(&self, at: UnixMicros) -> String {
        self.format(at, "%H:%M:%S%.3f")
    }

    /// RFC 3339 with the zone's offset, for machines: `2025-12-04T14:32:15+09:00`.
    #[must_use]
    pub fn rfc3339(&self, at: UnixMicros) -> String {
        self.format(at, "%Y-%m-%dT%H:%M:%S%:z")
    }

    fn format(&self, at: UnixMicros, pattern: &str) -> String {
        let micros = i64::try_from(at.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(timestamp) => timestamp.to_zoned_datetime(self.0.clone()).strftime(pattern).to_string(),
            Err(_) => String::from("-"),
        }
    }
}

impl fmt::Display for UnixMicros {
    /// UTC, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Zone(jiff::tz::TimeZone::UTC).format(*self, "%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokyo_is_named_with_its_abbreviation_and_offset() {
        let zone = Zone::named("Asia/Tokyo").unwrap();
        let at = UnixMicros(1_764_826_335_000_000);
        assert_eq!(zone.date_time(at), "2025-12-04 14:32:15 JST");
        assert_eq!(zone.rfc3339(at), "2025-12-04T14:32:15+09:00");
    }

    #[test]
    fn a_day_is_the_zones_and_may_have_23_hours() {
        let tokyo = Zone::named("Asia/Tokyo").unwrap();
        let at = UnixMicros(1_764_826_335_000_000);
        let (begins, ends) = tokyo.day(at);
        assert_eq!(tokyo.date_time(begins), "2025-12-04 00:00:00 JST");
        assert_eq!(tokyo.day(ends).0, ends);
        assert_eq!(tokyo.moment(at, at), "14:32:15 JST");
        assert_eq!(tokyo.moment(at, ends), "12-04 14:32:15 JST");
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let (begins, ends) = berlin.day(UnixMicros(1_774_778_400_000_000));
        assert_eq!(berlin.date_time(begins), "2026-03-29 00:00:00 CET");
        assert_eq!(ends.since(begins), Duration::from_secs(23 * 3_600));
    }

    #[test]
    fn a_text_of_an_instant_is_read_back() {
        let at = UnixMicros(1_764_826_335_123_000);
        assert_eq!(UnixMicros::from_rfc3339(&at.to_string()), Some(at));
        assert_eq!(UnixMicros::from_rfc3339("yesterday"), None);
    }

    #[test]
    fn a_date_of_http_is_read() {
        let at = UnixMicros(1_764_826_335_000_000);
        assert_eq!(http_date(" Thu, 04 Dec 2025 05:32:15 GMT"), Some(at));
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn an_unknown_zone_is_named_in_the_error() {
        assert!(Zone::named("Asia/Tokio").unwrap_err().contains("Asia/Tokio"));
    }

    #[test]
    fn a_clock_that_stepped_back_gives_zero_not_a_panic() {
        assert_eq!(UnixMicros(5).since(UnixMicros(9)), Duration::ZERO);
    }
}
