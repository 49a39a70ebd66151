//! A Slack incoming webhook: takes messages over HTTP, answers as Slack does (its limits, its rate),
//! shows the channel on a page and on stdout. `POST /control` makes the next requests fail or hang.

mod channel;
mod limits;
mod mrkdwn;
mod page;
mod rate;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use diarwatch_shared::clock;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::command::{StandinError, listen, until_stopped};
use crate::http;
use crate::say::say;
use channel::{Channel, Control, Post};

/// Bytes of one request; Slack's own texts end long before.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// The command line of the Slack stand-in.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address to serve on; the page is at its root
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

type Shared = Arc<Mutex<Channel>>;

/// Runs the stand-in until a stop signal; gives the exit number.
///
/// # Errors
/// When the port is taken.
pub async fn run(args: Args) -> Result<u8, StandinError> {
    let listener = listen(args.listen, "--listen").await?;
    let line = format!("slack listening on {}", listener.local_addr()?);
    until_stopped(&line, async { serve(listener).await.map(|()| 0) }).await
}

/// Serves one workspace until it is dropped.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/", get(show))
        .route("/services/{team}/{app}/{token}", post(webhook))
        .route("/messages", get(messages).delete(clear))
        .route("/counts", get(counts))
        .route("/control", post(control))
        .with_state(Shared::default());
    http::serve(listener, routes, BODY_BYTES_MAX, std::future::pending()).await
}

async fn webhook(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    // A body beyond the limit is no payload; it is counted like any other that is none.
    let body = body.unwrap_or_default();
    let post = Post {
        channel: uri.path(),
        is_json: is_json(&headers),
        body: &body,
        now: clock::uptime(),
        at: clock::now(),
    };
    let (answer, text) = {
        let mut channel = lock(&shared);
        let answer = channel.post(&post);
        let accepted = channel.messages().next_back().filter(|_| answer.status == 200);
        (answer, accepted.map(|message| notification(&message.payload).to_owned()))
    };
    if let Some(text) = text {
        say(&format!("slack: {text}"));
    }
    tokio::time::sleep(answer.hold).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    if let Some(seconds) = answer.retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

async fn show(State(shared): State<Shared>) -> Response {
    Html(page::page(lock(&shared).messages())).into_response()
}

async fn messages(State(shared): State<Shared>) -> Response {
    Json(lock(&shared).messages().collect::<Vec<_>>()).into_response()
}

async fn clear(State(shared): State<Shared>) -> StatusCode {
    lock(&shared).clear();
    StatusCode::NO_CONTENT
}

async fn counts(State(shared): State<Shared>) -> Response {
    Json(lock(&shared).counts()).into_response()
}

async fn control(State(shared): State<Shared>, body: Bytes) -> Response {
    http::told(&body, |control: Control| match lock(&shared).obey(&control) {
        Ok(()) => "ok".into_response(),
        Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
    })
}

fn lock(shared: &Shared) -> MutexGuard<'_, Channel> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// What a phone shows of a message: its text, else the first text in it.
fn notification(payload: &Value) -> &str {
    let parts = || std::iter::once(payload).chain(list(payload, "attachments"));
    let own = |part| ["text", "fallback", "title"].iter().find_map(|key| text(part, key));
    let in_blocks = |part| list(part, "blocks").flat_map(limits::texts_of).next();
    parts().find_map(own).or_else(|| parts().find_map(in_blocks)).unwrap_or_default()
}

/// A text that is there and not empty.
fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_phone_shows_the_text_or_else_the_first_text_inside() {
        let header = json!({ "type": "header", "text": { "type": "plain_text", "text": "GPU異常" } });
        assert_eq!(notification(&json!({ "text": "異常", "blocks": [&header] })), "異常");
        assert_eq!(notification(&json!({ "attachments": [{ "fallback": "復旧" }] })), "復旧");
        assert_eq!(notification(&json!({ "attachments": [{ "blocks": [&header] }] })), "GPU異常");
        assert_eq!(notification(&json!({ "attachments": [7] })), "");
    }

    #[test]
    fn a_form_is_not_json() {
        let of = |value: &str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        assert!(of("application/json") && of("Application/JSON; charset=utf-8"));
        assert!(!of("application/x-www-form-urlencoded") && !of("application/jsonp") && !of(""));
    }
}
