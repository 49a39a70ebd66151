//! Where samples come from. The store implements [`Source`]; the evaluator and its tests only know
//! the trait.
//!
//! Takes a selector and a time; gives samples. A source answers from memory and never waits.

use std::time::Duration;

use diarwatch_shared::schema::Labels;
use promql_parser::label::{METRIC_NAME, MatchOp, Matcher};
use promql_parser::parser::VectorSelector;

/// A value of a series at the time of evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The labels; the metric's name is `__name__`.
    pub labels: Labels,
    /// The value.
    pub value: f64,
}

/// A value and when it was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The value.
    pub value: f64,
}

/// The samples of one series, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The labels; the metric's name is `__name__`.
    pub labels: Labels,
    /// The samples, in order of time.
    pub points: Vec<Point>,
}

/// What expressions select from.
pub trait Source {
    /// The newest sample of each matching series in (at - lookback, at].
    fn instant(&self, selector: &Selector<'_>, at_ms: i64, lookback: Duration) -> Vec<Sample>;
    /// All samples of each matching series in (at - range, at]; a series without one is left out.
    fn range(&self, selector: &Selector<'_>, at_ms: i64, range: Duration) -> Vec<Series>;
}

/// Which series are meant.
#[derive(Clone, Copy, Debug)]
pub struct Selector<'a> {
    name: Option<&'a str>,
    matchers: &'a [Matcher],
}

impl<'a> Selector<'a> {
    /// All series of a metric.
    #[must_use]
    pub fn named(name: &'a str) -> Self {
        Self { name: Some(name), matchers: &[] }
    }

    pub(in crate::rules) fn of(selector: &'a VectorSelector) -> Self {
        Self { name: selector.name.as_deref(), matchers: &selector.matchers.matchers }
    }

    /// The one metric that can match, if the selector names one; for a store's index.
    #[must_use]
    pub fn metric_name(&self) -> Option<&'a str> {
        self.name.or_else(|| {
            self.matchers
                .iter()
                .find(|matcher| matcher.name == METRIC_NAME && matches!(matcher.op, MatchOp::Equal))
                .map(|matcher| matcher.value.as_str())
        })
    }

    /// Whether a series matches; `labels` have `__name__`.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_with(|name| labels.get(name).map(String::as_str))
    }

    /// Whether a series matches whose labels (`__name__` too) are read by a function, for stores
    /// that keep name and labels apart. A label that is not there is an empty one.
    pub fn matches_with<'l>(&self, value_of: impl Fn(&str) -> Option<&'l str>) -> bool {
        let get = |name: &str| value_of(name).unwrap_or_default();
        self.name.is_none_or(|name| get(METRIC_NAME) == name)
            && self.matchers.iter().all(|matcher| matcher.is_match(get(&matcher.name)))
    }

    /// The labels that `absent` gives: those of `=` matchers, each named once.
    pub(super) fn equal_labels(&self) -> Labels {
        let times = |name: &str| self.matchers.iter().filter(|matcher| matcher.name == name).count();
        self.matchers
            .iter()
            .filter(|matcher| matcher.name != METRIC_NAME && matches!(matcher.op, MatchOp::Equal))
            .filter(|matcher| !matcher.value.is_empty() && times(&matcher.name) == 1)
            .map(|matcher| (matcher.name.clone(), matcher.value.clone()))
            .collect()
    }
}
