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
use crate::queue::http::HttpConfig;
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
                "write one of the tables [queue.postgres], [queue.redis] or [queue.http]",
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
