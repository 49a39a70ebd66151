//! What is seen of a worker from outside: takes its processes, the board and its words; gives [`Views`] to the
//! judge, once a second. Reads small files of /proc; asks nobody and never waits. What is too old to be true
//! is left out.

use std::collections::BTreeSet;
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};

use crate::board::{Board, Snapshot};
use crate::config::worker::WorkerConfig;
use crate::judge::progress::{GpuView, JobsView, Views};
use crate::queue::QueueStatus;
use crate::restart::processes;
use crate::sample::gpu::DriverState;
use crate::status::Number;
use crate::words::Words;

/// Numbers of a queue that are older tell nothing of now.
const QUEUE_AGE_MAX: Duration = Duration::from_secs(30);
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
}

impl Looker {
    /// A new process: nothing of the one before is told of it.
    pub(super) fn begin(&mut self) {
        (self.cpu, self.ratio) = (None, None);
        self.had.clear();
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
        }
        let wall = clock::now();
        let heard = words.last().map(|at| wall.since(at));
        let mut views = Views { cpu_ratio: self.ratio, silent_for: heard, ..Views::default() };
        if let Some(board) = board {
            let asked = if pids.is_empty() { self.had.clone() } else { pids.clone() };
            board.read(|board| {
                views.driver_wedged = matches!(board.driver, DriverState::Unresponsive { .. });
                views.gpu = gpu(board, &asked, now);
                let queue = config.queue.as_ref().map(ToString::to_string);
                let status = queue.and_then(|name| board.queues.iter().find(|queue| queue.queue == name));
                views.jobs = status.and_then(|status| self.jobs(status, wall));
            });
        }
        views.pids = pids;
        views
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
