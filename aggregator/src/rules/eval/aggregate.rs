//! Aggregations: many samples to one per group of labels.
//!
//! Takes samples and `by`/`without`; gives a sample per group, in order of the groups.

use std::collections::BTreeMap;

use diarwatch_shared::schema::Labels;
use promql_parser::label::METRIC_NAME;
use promql_parser::parser::LabelModifier;
use promql_parser::parser::token::{self, TokenType};

use super::{EvalError, Sample, sum, unsupported};

/// The aggregations that the evaluator knows.
pub const AGGREGATIONS: &[&str] = &["sum", "min", "max", "avg", "count"];

/// `op by (...) (samples)`.
pub(super) fn aggregate(
    op: TokenType,
    samples: &[Sample],
    modifier: Option<&LabelModifier>,
) -> Result<Vec<Sample>, EvalError> {
    let fold: fn(&[f64]) -> f64 = match op.id() {
        token::T_SUM => |values| sum::sum(values.iter().copied()),
        token::T_MIN => |values| sum::smallest(values.iter().copied()),
        token::T_MAX => |values| sum::largest(values.iter().copied()),
        token::T_AVG => |values| sum::mean(values.iter().copied()),
        token::T_COUNT => |values| sum::count(values.iter().copied()),
        _ => return Err(unsupported(&op.to_string())),
    };
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for sample in samples {
        groups.entry(group(&sample.labels, modifier)).or_default().push(sample.value);
    }
    Ok(groups.into_iter().map(|(labels, values)| Sample { labels, value: fold(&values) }).collect())
}

fn group(labels: &Labels, modifier: Option<&LabelModifier>) -> Labels {
    let mut labels = labels.clone();
    match modifier {
        Some(LabelModifier::Include(by)) => labels.retain(|name, _| by.labels.contains(name)),
        Some(LabelModifier::Exclude(without)) => {
            labels.retain(|name, _| name != METRIC_NAME && !without.labels.contains(name));
        }
        None => labels.clear(),
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Memory, lines};

    fn memory() -> Memory {
        Memory::of(&[
            "a{x=\"1\",y=\"1\"} 1",
            "a{x=\"1\",y=\"2\"} 2",
            "a{x=\"2\",y=\"1\"} 6",
            "a{y=\"3\"} NaN",
        ])
    }

    #[test]
    fn groups_keep_the_labels_they_are_told_to() {
        assert_eq!(lines(&memory(), "sum by (x) (a{x!=\"\"})"), ["{x=\"1\"} 3", "{x=\"2\"} 6"]);
        assert_eq!(lines(&memory(), "sum without (y) (a{x!=\"\"})"), ["{x=\"1\"} 3", "{x=\"2\"} 6"]);
        assert_eq!(lines(&memory(), "avg(a{x!=\"\"})"), ["{} 3"]);
        assert_eq!(lines(&memory(), "count(a) by (nothing)"), ["{} 4"]);
        assert_eq!(lines(&memory(), "sum by (__name__) (a{x=\"2\"})"), ["a 6"]);
    }

    #[test]
    fn nan_never_hides_a_real_extreme() {
        assert_eq!(lines(&memory(), "max(a)"), ["{} 6"]);
        assert_eq!(lines(&memory(), "min(a)"), ["{} 1"]);
        assert_eq!(lines(&memory(), "sum(a)"), ["{} NaN"]);
    }

    #[test]
    fn nothing_stays_nothing() {
        assert!(lines(&memory(), "sum(nothing)").is_empty());
        assert!(lines(&memory(), "count(nothing)").is_empty());
    }
}
