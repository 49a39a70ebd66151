//! A chart as SVG, drawn by the server: attributes only, no style of its own, readable without a
//! script. Pure.
//!
//! Takes points in order; gives a line for each stretch without a gap, a band from the least to the
//! largest value, the lines of the requirements, and the raw points for the script to draw again.

use std::fmt::Write as _;

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::texts::Text;

use super::words::{Words, short};
use crate::view::chart::Point;
use crate::view::figures::DayPanel;
use crate::view::node::{Recent, Unit};
use crate::view::state::Lines;

/// The drawing's size and the room of its axes.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 18.0;
/// A line is in the drawing when it is not far above what is drawn.
const HEADROOM: f64 = 1.1;

/// What is drawn.
struct Drawing<'a> {
    begins_ms: i64,
    ends_ms: i64,
    step_ms: i64,
    top: f64,
    unit: Unit,
    lines: Option<Lines>,
    series: Vec<(&'a str, &'a [Point])>,
    ticks: usize,
    label: String,
}

/// The chart of a day with its lines.
#[must_use]
pub fn day(panel: &DayPanel, unit: Unit, title: &str, words: Words, zone: &Zone) -> String {
    let day = &panel.day;
    if day.points.is_empty() {
        return String::new();
    }
    let largest = day.points.iter().map(|point| point.largest).fold(0.0, f64::max);
    let said = |value: f64| words.axis(value, unit);
    let label = format!(
        "{title}: {} {}, {} {}",
        words.t(Text::Largest),
        said(largest),
        words.fill(Text::WarningFrom, said(panel.lines.warning)),
        words.fill(Text::CriticalFrom, said(panel.lines.critical)),
    );
    Drawing {
        begins_ms: day.begins_ms,
        ends_ms: day.ends_ms,
        step_ms: day.step_ms,
        top: (largest * HEADROOM).max(panel.lines.warning * HEADROOM),
        unit,
        lines: Some(panel.lines),
        series: vec![("", &day.points)],
        ticks: 4,
        label,
    }
    .svg(words, zone)
}

/// The last minutes of a node's GPUs.
#[must_use]
pub fn recent(recent: &Recent, words: Words, zone: &Zone) -> String {
    let points = recent.series.iter().flat_map(|(_, points)| points);
    let largest = points.map(|point| point.largest).fold(0.0, f64::max);
    if recent.series.iter().all(|(_, points)| points.is_empty()) {
        return String::new();
    }
    Drawing {
        begins_ms: recent.begins_ms,
        ends_ms: recent.ends_ms,
        step_ms: recent.step_ms,
        top: if largest <= recent.top { recent.top } else { (largest * HEADROOM).max(f64::MIN_POSITIVE) },
        unit: recent.unit,
        lines: None,
        series: recent.series.iter().map(|(gpu, points)| (gpu.as_str(), points.as_slice())).collect(),
        ticks: 3,
        label: format!(
            "{}: {} {}",
            words.t(recent.title),
            words.t(Text::Largest),
            words.axis(largest, recent.unit)
        ),
    }
    .svg(words, zone)
}

