//! What is made of a queue's looks: rates, times of the last jobs, the estimate of when nothing waits,
//! and whether the queue only grows. Pure: (state, look or problem, now) gives what is told.
//!
//! Rates are over the last ten minutes, or since the first look when that is shorter, and begin after a
//! minute. Times are of the last 1,000 completed jobs of the last hour. While a source fails nothing is
//! told but the problem: an old number is never told again. After two minutes without an answer, or a
//! clock that went back, the windows begin anew.

use std::collections::VecDeque;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::reading::{Missing, Reading};

use super::window::{Sample, Window};
use super::{Ended, Look, QueueStatus};

/// What the rates are over.
pub const RATE_WINDOW: Duration = Duration::from_secs(600);
/// From so long on a rate is told.
pub const RATE_AFTER: Duration = Duration::from_secs(60);
/// Jobs whose times are kept.
pub const JOBS_MAX: usize = 1_000;
/// How long a job's time is kept.
pub const JOB_AGE_MAX: Duration = Duration::from_secs(3_600);
/// How long a queue only grows before that is a finding, and what the drain estimate looks back on;
/// twice the 95th percentile of the processing time where that is longer.
pub const PACE_WINDOW: Duration = Duration::from_secs(300);
/// The longest that both look back.
pub const PACE_WINDOW_MAX: Duration = Duration::from_secs(3_600);
/// After so long without an answer the windows begin anew: what came out meanwhile has no time.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What does not change of a queue.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name.
    pub queue: String,
    /// What works it off.
    pub service: String,
    /// The kind of its source.
    pub source: &'static str,
    /// Whether its numbers are worked out and not counted.
    pub estimated: bool,
}

/// What is told of a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// 1 while the source answers, 0 while it does not.
    pub up: Reading,
    /// Jobs that wait.
    pub waiting: Reading,
    /// Jobs that are worked on.
    pub processing: Reading,
    /// Age of the oldest waiting job, in seconds.
    pub oldest_seconds: Reading,
    /// Jobs completed since the agent started.
    pub completed_total: Reading,
    /// Jobs failed since the agent started.
    pub failed_total: Reading,
    /// Jobs completed per minute.
    pub completed_per_minute: Reading,
    /// Jobs failed per minute.
    pub failed_per_minute: Reading,
    /// Seconds until nothing waits.
    pub drain_seconds: Reading,
    /// 1 while the queue only grows, 0 while it does not.
    pub growing: Reading,
    /// Mean processing time, in seconds.
    pub mean_seconds: Reading,
    /// 95th percentile of the processing time, in seconds.
    pub p95_seconds: Reading,
    /// Processing seconds per hour of audio.
    pub seconds_per_audio_hour: Reading,
}

/// What is known of a queue.
#[derive(Clone, Debug)]
pub struct Account {
    facts: Facts,
    started: UnixMicros,
    state: State,
    window: Window,
    jobs: VecDeque<Ended>,
    completed: Count,
    failed: Count,
    seen: Option<UnixMicros>,
}

#[derive(Clone, Debug)]
enum State {
    /// Not looked at yet.
    New,
    /// The newest look; its jobs are in the account.
    Answers(Box<Look>),
    /// Why the newest look gave nothing.
    Fails(Missing, String),
}

/// How many jobs ended one way.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// The newest total of the source.
    base: Option<f64>,
    /// Since the agent started.
    total: f64,
}

impl Count {
    /// Takes a total of the source; gives how many were added. One that went back (a restart, a purge)
    /// adds nothing and is counted on from there: what it lost cannot be known.
    fn take(&mut self, total: f64) -> f64 {
        let added = self.base.map_or(0.0, |base| (total - base).max(0.0));
        self.base = Some(total);
        self.total += added;
        added
    }
}

impl Account {
    /// An account of a queue that nobody has looked at.
    #[must_use]
    pub fn new(facts: Facts, now: UnixMicros) -> Self {
        let (completed, failed) = (Count::default(), Count::default());
        let window = Window::new(now);
        Self {
            facts,
            started: now,
            state: State::New,
            window,
            jobs: VecDeque::new(),
            completed,
            failed,
            seen: None,
        }
    }

