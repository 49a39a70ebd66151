//! What the aggregator's tests share: a real `diarwatch-aggregator run` with a PKI of its own on free
//! ports of loopback, and a way to wait for what it shows. Nothing here depends on a fixed time: a
//! wait ends when its condition holds, and fails the test after [`PATIENCE`].
#![allow(dead_code, reason = "each test file is a program of its own and uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by it"
)]

pub(crate) mod agent;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A test that waits longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at what is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// The node that most tests send as, and its neighbour.
pub(crate) const NODE: &str = "gpu-01";
pub(crate) const NEIGHBOUR: &str = "gpu-02";
/// Lines of its log that are kept of a process.
const LOG_LINES_MAX: usize = 100_000;

/// A command of the aggregator's binary, free of this terminal's own settings.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diarwatch-aggregator"));
    command.args(arguments);
    for name in ["DIARWATCH_LOG", "DIARWATCH_AGGREGATOR_CONFIG", "JOURNAL_STREAM", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end; one that does not end is killed and fails the test.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let whole = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let stdout = whole(Box::new(child.stdout.take().unwrap()));
    let stderr = whole(Box::new(child.stderr.take().unwrap()));
    let (looks, mut status) = (PATIENCE.as_millis() / LOOK.as_millis(), None);
    for _ in 0..looks {
        status = child.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        std::thread::sleep(LOOK);
    }
    if status.is_none() {
        child.kill().unwrap();
    }
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let status = status.unwrap_or_else(|| panic!("{arguments:?} did not end: {}", text(&stderr)));
    Output { status, stdout, stderr }
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes a PKI with the binary itself.
pub(crate) fn make_pki(directory: &Path, nodes: &[&str]) {
    let directory = directory.display().to_string();
    let mut arguments = vec!["pki", "init", "--directory", &directory];
    for node in nodes {
        arguments.extend(["--node", node]);
    }
    let made = run(&arguments);
    assert!(made.status.success(), "{}", text(&made.stderr));
}

/// A directory with everything that an aggregator needs, and the process when it runs.
pub(crate) struct Site {
    directory: TempDir,
    more: String,
    log_level: String,
    process: Option<Process>,
}

struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    intake: SocketAddr,
    page: SocketAddr,
}

