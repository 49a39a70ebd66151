//! Chromium over its own debugging pipe. Takes commands of the DevTools protocol, gives their
//! answers, and keeps what the browser tells by itself (console, requests, faults) until a check
//! reads it. A browser that does not answer fails the command after [`PATIENCE`]; it is ended with
//! this value, on whatever way that goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::PATIENCE;

/// Names under which Debian, Ubuntu and others have it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// What the browser tells that is kept; the rest is not read by any check.
const KEPT: [&str; 10] = [
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
    "Log.entryAdded",
    "Audits.issueAdded",
    "Network.requestWillBeSent",
    "Network.responseReceived",
    "Network.loadingFinished",
    "Network.loadingFailed",
    "Network.webSocketCreated",
    "Inspector.targetCrashed",
];
/// Notes kept of one run; far above what one makes.
const NOTES_MAX: usize = 200_000;
/// Bytes of one message, a screenshot included.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The pipe's descriptors are 3 (in) and 4 (out); the shell puts our ends there.
const LAUNCH: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null 1>&2";

/// Something that the browser told by itself.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) session: String,
    pub(crate) method: String,
    pub(crate) params: Value,
}

/// A running browser.
pub(crate) struct Chromium {
    pub(crate) pipe: Arc<Pipe>,
    /// What it is, as it says itself.
    pub(crate) version: String,
    child: Child,
    group: Option<Pid>,
    _profile: TempDir,
}

/// The way to it.
pub(crate) struct Pipe {
    stdin: tokio::sync::Mutex<ChildStdin>,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Result<Value, String>>>>,
    number: AtomicU64,
    notes: Mutex<Vec<Note>>,
}

impl Chromium {
    /// The browser of this machine.
    pub(crate) fn find() -> Option<PathBuf> {
        if let Some(named) = std::env::var_os("CHROMIUM") {
            return Some(PathBuf::from(named));
        }
        let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
        let all = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        all.into_iter().find(|path| path.is_file())
    }

    /// Starts it without a window, with a profile that goes with it and no way out of this machine.
    pub(crate) async fn start(program: &Path) -> Result<Self, String> {
        let profile = tempfile::tempdir().map_err(|error| error.to_string())?;
        let log = std::fs::File::create(profile.path().join("log")).map_err(|error| error.to_string())?;
        let mut child = Command::new("sh")
            .args(["-c", LAUNCH])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--no-first-run", "--no-default-browser-check"])
            .args(["--disable-breakpad", "--disable-crash-reporter", "--disable-component-update"])
            .args(["--disable-sync", "--disable-extensions", "--no-proxy-server", "--hide-scrollbars"])
            .args(["--force-color-profile=srgb", "--lang=ja", "--remote-debugging-pipe"])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else { return Err("no pipe".into()) };
        let pipe = Arc::new(Pipe {
            stdin: tokio::sync::Mutex::new(stdin),
            waiting: Mutex::default(),
            number: AtomicU64::new(1),
            notes: Mutex::default(),
        });
        tokio::spawn(hear(Arc::clone(&pipe), stdout));
        let mut chromium = Self { pipe, version: String::new(), child, group, _profile: profile };
        let version = chromium.pipe.call("", "Browser.getVersion", json!({})).await?;
        version["product"].as_str().unwrap_or_default().clone_into(&mut chromium.version);
        // Workers are met before their first line, so that nothing of them is missed.
        chromium.pipe.call("", "Target.setAutoAttach", attach(&["shared_worker", "service_worker"])).await?;
        Ok(chromium)
    }

    /// Ends it as its user does.
    pub(crate) async fn stop(mut self) {
        let _ = self.pipe.call("", "Browser.close", json!({})).await;
        let _ = timeout(PATIENCE, self.child.wait()).await;
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its own processes are in its group: none of them outlives the run.
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Meet targets of these kinds before they run.
pub(crate) fn attach(kinds: &[&str]) -> Value {
    let filter: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true, "filter": filter })
}

impl Pipe {
    /// One command to a session (the browser itself is ""), and its answer.
    pub(crate) async fn call(&self, session: &str, method: &str, params: Value) -> Result<Value, String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap().insert(number, answer);
        let mut message = json!({ "id": number, "method": method, "params": params });
        if !session.is_empty() {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let sent = async {
            self.stdin.lock().await.write_all(&bytes).await.map_err(|error| error.to_string())?;
            answered.await.map_err(|_| String::from("the browser is gone"))?
        };
        let answer = timeout(PATIENCE, sent).await.unwrap_or_else(|_| Err(String::from("no answer")));
        answer.map_err(|error| format!("{method}: {error}"))
    }

    /// What was told by sessions that are wanted.
    pub(crate) fn notes(&self, wanted: impl Fn(&Note) -> bool) -> Vec<Note> {
        self.notes.lock().unwrap().iter().filter(|note| wanted(note)).cloned().collect()
    }

    /// Notes so far.
    pub(crate) fn mark(&self) -> usize {
        self.notes.lock().unwrap().len()
    }

    /// Notes from a mark on.
    pub(crate) fn since(&self, mark: usize) -> Vec<Note> {
        self.notes.lock().unwrap().iter().skip(mark).cloned().collect()
    }
}

async fn hear(pipe: Arc<Pipe>, stdout: ChildStdout) {
    let mut stdout = BufReader::new(stdout);
    let mut bytes = Vec::new();
    while matches!(stdout.read_until(0, &mut bytes).await, Ok(length) if length > 0) {
        if bytes.pop() != Some(0) || bytes.len() > MESSAGE_BYTES_MAX {
            break;
        }
        if let Ok(message) = serde_json::from_slice::<Value>(&bytes) {
            heard(&pipe, message);
        }
        bytes.clear();
    }
    // Who waits still hears that nothing comes any more.
    pipe.waiting.lock().unwrap().clear();
}

fn heard(pipe: &Arc<Pipe>, mut message: Value) {
    if let Some(number) = message["id"].as_u64() {
        let Some(waiting) = pipe.waiting.lock().unwrap().remove(&number) else { return };
        let error = message["error"]["message"].as_str().map(str::to_owned);
        let _ = waiting.send(error.map_or_else(|| Ok(message["result"].take()), Err));
        return;
    }
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    if method == "Target.attachedToTarget" && message["params"]["waitingForDebugger"] == true {
        let session = message["params"]["sessionId"].as_str().unwrap_or_default().to_owned();
        tokio::spawn(greet(Arc::clone(pipe), session));
    }
    let mut notes = pipe.notes.lock().unwrap();
    if KEPT.contains(&method.as_str()) && notes.len() < NOTES_MAX {
        let session = message["sessionId"].as_str().unwrap_or_default().to_owned();
        notes.push(Note { session, method, params: message["params"].take() });
    }
}

/// Listens to a worker that was met, then lets it run.
async fn greet(pipe: Arc<Pipe>, session: String) {
    for method in ["Runtime.enable", "Log.enable", "Network.enable", "Runtime.runIfWaitingForDebugger"] {
        // A kind of worker that lacks a domain says so, and runs all the same.
        let _ = pipe.call(&session, method, json!({})).await;
    }
}
