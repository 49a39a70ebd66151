//! A pyannote worker as the first users run it: takes probes, answers both endpoints with 200 while
//! it lives; the body alone tells whether it is ready. It loads its model first, and can be told
//! (`POST /control`, or a scenario file) to be not ready, to hang, to heal, to exit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use diarwatch_shared::clock;
use diarwatch_shared::quantity::{Span, parse_duration};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::command::{StandinError, listen, until_stopped};
use crate::http;

/// Bytes of a control message.
const CONTROL_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a scenario file.
const SCENARIO_BYTES_MAX: u64 = 1024 * 1024;
/// Steps of a scenario.
const STEPS_MAX: usize = 1_024;

/// The command line of the worker.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address to serve on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// How long the model loads; until then the worker is not ready
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration)]
    load: Duration,
    /// JSON list of controls and their times: [{"after": "10s", "control": {"hang": true}}]
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

/// What a worker is told to do; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Ready, whatever was said before and even while the model loads; or not.
    ready: Option<bool>,
    /// Why it is not ready.
    reason: Option<String>,
    /// Answers nothing on `/health` and `/ready`, until told otherwise.
    hang: Option<bool>,
    /// Exits with this number.
    exit: Option<u8>,
}

/// A control at its time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Time since the start.
    after: Span,
    /// What it is told then.
    control: Control,
}

/// What a worker is at a moment. Pure: the time is since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Worker {
    load: Duration,
    told: Option<Result<(), String>>,
    hung: bool,
    exit: Option<u8>,
}

impl Worker {
    fn new(load: Duration) -> Self {
        Self { load, told: None, hung: false, exit: None }
    }

    fn obey(&mut self, control: Control) {
        match control.ready {
            Some(true) => self.told = Some(Ok(())),
            Some(false) => self.told = Some(Err(control.reason.unwrap_or_else(|| "told so".to_owned()))),
            None => {}
        }
        self.hung = control.hang.unwrap_or(self.hung);
        self.exit = control.exit.or(self.exit);
    }

    /// The body of `/ready`; its status is 200 in any case.
    fn readiness(&self, since_start: Duration) -> Value {
        let loading = || Err("model loading".to_owned());
        let found =
            self.told.clone().unwrap_or_else(|| if since_start < self.load { loading() } else { Ok(()) });
        match found {
            Ok(()) => json!({ "status": "ready", "model_loaded": true }),
            Err(reason) => json!({ "status": "not_ready", "reason": reason }),
        }
    }
}

#[derive(Clone)]
struct Shared {
    worker: Arc<watch::Sender<Worker>>,
    started: Duration,
}

/// Runs the worker until it is told to exit or a stop signal comes; gives the exit number.
///
/// # Errors
/// When the port is taken or the scenario cannot be used.
pub async fn run(args: Args) -> Result<u8, StandinError> {
    let steps = args.scenario.as_deref().map(steps_of).transpose()?.unwrap_or_default();
    let listener = listen(args.listen, "--listen").await?;
    let line = format!("worker listening on {}, loads for {}", listener.local_addr()?, Span(args.load));
    until_stopped(&line, serve(listener, args.load, steps)).await
}

/// Serves a worker until it is told to exit; gives the exit number.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, load: Duration, steps: Vec<Step>) -> std::io::Result<u8> {
    let (worker, mut watched) = watch::channel(Worker::new(load));
    let shared = Shared { worker: Arc::new(worker), started: clock::uptime() };
    let routes = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/control", post(control))
        .with_state(shared.clone());
    let exit = async {
        let told = watched.wait_for(|worker| worker.exit.is_some()).await;
        told.ok().and_then(|worker| worker.exit).unwrap_or_default()
    };
    tokio::select! {
        code = http::serve(listener, routes, CONTROL_BYTES_MAX, exit) => code,
        () = follow(&shared, steps) => Ok(0),
    }
}

async fn health(State(shared): State<Shared>) -> Response {
    not_hung(&shared).await;
    Json(json!({ "status": "ok" })).into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    let worker = not_hung(&shared).await;
    Json(worker.readiness(clock::uptime().saturating_sub(shared.started))).into_response()
}

async fn control(State(shared): State<Shared>, body: Bytes) -> Response {
    http::told(&body, |control| {
        shared.worker.send_modify(|worker| worker.obey(control));
        Json(json!({ "status": "ok" })).into_response()
    })
}

