//! The Docker Engine behind its socket, over HTTP. Takes a container's name; gives what the engine says
//! of it, its log and the engine's events as streams that are read as fast as they are taken, and has it
//! started or sent a signal. An engine that does not answer is given up after a time-out, and nothing
//! that it sends is kept without a bound. Each request has a connection of its own: an engine that is
//! about to stop takes no new ones, and that is how it is seen.

use std::collections::VecDeque;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::identity::provider;
use reqwest::{Client, Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::queue::log::lines::Lines;

mod said;

pub use said::{Container, Event, Health, State};

/// How long the engine may take for the answer to a question, or for the begin of a stream.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read; what `docker inspect` says of a container has some ten thousand.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of one event; it carries the container's labels.
const EVENT_BYTES_MAX: usize = 1 << 16;
/// Past events that are read; the engine keeps 256.
const PAST_EVENTS_MAX: usize = 1_024;
/// Lines without an event after which this is no stream of events.
const GARBLED_MAX: u32 = 16;
/// Bytes of the engine's own words that are passed on.
const WORDS_BYTES_MAX: usize = 240;
/// What happens to containers, and not what health checks and `docker exec` do in them by the second:
/// `{"type":["container"],"event":[...]}`.
const FILTERS: &str = "%7B%22type%22:%5B%22container%22%5D,%22event%22:%5B%22start%22,%22die%22,\
                       %22stop%22,%22kill%22,%22oom%22,%22health_status%22,%22destroy%22,%22rename%22,\
                       %22pause%22,%22unpause%22%5D%7D";

/// The engine, and one container of it.
#[derive(Debug)]
pub struct Engine {
    client: Client,
    socket: PathBuf,
    name: String,
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It is not there, does not answer, or something else answers in its place: for a person.
    #[error("{0}")]
    Away(String),
    /// It does not know the container.
    #[error("container {name}: {message}; correct `container`; `docker ps --all` prints the names")]
    Absent {
        /// The container.
        name: String,
        /// What the engine said.
        message: String,
    },
    /// It said no.
    #[error("container {name}: {message}; try the same with `docker` by hand")]
    Refused {
        /// The container.
        name: String,
        /// The status of HTTP.
        status: u16,
        /// What the engine said.
        message: String,
    },
}

/// A log as it comes.
pub struct LogStream(Response);

impl LogStream {
    /// The next bytes; none at the end. A call that is given up half-way loses none.
    ///
    /// # Errors
    /// When the engine is gone.
    pub async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, String> {
        self.0.chunk().await.map_err(|error| root_cause(&error))
    }
}

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    response: Response,
    lines: Lines,
    ready: VecDeque<Option<Event>>,
    garbled: u32,
}

impl Events {
    /// The next event; none for one that could not be read. A call that is given up half-way loses none.
    ///
    /// # Errors
    /// When the stream ended, or is no stream of events.
    pub async fn next(&mut self) -> Result<Option<Event>, String> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.garbled = if event.is_some() { 0 } else { self.garbled + 1 };
                if self.garbled > GARBLED_MAX {
                    return Err(String::from("what it sends are no events; is another service there?"));
                }
                return Ok(event);
            }
            let chunk = self.response.chunk().await.map_err(|error| root_cause(&error))?;
            let Some(chunk) = chunk else { return Err(String::from("it ended the stream of events")) };
            let ready = &mut self.ready;
            self.lines.take(&chunk, |line, cut| {
                if !line.is_empty() {
                    ready.push_back(Event::read(line).filter(|_| !cut));
                }
            });
        }
    }
}

impl Engine {
    /// An engine that is asked for one container.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(socket: &Path, name: &str) -> Result<Self, String> {
        // It speaks no TLS; an empty configuration keeps it from reading the host's certificates.
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .unix_socket(socket)
            .user_agent(concat!("diarwatch-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| root_cause(&error))?;
        Ok(Self { client, socket: socket.to_owned(), name: name.to_owned() })
    }

    /// What the engine says of the container that has the name now.
    ///
    /// # Errors
    /// When the engine does not answer or does not know the container.
    pub async fn inspect(&self) -> Result<Container, Trouble> {
        let ask = async {
            let response = self.ask(Method::GET, &format!("containers/{}/json", self.name)).await?;
            let container: Container = self.json(response).await?;
            container.check().map_err(|what| self.wrong(what))?;
            Ok(container)
        };
        timeout(ANSWER_TIMEOUT, ask).await.unwrap_or_else(|_| Err(self.silent(ANSWER_TIMEOUT)))
    }

    /// The container's log from a time on; with `follow` it ends when the container does.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub async fn logs(
        &self,
        since: UnixMicros,
        follow: bool,
        tail: Option<usize>,
    ) -> Result<LogStream, Trouble> {
        let tail = tail.map_or_else(|| String::from("all"), |lines| lines.to_string());
        let path = format!(
            "containers/{}/logs?stdout=1&stderr=1&timestamps=1&tail={tail}&follow={}&since={}",
            self.name,
            u8::from(follow),
            instant(since)
        );
        self.stream(&path).await.map(LogStream)
    }

