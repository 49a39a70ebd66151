//! Decides what becomes of a worker: takes what happened to it, what is seen of it, what a person wants and
//! the time; gives [`Action`]s to the shell in `workers/`. Pure: (state, input, now) -> (state, actions); it
//! never waits, so a slow next stage cannot delay it.
//!
//! The rules, one file each: how long a start may take ([`gate`]), how often it may be tried ([`budget`]),
//! when a live worker hangs ([`progress`]) or leaks ([`growth`]), how it is stopped ([`ladder`]), what
//! proves that it is back ([`proof`]). [`life`] is its process, [`act`] what a live one is stopped for,
//! [`order`] what people want, [`why`] the explanation, [`saved`] what outlives the agent.
//!
//! A worker that ended is always started again, at the latest by an open breaker's next try. A live one is
//! stopped only on evidence, and never while it loads and moves, or works in silence.

pub mod act;
pub mod budget;
pub mod gate;
pub mod growth;
pub mod input;
pub mod ladder;
pub mod life;
pub mod order;
pub mod progress;
pub mod proof;
pub mod saved;
pub mod why;

use std::collections::VecDeque;
use std::time::Duration;

use diarwatch_shared::backoff::Backoff;
use diarwatch_shared::event::{Cause, What};
use diarwatch_shared::node::WorkerId;
use serde::{Deserialize, Serialize};

use crate::config::worker::WorkerConfig;
use crate::config::worker::supervise::GpuNeed;
use budget::{Budget, Limits};
use gate::Loads;
use growth::Growth;
pub use input::{Action, CallsFor, Input, Trouble, Wanted};
use ladder::{Ladder, Rules};
use progress::{Health, Progress, Views};
use proof::Proof;

/// Decisions that are remembered for whoever asks why.
pub const NOTES_MAX: usize = 32;

/// What the decisions depend on; from the worker's configuration.
#[derive(Clone, Debug)]
pub struct JudgeConfig {
    /// Who is judged.
    pub worker: WorkerId,
    /// The wait before a restart.
    pub backoff: Backoff,
    /// How long a start that shows no progress may take at least.
    pub startup_min: Duration,
    /// How long a start may take at most.
    pub startup_max: Duration,
    /// How long readiness must last before the back-off starts afresh.
    pub healthy_after: Duration,
    /// How long it must last to be called stable.
    pub stable_after: Duration,
    /// Probes without an answer, in a row, that cost a ready worker its readiness.
    pub failures: u32,
    /// Probes in a row that prove readiness after a start.
    pub readiness: u32,
    /// Whether a job is made up for it after a start.
    pub prove_job: bool,
    /// Restarts within a window.
    pub limits: Limits,
    /// Whether a live worker may be stopped.
    pub stop_live: bool,
    /// How long nothing may move before a worker hangs.
    pub wedge_after: Duration,
    /// GPU memory that a job may leave behind, and how much may come together, bytes.
    pub leak: (u64, u64),
    /// Whether it needs a GPU.
    pub gpu: GpuNeed,
    /// How it is stopped.
    pub stop: Rules,
    /// Whether something puts it back into its balancer.
    pub put_back: bool,
}

/// Where a worker is, in a word for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its process is being started, loads, or proves itself.
    Starting,
    /// It takes jobs.
    Ready,
    /// It was ready in this process and is not any more.
    NotReady,
    /// It is being stopped.
    Stopping,
    /// Its process ended; the next start waits.
    Waiting,
    /// It does not run, and a person wants it so.
    LeftAlone,
    /// Whoever runs it does not answer.
    #[default]
    Unknown,
}

/// All that is remembered of a worker.
#[derive(Clone, Debug, PartialEq)]
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
    loads: Loads,
    budget: Budget,
    longest_job: Option<Duration>,
    /// Whether a process of it ever held GPU memory, and whether it did when it became ready.
    gpu_seen: bool,
    gpu_when_ready: bool,
    views: Views,
    /// Why nothing is known of it now.
    blind: Option<String>,
    held: Option<String>,
    drained: Option<String>,
    /// Why an earlier agent left it alone.
    was_left_alone: Option<String>,
    /// Whether the balancer was told to leave it out.
    out: bool,
    lease: Leave,
    /// When the agent last stopped a ready worker without the fleet's leave.
    stopped_alone: Option<Duration>,
    /// What it wrote of why it does not come up.
    named: Option<String>,
    /// When trouble came that may come once.
    often: VecDeque<Duration>,
    /// Trouble that was told, and when: the same is told again after a minute.
    often_told: VecDeque<(String, Duration)>,
    /// Told, and not to be told again until something changes.
    told: Option<String>,
    notes: VecDeque<(Duration, String)>,
}

/// Leave of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Leave {
    #[default]
    None,
    Asked {
        cause: Cause,
        reason: String,
    },
    Denied {
        reason: String,
        ask_again: Duration,
    },
    Held {
        id: u64,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Idle,
    /// The driver was asked to start the process and has not said how that went.
    Launching,
    Alive(Box<Alive>),
    Waiting {
        until: Duration,
        left: Option<Left>,
        start: Start,
    },
    LeftAlone {
        reason: String,
    },
}