/// Waits until the worker answers again. The client's patience bounds it: when the connection goes,
/// so does this.
async fn not_hung(shared: &Shared) -> Worker {
    let mut watched = shared.worker.subscribe();
    match watched.wait_for(|worker| !worker.hung).await {
        Ok(worker) => worker.clone(),
        // The sender lives as long as the state that this handler holds.
        Err(_) => shared.worker.borrow().clone(),
    }
}

/// Does the steps at their times; it has no end of its own.
async fn follow(shared: &Shared, mut steps: Vec<Step>) {
    steps.sort_by_key(|step| step.after);
    for step in steps {
        let since_start = clock::uptime().saturating_sub(shared.started);
        tokio::time::sleep(step.after.0.saturating_sub(since_start)).await;
        shared.worker.send_modify(|worker| worker.obey(step.control));
    }
    std::future::pending::<()>().await;
}

fn steps_of(path: &Path) -> Result<Vec<Step>, StandinError> {
    let wrong = |problem: String| StandinError::Scenario { path: path.to_owned(), problem };
    let bytes = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if bytes > SCENARIO_BYTES_MAX {
        return Err(wrong(format!("it has {bytes} bytes, at most {SCENARIO_BYTES_MAX} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let steps: Vec<Step> = serde_json::from_str(&text).map_err(|error| {
        wrong(format!("{error}; write [{{\"after\": \"10s\", \"control\": {{\"ready\": false}}}}]"))
    })?;
    if steps.len() > STEPS_MAX {
        return Err(wrong(format!("it has {} steps, at most {STEPS_MAX} are done", steps.len())));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOAD: Duration = Duration::from_secs(3);

    fn told(text: &str) -> Worker {
        let mut worker = Worker::new(LOAD);
        worker.obey(serde_json::from_str(text).unwrap());
        worker
    }

    #[test]
    fn the_body_alone_tells_that_the_model_is_loading() {
        let worker = Worker::new(LOAD);
        let before = worker.readiness(LOAD - Duration::from_millis(1));
        assert_eq!(before, json!({ "status": "not_ready", "reason": "model loading" }));
        assert_eq!(worker.readiness(LOAD), json!({ "status": "ready", "model_loaded": true }));
    }

    #[test]
    fn a_worker_that_is_told_so_is_not_ready_and_says_why() {
        let worker = told(r#"{"ready": false, "reason": "CUDA out of memory"}"#);
        assert_eq!(worker.readiness(LOAD), json!({ "status": "not_ready", "reason": "CUDA out of memory" }));
        assert_eq!(told(r#"{"ready": true}"#).readiness(Duration::ZERO)["status"], "ready");
    }

    #[test]
    fn a_control_with_an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<Control>(r#"{"redy": true}"#).is_err());
        assert!(serde_json::from_str::<Control>(r#"{"exit": 256}"#).is_err());
    }

    #[test]
    fn a_scenario_is_read_and_a_bad_one_is_named_with_its_place() {
        const STEPS: &str =
            r#"[{"after": "10s", "control": {"hang": true}}, {"after": "20s", "control": {"exit": 3}}]"#;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steps.json");
        std::fs::write(&path, STEPS).unwrap();
        let steps = steps_of(&path).unwrap();
        assert_eq!(steps.iter().map(|step| step.control.exit).collect::<Vec<_>>(), [None, Some(3)]);
        std::fs::write(&path, "[\n{\"after\": 10}]").unwrap();
        let error = steps_of(&path).unwrap_err();
        assert!(error.to_string().contains("line 2") && error.to_string().contains("steps.json"), "{error}");
        assert_eq!(error.exit(), diarwatch_shared::exit::Exit::BadConfig);
    }

    proptest! {
        #[test]
        fn nothing_that_is_said_silences_the_status(
            ready: Option<bool>, hang: Option<bool>, reason: Option<String>, millis in 0_u64..10_000,
        ) {
            let mut worker = Worker::new(LOAD);
            worker.obey(Control { ready, reason, hang, exit: None });
            let status = worker.readiness(Duration::from_millis(millis))["status"].clone();
            prop_assert!(status == "ready" || status == "not_ready");
        }
    }
}
