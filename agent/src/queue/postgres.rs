//! The kind `postgres`: jobs in the tables of a database, a query for each figure.
//!
//! Takes queries of the operator's; gives what each returns as its one number, and the jobs that ended.
//! All queries of a look are one read-only transaction of one snapshot, and the server ends a query that
//! takes too long. A look that is dropped half-way, or fails, closes its connection; the next one makes
//! a new one. TLS is not spoken: a database elsewhere is reached through a tunnel to a local port.

mod config;
mod decode;

use std::error::Error as _;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::reading::Missing;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls, Row};

use self::decode::{Heads, interval_seconds, numeric, unix_seconds};
use super::bounded::{Bounded, Budget, Stream};
use super::figure::Figure;
use super::jobs::{Jobs, PAGE_JOBS_MAX};
use super::{Ended, Look, Source, UNDER_WAY_MAX, UnderWay, secret};

pub use self::config::PostgresConfig;

/// Where a server listens by default.
const PORT: u16 = 5432;

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

/// Whether a connection holds a password.
fn has_password(text: &str) -> Result<bool, String> {
    connection(text).map(|config| config.get_password().is_some())
}

/// Runs one statement that changes something, for a hook; gives how many rows it changed or gave. `value`
/// stands for `$1`, whatever its type: the server reads it as it reads a literal. A statement without `$1`
/// is run as it is.
///
/// # Errors
/// When it cannot be run, takes longer than `limit`, or changes no row: what the server said.
pub async fn execute(
    (file, plain): (Option<&Path>, Option<&str>),
    statement: &str,
    value: &str,
    limit: Duration,
) -> Result<String, String> {
    let open = open(file, plain).await?;
    let problem = |error: Error| said(&error);
    let bound = format!("SET statement_timeout = {}", limit.as_millis());
    open.client.batch_execute(&bound).await.map_err(problem)?;
    let prepared = open.client.prepare(statement).await.map_err(problem)?;
    let value = Literal(value);
    let values: &[&(dyn ToSql + Sync)] = match prepared.params().len() {
        0 => &[],
        1 => &[&value],
        more => return Err(format!("the statement has {more} parameters; only $1 stands for something")),
    };
    match open.client.execute(&prepared, values).await.map_err(problem)? {
        0 => Err(String::from(
            "the statement changed no row: is the name in the table, and in the right state?",
        )),
        1 => Ok(String::from("1 row")),
        rows => Ok(format!("{rows} rows")),
    }
}

/// A text that the server reads as a value of whatever type it wants.
#[derive(Debug)]
struct Literal<'a>(&'a str);

impl ToSql for Literal<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// The source.
pub struct Postgres {
    config: Box<PostgresConfig>,
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
        Self {
            config: Box::new(config),
            statement_timeout: timeout.mul_f64(0.8),
            open: None,
            jobs: Jobs::default(),
        }
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
        let config = &self.config;
        let open = open(config.connection_file.as_deref(), config.connection.as_deref()).await?;
        let read_only = "SET default_transaction_read_only = on";
        open.client.batch_execute(read_only).await.map_err(|error| said(&error))?;
        Ok(open)
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
        if let Some(query) = &self.config.under_way {
            let told = under_way(client, query).await;
            look.under_way = told.map_err(|problem| format!("`under_way`: {problem}"))?;
        }
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

async fn open(file: Option<&Path>, plain: Option<&str>) -> Result<Open, String> {
    let mut config = connection(&secret::address(file, plain).await?)?;
    config.ssl_mode(SslMode::Disable);
    if config.get_application_name().is_none() {
        config.application_name("diarwatch-agent");
    }
    let (stream, budget) = dial(&config).await?;
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(|error| said(&error))?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    Ok(Open { client, budget, driver })
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

async fn under_way(client: &Client, query: &str) -> Result<Vec<UnderWay>, String> {
    let query = query.trim().trim_end_matches(';');
    // An id may be of any type; those that are worked on come first, then the oldest.
    let page = format!(
        "SELECT jobs.id::text AS id_as_text, jobs.* FROM ({query}\n) AS jobs \
         ORDER BY started IS NULL, since LIMIT {UNDER_WAY_MAX}"
    );
    let rows = client.query_typed(&page, &[]).await.map_err(|error| said(&error))?;
    let job = |row: &Row| {
        Ok(UnderWay {
            id: row.try_get("id_as_text").map_err(|error| said(&error))?,
            since: instant(row, "since")?.ok_or("`since` is NULL in a row; write when the job came in")?,
            started: instant(row, "started")?,
            audio_seconds: value(row, "audio_seconds")?,
        })
    };
    rows.iter().map(job).collect()
}

fn job(row: &Row) -> Result<Ended, String> {
    let at = instant(row, "finished_at")?
        .ok_or("`finished_at` is NULL in a row; leave out jobs that have not ended")?;
    Ok(Ended {
        at,
        failed: value(row, "failed")?.is_some_and(|failed| failed != 0.0),
        took_seconds: value(row, "seconds")?,
        audio_seconds: value(row, "audio_seconds")?,
    })
}

/// A column as a number; none where there is no such column, or NULL in it.
fn value(row: &Row, name: &str) -> Result<Option<f64>, String> {
    if !row.columns().iter().any(|column| column.name() == name) {
        return Ok(None);
    }
    let value: Option<Value> = row.try_get(name).map_err(|error| said(&error))?;
    value.map(|value| value.number().map_err(|problem| format!("`{name}`: {problem}"))).transpose()
}

fn instant(row: &Row, name: &str) -> Result<Option<UnixMicros>, String> {
    let Some(at) = value(row, name)? else { return Ok(None) };
    let at = Duration::try_from_secs_f64(at).map_err(|_| format!("`{name}` is {at}, which is no time"))?;
    Ok(Some(UnixMicros(0).plus(at)))
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
