//! Evaluates a checked expression at one instant, as Prometheus 3 does.
//!
//! Takes a [`Query`], a [`Source`] and a time; gives a value or the reason why there is none. Pure:
//! same samples, same result. Work is bounded by [`EVALUATION_SAMPLES_MAX`].

mod aggregate;
mod binary;
mod error;
mod functions;
mod matching;
mod operator;
mod range;
mod source;
mod sum;
#[cfg(test)]
pub(in crate::rules) mod testing;

use std::cell::Cell;
use std::time::Duration;

use diarwatch_shared::schema::Labels;
use promql_parser::label::METRIC_NAME;
use promql_parser::parser::{Expr, MatrixSelector, Offset, VectorSelector};

pub use self::aggregate::AGGREGATIONS;
pub use self::error::EvalError;
pub(super) use self::error::distinct;
pub use self::functions::FUNCTIONS;
pub(super) use self::operator::operator;
pub use self::source::{Point, Sample, Selector, Series, Source};
use super::promql::Query;

/// Samples that one evaluation of one expression may read.
pub const EVALUATION_SAMPLES_MAX: usize = 10_000_000;

/// What an expression gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Samples with distinct labels.
    Vector(Vec<Sample>),
    /// A number.
    Scalar(f64),
    /// A text.
    String(String),
}

/// Evaluates an expression; a series counts while its newest sample is younger than `lookback`.
///
/// # Errors
/// When series cannot be matched without guessing, or too many samples are selected.
pub fn instant(
    query: &Query,
    source: &dyn Source,
    at_ms: i64,
    lookback: Duration,
) -> Result<Value, EvalError> {
    Evaluator { source, at_ms, lookback, touched: Cell::new(0) }.value(query.expr())
}

/// One evaluation under way.
struct Evaluator<'a> {
    source: &'a dyn Source,
    at_ms: i64,
    lookback: Duration,
    touched: Cell<usize>,
}

impl Evaluator<'_> {
    fn value(&self, expr: &Expr) -> Result<Value, EvalError> {
        match expr {
            Expr::NumberLiteral(number) => Ok(Value::Scalar(number.val)),
            Expr::StringLiteral(text) => Ok(Value::String(text.val.clone())),
            Expr::Paren(paren) => self.value(&paren.expr),
            Expr::Unary(unary) => match self.value(&unary.expr)? {
                Value::Scalar(number) => Ok(Value::Scalar(-number)),
                Value::Vector(samples) => map(samples, |value| -value).map(Value::Vector),
                Value::String(_) => Err(unsupported("minus before a text")),
            },
            Expr::Binary(binary) => {
                let op = operator(binary.op).ok_or_else(|| unsupported(&binary.op.to_string()))?;
                let (left, right) = (self.value(&binary.lhs)?, self.value(&binary.rhs)?);
                binary::binary(op, left, right, binary.modifier.as_ref())
            }
            Expr::Aggregate(aggregate) => {
                let samples = self.vector(&aggregate.expr)?;
                aggregate::aggregate(aggregate.op, &samples, aggregate.modifier.as_ref()).map(Value::Vector)
            }
            Expr::VectorSelector(selector) => self.select(selector).map(Value::Vector),
            Expr::Call(call) => self.call(call),
            Expr::MatrixSelector(_) | Expr::Subquery(_) | Expr::Extension(_) => {
                Err(unsupported("a range outside of a function"))
            }
        }
    }

    fn vector(&self, expr: &Expr) -> Result<Vec<Sample>, EvalError> {
        match self.value(expr)? {
            Value::Vector(samples) => Ok(samples),
            _ => Err(unsupported("a number or text in place of a vector")),
        }
    }

    fn scalar(&self, expr: &Expr) -> Result<f64, EvalError> {
        match self.value(expr)? {
            Value::Scalar(number) => Ok(number),
            _ => Err(unsupported("a vector or text in place of a number")),
        }
    }

    fn select(&self, selector: &VectorSelector) -> Result<Vec<Sample>, EvalError> {
        let at_ms = shifted(self.at_ms, selector.offset.as_ref());
        let samples = self.source.instant(&Selector::of(selector), at_ms, self.lookback);
        self.touch(samples.len())?;
        Ok(samples)
    }

    /// The series of a range and the end of the range.
    fn select_range(&self, matrix: &MatrixSelector) -> Result<(Vec<Series>, i64), EvalError> {
        let end_ms = shifted(self.at_ms, matrix.vs.offset.as_ref());
        let series = self.source.range(&Selector::of(&matrix.vs), end_ms, matrix.range);
        self.touch(series.iter().map(|series| series.points.len()).sum())?;
        Ok((series, end_ms))
    }

    fn touch(&self, samples: usize) -> Result<(), EvalError> {
        let touched = self.touched.get().saturating_add(samples);
        self.touched.set(touched);
        if touched > EVALUATION_SAMPLES_MAX { Err(EvalError::TooManySamples) } else { Ok(()) }
    }
}

