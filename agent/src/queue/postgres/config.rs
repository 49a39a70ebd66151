//! The configuration of the kind `postgres`: takes what TOML gave; gives checked values, or every fault.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::worker::Faults;
use crate::queue::figure::Figure;

const CONNECTION_HINT: &str = "write for example \"host=/var/run/postgresql user=diarwatch dbname=jobs\"";

/// A database and what is asked of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// A file with the connection, as `host=... user=... password=...` or `postgres://...`; read again at
    /// each connect. This or `connection`.
    pub connection_file: Option<PathBuf>,
    /// The connection, without a password.
    pub connection: Option<String>,
    /// Gives the number of jobs that wait. No default.
    pub waiting: String,
    /// Gives the number of jobs that are worked on.
    pub processing: Option<String>,
    /// Gives the age of the oldest waiting job, in seconds or as an interval.
    pub oldest_seconds: Option<String>,
    /// Gives the number of jobs completed so far, which only grows.
    pub completed_total: Option<String>,
    /// Gives the number of jobs failed so far, which only grows.
    pub failed_total: Option<String>,
    /// Gives the mean processing time, in seconds or as an interval. Default: made of `jobs`.
    pub mean_seconds: Option<String>,
    /// Gives the 95th percentile of the processing time, likewise.
    pub p95_seconds: Option<String>,
    /// Gives the jobs that ended after `to_timestamp($1)`, a row each, columns by name: `finished_at` (a
    /// `timestamptz` or seconds since 1970), `seconds`, and, where there are such, `audio_seconds`, `failed`.
    pub jobs: Option<String>,
    /// Gives the jobs that wait or are worked on, a row each, columns by name: `id`, `since` (a `timestamptz`
    /// or seconds since 1970), `started` (likewise; NULL while it waits), and, where there is such,
    /// `audio_seconds`. Default: jobs under way are not told.
    pub under_way: Option<String>,
}

impl PostgresConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        match (&self.connection_file, &self.connection) {
            (Some(file), None) if !file.is_absolute() => faults.add(
                "postgres.connection_file",
                format!("`{}` is not an absolute path", file.display()),
                "write it from `/` on",
            ),
            (Some(_), None) => {}
            (None, Some(text)) => match super::has_password(text) {
                Err(problem) => faults.add("postgres.connection", problem, CONNECTION_HINT),
                Ok(true) => faults.add(
                    "postgres.connection",
                    "it holds a password",
                    "write the connection into a file that only the agent may read, and its path as connection_file",
                ),
                Ok(false) => {}
            },
            (None, None) => faults.add("postgres.connection_file", "it is missing", CONNECTION_HINT),
            (Some(_), Some(_)) => {
                faults.add("postgres.connection", "it stands beside connection_file", "keep one of them");
            }
        }
        for (figure, query) in self.queries() {
            if query.trim().is_empty() {
                let hint =
                    "write a query that gives one number, such as SELECT count(*) FROM jobs, or leave it out";
                faults.add(format!("postgres.{}", figure.key()), "it is empty", hint);
            }
        }
        if self.under_way.as_ref().is_some_and(|query| query.trim().is_empty()) {
            let hint = "write a query that gives id, since and started, or leave it out";
            faults.add("postgres.under_way", "it is empty", hint);
        }
        if self.jobs.as_ref().is_some_and(|query| !query.contains("$1")) {
            let hint = "let it ask for the new ones only: WHERE finished_at > to_timestamp($1)";
            faults.add("postgres.jobs", "it has no $1", hint);
        }
    }

    pub(super) fn queries(&self) -> Vec<(Figure, &str)> {
        Figure::ALL.into_iter().filter_map(|figure| Some((figure, self.query(figure)?))).collect()
    }

    pub(super) fn query(&self, figure: Figure) -> Option<&str> {
        match figure {
            Figure::Waiting => Some(&self.waiting),
            Figure::Processing => self.processing.as_deref(),
            Figure::OldestSeconds => self.oldest_seconds.as_deref(),
            Figure::CompletedTotal => self.completed_total.as_deref(),
            Figure::FailedTotal => self.failed_total.as_deref(),
            Figure::MeanSeconds => self.mean_seconds.as_deref(),
            Figure::P95Seconds => self.p95_seconds.as_deref(),
        }
    }
}
