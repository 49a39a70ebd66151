//! The last minute of every series and the newest events, for `diarwatch top`, `tail` and `events`.
//!
//! Takes ticks and events as the pipeline appends them; gives documents to `observe`. Bounded in age,
//! in points and in events: the oldest goes. What is older is in the aggregator's store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::Event;
use diarwatch_shared::reading::Reading;
use diarwatch_shared::schema::{Labels, SeriesKey};
use serde::Serialize;

use crate::sample::Tick;

/// How far back ticks are kept.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Ticks of one group; a minute at 10 Hz and some.
pub const TICKS_MAX: usize = 640;
/// Readings over all groups: a minute of eight GPUs is 24,000.
pub const READINGS_MAX: usize = 200_000;
/// Events.
pub const EVENTS_MAX: usize = 1_000;

/// What happened lately.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    groups: BTreeMap<Arc<str>, VecDeque<Tick>>,
    readings: usize,
    events: VecDeque<Event>,
}

/// One series of the last minute.
#[derive(Debug, Serialize)]
pub struct RecentSeries {
    /// Its name.
    pub metric: String,
    /// Its labels.
    pub labels: Labels,
    /// When each value was read, microseconds since 1970.
    pub times_us: Vec<u64>,
    /// The values; `null` where there was none.
    pub values: Vec<Option<f64>>,
    /// Why the newest value is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<&'static str>,
}

impl Recent {
    /// Takes a tick.
    pub fn tick(&mut self, tick: &Tick) {
        let ticks = self.groups.entry(Arc::clone(&tick.group)).or_default();
        ticks.push_back(tick.clone());
        self.readings += tick.readings.len();
        let oldest = tick.at.minus(WINDOW);
        while ticks.front().is_some_and(|first| first.at < oldest) || ticks.len() > TICKS_MAX {
            self.readings -= ticks.pop_front().map_or(0, |first| first.readings.len());
        }
        if self.readings > READINGS_MAX {
            self.groups.clear();
            self.readings = 0;
        }
    }

    /// Forgets a group whose source is configured no more.
    pub fn forget(&mut self, group: &str) {
        if let Some(ticks) = self.groups.remove(group) {
            self.readings -= ticks.iter().map(|tick| tick.readings.len()).sum::<usize>();
        }
    }

    /// Takes an event.
    pub fn event(&mut self, event: &Event) {
        self.events.push_back(event.clone());
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    /// The newest `limit` events after `since`, oldest first, of one worker when one is named.
    pub fn events(&self, since: UnixMicros, limit: usize, worker: Option<&str>) -> Vec<Event> {
        let of =
            |event: &&Event| worker.is_none_or(|name| event.worker().is_some_and(|own| own.as_str() == name));
        let found = self.events.iter().filter(|event| event.at > since).filter(of);
        let found: Vec<Event> = found.cloned().collect();
        let skip = found.len().saturating_sub(limit);
        found.into_iter().skip(skip).collect()
    }

    /// The series whose name is one of `metrics` (all of them when there is none), after `after`.
    pub fn series(&self, metrics: &[String], after: UnixMicros, now: UnixMicros) -> Vec<RecentSeries> {
        let after = after.max(now.minus(WINDOW));
        let wanted = |key: &SeriesKey| metrics.is_empty() || metrics.contains(&key.metric);
        let mut series: BTreeMap<&SeriesKey, RecentSeries> = BTreeMap::new();
        let ticks = self.groups.values().flatten().filter(|tick| tick.at > after);
        for tick in ticks {
            for (key, reading) in tick.keys.iter().zip(&tick.readings).filter(|(key, _)| wanted(key)) {
                series.entry(key).or_insert_with(|| RecentSeries::of(key)).push(tick.at, *reading);
            }
        }
        series.into_values().collect()
    }
}

impl RecentSeries {
    fn of(key: &SeriesKey) -> Self {
        let (metric, labels) = (key.metric.clone(), key.labels.clone());
        Self { metric, labels, times_us: Vec::new(), values: Vec::new(), missing: None }
    }

    fn push(&mut self, at: UnixMicros, reading: Reading) {
        self.times_us.push(at.0);
        // JSON has no infinities: what is no finite number reads as missing.
        self.values.push(reading.ok().filter(|value| value.is_finite()));
        self.missing = reading.err().map(diarwatch_shared::reading::Missing::word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::event::What;
    use diarwatch_shared::reading::Missing;

    fn tick(at_s: u64, reading: Reading) -> Tick {
        let keys: Arc<[SeriesKey]> = [SeriesKey::new("gpu_power_watts", &[("gpu", "0")])].into();
        Tick { group: "gpu_fast".into(), at: UnixMicros(at_s * 1_000_000), keys, readings: vec![reading] }
    }

    #[test]
    fn a_minute_is_kept_and_a_missing_value_says_why() {
        let mut recent = Recent::default();
        for second in 1..=100 {
            recent.tick(&tick(second, Ok(1.0)));
        }
        recent.tick(&tick(101, Err(Missing::Lost)));
        let now = UnixMicros(101_000_000);
        let series = recent.series(&[], UnixMicros(0), now);
        assert_eq!(series[0].times_us.len(), 60);
        assert_eq!((series[0].values[59], series[0].missing), (None, Some("lost")));
        assert!(recent.series(&["other".into()], UnixMicros(0), now).is_empty());
        assert_eq!(recent.series(&[], UnixMicros(99_000_000), now)[0].times_us.len(), 2);
    }

    #[test]
    fn a_group_whose_series_change_keeps_both() {
        let mut recent = Recent::default();
        recent.tick(&tick(1, Ok(1.0)));
        let other =
            Tick { keys: [SeriesKey::new("gpu_power_watts", &[("gpu", "1")])].into(), ..tick(2, Ok(2.0)) };
        recent.tick(&other);
        assert_eq!(recent.series(&[], UnixMicros(0), UnixMicros(3_000_000)).len(), 2);
    }

    #[test]
    fn the_newest_events_are_given_in_order() {
        let mut recent = Recent::default();
        for at in 1..=1_500 {
            recent.event(&Event::new(UnixMicros(at), What::GpuDriverRecovered));
        }
        let events = recent.events(UnixMicros(0), 10, None);
        assert_eq!(events.len(), 10);
        assert_eq!((events[0].at, events[9].at), (UnixMicros(1_491), UnixMicros(1_500)));
        assert_eq!(recent.events(UnixMicros(0), usize::MAX, None).len(), EVENTS_MAX);
        assert!(recent.events(UnixMicros(0), 10, Some("w")).is_empty());
    }
}
