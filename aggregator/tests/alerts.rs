//! From a frame to a person: a real aggregator with the requirements' rules, and a Slack stand-in with
//! Slack's limits and failures. Nothing is lost, nothing is told twice, nothing is told that is not so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::agent::{Agent, Beating, Row, key, ready};
use common::{NEIGHBOUR, NODE, Site, Slack, toml, until, until_so};
use diarwatch_shared::clock;
use diarwatch_shared::event::What;
use diarwatch_shared::node::{Epoch, WorkerId};
use diarwatch_shared::reading::Missing;
use std::path::Path;
use std::time::Duration;

/// The rules of the requirements (10.1.3), as they are written there.
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/rules/alerting-rules.yaml");

/// A running aggregator that tells this Slack.
async fn told(rules: &str) -> (Site, Slack) {
    let slack = Slack::start().await;
    let mut site = Site::new("");
    configure(&mut site, &slack, rules);
    site.start().await;
    (site, slack)
}

fn configure(site: &mut Site, slack: &Slack, rules: &str) {
    let webhook = site.put("webhook", &slack.webhook());
    let files = toml(Path::new(REQUIREMENTS));
    site.configure(&format!(
        "[rules]\nfiles = [{files}]\nlookback = \"5s\"\n{rules}\n[nodes]\ntimeout = \"3s\"\n[slack]\nwebhook_url_file = {webhook}"
    ));
}

/// The node's worker is down, and that was told: whatever the aggregator does in rounds is done by now.
async fn fence(site: &Site, slack: &Slack, name: &str) {
    let _neighbour = Beating::start(site, NEIGHBOUR, clock::now().0, &[ready(name, Ok(0.0))]).await;
    until_so("the fence is told", async || slack.texts().await.iter().any(|text| text.contains(name))).await;
}

/// Texts that are not the fences'.
async fn texts_but_fences(slack: &Slack) -> Vec<String> {
    slack.texts().await.into_iter().filter(|text| !text.contains(NEIGHBOUR)).collect()
}

#[tokio::test]
async fn a_worker_that_is_not_ready_is_told_in_japanese_and_so_is_its_recovery() {
    let (site, slack) = told("").await;
    let worker = |reading| -> Row {
        (key("worker_ready", &[("worker", "pyannote-2"), ("service", "話者分離 #2")]), reading)
    };
    let agent = Beating::start(&site, NODE, 7, &[worker(Ok(0.0))]).await;
    let texts = slack.texts_when(1).await;
    assert_eq!(texts, ["■ 異常 発生: ヘルスチェック失敗: 話者分離 #2 [gpu-01]"]);
    agent.say(&[worker(Ok(1.0))]);
    let texts = slack.texts_when(2).await;
    assert_eq!(texts[1], "● 正常 話者分離 #2 復旧完了 [gpu-01]");
    let whole = slack.payloads().await[0].to_string();
    for part in ["*対象*\\n話者分離 #2 / gpu-01", "*重大度*\\n異常", "JST", "pyannote-2"] {
        assert!(whole.contains(part), "{part} is not in {whole}");
    }
    assert_eq!(site.firing().await, Vec::<String>::new());
    let (_, page) = site.get("/?lang=ja").await;
    assert!(page.contains("話者分離 #2 復旧完了"), "{page}");
}

#[tokio::test]
async fn a_channel_that_is_limited_or_broken_loses_nothing_and_keeps_the_order() {
    let (site, slack) = told("").await;
    slack.fail(429, Some(1), 2).await;
    let mut rows: Vec<Row> = Vec::new();
    let agent = Beating::start(&site, NODE, 7, &[ready("other", Ok(1.0))]).await;
    for number in 0..5 {
        rows.push(ready(&format!("w{number}"), Ok(0.0)));
        agent.say(&rows);
        until_so("it fires", async || site.firing().await.len() == rows.len()).await;
    }
    until_so("the limit was met", async || slack.count("/failed_on_purpose").await >= 2).await;
    slack.fail(500, None, 2).await;
    until_so("it was broken", async || slack.count("/failed_on_purpose").await >= 4).await;
    let texts = slack.texts_when(5).await;
    let order: Vec<bool> = (0..).zip(&texts).map(|(n, text)| text.contains(&format!("失敗: w{n}"))).collect();
    assert_eq!(order, [true; 5], "{texts:?}");
    until_so("nothing waits", async || site.metric("diarwatch_notifications_waiting").await == 0.0).await;
    assert_eq!(site.metric("diarwatch_notifications_accepted_total").await, 5.0);
    assert_eq!(site.metric("diarwatch_notifications_dropped_total").await, 0.0);
    assert_eq!(slack.texts().await.len(), 5, "none was told twice");
    let problems = site.json("/api/v1/status").await["problems"].to_string();
    assert_eq!(problems, "[]", "a channel that works again is no problem any more");
}

