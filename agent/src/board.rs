//! The newest state of everything, for whoever asks on the socket, and what the GPUs know of a process,
//! for whoever judges it. Written by the stages, read by `observe`; of the past it holds the last minute and the newest events.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::RecoveryAction;
use diarwatch_shared::node::{Epoch, NodeId};
use diarwatch_shared::reading::{Missing, Reading};
use serde::Serialize;

use crate::figures::FigureStatus;
use crate::queue::QueueStatus;
use crate::recent::Recent;
use crate::sample::gpu::errors::Xid;
use crate::sample::gpu::message::{GpuFacts, Processes};
use crate::sample::gpu::{DriverState, FAST, FAST_METRICS, SLOW_METRICS};
use crate::sample::host::HostTick;
use crate::services::ServiceStatus;
use crate::workers::WorkerStatus;

/// A list of processes that is older than this says nothing any more.
pub const PROCESSES_AGE_MAX: Duration = Duration::from_secs(5);

/// The shared snapshot.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<Snapshot>>);

/// What is known right now.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The node, from the certificate.
    pub node: NodeId,
    /// This run of the agent.
    pub epoch: Epoch,
    /// When the agent started.
    pub started: UnixMicros,
    /// The GPU driver.
    pub driver: DriverState,
    /// Whether the loaded NVML is a fake.
    pub simulated: bool,
    /// The GPUs, by index.
    pub gpus: Vec<Gpu>,
    /// The newest XIDs, oldest first, at most [`XIDS_MAX`](crate::sample::gpu::errors::XIDS_MAX).
    pub xids: VecDeque<Xid>,
    /// Why the kernel's log cannot be read for XIDs, for a person.
    pub kernel_log_problem: Option<String>,
    /// The host's newest values.
    pub host: HostTick,
    /// The workers, in order of the configuration.
    pub workers: Vec<WorkerStatus>,
    /// The queues, in order of the configuration.
    pub queues: Vec<QueueStatus>,
    /// The figures that are read, in order of the configuration.
    pub figures: Vec<FigureStatus>,
    /// The services that are asked, in order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// The configuration in effect as a document, secrets left out, and what became of the last reload.
    pub config: serde_json::Value,
    /// Users that may give orders over the socket.
    pub operators: Vec<String>,
    /// The newest ticks and events.
    pub recent: Recent,
    /// The link to the aggregator.
    pub link: Link,
    /// The spool.
    pub spool: SpoolState,
    /// Frames made by this run, events included.
    pub frames_emitted: u64,
    /// Ticks that no frame could take: too many series, groups, or a name too long.
    pub ticks_rejected: u64,
}

/// A GPU's newest values; `None` for what has not been read yet.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// What does not change.
    pub facts: GpuFacts,
    /// In the order of [`FAST_METRICS`].
    pub fast: Vec<Reading>,
    /// In the order of [`SLOW_METRICS`].
    pub slow: Vec<Reading>,
    /// What runs on it, those with most memory first; empty while there is no list.
    pub processes: Vec<GpuProcess>,
    /// When the list arrived, by [`clock::uptime`](diarwatch_shared::clock::uptime), or why there is none.
    pub processes_at: Result<Duration, Missing>,
    /// Whether nothing but those in the list runs on it.
    pub processes_all: bool,
    /// What the driver wants done about it.
    pub recovery: Result<RecoveryAction, Missing>,
}

/// One process on a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuProcess {
    /// Its pid, in the agent's pid namespace.
    pub pid: u32,
    /// Memory of the GPU that it holds, bytes.
    pub memory_bytes: Reading,
    /// Part of the last second in which its kernels ran, 0 to 1.
    pub sm_ratio: Reading,
}

/// What some processes have of the GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuUse {
    /// Memory that they hold, bytes, over all GPUs; none when that is not known of one of them.
    pub memory_bytes: Option<u64>,
    /// Part of the last second in which their kernels ran, over all GPUs; 1 for each GPU that is busy with
    /// nothing else. None when that is not known of one of them.
    pub sm_ratio: Option<f64>,
    /// When the oldest list that this comes from arrived, by
    /// [`clock::uptime`](diarwatch_shared::clock::uptime).
    pub at: Duration,
    /// Whether every GPU's list is there and young enough. While false nothing may be concluded, least of
    /// all that the processes hold no memory.
    pub known: bool,
    /// Indices of the GPUs that they are on.
    pub gpus: BTreeSet<u32>,
}

