//! A real aggregator of this build: its PKI, its configuration, its process on free ports of
//! loopback. Gives its addresses and what it says over HTTP; ends the process with this value.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{PATIENCE, until};

/// Lines of its log that are kept.
const LOG_LINES_MAX: usize = 10_000;

/// A directory with everything that an aggregator needs, and the process while it runs.
pub(crate) struct Site {
    directory: TempDir,
    more: String,
    page: Option<SocketAddr>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    intake: SocketAddr,
}

impl Site {
    /// A site whose aggregator runs.
    pub(crate) async fn running(nodes: &[String], more: &str) -> Result<Self, String> {
        let mut site = Self::new(nodes, more)?;
        site.start().await?;
        Ok(site)
    }

    /// A site with certificates for these nodes; nothing runs yet. `more` is put behind its
    /// `[identity]` and `[store]`.
    pub(crate) fn new(nodes: &[String], more: &str) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut made = Command::new(aggregator()?);
        made.args(["pki", "init", "--directory"]).arg(directory.path().join("pki"));
        made.args(nodes.iter().flat_map(|node| ["--node", node]));
        let made = made.output().map_err(|error| error.to_string())?;
        if !made.status.success() {
            return Err(format!("pki init: {}", String::from_utf8_lossy(&made.stderr)));
        }
        Ok(Self { directory, more: more.to_owned(), page: None, process: None })
    }

    /// Starts the aggregator and waits until it serves: the page where it was before.
    pub(crate) async fn start(&mut self) -> Result<(), String> {
        let config = self.config()?;
        let mut child = Command::new(aggregator()?)
            .args(["run", "--config"])
            .arg(&config)
            .env("DIARWATCH_LOG", "info")
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, addresses) = mpsc::sync_channel(1);
        let (pipe, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if let Some(pair) = said_addresses(&line) {
                    let _ = found.try_send(pair);
                }
                let mut kept = kept.lock().unwrap();
                if kept.len() < LOG_LINES_MAX {
                    kept.push(line);
                }
            }
        });
        let waited = tokio::task::spawn_blocking(move || addresses.recv_timeout(PATIENCE)).await;
        let Ok(Ok((intake, page))) = waited else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("the aggregator did not start:\n{}", log.lock().unwrap().join("\n")));
        };
        self.page = Some(page);
        self.process = Some(Process { child, log, intake });
        Ok(())
    }

    /// Ends the aggregator as an operator does.
    pub(crate) async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if let Some(pid) = i32::try_from(process.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if until(async || matches!(process.child.try_wait(), Ok(Some(_)))).await.is_err() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    /// A path of the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the site.
    pub(crate) fn put(&self, name: &str, contents: &str) -> Result<(), String> {
        let path = self.path(name);
        let fail = |error: std::io::Error| format!("{}: {error}", path.display());
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(fail)?;
        std::fs::write(&path, contents).map_err(fail)
    }

    /// Where agents connect.
    pub(crate) fn intake(&self) -> SocketAddr {
        self.process.as_ref().expect("it runs").intake
    }

    /// Where the page is.
    pub(crate) fn page(&self) -> SocketAddr {
        self.page.expect("it ran")
    }

    /// The page's address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.page())
    }

    /// What it said last.
    pub(crate) fn log(&self) -> String {
        let Some(process) = &self.process else { return String::new() };
        let log = process.log.lock().unwrap();
        log[log.len().saturating_sub(30)..].join("\n")
    }

    /// A JSON document of its API.
    pub(crate) async fn json(&self, path: &str) -> Result<Value, String> {
        let whole = timeout(PATIENCE, get(self.page(), path)).await.map_err(|_| "no answer")?;
        let bytes = whole.map_err(|error| format!("{path}: {error}"))?;
        let body = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        serde_json::from_slice(&bytes[body..]).map_err(|error| format!("{path}: {error}"))
    }

    /// Waits until a document of its API is so.
    pub(crate) async fn until(
        &self,
        what: &str,
        path: &str,
        so: impl Fn(&Value) -> bool,
    ) -> Result<(), String> {
        let waited = until(async || self.json(path).await.is_ok_and(|document| so(&document))).await;
        waited.map_err(|error| format!("{error} until {what}; the aggregator said:\n{}", self.log()))
    }

    fn config(&self) -> Result<PathBuf, String> {
        let pki = |name: &str| toml(&self.path("pki").join(name));
        let listen = self.page.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let text = format!(
            "[identity]\nca = {}\ncertificate = {}\nkey = {}\n[store]\ndirectory = {}\n\
             [intake]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"{listen}\"\n{}\n",
            pki("ca.pem"),
            pki("aggregator.pem"),
            pki("aggregator.key"),
            toml(&self.path("store")),
            self.more,
        );
        self.put("aggregator.toml", &text)?;
        Ok(self.path("aggregator.toml"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// The aggregator that was built beside this test.
fn aggregator() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let built = own.ancestors().nth(2).map(|folder| folder.join("diarwatch-aggregator"));
    let missing = "diarwatch-aggregator is not built; try: make build";
    built.filter(|path| path.is_file()).ok_or_else(|| missing.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// A path as a TOML string: JSON's form is one.
fn toml(path: &Path) -> String {
    Value::from(path.display().to_string()).to_string()
}

fn said_addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, rest) = line.split_once("aggregator runs ")?;
    let value = |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok());
    Some((value("intake=")?, value("page=")?))
}
