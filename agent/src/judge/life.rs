//! A worker's process: found, started, ended, started again. Takes what the driver tells; decides when the
//! next start is due. A dead worker is started whatever the fleet says; only a person, a driver that hangs,
//! what is left of the process before, and the wait of back-off or breaker keep it down. Pure.

use std::time::Duration;

use diarwatch_shared::event::{Cause, What};

use super::budget::Plan;
use super::growth::Growth;
use super::progress::{Health, Progress};
use super::proof::Proof;
use super::{Action, Alive, Bench, Leave, Left, Phase, Stage, Start, State, millis};
use crate::restart::{Exit, Found, Process, Signal};

/// Why a worker is left alone that a person holds.
pub(super) const HELD: &str = "it is held";
/// How long what is left of a process may keep the next start, before that is told.
pub const CLEARING_MAX: Duration = Duration::from_secs(10);

impl State {
    /// The value of `worker_ready`: none while it first loads, so that a deploy raises no alert;
    /// false from losing readiness until it is proved again, a reload after a crash included.
    #[must_use]
    pub fn ready(&self) -> Option<bool> {
        match (self.known_phase(), self.lost_at) {
            (Phase::Ready, _) => Some(true),
            (_, Some(_)) => Some(false),
            (_, None) => None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.blind.is_some() { Phase::Unknown } else { self.known_phase() }
    }

    /// The same by what was known last: probes go on while its manager is silent.
    fn known_phase(&self) -> Phase {
        match &self.stage {
            Stage::Idle | Stage::Launching => Phase::Starting,
            Stage::Waiting { .. } => Phase::Waiting,
            Stage::LeftAlone { .. } => Phase::LeftAlone,
            Stage::Alive(alive) if alive.stopping.is_some() => Phase::Stopping,
            Stage::Alive(alive) if alive.ready_since.is_some() => Phase::Ready,
            Stage::Alive(alive) if alive.proof == Proof::Done => Phase::NotReady,
            Stage::Alive(_) => Phase::Starting,
        }
    }

    /// Its live process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.alive().map(|alive| alive.pid)
    }

    /// When its live process started, by the judge's clock; zero for one that is older than that.
    #[must_use]
    pub fn process_started(&self) -> Option<Duration> {
        self.alive().map(|alive| alive.started)
    }

    /// When its phase or its process last changed.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Restarts so far, by this run of the agent.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// How its last process ended, or why it could not be started.
    #[must_use]
    pub fn last_exit(&self) -> Option<&str> {
        self.last_exit.as_deref()
    }

