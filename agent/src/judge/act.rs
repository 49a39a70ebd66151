//! What a live worker is stopped for: takes looks from outside, trouble that was told, and time; decides
//! whether a stop begins, after the fleet gave leave where the worker takes jobs. Pure.
//!
//! Everything here needs evidence of now: trouble that is older than ten minutes is told and nothing
//! more. A worker that is held is told of as well, and not touched.

use std::time::Duration;

use diarwatch_shared::event::{Cause, What};

use super::ladder::{Deed, Ladder, Patience};
use super::progress::{Health, Views, Vote, hangs};
use super::proof::Proof;
use super::{Action, Alive, Bench, CallsFor, Leave, State, Trouble, millis};
use crate::config::worker::supervise::GpuNeed;
use crate::leases::Lease;

/// Trouble that is older only informs.
pub const EVIDENCE_AGE_MAX: Duration = Duration::from_secs(600);
/// Trouble that may come once calls for a restart when it came so often within [`EVIDENCE_AGE_MAX`].
pub const OFTEN: usize = 3;
/// How long nothing may have moved before a start that is over its time counts as standing still.
pub const LOAD_STILL: Duration = Duration::from_secs(30);
/// How long a ready worker may be without the GPU memory that it had.
pub const WITHOUT_GPU_MAX: Duration = Duration::from_secs(15);
/// From one telling of the same trouble to the next.
pub const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Kinds of trouble that are told within that time.
pub const TOLD_MAX: usize = 16;
/// So long after a job made up for it a queue may still count that.
pub const MADE_UP_COUNTS: Duration = Duration::from_secs(10);
/// Without the fleet's word, a ready worker is stopped once in this time.
pub const ALONE_EVERY: Duration = Duration::from_secs(600);

impl State {
    /// A look from outside.
    pub(super) fn see(&mut self, views: Views, bench: &mut Bench) {
        if views.gpu.is_some_and(|gpu| gpu.memory_bytes > 0) {
            self.gpu_seen = true;
        }
        if let Some(longest) = views.jobs.as_ref().and_then(|jobs| jobs.longest) {
            self.longest_job = self.longest_job.max(Some(longest));
        }
        let now = bench.now;
        let completed = self.alive_mut().is_some_and(|alive| {
            alive.progress.see(&views, now);
            alive.see_jobs(&views, now)
        });
        if let Some(gpu) = views.ghost_gpu {
            let text = format!(
                "GPU {gpu} is fully busy with no process on it: a kernel was killed in the middle; opening and \
                 closing one CUDA context clears that as a rule (python3 -c 'import torch; torch.cuda.init()')"
            );
            self.tell_trouble("gpu_ghost_load", &text, bench);
        }
        self.views = views;
        if completed && self.alive().is_some_and(|alive| !alive.proven) {
            self.proven("it completed a job", bench);
        }
    }

    /// What time and looks decide, after each input.
    pub(super) fn watch(&mut self, bench: &mut Bench) {
        self.prove(bench);
        self.watch_gpu(bench);
        self.lose_patience(bench);
        self.climb(bench);
        if self.blind.is_some() || self.alive().is_none_or(|alive| alive.stopping.is_some()) {
            return;
        }
        if self.alive().is_some_and(|alive| matches!(alive.proof, Proof::Readiness(_))) {
            return self.watch_load(bench);
        }
        if let Some((cause, reason, patience)) = self.complaint(bench) {
            self.wish(cause, reason, patience, bench);
        }
    }

    fn watch_load(&mut self, bench: &mut Bench) {
        let gate = self.loads.limit(bench.config.startup_min, bench.config.startup_max);
        let Some(alive) = self.alive() else { return };
        let moves = alive.progress.moved_within(LOAD_STILL, bench.now);
        let waited = bench.since(alive.started.max(alive.seen_since));
        let adopted = alive.adopted;
        let seen = alive.seen.clone().unwrap_or_else(|| String::from("no probe came to its end"));
        let over = waited >= bench.config.startup_max || waited >= gate && moves == Some(false);
        if over && !(adopted && moves == Some(true)) {
            self.tell_overdue(&seen, waited, bench);
        }
        if adopted {
            // It may work in silence since long before the agent came: only what hangs is stopped.
            if let Some((cause, reason, patience)) = self.complaint(bench) {
                self.wish(cause, reason, patience, bench);
            }
        } else if over {
            let still = if moves == Some(false) { " and nothing of it moves" } else { "" };
            let reason = format!("it has been starting for {} s{still}: {seen}", waited.as_secs());
            self.wish(Cause::StartOverdue, reason, Patience::Load, bench);
        }
    }

