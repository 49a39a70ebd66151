//! The queue stage: how many jobs wait, are worked on and were done, from wherever a queue keeps that.
//!
//! Takes the configuration; gives a tick of series and a [`QueueStatus`] per queue and look. One task a
//! queue: a source that hangs or lies is cut off at its time-out and delays no other. When the frame
//! stage is slow its ticks are dropped and counted like any other.
//!
//! A [`kind`] looks; [`figure`] refuses what is no number; [`account`] makes rates, times and the
//! estimate of it; [`series`] the tick; [`shell`] owns time and tasks.

pub mod account;
pub mod bounded;
pub mod directory;
pub mod figure;
pub mod http;
pub mod jobs;
pub mod kind;
pub mod log;
pub mod openmetrics;
pub mod postgres;
pub mod redis;
pub mod secret;
pub mod series;
pub mod shell;
pub mod window;

use std::future::Future;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::reading::{Missing, Reading};
use serde::Serialize;

use crate::status::Number;

/// Where a queue's numbers come from; one file a kind.
pub trait Source: Send {
    /// Looks once. The caller bounds the time; a look that is dropped half-way leaves a source that
    /// can be asked again.
    ///
    /// # Errors
    /// When the source does not answer, or with something that is no number: what, where and how to mend it.
    fn look(&mut self, now: UnixMicros) -> impl Future<Output = Result<Look, String>> + Send;
}

/// What one look gave. A source that has no such figure says [`Missing::NotSupported`].
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Jobs that wait.
    pub waiting: Reading,
    /// Jobs that are worked on.
    pub processing: Reading,
    /// Age of the oldest waiting job, in seconds; 0 when none waits.
    pub oldest_seconds: Reading,
    /// Jobs completed so far, by any count that only grows. Where there is one the rates are made of
    /// it, otherwise of `ended`.
    pub completed_total: Reading,
    /// Jobs failed so far, likewise.
    pub failed_total: Reading,
    /// Jobs that ended since the look before; the first look may give those of the last hour.
    pub ended: Vec<Ended>,
    /// Mean processing time in seconds, where the source works it out itself. A source that gives
    /// `ended` says [`Missing::NotYet`], here and below: it is worked out from them.
    pub mean_seconds: Reading,
    /// 95th percentile of the processing time in seconds, likewise.
    pub p95_seconds: Reading,
    /// Jobs that wait or are worked on, those that are worked on first; at most [`UNDER_WAY_MAX`].
    pub under_way: Vec<UnderWay>,
    /// What is doubtful about the numbers, for a person: lines or files that were not looked at.
    pub doubt: Option<String>,
}

impl Default for Look {
    fn default() -> Self {
        let none = Err(Missing::NotSupported);
        Self {
            waiting: none,
            processing: none,
            oldest_seconds: none,
            completed_total: none,
            failed_total: none,
            ended: Vec::new(),
            mean_seconds: none,
            p95_seconds: none,
            under_way: Vec::new(),
            doubt: None,
        }
    }
}

/// A job that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// When.
    pub at: UnixMicros,
    /// Whether it failed.
    pub failed: bool,
    /// From its start to its end, in seconds, where that is known.
    pub took_seconds: Option<f64>,
    /// Length of its audio, in seconds, where that is known.
    pub audio_seconds: Option<f64>,
}

/// A job that waits or is worked on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnderWay {
    /// Its id, where the source tells one.
    pub id: Option<String>,
    /// When it came in, as far as that is known.
    #[serde(rename = "since_us")]
    pub since: UnixMicros,
    /// When it was begun; none while it waits.
    #[serde(rename = "started_us")]
    pub started: Option<UnixMicros>,
    /// Length of its audio, in seconds, where that is known.
    pub audio_seconds: Option<f64>,
}

/// Jobs under way of one queue that are told.
pub const UNDER_WAY_MAX: usize = 100;

/// Where a queue is now, for people.
#[derive(Clone, Debug, Serialize)]
pub struct QueueStatus {
    /// Its name, the `queue` label.
    pub queue: String,
    /// What works it off, the `service` label; its name where none is configured.
    pub service: String,
    /// `postgres`, `redis`, `http`, `directory` or `log`.
    pub source: &'static str,
    /// Whether waiting and processing are worked out from lines of a log (推定) and not counted.
    pub estimated: bool,
    /// Jobs that wait.
    pub waiting: Number,
    /// Jobs that are worked on.
    pub processing: Number,
    /// Age of the oldest waiting job.
    pub oldest_seconds: Number,
    /// Completed per minute, over the last ten minutes.
    pub completed_per_minute: Number,
    /// Failed per minute, over the last ten minutes.
    pub failed_per_minute: Number,
    /// Mean processing time of the last jobs.
    pub job_mean_seconds: Number,
    /// 95th percentile of the processing time of the last jobs.
    pub job_p95_seconds: Number,
    /// Processing seconds per hour of audio.
    pub job_seconds_per_audio_hour: Number,
    /// When nothing waits any more at the present rates; missing while it does not get shorter.
    pub drain_seconds: Number,
    /// Whether it only grew for a while and nothing came out of it: a finding of its own.
    pub growing: bool,
    /// Jobs that were completed since the agent started: what proves that a worker works.
    #[serde(skip)]
    pub completed_total: u64,
    /// Jobs that ended since the agent started, completed or failed: what grows while there is progress.
    pub ended_total: u64,
    /// Jobs that wait or are worked on, those that are worked on first; at most [`UNDER_WAY_MAX`]. Empty
    /// where the source tells none.
    pub under_way: Vec<UnderWay>,
    /// Why the newest look gave nothing, or what is doubtful about its numbers, for a person.
    pub problem: Option<String>,
    /// When it was last looked at with success.
    #[serde(rename = "seen_us")]
    pub seen: Option<UnixMicros>,
}
