//! One `[[queue]]` of the configuration: what it is called, how often it is looked at, and where its
//! numbers come from.
//!
//! Takes what TOML gave (unknown keys are already refused); gives a checked [`QueueConfig`], or every
//! [`Fault`] with the key at fault and how to mend it. What a kind needs is checked in the file of the
//! kind. Reads no file: a secret is read when the source connects.

use diarwatch_shared::limits::LABEL_BYTES_MAX;
use diarwatch_shared::node::QueueId;
use diarwatch_shared::quantity::Span;
use serde::{Deserialize, Serialize};

use crate::config::worker::{Fault, Faults};
use crate::queue::directory::DirectoryConfig;
use crate::queue::http::HttpConfig;
use crate::queue::log::LogConfig;
use crate::queue::postgres::PostgresConfig;
use crate::queue::redis::RedisConfig;

/// The shortest `interval`, in milliseconds: below it a look is a load of its own.
pub const LOOK_INTERVAL_MS_MIN: u64 = 100;
/// The longest `interval`: a queue that is looked at less often looks like one that is not.
pub const LOOK_INTERVAL_MAX: Span = Span::secs(60);
/// The shortest `timeout`, in milliseconds.
pub const LOOK_TIMEOUT_MS_MIN: u64 = 100;
/// The longest `timeout`: so long the numbers of the look before may still be shown.
pub const LOOK_TIMEOUT_MAX: Span = Span::secs(10);

/// A queue that this host watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// Its name: a DNS label, unique on this host, the `queue` label of its series. No default.
    pub name: QueueId,
    /// What works it off, the `service` label. Default: the name.
    pub service: Option<String>,
    /// From one look to the next, a duration of 100 ms to 1 minute; default 1 second. A look that takes
    /// longer delays the next one, and a source that fails is asked less and less often, up to every
    /// 15 seconds.
    #[serde(default = "interval")]
    pub interval: Span,
    /// How long a look may take, a duration of 100 ms to 10 seconds; default 2 seconds.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// A PostgreSQL database that keeps jobs in tables.
    pub postgres: Option<PostgresConfig>,
    /// A Redis server that keeps jobs in a list or a stream.
    pub redis: Option<RedisConfig>,
    /// A service that tells its figures over HTTP.
    pub http: Option<HttpConfig>,
    /// Directories in which jobs are files.
    pub directory: Option<DirectoryConfig>,
    /// A worker that tells of its jobs in its log only; its numbers are an estimate.
    pub log: Option<LogConfig>,
}

impl QueueConfig {
    /// What works the queue off.
    #[must_use]
    pub fn service(&self) -> &str {
        self.service.as_deref().unwrap_or(self.name.as_str())
    }

    /// The kinds that are configured; exactly one has to be.
    fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            ("postgres", self.postgres.is_some()),
            ("redis", self.redis.is_some()),
            ("http", self.http.is_some()),
            ("directory", self.directory.is_some()),
            ("log", self.log.is_some()),
        ];
        kinds.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// Everything that is wrong with the values; empty when the queue can be watched.
    ///
    /// Two queues of one name are the caller's to find.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.check_service(&mut faults);
        self.check_spans(&mut faults);
        self.check_kind(&mut faults);
        if let Some(postgres) = &self.postgres {
            postgres.check(&mut faults);
        }
        if let Some(redis) = &self.redis {
            redis.check(&mut faults);
        }
        if let Some(http) = &self.http {
            http.check(&mut faults);
        }
        if let Some(directory) = &self.directory {
            directory.check(&mut faults);
        }
        if let Some(log) = &self.log {
            log.check(&mut faults);
        }
        faults.0
    }

    fn check_service(&self, faults: &mut Faults) {
        let bytes = self.service().len();
        if bytes == 0 || bytes > LABEL_BYTES_MAX {
            let hint = format!("write 1 to {LABEL_BYTES_MAX} bytes, or leave it out");
            faults.add("service", format!("it has {bytes} bytes"), hint);
        }
    }

    fn check_spans(&self, faults: &mut Faults) {
        faults.at_least("interval", self.interval, LOOK_INTERVAL_MS_MIN);
        faults.at_least("timeout", self.timeout, LOOK_TIMEOUT_MS_MIN);
        let most =
            [("interval", self.interval, LOOK_INTERVAL_MAX), ("timeout", self.timeout, LOOK_TIMEOUT_MAX)];
        for (field, span, ceiling) in most {
            if span > ceiling {
                faults.add(field, format!("{span} is too long"), format!("write at most {ceiling}"));
            }
        }
    }

    fn check_kind(&self, faults: &mut Faults) {
        match self.kinds().as_slice() {
            [_] => {}
            [] => faults.add(
                "postgres",
                "it does not say where its numbers come from",
                "write one of the tables [queue.postgres], [queue.redis], [queue.http], [queue.directory] or [queue.log]",
            ),
            [first, others @ ..] => faults.add(
                others.join(", "),
                format!("it stands beside {first}"),
                "a queue has one source; write a [[queue]] for each",
            ),
        }
    }
}