/// A duration in milliseconds.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn shifted(at_ms: i64, offset: Option<&Offset>) -> i64 {
    match offset {
        Some(Offset::Pos(back)) => at_ms.saturating_sub(millis(*back)),
        Some(Offset::Neg(ahead)) => at_ms.saturating_add(millis(*ahead)),
        None => at_ms,
    }
}

/// New values without the metric's name, which would not be true of them.
fn map(mut samples: Vec<Sample>, change: impl Fn(f64) -> f64) -> Result<Vec<Sample>, EvalError> {
    for sample in &mut samples {
        sample.value = change(sample.value);
        sample.labels.remove(METRIC_NAME);
    }
    distinct(samples.iter().map(|sample| &sample.labels))?;
    Ok(samples)
}

fn without_name(mut labels: Labels) -> Labels {
    labels.remove(METRIC_NAME);
    labels
}

fn unsupported(what: &str) -> EvalError {
    EvalError::Unsupported(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::testing::{Memory, eval, eval_at, lines, vector};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_matchers_select_as_prometheus_does() {
        let memory = Memory::of(&["up{service=\"a\"} 1", "up{service=\"ab\"} 2", "up 3"]);
        for (expr, values) in [
            ("up", vec![1.0, 2.0, 3.0]),
            ("up{service=\"a\"}", vec![1.0]),
            ("up{service!=\"a\"}", vec![2.0, 3.0]),
            ("up{service=~\"a\"}", vec![1.0]),
            ("up{service=~\"a.*\"}", vec![1.0, 2.0]),
            ("up{service=~\"a|b\"}", vec![1.0]),
            ("up{service!~\"a.+\"}", vec![1.0, 3.0]),
            ("up{service=\"\"}", vec![3.0]),
            ("{__name__=~\"u.\"}", vec![1.0, 2.0, 3.0]),
            ("down", vec![]),
        ] {
            let mut found: Vec<f64> = vector(&memory, expr).into_iter().map(|sample| sample.value).collect();
            found.sort_by(f64::total_cmp);
            assert_eq!(found, values, "{expr}");
        }
    }

    #[test]
    fn a_dot_matches_line_breaks_as_in_prometheus_3() {
        let mut memory = Memory::default();
        let labels = [("__name__", "up"), ("service", "a\nb")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        memory.push(labels.into(), 0, 1.0);
        assert_eq!(vector(&memory, "up{service=~\"a.b\"}").len(), 1);
    }

    #[test]
    fn an_offset_looks_back_and_a_sample_ages_out_of_the_lookback() {
        let memory = Memory::of(&["up 1 2 3"]);
        assert_eq!(
            eval_at(&memory, "up", 120_000).unwrap(),
            eval_at(&memory, "up offset -1m", 60_000).unwrap()
        );
        let one = vec![Sample { labels: Labels::from([("__name__".into(), "up".into())]), value: 1.0 }];
        assert_eq!(eval_at(&memory, "up offset 2m", 120_000).unwrap(), Value::Vector(one));
        assert_eq!(
            eval_at(&memory, "up", 120_000 + 299_999).unwrap(),
            eval_at(&memory, "up", 120_000).unwrap()
        );
        assert_eq!(eval_at(&memory, "up", 120_000 + 300_000).unwrap(), Value::Vector(vec![]));
    }

    #[test]
    fn minus_binds_less_than_power_and_drops_the_name() {
        let memory = Memory::of(&["up 2"]);
        assert_eq!(eval(&memory, "-2 ^ 2").unwrap(), Value::Scalar(-4.0));
        let expected = vec![Sample { labels: Labels::new(), value: -2.0 }];
        assert_eq!(eval(&memory, "-up").unwrap(), Value::Vector(expected));
    }

    #[test]
    fn two_results_that_lost_what_told_them_apart_are_an_error() {
        let memory = Memory::of(&["a 1", "b 2"]);
        let error = eval(&memory, "-{__name__=~\"a|b\"}").unwrap_err();
        assert!(matches!(error, EvalError::SameLabels(_)), "{error}");
    }

    #[test]
    fn the_deepest_tree_that_loads_can_be_evaluated_on_a_small_stack() {
        let work = || {
            let memory = Memory::of(&["up 2"]);
            let deep = format!("{}up{}", "-(".repeat(49), ")".repeat(49));
            assert_eq!(lines(&memory, &deep), ["{} -2"]);
            assert_eq!(lines(&memory, &vec!["up"; 100].join(" + ")), ["{} 200"]);
        };
        std::thread::Builder::new().stack_size(1024 * 1024).spawn(work).unwrap().join().unwrap();
    }

    #[test]
    fn an_expression_that_selects_too_much_is_stopped() {
        struct Endless;
        impl Source for Endless {
            fn instant(&self, _: &Selector<'_>, _: i64, _: Duration) -> Vec<Sample> {
                vec![Sample { labels: Labels::new(), value: 1.0 }; EVALUATION_SAMPLES_MAX / 2 + 1]
            }
            fn range(&self, _: &Selector<'_>, _: i64, _: Duration) -> Vec<Series> {
                Vec::new()
            }
        }
        let query = Query::parse("sum(a) + sum(a)").unwrap();
        assert_eq!(instant(&query, &Endless, 0, Duration::ZERO), Err(EvalError::TooManySamples));
    }

    proptest! {
        #[test]
        fn whatever_loads_is_evaluated_without_a_panic(text in expression()) {
            let memory = Memory::of(&["a{x=\"1\"} 1 2 0 NaN", "a{x=\"2\"} 3 4 5", "b{x=\"1\"} 6 7 8", "b 0 0 1"]);
            if let Ok(query) = Query::parse(&text) {
                let result = instant(&query, &memory, 120_000, Duration::from_secs(300));
                prop_assert!(!matches!(result, Err(EvalError::Unsupported(_))), "{}: {:?}", text, result);
            }
        }
    }

    fn expression() -> impl Strategy<Value = String> {
        let leaf = proptest::sample::select(vec!["a", "b", "1", "0.5", "a{x=\"1\"}", "nothing", "time()"])
            .prop_map(String::from);
        leaf.prop_recursive(4, 24, 2, |inner| {
            let op = proptest::sample::select(vec![
                "+",
                "-",
                "*",
                "/",
                "%",
                "^",
                "==",
                "> bool",
                "<",
                "and",
                "or",
                "unless",
                "/ on(x)",
                "* ignoring(x)",
                "+ on(x) group_left",
                "- ignoring(x) group_right(y)",
                "atan2",
            ]);
            let call = proptest::sample::select(vec![
                "sum(",
                "max by (x) (",
                "count without (x) (",
                "absent(",
                "round(",
                "scalar(",
                "vector(",
                "-(",
                "avg(",
                "rate(a[2m]) + (",
                "max_over_time(b[5m]) or (",
                "clamp_min(a, 1) and (",
            ]);
            prop_oneof![
                (inner.clone(), op, inner.clone()).prop_map(|(l, op, r)| format!("({l}) {op} ({r})")),
                (call, inner).prop_map(|(call, arg)| format!("{call}{arg})")),
            ]
        })
    }
}
