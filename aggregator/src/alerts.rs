//! The alerts stage: (state, what the rules gave, now) -> (state, changes). Pure.
//!
//! An alert is known by its rule and labels. It is pending until its `for` has passed, firing until
//! its sample has been gone for `keep_firing_for`, and then resolved. When the sample is gone only
//! because nothing is known, the alert stays as it is: silence is never "resolved".

use std::collections::{BTreeMap, VecDeque};

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::schema::Labels;
use diarwatch_shared::texts::Lang;
use serde::{Deserialize, Serialize};

use crate::rules::{AlertResult, AlertRule};

/// Alerts that may be pending or firing at once; further ones are counted and not kept.
pub const ALERTS_MAX: usize = 10_000;
/// Resolved alerts that are remembered for the page.
pub const RESOLVED_MAX: usize = 200;

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its condition holds, not yet long enough.
    Pending,
    /// It was told.
    Firing,
    /// It is over.
    Resolved,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Its labels, `alertname` among them.
    pub labels: Labels,
    /// Its texts.
    pub annotations: Labels,
    /// The newest value of its expression.
    pub value: f64,
    /// Where it stands.
    pub phase: Phase,
    /// Since when its condition holds.
    pub active_since: UnixMicros,
    /// When it began to fire.
    pub fired_at: Option<UnixMicros>,
    /// When it was over.
    pub resolved_at: Option<UnixMicros>,
    /// When its sample was seen last.
    pub seen_at: UnixMicros,
    /// How long it stays without a sample.
    #[serde(default)]
    pub keep_firing_for_us: u64,
}

impl Alert {
    /// A label's value, or nothing.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// What it says to people: the summary, else the name of its rule.
    #[must_use]
    pub fn summary(&self, lang: Lang) -> &str {
        self.annotation("summary", lang).unwrap_or_else(|| self.label("alertname"))
    }

    /// More of what it says.
    #[must_use]
    pub fn description(&self, lang: Lang) -> Option<&str> {
        self.annotation("description", lang)
    }

    /// What it says when it is over, where its rule has words for that (annotation `recovery`).
    #[must_use]
    pub fn recovery(&self, lang: Lang) -> Option<&str> {
        self.annotation("recovery", lang)
    }

    /// An annotation in a language: `summary_en` before `summary`. A rule of an operator has one text,
    /// in whatever language; that is said to all.
    fn annotation(&self, name: &str, lang: Lang) -> Option<&str> {
        let said = |name: &str| self.annotations.get(name).filter(|text| !text.is_empty());
        said(&format!("{name}_{}", lang.tag())).or_else(|| said(name)).map(String::as_str)
    }
}

/// What became of an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The alert as it is now: firing or resolved.
    pub alert: Alert,
}

/// Every alert that is pending or firing, and the newest that are over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    #[serde(with = "by_key")]
    active: BTreeMap<Key, Alert>,
    resolved: VecDeque<Alert>,
    /// Alerts that were not kept because there were too many.
    pub dropped: u64,
}

/// The rule's group, its name, and the labels of the alert.
type Key = (String, String, Labels);

impl State {
    /// Pending and firing alerts, in order of their rules.
    pub fn active(&self) -> impl Iterator<Item = &Alert> {
        self.active.values()
    }

    /// Alerts that are over, oldest first.
    pub fn resolved(&self) -> impl DoubleEndedIterator<Item = &Alert> {
        self.resolved.iter()
    }

    /// Forgets the alerts of rules that are no longer there; gives those that were firing. They are
    /// not over, nobody looks any more: no recovery is told.
    pub fn forget_rules(&mut self, is_there: impl Fn(&str, &str) -> bool) -> Vec<Alert> {
        let gone = self.active.extract_if(.., |(group, name, _), _| !is_there(group, name));
        gone.map(|(_, alert)| alert).filter(|alert| alert.phase == Phase::Firing).collect()
    }

