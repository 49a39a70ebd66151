//! What is seen of a worker from outside: takes its processes, the board and its words; gives [`Views`] to the
//! judge, once a second. Reads small files of /proc; asks nobody and never waits. What is too old to be true
//! is left out.

use std::collections::BTreeSet;
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::{Cause, XidAction};

use crate::board::{Board, Gpu, Snapshot};
use crate::config::worker::WorkerConfig;
use crate::evidence::{CgroupMemory, gather};
use crate::judge::progress::{GpuView, JobsView, Views};
use crate::judge::{CallsFor, Trouble};
use crate::queue::{QueueStatus, UnderWay};
use crate::restart::processes;
use crate::sample::gpu::DriverState;
use crate::sample::gpu::errors::Xid;
use crate::status::Number;
use crate::words::Words;

/// Numbers of a queue that are older tell nothing of now.
const QUEUE_AGE_MAX: Duration = Duration::from_secs(30);
/// How long after an XID its process may become known.
const XID_SETTLES: Duration = Duration::from_millis(1_000);
/// Load from which a GPU without a process is one that a killed kernel left busy.
const GHOST_LOAD: f64 = 0.99;
/// How long it has to be so.
const GHOST_AFTER: Duration = Duration::from_secs(10);
/// A list of processes that is older tells nothing of now.
const GHOST_LIST_AGE_MAX: Duration = Duration::from_secs(5);
/// The shortest time over which CPU use is told; below it the kernel's ticks are too coarse.
const CPU_SPAN_MIN: Duration = Duration::from_millis(500);

/// Looks at one worker.
#[derive(Debug, Default)]
pub(super) struct Looker {
    /// When its processes had taken how much CPU time.
    cpu: Option<(Duration, Duration)>,
    ratio: Option<f64>,
    /// The processes it had while it lived: their GPU memory has to be given back.
    had: BTreeSet<u32>,
    longest: Option<Duration>,
    /// Its cgroup while it lived, and the memory of that; a unit's is gone with its last process.
    cgroup: Option<String>,
    memory: Option<CgroupMemory>,
    /// GPUs that its processes were on, and since when one of them is busy with nobody on it.
    gpus: BTreeSet<u32>,
    ghost: Option<(u32, Duration)>,
    /// Up to when XIDs were looked at, by the clock that never steps.
    xids_until: Option<Duration>,
}

impl Looker {
    /// A new process: nothing of the one before is told of it.
    pub(super) fn begin(&mut self) {
        (self.cpu, self.ratio, self.cgroup, self.memory) = (None, None, None, None);
        self.had.clear();
    }

    /// Its cgroup, as `/proc/PID/cgroup` said it while it lived.
    pub(super) fn cgroup(&self) -> Option<&str> {
        self.cgroup.as_deref()
    }

    /// The memory of its cgroup when it was last seen alive.
    pub(super) fn memory(&self) -> Option<CgroupMemory> {
        self.memory
    }

    /// Its jobs, whether they are only in its own memory, and how many there are beside those that are named.
    pub(super) fn jobs_now(
        &self,
        config: &WorkerConfig,
        board: Option<&Board>,
    ) -> (Vec<UnderWay>, bool, u32) {
        let Some((board, queue)) = board.zip(config.queue.as_ref()) else { return Default::default() };
        let status = board.read(|board| board.queues.iter().find(|q| q.queue == queue.as_str()).cloned());
        let Some(status) = status else { return Default::default() };
        let in_memory = status.source == "log";
        let waiting = if in_memory { count(&status.waiting) } else { 0 };
        let all = waiting.saturating_add(count(&status.processing));
        let named = status.under_way.iter().filter(|job| job.id.is_some());
        let named = named.filter(|job| in_memory || job.started.is_some()).count();
        (status.under_way, in_memory, all.saturating_sub(u32::try_from(named).unwrap_or(u32::MAX)))
    }

