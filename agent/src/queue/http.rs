//! The kind `http`: figures that a service tells at an address, as JSON or as metrics.
//!
//! Takes an address and where each figure stands in the answer; gives them. One GET a look, on a
//! connection of its own; redirects and proxies are not followed, a body has a largest size.

use std::path::PathBuf;

use diarwatch_shared::clock::UnixMicros;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounded::ANSWER_BYTES_MAX;
use super::figure::Figure;
use super::openmetrics::{Found, Selector};
use super::{Look, Source, secret};
use crate::config::worker::Faults;
use crate::probe;

/// An address and where the figures stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// A file with the address, where there is a secret in it; read again at each look. This or `url`.
    pub url_file: Option<PathBuf>,
    /// The address, `http://` only and without a password; redirects and proxies are not followed.
    pub url: Option<String>,
    /// What the answer is: `json`, where a figure is an RFC 6901 pointer such as `/queue/waiting`, or
    /// `openmetrics` (also the older text format of Prometheus), where it is a selector such as
    /// `jobs_waiting{queue="x"}`. No default.
    pub format: Format,
    /// Jobs that wait. No default. Of several samples that match a selector it is the sum, of ages and times the largest.
    pub waiting: String,
    /// Jobs that are worked on.
    pub processing: Option<String>,
    /// Age of the oldest waiting job, in seconds.
    pub oldest_seconds: Option<String>,
    /// Jobs completed so far, which only grows.
    pub completed_total: Option<String>,
    /// Jobs failed so far, which only grows.
    pub failed_total: Option<String>,
    /// Mean processing time, in seconds.
    pub mean_seconds: Option<String>,
    /// 95th percentile of the processing time, in seconds.
    pub p95_seconds: Option<String>,
}

const URL_HINT: &str = "write for example http://127.0.0.1:8000/queue";

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON document.
    Json,
    /// Samples as text.
    OpenMetrics,
}

impl HttpConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        self.check_address(faults);
        for (figure, place) in self.places() {
            let field = format!("http.{}", figure.key());
            match self.format {
                Format::Json if !place.is_empty() && !place.starts_with('/') => {
                    let hint = format!("write `/{}`", place.replace('.', "/"));
                    faults.add(field, format!("`{place}` does not begin with `/`"), hint);
                }
                Format::Json => {}
                Format::OpenMetrics => {
                    if let Err(problem) = Selector::parse(place) {
                        faults.add(field, problem, "write for example jobs_waiting{queue=\"diarization\"}");
                    }
                }
            }
        }
    }

    fn check_address(&self, faults: &mut Faults) {
        match (&self.url_file, &self.url) {
            (Some(file), None) if !file.is_absolute() => faults.add(
                "http.url_file",
                format!("`{}` is not an absolute path", file.display()),
                "write it from `/` on",
            ),
            (Some(_), None) => {}
            (None, Some(url)) => match probe::check_url(url, &["http"]) {
                Err(problem) => faults.add("http.url", problem, URL_HINT),
                Ok(()) if url.contains('@') => faults.add(
                    "http.url",
                    "it holds a user or a password",
                    "write the address into a file that only the agent may read, and its path as url_file",
                ),
                Ok(()) => {}
            },
            (None, None) => faults.add("http.url", "it is missing", URL_HINT),
            (Some(_), Some(_)) => faults.add("http.url", "it stands beside url_file", "keep one of them"),
        }
    }

    fn places(&self) -> Vec<(Figure, &str)> {
        let place = |figure| match figure {
            Figure::Waiting => Some(self.waiting.as_str()),
            Figure::Processing => self.processing.as_deref(),
            Figure::OldestSeconds => self.oldest_seconds.as_deref(),
            Figure::CompletedTotal => self.completed_total.as_deref(),
            Figure::FailedTotal => self.failed_total.as_deref(),
            Figure::MeanSeconds => self.mean_seconds.as_deref(),
            Figure::P95Seconds => self.p95_seconds.as_deref(),
        };
        Figure::ALL.into_iter().filter_map(|figure| Some((figure, place(figure)?))).collect()
    }
}

/// The source.
pub struct Http {
    config: HttpConfig,
    client: Option<Client>,
}

impl Http {
    /// A source that asks when it is looked at.
    #[must_use]
    pub fn new(config: HttpConfig) -> Self {
        Self { config, client: None }
    }
}

impl Source for Http {
    async fn look(&mut self, _now: UnixMicros) -> Result<Look, String> {
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(probe::client().map_err(|error| error.to_string())?),
        };
        let url = secret::address(self.config.url_file.as_deref(), self.config.url.as_deref()).await?;
        probe::check_url(&url, &["http"])
            .map_err(|_| "the address in url_file is not one that begins with http://")?;
        let body = get(client, &url).await?;
        read(&self.config, &body)
    }
}

