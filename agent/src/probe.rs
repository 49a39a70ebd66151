//! Asks a worker whether it is ready: takes a [`ReadinessConfig`], gives a
//! [`ProbeResult`] to the judge. Status **and body** decide, because a worker that loads its model
//! answers 200 as well. One probe of a worker at a time; the next one waits for it. A worker that is
//! slow costs its own probe only, and never longer than `timeout`.
//!
//! Workers are asked by plain HTTP (`https://` is refused with the configuration): they listen on their
//! own host, and their client has an empty TLS configuration, so that it neither reads the host's
//! certificates nor fails where there are none. Services elsewhere may be asked by `https`.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::identity::provider;
use reqwest::Client;
use serde_json::Value;

use crate::config::worker::ReadinessConfig;

/// Bytes of an answer's body that are read; an answer with more of them is not a readiness body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a reason that is passed on.
pub const REASON_BYTES_MAX: usize = 240;

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// What it means.
    pub verdict: Verdict,
    /// From the first byte sent to the whole answer, or to giving up.
    pub took: Duration,
}

/// What an answer, or its absence, means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The worker says that it is ready.
    Ready,
    /// The worker answered, but not that it is ready.
    NotReady {
        /// The worker's own reason, or what was wrong with its answer.
        reason: String,
    },
    /// The worker did not answer.
    NoAnswer {
        /// What went wrong on the way.
        reason: String,
    },
}

/// Why no probe can be made at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The client could not be built.
    #[error("prepare the HTTP client of the readiness probes: {0}")]
    Client(String),
}

/// The HTTP client of all probes; a clone is the same client.
///
/// No connection is kept: a probe also shows that the worker still accepts, and a connection that
/// the worker closed for being idle would look like a failure.
#[derive(Clone, Debug)]
pub struct Prober(Client);

impl Prober {
    /// A client for plain HTTP that follows neither redirects nor proxies.
    ///
    /// # Errors
    /// When TLS or the resolver cannot be set up.
    pub fn new() -> Result<Self, ProbeError> {
        client().map(Self)
    }

    /// A client that also speaks `https`, by the host's own list of authorities.
    ///
    /// # Errors
    /// When the host has no such list.
    pub fn with_system_roots() -> Result<Self, ProbeError> {
        // The client takes the process' provider; a second installation changes nothing.
        drop((*provider()).clone().install_default());
        built(Client::builder()).map(Self)
    }

    /// Asks once.
    pub async fn probe(&self, config: &ReadinessConfig) -> ProbeResult {
        let start = clock::uptime();
        let answer = tokio::time::timeout(config.timeout.0, ask(&self.0, &config.url)).await;
        let verdict = match answer {
            Ok(Ok((status, Some(body)))) => judge_response(config, status, &body),
            Ok(Ok((_, None))) => {
                Verdict::NotReady { reason: format!("the body is larger than {BODY_BYTES_MAX} bytes") }
            }
            Ok(Err(error)) => Verdict::NoAnswer { reason: for_people(&root_cause(&error)) },
            Err(_) => Verdict::NoAnswer { reason: format!("no whole answer within {}", config.timeout) },
        };
        ProbeResult { verdict, took: clock::uptime().saturating_sub(start) }
    }
}

/// What an answer means; pure.
#[must_use]
pub fn judge_response(config: &ReadinessConfig, status: u16, body: &[u8]) -> Verdict {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let own_reason = json.as_ref().and_then(|json| json.pointer("/reason")).and_then(Value::as_str);
    let refuse = |problem: String| Verdict::NotReady { reason: for_people(&problem) };
    if status != config.status {
        let said = own_reason.map_or_else(String::new, |reason| format!(": {reason}"));
        return refuse(format!("status {status} instead of {}{said}", config.status));
    }
    if let Some((pointer, expected)) = config.json_pointer.as_ref().zip(config.equals.as_ref())
        && let Err(problem) = check_pointer(json.as_ref(), pointer, expected)
    {
        return refuse(own_reason.map_or(problem, str::to_owned));
    }
    if let Some(text) = &config.contains
        && !String::from_utf8_lossy(body).contains(text.as_str())
    {
        return refuse(own_reason.map_or_else(|| format!("the body lacks `{text}`"), str::to_owned));
    }
    Verdict::Ready
}

