//! Rules as they are evaluated, and the labels and annotations of an alert.
//!
//! Takes what `file` read; gives, for one sample, what is sent. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use diarwatch_shared::schema::Labels;
use promql_parser::label::{ALERT_NAME, METRIC_NAME};

use super::eval::Sample;
use super::promql::Query;
use super::template::Template;

/// Rules that are evaluated together, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name, once per file.
    pub name: String,
    /// The file it came from.
    pub path: PathBuf,
    /// How often it asks to be evaluated; kept, not yet used: every round evaluates every group.
    pub interval: Option<Duration>,
    /// How far behind the present it is evaluated.
    pub query_offset: Duration,
    /// Series that one of its rules may give; none is no limit.
    pub limit: Option<usize>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Fires.
    Alert(AlertRule),
    /// Gives new series.
    Record(RecordRule),
}

/// Where a rule stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A rule that fires for each sample that its expression gives.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRule {
    /// The name, `alertname` of what is sent.
    pub name: String,
    /// The name of its group.
    pub group: String,
    /// The expression.
    pub query: Query,
    /// How long a sample must be there before the alert fires.
    pub for_: Duration,
    /// How long the alert stays after the sample has gone.
    pub keep_firing_for: Duration,
    /// Labels to add, the group's among them.
    pub labels: BTreeMap<String, Template>,
    /// Texts for people.
    pub annotations: BTreeMap<String, Template>,
    /// Where it stands.
    pub place: Place,
}

/// A rule that gives series under a new name.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRule {
    /// The name of the series.
    pub name: String,
    /// The expression.
    pub query: Query,
    /// Labels to add, the group's among them; not templates.
    pub labels: Labels,
    /// Where it stands.
    pub place: Place,
}

impl Rule {
    /// The name of the alert or of the series.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Alert(alert) => &alert.name,
            Self::Record(record) => &record.name,
        }
    }

    /// The expression.
    #[must_use]
    pub fn query(&self) -> &Query {
        match self {
            Self::Alert(alert) => &alert.query,
            Self::Record(record) => &record.query,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Self::Alert(alert) => alert.place,
            Self::Record(record) => record.place,
        }
    }
}

impl AlertRule {
    /// The labels of the alert for a sample: the sample's without its name, the rule's, `alertname`.
    #[must_use]
    pub fn labels_of(&self, sample: &Sample) -> Labels {
        let mut labels = sample.labels.clone();
        labels.remove(METRIC_NAME);
        for (name, template) in &self.labels {
            set(&mut labels, name, template.expand(&sample.labels, sample.value));
        }
        labels.insert(ALERT_NAME.to_owned(), self.name.clone());
        labels
    }

    /// The annotations of the alert for a sample.
    #[must_use]
    pub fn annotations_of(&self, sample: &Sample) -> BTreeMap<String, String> {
        self.annotations
            .iter()
            .map(|(name, template)| (name.clone(), template.expand(&sample.labels, sample.value)))
            .collect()
    }
}

impl RecordRule {
    /// The recorded sample.
    pub(super) fn record(&self, mut sample: Sample) -> Sample {
        for (name, value) in &self.labels {
            set(&mut sample.labels, name, value.clone());
        }
        sample.labels.insert(METRIC_NAME.to_owned(), self.name.clone());
        sample
    }
}

/// An empty value is no label.
fn set(labels: &mut Labels, name: &str, value: String) {
    if value.is_empty() {
        labels.remove(name);
    } else {
        labels.insert(name.to_owned(), value);
    }
}
