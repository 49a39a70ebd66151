//! The application around the workers, as far as a watcher sees it: an API that answers its health, a
//! page of figures, and the lines that its diarization workers log of their jobs.
//!
//! Takes nothing but time; gives HTTP (`/health`, `/figures`) and appends to a log file. Everything is
//! made from a seed and the second since the start, so that two runs look alike. Jobs go to two places
//! at once; the others wait. When the disk is slow the lines come late.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use diarwatch_shared::backoff::unit;
use diarwatch_shared::clock;
use serde_json::{Value, json};
use tokio::time::interval;

use crate::command::{StandinError, listen, until_stopped};
use crate::http;

/// Bytes of a request's body; none is expected.
const BODY_BYTES_MAX: usize = 1_024;
/// Jobs that are worked on at once: one a worker.
const PLACES: usize = 2;
/// A new job comes with this chance each second.
const ARRIVALS_PER_SECOND: f64 = 0.11;
/// One job of so many fails.
const FAILURE_ONE_IN: u64 = 40;

/// The command line of the application.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address to serve on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where the workers' lines go; made anew
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
}

/// A job and its audio.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Job {
    id: u64,
    audio_seconds: u64,
    /// The second in which it is done.
    done: u64,
}

/// The queue and what is worked on. Pure.
#[derive(Debug, Default)]
struct Load {
    next: u64,
    waiting: VecDeque<Job>,
    working: Vec<Job>,
}

impl Load {
    /// One second on; gives the lines that are logged in it.
    fn second(&mut self, now: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let (done, working) = self.working.drain(..).partition(|job| job.done <= now);
        self.working = working;
        for Job { id, audio_seconds, .. } in done {
            lines.push(match id % FAILURE_ONE_IN {
                7 => format!("ERROR job {id} failed: CUDA out of memory"),
                _ => format!("INFO job {id} done in {}s (audio {audio_seconds}s)", took(audio_seconds)),
            });
        }
        if unit(now ^ 0xA11CE) < ARRIVALS_PER_SECOND {
            self.next += 1;
            let id = self.next;
            // Talks of five to forty minutes.
            let audio_seconds = 300 + range(id, 2_100);
            self.waiting.push_back(Job { id, audio_seconds, done: 0 });
            lines.push(format!("INFO job {id} accepted"));
        }
        while self.working.len() < PLACES {
            let Some(job) = self.waiting.pop_front() else { break };
            lines.push(format!("INFO processing job {}", job.id));
            self.working.push(Job { done: now + took(job.audio_seconds), ..job });
        }
        lines
    }
}

/// Seconds that a diarization takes: one for a hundred of audio.
fn took(audio_seconds: u64) -> u64 {
    2 + audio_seconds / 100
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "0 to below `to`"
)]
fn range(seed: u64, to: u64) -> u64 {
    (unit(seed) * to as f64) as u64
}

/// What `/figures` says in a second.
#[expect(clippy::cast_precision_loss, reason = "seconds of a demo")]
fn figures(now: u64) -> Value {
    let wave = |period: f64| (now as f64 / period * std::f64::consts::TAU).sin();
    let noise = unit(now) - 0.5;
    json!({
        "api": { "p95_ms": 240.0 + 60.0 * wave(600.0) + 20.0 * noise, "errors_ratio": 0.0012 + 0.0006 * wave(900.0) },
        "sessions": { "active": (45.0 + 25.0 * wave(1_200.0) + 4.0 * noise).round() },
    })
}

/// Runs the application until a stop signal.
///
/// # Errors
/// When the port is taken or the log cannot be written.
pub async fn run(args: Args) -> Result<u8, StandinError> {
    let listener = listen(args.listen, "--listen").await?;
    let log = OpenOptions::new().create(true).write(true).truncate(true).open(&args.log)?;
    let line = format!("application listening on {}", listener.local_addr()?);
    let started = clock::uptime();
    let routes = Router::new()
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/figures", get(async |State(started): State<Duration>| Json(figures(since(started)))))
        .with_state(started);
    let work = async {
        tokio::select! {
            served = http::serve(listener, routes, BODY_BYTES_MAX, std::future::pending::<u8>()) => served,
            error = write(log, started) => Err(error),
        }
    };
    until_stopped(&line, work).await
}

fn since(started: Duration) -> u64 {
    clock::uptime().saturating_sub(started).as_secs()
}

/// Logs each second's lines; ends when the disk refuses.
async fn write(mut log: File, started: Duration) -> std::io::Error {
    let mut load = Load::default();
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        for line in load.second(since(started)) {
            if let Err(error) = writeln!(log, "{} {line}", clock::now()) {
                return error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_accepted_begun_and_ended_once_and_two_are_worked_on_at_most() {
        let mut load = Load::default();
        let mut counts = [0_u64; 3];
        for now in 0..3_600 {
            for line in load.second(now) {
                let at = ["accepted", "processing", "done in", "failed"]
                    .iter()
                    .position(|word| line.contains(word));
                counts[at.unwrap().min(2)] += 1;
            }
            assert!(load.working.len() <= PLACES);
            assert_eq!(counts[0] - counts[2], (load.waiting.len() + load.working.len()) as u64);
        }
        assert!(counts[2] > 100, "{counts:?}");
        assert!(load.waiting.len() < 40, "{}", load.waiting.len());
    }

    #[test]
    fn figures_stay_what_an_application_could_say() {
        for now in 0..5_000 {
            let said = figures(now);
            let number = |pointer: &str| said.pointer(pointer).unwrap().as_f64().unwrap();
            assert!((100.0..400.0).contains(&number("/api/p95_ms")));
            assert!((0.0..0.01).contains(&number("/api/errors_ratio")));
            assert!((0.0..=100.0).contains(&number("/sessions/active")));
        }
    }
}
