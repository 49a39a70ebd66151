//! What proves that a worker is back: takes probes, looks and the end of a job made up for it; says when it may
//! be called ready. Pure.
//!
//! Probes in a row say "ready"; then, where one is configured, a job made up for it comes to its end (it also
//! loads the model of a worker that does so with its first job); then its processes hold GPU memory, where
//! they did when they became ready before (a worker that silently fell to its CPU is 7 to 20 times slower).
//! What fails here counts as a start that failed. A worker that was adopted proves itself by its probes
//! alone: it is not touched.

use std::time::Duration;

use diarwatch_shared::event::{Cause, What};

use super::ladder::{Deed, Patience};
use super::progress::Health;
use super::{Action, Bench, Leave, Stage, State, millis};
use crate::config::worker::supervise::GpuNeed;
use crate::probe::Verdict;

/// How long a worker that says "ready" may be without GPU memory: the driver tells it once a second.
pub const GPU_WAIT: Duration = Duration::from_secs(15);

/// How far the proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// So many probes in a row said "ready".
    Readiness(u32),
    /// A job made up for it is under way.
    Job,
    /// Its GPU memory is waited for since then.
    Gpu(Duration),
    /// It is proved.
    Done,
}

impl Default for Proof {
    fn default() -> Self {
        Self::Readiness(0)
    }
}

impl State {
    pub(super) fn probed(&mut self, verdict: &Verdict, bench: &mut Bench) {
        let now = bench.now;
        let Some(alive) = self.alive_mut() else { return };
        alive.seen = verdict.reason().map(str::to_owned);
        alive.failures = match verdict {
            Verdict::NoAnswer { .. } => alive.failures.saturating_add(1),
            Verdict::Ready | Verdict::NotReady { .. } => 0,
        };
        alive.health = match (verdict, alive.health) {
            (Verdict::Ready, _) => Health::Ready,
            (Verdict::NotReady { .. }, Health::NotReady(at)) => Health::NotReady(at),
            (Verdict::NotReady { .. }, _) => Health::NotReady(now),
            (Verdict::NoAnswer { .. }, Health::Silent(at)) => Health::Silent(at),
            (Verdict::NoAnswer { .. }, _) => Health::Silent(now),
        };
        if let (Proof::Readiness(streak), true) = (&mut alive.proof, *verdict != Verdict::Ready) {
            *streak = 0;
        }
        if *verdict != Verdict::Ready {
            alive.again = 0;
        }
        match verdict {
            Verdict::Ready => self.answered_ready(bench),
            // One silent probe of a busy worker is common; a body that says "not ready" is certain.
            Verdict::NoAnswer { .. } if alive.failures < bench.config.failures => {}
            Verdict::NotReady { reason } | Verdict::NoAnswer { reason } => {
                self.lose_readiness(reason.clone(), bench);
            }
        }
    }

    /// Its manager's own check speaks like a probe that nobody asked for.
    pub(super) fn checked(&mut self, healthy: bool, reason: &str, bench: &mut Bench) {
        let now = bench.now;
        let Some(alive) = self.alive_mut() else { return };
        if healthy {
            alive.check = None;
        } else {
            alive.check.get_or_insert((now, reason.to_owned()));
            self.lose_readiness(format!("its own check says so: {reason}"), bench);
        }
    }

    fn lose_readiness(&mut self, reason: String, bench: &mut Bench) {
        let Some(alive) = self.alive_mut() else { return };
        if alive.ready_since.take().is_some() {
            self.lost_at.get_or_insert(bench.now);
            let worker = bench.worker();
            bench.emit(What::WorkerNotReady { worker, reason });
        }
    }

    fn answered_ready(&mut self, bench: &mut Bench) {
        let now = bench.now;
        let Some(alive) = self.alive_mut() else { return };
        if alive.check.is_some() || alive.stopping.is_some() {
            return;
        }
        let started = alive.started;
        let load = *alive.load.get_or_insert(now.saturating_sub(started));
        match &mut alive.proof {
            Proof::Readiness(streak) => {
                *streak = streak.saturating_add(1);
                if *streak < bench.config.readiness {
                    return;
                }
                let adopted = alive.adopted;
                alive.proof = match (adopted, bench.config.prove_job) {
                    (true, _) => Proof::Done,
                    (false, true) => Proof::Job,
                    (false, false) => Proof::Gpu(now),
                };
                if adopted {
                    return self.become_ready(bench);
                }
                self.loads.add(load);
                bench.put(Action::Save);
                if bench.config.prove_job {
                    bench.put(Action::Do(Deed::Prove));
                }
            }
            // One that comes and goes is back when it says so as often as after a start.
            Proof::Done if alive.ready_since.is_none() => {
                alive.again = alive.again.saturating_add(1);
                if alive.again >= bench.config.readiness {
                    self.become_ready(bench);
                }
                return;
            }
            Proof::Done | Proof::Gpu(_) | Proof::Job => return,
        }
        self.prove(bench);
    }

