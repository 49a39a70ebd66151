//! Questions to a running fleet, by the ways its users have: the agent's socket and HTTP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Ports;

/// For any answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the processes of a fleet.
#[derive(Clone)]
pub struct Asker {
    ports: Ports,
    socket: PathBuf,
    client: Option<reqwest::Client>,
}

/// A worker as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSeen {
    /// What people call it.
    pub service: String,
    /// Its process.
    pub pid: u32,
    /// Whether it is ready.
    pub ready: bool,
}

impl Asker {
    pub(super) fn new(ports: Ports, socket: PathBuf) -> Self {
        Self { ports, socket, client: client().ok() }
    }

    /// The agent's status document.
    pub async fn status(&self) -> Option<Value> {
        timeout(ANSWER_TIMEOUT, ask(&self.socket)).await.ok()?.ok()
    }

    /// The workers that have a process.
    pub async fn workers(&self) -> Vec<WorkerSeen> {
        let status = self.status().await.unwrap_or_default();
        let worker = |row: &Value| {
            Some(WorkerSeen {
                service: row.get("service")?.as_str()?.to_owned(),
                pid: u32::try_from(row.get("pid")?.as_u64()?).ok()?,
                ready: row.get("ready")?.as_bool() == Some(true),
            })
        };
        status.get("workers").and_then(Value::as_array).into_iter().flatten().filter_map(worker).collect()
    }

    /// The aggregator's status document.
    pub async fn fleet(&self) -> Option<Value> {
        self.get(&format!("http://{}/api/v1/status?lang=en", self.ports.page)).await
    }

    /// The messages that the Slack stand-in took: arrival in milliseconds since 1970, and text.
    pub async fn slack(&self) -> Vec<(u64, String)> {
        let rows = self.get(&format!("http://{}/messages", self.ports.slack)).await.unwrap_or_default();
        let message = |row: &Value| {
            Some((row.get("at_ms")?.as_u64()?, row.pointer("/payload/text")?.as_str()?.to_owned()))
        };
        rows.as_array().into_iter().flatten().filter_map(message).collect()
    }

    /// Cuts or restores the cable between agent and aggregator.
    pub async fn cable(&self, cut: bool) -> bool {
        let verb = if cut { "cut" } else { "restore" };
        let Some(client) = &self.client else { return false };
        let sent = client.post(format!("http://{}/{verb}", self.ports.cable_control)).send();
        matches!(timeout(ANSWER_TIMEOUT, sent).await, Ok(Ok(answer)) if answer.status().is_success())
    }

    async fn get(&self, url: &str) -> Option<Value> {
        let request = self.client.as_ref()?.get(url).send();
        timeout(ANSWER_TIMEOUT, request).await.ok()?.ok()?.json().await.ok()
    }
}

/// Plain HTTP on loopback: no roots are needed, and none are looked for.
pub(crate) fn client() -> Result<reqwest::Client, String> {
    let tls = rustls::ClientConfig::builder_with_provider(diarwatch_shared::identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|error| error.to_string())
}

async fn ask(socket: &Path) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"{\"ask\":\"status\"}\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    serde_json::from_slice(&answer).map_err(std::io::Error::other)
}