impl Drawing<'_> {
    fn svg(&self, words: Words, zone: &Zone) -> String {
        let mut out = String::new();
        let lines = self
            .lines
            .map(|lines| format!(" data-warning=\"{}\" data-critical=\"{}\"", lines.warning, lines.critical));
        // Writing to a string cannot fail, here and below.
        let _ = write!(
            out,
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" data-begins=\"{}\" \
             data-ends=\"{}\" data-step=\"{}\" data-unit=\"{:?}\" data-top=\"{}\"{}>",
            escape(&self.label),
            self.begins_ms,
            self.ends_ms,
            self.step_ms,
            self.unit,
            short(self.top),
            lines.unwrap_or_default(),
        );
        self.axes(&mut out, words, zone);
        for (level, class) in
            self.lines.iter().flat_map(|l| [(l.warning, "warning"), (l.critical, "critical")])
        {
            if level <= self.top {
                let y = self.y(level);
                let _ = write!(
                    out,
                    "<line class=\"at {class}\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                    WIDTH - RIGHT
                );
            }
        }
        for (number, (name, points)) in self.series.iter().enumerate() {
            self.series(&mut out, number, name, points);
        }
        out.push_str("</svg>");
        out
    }

    fn axes(&self, out: &mut String, words: Words, zone: &Zone) {
        let step = self.unit_size() * nice(self.top / self.unit_size() / 3.0);
        for level in [0.0, 1.0, 2.0, 3.0, 4.0].map(|times| times * step) {
            if level > self.top {
                break;
            }
            let y = self.y(level);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 4.0,
                y + 3.5,
                escape(&words.axis(level, self.unit)),
            );
        }
        let count = i64::try_from(self.ticks).unwrap_or(1).max(1);
        for tick in 0..=count {
            let at_ms = self.begins_ms + (self.ends_ms - self.begins_ms) / count * tick;
            let at = UnixMicros(u64::try_from(at_ms).unwrap_or(0).saturating_mul(1_000));
            // The end of a day is written as such.
            let name = if self.lines.is_some() && tick == count {
                String::from("24:00")
            } else {
                zone.hour_minute(at)
            };
            let anchor = if tick == 0 {
                "start"
            } else if tick == count {
                "end"
            } else {
                "middle"
            };
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{name}</text>",
                self.x(at_ms),
                HEIGHT - 4.0,
            );
        }
    }

    fn series(&self, out: &mut String, number: usize, name: &str, points: &[Point]) {
        let raw: Vec<String> = points
            .iter()
            .map(|point| {
                let step = (point.at_ms - self.begins_ms).div_euclid(self.step_ms.max(1));
                format!("{step},{},{},{}", short(point.least), short(point.mean), short(point.largest))
            })
            .collect();
        let _ = write!(
            out,
            "<g class=\"series s{}\" data-name=\"{}\" data-points=\"{}\">",
            number % 8,
            escape(name),
            raw.join(";")
        );
        let whole = |a: &Point, b: &Point| b.at_ms - a.at_ms <= self.step_ms;
        for stretch in points.chunk_by(whole) {
            let at = |point: &Point, value: f64| format!("{:.1},{:.1}", self.x(point.at_ms), self.y(value));
            if stretch.iter().any(|point| point.largest > point.least) {
                let above = stretch.iter().map(|point| at(point, point.largest));
                let below = stretch.iter().rev().map(|point| at(point, point.least));
                let band: Vec<String> = above.chain(below).collect();
                let _ = write!(out, "<polygon points=\"{}\"/>", band.join(" "));
            }
            let mut line: Vec<String> = stretch.iter().map(|point| at(point, point.mean)).collect();
            if let [only] = line.as_slice() {
                // A point alone is seen as a dot: a line needs two.
                line.push(only.clone());
            }
            let _ = write!(out, "<polyline points=\"{}\"/>", line.join(" "));
        }
        out.push_str("</g>");
    }

    /// What an axis counts in.
    fn unit_size(&self) -> f64 {
        if self.unit == Unit::Bytes { 1_073_741_824.0 } else { 1.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a day are far below 2^53")]
    fn x(&self, at_ms: i64) -> f64 {
        let part = (at_ms - self.begins_ms) as f64 / ((self.ends_ms - self.begins_ms).max(1)) as f64;
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let part = if self.top > 0.0 { (value / self.top).clamp(0.0, 1.0) } else { 0.0 };
        TOP + (1.0 - part) * (HEIGHT - TOP - BOTTOM)
    }
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is not below `step`.
fn nice(step: f64) -> f64 {
    if !step.is_finite() || step <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .map(|times| times * power)
        .find(|level| *level >= step)
        .unwrap_or(10.0 * power)
}

/// Text in an attribute or an element.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::chart::DayChart;
    use crate::view::state::{API_P95, State};
    use diarwatch_shared::texts::Lang;

    const WORDS: Words = Words { lang: Lang::Ja };

    fn panel(values: &[(i64, f64, f64)]) -> DayPanel {
        let step_ms = 600_000;
        let point = |(step, mean, largest): &(i64, f64, f64)| Point {
            at_ms: step * step_ms + step_ms / 2,
            least: *mean,
            mean: *mean,
            largest: *largest,
        };
        let points = values.iter().map(point).collect();
        let day = DayChart { begins_ms: 0, ends_ms: 86_400_000, step_ms, points };
        DayPanel { value: None, state: State::Ok, lines: API_P95, day }
    }

    fn drawn(values: &[(i64, f64, f64)]) -> String {
        day(&panel(values), Unit::Seconds, "<P95>", WORDS, &Zone::named("UTC").unwrap())
    }

    #[test]
    fn no_line_goes_through_a_gap_and_a_point_alone_is_a_dot() {
        let svg = drawn(&[(0, 0.2, 0.2), (1, 0.3, 0.4), (5, 0.2, 0.2)]);
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        assert_eq!(svg.matches("<polygon").count(), 1, "{svg}");
        assert!(svg.contains("data-points=\"0,0.2,0.2,0.2;1,0.3,0.3,0.4;5,0.2,0.2,0.2\""), "{svg}");
    }

    #[test]
    fn the_warning_line_is_always_seen_and_the_critical_one_when_it_is_near() {
        let calm = drawn(&[(0, 0.2, 0.2)]);
        assert!(calm.contains("class=\"at warning\"") && !calm.contains("class=\"at critical\""), "{calm}");
        let bad = drawn(&[(0, 4.0, 5.0)]);
        assert!(bad.contains("class=\"at critical\"") && bad.contains("24:00"), "{bad}");
        assert_eq!(drawn(&[]), "", "a day without a value has no empty frame");
    }

    #[test]
    fn an_axis_counts_in_round_numbers() {
        for (step, round) in [(0.36, 0.5), (1.0, 1.0), (2.2, 2.5), (30.0, 50.0), (51.0, 100.0), (0.0, 1.0)] {
            assert!((nice(step) - round).abs() < 1e-9, "{step}: {}", nice(step));
        }
        let svg = drawn(&[(0, 0.2, 0.2)]);
        assert!(svg.contains(">500ms<") && svg.contains(">1秒<"), "{svg}");
    }

    #[test]
    fn a_chart_has_no_style_and_its_texts_are_texts() {
        let svg = drawn(&[(0, 0.2, 0.2)]);
        assert!(!svg.contains("style") && !svg.contains("<P95>") && svg.contains("&lt;P95&gt;"), "{svg}");
    }
}