    /// Takes one round of the rules. `is_over` says of labels without a sample whether that is because
    /// the condition is over, and not because nothing is known.
    pub fn step(
        &mut self,
        results: &[AlertResult<'_>],
        now: UnixMicros,
        is_over: impl Fn(&AlertRule, &Labels) -> bool,
    ) -> Vec<Change> {
        for alert in self.active.values_mut() {
            // After a clock that went back, waits begin anew instead of lasting until it has caught up.
            alert.active_since = alert.active_since.min(now);
            alert.seen_at = alert.seen_at.min(now);
        }
        let mut changes = Vec::new();
        for result in results {
            for sample in &result.firing {
                self.hold(result, sample, now, &mut changes);
            }
            self.let_go(result, now, &is_over, &mut changes);
        }
        changes
    }

    fn hold(
        &mut self,
        result: &AlertResult<'_>,
        sample: &crate::rules::Sample,
        now: UnixMicros,
        changes: &mut Vec<Change>,
    ) {
        let rule = result.rule;
        let labels = rule.labels_of(sample);
        let key = (rule.group.clone(), rule.name.clone(), labels.clone());
        if !self.active.contains_key(&key) && self.active.len() >= ALERTS_MAX {
            self.dropped += 1;
            return;
        }
        let alert = self.active.entry(key).or_insert_with(|| Alert {
            labels,
            annotations: Labels::new(),
            value: sample.value,
            phase: Phase::Pending,
            active_since: now,
            fired_at: None,
            resolved_at: None,
            seen_at: now,
            keep_firing_for_us: 0,
        });
        alert.annotations = rule.annotations_of(sample);
        alert.value = sample.value;
        alert.seen_at = now;
        alert.keep_firing_for_us = u64::try_from(rule.keep_firing_for.as_micros()).unwrap_or(u64::MAX);
        if alert.phase == Phase::Pending && now.since(alert.active_since) >= rule.for_ {
            alert.phase = Phase::Firing;
            alert.fired_at = Some(now);
            changes.push(Change { alert: alert.clone() });
        }
    }

    /// Ends what the rule did not give this time.
    fn let_go(
        &mut self,
        result: &AlertResult<'_>,
        now: UnixMicros,
        is_over: &impl Fn(&AlertRule, &Labels) -> bool,
        changes: &mut Vec<Change>,
    ) {
        let rule = result.rule;
        let ended = |alert: &Alert| {
            let unseen = now.since(alert.seen_at);
            match alert.phase {
                // What was not seen for as long as it has to last has not lasted.
                Phase::Pending => unseen > rule.for_ || is_over(rule, &alert.labels),
                _ => {
                    unseen.as_micros() >= u128::from(alert.keep_firing_for_us) && is_over(rule, &alert.labels)
                }
            }
        };
        let ended: Vec<Key> = self
            .active
            .range((rule.group.clone(), rule.name.clone(), Labels::new())..)
            .take_while(|((group, name, _), _)| *group == rule.group && *name == rule.name)
            .filter(|(_, alert)| alert.seen_at != now && ended(alert))
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            let Some(mut alert) = self.active.remove(&key) else { continue };
            if alert.phase == Phase::Pending {
                continue;
            }
            alert.phase = Phase::Resolved;
            alert.resolved_at = Some(now);
            changes.push(Change { alert: alert.clone() });
            self.resolved.push_back(alert);
            if self.resolved.len() > RESOLVED_MAX {
                self.resolved.pop_front();
            }
        }
    }
}

/// JSON has no keys of several parts: the map is written as a list.
mod by_key {
    use super::{Alert, BTreeMap, Key};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<Key, Alert>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let rows: Vec<(&String, &String, &Alert)> =
            map.iter().map(|((group, name, _), alert)| (group, name, alert)).collect();
        rows.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Key, Alert>, D::Error> {
        let rows: Vec<(String, String, Alert)> = Vec::deserialize(deserializer)?;
        Ok(rows
            .into_iter()
            .map(|(group, name, alert)| ((group, name, alert.labels.clone()), alert))
            .collect())
    }
}

#[cfg(test)]
mod tests;