async fn get(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    // Without the address, which may hold a secret.
    let cause = |error: reqwest::Error| probe::root_cause(&error.without_url());
    let mut response = client.get(url).send().await.map_err(cause)?;
    if !response.status().is_success() {
        return Err(format!("it answers with status {}", response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(cause)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The figures of a body; pure.
fn read(config: &HttpConfig, body: &[u8]) -> Result<Look, String> {
    let mut look = Look::default();
    let text = String::from_utf8_lossy(body);
    let json: Option<Value> = match config.format {
        Format::Json => {
            Some(serde_json::from_slice(body).map_err(|error| format!("the answer is not JSON: {error}"))?)
        }
        Format::OpenMetrics => None,
    };
    for (figure, place) in config.places() {
        let value = match &json {
            Some(json) => in_json(json, figure, place),
            None => in_metrics(&text, figure, place),
        };
        look.set(figure, Ok(value.map_err(|problem| format!("`{}`: {problem}", figure.key()))?));
    }
    Ok(look)
}

fn in_json(json: &Value, figure: Figure, pointer: &str) -> Result<f64, String> {
    let value = json.pointer(pointer).ok_or_else(|| format!("the answer has no `{pointer}`"))?;
    let number = match value {
        // Nothing waits.
        Value::Null if figure == Figure::OldestSeconds => Some(0.0),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::String(_) => "a text that is no number",
            Value::Array(_) => "an array; write a pointer to a number in it",
            Value::Object(_) => "an object; write a pointer to a number in it",
            Value::Number(_) => "a number that is too large",
        };
        format!("`{pointer}` is {kind}")
    })
}

fn in_metrics(text: &str, figure: Figure, selector: &str) -> Result<f64, String> {
    match Selector::parse(selector)?.find(text) {
        Found::Values(values) => Ok(match figure {
            Figure::OldestSeconds | Figure::MeanSeconds | Figure::P95Seconds => values
                .into_iter()
                .fold(f64::NEG_INFINITY, |most, value| if value.is_nan() { value } else { most.max(value) }),
            _ => values.into_iter().sum(),
        }),
        // A labelled counter comes with its first event.
        Found::Nothing if matches!(figure, Figure::CompletedTotal | Figure::FailedTotal) => Ok(0.0),
        Found::Nothing => Err(format!("the answer has no sample with the labels of `{selector}`")),
        Found::Unknown => Err(format!("the answer has no `{selector}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::reading::Missing;

    fn config(format: &str, waiting: &str, oldest: &str) -> HttpConfig {
        let config = serde_json::json!({
            "url": "http://127.0.0.1/", "format": format, "waiting": waiting, "oldest_seconds": oldest,
            "failed_total": if format == "json" { "/failed" } else { "failed_total" },
        });
        serde_json::from_value(config).unwrap()
    }

    fn json(body: &str) -> Result<Look, String> {
        read(&config("json", "/queue/waiting", "/oldest"), body.as_bytes())
    }

    #[test]
    fn figures_are_found_in_json_as_numbers_and_as_text() {
        let look = json(r#"{"queue":{"waiting":"3"},"oldest":12.5,"failed":0}"#).unwrap();
        assert_eq!((look.waiting, look.oldest_seconds), (Ok(3.0), Ok(12.5)));
        assert_eq!((look.failed_total, look.processing), (Ok(0.0), Err(Missing::NotSupported)));
        assert_eq!(
            json(r#"{"queue":{"waiting":0},"oldest":null,"failed":0}"#).unwrap().oldest_seconds,
            Ok(0.0)
        );
    }

    #[test]
    fn json_without_a_figure_says_which_and_where() {
        let problem = |body| json(body).unwrap_err();
        assert!(problem("<html>").contains("not JSON"));
        assert_eq!(problem("{}"), "`waiting`: the answer has no `/queue/waiting`");
        assert_eq!(problem(r#"{"queue":{"waiting":null}}"#), "`waiting`: `/queue/waiting` is null");
        assert_eq!(problem(r#"{"queue":{"waiting":true}}"#), "`waiting`: `/queue/waiting` is true or false");
        assert!(problem(r#"{"queue":{"waiting":[1]}}"#).contains("an array"));
        assert!(problem(r#"{"queue":{"waiting":"many"}}"#).contains("a text that is no number"));
    }

    #[test]
    fn of_several_samples_counts_are_added_and_of_ages_the_largest_counts() {
        let body = "w{a=\"1\"} 2\nw{a=\"2\"} 3\nage{a=\"1\"} 5\nage{a=\"2\"} 60\n# TYPE failed counter\n";
        let look = read(&config("openmetrics", "w", "age"), body.as_bytes()).unwrap();
        assert_eq!((look.waiting, look.oldest_seconds, look.failed_total), (Ok(5.0), Ok(60.0), Ok(0.0)));
        let problem = read(&config("openmetrics", "w{a=\"3\"}", "age"), body.as_bytes()).unwrap_err();
        assert!(problem.contains("no sample with the labels"), "{problem}");
        let nan = read(&config("openmetrics", "w", "age"), b"w 1\nage NaN\nfailed_total 1\n").unwrap();
        assert!(nan.checked().is_err());
    }
}
