//! The last minute of the series that are drawn as lines.
//!
//! Takes `history` documents, each from where the last one ended; gives columns of a fixed length of
//! time, the highest value of each. Pure. A gap stays a gap: a column without a sample is `None`,
//! never the last value again. Bounded in age, in points and in series: the oldest goes.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

/// How far back.
pub(super) const WINDOW_US: u64 = 60_000_000;
/// Points of one series; a minute at 10 Hz and some.
const POINTS_MAX: usize = 700;
/// Series; three of 64 GPUs.
const SERIES_MAX: usize = 192;
/// A sample stands for the time until the next one, but not longer than so many of its intervals.
const HOLD_INTERVALS: u64 = 3;
/// Nor shorter than this, so that jitter makes no gap.
const HOLD_US_MIN: u64 = 250_000;
/// Samples that the interval is taken from.
const INTERVALS_SEEN: usize = 15;
/// Series that are this much older than the newest one do not hold back the next question.
const ALIVE_US: u64 = 2_000_000;
/// A clock that goes back further than this was set; what came before is not comparable.
const STEP_US: u64 = 1_000_000;

/// What is drawn of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    Utilization,
    Memory,
    Power,
}

impl Metric {
    /// All, in the order of the screen.
    pub(super) const ALL: [Self; 3] = [Self::Utilization, Self::Memory, Self::Power];

    /// Its name in the catalogue.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Utilization => "gpu_utilization_ratio",
            Self::Memory => "gpu_memory_used_bytes",
            Self::Power => "gpu_power_watts",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

/// The last minute.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    series: BTreeMap<(String, Metric), Points>,
    /// The agent's clock at its last answer.
    now_us: u64,
}

type Points = VecDeque<(u64, Option<f64>)>;

impl History {
    /// Takes a `history` document.
    pub(super) fn take(&mut self, document: &Value) {
        let Some(now_us) = document.get("now_us").and_then(Value::as_u64) else { return };
        if now_us.saturating_add(STEP_US) < self.now_us {
            self.series.clear();
        }
        self.now_us = now_us;
        for series in document.get("series").and_then(Value::as_array).into_iter().flatten() {
            self.extend(series);
        }
        let oldest = now_us.saturating_sub(WINDOW_US);
        for points in self.series.values_mut() {
            while points.front().is_some_and(|(at, _)| *at < oldest) || points.len() > POINTS_MAX {
                points.pop_front();
            }
        }
        self.series.retain(|_, points| !points.is_empty());
    }

    fn extend(&mut self, series: &Value) {
        let text = |place: &str| series.pointer(place).and_then(Value::as_str);
        let Some(metric) = text("/metric").and_then(Metric::of) else { return };
        let Some(gpu) = text("/labels/gpu") else { return };
        let key = (gpu.to_owned(), metric);
        if self.series.len() >= SERIES_MAX && !self.series.contains_key(&key) {
            return;
        }
        let list = |key: &str| series.get(key).and_then(Value::as_array).into_iter().flatten();
        let latest = self.now_us.saturating_add(STEP_US);
        let points = self.series.entry(key).or_default();
        for (at, value) in list("times_us").zip(list("values")).take(POINTS_MAX) {
            let newest = points.back().map(|(at, _)| *at);
            let Some(at) = at.as_u64().filter(|at| Some(*at) > newest && *at <= latest) else { continue };
            points.push_back((at, value.as_f64().filter(|value| value.is_finite())));
        }
    }

    /// After which time the next question asks: nothing that a series already has, and nothing missed.
    pub(super) fn after_us(&self) -> u64 {
        let newest = || self.series.values().filter_map(|points| points.back()).map(|(at, _)| *at);
        let alive = newest().max().unwrap_or_default().saturating_sub(ALIVE_US);
        newest().filter(|at| *at >= alive).min().unwrap_or_default()
    }

    /// The newest `count` columns of `slot_us` each, the newest last: the highest value in it.
    pub(super) fn slots(&self, gpu: &str, metric: Metric, slot_us: u64, count: usize) -> Vec<Option<f64>> {
        let mut slots = vec![None; count];
        let Some(points) = self.series.get(&(gpu.to_owned(), metric)) else { return slots };
        let slot_us = slot_us.max(1);
        // Columns lie at fixed times, so that a value stays in its column while it moves to the left.
        let end = (self.now_us / slot_us).saturating_add(1);
        let first = end.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        let hold = hold_us(points);
        let next = points.iter().skip(1).map(|(at, _)| *at).chain([self.now_us]);
        for ((at, value), next) in points.iter().zip(next) {
            let Some(value) = *value else { continue };
            let until = next.min(at.saturating_add(hold)).max(*at);
            let last = if until > *at { (until - 1) / slot_us } else { at / slot_us };
            for slot in (at / slot_us).max(first)..=last.min(end.saturating_sub(1)) {
                let place = usize::try_from(slot - first).unwrap_or(usize::MAX);
                if let Some(seen) = slots.get_mut(place) {
                    *seen = Some(seen.map_or(value, |seen: f64| seen.max(value)));
                }
            }
        }
        slots
    }
}

