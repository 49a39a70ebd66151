//! The kind `redis`: jobs in a list, or in a stream that a consumer group reads.
//!
//! Takes keys; gives the length of the list or the lag of the group, what is worked on, the age of the
//! oldest entry of a stream, and counters. Only commands that read are sent. A look that is dropped
//! half-way, or fails, closes its connection; the next one makes a new one. TLS is not spoken: a server
//! elsewhere is reached through a tunnel to a local port.

use std::path::PathBuf;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::reading::{Missing, Reading};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamInfoGroup, StreamInfoGroupsReply, StreamRangeReply};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    RedisError, cmd,
};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::bounded::{Bounded, Budget};
use super::{Look, Source, secret};
use crate::config::worker::Faults;

/// The id of a stream's entry begins with its time; before this one (2001) it is a number of one's own.
const ENTRY_MILLIS_MIN: u64 = 1_000_000_000_000;

/// A server and the keys that are looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// A file with the address, as `redis://user:password@host:6379/0` or `unix:///run/redis.sock?pass=...`;
    /// read again at each connect. This or `url`.
    pub url_file: Option<PathBuf>,
    /// The address, without a password.
    pub url: Option<String>,
    /// The list whose length is the number of waiting jobs. This or `stream`.
    pub list: Option<String>,
    /// The list of the jobs that are worked on; with `list`.
    pub processing_list: Option<String>,
    /// The stream that jobs are added to. Without `group` all of its entries wait.
    pub stream: Option<String>,
    /// The consumer group that works the stream off: its lag waits, what it has not acknowledged is worked on.
    pub group: Option<String>,
    /// A counter of the jobs completed so far.
    pub completed_key: Option<String>,
    /// A counter of the jobs failed so far.
    pub failed_key: Option<String>,
}

const URL_HINT: &str = "write for example \"redis://127.0.0.1:6379/0\" or \"unix:///run/redis/redis.sock\"";

impl RedisConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        self.check_address(faults);
        match (&self.list, &self.stream) {
            (None, None) => {
                faults.add(
                    "redis.list",
                    "it is missing",
                    "write the key of a list, or of a stream as stream",
                );
            }
            (Some(_), Some(_)) => faults.add("redis.stream", "it stands beside list", "keep one of them"),
            (Some(_), None) if self.group.is_some() => {
                faults.add(
                    "redis.group",
                    "a list has no groups",
                    "write stream instead of list, or leave it out",
                );
            }
            (None, Some(_)) if self.processing_list.is_some() => faults.add(
                "redis.processing_list",
                "it stands beside stream",
                "leave it out: what a group has not acknowledged is worked on",
            ),
            _ => {}
        }
        let keys = [
            ("list", &self.list),
            ("processing_list", &self.processing_list),
            ("stream", &self.stream),
            ("group", &self.group),
            ("completed_key", &self.completed_key),
            ("failed_key", &self.failed_key),
        ];
        for (field, _) in keys.iter().filter(|(_, key)| key.as_ref().is_some_and(String::is_empty)) {
            faults.add(format!("redis.{field}"), "it is empty", "write its name, or leave it out");
        }
    }

    fn check_address(&self, faults: &mut Faults) {
        match (&self.url_file, &self.url) {
            (Some(file), None) if !file.is_absolute() => faults.add(
                "redis.url_file",
                format!("`{}` is not an absolute path", file.display()),
                "write it from `/` on",
            ),
            (Some(_), None) => {}
            (None, Some(url)) => match address(url) {
                Err(problem) => faults.add("redis.url", problem, URL_HINT),
                Ok(info) if info.redis_settings().password().is_some() => faults.add(
                    "redis.url",
                    "it holds a password",
                    "write the address into a file that only the agent may read, and its path as url_file",
                ),
                Ok(_) => {}
            },
            (None, None) => faults.add("redis.url", "it is missing", URL_HINT),
            (Some(_), Some(_)) => faults.add("redis.url", "it stands beside url_file", "keep one of them"),
        }
    }
}

fn address(url: &str) -> Result<ConnectionInfo, String> {
    let known = ["redis://", "unix://", "rediss://"].iter().any(|scheme| url.starts_with(scheme));
    if !known {
        return Err("it is no address of a Redis server".into());
    }
    if url.starts_with("rediss://") {
        return Err("it asks for TLS, which is not spoken; use a local socket or a tunnel".into());
    }
    url.into_connection_info().map_err(|error| said(&error))
}

/// The source.
pub struct Redis {
    config: RedisConfig,
    open: Option<Open>,
}

struct Open {
    connection: MultiplexedConnection,
    budget: Budget,
    /// Ends with this.
    driver: JoinSet<()>,
}

impl Redis {
    /// A source that connects when it is first looked at.
    #[must_use]
    pub fn new(config: RedisConfig) -> Self {
        Self { config, open: None }
    }
}

