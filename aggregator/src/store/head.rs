//! The recent window in memory, at full resolution: what rules and the page read.
//!
//! Takes decoded frames; gives samples through the rules' [`Source`]. A missing reading leaves a
//! mark, so that the series ends there instead of showing its last value. Bounded per node in series
//! and per series in points; what passes a bound is counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::frame::Body;
use diarwatch_shared::limits::SERIES_MAX;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::schema::{Labels, Schema, SeriesKey};

use crate::rules::eval::{Point, Sample, Selector, Series, Source};

/// Points of one series; some 27 min at 10 Hz.
pub const POINTS_MAX: usize = 16_384;
/// Series of one node, old schemas included.
pub const NODE_SERIES_MAX: usize = 2 * SERIES_MAX;

#[derive(Clone, Copy, Debug)]
struct Mark {
    at_ms: i64,
    /// `None`: the reading was missing.
    value: Option<f64>,
}

/// What the head dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Samples of series beyond [`NODE_SERIES_MAX`].
    pub series: u64,
    /// Samples older than the window.
    pub late: u64,
}

/// The recent window of all nodes.
#[derive(Debug)]
pub struct Head {
    window: Duration,
    nodes: BTreeMap<NodeId, BTreeMap<SeriesKey, VecDeque<Mark>>>,
    dropped: Dropped,
}

impl Head {
    /// A head that keeps `window`.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self { window, nodes: BTreeMap::new(), dropped: Dropped::default() }
    }

    /// What was dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Series in memory.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.nodes.values().map(BTreeMap::len).sum()
    }

    /// Takes a node's frame that arrived at `arrived`; no sample is later than that.
    pub fn insert(&mut self, node: &NodeId, schema: &Schema, body: &Body, arrived: UnixMicros) {
        let oldest = arrived.minus(self.window).as_millis();
        let Self { nodes, dropped, .. } = self;
        let store = nodes.entry(node.clone()).or_default();
        for (def, group) in schema.groups.iter().zip(&body.groups) {
            for (series, column) in def.series.iter().zip(&group.columns) {
                let Some(marks) = room(store, &series.key) else {
                    dropped.series += column.len() as u64;
                    continue;
                };
                let times = group.times.iter().map(|time| (*time).min(arrived).as_millis());
                for (at_ms, reading) in times.zip(column) {
                    dropped.late +=
                        u64::from(!put_if_after(marks, oldest, Mark { at_ms, value: reading.ok() }));
                }
            }
        }
    }

    /// Forgets what is older than the window, and series that are empty then.
    pub fn trim(&mut self, now: UnixMicros) {
        let oldest = now.minus(self.window).as_millis();
        for series in self.nodes.values_mut() {
            series.retain(|_, marks| {
                while marks.front().is_some_and(|mark| mark.at_ms <= oldest) {
                    marks.pop_front();
                }
                !marks.is_empty()
            });
        }
    }

    /// The newest value of each of a node's series of a metric, if it is not missing and later than `since_ms`.
    pub fn newest<'a>(
        &'a self,
        node: &NodeId,
        metric: &'a str,
        since_ms: i64,
    ) -> impl Iterator<Item = (&'a SeriesKey, f64)> {
        let series = self.nodes.get(node).into_iter().flat_map(move |series| of_metric(series, metric));
        let value = move |marks: &VecDeque<Mark>| marks.back().filter(|mark| mark.at_ms > since_ms)?.value;
        series.filter_map(move |(key, marks)| Some((key, value(marks)?)))
    }

    fn matching<'a>(
        &'a self,
        selector: &'a Selector<'_>,
    ) -> impl Iterator<Item = (Labels, &'a VecDeque<Mark>)> {
        self.nodes.iter().flat_map(move |(node, series)| {
            let candidates: Box<dyn Iterator<Item = (&SeriesKey, &VecDeque<Mark>)>> =
                match selector.metric_name() {
                    Some(metric) => Box::new(of_metric(series, metric)),
                    None => Box::new(series.iter()),
                };
            candidates.filter_map(move |(key, marks)| {
                let value_of = |name: &str| match name {
                    "__name__" => Some(key.metric.as_str()),
                    "node" => Some(node.as_str()),
                    _ => key.labels.get(name).map(String::as_str),
                };
                selector.matches_with(value_of).then(|| (labels_of(node, key), marks))
            })
        })
    }
}

impl Source for Head {
    fn instant(&self, selector: &Selector<'_>, at_ms: i64, lookback: Duration) -> Vec<Sample> {
        let after = at_ms.saturating_sub(millis(lookback));
        let newest = |marks: &VecDeque<Mark>| {
            let end = marks.partition_point(|mark| mark.at_ms <= at_ms);
            marks.get(end.checked_sub(1)?).filter(|mark| mark.at_ms > after)?.value
        };
        self.matching(selector)
            .filter_map(|(labels, marks)| Some(Sample { labels, value: newest(marks)? }))
            .collect()
    }

    fn range(&self, selector: &Selector<'_>, at_ms: i64, range: Duration) -> Vec<Series> {
        let after = at_ms.saturating_sub(millis(range));
        let inside = |marks: &VecDeque<Mark>| -> Vec<Point> {
            let from = marks.partition_point(|mark| mark.at_ms <= after);
            let points = marks.iter().skip(from).take_while(|mark| mark.at_ms <= at_ms);
            points.filter_map(|mark| Some(Point { at_ms: mark.at_ms, value: mark.value? })).collect()
        };
        let series = self.matching(selector).map(|(labels, marks)| Series { labels, points: inside(marks) });
        series.filter(|series| !series.points.is_empty()).collect()
    }
}