/// What the next start counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The agent came to a worker that did not run.
    First,
    /// A person wants it: a restart, but none of the budget.
    Wanted,
    /// A restart.
    Again,
}

/// What is left of an ended worker.
#[derive(Clone, Debug, PartialEq)]
struct Left {
    since: Duration,
    told: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Alive {
    pid: u32,
    started: Duration,
    /// Since when the agent looks after it.
    seen_since: Duration,
    /// It ran when the agent came.
    adopted: bool,
    /// From the start to the first readiness; none while it loads.
    load: Option<Duration>,
    ready_since: Option<Duration>,
    proof: Proof,
    /// When a job made up for it ended: what the queue counts just then is no job of anybody's.
    made_up_at: Option<Duration>,
    /// Probes in a row that said "ready" again, after it was lost.
    again: u32,
    /// Probes without an answer, in a row.
    failures: u32,
    health: Health,
    /// What its manager's check says, when it complains.
    check: Option<(Duration, String)>,
    progress: Progress,
    growth: Growth,
    /// Jobs that had completed, and ended, when it was first seen.
    jobs: Option<(u64, u64)>,
    stopping: Option<Ladder>,
    proven: bool,
    /// It came after a loss and has not been called stable.
    stable_due: bool,
    overdue_told: bool,
    /// When it was first seen without GPU memory though it needs some.
    without_gpu: Option<Duration>,
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
    let mut bench = Bench { now, config, jitter_unit, actions: Vec::new() };
    let before = (state.phase(), state.pid());
    // Health is settled first: an exit in the second after `healthy_after` is the first again even
    // when no tick came between.
    state.settle_health(&mut bench);
    state.take(input, &mut bench);
    state.watch(&mut bench);
    state.restart_when_due(&mut bench);
    if before != (state.phase(), state.pid()) {
        state.since = now;
    }
    (state, bench.actions)
}

/// What a step works with.
struct Bench<'a> {
    now: Duration,
    config: &'a JudgeConfig,
    jitter_unit: f64,
    actions: Vec<Action>,
}

impl Bench<'_> {
    fn put(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn emit(&mut self, what: What) {
        self.actions.push(Action::Emit(what));
    }

    fn worker(&self) -> WorkerId {
        self.config.worker.clone()
    }

    fn since(&self, at: Duration) -> Duration {
        self.now.saturating_sub(at)
    }
}

impl State {
    fn take(&mut self, input: Input, bench: &mut Bench) {
        match input {
            Input::AgentStarted if self.stage == Stage::Idle => bench.put(Action::Look),
            Input::Found(found) => self.found(found, bench),
            Input::Blind { reason } => self.go_blind(reason, bench),
            Input::Started(process) => self.started(process, false, bench),
            Input::StartedByOther(process) => self.started(process, true, bench),
            Input::StartFailed { reason } if self.stage == Stage::Launching => {
                self.start_failed(reason, bench);
            }
            Input::Exited(exit) => self.exited(&exit, bench),
            Input::Checked { healthy, reason } => self.checked(healthy, &reason, bench),
            Input::Probed { pid, verdict } if self.pid() == Some(pid) => self.probed(&verdict, bench),
            Input::Seen(views) => self.see(views, bench),
            Input::Trouble(trouble) => self.trouble(trouble, bench),
            Input::Done { deed, result } => self.done(deed, result, bench),
            Input::Leased(lease) => self.leased(lease, bench),
            Input::Ordered(wanted) => self.ordered(wanted, bench),
            // What is left is time passing, and news of what is no more: another process, an earlier start.
            _ => {}
        }
    }

    fn alive(&self) -> Option<&Alive> {
        match &self.stage {
            Stage::Alive(alive) => Some(alive),
            _ => None,
        }
    }

    fn alive_mut(&mut self) -> Option<&mut Alive> {
        match &mut self.stage {
            Stage::Alive(alive) => Some(alive),
            _ => None,
        }
    }

    /// Remembers a decision for whoever asks why.
    fn note(&mut self, bench: &Bench, text: impl Into<String>) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back((bench.now, text.into()));
    }
}

impl From<&WorkerConfig> for JudgeConfig {
    fn from(config: &WorkerConfig) -> Self {
        let (supervise, stop) = (&config.supervise, &config.stop);
        Self {
            worker: config.name.clone(),
            backoff: Backoff::new(config.backoff_base.0, config.backoff_max.0),
            startup_min: config.startup_min.0,
            startup_max: config.startup_max.0,
            healthy_after: config.healthy_after.0,
            stable_after: supervise.stable_after.0,
            failures: config.readiness.failures,
            readiness: config.proof.readiness,
            prove_job: config.proof.job_url.is_some(),
            limits: Limits { restarts_max: supervise.restarts_max, window: supervise.window.0 },
            stop_live: supervise.stop_live,
            wedge_after: supervise.wedge_after.0,
            leak: (supervise.leak_per_job.0, supervise.leak_total.0),
            gpu: config.gpu,
            stop: Rules {
                take_out: stop.take_out.is_some(),
                drain_max: stop.drain_max.0,
                grace: config.stop_grace.map(|grace| grace.0),
                hung_grace: stop.hung_grace.0,
                traceback: stop.traceback_signal,
            },
            put_back: stop.put_back.is_some(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod lives;
#[cfg(test)]
mod tests;
