//! The sample stage: asks each source in its own rhythm and never waits for a slow one.
//!
//! Takes nothing; gives [`Tick`]s (values of one group at one instant) into a bounded queue. When
//! the frame stage is slow, ticks are dropped and counted; events wait.

pub mod gpu;
pub mod host;
pub mod vitals;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::Event;
use diarwatch_shared::reading::Reading;
use diarwatch_shared::schema::SeriesKey;
use tokio::sync::mpsc;

use crate::workers::WorkerOutput;

/// Inputs that may wait for the frame stage: some 20 s of an eight-GPU host at 10 Hz.
pub const INPUTS_MAX: usize = 512;

/// Values of one group at one instant.
#[derive(Clone, Debug)]
pub struct Tick {
    /// The group: series that are read at the same instants.
    pub group: Arc<str>,
    /// When they were read.
    pub at: UnixMicros,
    /// The series; the same `Arc` while they do not change.
    pub keys: Arc<[SeriesKey]>,
    /// One reading per series.
    pub readings: Vec<Reading>,
}

/// What reaches the frame stage.
#[derive(Debug)]
pub enum Input {
    /// Values.
    Tick(Tick),
    /// Something happened on the host.
    Event(Event),
    /// From the workers' side.
    Worker(WorkerOutput),
    /// The source of this group is configured no more: its series end.
    Gone(Arc<str>),
    /// Nothing more comes that matters: append what is open and end.
    Stop,
}

/// The way to the frame stage, from any source on any thread.
#[derive(Clone, Debug)]
pub struct Sink {
    inputs: mpsc::Sender<Input>,
    dropped: Arc<AtomicU64>,
}

impl Sink {
    /// A sink over the queue's sender.
    #[must_use]
    pub fn new(inputs: mpsc::Sender<Input>) -> Self {
        Self { inputs, dropped: Arc::default() }
    }

    /// Hands a tick on, or drops and counts it when the queue is full.
    pub fn tick(&self, tick: Tick) {
        if self.inputs.try_send(Input::Tick(tick)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says that a group's source is configured no more; false when the queue is full.
    #[must_use]
    pub fn gone(&self, group: &str) -> bool {
        self.inputs.try_send(Input::Gone(group.into())).is_ok()
    }

    /// Hands an event on; waits while the queue is full.
    pub async fn event(&self, event: Event) {
        // The receiver is gone only when the agent stops.
        drop(self.inputs.send(Input::Event(event)).await);
    }

    /// Ticks dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
