//! `diarwatch` and `diarwatch-agent` as they are typed: text, JSON, exit numbers, and what to do next
//! when there is no answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::{NODE, Node, diarwatch};
use serde_json::{Value, json};
use std::process::{Command, Output};

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn talk(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(output), talk(output));
}

/// Every place in a document where a number belongs, as its JSON pointer.
fn numbers(status: &Value) -> Vec<String> {
    let of = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut found: Vec<String> = of(&status["host"]).iter().map(|key| format!("/host/{key}")).collect();
    for (at, gpu) in status["gpus"].as_array().unwrap().iter().enumerate() {
        let others = ["index", "uuid", "name", "recovery_action", "processes"];
        let keys = of(gpu).into_iter().filter(|key| !others.contains(&key.as_str()));
        found.extend(keys.map(|key| format!("/gpus/{at}/{key}")));
    }
    found
}

#[test]
fn status_is_one_screen_in_the_language_that_is_asked_for() {
    let node = Node::new().with_gpus("gpus = 1\ngpu.0.util = 42\ngpu.0.temp = unsupported\n");
    let agent = node.run();
    agent.until("the GPU has values", |status| status["gpus"][0]["utilization_ratio"].is_f64().then_some(()));
    agent.until("the link is down", |status| status["link"]["problem"].as_str().map(drop));
    let socket = node.path("agent.sock").display().to_string();
    let ask = |lang: &str| {
        let output = diarwatch(&["status", "--socket", &socket, "--lang", lang]);
        ends(&output, 0);
        assert_eq!(talk(&output), "", "stderr is for trouble");
        text(&output)
    };
    let (ja, en) = (ask("ja"), ask("en"));
    for words in
        [NODE, "GPU 0", "NVIDIA GeForce RTX 4060", "42%", "SIMULATED", "not_supported", "127.0.0.1:9"]
    {
        assert!(ja.contains(words) && en.contains(words), "{words}:\n{ja}\n{en}");
    }
    for words in ["エージェント", "切断", "データなし", "模擬NVML", "ワーカーは設定されていません"]
    {
        assert!(ja.contains(words), "{words}:\n{ja}");
    }
    for words in ["Agent", "not connected", "No data", "fake NVML", "No workers are configured"] {
        assert!(en.contains(words), "{words}:\n{en}");
    }
    let by_locale = |locale: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diarwatch"));
        command.args(["status", "--socket", &socket]).env_remove("DIARWATCH_LANG").env("LC_ALL", locale);
        text(&command.output().unwrap())
    };
    assert!(by_locale("ja_JP.UTF-8").contains("切断") && by_locale("C").contains("not connected"));
}

#[test]
fn the_json_has_a_schema_a_kind_and_a_reason_for_each_number_that_is_missing() {
    let node = Node::new().with_gpus("gpus = 2\ngpu.0.temp = unsupported\ngpu.1.state = lost\n");
    let agent = node.run();
    agent.until("the GPUs are read", |status| status["gpus"][0]["power_watts"].is_f64().then_some(()));
    let output = diarwatch(&["status", "--json", "--socket", &node.path("agent.sock").display().to_string()]);
    ends(&output, 0);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&status["schema"], &status["kind"], &status["node"]),
        (&json!(1), &json!("status"), &json!(NODE))
    );
    assert_eq!(status["simulated"], true);
    assert_eq!(status["reasons"]["/gpus/0/temperature_celsius"], "not_supported");
    assert_eq!(status["reasons"]["/gpus/1/power_watts"], "lost");
    let numbers = numbers(&status);
    assert!(numbers.len() >= 3 + 2 * 6, "{status:#}");
    for pointer in numbers {
        let value = status.pointer(&pointer).unwrap();
        let reasoned = status["reasons"][&pointer].as_str().is_some_and(|reason| !reason.is_empty());
        assert!(value.is_f64() || (value.is_null() && reasoned), "{pointer} in {status:#}");
    }
    assert!(!status.to_string().contains("\"missing\""), "{status:#}");
    for counter in
        ["/frames_emitted", "/epoch", "/spool/frames_unacked", "/spool/frames_lost", "/link/connections"]
    {
        assert!(status.pointer(counter).is_some_and(Value::is_u64), "{counter} in {status:#}");
    }
}

