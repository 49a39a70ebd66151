//! The day of the page: what its charts, peaks and "since" need and the recent window does not hold.
//!
//! Takes the page's figures each second; gives one minute each its least, mean and largest value over
//! the day of the configured zone, the day's peak with its time, and since when a tile is as it is.
//! Pure but for the file, which is replaced as a whole about once a minute. A minute without a value
//! is a gap. When the disk refuses, the day goes on in memory and the page says so.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::log::replace_file;
use serde::{Deserialize, Serialize};

use crate::view::state::State;

/// The version this program writes, and the newest it reads.
pub const TREND_VERSION: u16 = 1;
/// Minutes of a figure that are kept: 26 hours, for a day on which clocks are set back.
pub const MINUTES_MAX: usize = 26 * 60;
/// Tiles whose "since" is kept.
pub const STANDINGS_MAX: usize = 4_096;
/// The file's name in the store's directory.
pub const FILE: &str = "page-day.json";
const MINUTE_US: u64 = 60_000_000;

/// What has a day on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// P95 of the API's response time, seconds.
    ApiP95,
    /// Part of the API's answers that are errors.
    ErrorRate,
    /// Sessions that are open.
    Sessions,
}

/// One minute of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u16, f64, f64, f64, u32)", into = "(u16, f64, f64, f64, u32)")]
pub struct Minute {
    /// Which one, from the day's beginning.
    pub minute: u16,
    /// The least value.
    pub least: f64,
    /// The mean of the values.
    pub mean: f64,
    /// The largest value.
    pub largest: f64,
    /// How many values the mean is made of.
    pub count: u32,
}

impl From<(u16, f64, f64, f64, u32)> for Minute {
    fn from((minute, least, mean, largest, count): (u16, f64, f64, f64, u32)) -> Self {
        Self { minute, least, mean, largest, count }
    }
}

impl From<Minute> for (u16, f64, f64, f64, u32) {
    fn from(minute: Minute) -> Self {
        (minute.minute, minute.least, minute.mean, minute.largest, minute.count)
    }
}

/// The largest value of a day and when it was first reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The value.
    pub value: f64,
    /// When.
    pub at: UnixMicros,
}

/// A figure's day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Day {
    /// Minutes with a value, in order.
    pub minutes: Vec<Minute>,
    /// The day's peak.
    pub peak: Option<Peak>,
}

/// How something stands and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: UnixMicros,
}

/// The day of all figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    version: u16,
    begins: UnixMicros,
    ends: UnixMicros,
    figures: BTreeMap<Figure, Day>,
    standings: BTreeMap<String, Standing>,
}

/// What is in the file.
#[derive(Debug, PartialEq)]
pub enum Opened {
    /// The day as it was left, or a new one where there was none.
    Trend(Trend),
    /// It cannot be read; a new one begins, and takes its place.
    Damaged(String),
    /// A later version wrote it, or it cannot be reached: it is left as it is, and nothing is written.
    Untouchable(String),
}

impl Trend {
    /// When the day begins and ends.
    #[must_use]
    pub fn bounds(&self) -> (UnixMicros, UnixMicros) {
        (self.begins, self.ends)
    }

    /// A figure's day; none when it had no value today.
    #[must_use]
    pub fn day(&self, figure: Figure) -> Option<&Day> {
        self.figures.get(&figure)
    }

    /// Since when something stands as it does; none when that is new.
    #[must_use]
    pub fn since(&self, name: &str, state: State) -> Option<UnixMicros> {
        self.standings.get(name).filter(|known| known.state == state).map(|known| known.since)
    }

    /// Takes the figures of now. A new day of the zone begins empty.
    pub fn step(&mut self, samples: impl IntoIterator<Item = (Figure, f64)>, now: UnixMicros, zone: &Zone) {
        if now < self.begins || now >= self.ends {
            (self.begins, self.ends) = zone.day(now);
            self.figures.clear();
        }
        let minute = u16::try_from(now.since(self.begins).as_micros() / u128::from(MINUTE_US));
        let Some(minute) = minute.ok().filter(|minute| usize::from(*minute) < MINUTES_MAX) else { return };
        for (figure, value) in samples.into_iter().filter(|(_, value)| value.is_finite()) {
            self.figures.entry(figure).or_default().take(minute, value, now);
        }
    }

