//! The Docker Engine behind its socket: two questions over HTTP. Takes a container's name; gives
//! whether it runs and since when, and its log as a stream of bytes, read as fast as it is taken. An
//! engine that does not answer is given up after [`ANSWER_TIMEOUT`].

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::identity::provider;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use super::stamp::Stamp;

/// How long the engine may take for the answer to a question, or for the begin of a stream.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read; what `docker inspect` says of a container has some ten thousand.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of the engine's own words that are passed on.
const WORDS_BYTES_MAX: usize = 240;

/// The engine, and one container of it.
pub struct Engine {
    client: Client,
    socket: PathBuf,
    name: String,
}

/// What the engine says of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Whether its process lives.
    pub running: bool,
    /// When it was last started.
    pub started: UnixMicros,
    /// Whether it has a terminal: its log is raw then.
    pub terminal: bool,
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

    /// Whether the container runs, and since when.
    ///
    /// # Errors
    /// When the engine does not answer or does not know the container.
    pub async fn inspect(&self) -> Result<Inspected, String> {
        let ask = async {
            let response = self.get(&format!("containers/{}/json", self.name)).await?;
            let body = body(response).await?;
            let said: Said = serde_json::from_slice(&body).map_err(|error| self.wrong(&error.to_string()))?;
            // A container that was created and never started says the year 1.
            let started = Stamp::find(&said.state.started_at).and_then(|stamp| stamp.instant(None));
            Ok(Inspected {
                running: said.state.running,
                started: started.unwrap_or_default(),
                terminal: said.config.tty,
            })
        };
        timeout(ANSWER_TIMEOUT, ask).await.unwrap_or_else(|_| Err(self.silent()))
    }

    /// The container's log from a time on, or its last `tail` lines of those; with `follow` it ends when
    /// the container does.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub async fn logs(
        &self,
        since: UnixMicros,
        follow: bool,
        tail: Option<usize>,
    ) -> Result<LogStream, String> {
        let (seconds, micros) = (since.0 / 1_000_000, since.0 % 1_000_000);
        let tail = tail.map_or_else(|| String::from("all"), |lines| lines.to_string());
        let path = format!(
            "containers/{}/logs?stdout=1&stderr=1&timestamps=1&tail={tail}&follow={}&since={seconds}.{micros:06}000",
            self.name,
            u8::from(follow)
        );
        let response = timeout(ANSWER_TIMEOUT, self.get(&path)).await;
        response.unwrap_or_else(|_| Err(self.silent())).map(LogStream)
    }

    async fn get(&self, path: &str) -> Result<Response, String> {
        let response = self.client.get(format!("http://docker/{path}")).send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = body(response).await.unwrap_or_default();
        let message = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.message);
        let message = message.unwrap_or_else(|_| status.to_string());
        let message: String = message.chars().filter(|c| !c.is_control()).collect();
        let message = message.get(..message.floor_char_boundary(WORDS_BYTES_MAX)).unwrap_or_default();
        let hint = if status == StatusCode::NOT_FOUND {
            "correct `container`; `docker ps --all` prints the names"
        } else {
            "try the same with `docker logs` by hand"
        };
        Err(format!("read the log of container {}: {message}; {hint}", self.name))
    }

    fn unreachable(&self, error: &reqwest::Error) -> String {
        let cause = root_cause(error);
        let hint = if cause.contains("ermission") {
            "add the agent's user to the group docker"
        } else {
            "is the Docker Engine running? Or correct `docker_socket`"
        };
        format!("ask the Docker Engine at {}: {cause}; {hint}", self.socket.display())
    }

    fn silent(&self) -> String {
        format!(
            "ask the Docker Engine at {}: no answer within {} s; restart it when it stays so",
            self.socket.display(),
            ANSWER_TIMEOUT.as_secs()
        )
    }

    fn wrong(&self, what: &str) -> String {
        format!("ask the Docker Engine at {}: {what}; is another service there?", self.socket.display())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    state: SaidState,
    config: SaidConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SaidState {
    running: bool,
    #[serde(default)]
    started_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SaidConfig {
    #[serde(default)]
    tty: bool,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("the engine's answer has more than {ANSWER_BYTES_MAX} bytes"));
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
