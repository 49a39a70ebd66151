//! What the agent knows around the end of a worker, for its bundle. Takes the board, the worker's words
//! and the name of its cgroup; gives [`Parts`] without what only the shell knows (exit, cause, views,
//! probes, the cgroup before). Reads a few small files of the kernel and never waits for anything else.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::What;
use diarwatch_shared::node::QueueId;

use super::{CgroupMemory, GpuTrace, LINES_MAX, Parts, Pressure, SAMPLES_MAX, Xid};
use crate::board::{Board, Snapshot};
use crate::recent::{RecentSeries, WINDOW};
use crate::restart::processes::directory_of;
use crate::sample::gpu::DriverState;
use crate::words::Words;

/// How far back XIDs are looked for.
pub const XID_WINDOW: Duration = Duration::from_secs(120);
/// What a bundle shows of a GPU, in the order of [`GpuTrace`].
const METRICS: [&str; 3] = ["gpu_utilization_ratio", "gpu_memory_used_bytes", "gpu_power_watts"];
/// The finest step of a trace.
const STEP_MIN: Duration = Duration::from_millis(100);
/// The coarsest, of a GPU that is looked at once in a while.
const STEP_MAX: Duration = Duration::from_secs(10);
/// Bytes of a file of the kernel that are read.
const FILE_BYTES_MAX: usize = 16 * 1024;

/// Whose end it is.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// The identities of its GPUs; of all of this host where none is known.
    pub gpus: &'a [String],
    /// Its queue.
    pub queue: Option<&'a QueueId>,
    /// Its cgroup, as `/proc/PID/cgroup` says it.
    pub cgroup: Option<&'a str>,
}

/// What is known now.
#[must_use]
pub fn gather(board: &Board, words: &Words, of: &Of<'_>, now: UnixMicros) -> Parts {
    let mut parts = board.read(|board| of_board(board, of, now));
    parts.lines = words.newest(LINES_MAX);
    parts.memory_after = of.cgroup.and_then(memory);
    parts.host_pressure = pressure(&read(Path::new("/proc/pressure/memory")));
    let release = read(Path::new("/proc/sys/kernel/osrelease"));
    parts.versions.insert("kernel".into(), release.trim().to_owned());
    parts
}

/// The memory of a cgroup now; none where it is gone or has no memory controller. A unit's cgroup goes
/// with its last process, so a shell keeps what it saw last.
#[must_use]
pub fn memory(cgroup: &str) -> Option<CgroupMemory> {
    let directory = directory_of(cgroup)?;
    let mut memory = memory_events(&read(&directory.join("memory.events")))?;
    let number = |file: &str| read(&directory.join(file)).trim().parse().ok();
    memory.current_bytes = number("memory.current");
    memory.peak_bytes = number("memory.peak");
    memory.limit_bytes = number("memory.max");
    memory.pressure = pressure(&read(&directory.join("memory.pressure")));
    Some(memory)
}

fn of_board(board: &Snapshot, of: &Of<'_>, now: UnixMicros) -> Parts {
    let mut versions = BTreeMap::from([("agent".into(), env!("CARGO_PKG_VERSION").into())]);
    if let DriverState::Up { version } = &board.driver {
        versions.insert("driver".into(), version.clone());
    }
    let queue = of.queue.and_then(|name| board.queues.iter().find(|queue| queue.queue == name.as_str()));
    let metrics = METRICS.map(String::from);
    Parts {
        simulated: board.simulated,
        gpus: traces(&board.recent.series(&metrics, now.minus(WINDOW), now), of.gpus, now),
        xids: xids(board, now),
        jobs: queue.map(|queue| queue.under_way.clone()).unwrap_or_default(),
        versions,
        ..Parts::default()
    }
}

/// XIDs are told as trouble, whichever worker they are told of.
fn xids(board: &Snapshot, now: UnixMicros) -> Vec<Xid> {
    let mut found: Vec<Xid> = Vec::new();
    for event in board.recent.events(now.minus(XID_WINDOW), usize::MAX, None) {
        let What::WorkerTrouble { trouble, text, .. } = &event.what else { continue };
        let Some(xid) = trouble.strip_prefix("xid_").and_then(|number| number.parse().ok()) else { continue };
        // One XID is told of every worker on its GPU.
        if !found.iter().any(|known| known.xid == xid && known.text == *text) {
            found.push(Xid { at: event.at, xid, text: text.clone() });
        }
    }
    found
}