/// How long a sample stands for what follows.
fn hold_us(points: &Points) -> u64 {
    let newest = points.iter().rev().map(|(at, _)| *at).take(INTERVALS_SEEN + 1);
    let before = points.iter().rev().map(|(at, _)| *at).skip(1);
    let mut intervals: Vec<u64> = newest.zip(before).map(|(at, before)| at - before).collect();
    intervals.sort_unstable();
    let median = intervals.get(intervals.len() / 2).copied().unwrap_or_default();
    median.saturating_mul(HOLD_INTERVALS).max(HOLD_US_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const SLOT: u64 = 100_000;

    fn answer(now_us: u64, points: &[(u64, Option<f64>)]) -> Value {
        let (times, values): (Vec<_>, Vec<_>) = points.iter().copied().unzip();
        json!({ "now_us": now_us, "series": [{ "metric": "gpu_utilization_ratio",
                "labels": { "gpu": "0" }, "times_us": times, "values": values }] })
    }

    fn at_10_hz(from: u64, count: u64) -> Vec<(u64, Option<f64>)> {
        (0..count).map(|at| (from + at * SLOT, Some(at as f64))).collect()
    }

    #[test]
    fn each_sample_has_its_column_and_the_newest_is_last() {
        let mut history = History::default();
        history.take(&answer(10_950_000, &at_10_hz(10_000_000, 10)));
        let slots = history.slots("0", Metric::Utilization, SLOT, 4);
        assert_eq!(slots, [Some(6.0), Some(7.0), Some(8.0), Some(9.0)]);
        assert_eq!(history.after_us(), 10_900_000);
    }

    #[test]
    fn a_gap_is_no_flat_line_and_jitter_is_no_gap() {
        let mut history = History::default();
        let mut points = at_10_hz(10_000_000, 10);
        // 30 ms late each, now and then: no column may be empty.
        for (at, _) in points.iter_mut().step_by(3) {
            *at += 30_000;
        }
        points.extend(at_10_hz(13_000_000, 5));
        history.take(&answer(13_450_000, &points));
        let slots = history.slots("0", Metric::Utilization, SLOT, 35);
        assert!(slots[..10].iter().all(Option::is_some), "{slots:?}");
        assert!(slots[14..30].iter().all(Option::is_none), "{slots:?}");
        assert!(slots[30..].iter().all(Option::is_some), "{slots:?}");
    }

    #[test]
    fn a_value_that_is_missing_ends_the_line_at_once() {
        let mut history = History::default();
        history.take(&answer(10_250_000, &[(10_000_000, Some(1.0)), (10_100_000, None)]));
        assert_eq!(history.slots("0", Metric::Utilization, SLOT, 3), [Some(1.0), None, None]);
    }

    #[test]
    fn a_burst_of_one_sample_is_seen_in_a_column_of_three_seconds() {
        let mut history = History::default();
        let mut points = at_10_hz(10_000_000, 300);
        points.iter_mut().for_each(|(_, value)| *value = Some(0.1));
        points[150].1 = Some(0.9);
        history.take(&answer(39_999_000, &points));
        let slots = history.slots("0", Metric::Utilization, 3_000_000, 10);
        assert_eq!(slots.iter().filter(|slot| **slot == Some(0.9)).count(), 1);
    }

    #[test]
    fn a_clock_that_was_set_back_begins_anew_instead_of_waiting() {
        let mut history = History::default();
        history.take(&answer(90_000_000, &at_10_hz(89_000_000, 10)));
        history.take(&answer(19_950_000, &[(19_900_000, Some(5.0))]));
        assert_eq!(history.after_us(), 19_900_000);
        assert_eq!(history.slots("0", Metric::Utilization, SLOT, 1), [Some(5.0)]);
    }

    #[test]
    fn a_time_from_far_ahead_does_not_stop_the_questions() {
        let mut history = History::default();
        history.take(&answer(10_000_000, &[(u64::MAX, Some(1.0)), (9_900_000, Some(2.0))]));
        assert_eq!(history.after_us(), 9_900_000);
    }

    proptest! {
        #[test]
        fn any_points_and_any_columns_stay_in_bounds(
            points in prop::collection::vec((any::<u64>(), any::<Option<f64>>()), 0..50),
            now in any::<u64>(), slot in any::<u64>(), count in 0_usize..300,
        ) {
            let mut history = History::default();
            history.take(&answer(now, &points));
            prop_assert_eq!(history.slots("0", Metric::Utilization, slot, count).len(), count);
        }
    }
}
