//! The two pyannote workers of the first users: take probes and jobs by HTTP, work the jobs off one after
//! another, and can be told (`POST /control`, a scenario file, or by a job) to be not ready, to hang, to
//! heal, to fall back to the CPU, to run out of memory, to leak, to die. README.md has every word.
//!
//! `pyannote` (also `worker`) answers `/health` and `/ready` with 200 while it lives; the body alone tells.
//! `pyannote-server` has only `/health`, loads its model for its first job, answers nothing while it works,
//! and after SIGTERM finishes what it accepted and sends its callbacks last. Jobs, bodies and connections
//! are bounded; a client that does not read holds up only itself.

mod audio;
mod callback;
mod control;
mod core;
mod fault;
mod gpu;
mod jobs;
mod state;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use diarwatch_shared::daemon;
use diarwatch_shared::quantity::{Span, parse_duration};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use self::control::{parse_control, steps_of, taken_over};
use self::core::{Callback, Core, Settings};
use self::gpu::Gpu;
use self::jobs::{Job, Refusal, Wishes};
use crate::command::{StandinError, listen};
use crate::http;
use crate::say::{flush, say};

pub use self::control::{AfterOom, Control, Stays, Step};
pub use self::state::Kind;

/// Bytes of a control message.
const CONTROL_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a job: half an hour of 16 kHz mono.
const JOB_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The command line of a worker.
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
    /// What it is told at its start: {"crash_after": "5s"}
    #[arg(long, value_name = "JSON", value_parser = parse_control)]
    control: Option<Control>,
    /// Where {"next_start": {...}} is kept until the next start
    #[arg(long, value_name = "FILE")]
    next_start: Option<PathBuf>,
    /// Seconds of audio that are worked off in one second
    #[arg(long, value_name = "NUMBER", default_value_t = 100.0, value_parser = parse_speed)]
    job_speed: f64,
    /// CPU while it works, percent of one core
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    busy: u32,
    /// The folder that DIARWATCH_FAKE_NVML_CLAIMS names; without it no GPU is held
    #[arg(long, value_name = "DIR")]
    gpu_claims: Option<PathBuf>,
    /// The GPU it holds memory of
    #[arg(long, value_name = "UUID-OR-INDEX", default_value = "0", value_parser = parse_gpu)]
    gpu: String,
    /// GPU memory of the model
    #[arg(long, value_name = "MIB", default_value_t = 2_000)]
    gpu_mib: u32,
    /// Use of the GPU while it works
    #[arg(long, value_name = "PERCENT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=100))]
    gpu_sm: u32,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed: &f64| speed.is_finite() && *speed > 0.0);
    speed.ok_or_else(|| format!("`{text}` is not a speed; write for example `100`"))
}

/// A word of a claim: bounded, since a claim is.
fn parse_gpu(text: &str) -> Result<String, String> {
    let is_word = (1..=64).contains(&text.len()) && !text.contains(char::is_whitespace);
    if is_word { Ok(text.to_owned()) } else { Err(format!("`{text}` is neither a UUID nor an index")) }
}

/// Runs a worker until it is told to exit or a stop signal comes; gives the exit number.
///
/// # Errors
/// When the port is taken, or a file cannot be used.
pub async fn run(kind: Kind, args: Args) -> Result<u8, StandinError> {
    let steps = args.scenario.as_deref().map(steps_of).transpose()?.unwrap_or_default();
    let left = args.next_start.as_deref().map(taken_over).transpose()?.flatten();
    let Args { gpu, gpu_mib: mib, gpu_sm: sm, load, .. } = args;
    let settings = Settings {
        kind,
        load,
        job_speed: args.job_speed,
        busy_percent: args.busy,
        gpu: args.gpu_claims.map(|claims| Gpu { claims, gpu, mib, sm }),
        next_start: args.next_start,
    };
    let (core, callbacks) = made(settings);
    for control in args.control.into_iter().chain(left) {
        core.obey(control).map_err(std::io::Error::other)?;
    }
    if let Some(code) = core.now().exit {
        return Ok(code);
    }
    let listener = listen(args.listen, "--listen").await?;
    let (address, load) = (listener.local_addr()?, Span(load));
    let line = match kind {
        Kind::Pyannote => format!("worker listening on {address}, loads for {load}"),
        Kind::Server => format!("pyannote-server listening on {address}, loads for {load} at its first job"),
    };
    let code = tokio::select! {
        biased;
        stopped = stopped(&core) => stopped.map(|()| 0)?,
        code = async { say(&line); serve_core(listener, &core, callbacks, steps).await } => code?,
    };
    flush();
    Ok(code)
}

/// Serves the first kind of worker until it is told to exit; gives the exit number.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, load: Duration, steps: Vec<Step>) -> std::io::Result<u8> {
    let kind = Kind::Pyannote;
    let (core, callbacks) =
        made(Settings { kind, load, job_speed: 100.0, busy_percent: 0, gpu: None, next_start: None });
    serve_core(listener, &core, callbacks, steps).await
}

