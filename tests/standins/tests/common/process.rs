//! A stand-in as a process of its own: its lines, its answers, its end. Killed when it is dropped.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{client, until};

/// A shipped WAV for a synthetic job.
pub(crate) const PROBE: &[u8] = include_bytes!("../../../../agent/assets/probe.wav");
/// How long nothing is heard of who answers nothing.
const SILENCE: Duration = Duration::from_millis(150);

pub(crate) struct Standin {
    child: Child,
    pub(crate) base: String,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Standin {
    /// Starts one on a free port and waits until it listens.
    pub(crate) async fn start(kind: &str, arguments: &[&str]) -> Self {
        let mut started = Self::spawn(kind, arguments);
        let has_base = || started.lines().iter().any(|line| line.contains("listening on"));
        until(async || has_base()).await;
        let line = started.lines().into_iter().find(|line| line.contains("listening on")).unwrap();
        let address = line.split("listening on ").nth(1).unwrap().split(',').next().unwrap();
        started.base = format!("http://{address}");
        started
    }

    /// Starts one that may end by itself.
    pub(crate) fn spawn(kind: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_diarwatch-standins"))
            .args([kind, "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        keep(child.stdout.take().unwrap(), &lines);
        keep(child.stderr.take().unwrap(), &lines);
        Self { child, base: String::new(), lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far, on both outputs.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line with that text.
    pub(crate) async fn said(&self, text: &str) -> String {
        until(async || self.lines().iter().any(|line| line.contains(text))).await;
        self.lines().into_iter().find(|line| line.contains(text)).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = client().get(format!("{}{path}", self.base)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Posts a body, and gives the status with the answer.
    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let answer = client().post(format!("{}{path}", self.base)).body(body).send().await.unwrap();
        (answer.status(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// Posts a job that is accepted.
    pub(crate) async fn job(&self, json: Value) {
        assert_eq!(self.post("/diarize", json.to_string()).await.0, StatusCode::ACCEPTED);
    }

    /// Posts a job that ends the process, maybe before it has answered.
    pub(crate) async fn last_job(&self, json: Value) {
        drop(client().post(format!("{}/diarize", self.base)).body(json.to_string()).send().await);
    }

    pub(crate) async fn tell(&self, control: Value) {
        assert_eq!(self.post("/control", control.to_string()).await.0, StatusCode::OK);
    }

    /// Whether a question is taken and not answered.
    pub(crate) async fn is_silent(&self) -> bool {
        let asked = client().get(format!("{}/health", self.base)).timeout(SILENCE).send().await;
        asked.is_err_and(|error| error.is_timeout() && !error.is_connect())
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its end, which comes by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        for _ in 0..4_000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        unreachable!("it did not end: {:?}", self.lines());
    }

    /// The signal that ended it.
    pub(crate) async fn killed_by(&mut self) -> Option<i32> {
        self.ended().await.signal()
    }

    /// CPU time of the process, in the kernel's ticks.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn keep(output: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}
