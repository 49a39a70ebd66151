//! The loop under drivers and stages that misbehave.

use super::super::{Ground, ORDERS_MAX, look_after};
use super::*;
use crate::probe::Prober;
use crate::restart::{Exit, Found, Process, Signal, StartError};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Mutex;

/// A worker that ends as soon as it is started.
struct Crashing {
    starts: Arc<AtomicU32>,
    alive: Option<u32>,
}

impl Driver for Crashing {
    async fn look(&mut self) -> Result<Found, String> {
        Ok(Found::Stopped { exit: None })
    }

    async fn start(&mut self) -> Result<Process, StartError> {
        let pid = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        self.alive = Some(pid);
        Ok(Process { pid, age: Duration::ZERO })
    }

    async fn news(&mut self) -> News {
        match self.alive.take() {
            Some(pid) => News::Exited(Exit { pid, reason: String::from("exit code 1"), ..Exit::default() }),
            None => std::future::pending().await,
        }
    }

    async fn signal(&mut self, _signal: Signal) -> Result<(), String> {
        Ok(())
    }

    fn pids(&self) -> BTreeSet<u32> {
        BTreeSet::new()
    }

    async fn leave(&mut self, _grace: Duration) {}

    fn outlives_the_agent(&self) -> bool {
        false
    }
}

fn ways(out: mpsc::Sender<WorkerOutput>, stop: watch::Receiver<bool>) -> Ways {
    let (_, orders) = mpsc::channel(ORDERS_MAX);
    let orders = Arc::new(Mutex::new(orders));
    Ways { ground: Ground::bare(out), prober: Prober::new().unwrap(), stop, orders }
}

fn config() -> WorkerConfig {
    let text = "name = \"w\"\ndriver = \"child\"\ncommand = []\nbackoff_base = \"0s\"\n\
                readiness = { url = \"http://127.0.0.1/\" }\n";
    let mut config: WorkerConfig = diarwatch_shared::config::parse(Path::new("w.toml"), text).unwrap();
    // A crash loop without a wait is what is wanted here.
    config.supervise.restarts_max = u32::MAX;
    config
}

/// A crash loop without a wait, whose events nobody has taken yet and of which more are due than
/// may wait.
async fn crash_loop() -> (JoinSet<()>, mpsc::Receiver<WorkerOutput>, watch::Sender<bool>) {
    let (out, outputs) = mpsc::channel(1);
    let (stop, stopped) = watch::channel(false);
    let starts = Arc::new(AtomicU32::new(0));
    let driver = Crashing { starts: Arc::clone(&starts), alive: None };
    let ways = ways(out, stopped);
    let mut tasks = JoinSet::new();
    tasks.spawn(Worker::new(config(), driver, Words::default(), ways).run());
    while (starts.load(Ordering::Relaxed) as usize) < EVENTS_WAITING_MAX / 2 {
        tokio::task::yield_now().await;
    }
    (tasks, outputs, stop)
}

#[tokio::test]
async fn no_event_is_lost_when_more_happen_than_may_wait() {
    let (mut tasks, mut outputs, stop) = crash_loop().await;
    let mut told = Vec::new();
    while told.len() < 2 * EVENTS_WAITING_MAX {
        if let Some(WorkerOutput::Event(event)) = outputs.recv().await {
            told.push(event.what);
        }
    }
    for (index, what) in (0_u32..).zip(&told) {
        let number = index / 2 + 1;
        match what {
            What::WorkerStarted { pid, .. } => assert_eq!((index % 2, *pid), (0, number)),
            What::WorkerExited { attempt, .. } => assert_eq!((index % 2, *attempt), (1, number)),
            other => panic!("{other:?}"),
        }
    }
    stop.send(true).unwrap();
    drop(outputs);
    tasks.join_next().await.unwrap().unwrap();
}

/// A worker whose driver has a fault that ends the task at its first start.
struct Faulty(Crashing);

static FAULTS: AtomicU32 = AtomicU32::new(0);

impl Driver for Faulty {
    async fn look(&mut self) -> Result<Found, String> {
        self.0.look().await
    }

    async fn start(&mut self) -> Result<Process, StartError> {
        assert_ne!(FAULTS.fetch_add(1, Ordering::Relaxed), 0, "a fault of the agent");
        self.0.start().await
    }

    async fn news(&mut self) -> News {
        std::future::pending().await
    }

    async fn signal(&mut self, _signal: Signal) -> Result<(), String> {
        Ok(())
    }

    fn pids(&self) -> BTreeSet<u32> {
        BTreeSet::new()
    }

    async fn leave(&mut self, _grace: Duration) {}

    fn outlives_the_agent(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_worker_is_looked_after_again_after_a_fault_of_the_agent() {
    let (out, mut outputs) = mpsc::channel(16);
    let (stop, stopped) = watch::channel(false);
    let ways = ways(out, stopped);
    let faulty = |_, _| Faulty(Crashing { starts: Arc::default(), alive: None });
    let task = tokio::spawn(look_after(config(), faulty, ways));
    let mut told = outputs.recv().await;
    while let Some(WorkerOutput::Status(_)) = told {
        told = outputs.recv().await;
    }
    let started = |event: &Event| matches!(event.what, What::WorkerStarted { .. });
    assert!(matches!(&told, Some(WorkerOutput::Event(event)) if started(event)), "{told:?}");
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_stop_is_not_kept_waiting_by_a_next_stage_that_takes_nothing() {
    let (mut tasks, outputs, stop) = crash_loop().await;
    stop.send(true).unwrap();
    tasks.join_next().await.unwrap().unwrap();
    drop(outputs);
}
