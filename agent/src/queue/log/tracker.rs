//! What a worker's log says of its jobs, as numbers. Takes one [`LineEvent`] after the other; gives a
//! [`Look`]. Pure: (state, event, now) -> counts; `now` is an argument. Never waits; what does not fit
//! its bounds is dropped and counted.
//!
//! A log is not a ledger: it is read from some place in the middle, lines are missing, come twice or
//! in another order. So no number is ever worked out by subtraction. Each job is a thing of its own
//! that a line puts in, moves on or takes out, and a line about a job that is not known takes nothing:
//!
//! - A line with an id is about that job. Where the id is new, it names the oldest job without one.
//! - A line without an id is about the oldest job that it can be about: first in, first out.
//! - An end of a job that was never seen is counted as an end. The same end again is not.
//! - When the worker starts anew, its queue in memory is gone. What was in it has failed for whoever
//!   waits for it, and is counted so.
//! - A job of which nothing was heard for `forget_after` is forgotten, and counted as that.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::reading::{Missing, Reading};

use crate::queue::{Ended, Look, UNDER_WAY_MAX, UnderWay};

/// Jobs that are known at once; more are not taken in, and counted.
pub const JOBS_MAX: usize = 20_000;
/// Bytes of an id that are kept.
pub const ID_BYTES_MAX: usize = 128;
/// Ids of the last jobs that ended, by which an end that is said twice is known.
pub const ENDED_IDS_MAX: usize = 1_024;
/// Ends that wait for the next look; of more the oldest are dropped, and counted.
pub const ENDED_WAITING_MAX: usize = 4_096;
/// A line so shortly after the end of its job was written before it: a container's stdout and stderr
/// are two pipes, and the engine stamps and orders them as it reads them. A job that is tried again
/// under its old id comes later than that.
pub const DISORDER: Duration = Duration::from_millis(20);
/// A hole is told at least this long, also when no job from before it is known.
pub const HOLE_TOLD_FOR: Duration = Duration::from_secs(60);

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A job was taken into the queue.
    Accepted,
    /// It is worked on.
    Started,
    /// It is done.
    Finished,
    /// It came to nothing.
    Failed,
    /// The worker ended or started anew: its queue in memory is gone.
    Restarted,
}

/// A line that one of the patterns fits.
#[derive(Clone, Debug, PartialEq)]
pub struct LineEvent {
    /// What it says.
    pub step: Step,
    /// Of which job.
    pub id: Option<String>,
    /// When it was written; none for an old line of a file that carries no time.
    pub at: Option<UnixMicros>,
    /// How long the job took, in seconds, where the line says it.
    pub took_seconds: Option<f64>,
    /// How long its audio is, in seconds, where the line says it.
    pub audio_seconds: Option<f64>,
}

/// What the log can tell at all.
#[derive(Clone, Copy, Debug)]
pub struct Sees {
    /// Whether there are lines for accepted jobs; without them nobody knows what waits.
    pub accepted: bool,
    /// Whether there are lines for started jobs; without them waiting and processing are one.
    pub started: bool,
}

/// What was dropped or is in doubt; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs whose worker started anew before they ended; counted as failed too.
    pub lost: u64,
    /// Jobs of which nothing was heard for too long.
    pub forgotten: u64,
    /// Lines of a job that had ended: its end again, or one that the end overtook.
    pub repeated: u64,
    /// Jobs that were not taken in because of [`JOBS_MAX`].
    pub not_taken: u64,
    /// Ends that no look came for in time.
    pub ended_dropped: u64,
}

/// The state: every job that was accepted or started and has not ended.
#[derive(Debug)]
pub struct Tracker {
    forget_after: Duration,
    sees: Sees,
    jobs: BTreeMap<u64, Job>,
    by_id: HashMap<Box<str>, u64>,
    waiting: Lane,
    processing: Lane,
    next: u64,
    ended_ids: EndedIds,
    ended: VecDeque<Ended>,
    counts: Counts,
    /// When lines were last skipped, while a job from before that is still counted.
    hole: Option<UnixMicros>,
}

#[derive(Debug)]
struct Job {
    id: Option<Box<str>>,
    /// When it came in, as far as that is known.
    since: UnixMicros,
    started: Option<UnixMicros>,
    /// When something was last heard of it.
    heard: UnixMicros,
    audio_seconds: Option<f64>,
}

/// Jobs that wait, or that are worked on, by the order in which they came.
#[derive(Debug, Default)]
struct Lane {
    named: BTreeSet<u64>,
    nameless: BTreeSet<u64>,
}

impl Tracker {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(sees: Sees, forget_after: Duration) -> Self {
        Self {
            forget_after,
            sees,
            jobs: BTreeMap::new(),
            by_id: HashMap::new(),
            waiting: Lane::default(),
            processing: Lane::default(),
            next: 0,
            ended_ids: EndedIds::default(),
            ended: VecDeque::new(),
            counts: Counts::default(),
            hole: None,
        }
    }