fn interval() -> Span {
    Span::secs(1)
}

fn timeout() -> Span {
    Span::secs(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::config::{ConfigError, parse};
    use std::path::Path;

    const POSTGRES: &str =
        "[postgres]\nconnection = \"host=/run/postgresql user=a\"\nwaiting = \"SELECT 1\"\n";
    const REDIS: &str = "[redis]\nurl = \"redis://127.0.0.1/1\"\nlist = \"jobs\"\n";
    const HTTP: &str =
        "[http]\nurl = \"http://127.0.0.1/queue\"\nformat = \"json\"\nwaiting = \"/waiting\"\n";

    fn read(text: &str) -> Result<QueueConfig, ConfigError> {
        parse(Path::new("a.toml"), &format!("name = \"diarization\"\n{text}"))
    }

    fn fields(text: &str) -> Vec<String> {
        read(text).unwrap().validate().into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn a_queue_needs_a_name_and_one_source() {
        for kind in [POSTGRES, REDIS, HTTP] {
            let queue = read(kind).unwrap();
            assert_eq!(queue.validate(), []);
            assert_eq!(
                (queue.service(), queue.interval, queue.timeout),
                ("diarization", Span::secs(1), Span::secs(2))
            );
        }
        assert_eq!(fields(""), ["postgres"]);
        assert_eq!(fields(&format!("{REDIS}{HTTP}")), ["http"]);
        assert!(parse::<QueueConfig>(Path::new("a.toml"), "name = \"Über\"").is_err());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = read(&HTTP.replace("waiting =", "wating =")).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `waiting`?"), "{error}");
        assert!(read(&HTTP.replace("\"json\"", "\"xml\"")).is_err());
    }

    #[test]
    fn each_value_that_cannot_work_is_named() {
        for (key, value) in
            [("interval", "99ms"), ("interval", "61s"), ("timeout", "99ms"), ("timeout", "11s")]
        {
            assert_eq!(fields(&format!("{key} = \"{value}\"\n{HTTP}")), [key]);
        }
        assert_eq!(fields(&format!("service = \"\"\n{HTTP}")), ["service"]);
    }

    fn with(kind: &str, from: &str, to: &str) -> Vec<String> {
        fields(&kind.replace(from, to))
    }

    #[test]
    fn a_connection_that_cannot_work_or_holds_a_password_is_named() {
        assert_eq!(with(POSTGRES, "user=a", "password=b"), ["postgres.connection"]);
        assert_eq!(with(POSTGRES, "host=/run/postgresql ", ""), ["postgres.connection"]);
        assert_eq!(with(POSTGRES, "user=a", "sslmode=require"), ["postgres.connection"]);
        assert_eq!(with(POSTGRES, "user=a", "prot=1"), ["postgres.connection"]);
        assert_eq!(
            with(POSTGRES, "connection = ", "connection_file = \"/a\"\nconnection = "),
            ["postgres.connection"]
        );
        assert_eq!(with(POSTGRES, "connection = ", "connection_file = "), ["postgres.connection_file"]);
        assert_eq!(with(POSTGRES, "SELECT 1", " "), ["postgres.waiting"]);
        assert_eq!(fields(&format!("{POSTGRES}jobs = \"SELECT 1\"")), ["postgres.jobs"]);
        assert_eq!(with(REDIS, "127", "a:secret@127"), ["redis.url"]);
        assert_eq!(with(HTTP, "127.0.0.1", "a:secret@127.0.0.1"), ["http.url"]);
        assert_eq!(with(HTTP, "url = ", "url_file = "), ["http.url_file"]);
        assert_eq!(with(REDIS, "redis:", "rediss:"), ["redis.url"]);
        assert_eq!(with(REDIS, "redis:", "http:"), ["redis.url"]);
        assert_eq!(with(REDIS, "url = ", "url_file = "), ["redis.url_file"]);
    }

    #[test]
    fn a_place_that_cannot_hold_a_figure_is_named() {
        assert_eq!(with(REDIS, "list = ", "completed_key = "), ["redis.list"]);
        assert_eq!(with(REDIS, "\"jobs\"", "\"\""), ["redis.list"]);
        assert_eq!(fields(&format!("{REDIS}stream = \"s\"")), ["redis.stream"]);
        assert_eq!(fields(&format!("{REDIS}group = \"g\"")), ["redis.group"]);
        assert_eq!(
            fields(&format!("{REDIS}processing_list = \"p\"").replace("list = \"jobs", "stream = \"jobs")),
            ["redis.processing_list"]
        );
        assert_eq!(with(HTTP, "http:", "https:"), ["http.url"]);
        assert_eq!(with(HTTP, "\"/waiting", "\"waiting"), ["http.waiting"]);
        assert_eq!(with(HTTP, "\"json\"", "\"openmetrics\""), ["http.waiting"]);
    }
}
