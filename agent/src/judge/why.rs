//! Why a worker is as it is: takes the judge's state; gives one document with every view, threshold and wait
//! behind its last and its next decision. Pure.

use std::time::Duration;

use serde::Serialize;

use super::ladder::{Patience, Step};
use super::progress::Vote;
use super::proof::Proof;
use super::{Bench, JudgeConfig, Leave, Phase, Stage, State, millis};
use diarwatch_shared::event::Cause;

/// The explanation; times are milliseconds from now or ago.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Why {
    /// Where it is.
    pub phase: Phase,
    /// Its process.
    pub pid: Option<u32>,
    /// Why it is left alone, or nothing is known of it.
    pub reason: Option<String>,
    /// What each view of it says.
    pub views: Vec<Vote>,
    /// Whether it counts as one that uses a GPU, and how much of one it holds now, bytes.
    pub uses_gpu: bool,
    /// See above; none when the driver does not tell.
    pub gpu_memory_bytes: Option<u64>,
    /// How long its start takes so far, while it starts.
    pub starting_ms: Option<u64>,
    /// From when on a start that stands still is ended.
    pub gate_ms: u64,
    /// At the latest.
    pub startup_max_ms: u64,
    /// What the last starts took.
    pub loads_ms: Vec<u64>,
    /// How far the proof of its recovery is.
    pub proof: Option<&'static str>,
    /// Restarts within the window, and how many may be.
    pub restarts_in_window: usize,
    /// See above.
    pub restarts_max: u32,
    /// The window.
    pub window_ms: u64,
    /// Restarts since it last proved healthy.
    pub attempts: u32,
    /// Whether the breaker is open, and how often it has tried.
    pub breaker_tries: Option<u32>,
    /// When the next start is due.
    pub next_start_in_ms: Option<u64>,
    /// A stop under way.
    pub stopping: Option<Stopping>,
    /// Leave of the fleet.
    pub lease: &'static str,
    /// Why there is none.
    pub lease_denied: Option<String>,
    /// Who holds it.
    pub held_by: Option<String>,
    /// Who drained it.
    pub drained_by: Option<String>,
    /// Jobs that would be lost if it ended now.
    pub jobs_under_way: Option<u32>,
    /// The longest job that was seen.
    pub longest_job_ms: Option<u64>,
    /// The last decisions, oldest first: how long ago, and what.
    pub decisions: Vec<Decision>,
}

/// A stop under way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stopping {
    /// Why.
    pub cause: Cause,
    /// What was seen.
    pub reason: String,
    /// How much it is waited for.
    pub patience: Patience,
    /// Where it stands.
    pub step: Step,
    /// When the next step is due at the latest.
    pub next_step_in_ms: u64,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// How long ago.
    pub ago_ms: u64,
    /// What, for a person.
    pub what: String,
}

impl State {
    /// Explains it at `now`.
    #[must_use]
    pub fn why(&self, now: Duration, config: &JudgeConfig) -> Why {
        let bench = Bench { now, config, jitter_unit: 0.0, actions: Vec::new() };
        let alive = self.alive();
        let (min, max) = (config.startup_min, config.startup_max);
        let ago = |at: Duration| millis(now.saturating_sub(at));
        let ahead = |at: Duration| millis(at.saturating_sub(now));
        let starting = alive.filter(|alive| alive.load.is_none()).map(|alive| ago(alive.started));
        Why {
            phase: self.phase(),
            pid: self.pid(),
            reason: self.reason(),
            views: self.votes(&bench).to_vec(),
            uses_gpu: self.uses_gpu(&bench),
            gpu_memory_bytes: self.views.gpu.map(|gpu| gpu.memory_bytes),
            starting_ms: starting,
            gate_ms: millis(self.loads.limit(min, max)),
            startup_max_ms: millis(max),
            loads_ms: self.loads.iter().map(millis).collect(),
            proof: alive.map(|alive| proof_word(alive.proof)),
            restarts_in_window: self.budget.spent(now, config.limits),
            restarts_max: config.limits.restarts_max,
            window_ms: millis(config.limits.window),
            attempts: self.attempts,
            breaker_tries: self.budget.breaker().map(|breaker| breaker.tries),
            next_start_in_ms: self.next_start().map(ahead),
            stopping: alive.and_then(|alive| alive.stopping.as_ref()).map(|ladder| Stopping {
                cause: ladder.cause,
                reason: ladder.reason.clone(),
                patience: ladder.patience,
                step: ladder.step,
                next_step_in_ms: ahead(ladder.deadline(self.longest_job, &config.stop)),
            }),
            lease: self.lease_word(),
            lease_denied: match &self.lease {
                Leave::Denied { reason, .. } => Some(reason.clone()),
                _ => None,
            },
            held_by: self.held.clone(),
            drained_by: self.drained.clone(),
            jobs_under_way: self.under_way(),
            longest_job_ms: self.longest_job.map(millis),
            decisions: self
                .notes
                .iter()
                .map(|(at, what)| Decision { ago_ms: ago(*at), what: what.clone() })
                .collect(),
        }
    }

    /// Why it is left alone, or nothing is known of it, or what its last probe saw.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match &self.stage {
            _ if self.blind.is_some() => self.blind.clone(),
            Stage::LeftAlone { reason } => Some(reason.clone()),
            Stage::Alive(alive) => alive.seen.clone(),
            Stage::Idle | Stage::Launching | Stage::Waiting { .. } => None,
        }
    }

    fn lease_word(&self) -> &'static str {
        match self.lease {
            Leave::None => "none",
            Leave::Asked { .. } => "asked",
            Leave::Denied { .. } => "denied",
            Leave::Held { .. } => "held",
        }
    }
}

fn proof_word(proof: Proof) -> &'static str {
    match proof {
        Proof::Readiness(_) => "readiness",
        Proof::Job => "job",
        Proof::Gpu(_) => "gpu_memory",
        Proof::Done => "done",
    }
}