    /// Takes one line in.
    pub fn apply(&mut self, event: &LineEvent, now: UnixMicros) {
        if self.is_overtaken(event) {
            self.counts.repeated += 1;
            return;
        }
        match event.step {
            Step::Accepted => self.accepted(event, now),
            Step::Started => self.started(event, now),
            Step::Finished => self.end(event, false),
            Step::Failed => self.end(event, true),
            Step::Restarted => self.restarted(event.at),
        }
    }

    /// Lines were skipped: what they said is not known.
    pub fn skipped(&mut self, now: UnixMicros) {
        self.hole = Some(now);
    }

    /// The numbers now, with every end since the look before.
    pub fn look(&mut self, now: UnixMicros) -> Look {
        self.forget(now);
        let oldest = self.waiting.all().filter_map(|key| self.jobs.get(&key)).map(|job| job.since).min();
        let age = oldest.map_or(0.0, |since| now.since(since).as_secs_f64());
        Look {
            waiting: seen(self.sees.accepted, number(self.waiting.len())),
            processing: seen(self.sees.started, number(self.processing.len())),
            oldest_seconds: seen(self.sees.accepted, age),
            ended: self.ended.drain(..).collect(),
            // Worked out from the ends, as the rates are.
            mean_seconds: Err(Missing::NotYet),
            p95_seconds: Err(Missing::NotYet),
            under_way: self.under_way(),
            ..Look::default()
        }
    }

    /// What was dropped or is in doubt.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// When lines were skipped that a job still counted may have ended in.
    #[must_use]
    pub fn hole(&self) -> Option<UnixMicros> {
        self.hole
    }

    fn under_way(&self) -> Vec<UnderWay> {
        let keys = self.processing.all().chain(self.waiting.all());
        let jobs = keys.filter_map(|key| self.jobs.get(&key));
        let told = |job: &Job| UnderWay {
            id: job.id.as_deref().map(str::to_owned),
            since: job.since,
            started: job.started,
            audio_seconds: job.audio_seconds,
        };
        jobs.take(UNDER_WAY_MAX).map(told).collect()
    }

    /// Whether its job's end was written in the same instant and came first.
    fn is_overtaken(&self, event: &LineEvent) -> bool {
        let begins = matches!(event.step, Step::Accepted | Step::Started);
        let Some((id, at)) = event.id.as_deref().zip(event.at).filter(|_| begins) else { return false };
        self.ended_ids.at(cut(id)).is_some_and(|ended| at.since(ended) <= DISORDER)
    }

    fn accepted(&mut self, event: &LineEvent, now: UnixMicros) {
        let known = event.id.as_deref().and_then(|id| self.by_id.get(cut(id)));
        match known.copied() {
            // Said twice, or after it was started: it is where it is.
            Some(key) => self.hear(key, event, now),
            None => {
                self.take_in(event, None, now);
            }
        }
    }

    fn started(&mut self, event: &LineEvent, now: UnixMicros) {
        let Some(key) = self.about(event, &[Step::Accepted]) else {
            // Accepted before the log was read.
            self.take_in(event, Some(event.at.unwrap_or(now)), now);
            return;
        };
        self.name(key, event);
        self.hear(key, event, now);
        if let Some(job) = self.jobs.get_mut(&key)
            && job.started.is_none()
        {
            job.started = Some(event.at.unwrap_or(now));
            let nameless = job.id.is_none();
            self.waiting.remove(key);
            self.processing.insert(key, nameless);
        }
    }

    fn end(&mut self, event: &LineEvent, failed: bool) {
        let key = self.about(event, &[Step::Started, Step::Accepted]);
        if key.is_none() && event.id.as_deref().is_some_and(|id| self.ended_ids.has(cut(id))) {
            self.counts.repeated += 1;
            return;
        }
        let job = key.and_then(|key| self.take_out(key));
        if let Some(id) = &event.id {
            self.ended_ids.add(cut(id), event.at);
        }
        let Some(at) = event.at else { return };
        let started = job.as_ref().and_then(|job| job.started);
        let measured = started.filter(|since| *since <= at).map(|since| at.since(since).as_secs_f64());
        self.tell(Ended {
            at,
            failed,
            took_seconds: event.took_seconds.or(measured),
            audio_seconds: event.audio_seconds.or(job.and_then(|job| job.audio_seconds)),
        });
    }

    fn restarted(&mut self, at: Option<UnixMicros>) {
        let lost = self.jobs.len();
        self.jobs.clear();
        self.by_id.clear();
        self.waiting = Lane::default();
        self.processing = Lane::default();
        self.hole = None;
        let lost = u64::try_from(lost).unwrap_or(u64::MAX);
        self.counts.lost += lost;
        let Some(at) = at else { return };
        for _ in 0..lost {
            self.tell(Ended { at, failed: true, took_seconds: None, audio_seconds: None });
        }
    }

