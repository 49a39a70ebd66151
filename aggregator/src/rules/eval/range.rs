//! The functions over a range of one series.
//!
//! Takes the points of a series in (start, end]; gives one value, or none when there are too few.

use std::time::Duration;

use super::{Point, millis, sum};

/// A part of a sampling interval by which a series may miss the edge of a range and still be taken
/// to reach it.
const EDGE_TOLERANCE: f64 = 1.1;

/// Where the points were taken from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Its end, in milliseconds since 1970.
    pub(super) end_ms: i64,
    /// Its length.
    pub(super) range: Duration,
}

/// What a function makes of the points.
pub(super) type Fold = fn(&[Point], Window) -> Option<f64>;

/// The function of a name.
pub(super) fn fold(name: &str) -> Option<Fold> {
    Some(match name {
        "rate" => |points, window| increase(points, window).map(|value| value / window.range.as_secs_f64()),
        "increase" => increase,
        "avg_over_time" => |points, _| some(points, |values| sum::mean(values)),
        "max_over_time" => |points, _| some(points, |values| sum::largest(values)),
        "min_over_time" => |points, _| some(points, |values| sum::smallest(values)),
        "sum_over_time" => |points, _| some(points, |values| sum::sum(values)),
        "count_over_time" => |points, _| some(points, |values| sum::count(values)),
        "last_over_time" => |points, _| points.last().map(|point| point.value),
        _ => return None,
    })
}

fn some(points: &[Point], fold: impl Fn(Values<'_>) -> f64) -> Option<f64> {
    if points.is_empty() { None } else { Some(fold(Values(points.iter()))) }
}

#[derive(Clone)]
struct Values<'a>(std::slice::Iter<'a, Point>);

impl Iterator for Values<'_> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        self.0.next().map(|point| point.value)
    }
}

/// By how much a counter rose in the window, with Prometheus' extrapolation to its edges.
fn increase(points: &[Point], window: Window) -> Option<f64> {
    let [first, .., last] = points else { return None };
    let rise = last.value - first.value + lost_in_resets(points);
    let sampled = seconds(last.at_ms - first.at_ms);
    let interval = sampled / (sum::count(Values(points.iter())) - 1.0);
    let start_ms = window.end_ms.saturating_sub(millis(window.range));
    let mut to_start = seconds(first.at_ms.saturating_sub(start_ms));
    let mut to_end = seconds(window.end_ms.saturating_sub(last.at_ms));
    // A series that ends well inside the window began or ended there: half an interval is a fair guess.
    if to_start >= interval * EDGE_TOLERANCE {
        to_start = interval / 2.0;
    }
    if to_end >= interval * EDGE_TOLERANCE {
        to_end = interval / 2.0;
    }
    // A counter cannot have been below 0.
    if rise > 0.0 && first.value >= 0.0 {
        to_start = to_start.min(sampled * (first.value / rise));
    }
    Some(rise * ((sampled + to_start + to_end) / sampled))
}