impl Source for Redis {
    async fn look(&mut self, now: UnixMicros) -> Result<Look, String> {
        // Taken, so that a look that fails or is dropped closes it.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        // A connection that the server has closed meanwhile is no failure of this look.
        if open.driver.try_join_next().is_some() {
            open = self.connect().await?;
        }
        open.budget.renew();
        let mut look = Look::default();
        match (&self.config.list, &self.config.stream) {
            (Some(list), _) => self.list(&mut open.connection, list, &mut look).await?,
            (None, Some(stream)) => self.stream(&mut open.connection, stream, &mut look, now).await?,
            (None, None) => {}
        }
        let counters = [
            (&self.config.completed_key, &mut look.completed_total),
            (&self.config.failed_key, &mut look.failed_total),
        ];
        for (key, place) in counters {
            if let Some(key) = key {
                *place = counter(&mut open.connection, key).await?;
            }
        }
        self.open = Some(open);
        Ok(look)
    }
}

impl Redis {
    async fn connect(&self) -> Result<Open, String> {
        let url = secret::address(self.config.url_file.as_deref(), self.config.url.as_deref()).await?;
        let info = address(&url)?;
        let (stream, budget) = match info.addr() {
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                Bounded::new(stream)
            }
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                Bounded::new(stream.map_err(|error| format!("{host}:{port}: {error}"))?)
            }
            _ => return Err("it asks for TLS, which is not spoken; use a local socket or a tunnel".into()),
        };
        // The look has a time-out of its own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await;
        let (connection, driving) = connection.map_err(|error| said(&error))?;
        let mut driver = JoinSet::new();
        driver.spawn(driving);
        Ok(Open { connection, budget, driver })
    }

    async fn list(
        &self,
        connection: &mut MultiplexedConnection,
        list: &str,
        look: &mut Look,
    ) -> Result<(), String> {
        look.waiting = Ok(length(connection, "LLEN", list).await?);
        if let Some(list) = &self.config.processing_list {
            look.processing = Ok(length(connection, "LLEN", list).await?);
        }
        Ok(())
    }

    async fn stream(
        &self,
        connection: &mut MultiplexedConnection,
        stream: &str,
        look: &mut Look,
        now: UnixMicros,
    ) -> Result<(), String> {
        let first = match &self.config.group {
            Some(name) => {
                let group = group(connection, stream, name).await?;
                let lag = group.lag.ok_or_else(|| {
                    format!(
                        "the server cannot tell the lag of group `{name}` of `{stream}`: it is older than Redis 7, or \
                         waiting entries were deleted; `XGROUP SETID {stream} {name} ID ENTRIESREAD N` sets it right"
                    )
                })?;
                look.waiting = Ok(float(lag));
                look.processing = Ok(float(group.pending));
                format!("({}", group.last_delivered_id)
            }
            None => {
                look.waiting = Ok(length(connection, "XLEN", stream).await?);
                String::from("-")
            }
        };
        look.oldest_seconds = oldest(connection, stream, &first, now).await?;
        Ok(())
    }
}

async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<T, RedisError> {
    command.query_async(connection).await
}

async fn length(connection: &mut MultiplexedConnection, word: &str, key: &str) -> Result<f64, String> {
    let length: Result<u64, _> = ask(connection, cmd(word).arg(key)).await;
    length.map(float).map_err(|error| format!("{word} {key}: {}", said(&error)))
}

/// A counter that nobody has counted up yet is not there, and 0.
async fn counter(connection: &mut MultiplexedConnection, key: &str) -> Result<Reading, String> {
    let value: Option<String> =
        ask(connection, cmd("GET").arg(key)).await.map_err(|error| format!("GET {key}: {}", said(&error)))?;
    let Some(text) = value else { return Ok(Ok(0.0)) };
    let count = text.trim().parse().map_err(|_| format!("GET {key}: {text:?} is no number"))?;
    Ok(Ok(count))
}

async fn group(
    connection: &mut MultiplexedConnection,
    stream: &str,
    name: &str,
) -> Result<StreamInfoGroup, String> {
    let groups: Result<StreamInfoGroupsReply, _> =
        ask(connection, cmd("XINFO").arg("GROUPS").arg(stream)).await;
    let groups = groups.map_err(|error| format!("XINFO GROUPS {stream}: {}", said(&error)))?;
    groups.groups.into_iter().find(|group| group.name == name).ok_or_else(|| {
        format!("the stream `{stream}` has no group `{name}`; correct the name or make the group")
    })
}

async fn oldest(
    connection: &mut MultiplexedConnection,
    stream: &str,
    first: &str,
    now: UnixMicros,
) -> Result<Reading, String> {
    let range = cmd("XRANGE").arg(stream).arg(first).arg("+").arg("COUNT").arg(1).to_owned();
    let entries: Result<StreamRangeReply, _> = ask(connection, &range).await;
    let entries = entries.map_err(|error| format!("XRANGE {stream}: {}", said(&error)))?;
    let Some(entry) = entries.ids.first() else { return Ok(Ok(0.0)) };
    let millis = entry.id.split('-').next().and_then(|millis| millis.parse::<u64>().ok());
    Ok(match millis {
        Some(millis) if millis >= ENTRY_MILLIS_MIN => {
            Ok(now.since(UnixMicros(millis.saturating_mul(1_000))).as_secs_f64())
        }
        _ => Err(Missing::NotSupported),
    })
}

#[expect(clippy::cast_precision_loss, reason = "jobs are far below 2^53")]
fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

/// What the server said, or what went wrong on the way.
fn said(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}
