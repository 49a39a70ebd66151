//! The socket of `diarwatch`: one question in, one JSON document out.
//!
//! A question is one line of at most [`QUESTION_BYTES_MAX`] bytes, `{"ask":"status"}` (or `events`, `history`, `config`); the answer
//! comes from the board, so that asking never touches the driver, the spool or a worker. At most
//! [`ASKERS_MAX`] at once and [`ANSWER_TIMEOUT`] each: a slow asker is cut off, others are not held up.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::board::Board;
use crate::recent::EVENTS_MAX;
use crate::status;

/// Bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 4096;
/// Askers that are served at once; more wait.
pub const ASKERS_MAX: usize = 64;
/// From the connection to the end of the answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

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
}

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
pub async fn serve(listener: UnixListener, board: Board) {
    let permits = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: wait rather than spin.
            tokio::time::sleep(ANSWER_TIMEOUT).await;
            continue;
        };
        let board = board.clone();
        tokio::spawn(async move {
            // An asker that is gone or too slow has nothing more to be told.
            drop(timeout(ANSWER_TIMEOUT, answer(stream, &board)).await);
            drop(permit);
        });
    }
}

async fn answer(mut stream: UnixStream, board: &Board) -> io::Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < QUESTION_BYTES_MAX && stream.read(&mut byte).await? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    let answer = match serde_json::from_slice(&line) {
        Ok(question) => reply(question, board),
        Err(error) => {
            let problem = format!("question is not understood: {error}");
            serde_json::to_vec(&serde_json::json!({ "schema": 1, "kind": "error", "problem": problem }))
        }
    };
    stream.write_all(&answer.map_err(io::Error::other)?).await?;
    stream.shutdown().await
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
    }
}