    /// Takes the proof on as far as it goes now.
    pub(super) fn prove(&mut self, bench: &mut Bench) {
        let Some(alive) = self.alive().filter(|alive| alive.stopping.is_none()) else { return };
        match alive.proof {
            Proof::Readiness(_) | Proof::Job | Proof::Done => {}
            Proof::Gpu(since) => match self.has_gpu(bench) {
                Some(false) if bench.since(since) >= GPU_WAIT => self.fell_to_cpu(bench),
                Some(false) => {}
                // What the driver does not tell within the time is no proof of anything.
                None if bench.since(since) < GPU_WAIT && self.gpu_wanted(bench) => {}
                _ => {
                    if let Some(alive) = self.alive_mut() {
                        alive.proof = Proof::Done;
                    }
                    self.become_ready(bench);
                }
            },
        }
    }

    /// The job made up for it came to its end.
    pub(super) fn proved(&mut self, result: Result<Duration, String>, bench: &mut Bench) {
        let Some(alive) = self.alive_mut() else { return };
        if alive.proof != Proof::Job {
            return;
        }
        match result {
            Ok(took) => {
                alive.proof = Proof::Gpu(bench.now);
                alive.made_up_at = Some(bench.now);
                self.note(bench, format!("a job made up for it took {} ms", took.as_millis()));
                self.prove(bench);
            }
            Err(problem) => {
                let reason = format!("it says that it is ready, but a job made up for it failed: {problem}");
                self.disprove(Cause::ProofFailed, reason, bench);
            }
        }
    }

    fn become_ready(&mut self, bench: &mut Bench) {
        let now = bench.now;
        let lost = self.lost_at.take();
        let gpu = self.views.gpu.is_some_and(|gpu| gpu.memory_bytes > 0);
        let Some(alive) = self.alive_mut() else { return };
        alive.ready_since = Some(now);
        alive.again = 0;
        let load = alive.load.unwrap_or_default();
        if !alive.adopted && lost.is_none() {
            alive.stable_due = false;
        }
        if !alive.adopted {
            self.gpu_when_ready = gpu;
        }
        self.told = None;
        self.lease_back(bench);
        self.note(bench, "it is ready");
        let down_ms = lost.map(|lost| millis(now.saturating_sub(lost)));
        bench.emit(What::WorkerReady { worker: bench.worker(), load_ms: millis(load), down_ms });
        if self.out && self.drained.is_none() {
            self.out = false;
            if bench.config.put_back {
                bench.put(Action::Do(Deed::PutBack));
            }
        }
    }

    pub(super) fn lease_back(&mut self, bench: &mut Bench) {
        if let Leave::Held { id } = std::mem::take(&mut self.lease) {
            bench.put(Action::ReturnLease { id });
        }
    }

    /// Whether its processes hold GPU memory; none when that cannot be known, or does not matter.
    fn has_gpu(&self, bench: &Bench) -> Option<bool> {
        if !self.gpu_wanted(bench) {
            return None;
        }
        self.views.gpu.map(|gpu| gpu.memory_bytes > 0)
    }

    fn gpu_wanted(&self, bench: &Bench) -> bool {
        match bench.config.gpu {
            GpuNeed::Required => true,
            // One that takes its memory with its first job only has none yet, now as before.
            GpuNeed::Auto => self.gpu_when_ready,
            GpuNeed::None => false,
        }
    }

    fn fell_to_cpu(&mut self, bench: &mut Bench) {
        let reason = "it came up without GPU memory: it would do its jobs on the CPU, 7 to 20 times slower";
        self.disprove(Cause::FellToCpu, reason.to_owned(), bench);
    }

    /// Its proof failed: it is stopped, or, where that may not be, told of and taken as it is.
    fn disprove(&mut self, cause: Cause, reason: String, bench: &mut Bench) {
        self.wish(cause, reason, Patience::Short, bench);
        if let Some(alive) = self.alive_mut().filter(|alive| alive.stopping.is_none()) {
            alive.proof = Proof::Done;
            self.become_ready(bench);
        }
    }

    /// Health that was proved long enough, or by a job, begins everything afresh.
    pub(super) fn settle_health(&mut self, bench: &mut Bench) {
        let (healthy_after, stable_after) = (bench.config.healthy_after, bench.config.stable_after);
        let now = bench.now;
        let Stage::Alive(alive) = &mut self.stage else { return };
        let Some(since) = alive.ready_since else { return };
        let ready = now.saturating_sub(since);
        if alive.stable_due && ready >= stable_after {
            alive.stable_due = false;
            bench.emit(What::WorkerStable { worker: bench.worker(), ready_ms: millis(ready) });
        }
        if !alive.proven && ready >= healthy_after {
            self.proven("it has been ready for long enough", bench);
        }
    }

    /// It proved healthy.
    pub(super) fn proven(&mut self, how: &str, bench: &mut Bench) {
        if let Some(alive) = self.alive_mut() {
            alive.proven = true;
        }
        if self.attempts > 0 || self.budget != super::Budget::default() {
            self.note(bench, format!("{how}: back-off and budget begin afresh"));
            bench.put(Action::Save);
        }
        self.attempts = 0;
        self.budget.proven();
    }
}