    /// Takes how everything stands; what is not named any more is forgotten. Until the fleet has had
    /// time to come back after a start (`settled`), nothing that was known gets worse.
    pub fn stand<'a>(
        &mut self,
        all: impl IntoIterator<Item = (&'a str, State)>,
        settled: bool,
        now: UnixMicros,
    ) {
        let mut standings = BTreeMap::new();
        for (name, state) in all.into_iter().take(STANDINGS_MAX) {
            let known = self.standings.get(name).filter(|known| {
                let silent = matches!(state, State::Critical | State::Unknown);
                known.state == state || (!settled && silent && known.state != State::Unknown)
            });
            let fresh = Standing { state, since: now };
            let kept = known.map_or(fresh, |known| Standing { since: known.since.min(now), ..*known });
            standings.insert(name.to_owned(), kept);
        }
        self.standings = standings;
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// When it is no day, with whether it is a later version's.
    fn parse(text: &[u8]) -> Result<Self, (bool, String)> {
        #[derive(Deserialize)]
        struct Version {
            version: u16,
        }
        let damaged = |error: serde_json::Error| (false, error.to_string());
        let Version { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version > TREND_VERSION {
            return Err((true, format!("version {version} is newer than this program ({TREND_VERSION})")));
        }
        let mut trend: Self = serde_json::from_slice(text).map_err(damaged)?;
        for day in trend.figures.values_mut() {
            let mut before = None;
            day.minutes
                .retain(|minute| before.replace(minute.minute).is_none_or(|last| last < minute.minute));
            day.minutes.retain(|minute| usize::from(minute.minute) < MINUTES_MAX);
        }
        Ok(trend)
    }

    /// Opens the day in a directory.
    #[must_use]
    pub fn open(directory: &Path) -> Opened {
        let path = directory.join(FILE);
        let said = |why: String| format!("{}: {why}", path.display());
        match std::fs::read(&path) {
            Ok(bytes) => match Self::parse(&bytes) {
                Ok(trend) => Opened::Trend(trend),
                Err((false, why)) => Opened::Damaged(said(why)),
                Err((true, why)) => Opened::Untouchable(said(why)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Opened::Trend(Self::default()),
            Err(error) => Opened::Untouchable(said(error.to_string())),
        }
    }

    /// Writes the day into a directory.
    ///
    /// # Errors
    /// When the disk refuses; the text names the file.
    pub fn save(mut self, directory: &Path) -> Result<(), String> {
        self.version = TREND_VERSION;
        let path = directory.join(FILE);
        let bytes = serde_json::to_vec(&self).map_err(|error| error.to_string())?;
        replace_file(&path, &bytes).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Day {
    fn take(&mut self, minute: u16, value: f64, now: UnixMicros) {
        if self.peak.is_none_or(|peak| value > peak.value) {
            self.peak = Some(Peak { value, at: now });
        }
        // Not always the last: a clock may go back within the day.
        let at = self.minutes.partition_point(|known| known.minute < minute);
        match self.minutes.get_mut(at).filter(|known| known.minute == minute) {
            Some(known) => known.take(value),
            None => {
                let first = Minute { minute, least: value, mean: value, largest: value, count: 1 };
                self.minutes.insert(at, first);
            }
        }
    }
}

impl Minute {
    fn take(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.mean += (value - self.mean) / f64::from(self.count);
        self.least = self.least.min(value);
        self.largest = self.largest.max(value);
        // A sum of roundings must not leave what was seen.
        self.mean = self.mean.clamp(self.least, self.largest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    /// 2025-12-04 00:00:00 JST.
    const MIDNIGHT: UnixMicros = UnixMicros(1_764_774_000_000_000);

    fn tokyo() -> Zone {
        Zone::named("Asia/Tokyo").unwrap()
    }

    fn after(seconds: u64) -> UnixMicros {
        MIDNIGHT.plus(Duration::from_secs(seconds))
    }

    fn fed(values: &[(u64, f64)]) -> Trend {
        let mut trend = Trend::default();
        for (seconds, value) in values {
            trend.step([(Figure::Sessions, *value)], after(*seconds), &tokyo());
        }
        trend
    }

    #[test]
    fn a_minute_has_its_least_mean_and_largest_value_and_a_minute_without_one_is_a_gap() {
        let trend = fed(&[(0, 4.0), (30, 8.0), (59, 6.0), (180, 5.0)]);
        let day = trend.day(Figure::Sessions).unwrap();
        let first = Minute { minute: 0, least: 4.0, mean: 6.0, largest: 8.0, count: 3 };
        let fourth = Minute { minute: 3, least: 5.0, mean: 5.0, largest: 5.0, count: 1 };
        assert_eq!(day.minutes, [first, fourth]);
        assert_eq!(day.peak, Some(Peak { value: 8.0, at: after(30) }));
        assert_eq!(trend.day(Figure::ApiP95), None);
    }

    #[test]
    fn the_zones_midnight_begins_a_new_day() {
        let mut trend = fed(&[(86_399, 9.0)]);
        assert_eq!(trend.bounds().0, MIDNIGHT);
        trend.step([(Figure::Sessions, 2.0)], after(86_400), &tokyo());
        assert_eq!(trend.bounds().0, after(86_400));
        let day = trend.day(Figure::Sessions).unwrap();
        assert_eq!((day.minutes.len(), day.peak.unwrap().value), (1, 2.0));
        trend.step([], after(2 * 86_400), &tokyo());
        assert_eq!(trend.day(Figure::Sessions), None, "nobody sends and yesterday's peak is gone");
    }

    #[test]
    fn what_stands_as_it_did_stands_since_then() {
        let mut trend = Trend::default();
        trend.stand([("a", State::Ok), ("b", State::Ok)], true, after(10));
        trend.stand([("a", State::Ok), ("b", State::Critical)], true, after(20));
        assert_eq!(trend.since("a", State::Ok), Some(after(10)));
        assert_eq!(trend.since("b", State::Critical), Some(after(20)));
        assert_eq!(trend.since("b", State::Ok), None);
        trend.stand([("b", State::Critical)], true, after(5));
        assert_eq!(trend.since("b", State::Critical), Some(after(5)), "the clock went back");
        assert_eq!(trend.since("a", State::Ok), None, "it is gone");
    }

    #[test]
    fn a_fleet_that_comes_back_after_a_start_stands_as_before() {
        let mut trend = Trend::default();
        trend.stand([("a", State::Ok), ("b", State::Unknown)], true, after(10));
        trend.stand([("a", State::Critical), ("b", State::Ok)], false, after(20));
        assert_eq!(trend.since("a", State::Critical), None, "it may only not have come back yet");
        assert_eq!(trend.since("b", State::Ok), Some(after(20)));
        trend.stand([("a", State::Ok)], false, after(21));
        assert_eq!(trend.since("a", State::Ok), Some(after(10)));
        trend.stand([("a", State::Critical)], true, after(40));
        assert_eq!(trend.since("a", State::Critical), Some(after(40)));
    }

    #[test]
    fn the_day_is_there_after_a_restart_and_a_later_version_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Trend::open(dir.path()), Opened::Trend(Trend::default()));
        let mut trend = fed(&[(0, 4.0), (61, 0.1)]);
        trend.stand([("pyannote #1", State::Ok)], true, after(62));
        trend.clone().save(dir.path()).unwrap();
        trend.version = TREND_VERSION;
        assert_eq!(Trend::open(dir.path()), Opened::Trend(trend));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(Trend::open(dir.path()), Opened::Damaged(why) if why.contains(FILE)));
        std::fs::write(dir.path().join(FILE), r#"{"version":9}"#).unwrap();
        assert!(matches!(Trend::open(dir.path()), Opened::Untouchable(why) if why.contains("newer")));
    }

    #[test]
    fn golden_text_of_version_1_stays() {
        let text = br#"{"version":1,"begins":1764774000000000,"ends":1764860400000000,"figures":{"sessions":{"minutes":[[0,4.0,6.0,8.0,2]],"peak":{"value":8.0,"at":1764774030000000}}},"standings":{"s":{"state":"ok","since":1764774000000000}}}"#;
        let mut trend = fed(&[(0, 4.0), (30, 8.0)]);
        trend.stand([("s", State::Ok)], true, MIDNIGHT);
        trend.version = TREND_VERSION;
        assert_eq!(serde_json::to_vec(&trend).unwrap(), text);
        assert_eq!(Trend::parse(text), Ok(trend));
    }

    proptest! {
        #[test]
        fn whatever_comes_the_day_is_bounded_in_order_and_holds_what_was_seen(
            values in prop::collection::vec((0_u64..200_000, prop::num::f64::ANY), 0..200),
        ) {
            let trend = fed(&values);
            let (begins, ends) = trend.bounds();
            if let Some(day) = trend.day(Figure::Sessions) {
                prop_assert!(day.minutes.len() <= MINUTES_MAX);
                prop_assert!(day.minutes.is_sorted_by(|a, b| a.minute < b.minute));
                for minute in &day.minutes {
                    prop_assert!(minute.least <= minute.mean && minute.mean <= minute.largest);
                    let at = begins.plus(Duration::from_secs(u64::from(minute.minute) * 60));
                    prop_assert!(begins <= at && at < ends);
                }
                let largest = day.minutes.iter().map(|minute| minute.largest).fold(f64::MIN, f64::max);
                prop_assert_eq!(day.peak.map(|peak| peak.value), Some(largest));
            }
            let bytes = serde_json::to_vec(&trend).unwrap();
            prop_assert_eq!(Trend::parse(&bytes), Ok(trend));
        }
    }
}