/// What a counter had counted before each time it fell, which means: began again from 0.
fn lost_in_resets(points: &[Point]) -> f64 {
    points
        .iter()
        .zip(points.iter().skip(1))
        .filter(|(before, after)| after.value < before.value)
        .map(|(before, _)| before.value)
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "a range is far below 2^53 milliseconds")]
fn seconds(duration_ms: i64) -> f64 {
    duration_ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Memory, lines_at};
    use proptest::prelude::*;

    const MINUTE_MS: i64 = 60_000;

    fn one(memory: &Memory, expr: &str, minutes: i64) -> f64 {
        let lines = lines_at(memory, expr, minutes * MINUTE_MS);
        let [line] = lines.as_slice() else { panic!("{expr}: {lines:?}") };
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn steps(from: i64, step: i64, count: i64) -> String {
        (0..=count).map(|n| (from + n * step).to_string()).collect::<Vec<_>>().join(" ")
    }

    // What Prometheus 3 gives for such series.
    #[test]
    fn increase_and_rate_agree_with_prometheus() {
        let lines = [
            format!("c{{path=\"steady\"}} {}", steps(0, 10, 10)),
            format!("c{{path=\"reset\"}} {} {}", steps(0, 18, 5), steps(0, 18, 5)),
            format!("c{{path=\"from_ten\"}} {}", steps(10, 10, 10)),
            format!("c{{path=\"from_one\"}} {}", steps(1, 10, 10)),
            format!("middle {} {}", steps(0, 27, 4), steps(0, 27, 5)),
            format!("end {} 0 10", steps(0, 10, 9)),
        ];
        let memory = Memory::every(5 * MINUTE_MS, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        for (path, shorter, longer) in [
            ("steady", 100.0, 100.0),
            ("reset", 160.0, 162.0),
            ("from_ten", 100.0, 105.0),
            ("from_one", 100.0, 101.0),
        ] {
            let near = |expr: &str, expected: f64| {
                let found = one(&memory, expr, 50);
                assert!((found - expected).abs() < 1e-9, "{expr}: {found}");
            };
            near(&format!("increase(c{{path=\"{path}\"}}[50m])"), shorter);
            near(&format!("increase(c{{path=\"{path}\"}}[100m])"), longer);
        }
        assert!((one(&memory, "rate(middle[50m])", 50) - 0.08).abs() < 1e-12);
        assert!(lines_at(&memory, "rate(end[5m])", 50 * MINUTE_MS).is_empty());
        assert_eq!(one(&memory, "rate(end[6m])", 50), 0.0);
    }

    #[test]
    fn a_counter_is_never_extrapolated_below_zero() {
        let memory = Memory::every(
            4 * MINUTE_MS,
            &(0..6)
                .map(|n| format!("c{{start=\"{n}m\"}} {}", steps(60 * n, 240, 10)))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        for (start, early, late) in [(0, 0.5, 1.0), (1, 0.55, 1.0), (2, 0.6, 1.0), (5, 0.6, 1.0)] {
            // The window of 20 minutes holds 8 of counting, so the rate is over 20.
            let found = one(&memory, &format!("rate(c{{start=\"{start}m\"}}[20m])"), 10);
            assert!((found - early).abs() < 1e-12, "{start}: {found}");
            let found = one(&memory, &format!("rate(c{{start=\"{start}m\"}}[20m])"), 40);
            assert!((found - late).abs() < 1e-12, "{start}: {found}");
        }
    }

    #[test]
    fn a_series_reaches_the_edge_of_a_window_up_to_a_tenth_over_its_interval() {
        let memory = Memory::of(&["c _ 1000 1060 1120"]);
        for (expr, at_ms, risen) in [
            ("increase(c[183s])", 180_000, "{} 183"), // 63 s before the first: all of it
            ("increase(c[210s])", 180_000, "{} 150"), // 90 s before the first: half an interval
            ("increase(c[3m])", 240_000, "{} 180"),   // 0 s before, 60 s behind the last
            ("increase(c[4m])", 270_000, "{} 180"),   // 30 s before, 90 s behind: half an interval
        ] {
            assert_eq!(lines_at(&memory, expr, at_ms), [risen], "{expr}");
        }
    }

    #[test]
    fn ranges_are_open_on_the_left() {
        let memory = Memory::of(&["a 1 2 4"]);
        for (expr, value) in [
            ("sum_over_time(a[2m])", 6.0),
            ("count_over_time(a[2m])", 2.0),
            ("count_over_time(a[121s])", 3.0),
            ("avg_over_time(a[2m])", 3.0),
            ("max_over_time(a[3m])", 4.0),
            ("min_over_time(a[3m])", 1.0),
            ("last_over_time(a[1m])", 4.0),
            ("sum_over_time(a[2m] offset 1m)", 3.0),
        ] {
            assert_eq!(one(&memory, expr, 2), value, "{expr}");
        }
        assert!(lines_at(&memory, "avg_over_time(a[1m])", 5 * MINUTE_MS).is_empty());
        assert_eq!(lines_at(&memory, "last_over_time(a[1m])", 2 * MINUTE_MS), ["a 4"]);
        assert_eq!(lines_at(&memory, "max_over_time(a[1m])", 2 * MINUTE_MS), ["{} 4"]);
    }

    proptest! {
        #[test]
        fn a_counter_never_falls(values in proptest::collection::vec(0_u32..1_000, 2..20)) {
            let line = format!("c {}", values.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
            let memory = Memory::of(&[&line]);
            prop_assert!(one(&memory, "increase(c[1h])", i64::try_from(values.len()).unwrap() - 1) >= 0.0);
        }
    }
}
