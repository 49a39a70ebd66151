//! Which kind a queue's source is: takes a checked configuration, gives the one [`Source`] of it.

use diarwatch_shared::clock::UnixMicros;

use super::http::Http;
use super::postgres::Postgres;
use super::redis::Redis;
use super::{Look, Source};
use crate::config::queue::QueueConfig;

/// The source of a queue.
pub enum Kind {
    /// A PostgreSQL database.
    Postgres(Postgres),
    /// A Redis server.
    Redis(Redis),
    /// A service that tells its figures over HTTP.
    Http(Http),
}

impl Kind {
    /// The source that is configured; none in a configuration that was not checked.
    #[must_use]
    pub fn of(config: &QueueConfig) -> Option<Self> {
        if let Some(postgres) = &config.postgres {
            return Some(Self::Postgres(Postgres::new(postgres.clone(), config.timeout.0)));
        }
        if let Some(redis) = &config.redis {
            return Some(Self::Redis(Redis::new(redis.clone())));
        }
        config.http.as_ref().map(|http| Self::Http(Http::new(http.clone())))
    }

    /// Its name in the configuration and in a status.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Redis(_) => "redis",
            Self::Http(_) => "http",
        }
    }

    /// Whether its numbers are worked out and not counted (推定).
    #[must_use]
    pub fn estimated(&self) -> bool {
        match self {
            Self::Postgres(_) | Self::Redis(_) | Self::Http(_) => false,
        }
    }
}

impl Source for Kind {
    async fn look(&mut self, now: UnixMicros) -> Result<Look, String> {
        match self {
            Self::Postgres(source) => source.look(now).await,
            Self::Redis(source) => source.look(now).await,
            Self::Http(source) => source.look(now).await,
        }
    }
}
