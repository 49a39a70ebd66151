//! Which sample of one vector belongs to which of the other.
//!
//! Takes two vectors and the words on/ignoring, group_left/group_right; gives the results, or an
//! error when a match would be a guess.

use std::collections::{HashMap, HashSet};

use diarwatch_shared::schema::Labels;
use promql_parser::label::METRIC_NAME;
use promql_parser::parser::{BinModifier, LabelModifier, VectorMatchCardinality};

use super::binary::{combine, keeps_name};
use super::error::show;
use super::operator::{Op, Set};
use super::{EvalError, Sample, distinct, without_name};

/// The labels that two samples must share.
type Signature<'a> = Vec<(&'a String, &'a String)>;

/// Arithmetic and comparisons between two vectors.
pub(super) fn match_vectors(
    op: Op,
    left: &[Sample],
    right: &[Sample],
    modifier: &BinModifier,
) -> Result<Vec<Sample>, EvalError> {
    if left.is_empty() || right.is_empty() {
        return Ok(Vec::new());
    }
    // From here on: many samples on one side may belong to one on the other.
    let swapped = matches!(modifier.card, VectorMatchCardinality::OneToMany(_));
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let ones = unique(op, one, modifier, if swapped { "left" } else { "right" })?;
    let one_to_one = modifier.card == VectorMatchCardinality::OneToOne;
    let mut matched = HashSet::new();
    let mut results = Vec::new();
    for sample in many {
        let group = signature(&sample.labels, modifier);
        let Some(other) = ones.get(&group) else { continue };
        let (l, r) = if swapped { (other.value, sample.value) } else { (sample.value, other.value) };
        let Some(value) = combine(op, l, r, modifier.return_bool) else { continue };
        if one_to_one && matched.contains(&group) {
            return Err(EvalError::ManyToOne(show(group)));
        }
        let labels = result_labels(op, &sample.labels, &other.labels, modifier);
        matched.insert(group);
        results.push(Sample { labels, value });
    }
    distinct(results.iter().map(|sample| &sample.labels)).map_err(|error| match error {
        EvalError::SameLabels(labels) if !one_to_one => EvalError::GroupNotUnique(labels),
        other => other,
    })?;
    Ok(results)
}

/// `and`, `or`, `unless`: what stays is left as it is.
pub(super) fn set_operation(
    op: Set,
    mut left: Vec<Sample>,
    mut right: Vec<Sample>,
    modifier: &BinModifier,
) -> Vec<Sample> {
    let groups = |samples: &[Sample]| -> HashSet<Vec<(String, String)>> {
        samples.iter().map(|sample| owned(&signature(&sample.labels, modifier))).collect()
    };
    let within = |sample: &Sample, groups: &HashSet<Vec<(String, String)>>| {
        groups.contains(&owned(&signature(&sample.labels, modifier)))
    };
    match op {
        Set::And => {
            let groups = groups(&right);
            left.retain(|sample| within(sample, &groups));
        }
        Set::Unless => {
            let groups = groups(&right);
            left.retain(|sample| !within(sample, &groups));
        }
        Set::Or => {
            let groups = groups(&left);
            right.retain(|sample| !within(sample, &groups));
            left.append(&mut right);
        }
    }
    left
}

fn unique<'a>(
    op: Op,
    samples: &'a [Sample],
    modifier: &BinModifier,
    side: &'static str,
) -> Result<HashMap<Signature<'a>, &'a Sample>, EvalError> {
    let mut unique: HashMap<Signature<'a>, &Sample> = HashMap::with_capacity(samples.len());
    for sample in samples {
        let group = signature(&sample.labels, modifier);
        if let Some(first) = unique.get(&group) {
            return Err(EvalError::ManyToMany {
                group: show(group),
                side,
                op: op.word(),
                first: show(&first.labels),
                second: show(&sample.labels),
            });
        }
        unique.insert(group, sample);
    }
    Ok(unique)
}

fn signature<'a>(labels: &'a Labels, modifier: &BinModifier) -> Signature<'a> {
    let counts = |name: &String| match &modifier.matching {
        Some(LabelModifier::Include(on)) => on.labels.contains(name),
        Some(LabelModifier::Exclude(ignored)) => name != METRIC_NAME && !ignored.labels.contains(name),
        None => name != METRIC_NAME,
    };
    labels.iter().filter(|(name, _)| counts(name)).collect()
}

fn owned(signature: &Signature<'_>) -> Vec<(String, String)> {
    signature.iter().map(|(name, value)| ((*name).clone(), (*value).clone())).collect()
}

