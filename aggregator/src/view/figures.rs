//! The figures of the product that is watched: API, errors, sessions. Pure.
//!
//! Takes the newest values of nodes that send, or what a recording rule made of them; gives what the
//! page shows and what its day is fed with. Values of one name and labels from several nodes are one
//! thing looked at several times; values with different labels are parts of one whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::schema::{Labels, SeriesKey};
use serde::Serialize;

use super::state::{API_P95, ERROR_RATE, Lines, SESSIONS, State};
use super::{Sources, chart};
use crate::store::Memory;
use crate::trend::Figure;

/// A figure's value that is older than this is not its present one. Longer than for a node's own
/// readings: a figure may be asked for once a minute, and one that cannot be had says so.
pub const FIGURE_PRESENT: Duration = Duration::from_secs(120);

/// The metrics that recording rules may make for the page.
pub const RECORDED: &[&str] = &[P95, P95_MS, ERRORS, ERRORS_REQUIRED, ACTIVE, MAX];
const P95: &str = "api_request_duration_p95_seconds";
const P95_MS: &str = "api_response_time_p95";
const ERRORS: &str = "api_errors_ratio";
const ERRORS_REQUIRED: &str = "error_rate";
const ACTIVE: &str = "sessions_active";
const MAX: &str = "sessions_max";

/// The figures of now, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// P95 of the API's response time.
    pub api_p95_seconds: Option<f64>,
    /// Part of the API's answers that are errors.
    pub errors_ratio: Option<f64>,
    /// Sessions that are open.
    pub sessions_active: Option<f64>,
    /// Sessions that may be open.
    pub sessions_max: Option<f64>,
}

/// A figure with a day: the panels of the API's response time and errors.
#[derive(Clone, Debug, Serialize)]
pub struct DayPanel {
    /// The newest value.
    pub value: Option<f64>,
    /// Against the lines.
    pub state: State,
    /// The lines.
    pub lines: Lines,
    /// The day's chart.
    pub day: chart::DayChart,
}

/// The panel of sessions.
#[derive(Clone, Debug, Serialize)]
pub struct Sessions {
    /// Sessions that are open.
    pub active: Option<f64>,
    /// Sessions that may be open.
    pub max: Option<f64>,
    /// Part of them that is open.
    pub used_ratio: Option<f64>,
    /// Against the lines.
    pub state: State,
    /// The lines, over the part.
    pub lines: Lines,
    /// Today's peak.
    pub peak_today: Option<f64>,
    /// When it was, in milliseconds since 1970.
    pub peak_at_ms: Option<i64>,
    /// When it was, in the configured zone.
    pub peak_at: Option<String>,
}

impl Figures {
    /// The figures of now.
    #[must_use]
    pub fn of(memory: &Memory, sending: &BTreeSet<String>, now: UnixMicros) -> Self {
        let find = |metric| wholes(memory, sending, metric, now);
        let worst = |metric| find(metric).into_iter().reduce(f64::max);
        let sum = |metric| find(metric).into_iter().reduce(|a, b| a + b);
        Self {
            api_p95_seconds: worst(P95).or_else(|| Some(worst(P95_MS)? / 1_000.0)),
            errors_ratio: worst(ERRORS).or_else(|| worst(ERRORS_REQUIRED)),
            sessions_active: sum(ACTIVE),
            sessions_max: sum(MAX),
        }
    }

    /// What the day is fed with.
    pub fn samples(&self) -> impl Iterator<Item = (Figure, f64)> + use<> {
        let all = [
            (Figure::ApiP95, self.api_p95_seconds),
            (Figure::ErrorRate, self.errors_ratio),
            (Figure::Sessions, self.sessions_active),
        ];
        all.into_iter().filter_map(|(figure, value)| Some((figure, value?)))
    }

    pub(super) fn api_p95(&self, of: &Sources<'_>) -> DayPanel {
        day_panel(self.api_p95_seconds, Figure::ApiP95, API_P95, of)
    }

    pub(super) fn error_rate(&self, of: &Sources<'_>) -> DayPanel {
        day_panel(self.errors_ratio, Figure::ErrorRate, ERROR_RATE, of)
    }

    pub(super) fn sessions(&self, of: &Sources<'_>) -> Sessions {
        let used_ratio = self.sessions_active.zip(self.sessions_max).filter(|(_, max)| *max > 0.0);
        let used_ratio = used_ratio.map(|(active, max)| active / max);
        let peak = of.trend.day(Figure::Sessions).and_then(|day| day.peak);
        Sessions {
            active: self.sessions_active,
            max: self.sessions_max,
            used_ratio,
            state: SESSIONS.judge(used_ratio),
            lines: SESSIONS,
            peak_today: peak.map(|peak| peak.value),
            peak_at_ms: peak.map(|peak| peak.at.as_millis()),
            peak_at: peak.map(|peak| of.zone.moment(peak.at, of.now)),
        }
    }
}

fn day_panel(value: Option<f64>, figure: Figure, lines: Lines, of: &Sources<'_>) -> DayPanel {
    DayPanel { value, state: lines.judge(value), lines, day: chart::DayChart::of(of.trend, figure, of.now) }
}

/// The newest values of a metric of nodes that send.
pub(super) fn newest<'a>(
    memory: &'a Memory,
    sending: &'a BTreeSet<String>,
    metric: &'a str,
    now: UnixMicros,
) -> impl Iterator<Item = (&'a str, &'a SeriesKey, f64)> {
    let since = now.minus(FIGURE_PRESENT).as_millis();
    let nodes = memory.nodes.keys().filter(|node| sending.contains(node.as_str()));
    nodes.flat_map(move |node| {
        memory.head.newest(node, metric, since).map(move |(key, value)| (node.as_str(), key, value))
    })
}

/// One value for each set of labels, whoever looked.
fn wholes(memory: &Memory, sending: &BTreeSet<String>, metric: &str, now: UnixMicros) -> Vec<f64> {
    let mut seen: Vec<(&Labels, f64)> =
        newest(memory, sending, metric, now).map(|(_, key, value)| (&key.labels, value)).collect();
    if seen.is_empty() {
        // What a rule made of a silent node's last words is no present value either.
        let live = |labels: &Labels| labels.get("node").is_none_or(|node| sending.contains(node));
        let of_metric = |labels: &Labels| labels.get("__name__").is_some_and(|name| name == metric);
        let recorded = memory.recorded.iter().map(|sample| (&sample.labels, sample.value));
        seen.extend(recorded.filter(|(labels, _)| of_metric(labels) && live(labels)));
    }
    let mut found: BTreeMap<Labels, f64> = BTreeMap::new();
    for (labels, value) in seen.into_iter().filter(|(_, value)| value.is_finite()) {
        let mut labels = labels.clone();
        labels.retain(|name, _| name != "node" && name != "__name__");
        let known = found.entry(labels).or_insert(value);
        *known = known.max(value);
    }
    found.into_values().collect()
}