/// Whether an address can be probed; `schemes` are those that are spoken.
///
/// # Errors
/// A fragment that says why it cannot.
pub fn check_url(url: &str, schemes: &[&str]) -> Result<(), String> {
    let shown = diarwatch_shared::settings::mask(url);
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("`{shown}` is not an address: {error}"))?;
    match parsed.scheme() {
        scheme if schemes.contains(&scheme) => Ok(()),
        "https" => Err(format!("`{shown}` is https, which this probe does not speak")),
        other => Err(format!("`{shown}` begins with `{other}:` instead of `http:`")),
    }
}

impl Verdict {
    /// What was seen, when it was not readiness.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::NotReady { reason } | Self::NoAnswer { reason } => Some(reason),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::NotReady { reason } => write!(f, "not ready: {reason}"),
            Self::NoAnswer { reason } => write!(f, "no answer: {reason}"),
        }
    }
}

/// A client for plain HTTP that follows neither redirects nor proxies and keeps no connection.
pub(crate) fn client() -> Result<Client, ProbeError> {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| ProbeError::Client(error.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    built(Client::builder().tls_backend_preconfigured(tls))
}

fn built(builder: reqwest::ClientBuilder) -> Result<Client, ProbeError> {
    builder
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("diarwatch-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ProbeError::Client(root_cause(&error)))
}

/// Status and body; no body when it is too large.
async fn ask(client: &Client, url: &str) -> reqwest::Result<(u16, Option<Vec<u8>>)> {
    let mut response = client.get(url).send().await?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Ok((status, None));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, Some(body)))
}

fn check_pointer(json: Option<&Value>, pointer: &str, expected: &Value) -> Result<(), String> {
    let json = json.ok_or_else(|| String::from("the body is not JSON"))?;
    let found = json.pointer(pointer).ok_or_else(|| format!("the body has no `{pointer}`"))?;
    if same(found, expected) { Ok(()) } else { Err(format!("`{pointer}` is {found} instead of {expected}")) }
}

/// Equality of JSON, but 1 and 1.0 are one number.
fn same(found: &Value, expected: &Value) -> bool {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => found.total_cmp(&expected).is_eq(),
        _ => found == expected,
    }
}

/// One line of bounded length: what a worker sends must not break a log or a terminal.
pub(crate) fn for_people(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > REASON_BYTES_MAX {
        line.truncate(line.floor_char_boundary(REASON_BYTES_MAX));
        line.push('…');
    }
    line
}