/// The marks of a series; `None` when the node has too many series for a new one.
fn room<'a>(
    store: &'a mut BTreeMap<SeriesKey, VecDeque<Mark>>,
    key: &SeriesKey,
) -> Option<&'a mut VecDeque<Mark>> {
    if !store.contains_key(key) {
        if store.len() >= NODE_SERIES_MAX {
            return None;
        }
        store.insert(key.clone(), VecDeque::new());
    }
    store.get_mut(key)
}

fn put_if_after(marks: &mut VecDeque<Mark>, oldest: i64, mark: Mark) -> bool {
    let inside = mark.at_ms > oldest;
    if inside {
        put(marks, mark);
    }
    inside
}

/// In order of time; a second value of one instant replaces the first.
fn put(marks: &mut VecDeque<Mark>, mark: Mark) {
    let at = marks.partition_point(|known| known.at_ms <= mark.at_ms);
    match at.checked_sub(1).and_then(|before| marks.get_mut(before)).filter(|known| known.at_ms == mark.at_ms)
    {
        Some(known) => *known = mark,
        None => marks.insert(at, mark),
    }
    if marks.len() > POINTS_MAX {
        marks.pop_front();
    }
}

fn of_metric<'a>(
    series: &'a BTreeMap<SeriesKey, VecDeque<Mark>>,
    metric: &'a str,
) -> impl Iterator<Item = (&'a SeriesKey, &'a VecDeque<Mark>)> {
    let first = SeriesKey { metric: metric.to_owned(), labels: Labels::new() };
    series.range(first..).take_while(move |(key, _)| key.metric == metric)
}

/// The labels of a series with its name and node. `node` is the certificate's, whatever the frame says.
fn labels_of(node: &NodeId, key: &SeriesKey) -> Labels {
    let mut labels = key.labels.clone();
    labels.insert("__name__".to_owned(), key.metric.clone());
    labels.insert("node".to_owned(), node.to_string());
    labels
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::frame::Group;
    use diarwatch_shared::reading::{Missing, Reading};
    use diarwatch_shared::schema::{GroupDef, SeriesDef};

    const NOW: UnixMicros = UnixMicros(1_000_000_000);
    const LOOKBACK: Duration = Duration::from_secs(300);

    fn node() -> NodeId {
        NodeId::new("gpu-01").unwrap()
    }

    fn insert(head: &mut Head, readings: &[(u64, Reading)]) {
        let key = SeriesKey::new("m", &[("node", "someone-else"), ("gpu", "0")]);
        let schema = Schema::new(vec![GroupDef { name: "g".into(), series: vec![SeriesDef::of(key)] }]);
        let times = readings.iter().map(|(at, _)| UnixMicros(*at)).collect();
        let columns = vec![readings.iter().map(|(_, reading)| *reading).collect()];
        head.insert(&node(), &schema, &Body { groups: vec![Group { times, columns }] }, NOW);
    }

    fn value(head: &Head) -> Option<f64> {
        head.instant(&Selector::named("m"), NOW.as_millis(), LOOKBACK).first().map(|sample| sample.value)
    }

    #[test]
    fn the_node_label_is_the_certificates() {
        let mut head = Head::new(Duration::from_secs(900));
        insert(&mut head, &[(NOW.0 - 1_000, Ok(1.0))]);
        let samples = head.instant(&Selector::named("m"), NOW.as_millis(), LOOKBACK);
        assert_eq!(samples[0].labels["node"], "gpu-01");
    }

    #[test]
    fn a_missing_reading_ends_the_series_until_the_next_value() {
        let mut head = Head::new(Duration::from_secs(900));
        insert(&mut head, &[(NOW.0 - 9_000, Ok(1.0)), (NOW.0 - 5_000, Err(Missing::Lost))]);
        assert_eq!(value(&head), None);
        insert(&mut head, &[(NOW.0 - 2_000, Ok(2.0))]);
        assert_eq!(value(&head), Some(2.0));
    }

    #[test]
    fn a_late_frame_fills_history_and_changes_nothing_now() {
        let mut head = Head::new(Duration::from_secs(900));
        insert(&mut head, &[(NOW.0 - 1_000, Ok(9.0))]);
        insert(&mut head, &[(NOW.0 - 60_000_000, Ok(1.0))]);
        assert_eq!(value(&head), Some(9.0));
        let range = head.range(&Selector::named("m"), NOW.as_millis(), LOOKBACK);
        assert_eq!(range[0].points.iter().map(|point| point.value).collect::<Vec<_>>(), [1.0, 9.0]);
    }

    #[test]
    fn a_sample_of_the_future_counts_from_its_arrival() {
        let mut head = Head::new(Duration::from_secs(900));
        insert(&mut head, &[(NOW.0 + 3_600_000_000, Ok(5.0))]);
        assert_eq!(value(&head), Some(5.0));
    }

    #[test]
    fn what_leaves_the_window_is_forgotten() {
        let mut head = Head::new(Duration::from_secs(60));
        insert(&mut head, &[(NOW.0 - 61_000_000, Ok(1.0)), (NOW.0 - 1_000, Ok(2.0))]);
        assert_eq!(head.dropped().late, 1);
        head.trim(NOW.plus(Duration::from_secs(120)));
        assert_eq!(head.series_count(), 0);
    }
}
