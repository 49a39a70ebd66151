//! The shell around probe, judge and restart: one task per worker, one loop, one event enum, one handler.
//! Takes the workers' configuration, orders and the stop signal; gives [`WorkerOutput`] to the frame
//! stage. When that stage is slow, events wait in a bounded queue (never dropped: when it is full the
//! worker's task waits too) and statuses are dropped and counted; exits are still seen.
//!
//! A probe, a hook, a question to the fleet and the gathering of evidence run beside the loop, so that none
//! of them delays seeing an end or the start that follows it.

mod acts;
mod ended;
mod errand;
mod lost;
mod memory;
mod say;
mod status;
mod task;
mod views;

use std::path::PathBuf;
use std::sync::Arc;

use diarwatch_shared::event::Event;
use diarwatch_shared::node::WorkerId;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

pub use lost::Jobs;
pub use status::{LastProbe, WorkerStatus};
pub use task::{EVENTS_WAITING_MAX, FLUSH_MS_MAX, STATUS_INTERVAL_MS};

use crate::board::Board;
use crate::config::worker::{DriverKind, WorkerConfig};
use crate::leases::Leases;
use crate::orders::Order;
use crate::probe::{ProbeError, Prober};
use crate::restart::Driver;
use crate::restart::child::ChildDriver;
use crate::restart::docker::DockerDriver;
use crate::restart::systemd::SystemdDriver;
use crate::words::Words;
use task::Worker;

/// Orders of one worker that may wait.
pub const ORDERS_MAX: usize = 8;

/// What the workers give to the frame stage.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerOutput {
    /// Something happened; never dropped.
    Event(Event),
    /// Where a worker is now; the next one replaces it.
    Status(Box<WorkerStatus>),
    /// A worker is looked after no more: its configuration is gone, or another one follows.
    Gone(WorkerId),
}

/// What the workers stand on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Where their outputs go.
    pub out: mpsc::Sender<WorkerOutput>,
    /// What is known of GPUs and queues; without it only their own processes are seen.
    pub board: Option<Board>,
    /// Leave of the fleet.
    pub leases: Leases,
    /// The directory in which the judge's memory is kept; without it an agent begins afresh.
    pub memory: Option<PathBuf>,
    /// The ledger of lost jobs; without it they are only listed.
    pub jobs: Option<Jobs>,
}

impl Ground {
    /// Nothing but a place for outputs.
    #[must_use]
    pub fn bare(out: mpsc::Sender<WorkerOutput>) -> Self {
        Self { out, board: None, leases: Leases::default(), memory: None, jobs: None }
    }
}

/// What one task has of it all.
#[derive(Clone)]
struct Ways {
    ground: Ground,
    prober: Prober,
    stop: watch::Receiver<bool>,
    orders: Arc<Mutex<mpsc::Receiver<Order>>>,
}

/// Looks after one worker until `stop` is true (or its sender is gone); then leaves it as its driver does,
/// and the set runs empty.
///
/// # Errors
/// When no probes can be made.
pub fn start(
    config: WorkerConfig,
    ground: Ground,
    orders: mpsc::Receiver<Order>,
    stop: watch::Receiver<bool>,
) -> Result<JoinSet<()>, ProbeError> {
    let ways = Ways { ground, prober: Prober::new()?, stop, orders: Arc::new(Mutex::new(orders)) };
    let mut tasks = JoinSet::new();
    match config.driver {
        DriverKind::Child => tasks.spawn(look_after(config, ChildDriver::new, ways)),
        DriverKind::Systemd => tasks.spawn(look_after(config, |config, _| SystemdDriver::new(config), ways)),
        DriverKind::Docker => tasks.spawn(look_after(config, |config, _| DockerDriver::new(config), ways)),
    };
    Ok(tasks)
}

/// Looks after one worker until the stop. A task that panics is a fault of the agent: a worker of the driver
/// `child` ends with it (the driver sees to that when it is dropped), any other lives on; it is looked
/// after anew.
async fn look_after<D: Driver + 'static>(
    config: WorkerConfig,
    driver: fn(WorkerConfig, Words) -> D,
    ways: Ways,
) {
    loop {
        let words = Words::default();
        let mut task = JoinSet::new();
        let driver = driver(config.clone(), words.clone());
        task.spawn(Worker::new(config.clone(), driver, words, ways.clone()).run());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(worker = %config.name, %error, "a fault of the agent ended the care of a worker; it begins anew");
                tokio::time::sleep(config.backoff_base.0).await;
            }
            _ => return,
        }
    }
}
