//! The recent window in memory, at full resolution: what rules and the page read.
//!
//! Takes decoded frames; gives samples through the rules' [`Source`]. A missing reading leaves a
//! mark, so that the series ends there instead of showing its last value. What comes with the backlog
//! is history: until a live reading is behind it, it is not seen, so that no alert fires from it.
//! Bounded per node in series and points and per series in points; what passes a bound is counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::frame::Body;
use diarwatch_shared::limits::SERIES_MAX;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::{Labels, Schema, SeriesKey};

use crate::rules::eval::{Point, Sample, Selector, Series, Source};

/// Points of one series; some 27 min at 10 Hz.
pub const POINTS_MAX: usize = 16_384;
/// Series of one node, old schemas included.
pub const NODE_SERIES_MAX: usize = 2 * SERIES_MAX;
/// Points of one node, 24 bytes each; eight GPUs at 10 Hz have half a million in 15 min.
pub const NODE_POINTS_MAX: usize = 4 << 20;
/// A point further ahead than this is of a clock that went back since; it is forgotten.
const AHEAD_MAX: Duration = Duration::from_secs(10);

/// A reading and how it came: one byte and a value, since there are millions of them.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Live(f64),
    LiveMissing(Missing),
    Late(f64),
    LateMissing(Missing),
}

impl Seen {
    fn new(reading: Reading, live: bool) -> Self {
        match (reading, live) {
            (Ok(value), true) => Self::Live(value),
            (Err(missing), true) => Self::LiveMissing(missing),
            (Ok(value), false) => Self::Late(value),
            (Err(missing), false) => Self::LateMissing(missing),
        }
    }

    fn reading(self) -> Reading {
        match self {
            Self::Live(value) | Self::Late(value) => Ok(value),
            Self::LiveMissing(missing) | Self::LateMissing(missing) => Err(missing),
        }
    }

    fn is_live(self) -> bool {
        matches!(self, Self::Live(_) | Self::LiveMissing(_))
    }
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at_ms: i64,
    seen: Seen,
}

/// What the head dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Samples of series beyond [`NODE_SERIES_MAX`].
    pub series: u64,
    /// Samples older than the window.
    pub late: u64,
    /// Oldest samples of a series or node that had too many.
    pub points: u64,
}

#[derive(Debug, Default)]
struct NodeSeries {
    series: BTreeMap<SeriesKey, VecDeque<Mark>>,
    points: usize,
}

