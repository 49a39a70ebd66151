//! The worker that answers nothing while it works, as a process over real HTTP.

mod common;

use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use common::process::Standin;
use common::{client, ephemeral, until};
use reqwest::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn the_model_is_loaded_by_a_warmup_or_a_first_job_and_not_before() {
    let before = json!({ "status": "ok", "model_loaded": false });
    let after = json!({ "status": "ok", "model_loaded": true });
    let server = Standin::start("pyannote-server", &["--load", "200ms"]).await;
    assert_eq!(server.get("/health").await, before);
    let none = client().get(format!("{}/ready", server.base)).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.post("/warmup", "").await, (StatusCode::OK, after.clone()));
    assert_eq!(server.get("/health").await, after);

    let server = Standin::start("pyannote-server", &["--load", "0"]).await;
    assert_eq!(server.get("/health").await, before);
    assert_eq!(server.post("/diarize?wait=1", r#"{"audio_seconds": 0}"#).await.0, StatusCode::OK);
    assert_eq!(server.get("/health").await, after);
}

#[tokio::test]
async fn it_takes_connections_and_answers_nothing_while_it_works() {
    let server = Standin::start("pyannote-server", &["--load", "0", "--job-speed", "1"]).await;
    server.job(json!({ "id": "long", "audio_seconds": 3_600 })).await;
    server.said("job long started").await;
    for _ in 0..3 {
        assert!(server.is_silent().await);
    }

    let server = Standin::start("pyannote-server", &["--load", "0", "--job-speed", "1"]).await;
    server.job(json!({ "id": "short", "audio_seconds": 1 })).await;
    server.said("job short started").await;
    // What waits for the event loop gets its turn between two jobs, a further job too.
    let (health, second) = tokio::join!(
        server.get("/health"),
        server.post("/diarize", r#"{"id": "next", "audio_seconds": 3600}"#)
    );
    assert_eq!((health["model_loaded"].clone(), second.0), (json!(true), StatusCode::ACCEPTED));
    server.said("job next accepted").await;
    let lines = server.lines();
    let at = |text: &str| lines.iter().position(|line| line.contains(text));
    assert!(at("job short done") < at("job next accepted"), "{lines:?}");
}

#[tokio::test]
async fn after_sigterm_it_finishes_what_it_accepted_and_calls_back_last() {
    let (listener, base) = ephemeral().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&told);
    let take = async move |Json(body): Json<Value>| keep.lock().unwrap().push(body["job_id"].clone());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(take))).await });

    let mut server = Standin::start("pyannote-server", &["--load", "0", "--job-speed", "10"]).await;
    // While it hangs nothing is accepted: all three wait, and are taken together before the first begins.
    server.tell(json!({ "hang": true })).await;
    let job = |id: &'static str| {
        server.post("/diarize", json!({ "id": id, "audio_seconds": 5, "callback": base }).to_string())
    };
    let posted = async { tokio::join!(job("a"), job("b"), job("c")) };
    let healed = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        server.tell(json!({ "hang": false })).await;
    };
    let ((a, b, c), ()) = tokio::join!(posted, healed);
    assert_eq!([a.0, b.0, c.0], [StatusCode::ACCEPTED; 3]);
    server.terminate();
    let left = server.said("nothing more is accepted").await;
    assert!(left.contains(" 3 jobs are finished first"), "{left}");
    until(async || client().get(&server.base).send().await.is_err_and(|error| error.is_connect())).await;
    assert_eq!(server.ended().await.code(), Some(0));

    until(async || server.lines().iter().filter(|line| line.contains("answered 200")).count() == 3).await;
    let lines = server.lines();
    let first_callback = lines.iter().position(|line| line.contains("callback for")).unwrap();
    let last_job = lines.iter().rposition(|line| line.contains(" done in ")).unwrap();
    assert!(last_job < first_callback, "{lines:?}");
    let mut told: Vec<String> =
        told.lock().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    let done: Vec<&str> =
        lines.iter().filter_map(|line| line.split(" done in ").next()?.strip_prefix("INFO job ")).collect();
    assert_eq!(
        told,
        done.iter().copied().filter(|id| !id.contains(' ')).collect::<Vec<_>>(),
        "in their order"
    );
    told.sort();
    assert_eq!(told, ["a", "b", "c"]);
}

#[tokio::test]
async fn it_takes_no_more_connections_while_it_finishes_its_jobs() {
    let mut server = Standin::start("pyannote-server", &["--load", "0", "--job-speed", "1"]).await;
    server.job(json!({ "id": "long", "audio_seconds": 3_600 })).await;
    server.said("job long started").await;
    server.terminate();
    until(async || client().get(&server.base).send().await.is_err_and(|error| error.is_connect())).await;
    assert!(server.is_alive());
}

#[tokio::test]
async fn an_idle_one_ends_at_once_and_a_wedged_one_does_not() {
    let mut idle = Standin::start("pyannote-server", &[]).await;
    idle.terminate();
    assert_eq!(idle.ended().await.code(), Some(0));
    let mut wedged =
        Standin::start("pyannote-server", &["--load", "0", "--control", r#"{"hang": true}"#]).await;
    assert!(wedged.is_silent().await);
    wedged.terminate();
    wedged.said("nothing more is accepted").await;
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert!(wedged.is_alive());
}