impl Gpu {
    /// The newest value of a metric.
    pub fn value(&self, metric: &str) -> Reading {
        let find = |metrics: &[&str], values: &[Reading]| {
            metrics.iter().position(|name| *name == metric).and_then(|at| values.get(at).copied())
        };
        find(&FAST_METRICS, &self.fast)
            .or_else(|| find(&SLOW_METRICS, &self.slow))
            .unwrap_or(Err(Missing::NotYet))
    }

    /// One of which nothing but the facts is known.
    #[must_use]
    pub fn of(facts: GpuFacts) -> Self {
        Self {
            facts,
            fast: Vec::new(),
            slow: Vec::new(),
            processes: Vec::new(),
            processes_at: Err(Missing::NotYet),
            processes_all: false,
            recovery: Err(Missing::NotYet),
        }
    }

    fn forget_processes(&mut self, missing: Missing) {
        self.processes.clear();
        self.processes_at = Err(missing);
        self.processes_all = false;
    }

    /// When its list arrived, if one may still conclude from it.
    fn listed_at(&self, now: Duration) -> Option<Duration> {
        self.processes_at.ok().filter(|at| now.saturating_sub(*at) <= PROCESSES_AGE_MAX && self.processes_all)
    }
}

/// The link to the aggregator.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Link {
    /// Whether a connection stands.
    pub connected: bool,
    /// The endpoint that is used or was tried last.
    pub endpoint: Option<String>,
    /// Why there is no connection, for a person.
    pub problem: Option<String>,
    /// Round trip of the connection, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Connections made by this run.
    pub connections: u64,
    /// How far the aggregator's clock is ahead of this node's, in milliseconds; negative when it is
    /// behind. None before the first answer of an aggregator.
    pub clock_offset_ms: Option<f64>,
}

/// The aggregator's clock, heard once and reckoned on from there with the clock that never steps: when
/// this node's wall clock is set, the offset follows.
#[derive(Clone, Copy, Debug)]
pub struct FarClock {
    theirs: UnixMicros,
    heard: Duration,
}

impl FarClock {
    /// It said `theirs` to a question of `asked`, whose answer came at `heard`, both by
    /// [`clock::uptime`](diarwatch_shared::clock::uptime).
    #[must_use]
    pub fn heard(theirs: UnixMicros, asked: Duration, heard: Duration) -> Self {
        Self { theirs: theirs.plus(heard.saturating_sub(asked) / 2), heard }
    }

    /// Milliseconds that it is ahead of this node's `now`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit 53 bits")]
    pub fn ahead_ms(self, now: UnixMicros, uptime: Duration) -> f64 {
        let theirs = self.at(uptime);
        (theirs.0 as f64 - now.0 as f64) / 1e3
    }

    /// What it showed, or will show, at this time of the clock that never steps.
    #[must_use]
    pub fn at(self, uptime: Duration) -> UnixMicros {
        let since = uptime.saturating_sub(self.heard);
        self.theirs.plus(since).minus(self.heard.saturating_sub(uptime))
    }
}

/// The spool.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SpoolState {
    /// Bytes on disk.
    pub bytes: u64,
    /// Frames not yet acknowledged.
    pub frames_unacked: u64,
    /// Frames of this run that the aggregator has on its disk.
    pub frames_acked: u64,
    /// Frames given up.
    pub frames_lost: u64,
    /// Why the spool cannot take frames, for a person.
    pub problem: Option<String>,
}

impl Board {
    /// A board of a run that starts now.
    #[must_use]
    pub fn new(node: NodeId, epoch: Epoch, started: UnixMicros) -> Self {
        Self(Arc::new(Mutex::new(Snapshot {
            node,
            epoch,
            started,
            driver: DriverState::default(),
            simulated: false,
            gpus: Vec::new(),
            xids: VecDeque::new(),
            kernel_log_problem: None,
            host: HostTick::default(),
            workers: Vec::new(),
            queues: Vec::new(),
            figures: Vec::new(),
            services: Vec::new(),
            config: serde_json::Value::Null,
            operators: Vec::new(),
            recent: Recent::default(),
            link: Link::default(),
            spool: SpoolState::default(),
            frames_emitted: 0,
            ticks_rejected: 0,
        })))
    }

