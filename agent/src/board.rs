//! The newest state of everything, for whoever asks on the socket. Written by the stages, read by
//! `observe`; of the past it holds the last minute and the newest events.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::node::{Epoch, NodeId};
use diarwatch_shared::reading::Reading;
use serde::Serialize;

use crate::figures::FigureStatus;
use crate::queue::QueueStatus;
use crate::recent::Recent;
use crate::sample::gpu::message::GpuFacts;
use crate::sample::gpu::{DriverState, FAST, FAST_METRICS, SLOW_METRICS};
use crate::sample::host::HostTick;
use crate::services::ServiceStatus;
use crate::workers::WorkerStatus;

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
}

/// What some processes have of the GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuUse {
    /// Memory that they hold, bytes.
    pub memory_bytes: Option<u64>,
    /// Part of the last second in which their kernels ran.
    pub sm_ratio: Option<f64>,
    /// Whether anything is known.
    pub known: bool,
}

impl Snapshot {
    /// What these processes have of the GPUs.
    #[must_use]
    pub fn gpu_of(&self, _pids: &std::collections::BTreeSet<u32>, _now: Duration) -> GpuUse {
        GpuUse::default()
    }
}

impl Gpu {
    /// The newest value of a metric.
    pub fn value(&self, metric: &str) -> Reading {
        let find = |metrics: &[&str], values: &[Reading]| {
            metrics.iter().position(|name| *name == metric).and_then(|at| values.get(at).copied())
        };
        find(&FAST_METRICS, &self.fast)
            .or_else(|| find(&SLOW_METRICS, &self.slow))
            .unwrap_or(Err(diarwatch_shared::reading::Missing::NotYet))
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
        let theirs = self.theirs.plus(uptime.saturating_sub(self.heard));
        (theirs.0 as f64 - now.0 as f64) / 1e3
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
        self.gpus = gpus
            .iter()
            .map(|facts| Gpu { facts: facts.clone(), fast: Vec::new(), slow: Vec::new() })
            .collect();
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
        use diarwatch_shared::reading::Missing;
        for gpu in &mut self.gpus {
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