/// Series of GPUs on even steps.
fn traces(series: &[RecentSeries], gpus: &[String], now: UnixMicros) -> Vec<GpuTrace> {
    let label = |series: &RecentSeries, name: &str| {
        series.labels.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value.to_string())
    };
    let mut by_gpu: BTreeMap<String, Vec<&RecentSeries>> = BTreeMap::new();
    for one in series {
        let Some(uuid) = label(one, "uuid").filter(|uuid| gpus.is_empty() || gpus.contains(uuid)) else {
            continue;
        };
        by_gpu.entry(uuid).or_default().push(one);
    }
    let mut traces: Vec<GpuTrace> = Vec::new();
    for (uuid, series) in by_gpu {
        let step = step(series.first().map_or(&[], |one| one.times_us.as_slice()));
        let from = now.minus(WINDOW);
        let on = |metric: &str| {
            let one = series.iter().find(|one| one.metric == metric);
            one.map_or_else(Vec::new, |one| on_steps(&one.times_us, &one.values, from, now, step))
        };
        let [utilization, memory_used, power] = METRICS.map(on);
        let gpu = series.first().and_then(|one| label(one, "gpu")).unwrap_or_default();
        traces.push(GpuTrace { gpu, uuid, from, step, utilization, memory_used, power });
    }
    traces.sort_by(|a, b| (a.gpu.len(), &a.gpu).cmp(&(b.gpu.len(), &b.gpu)));
    traces
}

/// How far samples are apart as a rule, in whole steps of 10 ms.
fn step(times_us: &[u64]) -> Duration {
    let mut apart: Vec<u64> =
        times_us.iter().zip(times_us.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a)).collect();
    apart.sort_unstable();
    let median = apart.get(apart.len() / 2).copied().unwrap_or_default();
    Duration::from_millis(median.saturating_add(5_000) / 10_000 * 10).clamp(STEP_MIN, STEP_MAX)
}

/// Each value on the step that is nearest to its time.
fn on_steps(
    times_us: &[u64],
    values: &[Option<f64>],
    from: UnixMicros,
    now: UnixMicros,
    step: Duration,
) -> Vec<Option<f64>> {
    let step_us = u64::try_from(step.as_micros()).unwrap_or(u64::MAX).max(1);
    let steps =
        usize::try_from((now.0.saturating_sub(from.0)) / step_us).unwrap_or(SAMPLES_MAX).min(SAMPLES_MAX);
    let mut placed = vec![None; steps];
    for (at, value) in times_us.iter().zip(values) {
        let place = at.saturating_sub(from.0).saturating_add(step_us / 2) / step_us;
        let place = usize::try_from(place).unwrap_or(usize::MAX).min(steps.saturating_sub(1));
        if let Some(slot) = placed.get_mut(place) {
            *slot = value.or(*slot);
        }
    }
    placed
}

/// `oom 1`, a line each.
fn memory_events(text: &str) -> Option<CgroupMemory> {
    let number = |wanted: &str| {
        text.lines().find_map(|line| {
            let (name, number) = line.split_once(' ')?;
            (name == wanted).then(|| number.trim().parse::<u64>().ok()).flatten()
        })
    };
    Some(CgroupMemory {
        max: number("max")?,
        oom: number("oom")?,
        oom_kill: number("oom_kill")?,
        ..CgroupMemory::default()
    })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(text: &str) -> Option<Pressure> {
    let avg10 = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
        value.parse::<f64>().ok().filter(|value| value.is_finite())
    };
    Some(Pressure { some_avg10: avg10("some ")?, full_avg10: avg10("full ").unwrap_or_default() })
}

