//! The kind `postgres`: jobs in the tables of a database, a query for each figure.
//!
//! Takes queries of the operator's; gives what each returns as its one number, and the jobs that ended.
//! All queries of a look are one read-only transaction of one snapshot, and the server ends a query that
//! takes too long. A look that is dropped half-way, or fails, closes its connection; the next one makes
//! a new one. TLS is not spoken: a database elsewhere is reached through a tunnel to a local port.

mod bytes;

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::reading::Missing;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls, Row};

use self::bytes::{Heads, interval_seconds, numeric, unix_seconds};
use super::bounded::{Bounded, Budget, Stream};
use super::figure::Figure;
use super::jobs::{Jobs, PAGE_JOBS_MAX};
use super::{Ended, Look, Source, secret};
use crate::config::worker::Faults;

/// Where a server listens by default.
const PORT: u16 = 5432;

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
            (None, Some(text)) => match connection(text) {
                Err(problem) => faults.add("postgres.connection", problem, CONNECTION_HINT),
                Ok(config) if config.get_password().is_some() => faults.add(
                    "postgres.connection",
                    "it holds a password",
                    "write the connection into a file that only the agent may read, and its path as connection_file",
                ),
                Ok(_) => {}
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
        if self.jobs.as_ref().is_some_and(|query| !query.contains("$1")) {
            let hint = "let it ask for the new ones only: WHERE finished_at > to_timestamp($1)";
            faults.add("postgres.jobs", "it has no $1", hint);
        }
    }

    fn queries(&self) -> Vec<(Figure, &str)> {
        Figure::ALL.into_iter().filter_map(|figure| Some((figure, self.query(figure)?))).collect()
    }

    fn query(&self, figure: Figure) -> Option<&str> {
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

const CONNECTION_HINT: &str = "write for example \"host=/var/run/postgresql user=diarwatch dbname=jobs\"";

fn connection(text: &str) -> Result<Config, String> {
    let config: Config = text.parse().map_err(|error: Error| said(&error))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("it names no host".into());
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err("it requires TLS, which is not spoken; use a local socket or a tunnel".into());
    }
    Ok(config)
}

/// The source.
pub struct Postgres {
    config: PostgresConfig,
    /// The server ends a query after so long; a little less than the look may take.
    statement_timeout: Duration,
    open: Option<Open>,
    jobs: Jobs,
}

struct Open {
    client: Client,
    budget: Budget,
    /// Ends with this; says why the connection did.
    driver: JoinSet<Result<(), Error>>,
}

impl Postgres {
    /// A source that connects when it is first looked at; a look may take `timeout`.
    #[must_use]
    pub fn new(config: PostgresConfig, timeout: Duration) -> Self {
        Self { config, statement_timeout: timeout.mul_f64(0.8), open: None, jobs: Jobs::default() }
    }
}

impl Source for Postgres {
    async fn look(&mut self, now: UnixMicros) -> Result<Look, String> {
        // Taken, so that a look that fails or is dropped closes it.
        let mut open = match self.open.take() {
            Some(open) if !open.client.is_closed() => open,
            _ => self.connect().await?,
        };
        open.budget.renew();
        match self.ask(&open.client, now).await {
            Ok(look) => {
                self.open = Some(open);
                Ok(look)
            }
            Err(problem) => Err(open.why_closed().await.unwrap_or(problem)),
        }
    }
}

impl Open {
    /// What the connection ended with: a client only knows that it is closed.
    async fn why_closed(&mut self) -> Option<String> {
        if !self.client.is_closed() {
            return None;
        }
        self.driver.join_next().await?.ok()?.err().map(|error| said(&error))
    }
}

impl Postgres {
    async fn connect(&self) -> Result<Open, String> {
        let text = secret::address(self.config.connection_file.as_deref(), self.config.connection.as_deref())
            .await?;
        let mut config = connection(&text)?;
        config.ssl_mode(SslMode::Disable);
        if config.get_application_name().is_none() {
            config.application_name("diarwatch-agent");
        }
        let (stream, budget) = dial(&config).await?;
        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(|error| said(&error))?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let read_only = "SET default_transaction_read_only = on";
        client.batch_execute(read_only).await.map_err(|error| said(&error))?;
        Ok(Open { client, budget, driver })
    }

    async fn ask(&mut self, client: &Client, now: UnixMicros) -> Result<Look, String> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {}",
            self.statement_timeout.as_millis()
        );
        client.batch_execute(&begin).await.map_err(|error| said(&error))?;
        let mut look = Look::default();
        for (figure, query) in self.config.queries() {
            let value =
                number(client, query).await.map_err(|problem| format!("`{}`: {problem}", figure.key()))?;
            look.set(figure, Ok(value));
        }
        let found = match &self.config.jobs {
            Some(query) => Some(
                ended(client, query, self.jobs.ask(now))
                    .await
                    .map_err(|problem| format!("`jobs`: {problem}"))?,
            ),
            None => None,
        };
        client.batch_execute("COMMIT").await.map_err(|error| said(&error))?;
        if let Some(found) = found {
            look.ended = self.jobs.fresh(found, now);
            for figure in [Figure::MeanSeconds, Figure::P95Seconds] {
                if self.config.query(figure).is_none() {
                    look.set(figure, Err(Missing::NotYet));
                }
            }
        }
        Ok(look)
    }
}

