//! The functions of PromQL that are known so far; a new one is a line in [`FUNCTIONS`] and a line in
//! the match below.

use diarwatch_shared::schema::Labels;
use promql_parser::parser::{Call, Expr, MatrixSelector};

use super::{EvalError, Evaluator, Sample, Selector, Value, distinct, map, range, unsupported, without_name};

/// The functions that the evaluator knows.
pub const FUNCTIONS: &[&str] = &[
    "absent",
    "abs",
    "ceil",
    "floor",
    "round",
    "clamp_min",
    "clamp_max",
    "scalar",
    "vector",
    "time",
    "rate",
    "increase",
    "avg_over_time",
    "max_over_time",
    "min_over_time",
    "last_over_time",
    "count_over_time",
    "sum_over_time",
];

/// The step of `round` when none is given.
const ROUND_TO: f64 = 1.0;

impl Evaluator<'_> {
    /// Calls a function.
    pub(super) fn call(&self, call: &Call) -> Result<Value, EvalError> {
        let arg = |index: usize| {
            call.args.args.get(index).map(|arg| &**arg).ok_or_else(|| unsupported("a missing argument"))
        };
        let name = call.func.name;
        let samples = match name {
            "time" => return Ok(Value::Scalar(seconds(self.at_ms))),
            "scalar" => {
                let samples = self.vector(arg(0)?)?;
                let only = if let [only] = samples.as_slice() { only.value } else { f64::NAN };
                return Ok(Value::Scalar(only));
            }
            "vector" => vec![Sample { labels: Labels::new(), value: self.scalar(arg(0)?)? }],
            "absent" => self.absent(arg(0)?)?,
            "abs" => map(self.vector(arg(0)?)?, f64::abs)?,
            "ceil" => map(self.vector(arg(0)?)?, f64::ceil)?,
            "floor" => map(self.vector(arg(0)?)?, f64::floor)?,
            "round" => {
                let to = arg(1).map_or(Ok(ROUND_TO), |arg| self.scalar(arg))?;
                // As Prometheus does: by the inverse, so that tenths come out as tenths.
                let inverse = 1.0 / to;
                map(self.vector(arg(0)?)?, |value| (value * inverse + 0.5).floor() / inverse)?
            }
            "clamp_min" => {
                let bound = self.scalar(arg(1)?)?;
                map(self.vector(arg(0)?)?, |value| nan_or(value, bound, f64::max))?
            }
            "clamp_max" => {
                let bound = self.scalar(arg(1)?)?;
                map(self.vector(arg(0)?)?, |value| nan_or(value, bound, f64::min))?
            }
            _ => self.over_time(name, arg(0)?)?,
        };
        Ok(Value::Vector(samples))
    }

    fn absent(&self, arg: &Expr) -> Result<Vec<Sample>, EvalError> {
        if !self.vector(arg)?.is_empty() {
            return Ok(Vec::new());
        }
        let labels = match bare(arg) {
            Expr::VectorSelector(selector) => Selector::of(selector).equal_labels(),
            _ => Labels::new(),
        };
        Ok(vec![Sample { labels, value: 1.0 }])
    }

    fn over_time(&self, name: &str, arg: &Expr) -> Result<Vec<Sample>, EvalError> {
        let fold = range::fold(name).ok_or_else(|| unsupported(name))?;
        let Expr::MatrixSelector(matrix) = bare(arg) else { return Err(unsupported("a range of something")) };
        let (series, end_ms) = self.select_range(matrix)?;
        let window = window(matrix, end_ms);
        let results: Vec<Sample> = series
            .into_iter()
            .filter_map(|series| {
                let value = fold(&series.points, window)?;
                let keeps_name = name == "last_over_time";
                let labels = if keeps_name { series.labels } else { without_name(series.labels) };
                Some(Sample { labels, value })
            })
            .collect();
        distinct(results.iter().map(|sample| &sample.labels))?;
        Ok(results)
    }
}

fn window(matrix: &MatrixSelector, end_ms: i64) -> range::Window {
    range::Window { end_ms, range: matrix.range }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Paren(paren) => bare(&paren.expr),
        other => other,
    }
}

/// Go's `math.Max` and `math.Min`: a NaN on either side wins.
fn nan_or(left: f64, right: f64, choose: fn(f64, f64) -> f64) -> f64 {
    if left.is_nan() || right.is_nan() { f64::NAN } else { choose(left, right) }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
fn seconds(at_ms: i64) -> f64 {
    at_ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Memory, lines, lines_at};
    use super::*;
    use crate::rules::promql::Query;

    #[test]
    fn absent_tells_what_is_missing() {
        let memory = Memory::of(&["up{service=\"a\"} 1"]);
        assert!(lines(&memory, "absent(up)").is_empty());
        assert_eq!(lines(&memory, "absent(up{service=\"b\",x=~\"y\"})"), ["{service=\"b\"} 1"]);
        assert_eq!(lines(&memory, "absent((up{service=\"b\",service=\"c\"}))"), ["{} 1"]);
        assert_eq!(lines(&memory, "absent(sum(nothing))"), ["{} 1"]);
    }

    #[test]
    fn values_are_shaped_and_lose_their_name() {
        let memory = Memory::of(&["a -1.25"]);
        for (expr, value) in [
            ("abs(a)", "{} 1.25"),
            ("ceil(a)", "{} -1"),
            ("floor(a)", "{} -2"),
            ("round(a)", "{} -1"),
            ("round(a, 0.5)", "{} -1"),
            ("round(a * 1.1, 0.01)", "{} -1.37"),
            ("clamp_min(a, 0)", "{} 0"),
            ("clamp_max(a, -2)", "{} -2"),
            ("clamp_min(a, NaN)", "{} NaN"),
            ("vector(3)", "{} 3"),
            ("scalar(a)", "-1.25"),
            ("scalar(nothing)", "NaN"),
        ] {
            assert_eq!(lines(&memory, expr), [value], "{expr}");
        }
        assert_eq!(lines_at(&memory, "time()", 1_500), ["1.5"]);
    }

    #[test]
    fn every_function_of_the_list_is_evaluated() {
        let memory = Memory::of(&["a 1 2 3"]);
        for name in FUNCTIONS {
            let found = ["()", "(a)", "(1)", "(a, 1)", "(a[5m])"]
                .iter()
                .filter(|args| Query::parse(&format!("{name}{args}")).is_ok())
                .map(|args| lines_at(&memory, &format!("{name}{args}"), 120_000))
                .count();
            assert!(found > 0, "{name}");
        }
    }
}
