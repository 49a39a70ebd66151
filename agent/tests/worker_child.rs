//! Real workers under the real shell: a process is killed, seen, restarted and ready again; a probe
//! that hangs delays nothing; a stop leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of a test")]

use std::path::Path;
use std::time::Duration;

use diarwatch_agent::config::worker::WorkerConfig;
use diarwatch_agent::judge::Phase;
use diarwatch_agent::workers::{self, Ground, WorkerOutput, WorkerStatus};
use diarwatch_shared::event::What;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// A test that waits longer than this has failed; nothing else here depends on time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the workers gave, looked at one by one.
struct Watch {
    outputs: mpsc::Receiver<WorkerOutput>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Vec<()>>,
    status: Option<WorkerStatus>,
}

impl Watch {
    fn start(configs: Vec<WorkerConfig>, capacity: usize) -> Self {
        let (out, outputs) = mpsc::channel(capacity);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for config in configs {
            let (_, orders) = mpsc::channel(1);
            let (ground, stopped) = (Ground::bare(out.clone()), stopped.clone());
            tasks.spawn(workers::start(config, ground, orders, stopped).unwrap().join_all());
        }
        Self { outputs, stop, tasks, status: None }
    }

    /// The next event; statuses on the way are kept.
    async fn event(&mut self) -> What {
        loop {
            let output = tokio::time::timeout(PATIENCE, self.outputs.recv()).await;
            match output.expect("something happens").expect("the workers are looked after") {
                WorkerOutput::Event(event) => return event.what,
                WorkerOutput::Status(status) => self.status = Some(*status),
                WorkerOutput::Gone(worker) => panic!("{worker} is gone"),
            }
        }
    }

    /// The next status that fits; events on the way are an error.
    async fn status(&mut self, fits: impl Fn(&WorkerStatus) -> bool) -> WorkerStatus {
        loop {
            if let Some(status) = self.status.take_if(|status| fits(status)) {
                return status;
            }
            let output = tokio::time::timeout(PATIENCE, self.outputs.recv()).await;
            match output.expect("a status comes").expect("the workers are looked after") {
                WorkerOutput::Status(status) => self.status = Some(*status),
                WorkerOutput::Event(event) => panic!("{event:?}"),
                WorkerOutput::Gone(worker) => panic!("{worker} is gone"),
            }
        }
    }

