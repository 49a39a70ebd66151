//! What an alert does over time, by rules as an operator writes them.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::rules::{RuleSet, Sample, Selector, Series, Source, load};
use proptest::prelude::*;

/// Gives the same samples for whatever is asked.
struct Fixed(Vec<Sample>);

impl Source for Fixed {
    fn instant(&self, selector: &Selector<'_>, _at_ms: i64, _lookback: Duration) -> Vec<Sample> {
        self.0.iter().filter(|sample| selector.matches(&sample.labels)).cloned().collect()
    }

    fn range(&self, _selector: &Selector<'_>, _at_ms: i64, _range: Duration) -> Vec<Series> {
        Vec::new()
    }
}

fn rules(more: &str) -> RuleSet {
    let text = format!("groups:\n- name: g\n  rules:\n  - alert: Down\n    expr: ready == 0\n{more}");
    RuleSet::new(load(Path::new("test.yaml"), &text).unwrap())
}

fn at(second: u64) -> UnixMicros {
    UnixMicros(1_000_000_000 + second * 1_000_000)
}

/// One round in which the workers of these names are not ready.
fn round(
    state: &mut State,
    rules: &RuleSet,
    second: u64,
    down: &[&str],
    sends: bool,
) -> Vec<(Phase, String)> {
    let sample = |worker: &&str| {
        let labels = [("__name__", "ready"), ("worker", worker), ("node", "gpu-01")];
        Sample { labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), value: 0.0 }
    };
    let source = Fixed(down.iter().map(sample).collect());
    let evaluation = rules.evaluate(&source, at(second), Duration::from_secs(300));
    let changes = state.step(&evaluation.alerts, at(second), |_, _| sends);
    changes.into_iter().map(|change| (change.alert.phase, change.alert.label("worker").to_owned())).collect()
}

#[test]
fn without_for_it_fires_at_once_and_resolves_when_the_condition_ends() {
    let (mut state, rules) = (State::default(), rules(""));
    assert_eq!(round(&mut state, &rules, 0, &["a"], true), [(Phase::Firing, "a".into())]);
    assert_eq!(round(&mut state, &rules, 1, &["a", "b"], true), [(Phase::Firing, "b".into())]);
    assert_eq!(round(&mut state, &rules, 2, &["b"], true), [(Phase::Resolved, "a".into())]);
    assert_eq!(state.resolved().count(), 1);
}

#[test]
fn with_for_a_short_breach_is_never_told() {
    let (mut state, rules) = (State::default(), rules("    for: 1m\n"));
    assert_eq!(round(&mut state, &rules, 0, &["a"], true), []);
    assert_eq!(round(&mut state, &rules, 59, &["a"], true), []);
    assert_eq!(round(&mut state, &rules, 60, &[], true), []);
    assert_eq!(round(&mut state, &rules, 61, &["a"], true), [], "the clock starts again");
    assert_eq!(round(&mut state, &rules, 121, &["a"], true), [(Phase::Firing, "a".into())]);
}

#[test]
fn a_node_that_falls_silent_resolves_nothing() {
    let (mut state, rules) = (State::default(), rules(""));
    round(&mut state, &rules, 0, &["a"], true);
    assert_eq!(round(&mut state, &rules, 10, &[], false), []);
    assert_eq!(round(&mut state, &rules, 20, &[], true), [(Phase::Resolved, "a".into())]);
}

#[test]
fn keep_firing_for_outlasts_a_flap() {
    let (mut state, rules) = (State::default(), rules("    keep_firing_for: 30s\n"));
    round(&mut state, &rules, 0, &["a"], true);
    assert_eq!(round(&mut state, &rules, 10, &[], true), []);
    assert_eq!(round(&mut state, &rules, 12, &["a"], true), []);
    assert_eq!(round(&mut state, &rules, 41, &[], true), []);
    assert_eq!(round(&mut state, &rules, 42, &[], true), [(Phase::Resolved, "a".into())]);
}

#[test]
fn a_clock_that_went_back_delays_no_alert_and_no_recovery() {
    let (mut state, rules) = (State::default(), rules("    for: 1m\n    keep_firing_for: 30s\n"));
    round(&mut state, &rules, 100_000, &["a"], true);
    assert_eq!(round(&mut state, &rules, 10, &["a"], true), [], "an hour and more back");
    assert_eq!(round(&mut state, &rules, 70, &["a"], true), [(Phase::Firing, "a".into())]);
    round(&mut state, &rules, 90_000, &["a"], true);
    round(&mut state, &rules, 100, &[], true);
    assert_eq!(round(&mut state, &rules, 131, &[], true), [(Phase::Resolved, "a".into())]);
}

#[test]
fn what_was_pending_before_a_silence_begins_anew_after_it() {
    let (mut state, rules) = (State::default(), rules("    for: 1m\n"));
    round(&mut state, &rules, 0, &["a"], true);
    assert_eq!(round(&mut state, &rules, 30, &[], false), []);
    assert_eq!(state.active().count(), 1, "a short silence is bridged");
    round(&mut state, &rules, 100, &[], false);
    assert_eq!(round(&mut state, &rules, 600, &["a"], true), [], "nobody saw it last for a minute");
    assert_eq!(round(&mut state, &rules, 660, &["a"], true), [(Phase::Firing, "a".into())]);
}

#[test]
fn an_alert_whose_rule_is_gone_goes_without_a_recovery() {
    let (mut state, rules) = (State::default(), rules(""));
    round(&mut state, &rules, 0, &["a", "b"], true);
    assert_eq!(state.forget_rules(|group, name| (group, name) == ("g", "Down")), []);
    let gone = state.forget_rules(|_, name| name == "Up");
    assert_eq!(gone.iter().map(|alert| alert.label("worker")).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((state.active().count(), state.resolved().count()), (0, 0));
}

#[test]
fn a_state_comes_back_from_its_text() {
    let (mut state, rules) = (State::default(), rules("    for: 1m\n"));
    round(&mut state, &rules, 0, &["a", "b"], true);
    round(&mut state, &rules, 60, &["a"], true);
    round(&mut state, &rules, 61, &[], true);
    round(&mut state, &rules, 62, &["c"], true);
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
}

proptest! {
    #[test]
    fn every_alert_fires_and_resolves_in_turn(rounds in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..60)) {
        let (mut state, rules) = (State::default(), rules("    for: 2s\n"));
        let mut told = BTreeMap::new();
        for (second, (a, b, sends)) in rounds.into_iter().enumerate() {
            let down: Vec<&str> = [(a, "a"), (b, "b")].into_iter().filter(|(down, _)| *down).map(|(_, name)| name).collect();
            for (phase, worker) in round(&mut state, &rules, second as u64, &down, sends) {
                let before = told.insert(worker, phase);
                let expected = if phase == Phase::Firing { [None, Some(Phase::Resolved)] } else { [Some(Phase::Firing); 2] };
                prop_assert!(expected.contains(&before));
            }
        }
    }
}
