//! Decides what becomes of a worker: takes what happened to it (process started, process ended, probe
//! answered, time passed), gives [`Action`]s (start it, tell of it) to the shell in `workers.rs`. Pure:
//! (state, input, now) -> (state, actions); it never waits, so a slow next stage cannot delay it.
//!
//! **A live process is never killed here.** Only an exit leads to a restart; a worker that answers
//! "not ready", or nothing, or that loads for too long is told of and left alone. (Finding a wedged
//! worker by more than one view, and stopping it, comes with a later stage.) Restarts never end: the
//! wait before them grows to `backoff_max` and starts afresh once the worker proved healthy.

use std::time::Duration;

use diarwatch_shared::backoff::Backoff;
use diarwatch_shared::event::What;
use diarwatch_shared::node::WorkerId;
use serde::{Deserialize, Serialize};

use crate::config::worker::WorkerConfig;
use crate::probe::Verdict;

/// What the decisions depend on; from the worker's configuration.
#[derive(Clone, Debug)]
pub struct JudgeConfig {
    /// Who is judged.
    pub worker: WorkerId,
    /// The wait before a restart.
    pub backoff: Backoff,
    /// How long a start may take before it is told of.
    pub startup_max: Duration,
    /// How long readiness must last before the back-off starts afresh.
    pub healthy_after: Duration,
    /// Probes without an answer, in a row, that cost a ready worker its readiness.
    pub failures: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The agent began to look after the worker.
    AgentStarted,
    /// The worker's process started, at our wish or at another's.
    Started {
        /// The process.
        pid: u32,
    },
    /// The driver could not start it.
    StartFailed {
        /// Why, for a person.
        reason: String,
    },
    /// The worker's process ended.
    Exited {
        /// The process that ended.
        pid: u32,
        /// How, for a person.
        reason: String,
    },
    /// A probe came to its end.
    Probed {
        /// The process that lived when the probe began; an answer to an earlier one tells nothing.
        pid: u32,
        /// What it found.
        verdict: Verdict,
    },
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the worker's process.
    Start,
    /// Tell what happened.
    Emit(What),
}

/// Where a worker is, in a word for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its process is being started, or loads.
    Starting,
    /// It takes jobs.
    Ready,
    /// It was ready in this process and is not any more.
    NotReady,
    /// Its process ended; the next start waits for the back-off.
    Waiting,
}

/// All that is remembered of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    stage: Stage,
    /// When the phase or the process last changed.
    since: Duration,
    /// When readiness was lost, while it is; stays over a restart until the worker is ready again.
    lost_at: Option<Duration>,
    /// Restarts decided since the worker last proved healthy.
    attempts: u32,
    restarts: u64,
    last_exit: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// The driver was asked to start the process and has not said how that went.
    Launching,
    Alive(Process),
    Waiting {
        until: Duration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    started: Duration,
    /// From the start to the first readiness; none while it loads.
    load: Option<Duration>,
    ready_since: Option<Duration>,
    /// Probes without an answer, in a row.
    failures: u32,
    overdue_told: bool,
    /// What the last probe saw.
    seen: Option<String>,
}

