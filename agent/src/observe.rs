//! The socket of `diarwatch`: one question in, one JSON document out.
//!
//! A question is one line of at most [`QUESTION_BYTES_MAX`] bytes, `{"ask":"status"}` (or `events`, `history`,
//! `config`, `why`); the answer comes from the board, so that asking never touches the driver, the spool or a
//! worker. An `order` is for those who may give one; its worker's own task answers it. At most
//! [`ASKERS_MAX`] at once and [`ANSWER_TIMEOUT`] each: a slow asker is cut off, others are not held up.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::node::WorkerId;
use diarwatch_shared::reading::Missing;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::board::Board;
use crate::orders::{Order, Orders, Verb};
use crate::recent::EVENTS_MAX;
use crate::{authority, status};

/// Bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 4096;
/// Askers that are served at once; more wait.
pub const ASKERS_MAX: usize = 64;
/// From the connection to the end of the answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The same for an order: its worker may just be starting.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the reason that a person gives with an order.
pub const REASON_BYTES_MAX: usize = 512;

#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Question {
    /// Everything that is known now.
    Status,
    /// The newest `limit` events after `since_us`, of one worker when one is named.
    Events {
        #[serde(default)]
        since_us: u64,
        limit: Option<usize>,
        worker: Option<String>,
    },
    /// The last minute of series, by name (all when none is named), after `after_us`.
    History {
        #[serde(default)]
        metrics: Vec<String>,
        #[serde(default)]
        after_us: u64,
    },
    /// The configuration that is in effect.
    Config,
    /// Why a worker is as it is.
    Why { worker: String },
    /// A person wants something of a worker.
    Order {
        worker: WorkerId,
        verb: Verb,
        #[serde(default)]
        now: bool,
        reason: Option<String>,
    },
}

/// Why there is no answer, in a word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Code {
    /// The question is none that this agent knows.
    NotUnderstood,
    /// Who asks may not give orders.
    NoPermission,
    /// No worker has that name.
    NoSuchWorker,
    /// The worker's task refused the order.
    Refused,
    /// It may be taken later.
    TryAgain,
}

type Problem = (Code, String);

/// Opens the socket. One that a dead agent left behind is replaced; one that another living agent
/// answers on, and anything that is no socket, is left alone.
///
/// # Errors
/// When the directory cannot be made, another agent answers, or the system refuses.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => remove_if_dead(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it is there and is no socket; name another path, or move it away",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = path.parent() {
        // Under systemd it is there (RuntimeDirectory=); by hand it need not be.
        std::fs::create_dir_all(parent)?;
    }
    let listener = UnixListener::bind(path)?;
    // The group may ask, others may not.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn remove_if_dead(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        // Nobody listens any more; every other answer may come from a living agent.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another agent answers on it; stop that one first, or name another path",
        )),
    }
}

/// Answers until the agent stops.
pub async fn serve(listener: UnixListener, board: Board, orders: Orders) {
    let permits = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: wait rather than spin.
            tokio::time::sleep(ANSWER_TIMEOUT).await;
            continue;
        };
        let (board, orders) = (board.clone(), orders.clone());
        tokio::spawn(async move {
            // An asker that is gone or too slow has nothing more to be told.
            drop(answer(stream, &board, &orders).await);
            drop(permit);
        });
    }
}

async fn answer(mut stream: UnixStream, board: &Board, orders: &Orders) -> io::Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    let read = async {
        while line.len() < QUESTION_BYTES_MAX && stream.read(&mut byte).await? == 1 && byte != *b"\n" {
            line.extend(byte);
        }
        Ok::<(), io::Error>(())
    };
    timeout(ANSWER_TIMEOUT, read).await??;
    let answer = match serde_json::from_slice(&line) {
        Ok(Question::Order { worker, verb, now, reason }) => {
            let uid = stream.peer_cred()?.uid();
            let reason = reason.map(|reason| cut(&reason));
            let answer = timeout(ORDER_TIMEOUT, order(uid, (worker, verb, now), reason, board, orders)).await;
            let late = || {
                let seconds = ORDER_TIMEOUT.as_secs();
                let text = format!("no answer within {seconds} s: the worker is being started or looked for");
                Err((Code::TryAgain, text))
            };
            told(answer.unwrap_or_else(|_| late()))
        }
        Ok(question) => reply(question, board),
        Err(error) => told(Err((Code::NotUnderstood, format!("question is not understood: {error}")))),
    };
    let answer = answer.map_err(io::Error::other)?;
    let write = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    timeout(ANSWER_TIMEOUT, write).await?
}