    /// When the next start is due, while it waits for one.
    #[must_use]
    pub fn next_start(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Waiting { until, .. } => Some(*until),
            _ => None,
        }
    }

    pub(super) fn found(&mut self, found: Found, bench: &mut Bench) {
        self.blind = None;
        match found {
            Found::Running(process) if self.pid() == Some(process.pid) => {}
            Found::Running(process) => self.adopt(process, bench),
            Found::Stopped { exit } => match (&self.stage, exit) {
                // It ended while nobody looked.
                (Stage::Alive(alive), exit) => {
                    let pid = alive.pid;
                    let reason = String::from("it ended while its manager did not answer");
                    self.exited(&Exit { pid, ..exit.unwrap_or(Exit { reason, ..Exit::default() }) }, bench);
                }
                (Stage::Idle, Some(exit)) if exit.by_hand => self.leave_alone(exit.reason, bench),
                (Stage::Idle, _) if self.held.is_some() => {
                    self.leave_alone(String::from(HELD), bench);
                }
                // A unit that was stopped by hand may be forgotten by its manager, but not by us.
                (Stage::Idle, None) if self.was_left_alone.is_some() => {
                    let reason = self.was_left_alone.take().unwrap_or_default();
                    self.leave_alone(reason, bench);
                }
                (Stage::Idle, exit) => self.first_start(exit, bench),
                _ => {}
            },
        }
    }

    /// The agent comes to a worker that does not run: one that crashed meanwhile was lost.
    fn first_start(&mut self, exit: Option<Exit>, bench: &mut Bench) {
        // An open breaker waits on: an agent that starts is no new try. Where no end is known it has not
        // run since the host came up, and that is a new beginning.
        let due = self.budget.breaker().filter(|_| exit.is_some()).map(|breaker| breaker.next);
        if let Some(exit) = exit {
            self.lost_at.get_or_insert(bench.now);
            self.last_exit = Some(exit.reason);
        }
        let start = if due.is_some() { Start::Again } else { Start::First };
        self.stage = Stage::Waiting { until: due.unwrap_or(bench.now), left: None, start };
    }

    fn adopt(&mut self, process: Process, bench: &mut Bench) {
        self.note(
            bench,
            format!("adopted process {}, which runs for {} s", process.pid, process.age.as_secs()),
        );
        self.begin(process, true, bench);
        let (worker, age_ms) = (bench.worker(), millis(process.age));
        bench.emit(What::WorkerAdopted { worker, pid: process.pid, age_ms });
    }

    pub(super) fn started(&mut self, process: Process, by_other: bool, bench: &mut Bench) {
        if self.pid() == Some(process.pid) {
            return;
        }
        self.blind = None;
        // One process in the place of another, without an exit in between: the other is gone.
        if self.alive().is_some() {
            self.lost_at.get_or_insert(bench.now);
        }
        if by_other {
            self.note(bench, format!("process {} was started by another than the agent", process.pid));
            if matches!(self.stage, Stage::Waiting { .. }) {
                self.restarts = self.restarts.saturating_add(1);
                self.budget.spend(bench.now, bench.config.limits);
            }
        }
        self.begin(process, false, bench);
        let worker = bench.worker();
        bench.emit(What::WorkerStarted { worker, pid: process.pid });
    }

    fn begin(&mut self, process: Process, adopted: bool, bench: &mut Bench) {
        self.named = None;
        self.told = None;
        if self.was_left_alone.take().is_some() || matches!(self.stage, Stage::LeftAlone { .. }) {
            bench.put(Action::Save);
        }
        self.stage = Stage::Alive(Box::new(Alive {
            pid: process.pid,
            started: bench.now.saturating_sub(process.age),
            seen_since: bench.now,
            adopted,
            made_up_at: None,
            again: 0,
            load: None,
            ready_since: None,
            proof: Proof::default(),
            failures: 0,
            health: Health::Unknown,
            check: None,
            progress: Progress::new(bench.now),
            growth: Growth::default(),
            jobs: None,
            stopping: None,
            proven: false,
            stable_due: self.lost_at.is_some(),
            overdue_told: false,
            without_gpu: None,
            seen: None,
        }));
    }

    pub(super) fn start_failed(&mut self, reason: String, bench: &mut Bench) {
        self.lost_at.get_or_insert(bench.now);
        self.last_exit = Some(reason.clone());
        let wait = self.schedule(&reason, bench);
        self.tell_exit(None, reason, Some(wait), bench);
    }

    pub(super) fn exited(&mut self, exit: &Exit, bench: &mut Bench) {
        let Stage::Alive(alive) = &self.stage else { return self.restart_by_hand_failed(exit, bench) };
        if exit.pid != alive.pid && exit.pid != 0 {
            return;
        }
        let pid = alive.pid;
        let stopping = alive.stopping.clone();
        let was_hung = stopping.as_ref().is_some_and(|ladder| ladder.cause == Cause::StartOverdue);
        self.lost_at.get_or_insert(bench.now);
        let mut reason = exit.reason.clone();
        if let Some(named) = self.named.take() {
            reason = format!("{reason}: {named}");
        }
        self.last_exit = Some(reason.clone());
        let cause = stopping.as_ref().map_or(Cause::Exited, |ladder| ladder.cause);
        let why = stopping.as_ref().map_or_else(|| reason.clone(), |ladder| ladder.reason.clone());
        self.note(bench, format!("process {} ended: {reason}", exit.pid));
        bench.put(Action::Ended { exit: exit.clone(), cause, reason: why });
        if let Leave::Held { id } = self.lease
            && stopping.is_none()
        {
            self.lease = Leave::None;
            bench.put(Action::ReturnLease { id });
        }
        match stopping {
            Some(ladder) if ladder.cause == Cause::Operator && self.held.is_none() => {
                self.stage = Stage::Waiting { until: bench.now, left: None, start: Start::Wanted };
                self.tell_exit(Some(pid), reason, Some(Duration::ZERO), bench);
            }
            None if exit.by_hand => {
                self.tell_exit(Some(pid), reason.clone(), None, bench);
                self.leave_alone(format!("it was stopped by hand ({reason})"), bench);
            }
            _ if self.held.is_some() => {
                self.tell_exit(Some(pid), reason, None, bench);
                self.leave_alone(String::from(HELD), bench);
            }
            stopping => {
                // A start that stood still is one that failed; a stop that was planned is not.
                let planned = stopping.is_some_and(|ladder| !was_hung && !failed_to_come_up(ladder.cause));
                let wait = self.schedule(&reason, bench);
                let wait = if planned && self.budget.breaker().is_none() { Duration::ZERO } else { wait };
                if let Stage::Waiting { until, .. } = &mut self.stage {
                    *until = bench.now.saturating_add(wait);
                }
                self.tell_exit(Some(pid), reason, Some(wait), bench);
            }
        }
        bench.put(Action::Save);
    }

    /// A person restarted it by its manager, and it did not come up again: that is no wish to leave it so.
    fn restart_by_hand_failed(&mut self, exit: &Exit, bench: &mut Bench) {
        if matches!(self.stage, Stage::LeftAlone { .. }) && !exit.by_hand && self.held.is_none() {
            self.start_failed(exit.reason.clone(), bench);
        }
    }

    /// Attempt 0 is none: it is left alone.
    fn tell_exit(&self, pid: Option<u32>, reason: String, wait: Option<Duration>, bench: &mut Bench) {
        let (worker, attempt) = (bench.worker(), wait.map_or(0, |_| self.attempts.max(1)));
        let restart_in_ms = millis(wait.unwrap_or_default());
        bench.emit(What::WorkerExited { worker, pid, reason, attempt, restart_in_ms });
    }

    /// When the next start is due: after the back-off, or at the breaker's next try.
    fn schedule(&mut self, reason: &str, bench: &mut Bench) -> Duration {
        let backoff = bench.config.backoff.wait(self.attempts, bench.jitter_unit);
        // What is told is what is done: the wait is the one in whole milliseconds.
        let backoff = Duration::from_millis(millis(backoff));
        self.attempts = self.attempts.saturating_add(1);
        let wait = match self.budget.plan(bench.now, bench.config.limits) {
            Plan::Backoff => backoff,
            Plan::Breaker { at, opened_now } => {
                let wait = Duration::from_millis(millis(at.saturating_sub(bench.now)));
                if opened_now {
                    let restarts = bench.config.limits.restarts_max;
                    self.note(bench, format!("{restarts} restarts within the window: the breaker opens"));
                    bench.emit(What::WorkerBreakerOpen {
                        worker: bench.worker(),
                        restarts,
                        next_try_in_ms: millis(wait),
                        reason: reason.to_owned(),
                    });
                }
                wait
            }
        };
        self.stage =
            Stage::Waiting { until: bench.now.saturating_add(wait), left: None, start: Start::Again };
        wait
    }

    pub(super) fn leave_alone(&mut self, reason: String, bench: &mut Bench) {
        self.lease_back(bench);
        self.lost_at.get_or_insert(bench.now);
        self.note(bench, format!("left alone: {reason}"));
        let worker = bench.worker();
        bench.emit(What::WorkerLeftAlone { worker, reason: reason.clone() });
        self.stage = Stage::LeftAlone { reason };
    }

    pub(super) fn go_blind(&mut self, reason: String, bench: &mut Bench) {
        if self.blind.is_none() {
            self.note(bench, format!("nothing is known of it: {reason}"));
            self.trouble_once("manager_silent", reason.clone(), bench);
        }
        self.blind = Some(reason);
        bench.put(Action::Look);
    }

    pub(super) fn restart_when_due(&mut self, bench: &mut Bench) {
        let Stage::Waiting { until, start, .. } = self.stage else { return };
        if bench.now < until || self.blind.is_some() {
            return;
        }
        if self.held.is_some() {
            return self.leave_alone(String::from(HELD), bench);
        }
        if let Some(obstacle) = self.obstacle(bench) {
            // Looked at again with the next look from outside.
            if let Stage::Waiting { until, .. } = &mut self.stage {
                *until = bench.now.saturating_add(Duration::from_secs(1));
            }
            return self.tell_obstacle(&obstacle, bench);
        }
        if start != Start::First {
            self.restarts = self.restarts.saturating_add(1);
            bench.put(Action::Save);
        }
        if start == Start::Again {
            self.budget.spend(bench.now, bench.config.limits);
        }
        self.stage = Stage::Launching;
        bench.put(Action::Start);
    }

    /// What forbids a start now.
    fn obstacle(&self, bench: &Bench) -> Option<Obstacle> {
        if self.uses_gpu(bench) && self.views.driver_wedged {
            return Some(Obstacle::Driver);
        }
        let memory = self.views.gpu.map_or(0, |gpu| gpu.memory_bytes);
        if self.views.pids.is_empty() && memory == 0 {
            return None;
        }
        let since = match &self.stage {
            Stage::Waiting { left: Some(left), .. } => left.since,
            _ => bench.now,
        };
        // Memory that nobody holds any more does not keep a worker down for ever; processes do.
        let over = bench.since(since) >= CLEARING_MAX;
        (!self.views.pids.is_empty() || !over).then_some(Obstacle::Left { memory })
    }

    fn tell_obstacle(&mut self, obstacle: &Obstacle, bench: &mut Bench) {
        match obstacle {
            Obstacle::Driver => {
                let text = "it is not started while a call of the GPU driver does not return; \
                            a reboot of the host mends that as a rule";
                self.trouble_once("gpu_driver_unresponsive", text.to_owned(), bench);
            }
            Obstacle::Left { memory } => {
                let Stage::Waiting { left, .. } = &mut self.stage else { return };
                let left = left.get_or_insert(Left { since: bench.now, told: false });
                let late = bench.now.saturating_sub(left.since) >= CLEARING_MAX;
                let tell = late && !std::mem::replace(&mut left.told, late);
                let pids: Vec<u32> = self.views.pids.iter().copied().collect();
                if !pids.is_empty() {
                    bench.put(Action::Do(super::ladder::Deed::Send(Signal::Kill)));
                }
                if tell {
                    let advice = "SIGKILL has not ended everything of it: `ps -o pid,stat,wchan -p PID` says \
                                  where it hangs; in state D only a reboot helps";
                    bench.emit(What::WorkerLeftover {
                        worker: bench.worker(),
                        pids,
                        gpu_memory_bytes: *memory,
                        advice: advice.to_owned(),
                    });
                }
            }
        }
    }

    /// Tells trouble of the judge's own, once until something changes.
    pub(super) fn trouble_once(&mut self, trouble: &str, text: String, bench: &mut Bench) {
        if self.told.as_deref() != Some(trouble) {
            self.told = Some(trouble.to_owned());
            self.note(bench, text.clone());
            let (worker, trouble) = (bench.worker(), trouble.to_owned());
            bench.emit(What::WorkerTrouble { worker, trouble, text });
        }
    }
}

/// What keeps a worker from being started.
enum Obstacle {
    /// The GPU driver hangs.
    Driver,
    /// Something of the process before is still there.
    Left { memory: u64 },
}

/// Whether a stop for this says that the start before it came to nothing.
fn failed_to_come_up(cause: Cause) -> bool {
    matches!(cause, Cause::StartOverdue | Cause::FellToCpu | Cause::ProofFailed)
}
