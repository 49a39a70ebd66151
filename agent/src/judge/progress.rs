//! Whether a worker that lives does anything: takes what is seen of it from outside; gives a vote for each
//! view, and from the votes whether it hangs. Pure.
//!
//! Four views that do not depend on each other: its health endpoint, the CPU time of its processes, what
//! they do on the GPU, the jobs of its queue. A worker hangs when the endpoint or the queue complains,
//! another view agrees, and **none** of them shows progress within the window. A silent endpoint while
//! the worker's processes keep CPU or GPU busy is work. What cannot be seen is no vote: a worker that
//! uses a GPU is not judged by its CPU alone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

/// CPU time per time from which a worker counts as busy: an idle Python server takes a tenth of it.
pub const CPU_BUSY_RATIO: f64 = 0.05;
/// CPU time per time from which a worker that loads moves: a download takes little, a deadlock nothing.
pub const CPU_STIRS_RATIO: f64 = 0.01;
/// The shortest deadline of a job: a download or a database may keep it that long.
pub const JOB_DEADLINE_MIN: Duration = Duration::from_secs(120);

/// What is seen of a worker from outside, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Views {
    /// Its processes.
    pub pids: BTreeSet<u32>,
    /// CPU seconds per second that they took since the last look; none when that is not known.
    pub cpu_ratio: Option<f64>,
    /// What they do on GPUs; none when the driver has not told lately.
    pub gpu: Option<GpuView>,
    /// Its queue; none when none is configured or it does not answer.
    pub jobs: Option<JobsView>,
    /// How long ago it wrote a line; none when none is known.
    pub silent_for: Option<Duration>,
    /// A GPU that it used and that is fully busy with no process on it.
    pub ghost_gpu: Option<u32>,
    /// A driver call does not return: nothing that uses the GPU may be started.
    pub driver_wedged: bool,
}

/// What a worker's processes do on GPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuView {
    /// GPU memory they hold, bytes.
    pub memory_bytes: u64,
    /// Whether they used multiprocessors lately; none when the driver does not say.
    pub busy: Option<bool>,
}

/// A worker's jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobsView {
    /// Jobs that wait.
    pub waiting: u32,
    /// Jobs that are worked on.
    pub started: u32,
    /// Jobs completed, by a count that only grows.
    pub completed_total: u64,
    /// Jobs that ended, completed or failed, by a count that only grows.
    pub ended_total: u64,
    /// How long the oldest one is worked on.
    pub oldest_for: Option<Duration>,
    /// Length of its audio.
    pub audio: Option<Duration>,
    /// Processing time per time of audio, of the slow ones (P95).
    pub time_per_audio: Option<f64>,
    /// The longest job that was seen.
    pub longest: Option<Duration>,
}

impl JobsView {
    /// Until when the job under way should have ended: three times what its audio takes, or twice the
    /// longest job seen; none while neither is known.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let by_audio = self.audio.zip(self.time_per_audio).and_then(|(audio, rate)| {
            Duration::try_from_secs_f64(audio.as_secs_f64() * rate.clamp(0.0, 100.0) * 3.0).ok()
        });
        let by_longest = self.longest.map(|longest| longest.saturating_mul(2));
        by_audio.or(by_longest).map(|deadline| deadline.max(JOB_DEADLINE_MIN))
    }

    /// Whether jobs would be lost if the worker ended now.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.waiting.saturating_add(self.started)
    }
}

/// When each view of a worker moved last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    begun: Duration,
    cpu: Option<Seen>,
    stirs: Option<Seen>,
    gpu: Option<Seen>,
    jobs: Option<Seen>,
    heard: Option<Duration>,
    memory: Option<u64>,
    ended: Option<u64>,
    overdue: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    /// Without a break since.
    known_since: Duration,
    /// When it moved.
    moved: Option<Duration>,
}

/// What a view says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// Something moves, or all is well.
    Well,
    /// Nothing has moved for the whole window, or it complains.
    Against,
    /// It cannot be seen, or not for long enough.
    Unknown,
}

/// A vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vote {
    /// `health`, `cpu`, `gpu` or `jobs`.
    pub view: &'static str,
    /// What it says.
    pub says: Says,
    /// Why, for a person.
    pub words: String,
}

/// What the health endpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers that the worker is ready.
    Ready,
    /// It answers that the worker is not ready, since then.
    NotReady(Duration),
    /// It answers nothing, since then.
    Silent(Duration),
    /// It was not asked yet.
    Unknown,
}

