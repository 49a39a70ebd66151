//! The rules as the operator meets them: the shipped files and the file of the requirements over
//! series in memory.

use std::collections::BTreeMap;
use std::path::Path;

use super::eval::testing::Memory;
use super::*;

const REQUIREMENTS: &str = include_str!("../../../tests/rules/alerting-rules.yaml");
const LOOKBACK: Duration = Duration::from_secs(300);
const NOW: UnixMicros = UnixMicros(0);

/// The shipped files, then these texts.
fn rules(texts: &[&str]) -> RuleSet {
    let shipped = SHIPPED.iter().map(|(name, text)| (*name, *text));
    let all = shipped.chain(texts.iter().map(|text| ("more.yaml", *text)));
    let groups = all.flat_map(|(name, text)| load(Path::new(name), text).unwrap()).collect();
    RuleSet::new(groups)
}

#[test]
fn every_shipped_alert_speaks_both_languages() {
    let rules = rules(&[]);
    for alert in rules.alerts() {
        for name in ["summary", "description"] {
            for name in [name.to_owned(), format!("{name}_en")] {
                assert!(alert.annotations.contains_key(&name), "{} has no {name}", alert.name);
            }
        }
    }
    assert!(rules.alerts().count() > 0);
}

/// Native names in a state in which every rule of the requirements fires.
fn everything_is_wrong() -> Memory {
    Memory::of(&[
        "up{service=\"pyannote #2\"} 0",
        "up{service=\"pyannote #1\"} 1",
        "api_errors_ratio{service=\"api\"} 0.062",
        "api_request_duration_p95_seconds{service=\"api\"} 3.1",
        "queue_waiting{node=\"tokyo-1\",queue=\"diarize\"} 51",
        "postgres_connections{node=\"db-1\"} 95",
        "postgres_connections_max{node=\"db-1\"} 100",
        "gpu_memory_used_bytes{node=\"tokyo-1\",gpu=\"0\",uuid=\"GPU-1\"} 97",
        "gpu_memory_total_bytes{node=\"tokyo-1\",gpu=\"0\",uuid=\"GPU-1\"} 100",
        "gpu_memory_used_bytes{node=\"tokyo-1\",gpu=\"1\",uuid=\"GPU-2\"} 10",
        "gpu_memory_total_bytes{node=\"tokyo-1\",gpu=\"1\",uuid=\"GPU-2\"} 100",
        "worker_ready{node=\"tokyo-1\",worker=\"pyannote-2\",service=\"pyannote #2\"} 0",
        "worker_restart_breaker_open{node=\"tokyo-1\",worker=\"pyannote-2\",service=\"pyannote #2\"} 1",
        "gpu_driver_unresponsive{node=\"tokyo-1\"} 1",
        "gpu_action_wanted{node=\"tokyo-1\",gpu=\"3\",uuid=\"GPU-3\"} 2",
    ])
}

fn summaries(rules: &RuleSet, memory: &Memory) -> BTreeMap<String, Vec<String>> {
    let evaluation = rules.evaluate(memory, NOW, LOOKBACK);
    assert_eq!(evaluation.faults, []);
    evaluation
        .alerts
        .iter()
        .map(|alert| {
            let texts =
                alert.firing.iter().map(|sample| alert.rule.annotations_of(sample)["summary"].clone());
            (alert.rule.name.clone(), texts.collect())
        })
        .collect()
}

#[test]
fn the_shipped_files_load() {
    let rules = rules(&[]);
    let alerts: Vec<&str> = rules.alerts().map(|alert| alert.name.as_str()).collect();
    assert_eq!(
        alerts,
        ["WorkerNotReady", "WorkerRestartedTooOften", "GpuDriverUnresponsive", "GpuActionWanted"]
    );
    assert!(rules.alerts().all(|alert| alert.for_ == Duration::ZERO));
    let files: Vec<_> = SHIPPED.iter().map(|(name, text)| (name.into(), (*text).to_owned())).collect();
    assert!(check::check(&files).is_clean());
}

#[test]
fn every_alert_of_the_requirements_fires_with_its_text() {
    let found = summaries(&rules(&[REQUIREMENTS]), &everything_is_wrong());
    for (alert, text) in [
        ("ServiceDown", "サービス停止: pyannote #2"),
        ("HighErrorRate", "エラー率上昇: 6.2%"),
        ("SlowAPIResponse", "API応答遅延: P95 3100ms"),
        ("PyannoteQueueBacklog", "話者分離キュー滞留: 51タスク"),
        ("DatabaseConnectionHigh", "DB接続枯渇: 95%"),
        ("GPUMemoryHigh", "GPU メモリ不足: 97%"),
        ("WorkerNotReady", "ヘルスチェック失敗: pyannote #2"),
        ("WorkerRestartedTooOften", "再起動が多すぎます: pyannote #2"),
        ("GpuDriverUnresponsive", "GPUドライバ応答なし: tokyo-1"),
        ("GpuActionWanted", "GPUの復旧操作が必要: tokyo-1 GPU 3"),
    ] {
        assert_eq!(found[alert], [text], "{alert}");
    }
    assert_eq!(found.len(), 10);
}

