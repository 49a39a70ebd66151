//! `/api/v1/intents`: the one thing that can be changed over HTTP. GET lists the newest with their outcome;
//! POST wants an operator's token, also on loopback, and nothing a browser sends from elsewhere.
//!
//! Takes a JSON document; gives 202 with an id once the intent is signed, on disk and on its way.

use std::path::PathBuf;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::json;
use tracing::{error, warn};

use super::{INTENTS_MAX, Wish};
use crate::control::{Control, OrderError};
use crate::operators::Operators;

/// Bytes of a wish.
const BODY_BYTES_MAX: usize = 8 * 1024;

#[derive(Clone)]
struct Door {
    control: Control,
    tokens: Option<PathBuf>,
}

/// Why a wish is turned away: the status and a text for a person.
struct Rejected(StatusCode, String);

/// The routes; `tokens` is the file of operators, without which nobody orders anything.
pub fn router(control: Control, tokens: Option<PathBuf>) -> Router {
    Router::new()
        .route("/api/v1/intents", get(list).post(post))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Door { control, tokens })
}

async fn list(State(door): State<Door>) -> Response {
    let intents = door.control.intents();
    Json(json!({ "schema": 1, "kind": "intents", "remembered_max": INTENTS_MAX, "intents": intents }))
        .into_response()
}

async fn post(State(door): State<Door>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    match order(&door, &headers, body).await {
        Ok(id) => (StatusCode::ACCEPTED, Json(json!({ "id": id }))).into_response(),
        Err(Rejected(status, problem)) => {
            door.control.rejected();
            warn!(status = status.as_u16(), problem, "an intent is turned away");
            let body = json!({ "status": "error", "errorType": error_type(status), "error": problem });
            let mut response = (status, Json(body)).into_response();
            if status == StatusCode::UNAUTHORIZED {
                let scheme = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

async fn order(
    door: &Door,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<String, Rejected> {
    let reject = |status, problem: &str| Rejected(status, problem.to_owned());
    if !same_origin(headers) {
        return Err(reject(StatusCode::FORBIDDEN, "a page of another origin may not order anything"));
    }
    let by = who(door, headers).await?;
    let json = text(headers, header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
    if !json.eq_ignore_ascii_case("application/json") {
        return Err(reject(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send it as `Content-Type: application/json`",
        ));
    }
    let body = body.map_err(|error| Rejected(error.status(), error.body_text()))?;
    let wish: Wish = serde_json::from_slice(&body)
        .map_err(|error| Rejected(StatusCode::BAD_REQUEST, format!("the body: {error}")))?;
    door.control.order(wish, &by).await.map_err(|error| Rejected(status_of(&error), error.to_string()))
}

/// The operator whose token the request has. The file is read each time: a removed token is refused at once.
async fn who(door: &Door, headers: &HeaderMap) -> Result<String, Rejected> {
    let Some(path) = door.tokens.clone() else {
        let problem = "this aggregator takes no orders: [http] operator_token_file is not set";
        return Err(Rejected(StatusCode::FORBIDDEN, problem.to_owned()));
    };
    let operators = tokio::task::spawn_blocking(move || Operators::read(&path)).await;
    let operators =
        operators.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
    let operators = operators.map_err(|problem| {
        error!(problem, "operators cannot be read: nobody can order anything");
        let problem = "the file of operators cannot be read; the aggregator's log says why";
        Rejected(StatusCode::SERVICE_UNAVAILABLE, problem.to_owned())
    })?;
    let unknown = || {
        let problem = "an operator's token is wanted: `Authorization: Bearer TOKEN`; \
                       `diarwatch-aggregator operator add NAME` makes one";
        Rejected(StatusCode::UNAUTHORIZED, problem.to_owned())
    };
    let (scheme, token) = text(headers, header::AUTHORIZATION).split_once(' ').ok_or_else(unknown)?;
    let known = operators.who(token.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"));
    known.map(str::to_owned).ok_or_else(unknown)
}

/// A browser says where a request comes from; a program says nothing.
fn same_origin(headers: &HeaderMap) -> bool {
    let host = text(headers, header::HOST);
    let own = |origin: &str| {
        let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        name.is_some_and(|name| name.eq_ignore_ascii_case(host))
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    origins.all(|origin| origin.to_str().is_ok_and(own))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn status_of(error: &OrderError) -> StatusCode {
    match error {
        OrderError::Wish(_) => StatusCode::BAD_REQUEST,
        OrderError::Unknown(_) => StatusCode::NOT_FOUND,
        OrderError::Away(_) => StatusCode::CONFLICT,
        OrderError::Full => StatusCode::TOO_MANY_REQUESTS,
        OrderError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn error_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            "unavailable"
        }
        _ => "bad_data",
    }
}