    /// XIDs that hit its processes since the last look, as trouble. The process of an XID is known a moment
    /// after the XID itself: one that is younger than that is looked at the next time.
    pub(super) fn xids(
        &mut self,
        board: Option<&Board>,
        pids: &BTreeSet<u32>,
        now: Duration,
    ) -> Vec<Trouble> {
        let until = now.saturating_sub(XID_SETTLES);
        let from = self.xids_until.replace(until).unwrap_or(until);
        let Some(board) = board else { return Vec::new() };
        let ours = |xid: &&Xid| xid.pid.is_some_and(|pid| pids.contains(&pid) || self.had.contains(&pid));
        let young = |xid: &&Xid| xid.seen > from && xid.seen <= until;
        board
            .read(|board| board.xids.iter().filter(young).filter(ours).map(|xid| trouble(xid, now)).collect())
    }

    /// A look at `now` (an uptime); `lives` while it has a process.
    pub(super) fn look(
        &mut self,
        pids: BTreeSet<u32>,
        lives: bool,
        config: &WorkerConfig,
        board: Option<&Board>,
        words: &Words,
        now: Duration,
    ) -> Views {
        self.cpu_ratio(&pids, now);
        if lives {
            self.had.clone_from(&pids);
            self.see_cgroup(&pids);
        }
        let wall = clock::now();
        let heard = words.last().map(|at| wall.since(at));
        let mut views = Views { cpu_ratio: self.ratio, silent_for: heard, ..Views::default() };
        if let Some(board) = board {
            let asked = if pids.is_empty() { self.had.clone() } else { pids.clone() };
            board.read(|board| {
                self.see_ghost(board, &asked, now);
                views.driver_wedged = matches!(board.driver, DriverState::Unresponsive { .. });
                views.gpu = gpu(board, &asked, now);
                let queue = config.queue.as_ref().map(ToString::to_string);
                let status = queue.and_then(|name| board.queues.iter().find(|queue| queue.queue == name));
                views.jobs = status.and_then(|status| self.jobs(status, wall));
            });
        }
        views.ghost_gpu =
            self.ghost.filter(|(_, since)| now.saturating_sub(*since) >= GHOST_AFTER).map(|(gpu, _)| gpu);
        views.pids = pids;
        views
    }

    /// A GPU that a killed kernel left busy for ever: full load, and no process on it.
    fn see_ghost(&mut self, board: &Snapshot, pids: &BTreeSet<u32>, now: Duration) {
        let used = board.gpu_of(pids, now);
        if used.known && !used.gpus.is_empty() {
            self.gpus = used.gpus;
        }
        let ghost = |gpu: &&Gpu| {
            let listed = gpu.processes_at.is_ok_and(|at| now.saturating_sub(at) < GHOST_LIST_AGE_MAX);
            let alone = listed && gpu.processes_all && gpu.processes.is_empty();
            alone && gpu.value("gpu_utilization_ratio").is_ok_and(|load| load >= GHOST_LOAD)
        };
        let found = board.gpus.iter().filter(|gpu| self.gpus.contains(&gpu.facts.index)).find(ghost);
        let found = found.map(|gpu| gpu.facts.index);
        self.ghost = match (found, self.ghost) {
            (Some(gpu), Some((before, since))) if gpu == before => Some((gpu, since)),
            (found, _) => found.map(|gpu| (gpu, now)),
        };
    }

    fn see_cgroup(&mut self, pids: &BTreeSet<u32>) {
        if self.cgroup.is_none() {
            self.cgroup = pids.first().and_then(|pid| processes::cgroup_of(*pid));
        }
        self.memory = self.cgroup.as_deref().and_then(gather::memory).or(self.memory);
    }

    fn cpu_ratio(&mut self, pids: &BTreeSet<u32>, now: Duration) {
        if pids.is_empty() {
            (self.cpu, self.ratio) = (None, None);
            return;
        }
        let taken = processes::cpu_time(pids);
        let Some((then, before)) = self.cpu else {
            self.cpu = Some((now, taken));
            return;
        };
        let span = now.saturating_sub(then);
        if span >= CPU_SPAN_MIN {
            // A child that ended takes its time with it unless it was waited for: never less than nothing.
            self.ratio = Some(taken.saturating_sub(before).as_secs_f64() / span.as_secs_f64());
            self.cpu = Some((now, taken));
        }
    }