#[test]
fn nothing_fires_on_a_healthy_fleet_or_without_data() {
    let healthy = Memory::of(&[
        "up{service=\"pyannote #1\"} 1",
        "api_errors_ratio 0.05",
        "api_request_duration_p95_seconds 3",
        "queue_waiting 50",
        "postgres_connections 90",
        "postgres_connections_max 100",
        "gpu_memory_used_bytes{gpu=\"0\"} 95",
        "gpu_memory_total_bytes{gpu=\"0\"} 100",
        "worker_ready{worker=\"pyannote-1\"} 1",
        "worker_restart_breaker_open{worker=\"pyannote-1\"} 0",
        "gpu_driver_unresponsive 0",
        "gpu_action_wanted{gpu=\"0\"} 0",
    ]);
    for memory in [healthy, Memory::default()] {
        let found = summaries(&rules(&[REQUIREMENTS]), &memory);
        assert!(found.values().all(Vec::is_empty), "{found:?}");
        assert_eq!(found.len(), 10, "a rule that does not fire has a result too");
    }
}

#[test]
fn an_alert_has_the_labels_of_its_sample_and_its_rule() {
    let rules = rules(&[REQUIREMENTS]);
    let memory = everything_is_wrong();
    let evaluation = rules.evaluate(&memory, NOW, LOOKBACK);
    let labels = |name: &str| {
        let alert = evaluation.alerts.iter().find(|alert| alert.rule.name == name).unwrap();
        eval::testing::show(&alert.rule.labels_of(&alert.firing[0]))
    };
    assert_eq!(
        labels("GPUMemoryHigh"),
        r#"{alertname="GPUMemoryHigh", gpu="0", node="tokyo-1", severity="warning", uuid="GPU-1"}"#
    );
    assert_eq!(
        labels("ServiceDown"),
        r#"{alertname="ServiceDown", service="pyannote #2", severity="critical"}"#
    );
}

#[test]
fn recorded_series_are_seen_by_later_rules_and_given_out() {
    let text = "groups:\n  - name: g\n    labels: {team: x}\n    rules:\n      - {record: a:twice, expr: a * 2, labels: {kind: test, node: \"\"}}\n      - {record: a:four, expr: a:twice * 2}\n      - {alert: A, expr: a:four > 11, labels: {value: \"{{ $value }}\"}}\n      - {record: up:rule, expr: 1}\n";
    let rules = rules(&[text]);
    let memory = Memory::of(&["a{node=\"n\"} 3"]);
    let evaluation = rules.evaluate(&memory, NOW, LOOKBACK);
    let recorded: Vec<String> = evaluation
        .recorded
        .iter()
        .map(|sample| format!("{} {}", eval::testing::show(&sample.labels), sample.value))
        .collect();
    let expected = [
        "a:four{kind=\"test\", team=\"x\"} 12",
        "a:twice{kind=\"test\", team=\"x\"} 6",
        "up:rule{team=\"x\"} 1",
    ];
    assert_eq!(recorded, expected);
    let alert = evaluation.alerts.iter().find(|alert| alert.rule.name == "A").unwrap();
    let labels = alert.rule.labels_of(&alert.firing[0]);
    assert_eq!(eval::testing::show(&labels), r#"{alertname="A", kind="test", team="x", value="12"}"#);
}

#[test]
fn a_rule_that_cannot_be_evaluated_is_named_and_stops_no_other() {
    let text = "groups:\n  - name: g\n    limit: 2\n    rules:\n      - {alert: Many, expr: a / on(x) b}\n      - {alert: Same, expr: a, labels: {x: \"\", y: \"\"}}\n      - {alert: Limit, expr: \"{__name__=~'a|b'}\"}\n      - {alert: Good, expr: a == 1}\n";
    let rules = rules(&[text]);
    let memory =
        Memory::of(&["a{x=\"1\"} 1", "a{x=\"2\"} 2", "b{x=\"1\",y=\"1\"} 1", "b{x=\"1\",y=\"2\"} 1"]);
    let evaluation = rules.evaluate(&memory, NOW, LOOKBACK);
    let faults: Vec<(&str, &EvalError)> =
        evaluation.faults.iter().map(|(name, error)| (name.as_str(), error)).collect();
    assert!(
        matches!(
            faults.as_slice(),
            [
                ("Many", EvalError::ManyToMany { .. }),
                ("Same", EvalError::SameLabels(_)),
                ("Limit", EvalError::Limit { found: 4, limit: 2 })
            ]
        ),
        "{faults:?}"
    );
    let last = evaluation.alerts.last().unwrap();
    assert_eq!((last.rule.name.as_str(), last.firing.len()), ("Good", 1));
}

#[test]
fn a_group_may_look_a_little_into_the_past() {
    let text = "groups:\n  - name: g\n    query_offset: 1m\n    rules:\n      - {alert: Then, expr: a == 1}\n  - name: h\n    rules:\n      - {alert: Now, expr: a == 2}\n";
    let rules = rules(&[text]);
    let memory = Memory::of(&["a 1 2"]);
    let evaluation = rules.evaluate(&memory, UnixMicros(60_000_000), LOOKBACK);
    let firing: Vec<&str> = evaluation
        .alerts
        .iter()
        .filter(|alert| !alert.firing.is_empty())
        .map(|alert| alert.rule.name.as_str())
        .collect();
    assert_eq!(firing, ["Then", "Now"]);
}

#[test]
fn what_a_rule_reads_is_known_through_the_recording_rules() {
    let rules = rules(&[REQUIREMENTS]);
    let rule = rules.alerts().find(|rule| rule.name == "GPUMemoryHigh").unwrap();
    let inputs = rules.inputs(rule);
    for metric in ["gpu_memory_used", "gpu_memory_used_bytes", "gpu_memory_total_bytes"] {
        assert!(inputs.contains(metric), "{inputs:?}");
    }
    assert!(!inputs.contains("worker_ready"));
}