#[test]
fn an_agent_that_is_down_is_exit_69_and_what_to_type() {
    let node = Node::new();
    let socket = node.path("agent.sock").display().to_string();
    for arguments in [&["status", "--socket", &socket][..], &["status", "--json", "--socket", &socket]] {
        let output = diarwatch(arguments);
        ends(&output, 69);
        assert_eq!(text(&output), "", "no half document on stdout");
        assert!(talk(&output).contains(&socket), "{}", talk(&output));
        assert!(talk(&output).lines().any(|line| line.starts_with("try: ")), "{}", talk(&output));
    }
    drop(node.run());
    let output = diarwatch(&["status", "--socket", &socket]);
    ends(&output, 69);
    assert!(talk(&output).contains("refused"), "a socket without its agent: {}", talk(&output));
}

#[test]
fn a_configuration_is_checked_without_an_agent_and_without_its_files() {
    let mut node = Node::new();
    let good = node.config().display().to_string();
    std::fs::remove_file(node.path("node.key")).unwrap();
    let output = diarwatch(&["config", "check", &good]);
    ends(&output, 0);
    assert_eq!(text(&output), format!("{good}: ok\n"));
    let output = diarwatch(&["config", "check", "--json", &good]);
    ends(&output, 0);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({ "schema": 1, "kind": "config_check", "path": good, "ok": true, "faults": [] });
    assert_eq!(document, expected);
    assert!(!node.path("spool").exists() && !node.path("agent.sock").exists(), "it writes nothing");

    node.more = "[gpu]\nfast_intervall = \"100ms\"\n".into();
    let bad = node.config().display().to_string();
    let output = diarwatch(&["config", "check", &bad]);
    ends(&output, 78);
    assert!(talk(&output).contains(&format!("{bad}:16:1: unknown field")), "{}", talk(&output));
    let output = diarwatch(&["config", "check", "--json", &bad]);
    ends(&output, 78);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fault = &document["faults"][0];
    assert_eq!((&document["ok"], &fault["line"], &fault["column"]), (&json!(false), &json!(16), &json!(1)));
    assert_eq!(fault["hint"], "did you mean `fast_interval`?");
}

#[test]
fn every_fault_of_a_configuration_is_told_at_once() {
    let mut node = Node::new();
    node.more = "[gpu]\nfast_interval = \"1ms\"\n[host]\ninterval = \"1ms\"\n".into();
    let output = diarwatch(&["config", "check", &node.config().display().to_string()]);
    ends(&output, 78);
    assert_eq!(
        talk(&output).lines().filter(|line| line.starts_with("error: ")).count(),
        2,
        "{}",
        talk(&output)
    );
    let output = diarwatch(&["config", "check", "/no/such/agent.toml"]);
    ends(&output, 78);
    assert!(talk(&output).contains("/no/such/agent.toml"), "{}", talk(&output));
}

#[test]
fn help_is_no_failure_and_a_wrong_word_is_exit_64() {
    let service = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_diarwatch-agent")).args(arguments).output().unwrap()
    };
    for output in [diarwatch(&["--help"]), diarwatch(&["status", "--help"]), service(&["--help"])] {
        ends(&output, 0);
        assert!(text(&output).contains("Usage:"));
    }
    for output in [diarwatch(&["--version"]), service(&["--version"])] {
        ends(&output, 0);
        assert!(text(&output).contains(env!("CARGO_PKG_VERSION")));
    }
    let wrong = [
        diarwatch(&["statsu"]),
        diarwatch(&["gpu", "show"]),
        diarwatch(&["status", "--lang", "fr"]),
        service(&[]),
        service(&["run", "--confg", "x"]),
    ];
    for output in wrong {
        ends(&output, 64);
        assert_eq!(text(&output), "");
    }
    assert!(talk(&diarwatch(&["statsu"])).contains("status"), "the word that was meant");
}