/// One step: what `input` at `now` (an uptime) changes, and what is to be done about it.
/// `jitter_unit` is a random number in [0, 1).
#[must_use]
pub fn step(
    mut state: State,
    input: Input,
    now: Duration,
    config: &JudgeConfig,
    jitter_unit: f64,
) -> (State, Vec<Action>) {
    let mut actions = Vec::new();
    let before = (state.phase(), state.pid());
    // Health is settled first: an exit in the second after `healthy_after` is the first again even
    // when no tick came between.
    state.settle_health(now, config);
    match input {
        Input::AgentStarted if state.stage == Stage::Idle => state.launch(&mut actions),
        Input::Started { pid } if state.pid() != Some(pid) => state.start(pid, now, config, &mut actions),
        Input::StartFailed { reason } if state.stage == Stage::Launching => {
            state.lose_process(None, reason, now, config, jitter_unit, &mut actions);
        }
        Input::Exited { pid, reason } if state.pid() == Some(pid) => {
            state.lose_process(Some(pid), reason, now, config, jitter_unit, &mut actions);
        }
        Input::Probed { pid, verdict } if state.pid() == Some(pid) => {
            state.probed(&verdict, now, config, &mut actions);
        }
        // What is left is time passing, and news of what is no more: another process, an earlier start.
        _ => {}
    }
    state.tell_overdue(now, config, &mut actions);
    state.restart_when_due(now, &mut actions);
    if before != (state.phase(), state.pid()) {
        state.since = now;
    }
    (state, actions)
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// A worker of which nothing is known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            stage: Stage::Idle,
            since: Duration::ZERO,
            lost_at: None,
            attempts: 0,
            restarts: 0,
            last_exit: None,
        }
    }

    /// The value of `worker_ready`: none while it first loads, so that a deploy raises no alert;
    /// false from losing readiness until it is ready again, a reload after a crash included.
    #[must_use]
    pub fn ready(&self) -> Option<bool> {
        match (self.phase(), self.lost_at) {
            (Phase::Ready, _) => Some(true),
            (_, Some(_)) => Some(false),
            (_, None) => None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Idle | Stage::Launching => Phase::Starting,
            Stage::Waiting { .. } => Phase::Waiting,
            Stage::Alive(process) if process.ready_since.is_some() => Phase::Ready,
            Stage::Alive(process) if process.load.is_some() => Phase::NotReady,
            Stage::Alive(_) => Phase::Starting,
        }
    }

    /// Its live process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.stage {
            Stage::Alive(process) => Some(process.pid),
            _ => None,
        }
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
            Stage::Waiting { until } => Some(*until),
            _ => None,
        }
    }

    /// The next instant at which time alone decides something; a tick is wanted then.
    #[must_use]
    pub fn deadline(&self, config: &JudgeConfig) -> Option<Duration> {
        match &self.stage {
            Stage::Waiting { until } => Some(*until),
            Stage::Alive(process) if process.load.is_none() && !process.overdue_told => {
                Some(process.started.saturating_add(config.startup_max))
            }
            _ => None,
        }
    }

    fn launch(&mut self, actions: &mut Vec<Action>) {
        self.stage = Stage::Launching;
        actions.push(Action::Start);
    }

    fn start(&mut self, pid: u32, now: Duration, config: &JudgeConfig, actions: &mut Vec<Action>) {
        // One process in the place of another, without an exit in between: the other is gone.
        if matches!(self.stage, Stage::Alive(_)) {
            self.lost_at.get_or_insert(now);
        }
        self.stage = Stage::Alive(Process {
            pid,
            started: now,
            load: None,
            ready_since: None,
            failures: 0,
            overdue_told: false,
            seen: None,
        });
        actions.push(Action::Emit(What::WorkerStarted { worker: config.worker.clone(), pid }));
    }

    fn lose_process(
        &mut self,
        pid: Option<u32>,
        reason: String,
        now: Duration,
        config: &JudgeConfig,
        jitter_unit: f64,
        actions: &mut Vec<Action>,
    ) {
        let restart_in_ms = millis(config.backoff.wait(self.attempts, jitter_unit));
        self.attempts = self.attempts.saturating_add(1);
        self.lost_at.get_or_insert(now);
        self.last_exit = Some(reason.clone());
        // What is told is what is done: the wait is the one in whole milliseconds.
        self.stage = Stage::Waiting { until: now.saturating_add(Duration::from_millis(restart_in_ms)) };
        actions.push(Action::Emit(What::WorkerExited {
            worker: config.worker.clone(),
            pid,
            reason,
            attempt: self.attempts,
            restart_in_ms,
        }));
    }

    fn probed(&mut self, verdict: &Verdict, now: Duration, config: &JudgeConfig, actions: &mut Vec<Action>) {
        let Stage::Alive(process) = &mut self.stage else { return };
        process.seen = verdict.reason().map(str::to_owned);
        process.failures = match verdict {
            Verdict::NoAnswer { .. } => process.failures.saturating_add(1),
            Verdict::Ready | Verdict::NotReady { .. } => 0,
        };
        let worker = config.worker.clone();
        match verdict {
            Verdict::Ready if process.ready_since.is_none() => {
                let load = *process.load.get_or_insert(now.saturating_sub(process.started));
                process.ready_since = Some(now);
                let down_ms = self.lost_at.take().map(|lost| millis(now.saturating_sub(lost)));
                actions.push(Action::Emit(What::WorkerReady { worker, load_ms: millis(load), down_ms }));
            }
            Verdict::Ready => {}
            // One silent probe of a busy worker is common; a body that says "not ready" is certain.
            Verdict::NoAnswer { .. } if process.failures < config.failures => {}
            Verdict::NotReady { reason } | Verdict::NoAnswer { reason } => {
                if process.ready_since.take().is_some() {
                    self.lost_at.get_or_insert(now);
                    actions.push(Action::Emit(What::WorkerNotReady { worker, reason: reason.clone() }));
                }
            }
        }
    }

    fn settle_health(&mut self, now: Duration, config: &JudgeConfig) {
        if let Stage::Alive(Process { ready_since: Some(since), .. }) = &self.stage
            && now.saturating_sub(*since) >= config.healthy_after
        {
            self.attempts = 0;
        }
    }

    fn tell_overdue(&mut self, now: Duration, config: &JudgeConfig, actions: &mut Vec<Action>) {
        let Stage::Alive(process) = &mut self.stage else { return };
        let waited = now.saturating_sub(process.started);
        if process.load.is_some() || process.overdue_told || waited < config.startup_max {
            return;
        }
        process.overdue_told = true;
        self.lost_at.get_or_insert(now);
        actions.push(Action::Emit(What::WorkerStartOverdue {
            worker: config.worker.clone(),
            reason: process.seen.clone().unwrap_or_else(|| String::from("no probe came to its end")),
            waited_ms: millis(waited),
        }));
    }

    fn restart_when_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Waiting { until } if now >= until) {
            self.restarts = self.restarts.saturating_add(1);
            self.launch(actions);
        }
    }
}

impl From<&WorkerConfig> for JudgeConfig {
    fn from(config: &WorkerConfig) -> Self {
        Self {
            worker: config.name.clone(),
            backoff: Backoff::new(config.backoff_base.0, config.backoff_max.0),
            startup_max: config.startup_max.0,
            healthy_after: config.healthy_after.0,
            failures: config.readiness.failures,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
