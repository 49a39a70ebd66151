//! The Slack stand-in over real HTTP: what a sender gets to see, and what a person does.

mod common;

use common::{client, ephemeral};
use reqwest::StatusCode;
use serde_json::{Value, json};

async fn slack() -> String {
    let (listener, base) = ephemeral().await;
    tokio::spawn(diarwatch_standins::slack::serve(listener));
    base
}

#[tokio::test]
async fn a_japanese_message_arrives_whole_and_the_answer_is_ok() {
    let (base, client) = (slack().await, client());
    let hook = format!("{base}/services/T00000000/B00000000/XXXX");
    let sent = json!({ "text": "🔴 異常: GPUメモリ &gt; 95% <http://127.0.0.1/|画面>" });
    let answer = client.post(&hook).json(&sent).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert_eq!(answer.text().await.unwrap(), "ok");

    let kept: Value = client.get(format!("{base}/messages")).send().await.unwrap().json().await.unwrap();
    assert_eq!(kept[0]["payload"], sent);
    assert_eq!(kept[0]["channel"], "/services/T00000000/B00000000/XXXX");
    assert!(kept[0]["at_ms"].as_i64().unwrap() > 1_700_000_000_000);
    let page = client.get(&base).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("異常: GPUメモリ &gt; 95%") && page.contains(">画面</a>"), "{page}");

    client.delete(format!("{base}/messages")).send().await.unwrap();
    let kept: Value = client.get(format!("{base}/messages")).send().await.unwrap().json().await.unwrap();
    assert_eq!(kept, json!([]));
}

#[tokio::test]
async fn a_refusal_is_a_word_and_is_counted_by_kind() {
    let (base, client) = (slack().await, client());
    let hook = |token: &str| format!("{base}/services/T/B/{token}");
    let form = client.post(hook("1")).body("payload={}").send().await.unwrap();
    assert_eq!(
        (form.status(), form.text().await.unwrap()),
        (StatusCode::BAD_REQUEST, "invalid_payload".into())
    );
    let huge = json!({ "text": "x", "rest": "y".repeat(1_000_000) });
    let huge = client.post(hook("2")).json(&huge).send().await.unwrap();
    assert_eq!(huge.status(), StatusCode::BAD_REQUEST);
    let empty = client.post(hook("3")).json(&json!({})).send().await.unwrap();
    assert_eq!(empty.text().await.unwrap(), "no_text");
    let counts: Value = client.get(format!("{base}/counts")).send().await.unwrap().json().await.unwrap();
    assert_eq!(counts["refused"]["invalid_payload"], 2);
    assert_eq!(counts["refused"]["no_text"], 1);
    assert_eq!(counts["accepted"], 0);
}

#[tokio::test]
async fn a_failure_on_purpose_says_when_to_come_again() {
    let (base, client) = (slack().await, client());
    let told = client
        .post(format!("{base}/control"))
        .body(r#"{"fail": {"status": 429, "retry_after_s": 2, "count": 1}}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(told.status(), StatusCode::OK);
    let hook = format!("{base}/services/T/B/X");
    let failed = client.post(&hook).json(&json!({ "text": "x" })).send().await.unwrap();
    assert_eq!(failed.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(failed.headers()["retry-after"], "2");
    let fine = client.post(&hook).json(&json!({ "text": "x" })).send().await.unwrap();
    assert_eq!(fine.status(), StatusCode::OK);
    let wrong = client.post(format!("{base}/control")).body(r#"{"fial": 1}"#).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    assert!(wrong.text().await.unwrap().contains("fial"));
}
