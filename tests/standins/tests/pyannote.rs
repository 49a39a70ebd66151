//! The worker that answers while it works, as a process over real HTTP.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use axum::routing::post;
use axum::{Json, Router};
use common::process::{PROBE, Standin};
use common::{ephemeral, until};
use regex::Regex;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const FAST: [&str; 2] = ["--load", "0"];

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|id| id["job_id"].as_str().or(id.as_str()).unwrap()).collect()
}

#[tokio::test]
async fn jobs_are_worked_off_one_after_another_while_it_answers() {
    let worker = Standin::start("pyannote", &["--load", "0", "--job-speed", "100"]).await;
    worker.job(json!({ "id": "first", "audio_seconds": 1e5 })).await;
    worker.job(json!({ "id": "second", "audio_seconds": 0 })).await;
    worker.said("job first started").await;
    assert_eq!(worker.get("/health").await, json!({ "status": "ok" }));
    assert_eq!(worker.get("/ready").await, json!({ "status": "ready", "model_loaded": true }));
    let jobs = worker.get("/jobs").await;
    assert_eq!((ids(&jobs["accepted"]), &jobs["running"]), (vec!["second"], &json!("first")));
    assert_eq!((ids(&jobs["done"]), &jobs["accepted_total"]), (vec![], &json!(2)));
    assert!(!worker.lines().iter().any(|line| line.contains("second started")));
    let known = worker.post("/diarize", r#"{"id": "first", "audio_seconds": 1}"#).await;
    assert_eq!(known.0, StatusCode::CONFLICT);

    let worker = Standin::start("pyannote", &FAST).await;
    for id in ["a", "b", "c"] {
        worker.job(json!({ "id": id, "audio_seconds": 2 })).await;
    }
    until(async || ids(&worker.get("/jobs").await["done"]) == ["a", "b", "c"]).await;
}

#[tokio::test]
async fn its_lines_are_those_of_the_patterns_in_the_shipped_configuration() {
    let worker = Standin::start("pyannote", &FAST).await;
    worker.job(json!({ "id": "議事録-7", "audio_seconds": 2.5 })).await;
    worker.job(json!({ "id": "7f3b", "audio_seconds": 1, "oom": "go_on" })).await;
    worker.said("7f3b failed").await;
    let lines = worker.lines().join("\n");
    let found = |key: &str| -> Vec<String> {
        let fits = pattern(key);
        lines.lines().filter_map(|line| Some(fits.captures(line)?["id"].to_owned())).collect()
    };
    assert_eq!(found("accepted"), ["議事録-7", "7f3b"]);
    assert_eq!(found("started"), ["議事録-7", "7f3b"]);
    assert_eq!(found("finished"), ["議事録-7"]);
    assert_eq!(found("failed"), ["7f3b"]);
    let finished = pattern("finished");
    let done = lines.lines().find_map(|line| finished.captures(line)).unwrap();
    assert!(done["seconds"].parse::<f64>().unwrap() >= 0.025);
    assert_eq!(done["audio_seconds"].parse(), Ok(2.5));
}

/// The first pattern of that name in the shipped configuration.
fn pattern(key: &str) -> Regex {
    let shipped = include_str!("../../../docs/agent.toml");
    let line = shipped.lines().find(|line| line.starts_with(&format!("# {key} = '"))).unwrap();
    Regex::new(line.split('\'').nth(1).unwrap()).unwrap()
}

#[tokio::test]
async fn the_shipped_probe_is_answered_with_its_two_voices_by_both_workers() {
    for kind in ["pyannote", "pyannote-server"] {
        let worker = Standin::start(kind, &FAST).await;
        let (status, told) = worker.post("/diarize?wait=1&id=probe", PROBE).await;
        assert_eq!(
            (status, &told["job_id"], &told["status"]),
            (StatusCode::OK, &json!("probe"), &json!("done"))
        );
        assert_eq!(told["audio_seconds"], 2.0);
        let heard: Vec<(f64, f64, &str)> = told["segments"].as_array().unwrap().iter().map(heard).collect();
        let (one, two) = ("SPEAKER_00", "SPEAKER_01");
        assert_eq!(heard, [(0.0, 0.5, one), (0.5, 1.0, two), (1.0, 1.5, one), (1.5, 2.0, two)]);
    }
}

/// A segment, to a hundredth of a second.
fn heard(segment: &Value) -> (f64, f64, &str) {
    let time = |key: &str| (segment[key].as_f64().unwrap() * 100.0).round() / 100.0;
    (time("start"), time("end"), segment["speaker"].as_str().unwrap())
}

#[tokio::test]
async fn what_is_no_job_is_refused_with_how_to_write_one() {
    let worker = Standin::start("pyannote", &FAST).await;
    for body in
        ["", "{}", r#"{"audio_seconds": -1}"#, r#"{"audio_seconds": 1, "poisn": true}"#, "RIFFxxxxWAVE"]
    {
        let (status, told) = worker.post("/diarize", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(told["error"].as_str().is_some_and(|error| !error.is_empty()), "{told}");
    }
    let (status, _) = worker.post("/diarize?wait=1", r#"{"audio_seconds": 0, "oom": "go_on"}"#).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn the_end_of_a_job_is_told_to_its_callback() {
    let (listener, base) = ephemeral().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&told);
    let take = async move |Json(body): Json<Value>| keep.lock().unwrap().push(body);
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/done", post(take))).await });
    let worker = Standin::start("pyannote", &FAST).await;
    worker.job(json!({ "id": "gone", "audio_seconds": 0, "callback": "http://127.0.0.1:1/" })).await;
    worker.job(json!({ "id": "7", "audio_seconds": 20, "callback": format!("{base}/done") })).await;
    worker.said("callback for gone given up").await;
    until(async || !told.lock().unwrap().is_empty()).await;
    let told = told.lock().unwrap().first().cloned().unwrap();
    assert_eq!((&told["job_id"], &told["status"]), (&json!("7"), &json!("done")));
    assert_eq!(told["segments"].as_array().unwrap().len(), 2);
}