fn result_labels(op: Op, many: &Labels, one: &Labels, modifier: &BinModifier) -> Labels {
    let mut labels = many.clone();
    if !keeps_name(op, modifier.return_bool) {
        labels = without_name(labels);
    }
    if modifier.card == VectorMatchCardinality::OneToOne {
        match &modifier.matching {
            Some(LabelModifier::Include(on)) => labels.retain(|name, _| on.labels.contains(name)),
            Some(LabelModifier::Exclude(ignored)) => labels.retain(|name, _| !ignored.labels.contains(name)),
            None => {}
        }
    }
    for name in modifier.card.labels().into_iter().flat_map(|included| &included.labels) {
        match one.get(name).filter(|value| !value.is_empty()) {
            Some(value) => labels.insert(name.clone(), value.clone()),
            None => labels.remove(name),
        };
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Memory, eval, lines};
    use super::*;
    use proptest::prelude::*;

    fn memory() -> Memory {
        Memory::of(&[
            "used{node=\"a\",gpu=\"0\"} 3",
            "used{node=\"a\",gpu=\"1\"} 4",
            "used{node=\"b\",gpu=\"0\"} 5",
            "total{node=\"a\",gpu=\"0\"} 10",
            "total{node=\"a\",gpu=\"1\"} 10",
            "node_info{node=\"a\",rack=\"r1\"} 2",
        ])
    }

    #[test]
    fn one_to_one_needs_all_labels_to_agree() {
        let expected = ["{gpu=\"0\", node=\"a\"} 0.3", "{gpu=\"1\", node=\"a\"} 0.4"];
        assert_eq!(lines(&memory(), "used / total"), expected);
        assert_eq!(lines(&memory(), "used > total / 3"), ["used{gpu=\"1\", node=\"a\"} 4"]);
        assert!(lines(&memory(), "used / nothing").is_empty());
    }

    #[test]
    fn group_left_takes_labels_of_the_one_side() {
        let expected = ["{gpu=\"0\", node=\"a\", rack=\"r1\"} 6", "{gpu=\"1\", node=\"a\", rack=\"r1\"} 8"];
        assert_eq!(lines(&memory(), "used * on(node) group_left(rack) node_info"), expected);
        assert_eq!(lines(&memory(), "node_info * on(node) group_right(rack) used"), expected);
        assert_eq!(
            lines(&memory(), "node_info - on(node) group_right() used"),
            ["{gpu=\"0\", node=\"a\"} -1", "{gpu=\"1\", node=\"a\"} -2"]
        );
    }

    #[test]
    fn on_keeps_only_its_labels_and_ignoring_drops_its_own() {
        let memory = Memory::of(&["a{x=\"1\",y=\"2\"} 1", "b{x=\"1\",z=\"3\"} 2"]);
        assert_eq!(lines(&memory, "a + on(x) b"), ["{x=\"1\"} 3"]);
        assert_eq!(lines(&memory, "a + ignoring(y, z) b"), ["{x=\"1\"} 3"]);
        assert_eq!(lines(&memory, "a < on(x) b"), ["{x=\"1\"} 1"]);
        assert!(lines(&memory, "a + b").is_empty());
    }

    #[test]
    fn a_match_that_would_be_a_guess_is_an_error() {
        let error = eval(&memory(), "node_info / on(node) used").unwrap_err();
        assert!(error.to_string().contains("on the right hand-side"), "{error}");
        let error = eval(&memory(), "used / on(node) node_info").unwrap_err();
        assert!(error.to_string().contains("group_left"), "{error}");
        let error = eval(&memory(), "used * on(node) group_left(gpu) node_info").unwrap_err();
        assert!(matches!(error, EvalError::GroupNotUnique(_)), "{error}");
    }

    #[test]
    fn set_operators_keep_samples_as_they_are() {
        assert_eq!(lines(&memory(), "used and total").len(), 2);
        assert_eq!(lines(&memory(), "used unless total"), ["used{gpu=\"0\", node=\"b\"} 5"]);
        assert_eq!(lines(&memory(), "used or total").len(), 3);
        assert_eq!(lines(&memory(), "used and on(node) node_info").len(), 2);
        assert_eq!(lines(&memory(), "used or vector(1)").len(), 4);
    }

    proptest! {
        #[test]
        fn and_and_unless_part_the_left_side(left in set(), right in set()) {
            let memory = two(&left, &right);
            let both = lines(&memory, "a and b").len();
            let rest = lines(&memory, "a unless b").len();
            prop_assert_eq!(both + rest, left.len());
            prop_assert_eq!(lines(&memory, "a or b").len(), left.len() + right.len() - both);
            prop_assert_eq!(lines(&memory, "a * b").len(), both);
        }

        #[test]
        fn sums_match_in_either_order(left in set(), right in set()) {
            let memory = two(&left, &right);
            prop_assert_eq!(lines(&memory, "a + b"), lines(&memory, "b + a"));
        }
    }

    fn set() -> impl Strategy<Value = std::collections::BTreeMap<u8, i16>> {
        proptest::collection::btree_map(0_u8..8, any::<i16>(), 0..8)
    }

    fn two(
        left: &std::collections::BTreeMap<u8, i16>,
        right: &std::collections::BTreeMap<u8, i16>,
    ) -> Memory {
        let line = |name: &str, (x, value): (&u8, &i16)| format!("{name}{{x=\"{x}\"}} {value}");
        let all: Vec<String> =
            left.iter().map(|e| line("a", e)).chain(right.iter().map(|e| line("b", e))).collect();
        Memory::of(&all.iter().map(String::as_str).collect::<Vec<_>>())
    }
}