#[tokio::test]
async fn a_message_that_waits_outlives_a_sigkill_and_is_told_once() {
    let (mut site, slack) = told("").await;
    slack.fail(500, None, 1_000_000).await;
    let agent = Beating::start(&site, NODE, 7, &[ready("w", Ok(0.0))]).await;
    until_so("it was tried", async || slack.count("/failed_on_purpose").await >= 1).await;
    assert_eq!(site.metric("diarwatch_notifications_waiting").await, 1.0);
    let problems = site.json("/api/v1/status").await["problems"].to_string();
    assert!(problems.contains("Slack: HTTP 500"), "{problems}");
    drop(agent);
    site.kill();
    site.start().await;
    assert_eq!(site.metric("diarwatch_notifications_waiting").await, 1.0);
    assert_eq!(site.firing().await, [format!("WorkerNotReady/{NODE}")]);
    slack.fail(500, None, 0).await;
    slack.texts_when(1).await;
    let _agent = Beating::start(&site, NODE, 7, &[ready("w", Ok(0.0))]).await;
    fence(&site, &slack, "fence").await;
    until_so("nothing waits", async || site.metric("diarwatch_notifications_waiting").await == 0.0).await;
    assert_eq!(texts_but_fences(&slack).await.len(), 1);
}

#[tokio::test]
async fn an_alert_that_was_told_is_not_told_again_after_a_sigkill() {
    let (mut site, slack) = told("").await;
    let agent = Beating::start(&site, NODE, 7, &[ready("w", Ok(0.0))]).await;
    slack.texts_when(1).await;
    until_so("that is on disk", async || site.metric("diarwatch_notifications_waiting").await == 0.0).await;
    drop(agent);
    site.kill();
    site.start().await;
    let agent = Beating::start(&site, NODE, 7, &[ready("w", Ok(0.0))]).await;
    fence(&site, &slack, "fence").await;
    assert_eq!(texts_but_fences(&slack).await.len(), 1);
    agent.say(&[ready("w", Ok(1.0))]);
    until_so("the recovery is told", async || texts_but_fences(&slack).await.len() == 2).await;
}

#[tokio::test]
async fn a_message_whose_fate_is_not_known_is_told_again_and_says_so() {
    let (mut site, slack) = told("").await;
    slack.hang(600_000, 1).await;
    let agent = Beating::start(&site, NODE, 7, &[ready("w", Ok(0.0))]).await;
    let texts = slack.texts_when(1).await;
    assert!(!texts[0].contains("再送"), "{texts:?}");
    // Slack has it, and the aggregator ends before the answer comes.
    drop(agent);
    site.kill();
    site.start().await;
    let texts = slack.texts_when(2).await;
    assert_eq!(texts[1], format!("[再送] {}", texts[0]));
}