    fn tell_overdue(&mut self, seen: &str, waited: Duration, bench: &mut Bench) {
        let Some(alive) = self.alive_mut() else { return };
        if std::mem::replace(&mut alive.overdue_told, true) {
            return;
        }
        self.lost_at.get_or_insert(bench.now);
        let (worker, reason) = (bench.worker(), seen.to_owned());
        bench.emit(What::WorkerStartOverdue { worker, reason, waited_ms: millis(waited) });
    }

    /// A worker that hangs while its jobs are waited for will not end them.
    fn lose_patience(&mut self, bench: &Bench) {
        let hung = hangs(&self.votes(bench), self.uses_gpu(bench));
        if let Some(ladder) = self.alive_mut().and_then(|alive| alive.stopping.as_mut())
            && hung
            && ladder.patience == Patience::Jobs
        {
            ladder.patience = Patience::Short;
        }
    }

    /// What is wrong with a worker that came up, if a restart would help.
    fn complaint(&self, bench: &Bench) -> Option<(Cause, String, Patience)> {
        let alive = self.alive()?;
        let votes = self.votes(bench);
        if hangs(&votes, self.uses_gpu(bench)) {
            let (cause, what) = match alive.health {
                Health::NotReady(_) => (Cause::NotReady, "it is not ready and nothing of it moves"),
                _ => (Cause::Wedged, "it hangs"),
            };
            return Some((cause, format!("{what}: {}", words(&votes)), Patience::Short));
        }
        if alive.without_gpu.is_some_and(|at| bench.since(at) >= WITHOUT_GPU_MAX) {
            let reason = "its processes hold no GPU memory any more: it does its jobs on the CPU";
            return Some((Cause::FellToCpu, reason.to_owned(), Patience::Jobs));
        }
        let leak = alive.growth.leak(bench.config.leak.0, bench.config.leak.1)?;
        let mib = |bytes: u64| bytes >> 20;
        let (per_job, total) = (mib(leak.per_job), mib(leak.total));
        let reason = format!("its GPU memory grows by {per_job} MiB a job, {total} MiB so far");
        Some((Cause::GpuMemoryGrowth, reason, Patience::Jobs))
    }

    /// What each view of it says now.
    pub(super) fn votes(&self, bench: &Bench) -> [Vote; 4] {
        let window = bench.config.wedge_after;
        self.alive().map_or_else(
            || super::Progress::new(bench.now).votes(Health::Unknown, window, bench.now),
            |alive| alive.progress.votes(alive.health, window, bench.now),
        )
    }

    pub(super) fn uses_gpu(&self, bench: &Bench) -> bool {
        match bench.config.gpu {
            GpuNeed::Required => true,
            GpuNeed::Auto => self.gpu_seen,
            GpuNeed::None => false,
        }
    }

    /// Trouble that was told.
    pub(super) fn trouble(&mut self, trouble: Trouble, bench: &mut Bench) {
        let Trouble { name, calls_for, age, text } = trouble;
        if calls_for == CallsFor::Naming {
            self.named = Some(format!("{name}: {text}"));
        }
        self.tell_trouble(&name, &text, bench);
        if age > EVIDENCE_AGE_MAX {
            return;
        }
        match calls_for {
            CallsFor::Telling | CallsFor::Naming => {}
            CallsFor::Restart(cause) => self.wish(cause, text, Patience::Short, bench),
            CallsFor::RestartWhenOften(cause) => {
                self.often.retain(|at| bench.now.saturating_sub(*at) < EVIDENCE_AGE_MAX);
                if self.often.len() >= OFTEN {
                    self.often.pop_front();
                }
                self.often.push_back(bench.now);
                if self.often.len() >= OFTEN {
                    let reason = format!("{} times within ten minutes: {text}", self.often.len());
                    self.often.clear();
                    self.wish(cause, reason, Patience::Jobs, bench);
                }
            }
        }
    }

