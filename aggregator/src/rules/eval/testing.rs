//! A source in memory, filled from lines such as `up{service="a"} 1 0 _ 1`: one value a minute from
//! 0, `_` for none. For tests only.

use std::collections::BTreeMap;
use std::time::Duration;

use diarwatch_shared::schema::Labels;
use promql_parser::parser::{self, Expr};

pub(in crate::rules) use super::error::show;
use super::{EvalError, Point, Sample, Selector, Series, Source, Value, instant, millis};
use crate::rules::promql::Query;

/// Between two values of a line, in milliseconds.
const STEP_MS: i64 = 60_000;

/// Series in memory.
#[derive(Clone, Debug, Default)]
pub(in crate::rules) struct Memory(BTreeMap<Labels, Vec<Point>>);

impl Memory {
    pub(in crate::rules) fn of(lines: &[&str]) -> Self {
        Self::every(STEP_MS, lines)
    }

    pub(in crate::rules) fn every(step_ms: i64, lines: &[&str]) -> Self {
        let mut memory = Self::default();
        for line in lines {
            let cut = line.rfind('}').map_or_else(|| line.find(' ').unwrap(), |at| at + 1);
            let Ok(Expr::VectorSelector(selector)) = parser::parse(&line[..cut]) else { panic!("{line}") };
            let mut labels: Labels =
                selector.matchers.matchers.into_iter().map(|matcher| (matcher.name, matcher.value)).collect();
            labels.insert("__name__".into(), selector.name.unwrap());
            for (step, value) in (0..).zip(line[cut..].split_whitespace()) {
                if value != "_" {
                    memory.push(labels.clone(), step * step_ms, value.parse().unwrap());
                }
            }
        }
        memory
    }

    pub(in crate::rules) fn push(&mut self, labels: Labels, at_ms: i64, value: f64) {
        self.0.entry(labels).or_default().push(Point { at_ms, value });
    }
}

impl Source for Memory {
    fn instant(&self, selector: &Selector<'_>, at_ms: i64, lookback: Duration) -> Vec<Sample> {
        let last =
            |series: Series| Some(Sample { labels: series.labels, value: series.points.last()?.value });
        self.range(selector, at_ms, lookback).into_iter().filter_map(last).collect()
    }

    fn range(&self, selector: &Selector<'_>, at_ms: i64, range: Duration) -> Vec<Series> {
        let inside = |point: &&Point| point.at_ms > at_ms - millis(range) && point.at_ms <= at_ms;
        self.0
            .iter()
            .filter(|(labels, _)| selector.matches(labels))
            .map(|(labels, points)| Series {
                labels: labels.clone(),
                points: points.iter().filter(inside).copied().collect(),
            })
            .filter(|series| !series.points.is_empty())
            .collect()
    }
}

pub(in crate::rules) fn eval(memory: &Memory, expr: &str) -> Result<Value, EvalError> {
    eval_at(memory, expr, 0)
}

pub(in crate::rules) fn eval_at(memory: &Memory, expr: &str, at_ms: i64) -> Result<Value, EvalError> {
    let query = Query::parse(expr).unwrap_or_else(|faults| panic!("{expr}: {faults:?}"));
    instant(&query, memory, at_ms, Duration::from_secs(300))
}

pub(in crate::rules) fn vector(memory: &Memory, expr: &str) -> Vec<Sample> {
    let Value::Vector(samples) = eval(memory, expr).unwrap() else { panic!("{expr} gives no vector") };
    samples
}

/// The result as sorted lines, `a{x="1"} 3`.
pub(in crate::rules) fn lines(memory: &Memory, expr: &str) -> Vec<String> {
    lines_at(memory, expr, 0)
}

pub(in crate::rules) fn lines_at(memory: &Memory, expr: &str, at_ms: i64) -> Vec<String> {
    let mut lines: Vec<String> = match eval_at(memory, expr, at_ms).unwrap() {
        Value::Vector(samples) => {
            samples.iter().map(|sample| format!("{} {}", show(&sample.labels), sample.value)).collect()
        }
        Value::Scalar(number) => vec![number.to_string()],
        Value::String(text) => vec![text],
    };
    lines.sort();
    lines
}