/// An order's answer, or a problem, as a document.
fn told(answer: Result<Value, Problem>) -> serde_json::Result<Vec<u8>> {
    match answer {
        Ok(done) => serde_json::to_vec(&done),
        Err((code, problem)) => {
            serde_json::to_vec(&json!({ "schema": 1, "kind": "error", "code": code, "problem": problem }))
        }
    }
}

async fn order(
    uid: u32,
    (worker, verb, now): (WorkerId, Verb, bool),
    reason: Option<String>,
    board: &Board,
    orders: &Orders,
) -> Result<Value, Problem> {
    let operators = board.read(|board| board.operators.clone());
    let own = rustix::process::getuid().as_raw();
    let by = authority::may_order(uid, own, &operators, &authority::passwd())
        .map_err(|problem| (Code::NoPermission, problem))?;
    let (answer, answered) = oneshot::channel();
    let not_after = clock::now().plus(ORDER_TIMEOUT);
    let order = Order { worker: worker.clone(), verb, now, by, reason, not_after, answer };
    orders.put(order).map_err(|problem| (Code::TryAgain, problem))?;
    let done = answered.await.map_err(|_| (Code::TryAgain, String::from("the agent ends")))?;
    let (node, known) = board
        .read(|board| (board.node.to_string(), board.workers.iter().any(|known| known.worker == worker)));
    let done = done.map_err(|problem| (if known { Code::Refused } else { Code::NoSuchWorker }, problem))?;
    Ok(ordered(&node, &worker, verb, &done))
}

/// What an order brought. That nobody knows which jobs are under way is told as such.
fn ordered(node: &str, worker: &WorkerId, verb: Verb, done: &Value) -> Value {
    let jobs = done.get("jobs_under_way");
    let reasons = match jobs {
        Some(Value::Null) => json!({ "/jobs_under_way": Missing::NotSupported.word() }),
        _ => json!({}),
    };
    json!({
        "schema": 1, "kind": "order", "node": node, "worker": worker, "verb": verb,
        "done": done.get("done"), "jobs_under_way": jobs, "reasons": reasons,
    })
}

/// What a person wrote, as one bounded line.
fn cut(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.get(..line.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().to_owned()
}

fn reply(question: Question, board: &Board) -> serde_json::Result<Vec<u8>> {
    match question {
        Question::Status => serde_json::to_vec(&status::with_reasons(&board.read(status::of))?),
        Question::Events { since_us, limit, worker } => {
            let since = UnixMicros(since_us);
            let limit = limit.unwrap_or(EVENTS_MAX);
            let (node, events) = board
                .read(|board| (board.node.to_string(), board.recent.events(since, limit, worker.as_deref())));
            serde_json::to_vec(&json!({ "schema": 1, "kind": "events", "node": node, "events": events }))
        }
        Question::History { metrics, after_us } => {
            let now = clock::now();
            let (node, series) = board.read(|board| {
                (board.node.to_string(), board.recent.series(&metrics, UnixMicros(after_us), now))
            });
            serde_json::to_vec(
                &json!({ "schema": 1, "kind": "history", "node": node, "now_us": now.0, "series": series }),
            )
        }
        Question::Config => serde_json::to_vec(&board.read(|board| board.config.clone())),
        Question::Why { worker } => why(&worker, board),
        Question::Order { .. } => {
            told(Err((Code::NotUnderstood, String::from("an order is not answered from the board"))))
        }
    }
}

fn why(worker: &str, board: &Board) -> serde_json::Result<Vec<u8>> {
    let known = board.read(|board| {
        let known = board.workers.iter().find(|known| known.worker.as_str() == worker).cloned();
        known.map(|known| (board.node.to_string(), known))
    });
    let Some((node, status)) = known else {
        return told(Err((Code::NoSuchWorker, format!("no worker of this node is called `{worker}`"))));
    };
    let why = &status.why;
    let mut reasons = serde_json::Map::new();
    let mut missing = |key: &str, why: Missing| {
        reasons.insert(format!("/why/{key}"), why.word().into());
    };
    if why.gpu_memory_bytes.is_none() {
        missing("gpu_memory_bytes", Missing::NotYet);
    }
    if why.jobs_under_way.is_none() {
        missing("jobs_under_way", Missing::NotSupported);
    }
    serde_json::to_vec(&json!({
        "schema": 1, "kind": "why", "node": node, "worker": worker, "service": status.service,
        "now_us": clock::now(), "since_us": status.since, "last_exit": status.last_exit,
        "why": why, "reasons": reasons,
    }))
}