impl Site {
    /// A site of two nodes; nothing runs yet. `more` is put behind `[identity]` and `[store]`.
    pub(crate) fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        make_pki(&directory.path().join("pki"), &[NODE, NEIGHBOUR]);
        Self { directory, more: more.to_owned(), log_level: String::from("info"), process: None }
    }

    /// A site whose aggregator runs.
    pub(crate) async fn running(more: &str) -> Self {
        let mut site = Self::new(more);
        site.start().await;
        site
    }

    /// How much the next process says, as `DIARWATCH_LOG`.
    pub(crate) fn log_level(&mut self, level: &str) {
        level.clone_into(&mut self.log_level);
    }

    /// A path of the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the site and gives its path as TOML has it.
    pub(crate) fn put(&self, name: &str, contents: &str) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        toml(&self.path(name))
    }

    /// What comes behind `[identity]` and `[store]` from the next start on.
    pub(crate) fn configure(&mut self, more: &str) {
        more.clone_into(&mut self.more);
    }

    /// Writes the configuration and gives its path.
    pub(crate) fn config(&self) -> PathBuf {
        let pki = |name: &str| toml(&self.path("pki").join(name));
        let contents = format!(
            "[identity]\nca = {}\ncertificate = {}\nkey = {}\n[store]\ndirectory = {}\n{}\n",
            pki("ca.pem"),
            pki("aggregator.pem"),
            pki("aggregator.key"),
            toml(&self.path("store")),
            self.more,
        );
        // Port 0: the kernel gives a free one, and the log says which.
        let ports = [("intake", "[intake]"), ("http", "[http]")]
            .into_iter()
            .filter(|(_, table)| !contents.contains(table))
            .map(|(name, _)| format!("[{name}]\nlisten = \"127.0.0.1:0\"\n"));
        self.put("aggregator.toml", &format!("{contents}{}", ports.collect::<String>()));
        self.path("aggregator.toml")
    }

    /// Starts the aggregator and waits until it serves.
    pub(crate) async fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let config = self.config();
        let mut child = command(&["run", "--config", config.to_str().unwrap()])
            .env("DIARWATCH_LOG", &self.log_level)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, addresses) = mpsc::sync_channel(1);
        let (pipe, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok).take(LOG_LINES_MAX) {
                if let Some(pair) = said_addresses(&line) {
                    let _ = found.try_send(pair);
                }
                kept.lock().unwrap().push(line);
            }
        });
        let waited = tokio::task::spawn_blocking(move || addresses.recv_timeout(PATIENCE)).await.unwrap();
        let Ok((intake, page)) = waited else {
            let _ = child.kill();
            panic!("the aggregator did not start:\n{}", log.lock().unwrap().join("\n"));
        };
        self.process = Some(Process { child, log, intake, page });
    }

    /// Ends the aggregator as a power cut does.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }

    /// Asks it to read its configuration again.
    pub(crate) fn hangup(&self) {
        let pid = self.process.as_ref().unwrap().child.id();
        let status = Command::new("kill").args(["-HUP", &pid.to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Ends the aggregator as an operator does; gives its exit number.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("it runs");
        let pid = process.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        process.child.wait().unwrap().code()
    }

    /// Whether the process that was started still lives.
    pub(crate) fn lives(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.child.try_wait().unwrap().is_none())
    }

    /// Where agents connect.
    pub(crate) fn intake(&self) -> SocketAddr {
        self.process.as_ref().expect("it runs").intake
    }

    /// The page's address.
    pub(crate) fn page(&self) -> String {
        format!("http://{}", self.process.as_ref().expect("it runs").page)
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().expect("it runs").log.lock().unwrap().join("\n")
    }

    /// A page as text.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = client().get(format!("{}{path}", self.page())).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// A page as JSON.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A node as `/api/v1/status` shows it.
    pub(crate) async fn node(&self, name: &str) -> Value {
        let status = self.json("/api/v1/status").await;
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["node"] == name).cloned().unwrap_or_default()
    }

    /// A number of `/metrics`, by its name with its labels; 0 when it is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let (_, exposition) = self.get("/metrics").await;
        let line = exposition.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// The rows of an instant query.
    pub(crate) async fn query(&self, query: &str) -> Value {
        let url =
            reqwest::Url::parse_with_params(&format!("{}/api/v1/query", self.page()), [("query", query)]);
        let answer = client().get(url.unwrap()).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["data"]["result"].take()
    }

    /// The alerts that fire, as `name/node`.
    pub(crate) async fn firing(&self) -> Vec<String> {
        let answer = self.json("/api/v1/alerts").await;
        let alerts = answer["data"]["alerts"].as_array().unwrap();
        let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| format!("{}/{}", label(alert, "alertname"), label(alert, "node"))).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        let _ = process.child.kill();
        let _ = process.child.wait();
        if std::thread::panicking() {
            let log = process.log.lock().unwrap();
            eprintln!("the aggregator said:\n{}", log[log.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// A Slack of this process.
pub(crate) struct Slack {
    base: String,
}

impl Slack {
    /// Starts it.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(diarwatch_standins::slack::serve(listener));
        Self { base }
    }

    /// The secret address of its webhook.
    pub(crate) fn webhook(&self) -> String {
        format!("{}/services/T00000000/B00000000/geheimnis", self.base)
    }

    /// The next requests fail so.
    pub(crate) async fn fail(&self, status: u16, retry_after_s: Option<u64>, count: u32) {
        let told = json!({ "fail": { "status": status, "retry_after_s": retry_after_s, "count": count } });
        let answer = client().post(format!("{}/control", self.base)).json(&told).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{told}");
    }

    /// The next requests are dealt with, but answered so much later.
    pub(crate) async fn hang(&self, hang_ms: u64, count: u32) {
        let told = json!({ "hang_ms": hang_ms, "count": count });
        let answer = client().post(format!("{}/control", self.base)).json(&told).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{told}");
    }

    /// How many requests ended so: `accepted`, `failed_on_purpose`, ...
    pub(crate) async fn count(&self, pointer: &str) -> u64 {
        let counts: Value =
            client().get(format!("{}/counts", self.base)).send().await.unwrap().json().await.unwrap();
        counts.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
    }

    /// The messages it took, whole.
    pub(crate) async fn payloads(&self) -> Vec<Value> {
        let answer = client().get(format!("{}/messages", self.base)).send().await.unwrap();
        let messages: Vec<Value> = answer.json().await.unwrap();
        messages.into_iter().map(|mut message| message["payload"].take()).collect()
    }

    /// What a phone shows of the messages it took.
    pub(crate) async fn texts(&self) -> Vec<String> {
        let payloads = self.payloads().await;
        payloads.iter().map(|payload| payload["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The texts, when there are so many.
    pub(crate) async fn texts_when(&self, count: usize) -> Vec<String> {
        until("the messages are there", async || {
            let texts = self.texts().await;
            (texts.len() >= count).then_some(texts)
        })
        .await
    }
}

/// Looks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(answer) = look().await {
                return answer;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// Looks until something is so.
pub(crate) async fn until_so(what: &str, mut so: impl AsyncFnMut() -> bool) {
    until(what, async || so().await.then_some(())).await;
}

/// A client; reqwest is built without a provider of TLS and panics when none is installed.
pub(crate) fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// A path as a TOML string: JSON's form is one.
pub(crate) fn toml(path: &Path) -> String {
    Value::from(path.display().to_string()).to_string()
}

fn said_addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, rest) = line.split_once("aggregator runs ")?;
    let value = |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok());
    Some((value("intake=")?, value("page=")?))
}
