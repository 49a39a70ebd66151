//! Binary operators on numbers and vectors.
//!
//! Takes two values; gives one. A comparison keeps what it lets through as it is, name and all;
//! arithmetic and `bool` drop the name.

use promql_parser::label::METRIC_NAME;
use promql_parser::parser::BinModifier;

use super::matching::{match_vectors, set_operation};
use super::operator::Op;
use super::{EvalError, Sample, Value, distinct, unsupported};

/// `left op right`.
pub(super) fn binary(
    op: Op,
    left: Value,
    right: Value,
    modifier: Option<&BinModifier>,
) -> Result<Value, EvalError> {
    let return_bool = modifier.is_some_and(|modifier| modifier.return_bool);
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => match op {
            Op::Arithmetic(op) => Ok(Value::Scalar(op.apply(left, right))),
            Op::Compare(op) => Ok(Value::Scalar(f64::from(op.holds(left, right)))),
            Op::Set(_) => Err(unsupported("a set operator between numbers")),
        },
        (Value::Vector(samples), Value::Scalar(number)) => {
            with_scalar(op, samples, |value| (value, number), return_bool).map(Value::Vector)
        }
        (Value::Scalar(number), Value::Vector(samples)) => {
            with_scalar(op, samples, |value| (number, value), return_bool).map(Value::Vector)
        }
        (Value::Vector(left), Value::Vector(right)) => {
            let default = BinModifier::default();
            let modifier = modifier.unwrap_or(&default);
            match op {
                Op::Set(op) => Ok(Value::Vector(set_operation(op, left, right, modifier))),
                _ => match_vectors(op, &left, &right, modifier).map(Value::Vector),
            }
        }
        _ => Err(unsupported("an operator on a text")),
    }
}

/// Number to put and whether to keep it, of one pair.
pub(super) fn combine(op: Op, left: f64, right: f64, return_bool: bool) -> Option<f64> {
    match op {
        Op::Arithmetic(op) => Some(op.apply(left, right)),
        Op::Compare(op) if return_bool => Some(f64::from(op.holds(left, right))),
        Op::Compare(op) => op.holds(left, right).then_some(left),
        Op::Set(_) => None,
    }
}

/// Whether the metric's name is still true of the result.
pub(super) fn keeps_name(op: Op, return_bool: bool) -> bool {
    matches!(op, Op::Compare(_)) && !return_bool
}

fn with_scalar(
    op: Op,
    samples: Vec<Sample>,
    sides: impl Fn(f64) -> (f64, f64),
    return_bool: bool,
) -> Result<Vec<Sample>, EvalError> {
    let filters = keeps_name(op, return_bool);
    let mut results = Vec::with_capacity(samples.len());
    for mut sample in samples {
        let (left, right) = sides(sample.value);
        let Some(value) = combine(op, left, right, return_bool) else { continue };
        if !filters {
            // A filter keeps the vector's value even when the number stands on the left.
            sample.value = value;
            sample.labels.remove(METRIC_NAME);
        }
        results.push(sample);
    }
    distinct(results.iter().map(|sample| &sample.labels))?;
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Memory, eval, lines};
    use proptest::prelude::*;

    #[test]
    fn arithmetic_drops_the_name_and_a_filter_keeps_it() {
        let memory = Memory::of(&["a{x=\"1\"} 3", "a{x=\"2\"} 5"]);
        assert_eq!(lines(&memory, "a * 2"), ["{x=\"1\"} 6", "{x=\"2\"} 10"]);
        assert_eq!(lines(&memory, "a > 4"), ["a{x=\"2\"} 5"]);
        assert_eq!(lines(&memory, "4 < a"), ["a{x=\"2\"} 5"]);
        assert_eq!(lines(&memory, "a > bool 4"), ["{x=\"1\"} 0", "{x=\"2\"} 1"]);
        assert_eq!(lines(&memory, "1 > bool 4"), ["0"]);
    }

    #[test]
    fn numbers_follow_go() {
        let memory = Memory::default();
        for (expr, value) in [("-7 % 3", "-1"), ("2 ^ 3 ^ 2", "512"), ("1 / 0", "inf"), ("7 - 2 * 3", "1")] {
            assert_eq!(lines(&memory, expr), [value], "{expr}");
        }
    }

    #[test]
    fn a_nan_passes_no_comparison_but_not_equal() {
        let memory = Memory::of(&["a NaN"]);
        for expr in ["a > 0", "a < 0", "a == 0", "a >= 0", "a == a"] {
            assert!(lines(&memory, expr).is_empty(), "{expr}");
        }
        assert_eq!(lines(&memory, "a != 0").len(), 1);
    }

    proptest! {
        #[test]
        fn a_comparison_and_its_opposite_part_every_number(value in -10_i32..10, bound in -10_i32..10) {
            let memory = Memory::of(&[&format!("a {value}")]);
            let above = lines(&memory, &format!("a > {bound}")).len();
            let below = lines(&memory, &format!("a <= {bound}")).len();
            prop_assert_eq!(above + below, 1);
        }

        #[test]
        fn a_vector_with_a_number_is_as_number_with_number(l in -1e6_f64..1e6, r in -1e6_f64..1e6) {
            let memory = Memory::of(&[&format!("a {l}")]);
            for op in ["+", "-", "*", "/", "%"] {
                let vector = eval(&memory, &format!("scalar(a {op} {r})")).unwrap();
                prop_assert_eq!(vector, eval(&memory, &format!("{l} {op} {r}")).unwrap());
            }
        }
    }
}