    /// Changes the snapshot.
    pub fn update<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads from the snapshot.
    pub fn read<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Snapshot {
    /// A sampler found these GPUs.
    pub fn gpus_found(&mut self, simulated: bool, gpus: &[GpuFacts]) {
        self.simulated = simulated;
        self.gpus = gpus.iter().cloned().map(Gpu::of).collect();
    }

    /// The processes of the GPU at a place arrived at `now`.
    pub fn gpu_processes(&mut self, place: u32, list: Processes, now: Duration) {
        let Some(gpu) = self.gpus.get_mut(place as usize) else { return };
        match list {
            Processes::Missing(missing) => gpu.forget_processes(Missing::from_wire(missing)),
            Processes::Are { shown, all } => {
                gpu.processes = shown
                    .iter()
                    .map(|process| GpuProcess {
                        pid: process.pid,
                        memory_bytes: process.memory.into(),
                        sm_ratio: process.sm.into(),
                    })
                    .collect();
                (gpu.processes_at, gpu.processes_all) = (Ok(now), all);
            }
        }
    }

    /// The driver said what it wants done about the GPU at a place.
    pub fn gpu_recovery(&mut self, place: u32, action: Result<RecoveryAction, Missing>) {
        if let Some(gpu) = self.gpus.get_mut(place as usize) {
            gpu.recovery = action;
        }
    }

    /// What these processes have of the GPUs, over all of them. A GPU that is lost has no processes.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes, not negative")]
    pub fn gpu_of(&self, pids: &BTreeSet<u32>, now: Duration) -> GpuUse {
        let mut all = GpuUse { memory_bytes: Some(0), sm_ratio: Some(0.0), at: now, ..GpuUse::default() };
        let mut listed = 0_u32;
        for gpu in self.gpus.iter().filter(|gpu| gpu.processes_at != Err(Missing::Lost)) {
            let Some(at) = gpu.listed_at(now) else { return GpuUse::default() };
            listed += 1;
            all.at = all.at.min(at);
            for process in gpu.processes.iter().filter(|process| pids.contains(&process.pid)) {
                let add = |sum: Option<f64>, more: Reading| sum.zip(more.ok()).map(|(sum, more)| sum + more);
                let bytes = process.memory_bytes.ok().map(|bytes| bytes as u64);
                all.memory_bytes = all.memory_bytes.zip(bytes).map(|(sum, more)| sum.saturating_add(more));
                all.sm_ratio = add(all.sm_ratio, process.sm_ratio);
                all.gpus.insert(gpu.facts.index);
            }
        }
        all.known = listed > 0;
        if all.known { all } else { GpuUse::default() }
    }

    /// Values of a tier arrived.
    pub fn gpu_values(&mut self, tier: u8, values: &[Vec<Reading>]) {
        for (gpu, readings) in self.gpus.iter_mut().zip(values) {
            let slot = if tier == FAST { &mut gpu.fast } else { &mut gpu.slow };
            slot.clone_from(readings);
        }
    }

    /// The driver does not answer: what was read before is not shown as if it were new.
    pub fn gpu_values_stale(&mut self) {
        for gpu in &mut self.gpus {
            gpu.forget_processes(Missing::Timeout);
            gpu.recovery = Err(Missing::Timeout);
            gpu.fast.iter_mut().chain(&mut gpu.slow).for_each(|reading| *reading = Err(Missing::Timeout));
        }
    }

    /// A queue told its state.
    pub fn queue_told(&mut self, status: QueueStatus) {
        match self.queues.iter_mut().find(|known| known.queue == status.queue) {
            Some(known) => *known = status,
            None => self.queues.push(status),
        }
    }

    /// A service was asked.
    pub fn service_told(&mut self, status: ServiceStatus) {
        if let Some(known) = self.services.iter_mut().find(|known| known.service == status.service) {
            *known = status;
        }
    }

    /// A worker told its state.
    pub fn worker_told(&mut self, status: WorkerStatus) {
        match self.workers.iter_mut().find(|known| known.worker == status.worker) {
            Some(known) => *known = status,
            None => self.workers.push(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::gpu::message::Process;

    const SECOND: Duration = Duration::from_secs(1);

    fn two_gpus() -> Board {
        let board = Board::new(NodeId::new("tokyo-1").unwrap(), Epoch(1), UnixMicros(0));
        let facts = [0, 1].map(|index| GpuFacts { index, ..GpuFacts::default() });
        board.update(|board| board.gpus_found(false, &facts));
        board
    }

    fn listed(board: &Board, place: u32, processes: &[(u32, Reading, Reading)], at: Duration) {
        let process = |(pid, memory, sm): &(u32, Reading, Reading)| Process {
            pid: *pid,
            memory: (*memory).into(),
            sm: (*sm).into(),
        };
        let list = Processes::Are { shown: processes.iter().map(process).collect(), all: true };
        board.update(|board| board.gpu_processes(place, list, at));
    }

    fn of(board: &Board, pids: &[u32], now: Duration) -> GpuUse {
        board.read(|board| board.gpu_of(&pids.iter().copied().collect(), now))
    }

    #[test]
    fn what_processes_have_of_the_gpus_is_their_sum() {
        let board = two_gpus();
        listed(&board, 0, &[(7, Ok(100.0), Ok(0.5)), (8, Ok(1.0), Ok(0.1))], 2 * SECOND);
        assert!(!of(&board, &[7], 3 * SECOND).known, "one GPU has not been read");
        listed(&board, 1, &[(7, Ok(50.0), Ok(0.25)), (9, Ok(9.0), Err(Missing::NotSupported))], 3 * SECOND);
        let both = of(&board, &[7, 1_000], 4 * SECOND);
        assert_eq!((both.memory_bytes, both.sm_ratio, both.known), (Some(150), Some(0.75), true));
        assert_eq!((both.at, both.gpus), (2 * SECOND, BTreeSet::from([0, 1])));
        let none = of(&board, &[1_000], 4 * SECOND);
        assert_eq!((none.memory_bytes, none.sm_ratio, none.known), (Some(0), Some(0.0), true));
        let unmeasured = of(&board, &[9], 4 * SECOND);
        assert_eq!((unmeasured.memory_bytes, unmeasured.sm_ratio, unmeasured.known), (Some(9), None, true));
    }

    #[test]
    fn nothing_is_concluded_from_a_list_that_is_old_cut_or_gone() {
        let board = two_gpus();
        for place in 0..2 {
            listed(&board, place, &[(7, Ok(100.0), Ok(0.5))], SECOND);
        }
        assert!(of(&board, &[7], SECOND + PROCESSES_AGE_MAX).known);
        assert_eq!(of(&board, &[7], 2 * SECOND + PROCESSES_AGE_MAX), GpuUse::default());
        let cut = Processes::Are { shown: Vec::new(), all: false };
        board.update(|board| board.gpu_processes(1, cut, SECOND));
        assert!(!of(&board, &[7], SECOND).known);
        let unsupported = Processes::Missing(Missing::NotSupported as u8);
        board.update(|board| board.gpu_processes(1, unsupported, SECOND));
        assert!(!of(&board, &[7], SECOND).known);
        // A GPU that is lost has no processes; one alone says nothing of those on no GPU.
        let lost = |place| {
            board.update(|board| board.gpu_processes(place, Processes::Missing(Missing::Lost as u8), SECOND));
        };
        lost(1);
        assert_eq!(of(&board, &[7], SECOND).memory_bytes, Some(100));
        lost(0);
        assert!(!of(&board, &[7], SECOND).known);
        listed(&board, 0, &[(7, Ok(100.0), Ok(0.5))], SECOND);
        board.update(Snapshot::gpu_values_stale);
        assert!(!of(&board, &[7], SECOND).known && board.read(|board| board.gpus[0].processes.is_empty()));
    }

    #[test]
    fn the_offset_of_a_clock_leaves_the_way_out_and_follows_a_clock_that_is_set() {
        let ms = Duration::from_millis;
        let at = |ms: u64| UnixMicros(ms * 1_000);
        // Asked at 100 ms, answered at 140 ms: the answer was given 20 ms before.
        let far = FarClock::heard(at(5_120), ms(100), ms(140));
        assert!((far.ahead_ms(at(5_140), ms(140)) - 0.0).abs() < 1e-9);
        assert!((far.ahead_ms(at(3_140), ms(140)) - 2_000.0).abs() < 1e-9);
        // A minute later, after this node's clock was set back by ten seconds.
        assert!((far.ahead_ms(at(55_140), ms(60_140)) - 10_000.0).abs() < 1e-9);
        assert!((far.ahead_ms(at(66_140), ms(60_140)) + 1_000.0).abs() < 1e-9);
    }
}
