//! Something outside that is told of a worker or a job: a program, an HTTP call or an SQL statement.
//! Takes what TOML gave; gives a checked [`Hook`]. `{worker}` and `{job}` stand for names; no shell is
//! involved. Whoever runs it bounds its time by `timeout`.

use std::path::PathBuf;

use diarwatch_shared::quantity::Span;
use serde::{Deserialize, Serialize};

use super::Faults;

/// One call; exactly one of `command`, `url` and `sql` is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// A program, as an absolute path, and its arguments; exit 0 is success.
    pub command: Option<Vec<String>>,
    /// An `http://` address that is called; 2xx is success.
    pub url: Option<String>,
    /// The method of that call. Default: `POST`.
    #[serde(default = "method")]
    pub method: String,
    /// The JSON body of that call. Default: `{"worker":"...","job":"..."}`.
    pub body: Option<String>,
    /// A statement with `$1` for the job (or the worker, where there is no job).
    pub sql: Option<String>,
    /// Where the statement is run: the keys of `[queue.postgres]` that say so.
    pub postgres: Option<Database>,
    /// How long it may take, a duration of 100 ms to 1 minute; default 10 seconds.
    #[serde(default = "timeout")]
    pub timeout: Span,
}

/// The database of a statement, in the words of `[queue.postgres]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A file that holds the connection, as there.
    pub connection_file: Option<PathBuf>,
    /// `host=... user=... dbname=...`, as there.
    pub connection: Option<String>,
}

impl Hook {
    pub(super) fn check(&self, field: &str, faults: &mut Faults) {
        let given = [self.command.is_some(), self.url.is_some(), self.sql.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            faults.add(field, "it needs exactly one way", "write one of command, url and sql");
        }
        if self.command.as_ref().is_some_and(|command| !command.first().is_some_and(|c| c.starts_with('/'))) {
            faults.add(format!("{field}.command"), "it does not begin with an absolute path", "write one");
        }
        if let Some(Err(problem)) = self.url.as_ref().map(|url| crate::probe::check_url(url, &["http"])) {
            faults.add(format!("{field}.url"), problem, "write for example http://127.0.0.1:8080/drain");
        }
        if self.sql.as_ref().is_some_and(|sql| !sql.contains("$1")) {
            let hint =
                "write $1 where the job stands, such as UPDATE jobs SET state = 'waiting' WHERE id = $1";
            faults.add(format!("{field}.sql"), "without $1 it is about every job", hint);
        }
        if self.sql.is_some() != self.postgres.is_some() {
            let hint = "write both, such as postgres = { connection = \"host=/run/postgresql dbname=app\" }";
            faults.add(format!("{field}.postgres"), "sql and postgres go together", hint);
        }
        faults.at_least(&format!("{field}.timeout"), self.timeout, 100);
        if self.timeout > Span::secs(60) {
            faults.add(
                format!("{field}.timeout"),
                format!("{} is too long", self.timeout),
                "write at most 1m",
            );
        }
    }
}

fn method() -> String {
    String::from("POST")
}

fn timeout() -> Span {
    Span::secs(10)
}