    /// The source answered; the look is checked.
    pub fn looked(&mut self, look: &Look, now: UnixMicros) {
        let silent = self.seen.is_none_or(|seen| now < seen || now.since(seen) > SILENCE_MAX);
        if silent {
            self.window = Window::new(now);
        }
        if self.seen.is_some_and(|seen| now < seen) {
            self.jobs.clear();
        }
        self.seen = Some(now);
        let completed = look.completed_total.map(|total| self.completed.take(total));
        let failed = look.failed_total.map(|total| self.failed.take(total));
        if !silent {
            self.window.add(now, completed.unwrap_or(0.0), failed.unwrap_or(0.0));
        }
        for ended in &look.ended {
            let ended = Ended { at: ended.at.min(now), ..*ended };
            if now.since(ended.at) > JOB_AGE_MAX {
                continue;
            }
            self.ended(ended, completed.is_ok(), failed.is_ok());
        }
        if let Ok(waiting) = look.waiting {
            self.window.sample(Sample { at: now, waiting, processing: look.processing.ok() });
        }
        self.forget(now);
        self.state = State::Answers(Box::new(Look { ended: Vec::new(), ..look.clone() }));
    }

    /// The source gave nothing, and why.
    pub fn failed(&mut self, why: Missing, problem: String) {
        self.state = State::Fails(why, problem);
    }

    /// A job that ended; counted here where the source has no total of its kind.
    fn ended(&mut self, ended: Ended, completed_counted: bool, failed_counted: bool) {
        let counted = if ended.failed { failed_counted } else { completed_counted };
        if !counted {
            let (completed, failed) = if ended.failed { (0.0, 1.0) } else { (1.0, 0.0) };
            self.window.reach_back(ended.at);
            self.window.add(ended.at, completed, failed);
            if ended.at >= self.started {
                self.completed.total += completed;
                self.failed.total += failed;
            }
        }
        if !ended.failed && ended.took_seconds.is_some() {
            self.jobs.push_back(ended);
        }
    }

    fn forget(&mut self, now: UnixMicros) {
        self.jobs.retain(|job| now.since(job.at) <= JOB_AGE_MAX);
        while self.jobs.len() > JOBS_MAX {
            self.jobs.pop_front();
        }
        self.window.forget(now.minus(PACE_WINDOW_MAX));
    }

    /// What is told now.
    #[must_use]
    pub fn told(&self, now: UnixMicros) -> Told {
        match &self.state {
            State::New => Told::nothing(Err(Missing::NotYet), Missing::NotYet),
            State::Fails(why, _) => Told::nothing(Ok(0.0), *why),
            State::Answers(look) => self.told_of(look, now),
        }
    }