    fn jobs(&mut self, status: &QueueStatus, wall: UnixMicros) -> Option<JobsView> {
        if status.seen.is_none_or(|seen| wall.since(seen) > QUEUE_AGE_MAX) {
            return None;
        }
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
        let oldest = status
            .under_way
            .iter()
            .filter_map(|job| job.started.map(|at| (at, job)))
            .min_by_key(|(at, _)| *at);
        let p95 = known(&status.job_p95_seconds).and_then(seconds);
        self.longest = self.longest.max(p95);
        Some(JobsView {
            waiting: count(&status.waiting),
            started: count(&status.processing),
            completed_total: status.completed_total,
            ended_total: status.ended_total,
            oldest_for: oldest.map(|(at, _)| wall.since(at)),
            audio: oldest.and_then(|(_, job)| job.audio_seconds).and_then(seconds),
            time_per_audio: known(&status.job_seconds_per_audio_hour).map(|per_hour| per_hour / 3_600.0),
            longest: self.longest,
        })
    }
}

/// An XID of one of its processes, as the judge takes it.
fn trouble(xid: &Xid, now: Duration) -> Trouble {
    let calls_for = match xid.action {
        XidAction::RestartWorker => CallsFor::Restart(Cause::Xid),
        // A restart into a GPU that wants a reset helps nobody: a person decides.
        _ => CallsFor::Telling,
    };
    let advice = match xid.action {
        XidAction::ResetGpu | XidAction::Isolate => {
            "; the GPU wants a reset: `nvidia-smi --gpu-reset`, with all its workers held"
        }
        XidAction::Reboot => "; the host wants a reboot",
        _ => "",
    };
    let text = format!("{}{advice}", xid.text);
    Trouble { name: format!("xid_{}", xid.code), calls_for, age: now.saturating_sub(xid.seen), text }
}

/// What these processes do on GPUs; none when the driver has not told lately.
fn gpu(board: &Snapshot, pids: &BTreeSet<u32>, now: Duration) -> Option<GpuView> {
    let used = board.gpu_of(pids, now);
    // Memory that is not told is not memory that is not held.
    let memory_bytes = used.memory_bytes.filter(|_| used.known)?;
    Some(GpuView { memory_bytes, busy: used.sm_ratio.map(|ratio| ratio > 0.0) })
}

fn known(number: &Number) -> Option<f64> {
    match number {
        Number::Known(value) => Some(*value),
        Number::Missing { .. } => None,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just before")]
fn count(number: &Number) -> u32 {
    known(number).unwrap_or_default().clamp(0.0, 1e9) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::node::{Epoch, NodeId};

    fn board() -> Board {
        Board::new(NodeId::new("n").unwrap(), Epoch(1), UnixMicros(0))
    }

    fn xid(seen: u64, pid: Option<u32>, action: XidAction) -> Xid {
        let (seen, at_us, text) = (Duration::from_secs(seen), UnixMicros(0), String::from("MMU fault"));
        Xid { seen, at_us, gpu: Some(0), uuid: String::new(), code: 31, pid, action, text }
    }

    #[test]
    fn an_xid_is_trouble_of_the_worker_whose_process_it_hit_and_is_told_once() {
        let (board, mut looker) = (board(), Looker::default());
        let pids = BTreeSet::from([7]);
        let mut look = |second| looker.xids(Some(&board), &pids, Duration::from_secs(second));
        assert_eq!(look(10), []);
        board.update(|board| {
            board.xids.extend([
                xid(11, Some(7), XidAction::RestartWorker),
                xid(11, Some(8), XidAction::RestartWorker),
                xid(11, None, XidAction::RestartWorker),
                xid(11, Some(7), XidAction::ResetGpu),
            ]);
        });
        assert_eq!(look(11), [], "its process may not be known yet");
        let told = look(12);
        let calls: Vec<CallsFor> = told.iter().map(|trouble| trouble.calls_for).collect();
        assert_eq!(calls, [CallsFor::Restart(Cause::Xid), CallsFor::Telling]);
        assert!(told[1].text.contains("--gpu-reset"), "a reset is only suggested: {told:?}");
        assert_eq!(look(13), []);
    }
}