fn made(settings: Settings) -> (Arc<Core>, mpsc::Receiver<Callback>) {
    let (sender, callbacks) = mpsc::channel(callback::WAITING_MAX);
    (Arc::new(Core::new(settings, sender)), callbacks)
}

/// Ends when a stop signal ends the worker: the first kind at once, the second when it is done with its
/// jobs, which is not here.
async fn stopped(core: &Core) -> std::io::Result<()> {
    loop {
        let signal = daemon::stop_signal().await?;
        if signal == "SIGTERM" && core.now().ignores_sigterm {
            say("WARNING SIGTERM ignored");
        } else if core.settings.kind == Kind::Pyannote {
            return Ok(());
        } else {
            let left = core.change(|worker| {
                worker.stopping = true;
                worker.jobs
            });
            say(&format!(
                "INFO {signal}: nothing more is accepted, {} jobs are finished first",
                left.unwrap_or(0)
            ));
        }
    }
}

async fn serve_core(
    listener: TcpListener,
    core: &Arc<Core>,
    callbacks: mpsc::Receiver<Callback>,
    steps: Vec<Step>,
) -> std::io::Result<u8> {
    let _working = Working::begin(Arc::clone(core))?;
    let routes = Router::new()
        .route("/health", get(health))
        .route("/diarize", post(diarize))
        .route("/jobs", get(jobs))
        .route("/control", post(control).layer(DefaultBodyLimit::max(CONTROL_BYTES_MAX)));
    let routes = match core.settings.kind {
        Kind::Pyannote => routes.route("/ready", get(ready)),
        Kind::Server => routes.route("/warmup", post(warmup)),
    };
    let stop = core.until(|worker| worker.exit.is_some() || worker.stopping);
    let finish = core.until(|worker| worker.exit.is_some() || worker.is_finished());
    tokio::select! {
        served = http::serve_to_the_end(listener, routes.with_state(Arc::clone(core)), JOB_BYTES_MAX, stop, finish) => {
            served.map(|worker| worker.exit.unwrap_or(0))
        }
        () = follow(core, steps) => Ok(0),
        () = callback::send(core, callbacks) => Ok(0),
    }
}

/// The working thread; it ends with this.
struct Working(Arc<Core>);

impl Working {
    fn begin(core: Arc<Core>) -> std::io::Result<Self> {
        let own = Arc::clone(&core);
        std::thread::Builder::new().name("work".into()).spawn(move || work::work(&own))?;
        Ok(Self(core))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.go();
    }
}

async fn health(State(core): State<Arc<Core>>) -> Response {
    Json(core.free(|_| true).await.health()).into_response()
}

async fn ready(State(core): State<Arc<Core>>) -> Response {
    let worker = core.free(|_| true).await;
    Json(worker.readiness(core.since_start())).into_response()
}

async fn warmup(State(core): State<Arc<Core>>) -> Response {
    core.free(|_| true).await;
    core.change(|worker| worker.wanted = true);
    Json(core.free(|worker| worker.loaded).await.health()).into_response()
}

async fn jobs(State(core): State<Arc<Core>>) -> Response {
    core.free(|_| true).await;
    let listed = core.jobs().listed();
    Json(listed).into_response()
}

async fn diarize(State(core): State<Arc<Core>>, Query(wishes): Query<Wishes>, body: Bytes) -> Response {
    let refused = |status: StatusCode, error: &str| (status, Json(json!({ "error": error }))).into_response();
    if core.free(|_| true).await.stopping {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "the worker is stopping");
    }
    let mut job = match Job::read(&body, &wishes, &core.next_name()) {
        Ok(job) => job,
        Err(Refusal::Wrong(error)) => return refused(StatusCode::BAD_REQUEST, &error),
        Err(_) => return refused(StatusCode::BAD_REQUEST, "not a job"),
    };
    let (sender, ended) = oneshot::channel();
    let is_awaited = wishes.wait == Some(1);
    job.answer = is_awaited.then_some(sender);
    let id = job.id.clone();
    match core.accept(job) {
        Ok(()) if is_awaited => done(&core, ended).await,
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({ "job_id": id }))).into_response(),
        Err(Refusal::Known) => refused(StatusCode::CONFLICT, "a job of this id is here"),
        Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "too many jobs wait"),
    }
}

/// Waits for the end of a job.
async fn done(core: &Core, ended: oneshot::Receiver<Value>) -> Response {
    let Ok(told) = ended.await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    core.free(|_| true).await;
    let is_done = told.get("status").and_then(Value::as_str) == Some("done");
    let status = if is_done { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, Json(told)).into_response()
}

/// Answered whatever state the worker is in: it is the way out of each.
async fn control(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    http::told(&body, |control| match core.obey(control) {
        Ok(()) => Json(json!({ "status": "ok" })).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    })
}

/// Does the steps at their times; it has no end of its own.
async fn follow(core: &Core, mut steps: Vec<Step>) {
    steps.sort_by_key(|step| step.after);
    for step in steps {
        tokio::time::sleep(step.after.0.saturating_sub(core.since_start())).await;
        if let Err(error) = core.obey(step.control) {
            say(&format!("WARNING scenario: {error}"));
        }
    }
    std::future::pending::<()>().await;
}
