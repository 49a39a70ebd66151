//! Which kind a queue's source is: takes a checked configuration, gives the one [`Source`] of it.

use diarwatch_shared::clock::UnixMicros;

use super::directory::Directory;
use super::http::Http;
use super::log::Log;
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
    /// Files in directories.
    Directory(Directory),
    /// Lines of a worker's log.
    Log(Log),
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
        if let Some(http) = &config.http {
            return Some(Self::Http(Http::new(http.clone())));
        }
        if let Some(directory) = &config.directory {
            return Some(Self::Directory(Directory::new(directory)));
        }
        config.log.as_ref().map(|log| Self::Log(Log::new(log.clone())))
    }

    /// Its name in the configuration and in a status.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Redis(_) => "redis",
            Self::Http(_) => "http",
            Self::Directory(_) => "directory",
            Self::Log(_) => "log",
        }
    }

    /// Whether its numbers are worked out and not counted (推定).
    #[must_use]
    pub fn estimated(&self) -> bool {
        match self {
            Self::Postgres(_) | Self::Redis(_) | Self::Http(_) | Self::Directory(_) => false,
            Self::Log(_) => true,
        }
    }
}

impl Source for Kind {
    async fn look(&mut self, now: UnixMicros) -> Result<Look, String> {
        match self {
            Self::Postgres(source) => source.look(now).await,
            Self::Redis(source) => source.look(now).await,
            Self::Http(source) => source.look(now).await,
            Self::Directory(source) => source.look(now).await,
            Self::Log(source) => source.look(now).await,
        }
    }
}