    /// The job that a line is about; `from` says where the oldest is looked for, in this order.
    fn about(&self, event: &LineEvent, from: &[Step]) -> Option<u64> {
        if let Some(key) = event.id.as_deref().and_then(|id| self.by_id.get(cut(id))) {
            return Some(*key);
        }
        if event.id.as_deref().is_some_and(|id| self.ended_ids.has(cut(id))) && event.step != Step::Started {
            return None;
        }
        from.iter().find_map(|step| {
            let lane = if *step == Step::Started { &self.processing } else { &self.waiting };
            if event.id.is_some() { lane.nameless.first().copied() } else { lane.first() }
        })
    }

    fn take_in(&mut self, event: &LineEvent, started: Option<UnixMicros>, now: UnixMicros) {
        if self.jobs.len() >= JOBS_MAX {
            self.counts.not_taken += 1;
            self.hole = Some(now);
            return;
        }
        let at = event.at.unwrap_or(now);
        let key = self.next;
        self.next += 1;
        let id: Option<Box<str>> = event.id.as_deref().map(|id| cut(id).into());
        if let Some(id) = &id {
            self.by_id.insert(id.clone(), key);
            self.ended_ids.remove(id);
        }
        let lane = if started.is_some() { &mut self.processing } else { &mut self.waiting };
        lane.insert(key, id.is_none());
        let job = Job { id, since: at, started, heard: at, audio_seconds: event.audio_seconds };
        self.jobs.insert(key, job);
    }

    /// A job that had no id has one now.
    fn name(&mut self, key: u64, event: &LineEvent) {
        let (Some(job), Some(id)) = (self.jobs.get_mut(&key), &event.id) else { return };
        if job.id.is_some() {
            return;
        }
        let id: Box<str> = cut(id).into();
        job.id = Some(id.clone());
        self.ended_ids.remove(&id);
        self.by_id.insert(id, key);
        for lane in [&mut self.waiting, &mut self.processing] {
            if lane.remove(key) {
                lane.insert(key, false);
            }
        }
    }

    fn hear(&mut self, key: u64, event: &LineEvent, now: UnixMicros) {
        if let Some(job) = self.jobs.get_mut(&key) {
            job.heard = job.heard.max(event.at.unwrap_or(now));
            job.audio_seconds = job.audio_seconds.or(event.audio_seconds);
        }
    }

    fn take_out(&mut self, key: u64) -> Option<Job> {
        let job = self.jobs.remove(&key)?;
        self.waiting.remove(key);
        self.processing.remove(key);
        if let Some(id) = &job.id {
            self.by_id.remove(id);
        }
        Some(job)
    }

    fn forget(&mut self, now: UnixMicros) {
        let bound = now.minus(self.forget_after);
        let old: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.heard < bound).map(|(key, _)| *key).collect();
        for key in old {
            self.take_out(key);
            self.counts.forgotten += 1;
        }
        let over = |hole: UnixMicros| {
            now.since(hole) >= HOLE_TOLD_FOR && self.jobs.values().all(|job| job.since > hole)
        };
        self.hole = self.hole.filter(|hole| !over(*hole));
    }

    fn tell(&mut self, ended: Ended) {
        if self.ended.len() >= ENDED_WAITING_MAX {
            self.ended.pop_front();
            self.counts.ended_dropped += 1;
        }
        self.ended.push_back(ended);
    }
}

impl Lane {
    fn insert(&mut self, key: u64, nameless: bool) {
        if nameless {
            self.nameless.insert(key)
        } else {
            self.named.insert(key)
        };
    }

    fn remove(&mut self, key: u64) -> bool {
        self.nameless.remove(&key) || self.named.remove(&key)
    }

    fn first(&self) -> Option<u64> {
        self.nameless.first().into_iter().chain(self.named.first()).min().copied()
    }

    fn len(&self) -> usize {
        self.named.len() + self.nameless.len()
    }

    fn all(&self) -> impl Iterator<Item = u64> {
        self.named.iter().chain(&self.nameless).copied()
    }
}

/// The newest ids that ended.
#[derive(Debug, Default)]
struct EndedIds {
    order: VecDeque<Box<str>>,
    /// When each ended, where that is known.
    ids: HashMap<Box<str>, Option<UnixMicros>>,
}

impl EndedIds {
    fn has(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    fn at(&self, id: &str) -> Option<UnixMicros> {
        self.ids.get(id).copied().flatten()
    }

    fn add(&mut self, id: &str, at: Option<UnixMicros>) {
        if self.ids.insert(id.into(), at).is_some() {
            return;
        }
        self.order.push_back(id.into());
        if self.order.len() > ENDED_IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    /// It is under way again. Its place in the order stays: a later entry may fall a little early.
    fn remove(&mut self, id: &str) {
        self.ids.remove(id);
    }
}

/// An id as it is kept.
fn cut(id: &str) -> &str {
    id.get(..id.floor_char_boundary(ID_BYTES_MAX)).unwrap_or(id)
}

fn seen(known: bool, value: f64) -> Reading {
    if known { Ok(value) } else { Err(Missing::NotSupported) }
}

#[expect(clippy::cast_precision_loss, reason = "there are at most `JOBS_MAX`")]
fn number(jobs: usize) -> f64 {
    jobs as f64
}

#[cfg(test)]
mod tests;