impl Progress {
    /// A process that begins now.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { begun: now, ..Self::default() }
    }

    /// Takes a look.
    pub fn see(&mut self, views: &Views, now: Duration) {
        let busy = views.cpu_ratio.map(|ratio| ratio >= CPU_BUSY_RATIO);
        self.cpu = Seen::next(self.cpu, busy, now);
        let stirs = views.cpu_ratio.map(|ratio| ratio >= CPU_STIRS_RATIO);
        self.stirs = Seen::next(self.stirs, stirs, now);
        let memory = views.gpu.map(|gpu| gpu.memory_bytes);
        let moved = memory.is_some() && self.memory.is_some() && memory != self.memory;
        let busy = views.gpu.and_then(|gpu| if moved { Some(true) } else { gpu.busy });
        self.gpu = Seen::next(self.gpu, busy, now);
        self.memory = memory;
        let ended = views.jobs.as_ref().map(|jobs| jobs.ended_total);
        let moved = ended.map(|ended| self.ended.is_some_and(|before| ended > before));
        self.jobs = Seen::next(self.jobs, moved, now);
        self.ended = ended;
        let late = views.jobs.as_ref().and_then(|jobs| {
            let late = jobs.oldest_for?.checked_sub(jobs.deadline()?)?;
            (jobs.started > 0).then_some(late)
        });
        self.overdue = late.map(|late| now.saturating_sub(late));
        self.heard = views.silent_for.map(|silent| now.saturating_sub(silent)).max(self.heard);
    }

    /// Whether anything moved in the last `window`, ever so little, what it wrote included; none when nothing
    /// has been seen for so long.
    #[must_use]
    pub fn moved_within(&self, window: Duration, now: Duration) -> Option<bool> {
        let seen = [self.stirs, self.gpu, self.jobs];
        let moves = seen.into_iter().flatten().filter_map(|seen| seen.moved).chain(self.heard);
        if moves.max().is_some_and(|moved| now.saturating_sub(moved) < window) {
            return Some(true);
        }
        let long =
            |seen: Option<Seen>| seen.is_some_and(|seen| now.saturating_sub(seen.known_since) >= window);
        (long(self.stirs) || long(self.gpu)).then_some(false)
    }

    /// The vote of each view, over `window`.
    #[must_use]
    pub fn votes(&self, health: Health, window: Duration, now: Duration) -> [Vote; 4] {
        let cpu = Seen::vote(self.cpu, "cpu", "CPU time", window, now);
        let gpu = Seen::vote(self.gpu, "gpu", "GPU use", window, now);
        [self.health(health, window, now), cpu, gpu, self.jobs_vote(window, now)]
    }

    fn health(&self, health: Health, window: Duration, now: Duration) -> Vote {
        let since = |at: Duration| now.saturating_sub(at);
        let long = |at: Duration| if since(at) >= window { Says::Against } else { Says::Unknown };
        let (says, words) = match health {
            Health::Ready => (Says::Well, String::from("it answers that it is ready")),
            Health::NotReady(at) => {
                (long(at), format!("it has answered that it is not ready for {} s", since(at).as_secs()))
            }
            Health::Silent(at) => {
                (long(at), format!("it has answered nothing for {} s", since(at).as_secs()))
            }
            Health::Unknown => (Says::Unknown, String::from("it was not asked yet")),
        };
        Vote { view: "health", says, words }
    }

    fn jobs_vote(&self, window: Duration, now: Duration) -> Vote {
        let since = |at: Duration| now.saturating_sub(at);
        let moved = self.jobs.and_then(|seen| seen.moved).filter(|moved| since(*moved) < window);
        let (says, words) = match (self.jobs, moved, self.overdue) {
            (None, ..) => (Says::Unknown, String::from("its jobs are not known")),
            (_, Some(at), _) => (Says::Well, format!("a job ended {} s ago", since(at).as_secs())),
            (_, None, Some(at)) => {
                (Says::Against, format!("a job is {} s behind its deadline", since(at).as_secs()))
            }
            (_, None, None) => (Says::Unknown, String::from("no job is late")),
        };
        Vote { view: "jobs", says, words }
    }
}

/// Whether these votes say that the worker hangs; `gpu_user` when it uses a GPU.
#[must_use]
pub fn hangs(votes: &[Vote], gpu_user: bool) -> bool {
    let says =
        |view: &str| votes.iter().find(|vote| vote.view == view).map_or(Says::Unknown, |vote| vote.says);
    let (health, jobs) = (says("health"), says("jobs"));
    let (cpu, gpu) = (says("cpu"), says("gpu"));
    let moves = cpu == Says::Well || gpu == Says::Well || jobs == Says::Well;
    let complaint = health == Says::Against || jobs == Says::Against;
    // A kernel on the GPU may run for minutes without CPU time: there the CPU alone proves nothing.
    let still = if gpu_user { gpu == Says::Against && cpu != Says::Unknown } else { cpu == Says::Against };
    let both_complain = health == Says::Against && jobs == Says::Against;
    !moves && complaint && (still || both_complain)
}

impl Seen {
    fn next(before: Option<Self>, moved: Option<bool>, now: Duration) -> Option<Self> {
        let moved = moved?;
        let mut seen = before.unwrap_or(Self { known_since: now, moved: None });
        if moved {
            seen.moved = Some(now);
        }
        Some(seen)
    }