/// The innermost error: "error sending request" tells an operator nothing, "Connection refused" does.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::quantity::Span;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn config(url: &str) -> ReadinessConfig {
        ReadinessConfig {
            url: url.into(),
            interval: Span::secs(1),
            timeout: Span::secs(20),
            status: 200,
            json_pointer: Some("/status".into()),
            equals: Some("ready".into()),
            contains: None,
            failures: 2,
        }
    }

    fn judge(status: u16, body: &str) -> Verdict {
        judge_response(&config("http://127.0.0.1/"), status, body.as_bytes())
    }

    fn not_ready(reason: &str) -> Verdict {
        Verdict::NotReady { reason: reason.into() }
    }

    #[test]
    fn a_worker_that_answers_200_but_not_ready_is_not_ready() {
        assert_eq!(judge(200, r#"{"status":"ready"}"#), Verdict::Ready);
        let said = r#"{"status":"not_ready","reason":"モデルを読み込み中"}"#;
        assert_eq!(judge(200, said), not_ready("モデルを読み込み中"));
        assert_eq!(
            judge(200, r#"{"status":"not_ready"}"#),
            not_ready(r#"`/status` is "not_ready" instead of "ready""#)
        );
        assert_eq!(judge(200, "{}"), not_ready("the body has no `/status`"));
        assert_eq!(judge(200, "<html>"), not_ready("the body is not JSON"));
    }

    #[test]
    fn a_ready_body_under_a_wrong_status_is_not_ready() {
        assert_eq!(judge(503, r#"{"status":"ready"}"#), not_ready("status 503 instead of 200"));
        assert_eq!(judge(503, r#"{"reason":"draining"}"#), not_ready("status 503 instead of 200: draining"));
    }

    #[test]
    fn all_conditions_on_the_body_must_hold() {
        let mut config = config("http://127.0.0.1/");
        config.equals = Some(1.into());
        config.contains = Some("cuda".into());
        let judge = |body: &str| judge_response(&config, 200, body.as_bytes());
        assert_eq!(judge(r#"{"status":1.0,"device":"cuda"}"#), Verdict::Ready);
        assert_eq!(judge(r#"{"status":1,"device":"cpu"}"#), not_ready("the body lacks `cuda`"));
        assert!(matches!(judge(r#"{"status":true,"device":"cuda"}"#), Verdict::NotReady { .. }));
    }

    #[test]
    fn only_plain_http_can_be_probed() {
        assert_eq!(check_url("http://localhost:8000/ready", &["http"]), Ok(()));
        for bad in ["https://localhost/", "unix:///run/x", "localhost:8000", "", "http://"] {
            assert!(check_url(bad, &["http"]).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_the_judgement_panic(status: u16, body in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = judge_response(&config("http://127.0.0.1/"), status, &body);
        }

        #[test]
        fn a_reason_is_one_bounded_line_whatever_the_worker_says(reason in "(\\PC|[あ-ん]|\\n){0,400}") {
            let body = serde_json::json!({ "status": "not_ready", "reason": reason }).to_string();
            let verdict = judge(200, &body);
            let shown = verdict.reason().unwrap();
            prop_assert!(shown.len() <= REASON_BYTES_MAX + '…'.len_utf8());
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }

    /// Answers every connection with these bytes, then closes it.
    async fn answering(bytes: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ready", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(&bytes).await;
            }
        });
        url
    }

    fn response(head: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn a_real_answer_is_read_with_its_body() {
        let url = answering(response("200 OK", r#"{"status":"ready"}"#)).await;
        assert_eq!(Prober::new().unwrap().probe(&config(&url)).await.verdict, Verdict::Ready);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_of_its_own() {
        let ready = answering(response("200 OK", r#"{"status":"ready"}"#)).await;
        let url = answering(response(&format!("302 Found\r\nlocation: {ready}"), "")).await;
        let found = Prober::new().unwrap().probe(&config(&url)).await;
        assert_eq!(found.verdict, not_ready("status 302 instead of 200"));
    }

    #[tokio::test]
    async fn a_body_without_end_is_not_read_to_its_end() {
        let url = answering(response("200 OK", &" ".repeat(BODY_BYTES_MAX + 1))).await;
        let found = Prober::new().unwrap().probe(&config(&url)).await;
        assert_eq!(found.verdict, not_ready("the body is larger than 65536 bytes"));
    }

    #[tokio::test]
    async fn a_worker_that_is_not_there_gives_no_answer_with_the_cause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let found = Prober::new().unwrap().probe(&config(&url)).await;
        assert!(
            matches!(&found.verdict, Verdict::NoAnswer { reason } if reason.contains("refused")),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn a_worker_that_accepts_and_says_nothing_gives_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(&format!("http://{}/", listener.local_addr().unwrap()));
        config.timeout = Span::millis(50);
        let found = Prober::new().unwrap().probe(&config).await;
        assert_eq!(found.verdict, Verdict::NoAnswer { reason: "no whole answer within 50ms".into() });
    }
}