/// A file of the kernel, as far as it is read; empty where there is none.
fn read(path: &Path) -> String {
    let mut text = std::fs::read_to_string(path).unwrap_or_default();
    text.truncate(text.floor_char_boundary(FILE_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Tick;
    use diarwatch_shared::clock;
    use diarwatch_shared::event::Event;
    use diarwatch_shared::node::{Epoch, NodeId, WorkerId};
    use diarwatch_shared::schema::SeriesKey;
    use std::sync::Arc;

    const NOW: UnixMicros = UnixMicros(1_764_826_335_000_000);

    fn board() -> Board {
        let board = Board::new(NodeId::new("gpu-1").unwrap(), Epoch(1), NOW);
        let keys: Arc<[SeriesKey]> = ["0", "1"]
            .iter()
            .flat_map(|gpu| {
                METRICS.map(|metric| SeriesKey::new(metric, &[("gpu", gpu), ("uuid", &format!("GPU-{gpu}"))]))
            })
            .collect();
        board.update(|board| {
            // 10 Hz with a jitter of 3 ms, and a hole of a second.
            for n in (0..600_u64).filter(|n| !(300..310).contains(n)) {
                let at = UnixMicros(NOW.0 - 60_000_000 + n * 100_000 + (n % 7) * 500 + 500);
                let value = if n == 599 { 1.0 } else { 0.5 };
                board.recent.tick(&Tick {
                    group: "gpu_fast".into(),
                    at,
                    keys: Arc::clone(&keys),
                    readings: vec![Ok(value); 6],
                });
            }
        });
        board
    }

    #[test]
    fn the_last_minute_of_a_workers_gpu_is_on_even_steps_and_a_hole_stays_one() {
        let gpus = [String::from("GPU-1")];
        let of = Of { gpus: &gpus, queue: None, cgroup: None };
        let parts = gather(&board(), &Words::default(), &of, NOW);
        let [trace] = parts.gpus.as_slice() else { panic!("{} traces", parts.gpus.len()) };
        assert_eq!(
            (trace.gpu.as_str(), trace.uuid.as_str(), trace.step),
            ("1", "GPU-1", Duration::from_millis(100))
        );
        for values in [&trace.utilization, &trace.memory_used, &trace.power] {
            assert_eq!((values.len(), values[599]), (600, Some(1.0)));
            assert_eq!(values.iter().filter(|value| value.is_none()).count(), 10);
        }
        assert!(parts.versions.contains_key("agent") && !parts.versions["kernel"].is_empty());
        let all = gather(&board(), &Words::default(), &Of { gpus: &[], ..of }, NOW);
        assert_eq!(all.gpus.iter().map(|gpu| gpu.gpu.as_str()).collect::<Vec<_>>(), ["0", "1"]);
    }

    #[test]
    fn an_xid_is_told_once_and_only_when_it_is_near() {
        let board = board();
        let trouble = |worker: &str, trouble: &str| What::WorkerTrouble {
            worker: WorkerId::new(worker).unwrap(),
            trouble: trouble.into(),
            text: "GPU has fallen off the bus".into(),
        };
        board.update(|board| {
            let mut event =
                |secs: u64, what| board.recent.event(&Event::new(NOW.minus(Duration::from_secs(secs)), what));
            event(121, trouble("a", "xid_13"));
            event(5, trouble("a", "xid_79"));
            event(5, trouble("b", "xid_79"));
            event(4, trouble("a", "token"));
        });
        let found = board.read(|board| xids(board, NOW));
        assert_eq!(found.iter().map(|xid| xid.xid).collect::<Vec<_>>(), [79]);
    }

    #[test]
    fn the_newest_lines_come_with_their_times() {
        let words = Words::default();
        words.put("job 1 started", NOW);
        let parts = gather(&board(), &words, &Of { gpus: &[], queue: None, cgroup: None }, NOW);
        assert_eq!(parts.lines, [(NOW, String::from("job 1 started"))]);
    }

    #[test]
    fn texts_of_the_kernel_are_read_and_others_are_none() {
        let events = memory_events("low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n").unwrap();
        assert_eq!((events.max, events.oom, events.oom_kill), (12, 2, 1));
        assert_eq!(memory_events(""), None);
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(pressure(text), Some(Pressure { some_avg10: 1.5, full_avg10: 0.25 }));
        assert_eq!(pressure("some avg10=x"), None);
        assert_eq!(memory("/no/such"), None);
        let own = crate::restart::processes::cgroup_of(std::process::id());
        assert!(
            own.and_then(|own| memory(&own))
                .is_none_or(|memory| memory.oom_kill <= memory.oom.max(memory.oom_kill))
        );
        assert!(clock::now() > NOW);
    }
}