    /// The same for people.
    #[must_use]
    pub fn status(&self, now: UnixMicros) -> QueueStatus {
        let told = self.told(now);
        QueueStatus {
            queue: self.facts.queue.clone(),
            service: self.facts.service.clone(),
            source: self.facts.source,
            estimated: self.facts.estimated,
            waiting: told.waiting.into(),
            processing: told.processing.into(),
            oldest_seconds: told.oldest_seconds.into(),
            completed_per_minute: told.completed_per_minute.into(),
            failed_per_minute: told.failed_per_minute.into(),
            job_mean_seconds: told.mean_seconds.into(),
            job_p95_seconds: told.p95_seconds.into(),
            job_seconds_per_audio_hour: told.seconds_per_audio_hour.into(),
            drain_seconds: told.drain_seconds.into(),
            growing: told.growing == Ok(1.0),
            completed_total: self.completed_total(),
            ended_total: self.ended_total(),
            under_way: match &self.state {
                State::Answers(look) => look.under_way.clone(),
                State::New | State::Fails(..) => Vec::new(),
            },
            problem: match &self.state {
                State::Fails(_, problem) => Some(problem.clone()),
                State::Answers(look) => look.doubt.clone(),
                State::New => None,
            },
            seen: self.seen,
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    fn completed_total(&self) -> u64 {
        self.completed.total as u64
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of counts")]
    fn ended_total(&self) -> u64 {
        (self.completed.total + self.failed.total) as u64
    }

    fn told_of(&self, look: &Look, now: UnixMicros) -> Told {
        let mean_seconds = look.mean_seconds.or_else(|why| self.mean().ok_or(why));
        let p95_seconds = look.p95_seconds.or_else(|why| self.p95().ok_or(why));
        // A source without a total says in `mean_seconds` whether it gives the jobs that ended.
        let ended = look.mean_seconds == Err(Missing::NotYet) || !self.jobs.is_empty();
        let total = |total: Reading, count: Count| match total {
            Err(Missing::NotSupported) if !ended => Err(Missing::NotSupported),
            _ => Ok(count.total),
        };
        let (completed_total, failed_total) =
            (total(look.completed_total, self.completed), total(look.failed_total, self.failed));
        let out = self.window.out(now.minus(RATE_WINDOW), now);
        let rate = |supported: Reading, count: f64| {
            supported?;
            if out.over < RATE_AFTER {
                Err(Missing::NotYet)
            } else {
                Ok(count / (out.over.as_secs_f64() / 60.0))
            }
        };
        let pace = Pace { over: pace_window(p95_seconds), out_known: completed_total.is_ok() };
        Told {
            up: Ok(1.0),
            waiting: look.waiting,
            processing: look.processing,
            oldest_seconds: look.oldest_seconds,
            completed_total,
            failed_total,
            completed_per_minute: rate(completed_total, out.completed),
            failed_per_minute: rate(failed_total, out.failed),
            drain_seconds: look
                .waiting
                .and_then(|waiting| self.drain(waiting, look.processing.ok(), &pace, now)),
            growing: look.waiting.map(|waiting| if self.grows(waiting, &pace, now) { 1.0 } else { 0.0 }),
            mean_seconds,
            p95_seconds,
            seconds_per_audio_hour: self
                .per_audio_hour()
                .ok_or(look.mean_seconds.err().unwrap_or(Missing::NotSupported)),
        }
    }

    /// When nothing waits any more: what came out less what came in, since the begin of the pace window.
    fn drain(&self, waiting: f64, processing: Option<f64>, pace: &Pace, now: UnixMicros) -> Reading {
        if waiting <= 0.0 {
            return Ok(0.0);
        }
        let then = self.window.sample_since(now.minus(pace.over)).ok_or(Missing::NotYet)?;
        let over = now.since(then.at);
        if over < RATE_AFTER {
            return Err(Missing::NotYet);
        }
        let worked_on = processing.zip(then.processing).map_or(0.0, |(now, then)| now - then);
        let shrunk = if pace.out_known {
            let out = self.window.out(then.at, now).all();
            let arrived = (waiting - then.waiting + worked_on + out).max(0.0);
            out - arrived
        } else {
            then.waiting - waiting
        };
        let seconds = waiting / (shrunk / over.as_secs_f64());
        if shrunk > 0.0 && seconds.is_finite() { Ok(seconds) } else { Err(Missing::NotYet) }
    }

    /// Whether waiting rose, never fell and nothing came out for the whole pace window.
    fn grows(&self, waiting: f64, pace: &Pace, now: UnixMicros) -> bool {
        let begin = now.minus(pace.over);
        let Some(then) = self.window.sample_since(begin) else { return false };
        self.window.began() <= begin
            && waiting > then.waiting
            && !self.window.fell_since(begin)
            && self.window.out(begin, now).all() <= 0.0
    }

    fn times(&self) -> impl Iterator<Item = f64> {
        self.jobs.iter().filter_map(|job| job.took_seconds)
    }

    #[expect(clippy::cast_precision_loss, reason = "at most a thousand jobs")]
    fn mean(&self) -> Option<f64> {
        let sum: f64 = self.times().sum();
        (!self.jobs.is_empty()).then(|| sum / self.jobs.len() as f64)
    }

    /// By nearest rank: the time of a job that was.
    fn p95(&self) -> Option<f64> {
        let mut times: Vec<f64> = self.times().collect();
        times.sort_by(f64::total_cmp);
        times.get((times.len() * 95).div_ceil(100).saturating_sub(1)).copied()
    }

    fn per_audio_hour(&self) -> Option<f64> {
        let both = self.jobs.iter().filter_map(|job| job.took_seconds.zip(job.audio_seconds));
        let (took, audio) = both.fold((0.0, 0.0), |(took, audio), job| (took + job.0, audio + job.1));
        (audio > 0.0).then(|| took / audio * 3_600.0)
    }
}

/// How far back growth and drain look, and whether it is known what came out.
struct Pace {
    over: Duration,
    out_known: bool,
}

fn pace_window(p95_seconds: Reading) -> Duration {
    let twice = p95_seconds.ok().and_then(|seconds| Duration::try_from_secs_f64(2.0 * seconds).ok());
    twice.unwrap_or_default().clamp(PACE_WINDOW, PACE_WINDOW_MAX)
}

impl Told {
    fn nothing(up: Reading, why: Missing) -> Self {
        let none = Err(why);
        Self {
            up,
            waiting: none,
            processing: none,
            oldest_seconds: none,
            completed_total: none,
            failed_total: none,
            completed_per_minute: none,
            failed_per_minute: none,
            drain_seconds: none,
            growing: none,
            mean_seconds: none,
            p95_seconds: none,
            seconds_per_audio_hour: none,
        }
    }
}

#[cfg(test)]
mod tests;