#[tokio::test]
async fn a_node_that_stops_sending_resolves_nothing() {
    let (site, slack) = told("").await;
    let agent = Beating::start(&site, NODE, 7, &[ready("w", Ok(0.0))]).await;
    slack.texts_when(1).await;
    drop(agent);
    until_so("it is seen as silent", async || site.node(NODE).await["presence"] == "stale").await;
    until_so("its last value no longer counts", async || {
        site.query("worker_ready").await.as_array().unwrap().is_empty()
    })
    .await;
    fence(&site, &slack, "fence").await;
    assert!(site.firing().await.contains(&format!("WorkerNotReady/{NODE}")));
    let texts = texts_but_fences(&slack).await;
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn an_agent_that_starts_again_is_no_recovery_of_its_worker() {
    let (site, slack) = told("").await;
    let agent = Beating::start(&site, NODE, 7, &[ready("w", Ok(0.0))]).await;
    slack.texts_when(1).await;
    drop(agent);
    until_so("its last value no longer counts", async || {
        site.query("worker_ready").await.as_array().unwrap().is_empty()
    })
    .await;
    // The first frame of a new run tells of its start and has no values yet.
    let mut agent = Agent::join(&site, NODE, 8).await;
    let started = What::AgentStarted { agent_version: "9.9.9".into(), epoch: Epoch(8) };
    agent.live.event(0, started).await;
    agent.acked(1).await;
    until_so("the node is back", async || site.node(NODE).await["presence"] == "live").await;
    fence(&site, &slack, "back").await;
    // Then the worker loads its model: that is no value either.
    agent.live.send(1, &[ready("w", Err(Missing::NotYet))]).await;
    agent.acked(2).await;
    fence(&site, &slack, "loading").await;
    let texts = texts_but_fences(&slack).await;
    assert_eq!(texts.len(), 1, "{texts:?}");
    agent.live.send(2, &[ready("w", Ok(1.0))]).await;
    until_so("the recovery is told", async || texts_but_fences(&slack).await.len() == 2).await;
}

#[tokio::test]
async fn the_backlog_fills_history_and_fires_nothing() {
    let (site, slack) = told("").await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    let mut backlog = agent.backlog().await;
    let ago = |seconds| clock::now().minus(Duration::from_secs(seconds));
    backlog.send_at(0, ago(4), &[ready("w", Ok(0.0))]).await;
    agent.acked(1).await;
    fence(&site, &slack, "fence").await;
    backlog.send_at(1, ago(3), &[ready("w", Ok(1.0))]).await;
    agent.acked(2).await;
    agent.live.send(2, &[ready("w", Ok(1.0))]).await;
    agent.acked(3).await;
    let history = site.query("min_over_time(worker_ready{worker=\"w\"}[1m])").await;
    assert_eq!(history[0]["value"][1], "0", "{history}");
    fence(&site, &slack, "fence-2").await;
    assert_eq!(texts_but_fences(&slack).await, Vec::<String>::new());
    agent.live.send(3, &[ready("w", Ok(0.0))]).await;
    until_so("what is live fires", async || texts_but_fences(&slack).await.len() == 1).await;
}

#[tokio::test]
async fn an_alert_of_simulated_gpus_says_so() {
    let (site, slack) = told("").await;
    let gpu = |simulated| {
        let labels = [("gpu", "0"), ("uuid", "GPU-1"), ("name", "RTX 4060"), ("simulated", simulated)];
        (key("gpu_info", &labels), Ok(1.0))
    };
    let _fake = Beating::start(&site, NODE, 7, &[gpu("true"), ready("a", Ok(0.0))]).await;
    let _real = Beating::start(&site, NEIGHBOUR, 7, &[gpu("false"), ready("b", Ok(0.0))]).await;
    for text in slack.texts_when(2).await {
        assert_eq!(text.contains("[SIMULATED]"), text.contains(NODE), "{text}");
    }
}

#[tokio::test]
async fn what_the_agent_did_is_in_the_message() {
    let (site, slack) = told("").await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    let worker = WorkerId::new("w").unwrap();
    let exited = What::WorkerExited {
        worker,
        pid: Some(7),
        reason: "signal 9 (SIGKILL)".into(),
        attempt: 1,
        restart_in_ms: 1_000,
    };
    agent.live.event(0, exited).await;
    agent.live.send(1, &[ready("w", Ok(0.0))]).await;
    let text = slack.texts_when(1).await.remove(0);
    assert!(text.contains("自動再起動 #1") && text.contains("signal 9 (SIGKILL)"), "{text}");
}

#[tokio::test]
async fn an_alert_whose_rule_was_taken_out_is_forgotten_without_a_recovery() {
    let (mut site, slack) = told("").await;
    let rule = |name: &str| {
        format!("groups:\n- name: g\n  rules:\n  - alert: {name}\n    expr: gpu_temperature_celsius > 80\n")
    };
    let mine = site.put("mine.yaml", &rule("Hot"));
    let with = |site: &mut Site| {
        let webhook = toml(&site.path("webhook"));
        site.configure(&format!("[rules]\nfiles = [{mine}]\n[slack]\nwebhook_url_file = {webhook}"));
    };
    site.kill();
    with(&mut site);
    site.start().await;
    let hot: Row = (key("gpu_temperature_celsius", &[("gpu", "0")]), Ok(93.0));
    let agent = Beating::start(&site, NODE, 7, std::slice::from_ref(&hot)).await;
    slack.texts_when(1).await;
    until_so("that is on disk", async || site.metric("diarwatch_notifications_waiting").await == 0.0).await;
    drop(agent);
    site.kill();
    site.put("mine.yaml", &rule("Heiss"));
    site.start().await;
    let _agent = Beating::start(&site, NODE, 8, &[hot]).await;
    let texts = slack.texts_when(2).await;
    assert!(texts[0].contains("Hot") && texts[1].contains("Heiss"), "{texts:?}");
    assert_eq!(site.firing().await, [format!("Heiss/{NODE}")]);
    fence(&site, &slack, "fence").await;
    assert_eq!(texts_but_fences(&slack).await.len(), 2);
}

#[tokio::test]
async fn the_webhook_is_never_said_however_much_is_said() {
    let slack = Slack::start().await;
    let mut site = Site::new("");
    configure(&mut site, &slack, "");
    site.log_level("trace");
    site.start().await;
    slack.fail(404, None, 1).await;
    let agent = Beating::start(&site, NODE, 7, &[ready("w", Ok(0.0))]).await;
    let problem = until("it is a problem on the page", async || {
        let problems = site.json("/api/v1/status").await["problems"].to_string();
        problems.contains("404").then_some(problems)
    })
    .await;
    assert!(problem.contains("check the webhook's address") && !problem.contains("geheimnis"), "{problem}");
    drop(agent);
    // Nobody answers there any more: the error of the client has the address too.
    site.kill();
    let webhook = site.put("webhook", "http://127.0.0.1:1/services/T/B/geheimnis");
    site.configure(&format!("[slack]\nwebhook_url_file = {webhook}"));
    let state = std::fs::read_to_string(site.path("store/alerts.json")).unwrap();
    assert!(!state.contains("geheimnis"));
    std::fs::remove_file(site.path("store/alerts.json")).unwrap();
    site.start().await;
    let _agent = Beating::start(&site, NEIGHBOUR, 7, &[ready("w", Ok(0.0))]).await;
    until_so("a try has failed", async || site.log().contains("message is tried again")).await;
    let log = site.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "it says much");
    assert!(!log.contains("geheimnis"));
    let (_, page) = site.get("/").await;
    assert!(!page.contains("geheimnis"));
}
