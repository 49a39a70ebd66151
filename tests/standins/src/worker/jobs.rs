//! The jobs of a worker: takes what clients post, gives them in order to the thread that works, and
//! remembers how they ended. Bounded: what does not fit is refused, and the oldest ended jobs are forgotten.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::audio::{Audio, Segment};
use super::control::Control;

/// Jobs that wait.
const WAITING_MAX: usize = 1_000;
/// Ended jobs that are remembered.
const ENDED_MAX: usize = 1_000;
/// Bytes of the name of a job, and of a callback's address.
const TEXT_BYTES_MAX: usize = 512;

/// What is to be worked on.
pub(super) struct Job {
    /// Its name, one word.
    pub(super) id: String,
    /// How long its audio is.
    pub(super) audio_seconds: f64,
    segments: Vec<Segment>,
    /// Where its end is told.
    pub(super) callback: Option<String>,
    /// What happens in its middle.
    pub(super) control: Control,
    /// Who waits for its end.
    pub(super) answer: Option<oneshot::Sender<Value>>,
}

/// What a client may say of a job beside its audio.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wishes {
    /// Its name; without one it gets one.
    pub(super) id: Option<String>,
    /// Where its end is told.
    pub(super) callback: Option<String>,
    /// `1`: the answer comes when it is done.
    pub(super) wait: Option<u8>,
}

/// Why a job is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not one.
    Wrong(String),
    /// One of that name is here.
    Known,
    /// Too many wait.
    Full,
}

impl Job {
    /// Reads the body of a request: a WAV, or `{"id", "audio_seconds", "callback"}` and what happens in its
    /// middle, in the words of a control.
    pub(super) fn read(body: &[u8], wishes: &Wishes, unnamed: &str) -> Result<Self, Refusal> {
        let (said, audio, control) = if body.starts_with(b"RIFF") {
            (json!({}), Audio::of_wav(body).map_err(Refusal::Wrong)?, Control::default())
        } else {
            read_json(body).map_err(Refusal::Wrong)?
        };
        let text = |key: &str, wish: Option<&String>| {
            let found = said.get(key).and_then(Value::as_str).or(wish.map(String::as_str));
            found.filter(|text| text.len() <= TEXT_BYTES_MAX).map(str::to_owned)
        };
        let id = text("id", wishes.id.as_ref()).unwrap_or_else(|| unnamed.to_owned());
        if id.is_empty() || id.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Refusal::Wrong(format!("the id {id:?} is not one word")));
        }
        let callback = text("callback", wishes.callback.as_ref());
        let Audio { seconds: audio_seconds, segments } = audio;
        Ok(Self { id, audio_seconds, segments, callback, control, answer: None })
    }

    /// What is told of its end: after which time, and the reason if it failed.
    pub(super) fn told(&self, took: Duration, failed: Option<&str>) -> Value {
        let (id, audio, seconds) = (&self.id, self.audio_seconds, took.as_secs_f64());
        match failed {
            None => json!({
                "job_id": id, "status": "done", "audio_seconds": audio, "seconds": seconds, "segments": self.segments,
            }),
            Some(reason) => json!({
                "job_id": id, "status": "failed", "audio_seconds": audio, "seconds": seconds, "error": reason,
            }),
        }
    }
}

fn read_json(body: &[u8]) -> Result<(Value, Audio, Control), String> {
    let hint = "send a WAV, or {\"id\": \"7f3a\", \"audio_seconds\": 60}";
    let mut said: Value = serde_json::from_slice(body).map_err(|error| format!("{error}; {hint}"))?;
    let object = said.as_object_mut().ok_or(hint)?;
    let mut own = serde_json::Map::new();
    for key in ["id", "audio_seconds", "callback"] {
        own.extend(object.remove(key).map(|value| (key.to_owned(), value)));
    }
    let seconds = own.get("audio_seconds").and_then(Value::as_f64);
    let audio = Audio::of_length(seconds.ok_or_else(|| format!("audio_seconds is missing; {hint}"))?)?;
    let control = serde_json::from_value(said).map_err(|error| error.to_string())?;
    Ok((own.into(), audio, control))
}

/// All jobs.
#[derive(Default)]
pub(super) struct Jobs {
    waiting: VecDeque<Job>,
    running: Option<String>,
    ended: VecDeque<Value>,
    accepted: u64,
}

impl Jobs {
    /// Takes a job at the end of the queue.
    pub(super) fn accept(&mut self, job: Job) -> Result<(), Refusal> {
        let is_here =
            self.running.as_ref() == Some(&job.id) || self.waiting.iter().any(|other| other.id == job.id);
        if is_here {
            return Err(Refusal::Known);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Err(Refusal::Full);
        }
        self.accepted += 1;
        self.waiting.push_back(job);
        Ok(())
    }

    /// The next job; it is under way then.
    pub(super) fn begin(&mut self) -> Option<Job> {
        let job = self.waiting.pop_front()?;
        self.running = Some(job.id.clone());
        Some(job)
    }

    /// The job under way ended.
    pub(super) fn end(&mut self, told: &Value) {
        self.running = None;
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        let mut told = told.clone();
        told.as_object_mut().map(|told| told.remove("segments"));
        self.ended.push_back(told);
    }

    /// As `/jobs` tells it.
    pub(super) fn listed(&self) -> Value {
        let waiting: Vec<&str> = self.waiting.iter().map(|job| job.id.as_str()).collect();
        json!({ "accepted_total": self.accepted, "accepted": waiting, "running": self.running, "done": self.ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Job, Refusal> {
        Job::read(body.as_bytes(), &Wishes::default(), "1")
    }

    #[test]
    fn a_job_says_what_happens_in_its_middle() {
        let job =
            read(r#"{"id": "7f3a", "audio_seconds": 60, "poison": true}"#).unwrap_or_else(|_| unreachable!());
        assert_eq!((job.id.as_str(), job.audio_seconds, job.control.poison), ("7f3a", 60.0, Some(true)));
        for wrong in
            ["", "{}", "[]", r#"{"audio_seconds": 1, "poisn": true}"#, r#"{"audio_seconds": 1, "id": "a b"}"#]
        {
            assert!(matches!(read(wrong), Err(Refusal::Wrong(_))), "{wrong}");
        }
    }

    #[test]
    fn a_job_that_is_here_is_not_taken_twice_and_a_full_queue_takes_none() {
        let mut jobs = Jobs::default();
        let mut take = |id: usize| jobs.accept(read(&format!(r#"{{"id": "{id}", "audio_seconds": 0}}"#))?);
        assert_eq!(take(0), Ok(()));
        assert_eq!(take(0), Err(Refusal::Known));
        assert!((1..WAITING_MAX).all(|id| take(id) == Ok(())));
        assert_eq!(take(WAITING_MAX), Err(Refusal::Full));
        assert_eq!(jobs.begin().map(|job| job.id), Some("0".into()));
        jobs.end(&json!({ "job_id": "0", "segments": [] }));
        assert_eq!(jobs.listed()["done"], json!([{ "job_id": "0" }]));
    }
}