    /// The same trouble is told once a minute; what follows from it does not wait.
    fn tell_trouble(&mut self, name: &str, text: &str, bench: &mut Bench) {
        self.often_told.retain(|(_, at)| bench.now.saturating_sub(*at) < TELL_AGAIN);
        if self.often_told.iter().any(|(told, _)| told == name) || self.often_told.len() >= TOLD_MAX {
            return;
        }
        self.often_told.push_back((name.to_owned(), bench.now));
        self.note(bench, format!("{name}: {text}"));
        let (worker, trouble, text) = (bench.worker(), name.to_owned(), text.to_owned());
        bench.emit(What::WorkerTrouble { worker, trouble, text });
    }

    /// A stop is wanted: it begins when the worker takes no jobs anyway, or the fleet gave leave.
    pub(super) fn wish(&mut self, cause: Cause, reason: String, patience: Patience, bench: &mut Bench) {
        let Some(alive) = self.alive().filter(|alive| alive.stopping.is_none()) else { return };
        let ready = alive.ready_since.is_some();
        if let Some(by) = self.held.clone() {
            return self.trouble_once(
                "held",
                format!("it would be stopped ({reason}), but {by} holds it"),
                bench,
            );
        }
        if !bench.config.stop_live {
            let text = format!("it would be stopped ({reason}), but supervise.stop_live is off");
            return self.trouble_once("stop_live_off", text, bench);
        }
        if !ready {
            return self.stop_for(cause, reason, patience, bench);
        }
        match &self.lease {
            Leave::Held { .. } => self.stop_for(cause, reason, patience, bench),
            Leave::Denied { ask_again, .. } if bench.now < *ask_again => {}
            Leave::Asked { .. } => {}
            _ => {
                self.lease = Leave::Asked { cause, reason };
                bench.put(Action::AskLease { cause });
            }
        }
    }

    /// The fleet's answer.
    pub(super) fn leased(&mut self, lease: Lease, bench: &mut Bench) {
        let Leave::Asked { cause, reason } = std::mem::take(&mut self.lease) else {
            if let Lease::Granted { id } = lease {
                bench.put(Action::ReturnLease { id });
            }
            return;
        };
        let live = self.alive().is_some_and(|alive| alive.stopping.is_none()) && self.held.is_none();
        let patience = if matches!(cause, Cause::GpuMemoryGrowth | Cause::CudaOutOfMemory | Cause::FellToCpu)
        {
            Patience::Jobs
        } else {
            Patience::Short
        };
        match lease {
            Lease::Granted { id } if live => {
                self.lease = Leave::Held { id };
                self.stop_for(cause, reason, patience, bench);
            }
            Lease::Granted { id } => bench.put(Action::ReturnLease { id }),
            Lease::Denied { reason: why, retry_after } => {
                self.note(bench, format!("the fleet gives no leave to stop it ({reason}): {why}"));
                let ask_again = bench.now.saturating_add(retry_after);
                self.lease = Leave::Denied { reason: why, ask_again };
            }
            Lease::Alone if !live => {}
            Lease::Alone => {
                let due = self.stopped_alone.is_none_or(|at| bench.since(at) >= ALONE_EVERY);
                if due {
                    self.stopped_alone = Some(bench.now);
                    self.stop_for(cause, reason, patience, bench);
                } else {
                    let why = String::from("no aggregator answers, and one was stopped within ten minutes");
                    let ask_again = bench.now.saturating_add(Duration::from_secs(60));
                    self.lease = Leave::Denied { reason: why, ask_again };
                }
            }
        }
    }