fn bounded(stream: impl Stream + 'static) -> (Bounded, Budget) {
    let mut heads = Heads::default();
    Bounded::checked(stream, Box::new(move |bytes| heads.take(bytes)))
}

/// The first host that accepts, as libpq does it.
async fn dial(config: &Config) -> Result<(Bounded, Budget), String> {
    let mut problem = String::new();
    let ports = config.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(PORT);
    let addresses = config.get_hostaddrs();
    let names = config.get_hosts();
    for at in 0..names.len().max(addresses.len()) {
        let (place, dialled) = match (addresses.get(at), names.get(at)) {
            (Some(address), _) => {
                let place = std::net::SocketAddr::new(*address, port(at));
                (place.to_string(), TcpStream::connect(place).await.map(bounded))
            }
            (None, Some(Host::Tcp(name))) => {
                let dialled = TcpStream::connect((name.as_str(), port(at))).await;
                (format!("{name}:{}", port(at)), dialled.map(bounded))
            }
            (None, Some(Host::Unix(folder))) => {
                let path = folder.join(format!(".s.PGSQL.{}", port(at)));
                let dialled = UnixStream::connect(&path).await;
                (path.display().to_string(), dialled.map(bounded))
            }
            (None, None) => break,
        };
        match dialled {
            Ok(dialled) => return Ok(dialled),
            Err(error) => problem = format!("{place}: {error}"),
        }
    }
    Err(problem)
}

async fn number(client: &Client, query: &str) -> Result<f64, String> {
    let row = client.query_typed_opt(query, &[]).await.map_err(|error| said(&error))?;
    let row = row.ok_or("it gives no row; write a query that always gives one, such as SELECT count(*)")?;
    if row.len() != 1 {
        return Err(format!("it gives {} columns; write one that gives one number", row.len()));
    }
    let value: Option<Value> = row.try_get(0).map_err(|error| said(&error))?;
    value.map_or(Ok(0.0), Value::number)
}

async fn ended(client: &Client, query: &str, after: UnixMicros) -> Result<Vec<Ended>, String> {
    let query = query.trim().trim_end_matches(';');
    // Its own line, so that a comment at the end of the query ends before the bracket.
    let page = format!("SELECT * FROM ({query}\n) AS jobs ORDER BY finished_at LIMIT {PAGE_JOBS_MAX}");
    let rows = client
        .query_typed(&page, &[(&after.as_secs_f64(), Type::FLOAT8)])
        .await
        .map_err(|error| said(&error))?;
    rows.iter().map(job).collect()
}

fn job(row: &Row) -> Result<Ended, String> {
    let value = |name: &str| -> Result<Option<f64>, String> {
        if !row.columns().iter().any(|column| column.name() == name) {
            return Ok(None);
        }
        let value: Option<Value> = row.try_get(name).map_err(|error| said(&error))?;
        value.map(|value| value.number().map_err(|problem| format!("`{name}`: {problem}"))).transpose()
    };
    let at =
        value("finished_at")?.ok_or("`finished_at` is NULL in a row; leave out jobs that have not ended")?;
    let at =
        Duration::try_from_secs_f64(at).map_err(|_| format!("`finished_at` is {at}, which is no time"))?;
    Ok(Ended {
        at: UnixMicros(0).plus(at),
        failed: value("failed")?.is_some_and(|failed| failed != 0.0),
        took_seconds: value("seconds")?,
        audio_seconds: value("audio_seconds")?,
    })
}

/// A value that PostgreSQL gave, as a number.
enum Value {
    Number(f64),
    Text(String),
}

impl Value {
    fn number(self) -> Result<f64, String> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => {
                text.trim().parse().map_err(|_| format!("it gives the text {text:?}, which is no number"))
            }
        }
    }
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match *kind {
            Type::BOOL => Self::Number(f64::from(u8::from(bool::from_sql(kind, raw)?))),
            Type::INT2 => Self::Number(f64::from(i16::from_sql(kind, raw)?)),
            Type::INT4 => Self::Number(f64::from(i32::from_sql(kind, raw)?)),
            #[expect(clippy::cast_precision_loss, reason = "a figure is far below 2^53")]
            Type::INT8 => Self::Number(i64::from_sql(kind, raw)? as f64),
            Type::FLOAT4 => Self::Number(f64::from(f32::from_sql(kind, raw)?)),
            Type::FLOAT8 => Self::Number(f64::from_sql(kind, raw)?),
            Type::NUMERIC => Self::Number(numeric(raw).ok_or("it is not a numeric")?),
            Type::INTERVAL => Self::Number(interval_seconds(raw).ok_or("it is not an interval")?),
            Type::TIMESTAMPTZ => Self::Number(unix_seconds(raw).ok_or("it is not a timestamptz")?),
            _ => Self::Text(String::from_sql(kind, raw)?),
        })
    }

    fn accepts(kind: &Type) -> bool {
        const NUMBERS: [Type; 9] = [
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::NUMERIC,
            Type::INTERVAL,
            Type::TIMESTAMPTZ,
        ];
        NUMBERS.contains(kind) || <String as FromSql>::accepts(kind)
    }
}

/// What the server said, or the innermost cause: "db error" tells an operator nothing.
fn said(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        let hint = said.hint().map_or_else(String::new, |hint| format!("; {hint}"));
        return format!("{} ({}){hint}", said.message(), said.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