    async fn started(&mut self) -> u32 {
        match self.event().await {
            What::WorkerStarted { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    async fn stop(mut self) {
        self.stop.send(true).unwrap();
        while let Some(ended) = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await.unwrap() {
            ended.unwrap();
        }
    }
}

fn worker(url: &str, more: &str) -> WorkerConfig {
    let text = format!(
        "name = \"pyannote-1\"\nservice = \"pyannote #1\"\ndriver = \"child\"\n\
         command = [\"/bin/sh\", \"-c\", \"exec sleep 1000\"]\nbackoff_base = \"100ms\"\n\
         proof = {{ readiness = 1 }}\n{more}\n\
         [readiness]\nurl = \"{url}\"\ninterval = \"100ms\"\njson_pointer = \"/status\"\nequals = \"ready\"\n"
    );
    let config: WorkerConfig = diarwatch_shared::config::parse(Path::new("a.toml"), &text).unwrap();
    assert_eq!(config.validate(), []);
    config
}

/// A readiness endpoint whose body alone tells, and that can be turned.
async fn readiness() -> (String, watch::Sender<&'static str>) {
    let (turn, body) = watch::channel(r#"{"status":"ready"}"#);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ready", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let body = *body.borrow();
            answer(stream, body).await;
        }
    });
    (url, turn)
}

async fn answer(mut stream: TcpStream, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    drop(stream.read(&mut [0; 2048]).await);
    drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

#[tokio::test]
async fn a_killed_worker_is_seen_restarted_and_ready_again() {
    let (url, _turn) = readiness().await;
    let mut watch = Watch::start(vec![worker(&url, "")], 64);
    let first = watch.started().await;
    assert!(matches!(watch.event().await, What::WorkerReady { down_ms: None, .. }));
    let status = watch.status(|status| status.phase == Phase::Ready).await;
    assert_eq!((status.ready, status.pid, status.restarts), (Some(true), Some(first), 0));
    assert_eq!((status.service.as_str(), status.last_exit), ("pyannote #1", None));

    kill_process(pid_of(first), Signal::KILL).unwrap();
    let What::WorkerExited { pid, reason, attempt, restart_in_ms, .. } = watch.event().await else {
        panic!("the exit is told first");
    };
    assert_eq!((pid, reason.as_str(), attempt), (Some(first), "signal 9 (SIGKILL)", 1));
    assert!((50..=100).contains(&restart_in_ms), "{restart_in_ms}");

    let second = watch.started().await;
    assert_ne!(second, first);
    let What::WorkerReady { down_ms: Some(down_ms), load_ms, .. } = watch.event().await else {
        panic!("a worker that was lost comes back with how long it was away");
    };
    assert!(down_ms >= load_ms + restart_in_ms, "{down_ms} {load_ms} {restart_in_ms}");
    let status = watch.status(|status| status.phase == Phase::Ready && status.pid == Some(second)).await;
    assert_eq!((status.ready, status.restarts), (Some(true), 1));
    assert_eq!(status.last_exit.as_deref(), Some("signal 9 (SIGKILL)"));
    assert_eq!(status.last_probe.unwrap().verdict, "ready");

    watch.stop().await;
    assert!(test_kill_process(pid_of(second)).is_err(), "a stop ends the worker");
}

#[tokio::test]
async fn a_worker_that_says_it_is_not_ready_is_told_of_and_left_alone() {
    let (url, turn) = readiness().await;
    let mut watch = Watch::start(vec![worker(&url, "")], 64);
    let pid = watch.started().await;
    assert!(matches!(watch.event().await, What::WorkerReady { .. }));
    turn.send(r#"{"status":"not_ready","reason":"CUDA error"}"#).unwrap();
    let What::WorkerNotReady { reason, .. } = watch.event().await else { panic!("it is told") };
    assert_eq!(reason, "CUDA error");
    let status = watch.status(|status| status.phase == Phase::NotReady).await;
    assert_eq!((status.ready, status.pid), (Some(false), Some(pid)));
    turn.send(r#"{"status":"ready"}"#).unwrap();
    assert!(matches!(watch.event().await, What::WorkerReady { down_ms: Some(_), .. }));
    assert!(test_kill_process(pid_of(pid)).is_ok());
    watch.stop().await;
}

#[tokio::test]
async fn a_probe_that_hangs_does_not_delay_seeing_an_exit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut config = worker(&url, "");
    config.readiness.timeout = diarwatch_shared::quantity::Span::secs(3_600);
    let mut watch = Watch::start(vec![config], 64);
    let pid = watch.started().await;
    let (_hanging, _) = listener.accept().await.unwrap();
    kill_process(pid_of(pid), Signal::KILL).unwrap();
    assert!(matches!(watch.event().await, What::WorkerExited { .. }));
    assert_ne!(watch.started().await, pid);
    watch.stop().await;
}

#[tokio::test]
async fn events_wait_for_a_slow_next_stage_and_restarts_do_not() {
    let (url, _turn) = readiness().await;
    let mut config = worker(&url, "backoff_max = \"100ms\"");
    config.supervise.restarts_max = u32::MAX;
    config.command = vec!["/bin/sh".into(), "-c".into(), "echo x >> $RUNS".into()];
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("runs");
    config.environment.0.insert("RUNS".into(), runs.display().to_string());
    let mut watch = Watch::start(vec![config], 1);
    while std::fs::read_to_string(&runs).unwrap_or_default().lines().count() < 5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for attempt in 1..5 {
        watch.started().await;
        let exited = watch.event().await;
        assert!(matches!(exited, What::WorkerExited { attempt: told, .. } if told == attempt), "{exited:?}");
    }
    while watch.status.as_ref().is_none_or(|status| status.statuses_dropped == 0) {
        watch.event().await;
    }
    watch.stop().await;
}

#[tokio::test]
async fn all_workers_are_stopped_together_though_nobody_takes_their_events() {
    let (url, _turn) = readiness().await;
    let workers: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let mut config = worker(&url, "stop_grace = \"1h\"");
            config.name = diarwatch_shared::node::WorkerId::new(name).unwrap();
            config
        })
        .collect();
    let mut watch = Watch::start(workers, 64);
    let pids = [watch.started().await, watch.started().await, watch.started().await];
    watch.stop().await;
    for pid in pids {
        assert!(test_kill_process(pid_of(pid)).is_err());
    }
}

#[tokio::test]
async fn a_status_comes_even_when_nothing_changes() {
    let mut config = worker("http://127.0.0.1:9/", "");
    config.readiness.interval = diarwatch_shared::quantity::Span::secs(3_600);
    let mut watch = Watch::start(vec![config], 64);
    watch.started().await;
    let first = watch.status(|status| status.pid.is_some()).await;
    let second = watch.status(|status| status.pid.is_some()).await;
    assert_eq!((first.pid, first.phase, first.since), (second.pid, second.phase, second.since));
    watch.stop().await;
}