/// The recent window of all nodes.
#[derive(Debug)]
pub struct Head {
    window: Duration,
    nodes: BTreeMap<NodeId, NodeSeries>,
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
        self.nodes.values().map(|node| node.series.len()).sum()
    }

    /// Takes a node's frame that arrived at `arrived`; no sample is later than that. What is not
    /// `live` is of the backlog.
    pub fn insert(&mut self, node: &NodeId, schema: &Schema, body: &Body, arrived: UnixMicros, live: bool) {
        let oldest = arrived.minus(self.window).as_millis();
        let Self { nodes, dropped, .. } = self;
        let store = nodes.entry(node.clone()).or_default();
        for (def, group) in schema.groups.iter().zip(&body.groups) {
            for (series, column) in def.series.iter().zip(&group.columns) {
                let Some(marks) = room(&mut store.series, &series.key) else {
                    dropped.series += column.len() as u64;
                    continue;
                };
                let times = group.times.iter().map(|time| (*time).min(arrived).as_millis());
                for (at_ms, reading) in times.zip(column).filter(|(at_ms, _)| *at_ms > oldest) {
                    let mark = Mark { at_ms, seen: Seen::new(*reading, live) };
                    dropped.points += u64::from(put_bounded(marks, &mut store.points, mark));
                }
                let late = |time: &&UnixMicros| (**time).min(arrived).as_millis() <= oldest;
                dropped.late += group.times.iter().filter(late).count() as u64;
            }
        }
    }

    /// Forgets what is older than the window (or of a clock that has gone back since), and series
    /// that are empty then.
    pub fn trim(&mut self, now: UnixMicros) {
        let oldest = now.minus(self.window).as_millis();
        let newest = now.plus(AHEAD_MAX).as_millis();
        for node in self.nodes.values_mut() {
            node.series.retain(|_, marks| {
                while marks.front().is_some_and(|mark| mark.at_ms <= oldest) {
                    marks.pop_front();
                }
                while marks.back().is_some_and(|mark| mark.at_ms > newest) {
                    marks.pop_back();
                }
                !marks.is_empty()
            });
            node.points = node.series.values().map(VecDeque::len).sum();
        }
    }

    /// The newest value of each of a node's series of a metric, if it is not missing and later than `since_ms`.
    pub fn newest<'a>(
        &'a self,
        node: &NodeId,
        metric: &'a str,
        since_ms: i64,
    ) -> impl Iterator<Item = (&'a SeriesKey, f64)> {
        self.newest_readings(node, metric, since_ms).filter_map(|(key, reading)| Some((key, reading.ok()?)))
    }

    /// The newest reading of each of a node's series of a metric that is later than `since_ms`: a value,
    /// or why there is none.
    pub fn newest_readings<'a>(
        &'a self,
        node: &NodeId,
        metric: &'a str,
        since_ms: i64,
    ) -> impl Iterator<Item = (&'a SeriesKey, Reading)> {
        let series = self.nodes.get(node).into_iter().flat_map(move |node| of_metric(&node.series, metric));
        series.filter_map(move |(key, marks)| Some((key, newest(marks, i64::MAX, since_ms)?)))
    }

    /// What is seen of each of a node's series of a metric later than `since_ms`, in order of time.
    pub fn readings<'a>(
        &'a self,
        node: &NodeId,
        metric: &'a str,
        since_ms: i64,
    ) -> impl Iterator<Item = (&'a SeriesKey, impl Iterator<Item = (i64, Reading)> + use<'a>)> {
        let series = self.nodes.get(node).into_iter().flat_map(move |node| of_metric(&node.series, metric));
        series.map(move |(key, marks)| {
            let from = marks.partition_point(|mark| mark.at_ms <= since_ms);
            let seen = marks.range(from..visible(marks).max(from));
            (key, seen.map(|mark| (mark.at_ms, mark.seen.reading())))
        })
    }

    fn matching<'a>(
        &'a self,
        selector: &'a Selector<'_>,
    ) -> impl Iterator<Item = (Labels, &'a VecDeque<Mark>)> {
        self.nodes.iter().flat_map(move |(node, NodeSeries { series, .. })| {
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
        self.matching(selector)
            .filter_map(|(labels, marks)| Some(Sample { labels, value: newest(marks, at_ms, after)?.ok()? }))
            .collect()
    }

    fn range(&self, selector: &Selector<'_>, at_ms: i64, range: Duration) -> Vec<Series> {
        let after = at_ms.saturating_sub(millis(range));
        let inside = |marks: &VecDeque<Mark>| -> Vec<Point> {
            let from = marks.partition_point(|mark| mark.at_ms <= after);
            let points = marks.iter().take(visible(marks)).skip(from).take_while(|mark| mark.at_ms <= at_ms);
            points
                .filter_map(|mark| Some(Point { at_ms: mark.at_ms, value: mark.seen.reading().ok()? }))
                .collect()
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

/// How many marks are seen: those up to the newest live one. What the backlog put behind it says
/// nothing of now.
fn visible(marks: &VecDeque<Mark>) -> usize {
    marks.iter().rposition(|mark| mark.seen.is_live()).map_or(0, |at| at + 1)
}

/// The newest reading that is seen in (after, at].
fn newest(marks: &VecDeque<Mark>, at_ms: i64, after_ms: i64) -> Option<Reading> {
    let end = marks.partition_point(|mark| mark.at_ms <= at_ms).min(visible(marks));
    let mark = marks.get(end.checked_sub(1)?).filter(|mark| mark.at_ms > after_ms)?;
    Some(mark.seen.reading())
}

/// Puts a mark and takes the oldest of its series out when there are too many; whether it did.
fn put_bounded(marks: &mut VecDeque<Mark>, points: &mut usize, mark: Mark) -> bool {
    *points += usize::from(put(marks, mark));
    let full = marks.len() > POINTS_MAX || *points > NODE_POINTS_MAX;
    if full {
        *points -= usize::from(marks.pop_front().is_some());
    }
    full
}

/// In order of time; a second value of one instant replaces the first. Whether there is one more now.
fn put(marks: &mut VecDeque<Mark>, mark: Mark) -> bool {
    let at = marks.partition_point(|known| known.at_ms <= mark.at_ms);
    let known = at.checked_sub(1).and_then(|before| marks.get_mut(before));
    match known.filter(|known| known.at_ms == mark.at_ms) {
        Some(known) => {
            *known = mark;
            false
        }
        None => {
            marks.insert(at, mark);
            true
        }
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
    use diarwatch_shared::schema::{GroupDef, SeriesDef};

    const NOW: UnixMicros = UnixMicros(1_000_000_000);
    const LOOKBACK: Duration = Duration::from_secs(300);

    fn node() -> NodeId {
        NodeId::new("gpu-01").unwrap()
    }

    fn insert(head: &mut Head, readings: &[(u64, Reading)]) {
        insert_as(head, readings, true);
    }

    fn insert_as(head: &mut Head, readings: &[(u64, Reading)], live: bool) {
        let key = SeriesKey::new("m", &[("node", "someone-else"), ("gpu", "0")]);
        let schema = Schema::new(vec![GroupDef { name: "g".into(), series: vec![SeriesDef::of(key)] }]);
        let times = readings.iter().map(|(at, _)| UnixMicros(*at)).collect();
        let columns = vec![readings.iter().map(|(_, reading)| *reading).collect()];
        head.insert(&node(), &schema, &Body { groups: vec![Group { times, columns }] }, NOW, live);
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
    fn the_last_readings_are_in_order_with_their_gaps_and_without_the_backlogs_tail() {
        let mut head = Head::new(Duration::from_secs(900));
        insert(&mut head, &[(NOW.0 - 9_000_000, Ok(1.0)), (NOW.0 - 4_000_000, Err(Missing::Lost))]);
        insert(&mut head, &[(NOW.0 - 2_000_000, Ok(2.0))]);
        insert_as(&mut head, &[(NOW.0 - 1_000_000, Ok(9.0))], false);
        let since = |ago_ms: i64| -> Vec<Vec<Reading>> {
            let at = NOW.as_millis() - ago_ms;
            let node = node();
            let all = head.readings(&node, "m", at);
            all.map(|(_, readings)| readings.map(|(_, reading)| reading).collect()).collect()
        };
        assert_eq!(since(5_000), [[Err(Missing::Lost), Ok(2.0)]]);
        assert_eq!(since(60_000), [[Ok(1.0), Err(Missing::Lost), Ok(2.0)]]);
        assert_eq!(since(500), [[]; 1], "nothing, and no panic");
    }

    #[test]
    fn what_leaves_the_window_is_forgotten() {
        let mut head = Head::new(Duration::from_secs(60));
        insert(&mut head, &[(NOW.0 - 61_000_000, Ok(1.0)), (NOW.0 - 1_000, Ok(2.0))]);
        assert_eq!(head.dropped().late, 1);
        head.trim(NOW.plus(Duration::from_secs(120)));
        assert_eq!(head.series_count(), 0);
    }

    #[test]
    fn the_backlog_is_history_and_says_nothing_of_now() {
        let mut head = Head::new(Duration::from_secs(900));
        insert_as(&mut head, &[(NOW.0 - 20_000_000, Ok(0.0))], false);
        assert_eq!(value(&head), None, "nothing live yet");
        insert(&mut head, &[(NOW.0 - 60_000_000, Ok(1.0))]);
        assert_eq!(value(&head), Some(1.0), "what was live before the outage stands");
        insert_as(&mut head, &[(NOW.0 - 10_000_000, Err(Missing::Lost))], false);
        assert_eq!(value(&head), Some(1.0));
        insert(&mut head, &[(NOW.0 - 1_000, Ok(2.0))]);
        assert_eq!(value(&head), Some(2.0));
        let range = head.range(&Selector::named("m"), NOW.as_millis(), LOOKBACK);
        let values: Vec<f64> = range[0].points.iter().map(|point| point.value).collect();
        assert_eq!(values, [1.0, 0.0, 2.0], "history is whole");
        let then = NOW.as_millis() - 15_000;
        assert_eq!(head.instant(&Selector::named("m"), then, LOOKBACK)[0].value, 0.0);
    }

    #[test]
    fn a_node_is_bounded_in_points_and_its_newest_values_stay() {
        let mut head = Head::new(Duration::from_secs(900));
        let series = |n: usize| SeriesDef::of(SeriesKey::new("m", &[("n", &n.to_string())]));
        // 512 series of 1,024 ticks in each frame; half of the bound is in one of a tick per series.
        let schema = Schema::new(vec![GroupDef { name: "g".into(), series: (0..512).map(series).collect() }]);
        let mut at = NOW.0 - 800_000_000;
        for frame in 0..9_u32 {
            let times: Vec<UnixMicros> = (0..1_024).map(|tick| UnixMicros(at + tick * 10_000)).collect();
            at += 20_000_000;
            let columns = vec![vec![Ok(f64::from(frame)); times.len()]; 512];
            head.insert(&node(), &schema, &Body { groups: vec![Group { times, columns }] }, NOW, true);
        }
        assert_eq!(head.nodes[&node()].points, NODE_POINTS_MAX);
        assert_eq!(head.dropped().points, 512 * 1_024);
        let newest = head.instant(&Selector::named("m"), NOW.as_millis(), Duration::from_secs(900));
        assert!(newest.len() == 512 && newest.iter().all(|sample| sample.value == 8.0));
        head.trim(NOW.plus(Duration::from_secs(3_600)));
        assert_eq!(head.nodes[&node()].points, 0);
    }

    #[test]
    fn what_a_clock_that_went_back_left_in_the_future_is_forgotten() {
        let mut head = Head::new(Duration::from_secs(900));
        insert(&mut head, &[(NOW.0, Ok(1.0))]);
        let back = NOW.minus(Duration::from_secs(60));
        head.trim(back);
        assert_eq!(head.newest(&node(), "m", i64::MIN).count(), 0);
    }
}
