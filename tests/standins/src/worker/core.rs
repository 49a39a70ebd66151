//! What the handlers, the working thread and the signals of one worker share: takes changes, wakes whoever
//! waits for them. Handlers wait as tasks, the thread on a bell: while nothing changes nothing runs, so that
//! a worker that hangs uses no CPU.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::control::{self, Control};
use super::fault;
use super::gpu::Gpu;
use super::jobs::{Job, Jobs, Refusal};
use super::state::{Kind, Worker};
use crate::say::say;

/// How a worker is made.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) kind: Kind,
    /// How long its model loads.
    pub(super) load: Duration,
    /// Seconds of audio that are worked off in one second.
    pub(super) job_speed: f64,
    /// CPU while it works, percent of one core.
    pub(super) busy_percent: u32,
    /// What it holds of a GPU.
    pub(super) gpu: Option<Gpu>,
    /// Where is kept what it is told for its next start.
    pub(super) next_start: Option<PathBuf>,
}

/// The end of a job for whoever asked to be told.
pub(super) struct Callback {
    pub(super) url: String,
    pub(super) told: Value,
}

/// One worker.
pub(super) struct Core {
    pub(super) settings: Settings,
    /// Since when it runs.
    started: Duration,
    state: watch::Sender<Worker>,
    jobs: Mutex<Jobs>,
    callbacks: mpsc::Sender<Callback>,
    numbers: AtomicU64,
    /// Handlers that wait until it answers again.
    held: AtomicUsize,
    gone: AtomicBool,
    changes: Mutex<u64>,
    bell: Condvar,
}

impl Core {
    pub(super) fn new(settings: Settings, callbacks: mpsc::Sender<Callback>) -> Self {
        let (state, _) = watch::channel(Worker::new(settings.kind, settings.load));
        Self {
            settings,
            started: clock::uptime(),
            state,
            jobs: Mutex::default(),
            callbacks,
            numbers: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
            changes: Mutex::new(0),
            bell: Condvar::new(),
        }
    }

    pub(super) fn since_start(&self) -> Duration {
        clock::uptime().saturating_sub(self.started)
    }

    /// What it is now.
    pub(super) fn now(&self) -> Worker {
        self.state.borrow().clone()
    }

    /// Changes what it is.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let mut result = None;
        self.state.send_modify(|worker| result = Some(change(worker)));
        self.ring();
        result
    }

    /// Does what it is told, and what the telling itself does to the process.
    pub(super) fn obey(&self, control: Control) -> Result<(), String> {
        if let Some(next) = &control.next_start {
            let path = self.settings.next_start.as_ref();
            control::leave(path.ok_or("next_start needs --next-start FILE")?, next)?;
        }
        if let Some(mib) = control.host_oom {
            fault::take_memory(mib)?;
        }
        if let Some(after) = control.crash_after {
            fault::crash_after(after.0)?;
        }
        if control.no_model == Some(true) {
            fault::say_no_model();
        }
        self.change(|worker| worker.obey(control));
        Ok(())
    }

    /// Waits until it answers again, and longer if `also` says so. The client's patience bounds it:
    /// when the connection goes, so does this.
    pub(super) async fn free(&self, also: impl Fn(&Worker) -> bool) -> Worker {
        let _held = Held::new(&self.held);
        self.until(|worker| !worker.is_mute() && also(worker)).await
    }

    /// Waits until it is so.
    pub(super) async fn until(&self, reached: impl Fn(&Worker) -> bool) -> Worker {
        let mut watched = self.state.subscribe();
        match watched.wait_for(|worker| reached(worker)).await {
            Ok(worker) => worker.clone(),
            // The sender lives as long as this.
            Err(_) => self.now(),
        }
    }

    /// Handlers that wait until it answers again.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// A name for a job that has none; another one in each life.
    pub(super) fn next_name(&self) -> String {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{:x}-{number}", clock::now().0 & 0xff_ffff)
    }

    pub(super) fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job, and says so before the thread can say that it began.
    pub(super) fn accept(&self, job: Job) -> Result<(), Refusal> {
        let line = format!("INFO job {} accepted (audio {:.1}s)", job.id, job.audio_seconds);
        let mut jobs = self.jobs();
        jobs.accept(job)?;
        say(&line);
        drop(jobs);
        self.change(|worker| worker.jobs += 1);
        Ok(())
    }

    /// Hands on a callback; too many that wait are refused.
    pub(super) fn call_back(&self, url: String, told: Value) -> Result<(), String> {
        self.change(|worker| worker.callbacks += 1);
        let sent = self.callbacks.try_send(Callback { url, told });
        if sent.is_err() {
            self.change(|worker| worker.callbacks = worker.callbacks.saturating_sub(1));
        }
        sent.map_err(|_| String::from("too many wait"))
    }

    /// The worker goes: its thread ends.
    pub(super) fn go(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.ring();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Changes so far.
    pub(super) fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change after those seen, at most so long.
    pub(super) fn wait(&self, seen: u64, limit: Option<Duration>) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |changes: &mut u64| *changes == seen;
        // A poisoned lock holds a number all the same.
        match limit {
            None => drop(self.bell.wait_while(changes, is_old)),
            Some(limit) => drop(self.bell.wait_timeout_while(changes, limit, is_old)),
        }
    }

    fn ring(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.bell.notify_all();
    }
}

/// Counts a handler while it waits.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