    /// What happens to containers from now on, to all of them: one may get the name meanwhile.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn events(&self) -> Result<Events, Trouble> {
        self.events_of(&format!("events?filters={FILTERS}")).await
    }

    /// What happened to containers between two times, as far as the engine remembers: the last 256
    /// events of all kinds, since it was started.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn past(&self, from: UnixMicros, to: UnixMicros) -> Result<Vec<Event>, Trouble> {
        let path = format!("events?filters={FILTERS}&since={}&until={}", instant(from), instant(to));
        let mut events = self.events_of(&path).await?;
        let mut past = Vec::new();
        let read = async {
            // The stream ends where the time does.
            while let Ok(event) = events.next().await {
                past.extend(event);
                if past.len() >= PAST_EVENTS_MAX {
                    break;
                }
            }
        };
        timeout(ANSWER_TIMEOUT, read).await.map_err(|_| self.silent(ANSWER_TIMEOUT))?;
        Ok(past)
    }

    /// Asks for something to be done to a container, by its name or its id; gives the status.
    ///
    /// # Errors
    /// When the engine does not answer, or says no.
    pub async fn post(&self, container: &str, what: &str, within: Duration) -> Result<u16, Trouble> {
        let path = format!("containers/{container}/{what}");
        let ask = async { self.ask(Method::POST, &path).await.map(|response| response.status().as_u16()) };
        timeout(within, ask).await.unwrap_or_else(|_| Err(self.silent(within)))
    }

    async fn events_of(&self, path: &str) -> Result<Events, Trouble> {
        let response = self.stream(path).await?;
        let lines = Lines::up_to(EVENT_BYTES_MAX);
        Ok(Events { response, lines, ready: VecDeque::new(), garbled: 0 })
    }

    async fn stream(&self, path: &str) -> Result<Response, Trouble> {
        let response = timeout(ANSWER_TIMEOUT, self.ask(Method::GET, path)).await;
        response.unwrap_or_else(|_| Err(self.silent(ANSWER_TIMEOUT)))
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Response, Trouble> {
        let response = self.client.request(method, format!("http://docker/{path}")).send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        // A start of what runs already is "not modified".
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = body(response).await.unwrap_or_default();
        let message = serde_json::from_slice::<said::Refusal>(&body).map(|refusal| refusal.message);
        let message = said::words(&message.unwrap_or_else(|_| status.to_string()), WORDS_BYTES_MAX);
        let name = self.name.clone();
        Err(match status {
            StatusCode::NOT_FOUND => Trouble::Absent { name, message },
            _ => Trouble::Refused { name, status: status.as_u16(), message },
        })
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, Trouble> {
        let body = body(response).await.map_err(|what| self.wrong(&what))?;
        serde_json::from_slice(&body).map_err(|error| self.wrong(&error.to_string()))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Trouble {
        let cause = root_cause(error);
        let hint = if cause.contains("ermission") {
            "add the agent's user to the group docker"
        } else {
            "is the Docker Engine running? Or correct `docker_socket`"
        };
        Trouble::Away(format!("ask the Docker Engine at {}: {cause}; {hint}", self.socket.display()))
    }

    fn silent(&self, after: Duration) -> Trouble {
        let (socket, secs) = (self.socket.display(), after.as_secs());
        Trouble::Away(format!(
            "ask the Docker Engine at {socket}: no answer within {secs} s; restart it when it stays so"
        ))
    }

    fn wrong(&self, what: &str) -> Trouble {
        let socket = self.socket.display();
        Trouble::Away(format!("ask the Docker Engine at {socket}: {what}; is another service there?"))
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        trouble.to_string()
    }
}

/// Seconds with nine digits behind the point, as the engine takes a time.
fn instant(at: UnixMicros) -> String {
    format!("{}.{:06}000", at.0 / 1_000_000, at.0 % 1_000_000)
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("its answer has more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
