//! HTTP: JSON for programs, the aggregator's own metrics, and the page's router behind one door. Reads
//! only, but for orders to workers, which have a door of their own behind it.
//!
//! Takes requests on a loopback address; gives answers out of memory. The Host header must name
//! this machine, so that a web page elsewhere cannot read through the operator's browser. Slow
//! readers hold nothing: an answer is built before the first byte is sent.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use diarwatch_shared::clock::{self, UnixMicros};
use serde::Deserialize;
use serde_json::{Value as Json_, json};

use crate::alerts::Phase;
use crate::computed::{self, Live};
use crate::config::Config;
use crate::control::Control;
use crate::dashboard::live::Pages;
use crate::dashboard::stream::{self, Asked};
use crate::desk::Desk;
use crate::rules::eval::{self, Value};
use crate::rules::promql::Query as PromQuery;
use crate::store::Store;
use crate::view::View;
use crate::{dashboard, intents, metrics};

/// What answers are made of.
#[derive(Clone)]
pub struct Api {
    store: Store,
    desk: Desk,
    pages: Pages,
    control: Control,
}

impl Api {
    /// An API over the store, the desk, the pages and what people want of workers.
    #[must_use]
    pub fn new(store: Store, desk: Desk, pages: Pages, control: Control) -> Self {
        Self { store, desk, pages, control }
    }

    /// Its routes.
    pub fn router(self) -> Router {
        let door = middleware::from_fn_with_state(Arc::clone(&self.pages.effect().config), only_this_host);
        let pages = stream::router(self.pages.clone());
        let tokens = self.pages.effect().config.http.operator_token_file.clone();
        let intents = intents::door::router(self.control.clone(), tokens);
        let api = Router::new()
            .route("/api/v1/status", get(status))
            .route("/api/v1/query", get(query))
            .route("/api/v1/alerts", get(alerts))
            .route("/metrics", get(own_metrics))
            .route("/-/healthy", get(healthy))
            .with_state(self);
        api.merge(pages).merge(intents).layer(door)
    }
}

/// Refuses a Host that is not this machine's name here (DNS rebinding), and sets the policy.
async fn only_this_host(State(config): State<Arc<Config>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let own = ["localhost", "127.0.0.1", "[::1]"].into_iter();
    let known = own
        .chain(config.http.allowed_hosts.iter().map(String::as_str))
        .any(|host| host.eq_ignore_ascii_case(name));
    if !known {
        let text = "this Host is not served here; add it to [http] allowed_hosts\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(dashboard::POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn status(State(api): State<Api>, Query(asked): Query<Asked>, headers: HeaderMap) -> Json<View> {
    let lang = asked.lang(&headers, api.pages.effect().config.display.lang);
    Json(api.pages.look(lang, |_, view| view).await)
}

#[derive(Deserialize)]
struct InstantQuery {
    query: String,
    /// Seconds since 1970; the present without it.
    time: Option<f64>,
}

impl InstantQuery {
    /// When the query is about, and whether that is the present: `up` is known for that only.
    fn at(&self, now: UnixMicros) -> (UnixMicros, bool) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast saturates, NaN is 0"
        )]
        let at = self.time.map_or(now, |seconds| UnixMicros((seconds * 1e6) as u64));
        (at, now.since(at).max(at.since(now)) <= computed::PRESENT)
    }
}

/// `/api/v1/query` of Prometheus, over what is in memory.
async fn query(State(api): State<Api>, Query(asked): Query<InstantQuery>) -> Response {
    let query = match PromQuery::parse(&asked.query) {
        Ok(query) => query,
        Err(faults) => {
            let problems: Vec<String> = faults.iter().map(|fault| fault.problem.clone()).collect();
            return bad_query(&problems.join("; "));
        }
    };
    let now = clock::now();
    let (at, present) = asked.at(now);
    let effect = api.pages.effect();
    let lookback = effect.config.rules.lookback.0;
    let value = api.store.read(|memory| {
        if !present {
            return eval::instant(&query, &memory.head, at.as_millis(), lookback);
        }
        let sending = computed::sending(memory, effect.config.nodes.timeout.0, now);
        eval::instant(&query, &Live::new(memory, &sending, now), at.as_millis(), lookback)
    });
    let point = |value: f64| json!([at.as_secs_f64(), number(value)]);
    match value {
        Ok(Value::Vector(samples)) => {
            let rows = samples
                .into_iter()
                .map(|sample| json!({ "metric": sample.labels, "value": point(sample.value) }));
            success(&json!({ "resultType": "vector", "result": rows.collect::<Vec<_>>() }))
        }
        Ok(Value::Scalar(value)) => success(&json!({ "resultType": "scalar", "result": point(value) })),
        Ok(Value::String(text)) => {
            success(&json!({ "resultType": "string", "result": [at.as_secs_f64(), text] }))
        }
        Err(error) => bad_query(&error.to_string()),
    }
}

/// `/api/v1/alerts` of Prometheus.
async fn alerts(State(api): State<Api>) -> Response {
    let kept = api.desk.read(Clone::clone).await;
    let row = |alert: &crate::alerts::Alert| {
        json!({
            "labels": alert.labels,
            "annotations": alert.annotations,
            "state": if alert.phase == Phase::Firing { "firing" } else { "pending" },
            "activeAt": alert.active_since.to_string(),
            "value": number(alert.value),
        })
    };
    success(&json!({ "alerts": kept.alerts.active().map(row).collect::<Vec<_>>() }))
}

async fn own_metrics(State(api): State<Api>) -> impl IntoResponse {
    let kept = api.desk.read(Clone::clone).await;
    let (streams, control) = (api.pages.streams(), api.control.counts());
    let text = api.store.read(|memory| metrics::exposition(memory, &kept, streams, control));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn healthy() -> &'static str {
    "ok\n"
}

/// Numbers are text in Prometheus' JSON, so that NaN and infinities can be said.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

fn success(data: &Json_) -> Response {
    Json(json!({ "status": "success", "data": data })).into_response()
}

fn bad_query(problem: &str) -> Response {
    let body = json!({ "status": "error", "errorType": "bad_data", "error": problem });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_the_past_is_not_answered_with_the_present() {
        let now = UnixMicros(1_764_826_335_000_000);
        let at = |time: Option<f64>| InstantQuery { query: String::new(), time }.at(now);
        assert_eq!(at(None), (now, true));
        assert_eq!(at(Some(1_764_826_300.0)), (UnixMicros(1_764_826_300_000_000), false));
        assert_eq!(at(Some(f64::NAN)), (UnixMicros(0), false));
    }
}
