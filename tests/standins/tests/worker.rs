//! The worker stand-in over real HTTP and as a real process.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{client, ephemeral};
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A load that no test outlives.
const LONG: Duration = Duration::from_secs(3_600);

async fn worker(load: Duration) -> (String, tokio::task::JoinHandle<std::io::Result<u8>>) {
    let (listener, base) = ephemeral().await;
    (base, tokio::spawn(diarwatch_standins::worker::serve(listener, load, Vec::new())))
}

async fn tell(base: &str, control: Value) {
    let told = client().post(format!("{base}/control")).json(&control).send().await.unwrap();
    assert_eq!(told.status(), StatusCode::OK);
}

async fn ready(base: &str) -> (StatusCode, Value) {
    let answer = client().get(format!("{base}/ready")).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn both_endpoints_answer_200_while_the_body_says_not_ready() {
    let (base, _server) = worker(LONG).await;
    let loading = json!({ "status": "not_ready", "reason": "model loading" });
    assert_eq!(ready(&base).await, (StatusCode::OK, loading));
    let health = client().get(format!("{base}/health")).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    assert_eq!(health.json::<Value>().await.unwrap(), json!({ "status": "ok" }));
    tell(&base, json!({ "ready": true })).await;
    assert_eq!(ready(&base).await.1, json!({ "status": "ready", "model_loaded": true }));
}

#[tokio::test]
async fn a_hung_worker_answers_nothing_until_it_is_healed() {
    let (base, _server) = worker(Duration::ZERO).await;
    tell(&base, json!({ "hang": true })).await;
    let hung = tokio::spawn(client().get(format!("{base}/ready")).send());
    let short = client().get(format!("{base}/health")).timeout(Duration::from_millis(100)).send().await;
    assert!(short.unwrap_err().is_timeout());
    assert!(!hung.is_finished());
    tell(&base, json!({ "hang": false })).await;
    assert_eq!(hung.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_worker_exits_as_told_even_with_a_hung_request_open() {
    let (base, server) = worker(Duration::ZERO).await;
    tell(&base, json!({ "hang": true })).await;
    let _hung = tokio::spawn(client().get(format!("{base}/ready")).send());
    tell(&base, json!({ "exit": 3 })).await;
    assert_eq!(server.await.unwrap().unwrap(), 3);
}

fn process(port: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_diarwatch-standins"))
        .args(["worker", "--listen", port, "--load", "1h"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_process_says_where_it_listens_and_ends_cleanly_on_sigterm() {
    let mut child = process("127.0.0.1:0");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(
        line.starts_with("worker listening on 127.0.0.1:") && line.ends_with(", loads for 1h\n"),
        "{line}"
    );
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_taken_port_is_named_with_what_to_do_and_exits_69() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let ended = process(&address).wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(69), "{said}");
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
}

#[test]
fn a_duration_without_a_unit_is_a_wrong_command_line() {
    let ended = Command::new(env!("CARGO_BIN_EXE_diarwatch-standins"))
        .args(["worker", "--listen", "127.0.0.1:0", "--load", "3"])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(64));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("`3s`"));
}
