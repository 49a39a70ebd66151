//! Why an evaluation gave no result. Whoever gets one holds the state of that rule's alerts as it
//! was: a fault is neither "firing" nor "resolved".

use diarwatch_shared::schema::Labels;
use promql_parser::label::METRIC_NAME;

use super::EVALUATION_SAMPLES_MAX;

/// Why an evaluation gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Too much was selected.
    #[error(
        "expression touches more than {EVALUATION_SAMPLES_MAX} samples; select fewer series or a shorter range"
    )]
    TooManySamples,
    /// Two series on the side that must have one.
    #[error(
        "found duplicate series for the match group {group} on the {side} hand-side of `{op}`: {first} and {second}; add on(...) or ignoring(...), or group_left/group_right for the other side"
    )]
    ManyToMany {
        /// The labels they share.
        group: String,
        /// `left` or `right`.
        side: &'static str,
        /// The operator.
        op: &'static str,
        /// One of the two.
        first: String,
        /// The other.
        second: String,
    },
    /// Two series on the other side without a word that this is meant.
    #[error(
        "multiple matches for labels {0}: many-to-one matching must be explicit (group_left/group_right)"
    )]
    ManyToOne(String),
    /// Two results of a grouped match have the same labels.
    #[error("multiple matches for labels {0}: grouping labels must ensure unique matches")]
    GroupNotUnique(String),
    /// Two results have the same labels.
    #[error("result has two series with the labels {0}; keep a label that tells them apart")]
    SameLabels(String),
    /// More results than the rule's group allows.
    #[error("result has {found} series, the limit of the group is {limit}")]
    Limit {
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Something that was not refused when the expression was loaded.
    #[error("{0} cannot be evaluated; this is a fault of diarwatch, please report it")]
    Unsupported(String),
}

/// Labels as PromQL writes them: `up{service="pyannote #2"}`.
pub(in crate::rules) fn show<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let mut name = "";
    let mut pairs = Vec::new();
    for (label, value) in labels {
        if label == METRIC_NAME {
            name = value;
        } else {
            pairs.push(format!("{label}={value:?}"));
        }
    }
    if pairs.is_empty() && !name.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", pairs.join(", "))
    }
}

/// Refuses results with the same labels, which could not be told apart later.
pub(in crate::rules) fn distinct<'a>(labels: impl IntoIterator<Item = &'a Labels>) -> Result<(), EvalError> {
    let mut seen = std::collections::HashSet::new();
    match labels.into_iter().find(|labels| !seen.insert(*labels)) {
        Some(twice) => Err(EvalError::SameLabels(show(twice))),
        None => Ok(()),
    }
}
