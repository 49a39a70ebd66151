//! What recording rules gave in this round, over what the store has.
//!
//! Takes recorded samples; gives them to the rules that come later, before any of them is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use diarwatch_shared::schema::Labels;

use super::eval::{Point, Sample, Selector, Series, Source};

/// A source over another one.
pub(super) struct Overlay<'a> {
    base: &'a dyn Source,
    recorded: BTreeMap<Labels, Point>,
}

impl<'a> Overlay<'a> {
    /// Nothing recorded yet.
    pub(super) fn new(base: &'a dyn Source) -> Self {
        Self { base, recorded: BTreeMap::new() }
    }

    /// Adds samples; a later one with the same labels takes the place of an earlier one.
    pub(super) fn extend(&mut self, samples: Vec<Sample>, at_ms: i64) {
        let point = |sample: Sample| (sample.labels, Point { at_ms, value: sample.value });
        self.recorded.extend(samples.into_iter().map(point));
    }

    /// All that was recorded, in order of the labels.
    pub(super) fn into_samples(self) -> Vec<Sample> {
        self.recorded.into_iter().map(|(labels, point)| Sample { labels, value: point.value }).collect()
    }

    fn fresh(&self, selector: &Selector<'_>, at_ms: i64, range: Duration) -> Vec<(&Labels, Point)> {
        let start_ms = at_ms.saturating_sub(i64::try_from(range.as_millis()).unwrap_or(i64::MAX));
        self.recorded
            .iter()
            .filter(|(_, point)| point.at_ms > start_ms && point.at_ms <= at_ms)
            .filter(|(labels, _)| selector.matches(labels))
            .map(|(labels, point)| (labels, *point))
            .collect()
    }
}

impl Source for Overlay<'_> {
    fn instant(&self, selector: &Selector<'_>, at_ms: i64, lookback: Duration) -> Vec<Sample> {
        let mut samples = self.base.instant(selector, at_ms, lookback);
        let fresh = self.fresh(selector, at_ms, lookback);
        if !fresh.is_empty() {
            samples.retain(|sample| !self.recorded.contains_key(&sample.labels));
            samples.extend(
                fresh
                    .into_iter()
                    .map(|(labels, point)| Sample { labels: labels.clone(), value: point.value }),
            );
        }
        samples
    }

    fn range(&self, selector: &Selector<'_>, at_ms: i64, range: Duration) -> Vec<Series> {
        let mut all = self.base.range(selector, at_ms, range);
        for (labels, point) in self.fresh(selector, at_ms, range) {
            match all.iter_mut().find(|series| series.labels == *labels) {
                Some(series) => {
                    // The store may already hold what an earlier round recorded for this instant.
                    series.points.retain(|known| known.at_ms < point.at_ms);
                    series.points.push(point);
                }
                None => all.push(Series { labels: labels.clone(), points: vec![point] }),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::eval::testing::Memory;
    use super::*;

    fn sample(value: f64) -> Sample {
        Sample { labels: Labels::from([("__name__".into(), "a".into())]), value }
    }

    #[test]
    fn a_recorded_sample_takes_the_place_of_a_stored_one() {
        let memory = Memory::of(&["a 1 2", "a{x=\"1\"} 7"]);
        let mut overlay = Overlay::new(&memory);
        overlay.extend(vec![sample(5.0)], 90_000);
        let selector = Selector::named("a");
        let lookback = Duration::from_secs(300);
        let mut values: Vec<f64> =
            overlay.instant(&selector, 90_000, lookback).iter().map(|sample| sample.value).collect();
        values.sort_by(f64::total_cmp);
        assert_eq!(values, [5.0, 7.0]);
        let series = overlay.range(&selector, 90_000, lookback);
        let points = series.iter().find(|series| series.labels.len() == 1).unwrap().points.clone();
        assert_eq!(points.iter().map(|point| point.value).collect::<Vec<_>>(), [1.0, 2.0, 5.0]);
    }

    #[test]
    fn the_past_is_not_changed_by_what_is_recorded_now() {
        let memory = Memory::of(&["a 1 2"]);
        let mut overlay = Overlay::new(&memory);
        overlay.extend(vec![sample(5.0)], 90_000);
        let past = overlay.instant(&Selector::named("a"), 60_000, Duration::from_secs(300));
        assert_eq!(past, [sample(2.0)]);
    }
}
