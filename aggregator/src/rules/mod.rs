//! Rules: which series are computed and which alerts fire, by Prometheus rule files.
//!
//! Takes a [`Source`] and a time; gives recorded samples, and for each alerting rule the samples for
//! which it fires. Pure and in order of the files: what a recording rule gives, every later rule
//! sees. It never waits; when it is too slow, whoever drives it skips a round and counts that.
//!
//! A rule in [`Evaluation::faults`] has no result: its alerts keep the state they had.

pub mod check;
pub mod eval;
pub mod fault;
pub mod file;
pub mod model;
mod overlay;
pub mod promql;
mod reader;
pub mod template;
mod yaml;

use std::collections::BTreeSet;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;

pub use self::eval::{EvalError, Point, Sample, Selector, Series, Source, Value};
pub use self::fault::RuleFault;
pub use self::file::load;
pub use self::model::{AlertRule, Group, Place, RecordRule, Rule};
use self::overlay::Overlay;

/// The alerts of diarwatch itself; always loaded.
pub const BUILTIN: &str = include_str!("../../rules/builtin.yaml");
/// The series names of the requirements, made from diarwatch's own; always loaded, before any other file.
pub const REQUIREMENTS_NAMES: &str = include_str!("../../rules/requirements-names.yaml");
/// The shipped files with their names, in the order in which they are to be loaded.
pub const SHIPPED: &[(&str, &str)] =
    &[("requirements-names.yaml", REQUIREMENTS_NAMES), ("builtin.yaml", BUILTIN)];

/// Groups of rules, in the order in which they are evaluated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    groups: Vec<Group>,
}

/// What one round gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation<'a> {
    /// Samples of the recording rules, in order of their labels.
    pub recorded: Vec<Sample>,
    /// One for each alerting rule that could be evaluated, also when it does not fire.
    pub alerts: Vec<AlertResult<'a>>,
    /// Rules that could not be evaluated, by name, and why.
    pub faults: Vec<(String, EvalError)>,
}

/// What an alerting rule gave.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertResult<'a> {
    /// The rule.
    pub rule: &'a AlertRule,
    /// Its group.
    pub group: &'a Group,
    /// The samples for which its expression holds; `for` is not yet counted.
    pub firing: Vec<Sample>,
}

impl RuleSet {
    /// Groups in the order of their files.
    #[must_use]
    pub fn new(groups: Vec<Group>) -> Self {
        Self { groups }
    }

    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The alerting rules, in order.
    pub fn alerts(&self) -> impl Iterator<Item = &AlertRule> {
        self.groups.iter().flat_map(|group| &group.rules).filter_map(|rule| match rule {
            Rule::Alert(alert) => Some(alert),
            Rule::Record(_) => None,
        })
    }

    /// The metrics that a rule reads, also through recording rules: what it can be wrong about.
    #[must_use]
    pub fn inputs<'a>(&'a self, rule: &'a AlertRule) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = rule.query.metrics().into_iter().collect();
        while let Some(metric) = open.pop() {
            if found.insert(metric) {
                let records = self.groups.iter().flat_map(|group| &group.rules);
                let made = records.filter(|rule| matches!(rule, Rule::Record(_)) && rule.name() == metric);
                open.extend(made.flat_map(|rule| rule.query().metrics()));
            }
        }
        found
    }

    /// Evaluates every rule once; a series counts while its newest sample is younger than `lookback`.
    #[must_use]
    pub fn evaluate(&self, source: &dyn Source, at: UnixMicros, lookback: Duration) -> Evaluation<'_> {
        let now_ms = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
        let mut overlay = Overlay::new(source);
        let (mut alerts, mut faults) = (Vec::new(), Vec::new());
        for group in &self.groups {
            let offset_ms = i64::try_from(group.query_offset.as_millis()).unwrap_or(i64::MAX);
            let at_ms = now_ms.saturating_sub(offset_ms);
            for rule in &group.rules {
                let samples = samples(rule, &overlay, at_ms, lookback);
                match (rule, samples.and_then(|samples| within(group, samples))) {
                    (Rule::Alert(rule), Ok(firing)) => alerts.push(AlertResult { rule, group, firing }),
                    (Rule::Record(_), Ok(samples)) => overlay.extend(samples, at_ms),
                    (rule, Err(error)) => faults.push((rule.name().to_owned(), error)),
                }
            }
        }
        Evaluation { recorded: overlay.into_samples(), alerts, faults }
    }
}

/// What a rule gives, with the labels checked that will tell its results apart.
fn samples(
    rule: &Rule,
    source: &dyn Source,
    at_ms: i64,
    lookback: Duration,
) -> Result<Vec<Sample>, EvalError> {
    let samples = match eval::instant(rule.query(), source, at_ms, lookback)? {
        Value::Vector(samples) => samples,
        Value::Scalar(value) => vec![Sample { labels: diarwatch_shared::schema::Labels::new(), value }],
        Value::String(_) => return Err(EvalError::Unsupported(String::from("a rule that gives a text"))),
    };
    match rule {
        Rule::Alert(alert) => {
            let labels: Vec<_> = samples.iter().map(|sample| alert.labels_of(sample)).collect();
            eval::distinct(&labels)?;
            Ok(samples)
        }
        Rule::Record(record) => {
            let samples: Vec<Sample> = samples.into_iter().map(|sample| record.record(sample)).collect();
            eval::distinct(samples.iter().map(|sample| &sample.labels))?;
            Ok(samples)
        }
    }
}

fn within(group: &Group, samples: Vec<Sample>) -> Result<Vec<Sample>, EvalError> {
    match group.limit {
        Some(limit) if samples.len() > limit => Err(EvalError::Limit { found: samples.len(), limit }),
        _ => Ok(samples),
    }
}

#[cfg(test)]
mod tests;
