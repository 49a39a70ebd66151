//! What a rule file may be, and what is said of one that is not.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const REQUIREMENTS: &str = include_str!("../../../tests/rules/alerting-rules.yaml");

fn faults(text: &str) -> Vec<String> {
    load(Path::new("r.yaml"), text).unwrap_err().iter().map(ToString::to_string).collect()
}

fn only(text: &str) -> String {
    let faults = faults(text);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.into_iter().next().unwrap()
}

/// One group with one rule of these lines.
fn rule(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("        {line}\n")).collect();
    format!("groups:\n  - name: 監視\n    rules:\n      -\n{}", lines.concat())
}

#[test]
fn the_rules_of_the_requirements_load_as_they_are() {
    let groups = load(Path::new("alerting-rules.yaml"), REQUIREMENTS).unwrap();
    let names: Vec<(&str, usize)> =
        groups.iter().map(|group| (group.name.as_str(), group.rules.len())).collect();
    assert_eq!(names, [("availability", 2), ("performance", 2), ("resources", 2)]);
    let Rule::Alert(alert) = &groups[0].rules[0] else { panic!() };
    assert_eq!((alert.name.as_str(), alert.for_), ("ServiceDown", Duration::from_secs(60)));
    assert_eq!(alert.place, Place { line: 6, column: 9 });
    assert_eq!(alert.annotations["summary"].text(), "サービス停止: {{ $labels.service }}");
}

#[test]
fn a_broken_expression_of_the_requirements_has_line_and_column() {
    let broken =
        REQUIREMENTS.replace("db_connections_used / db_connections_max", "db_connections_used / / max");
    let fault = only(&broken);
    assert!(fault.starts_with("r.yaml:43:37: expression is not PromQL: unexpected `/`"), "{fault}");
}

#[test]
fn columns_are_characters_even_behind_japanese_text() {
    let fault = only(&rule(&["alert: 監視", "expr: \"up{s='監視'} == == 0\""]));
    assert!(fault.starts_with("r.yaml:6:30: "), "{fault}");
}

#[test]
fn a_fault_in_a_block_is_pointed_at_in_its_own_line() {
    let fault = only(&rule(&["alert: A", "expr: |", "  up == 0", "    and rat(up[5m])"]));
    assert!(fault.starts_with("r.yaml:8:17: "), "{fault}");
    assert!(fault.ends_with("did you mean `rate`?"), "{fault}");
}

#[test]
fn an_unknown_key_gets_the_nearest_known_one() {
    let fault = only(&rule(&["alert: A", "expr: up", "anotations: {}"]));
    assert_eq!(fault, "r.yaml:7:9: unknown key `anotations` in a rule; did you mean `annotations`?");
    let fault = only("groups: []\nrules: []\n");
    assert_eq!(fault, "r.yaml:2:1: unknown key `rules` in a rule file; known keys: groups");
}

#[test]
fn every_fault_is_told_at_once_in_order_of_place() {
    let text = "groups:\n  - name: a\n    interval: 5\n    rules:\n      - alert: A\n        record: b\n        expr: up ==\n      - expr: up\n      - record: 1a\n        expr: up\n        for: 5m\n      - alert: B\n        for: 5x\n        labels: {1x: y}\n        annotations:\n          summary: 監視 {{ $valu }}\n  - name: a\n    rules: nothing\n  - rules: []\n";
    let starts = [
        "r.yaml:3:15: `interval`: duration `5` has no unit",
        "r.yaml:5:9: rule has both `alert` and `record`",
        "r.yaml:7:20: expression is not PromQL: it ends too early",
        "r.yaml:8:9: rule has neither `alert` nor `record`",
        "r.yaml:9:17: `1a` is not a metric name",
        "r.yaml:11:9: recording rule has `for`",
        "r.yaml:12:9: rule has no `expr`",
        "r.yaml:13:14: `for`: `5x` is not a duration",
        "r.yaml:14:18: `1x` cannot be a name in `labels`",
        "r.yaml:16:26: `$valu` is not known",
        "r.yaml:17:11: group name `a` stands twice, first in line 2",
        "r.yaml:18:12: `rules` is not a list",
        "r.yaml:19:5: group has no name",
    ];
    let faults = faults(text);
    assert_eq!(faults.len(), starts.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "{fault}\n{start}");
    }
}

#[test]
fn what_is_not_yaml_has_a_place_too() {
    for (text, start) in [
        ("groups:\n  - name: \"a\n", "r.yaml:"),
        ("groups: []\ngroups: []\n", "r.yaml:2:1: "),
        ("- 1\n", "r.yaml:1:1: "),
        ("groups: 監視\n", "r.yaml:1:9: "),
    ] {
        let fault = only(text);
        assert!(fault.starts_with(start), "{fault}");
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_shift_no_place() {
    let fault =
        only("\u{feff}groups:\r\n  - name: a\r\n    rules:\r\n      - alert: A\r\n        expr: up ==\r\n");
    assert!(fault.starts_with("r.yaml:5:20: "), "{fault}");
    assert!(only("\u{feff}group: []\n").starts_with("r.yaml:1:1: "));
}

#[test]
fn everything_that_prometheus_knows_of_a_group_is_read() {
    let text = "groups:\n  - name: g\n    interval: 1m30s\n    query_offset: 5s\n    limit: 7\n    labels: {team: 監視, tier: 1}\n    rules:\n      - alert: A\n        expr: 1\n        for: 0\n        keep_firing_for: 2m\n        labels: {tier: \"2\", on: true}\n";
    let groups = load(Path::new("r.yaml"), text).unwrap();
    let group = &groups[0];
    assert_eq!(group.interval, Some(Duration::from_secs(90)));
    assert_eq!((group.query_offset, group.limit), (Duration::from_secs(5), Some(7)));
    let Rule::Alert(alert) = &group.rules[0] else { panic!() };
    assert_eq!((alert.for_, alert.keep_firing_for), (Duration::ZERO, Duration::from_secs(120)));
    let labels: Vec<(&str, &str)> =
        alert.labels.iter().map(|(name, template)| (name.as_str(), template.text())).collect();
    assert_eq!(labels, [("on", "true"), ("team", "監視"), ("tier", "2")]);
}

#[test]
fn an_empty_file_has_no_rules() {
    for text in ["", "# 監視\n", "groups:\n", "groups: []\n"] {
        assert_eq!(load(Path::new("r.yaml"), text), Ok(vec![]), "{text:?}");
    }
}

proptest! {
    #[test]
    fn a_file_with_a_changed_byte_never_panics_and_places_are_inside(at in 0..REQUIREMENTS.len(), with: char) {
        let text: String = REQUIREMENTS
            .char_indices()
            .map(|(index, c)| if index == at { with } else { c })
            .collect();
        for fault in load(Path::new("r.yaml"), &text).err().unwrap_or_default() {
            let line = text.split('\n').nth(fault.line - 1);
            prop_assert!(line.is_some_and(|line| fault.column <= line.chars().count() + 1), "{}", fault);
        }
    }
}
