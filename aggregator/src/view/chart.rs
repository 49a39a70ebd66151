//! Points of a chart: a day in ten-minute steps, or the last minutes of a series. Pure and bounded.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::reading::Reading;
use serde::Serialize;

use crate::trend::{Day, Figure, Minute, Trend};

/// Minutes of a day that share a point: 144 points fit the width of a phone.
pub const POINT_MINUTES: u16 = 10;
/// Points of a chart of the last minutes.
pub const RECENT_POINTS_MAX: i64 = 150;

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The middle of its time, in milliseconds since 1970.
    pub at_ms: i64,
    /// The least value in its time.
    pub least: f64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub largest: f64,
}

/// The chart of a day.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DayChart {
    /// When the day begins, in milliseconds since 1970.
    pub begins_ms: i64,
    /// When it ends.
    pub ends_ms: i64,
    /// What one point stands for, in milliseconds; where the next is further away there is a gap.
    pub step_ms: i64,
    /// The points, in order.
    pub points: Vec<Point>,
}

impl DayChart {
    /// The day of a figure, without the minute that runs: the chart moves once a minute, not each second.
    #[must_use]
    pub fn of(trend: &Trend, figure: Figure, now: UnixMicros) -> Self {
        let (begins, ends) = trend.bounds();
        let running = now.since(begins).as_secs() / 60;
        let minutes: &[Minute] = trend.day(figure).map_or(&[], |day: &Day| &day.minutes);
        let whole = minutes.partition_point(|minute| u64::from(minute.minute) < running);
        // A day that has just begun shows what there is.
        let shown = minutes.get(..if whole == 0 { minutes.len() } else { whole }).unwrap_or_default();
        let (begins_ms, step_ms) = (begins.as_millis(), i64::from(POINT_MINUTES) * 60_000);
        let point = |minutes: &[Minute]| -> Option<Point> {
            let first = minutes.first()?;
            let count = minutes.iter().map(|minute| f64::from(minute.count)).sum::<f64>().max(1.0);
            let sum: f64 = minutes.iter().map(|minute| minute.mean * f64::from(minute.count)).sum();
            Some(Point {
                at_ms: begins_ms + i64::from(first.minute / POINT_MINUTES) * step_ms + step_ms / 2,
                least: minutes.iter().map(|minute| minute.least).fold(f64::INFINITY, f64::min),
                mean: sum / count,
                largest: minutes.iter().map(|minute| minute.largest).fold(f64::NEG_INFINITY, f64::max),
            })
        };
        let same = |a: &Minute, b: &Minute| a.minute / POINT_MINUTES == b.minute / POINT_MINUTES;
        let points = shown.chunk_by(same).filter_map(point).collect();
        Self { begins_ms, ends_ms: ends.as_millis(), step_ms, points }
    }
}

/// What a point of the last `window_ms` milliseconds stands for.
#[must_use]
pub fn recent_step_ms(window_ms: i64) -> i64 {
    (window_ms / RECENT_POINTS_MAX).max(1_000)
}

/// Readings in order of time as points of `step_ms`, aligned to it, without the step that runs: the
/// chart moves once a step. A step in which nothing was read is a gap.
pub fn recent(readings: impl Iterator<Item = (i64, Reading)>, step_ms: i64, now_ms: i64) -> Vec<Point> {
    let running = now_ms.div_euclid(step_ms.max(1));
    let mut points: Vec<(i64, Point, f64)> = Vec::new();
    for (at_ms, reading) in readings {
        let Some(value) = reading.ok().filter(|value| value.is_finite()) else { continue };
        let step = at_ms.div_euclid(step_ms.max(1));
        if step >= running {
            break;
        }
        match points.last_mut().filter(|(last, ..)| *last == step) {
            Some((_, point, count)) => {
                *count += 1.0;
                point.mean += (value - point.mean) / *count;
                point.least = point.least.min(value);
                point.largest = point.largest.max(value);
            }
            None => {
                let at_ms = step * step_ms + step_ms / 2;
                points.push((step, Point { at_ms, least: value, mean: value, largest: value }, 1.0));
            }
        }
    }
    points.into_iter().map(|(_, point, _)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::clock::Zone;
    use diarwatch_shared::reading::Missing;
    use std::time::Duration;

    #[test]
    fn ten_minutes_share_a_point_that_keeps_their_peak_and_a_silent_hour_is_a_gap() {
        let zone = Zone::named("Asia/Tokyo").unwrap();
        let (midnight, _) = zone.day(UnixMicros(1_764_826_335_000_000));
        let mut trend = Trend::default();
        let at = |minute: u64| midnight.plus(Duration::from_secs(minute * 60));
        for (minute, value) in [(0, 1.0), (3, 9.0), (9, 2.0), (10, 5.0), (75, 7.0), (80, 100.0)] {
            trend.step([(Figure::ApiP95, value)], at(minute), &zone);
        }
        let chart = DayChart::of(&trend, Figure::ApiP95, at(80));
        let said: Vec<(i64, f64, f64)> = chart
            .points
            .iter()
            .map(|point| ((point.at_ms - chart.begins_ms) / 60_000, point.mean, point.largest))
            .collect();
        assert_eq!(
            said,
            [(5, 4.0, 9.0), (15, 5.0, 5.0), (75, 7.0, 7.0)],
            "the minute that runs is not shown"
        );
        assert_eq!(DayChart::of(&trend, Figure::ErrorRate, at(80)).points, []);
        let first = DayChart::of(&trend, Figure::ApiP95, at(0));
        assert!(!first.points.is_empty(), "a day that begins shows what there is");
    }

    #[test]
    fn the_last_minutes_are_bounded_and_what_could_not_be_read_is_a_gap() {
        let readings = [
            (0, Ok(1.0)),
            (500, Ok(3.0)),
            (1_000, Err(Missing::Lost)),
            (2_100, Ok(f64::NAN)),
            (3_100, Ok(4.0)),
            (4_000, Ok(9.0)),
        ];
        let points = recent(readings.into_iter(), 1_000, 4_500);
        let said: Vec<(i64, f64)> = points.iter().map(|point| (point.at_ms, point.mean)).collect();
        assert_eq!(said, [(500, 2.0), (3_500, 4.0)]);
        assert_eq!(recent_step_ms(900_000), 6_000);
    }
}
