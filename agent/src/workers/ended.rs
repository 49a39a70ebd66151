//! What is left to tell of a process that ended: its evidence, and its jobs. Takes what was seen when it ended;
//! gives events. Runs beside the loop: the restart does not wait for it.

use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::{Cause, What};
use diarwatch_shared::node::WorkerId;

use super::errand::Brought;
use super::lost::Jobs;
use crate::board::Board;
use crate::config::worker::WorkerConfig;
use crate::evidence::gather::{Of, gather};
use crate::evidence::{CgroupMemory, Parts, ProbeSeen, View, bundle};
use crate::jobs::{Decision, LostJobs};
use crate::queue::UnderWay;
use crate::restart::Exit;
use crate::words::Words;
use crate::{hook, masking};

/// How long the last words of an ended worker are waited for: a journal and an engine pass them on late.
const LAST_WORDS: Duration = Duration::from_millis(1_000);
/// Ids of jobs in one event.
const JOBS_TOLD_MAX: usize = 100;

/// What was seen when it ended.
pub(super) struct Ended {
    /// Its configuration.
    pub(super) config: WorkerConfig,
    /// The restart that follows.
    pub(super) restart: u64,
    /// How it ended.
    pub(super) exit: Exit,
    /// Why.
    pub(super) cause: Cause,
    /// What was decided, and what each view said.
    pub(super) views: Vec<View>,
    /// Its last probes.
    pub(super) probes: Vec<ProbeSeen>,
    /// Its cgroup, and the memory of it while it lived.
    pub(super) cgroup: Option<String>,
    pub(super) memory: Option<CgroupMemory>,
    /// Its jobs at that moment, and whether they are only in its own memory.
    pub(super) jobs: Vec<UnderWay>,
    pub(super) jobs_in_memory: bool,
    /// Jobs under way of which no id is known.
    pub(super) nameless: u32,
    /// When.
    pub(super) at: UnixMicros,
}

/// Tells of it: first its jobs, which others wait for.
pub(super) async fn tell(ended: Ended, board: Option<Board>, words: Words, jobs: Option<Jobs>) -> Brought {
    let mut told = lost_jobs(&ended, jobs).await;
    tokio::time::sleep(LAST_WORDS).await;
    let queue = ended.config.queue.as_ref();
    let mut parts = match &board {
        Some(board) => {
            let of = Of { gpus: &[], queue, cgroup: ended.cgroup.as_deref() };
            gather(board, &words, &of, clock::now())
        }
        None => Parts { lines: words.newest(crate::evidence::LINES_MAX), ..Parts::default() },
    };
    let worker = ended.config.name.clone();
    parts.exit = Some(ended.exit);
    parts.cause = Some(ended.cause);
    parts.views = ended.views;
    parts.probes = ended.probes;
    parts.memory_before = ended.memory;
    parts.jobs = ended.jobs;
    told.push(What::WorkerEvidence { worker, restart: ended.restart, bundle: bundle(&parts) });
    Brought::Told(told)
}

/// Whether an end makes its jobs suspects: a person and a planned restart do not.
fn blames(cause: Cause, exit: &Exit) -> bool {
    !exit.by_hand && !matches!(cause, Cause::Operator | Cause::Reconfigured | Cause::GpuMemoryGrowth)
}

async fn lost_jobs(ended: &Ended, jobs: Option<Jobs>) -> Vec<What> {
    let named = |started: bool| -> Vec<String> {
        let of = ended.jobs.iter().filter(|job| job.started.is_some() == started);
        of.filter_map(|job| job.id.clone()).collect()
    };
    let (started, waiting) = (named(true), if ended.jobs_in_memory { named(false) } else { Vec::new() });
    let count =
        u32::try_from(started.len() + waiting.len()).unwrap_or(u32::MAX).saturating_add(ended.nameless);
    if count == 0 {
        return Vec::new();
    }
    let worker = ended.config.name.clone();
    let all = started.iter().chain(&waiting).take(JOBS_TOLD_MAX).map(|job| masking::mask(job)).collect();
    let lost = LostJobs {
        worker: worker.clone(),
        at: ended.at,
        started,
        waiting,
        blames: blames(ended.cause, &ended.exit),
    };
    let decisions = match &jobs {
        Some(jobs) => jobs.decide(lost).await,
        None => Vec::new(),
    };
    let (mut told, mut resubmitted) = (Vec::new(), 0);
    for decision in decisions {
        match decision {
            Decision::Resubmit { job } => match resubmit(&ended.config, &worker, &job).await {
                Some(Ok(())) => resubmitted += 1,
                Some(Err(problem)) => told.push(What::WorkerTrouble {
                    worker: worker.clone(),
                    trouble: String::from("resubmit_failed"),
                    text: format!("job {}: {problem}", masking::mask(&job)),
                }),
                None => {}
            },
            Decision::SetAside { job, kills } => {
                let kills = u32::try_from(kills.len()).unwrap_or(u32::MAX);
                let outcome = set_aside(&ended.config, &worker, &job).await;
                let job = masking::mask(&job);
                told.push(What::WorkerJobSetAside { worker: worker.clone(), job, kills, outcome });
            }
        }
    }
    told.insert(0, What::WorkerJobsLost { worker, jobs: all, count, resubmitted });
    told
}

async fn resubmit(config: &WorkerConfig, worker: &WorkerId, job: &str) -> Option<Result<(), String>> {
    let hook = config.jobs.resubmit.as_ref()?;
    Some(hook::run(hook, worker, Some(job)).await.map(drop))
}

async fn set_aside(config: &WorkerConfig, worker: &WorkerId, job: &str) -> String {
    match &config.jobs.set_aside {
        None => String::from(
            "it is not given back any more; [worker.jobs] set_aside could take it out of the queue",
        ),
        Some(hook) => match hook::run(hook, worker, Some(job)).await {
            Ok(_) => String::from("set aside"),
            Err(problem) => format!("it could not be set aside: {problem}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_and_a_planned_restart_make_no_job_a_suspect() {
        let exit = Exit::default();
        assert!(blames(Cause::Exited, &exit) && blames(Cause::Wedged, &exit));
        assert!(!blames(Cause::Operator, &exit) && !blames(Cause::GpuMemoryGrowth, &exit));
        assert!(!blames(Cause::Exited, &Exit { by_hand: true, ..exit }));
    }
}