    fn vote(seen: Option<Self>, view: &'static str, what: &str, window: Duration, now: Duration) -> Vote {
        let since = |at: Duration| now.saturating_sub(at);
        let (says, words) = match seen {
            None => (Says::Unknown, format!("{what} is not known")),
            Some(Self { moved: Some(at), .. }) if since(at) < window => {
                (Says::Well, format!("{what} moved {} s ago", since(at).as_secs()))
            }
            Some(Self { known_since, .. }) if since(known_since) < window => {
                (Says::Unknown, format!("{what} has been known for {} s only", since(known_since).as_secs()))
            }
            Some(Self { moved: Some(at), .. }) => {
                (Says::Against, format!("no {what} for {} s", since(at).as_secs()))
            }
            Some(Self { known_since, .. }) => {
                (Says::Against, format!("no {what} for {} s", since(known_since).as_secs()))
            }
        };
        Vote { view, says, words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A worker seen each second for so long, always like this, its endpoint silent from the begin.
    fn seen(seconds: u64, views: &Views) -> [Vote; 4] {
        let mut progress = Progress::new(Duration::ZERO);
        (0..=seconds).for_each(|second| progress.see(views, secs(second)));
        progress.votes(Health::Silent(Duration::ZERO), WINDOW, secs(seconds))
    }

    fn views(cpu: Option<f64>, gpu: Option<bool>) -> Views {
        let gpu = gpu.map(|busy| GpuView { memory_bytes: 1 << 30, busy: Some(busy) });
        Views { cpu_ratio: cpu, gpu, ..Views::default() }
    }

    #[test]
    fn a_silent_worker_hangs_only_when_neither_cpu_nor_gpu_moved_for_the_whole_window() {
        assert!(hangs(&seen(60, &views(Some(0.0), Some(false))), true));
        assert!(!hangs(&seen(59, &views(Some(0.0), Some(false))), true), "not for long enough");
        assert!(!hangs(&seen(600, &views(Some(0.0), Some(true))), true), "the GPU works");
        assert!(!hangs(&seen(600, &views(Some(1.0), Some(false))), true), "the CPU works");
        assert!(hangs(&seen(60, &views(Some(0.003), None)), false), "a worker without a GPU");
    }

    #[test]
    fn a_worker_that_uses_a_gpu_is_not_judged_by_its_cpu_alone() {
        assert!(!hangs(&seen(6_000, &views(Some(0.0), None)), true));
        assert!(!hangs(&seen(6_000, &views(None, None)), false));
    }

    #[test]
    fn a_job_that_is_late_counts_as_a_view_of_its_own_and_the_deadline_follows_its_audio() {
        let jobs = |oldest: u64, audio: Option<u64>| JobsView {
            started: 1,
            oldest_for: Some(secs(oldest)),
            audio: audio.map(secs),
            time_per_audio: Some(0.05),
            longest: Some(secs(100)),
            ..JobsView::default()
        };
        assert_eq!(jobs(0, Some(3_600)).deadline(), Some(secs(540)));
        assert_eq!(jobs(0, None).deadline(), Some(secs(200)));
        assert_eq!(jobs(0, Some(10)).deadline(), Some(JOB_DEADLINE_MIN));
        let with = |jobs: JobsView| Views { jobs: Some(jobs), ..views(Some(0.0), None) };
        assert!(hangs(&seen(60, &with(jobs(600, Some(3_600)))), true), "late, and silent");
        assert!(!hangs(&seen(60, &with(jobs(500, Some(3_600)))), true), "its audio is long");
    }

    #[test]
    fn an_idle_worker_that_answers_does_not_hang() {
        let mut progress = Progress::new(Duration::ZERO);
        (0..=600).for_each(|second| progress.see(&views(Some(0.0), Some(false)), secs(second)));
        assert!(!hangs(&progress.votes(Health::Ready, WINDOW, secs(600)), true));
    }

    proptest! {
        #[test]
        fn a_worker_that_moved_within_the_window_never_hangs(
            seen in prop::collection::vec((prop::option::of(0.0..0.2_f64), prop::option::of(any::<bool>()), any::<bool>()), 1..200),
            gpu_user: bool,
        ) {
            let (mut progress, mut last) = (Progress::new(Duration::ZERO), None);
            let mut ended = 0;
            for (second, (cpu, gpu, job)) in (0_u64..).zip(&seen) {
                ended += u64::from(*job);
                let jobs = Some(JobsView { ended_total: ended, ..JobsView::default() });
                progress.see(&Views { jobs, ..views(*cpu, *gpu) }, secs(second));
                let known = cpu.is_some_and(|cpu| cpu >= CPU_BUSY_RATIO) || *gpu == Some(true);
                if known || (*job && second > 0) {
                    last = Some(second);
                }
                // What is not known breaks the view; a move before that is not remembered.
                let votes = progress.votes(Health::Silent(Duration::ZERO), WINDOW, secs(second));
                if last == Some(second) {
                    prop_assert!(!hangs(&votes, gpu_user));
                }
                prop_assert!(second >= 60 || !hangs(&votes, gpu_user), "not before the window is over");
            }
        }
    }
}
