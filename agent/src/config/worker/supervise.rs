//! How a worker is kept alive: when it counts as hung, how it is stopped, how its recovery is proved,
//! what becomes of its jobs. Takes what TOML gave; gives checked values, or every fault.

use std::path::PathBuf;

use diarwatch_shared::quantity::{Bytes, Span};
use serde::{Deserialize, Serialize};

use super::Faults;
use super::hook::Hook;

/// Restarts within a window that may be configured.
pub const RESTARTS_MAX: u32 = 16;
/// Probes in a row that prove readiness, at most.
pub const PROOF_READINESS_MAX: u32 = 100;

/// When the judge acts: `[worker.supervise]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SuperviseConfig {
    /// Whether a live worker may be stopped at all; otherwise it is only told what would be done.
    /// Default: true. A worker that ended is started again in any case.
    pub stop_live: bool,
    /// Restarts within `window` before the breaker opens, a number; default 3. Restarts before the
    /// worker last proved healthy do not count.
    pub restarts_max: u32,
    /// The window of `restarts_max`, a duration; default 10 minutes.
    pub window: Span,
    /// How long no view may show progress before a silent worker counts as hung, a duration; default
    /// 1 minute.
    pub wedge_after: Span,
    /// How much GPU memory a job may leave behind, a size; default 32 MiB. A worker that keeps more with
    /// each job is restarted between two jobs once `leak_total` came together.
    pub leak_per_job: Bytes,
    /// How much may come together by that before the restart is planned, a size; default 1 GiB.
    pub leak_total: Bytes,
    /// How long a worker has to be ready without a break to be called stable, a duration; default 30
    /// minutes.
    pub stable_after: Span,
}

impl Default for SuperviseConfig {
    fn default() -> Self {
        Self {
            stop_live: true,
            restarts_max: 3,
            window: Span::secs(600),
            wedge_after: Span::secs(60),
            leak_per_job: Bytes(32 << 20),
            leak_total: Bytes(1 << 30),
            stable_after: Span::secs(1_800),
        }
    }
}

/// How a live worker is stopped, step by step: `[worker.stop]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopConfig {
    /// Takes the worker out of the balancer, so that no new job comes. Default: nothing is done.
    pub take_out: Option<Hook>,
    /// Puts it back, once it is ready again. Default: nothing is done.
    pub put_back: Option<Hook>,
    /// How long jobs under way are waited for before SIGTERM, a duration; default 30 minutes. Not for a
    /// worker that hangs.
    pub drain_max: Span,
    /// A signal by number that makes the worker write its traceback (such as 10 for SIGUSR1 with Python's
    /// faulthandler), sent before SIGKILL. Default: none is sent.
    pub traceback_signal: Option<i32>,
    /// How long a hung worker has between SIGTERM and SIGKILL, a duration; default 15 seconds.
    pub hung_grace: Span,
}

impl Default for StopConfig {
    fn default() -> Self {
        Self {
            take_out: None,
            put_back: None,
            drain_max: Span::secs(1_800),
            traceback_signal: None,
            hung_grace: Span::secs(15),
        }
    }
}

/// What proves a recovery: `[worker.proof]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProofConfig {
    /// Probes in a row that have to say "ready", a number; default 3.
    pub readiness: u32,
    /// An address to which a WAV is posted after each start; a ready worker answers 200 when it is done.
    /// Default: no job is made up.
    pub job_url: Option<String>,
    /// The WAV, absolute. Default: the one that is shipped, 2 seconds of two tones.
    pub job_file: Option<PathBuf>,
    /// How long that job may take, a duration; default 1 minute.
    pub job_max: Span,
}

impl Default for ProofConfig {
    fn default() -> Self {
        Self { readiness: 3, job_url: None, job_file: None, job_max: Span::secs(60) }
    }
}

/// What becomes of the jobs that were under way when a worker ended: `[worker.jobs]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Gives a job back to the queue, once. `{job}` stands for its id. Default: jobs are only listed.
    pub resubmit: Option<Hook>,
    /// Sets a job aside that ended two workers. Default: it is not resubmitted a second time, and told.
    pub set_aside: Option<Hook>,
}

/// Whether the worker needs a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuNeed {
    /// Once a process of it was seen to hold GPU memory.
    #[default]
    Auto,
    /// In any case: a worker without GPU memory has fallen to the CPU.
    Required,
    /// Never.
    None,
}

impl SuperviseConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if self.restarts_max == 0 || self.restarts_max > RESTARTS_MAX {
            let problem = format!("{} restarts cannot be counted", self.restarts_max);
            faults.add("supervise.restarts_max", problem, format!("write 1 to {RESTARTS_MAX}"));
        }
        faults.at_least("supervise.window", self.window, 10_000);
        faults.at_least("supervise.wedge_after", self.wedge_after, 5_000);
    }
}

impl StopConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        for (field, hook) in [("stop.take_out", &self.take_out), ("stop.put_back", &self.put_back)] {
            if let Some(hook) = hook {
                hook.check(field, faults);
            }
        }
        if let Some(signal) =
            self.traceback_signal.filter(|signal| !(1..=64).contains(signal) || *signal == 9)
        {
            let problem = format!("{signal} is not the number of a signal that can be answered");
            faults.add("stop.traceback_signal", problem, "write 10 for SIGUSR1; `kill -l` prints them");
        }
    }
}

impl ProofConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if self.readiness == 0 || self.readiness > PROOF_READINESS_MAX {
            let problem = format!("{} probes in a row prove nothing", self.readiness);
            faults.add("proof.readiness", problem, format!("write 1 to {PROOF_READINESS_MAX}"));
        }
        if let Some(Err(problem)) = self.job_url.as_ref().map(|url| crate::probe::check_url(url, &["http"])) {
            faults.add("proof.job_url", problem, "write for example http://127.0.0.1:8000/diarize?wait=1");
        }
        if let Some(path) = self.job_file.as_ref().filter(|path| !(path.is_absolute() && path.is_file())) {
            let problem = format!("`{}` is not an absolute path of a file", path.display());
            faults.add(
                "proof.job_file",
                problem,
                "name a WAV, or leave it out to post the one that is shipped",
            );
        }
    }
}

impl JobsConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        for (field, hook) in [("jobs.resubmit", &self.resubmit), ("jobs.set_aside", &self.set_aside)] {
            if let Some(hook) = hook {
                hook.check(field, faults);
            }
        }
    }
}
