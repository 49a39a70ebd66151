//! One `[[figure]]` of the configuration: a number of the application that the page and the rules read.

use std::path::PathBuf;

use diarwatch_shared::quantity::Span;
use serde::{Deserialize, Serialize};

use super::service::{INTERVAL_MAX, INTERVAL_MS_MIN};
use super::worker::{Fault, Faults};
use crate::queue::http::{Format, HttpConfig};
use crate::queue::postgres::PostgresConfig;

/// Figures that one agent reads; each has a group of series.
pub const FIGURES_MAX: usize = 24;
/// The metrics that a figure may be; the catalogue says what each means.
pub const METRICS: [&str; 14] = [
    "api_request_duration_p95_seconds",
    "api_errors_ratio",
    "sessions_active",
    "sessions_max",
    "sessions_aborted_ratio",
    "websocket_connections",
    "websocket_connections_max",
    "postgres_connections",
    "postgres_connections_max",
    "postgres_storage_used_bytes",
    "postgres_storage_max_bytes",
    "ai_api_duration_seconds",
    "ai_errors_ratio",
    "reports_failed_ratio",
];

/// A number and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FigureConfig {
    /// Its name, one of [`METRICS`]. No default.
    pub metric: String,
    /// The `service` label, where several services have the same figure. Default: none.
    pub service: Option<String>,
    /// What the number is multiplied with, such as 0.001 for milliseconds; default 1.
    #[serde(default = "scale")]
    pub scale: f64,
    /// From one look to the next, a duration of 500 ms to 1 minute; default 10 seconds.
    #[serde(default = "interval")]
    pub interval: Span,
    /// How long a look may take, a duration; default 5 seconds.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// A constant, such as the number of sessions that may be open. One of `fixed`, `http` and `postgres`.
    pub fixed: Option<f64>,
    /// A service that tells it over HTTP.
    pub http: Option<HttpFigure>,
    /// A database that has it.
    pub postgres: Option<PostgresFigure>,
}

/// An address and where the number stands in its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpFigure {
    /// A file with the address, where there is a secret in it. This or `url`.
    pub url_file: Option<PathBuf>,
    /// The address, `http://` only and without a password.
    pub url: Option<String>,
    /// `json` or `openmetrics`.
    pub format: Format,
    /// An RFC 6901 pointer, or a selector such as `http_requests{code="500"}`.
    pub value: String,
}

/// A database and the query for the number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresFigure {
    /// A file with the connection. This or `connection`.
    pub connection_file: Option<PathBuf>,
    /// The connection, without a password.
    pub connection: Option<String>,
    /// A query that gives one number, such as `SELECT count(*) FROM pg_stat_activity`.
    pub value: String,
}

impl FigureConfig {
    /// Its metric, with the service in brackets: what no two figures share.
    #[must_use]
    pub fn title(&self) -> String {
        self.service
            .as_ref()
            .map_or_else(|| self.metric.clone(), |service| format!("{} ({service})", self.metric))
    }

    /// The group of its series.
    #[must_use]
    pub fn group(&self) -> String {
        format!("figure/{}/{}", self.metric, self.service.as_deref().unwrap_or_default())
    }

    /// The source's configuration in the terms of a queue: its one figure is `waiting`.
    #[must_use]
    pub fn http(&self) -> Option<HttpConfig> {
        let HttpFigure { url_file, url, format, value } = self.http.clone()?;
        Some(HttpConfig {
            url_file,
            url,
            format,
            waiting: value,
            processing: None,
            oldest_seconds: None,
            completed_total: None,
            failed_total: None,
            mean_seconds: None,
            p95_seconds: None,
        })
    }

    /// As [`Self::http`].
    #[must_use]
    pub fn postgres(&self) -> Option<PostgresConfig> {
        let PostgresFigure { connection_file, connection, value } = self.postgres.clone()?;
        Some(PostgresConfig {
            connection_file,
            connection,
            waiting: value,
            processing: None,
            oldest_seconds: None,
            completed_total: None,
            failed_total: None,
            mean_seconds: None,
            p95_seconds: None,
            jobs: None,
            under_way: None,
        })
    }

    /// Everything that is wrong with the values.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        if !METRICS.contains(&self.metric.as_str()) {
            let near = diarwatch_shared::config::nearest(&self.metric, METRICS);
            let hint = near.map_or_else(
                || format!("write one of {}", METRICS.join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            faults.add("metric", format!("`{}` is no figure that is known", self.metric), hint);
        }
        if !self.scale.is_finite() || self.scale == 0.0 {
            faults.add("scale", format!("{} makes no number", self.scale), "write for example 0.001");
        }
        faults.at_least("interval", self.interval, INTERVAL_MS_MIN);
        if self.interval > INTERVAL_MAX {
            faults.add("interval", format!("{} is too long", self.interval), "write at most 1m");
        }
        faults.at_least("timeout", self.timeout, INTERVAL_MS_MIN);
        let sources = [self.fixed.is_some(), self.http.is_some(), self.postgres.is_some()];
        if sources.into_iter().filter(|given| *given).count() != 1 {
            let hint = "write exactly one of fixed, [figure.http] and [figure.postgres]";
            faults.add("http", "it does not say where the number comes from, or says it twice", hint);
        }
        let mut of_source = Faults::default();
        if let Some(http) = self.http() {
            http.check(&mut of_source);
        }
        if let Some(postgres) = self.postgres() {
            postgres.check(&mut of_source);
        }
        let renamed = |fault: Fault| Fault { field: fault.field.replace("waiting", "value"), ..fault };
        faults.0.extend(of_source.0.into_iter().map(renamed));
        faults.0
    }
}

fn scale() -> f64 {
    1.0
}

fn interval() -> Span {
    Span::secs(10)
}

fn timeout() -> Span {
    Span::secs(5)
}