    /// Begins the stop.
    pub(super) fn stop_for(&mut self, cause: Cause, reason: String, patience: Patience, bench: &mut Bench) {
        let now = bench.now;
        let Some(alive) = self.alive_mut().filter(|alive| alive.stopping.is_none()) else { return };
        let pid = alive.pid;
        let (ladder, deed) = Ladder::begin(cause, reason.clone(), patience, now, &bench.config.stop);
        alive.stopping = Some(ladder);
        alive.ready_since = None;
        self.lost_at.get_or_insert(now);
        self.note(bench, format!("it is stopped: {reason}"));
        bench.emit(What::WorkerStopping { worker: bench.worker(), pid, cause, reason });
        if let Some(deed) = deed {
            self.out = self.out || deed == Deed::TakeOut;
            bench.put(Action::Do(deed));
        }
        self.climb(bench);
    }

    /// Takes a stop under way a step on.
    fn climb(&mut self, bench: &mut Bench) {
        let jobs = self.views.jobs.as_ref().map(super::progress::JobsView::under_way);
        let longest = self.longest_job;
        // A stop that was under way when a person took hold of the worker goes no step further.
        if self.held.is_some() {
            return;
        }
        let Some(ladder) = self.alive_mut().and_then(|alive| alive.stopping.as_mut()) else { return };
        while let Some(deed) = ladder.next(jobs, longest, bench.now, &bench.config.stop) {
            bench.actions.push(Action::Do(deed));
        }
    }

    /// A deed came to its end.
    pub(super) fn done(&mut self, deed: Deed, result: Result<Duration, String>, bench: &mut Bench) {
        if let Err(problem) = &result
            && deed != Deed::Prove
        {
            self.note(bench, format!("{deed:?} failed: {problem}"));
            let (worker, trouble) = (bench.worker(), String::from("step_failed"));
            let text = format!("{deed:?}: {problem}");
            bench.emit(What::WorkerTrouble { worker, trouble, text });
        }
        let now = bench.now;
        match deed {
            Deed::TakeOut => {
                if let Some(ladder) = self.alive_mut().and_then(|alive| alive.stopping.as_mut()) {
                    ladder.taken_out(now);
                }
            }
            Deed::Prove => self.proved(result, bench),
            Deed::PutBack | Deed::Send(_) => {}
        }
    }

    /// The next instant that must not be missed; what is less urgent is looked at once a second.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.next_start()
    }

    /// Follows whether a ready worker still has the GPU memory that it had.
    pub(super) fn watch_gpu(&mut self, bench: &Bench) {
        let wanted = self.uses_gpu(bench);
        let memory = self.views.gpu.map(|gpu| gpu.memory_bytes);
        let when_ready = self.gpu_when_ready;
        let Some(alive) = self.alive_mut() else { return };
        let worked = alive.jobs.is_some_and(|(_, ended)| ended > 0);
        let ready = alive.ready_since.is_some() && alive.proof == Proof::Done;
        let without = wanted && ready && (when_ready || worked) && memory == Some(0);
        alive.without_gpu = without.then(|| alive.without_gpu.unwrap_or(bench.now));
    }
}

impl Alive {
    /// Follows its jobs; whether one was completed while it is ready.
    fn see_jobs(&mut self, views: &Views, now: Duration) -> bool {
        let Some(jobs) = &views.jobs else { return false };
        let counts = (jobs.completed_total, jobs.ended_total);
        let Some(before) = self.jobs.replace(counts) else { return false };
        // What was made up for it proves no more than its start.
        let made_up = self.proof == Proof::Job
            || self.made_up_at.is_some_and(|at| now.saturating_sub(at) < MADE_UP_COUNTS);
        if made_up {
            return false;
        }
        let more = counts.1.saturating_sub(before.1);
        if let (Some(gpu), 1..) = (views.gpu, more) {
            self.growth.after_jobs(more, gpu.memory_bytes);
        }
        counts.0 > before.0 && self.ready_since.is_some()
    }
}

fn words(votes: &[Vote]) -> String {
    let said: Vec<String> = votes.iter().map(|vote| format!("{}: {}", vote.view, vote.words)).collect();
    said.join("; ")
}
