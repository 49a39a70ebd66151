//! The shell around probe, judge and restart: one task per worker, one loop, one event enum, one
//! handler. Takes the workers' configuration and the stop signal; gives [`WorkerOutput`] to the
//! frame stage. When that stage is slow, events wait in a bounded queue (never dropped: when it is
//! full the worker's task waits too) and statuses are dropped and counted; exits are still seen.
//!
//! A probe runs beside the loop, so that a worker that answers nothing never delays seeing its end.

use std::collections::VecDeque;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::time::Duration;

use diarwatch_shared::backoff;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::{Event, What};
use diarwatch_shared::node::WorkerId;
use diarwatch_shared::reading::Missing;
use serde::{Serialize, Serializer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::worker::{DriverKind, WorkerConfig};
use crate::judge::{Action, Input, JudgeConfig, Phase, State, step};
use crate::probe::{ProbeError, ProbeResult, Prober};
use crate::restart::child::ChildDriver;
use crate::restart::docker::DockerDriver;
use crate::restart::systemd::SystemdDriver;
use crate::restart::{Driver, News};
use crate::status::Number;
use crate::words::Words;

/// Events of one worker that wait for the frame stage before the worker's task waits as well.
pub const EVENTS_WAITING_MAX: usize = 256;
/// How long the events that still wait at a stop are offered to the frame stage, in milliseconds.
pub const FLUSH_MS_MAX: u64 = 2_000;
/// From one status to the next when nothing changes, in milliseconds.
pub const STATUS_INTERVAL_MS: u64 = 1_000;

/// What the workers give to the frame stage.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerOutput {
    /// Something happened; never dropped.
    Event(Event),
    /// Where a worker is now; the next one replaces it.
    Status(WorkerStatus),
    /// A worker is looked after no more: its configuration is gone, or another one follows.
    Gone(WorkerId),
}

/// Where a worker is, for the series and for people; sent at each change and at least each second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// Which worker.
    pub worker: WorkerId,
    /// What people call it.
    pub service: String,
    /// Where it is, in a word.
    pub phase: Phase,
    /// Whether it takes jobs; none while it first loads.
    #[serde(serialize_with = "known_or_not_yet")]
    pub ready: Option<bool>,
    /// Its live process.
    pub pid: Option<u32>,
    /// Restarts by this run of the agent.
    pub restarts: u64,
    /// When its live process started.
    #[serde(rename = "started_us")]
    pub started: Option<UnixMicros>,
    /// The last probe of its live process.
    pub last_probe: Option<LastProbe>,
    /// How its last process ended, or why it could not be started.
    pub last_exit: Option<String>,
    /// The wait that is left before the next start, in milliseconds, while it waits for one.
    pub next_start_in_ms: Option<u64>,
    /// When its phase or its process last changed.
    #[serde(rename = "since_us")]
    pub since: UnixMicros,
    /// Statuses of this worker that the frame stage had no room for.
    pub statuses_dropped: u64,
}

/// `null` with its reason, by way of [`crate::status::with_reasons`].
fn known_or_not_yet<S: Serializer>(ready: &Option<bool>, serializer: S) -> Result<S::Ok, S::Error> {
    match ready {
        Some(ready) => serializer.serialize_bool(*ready),
        None => Number::from(Err(Missing::NotYet)).serialize(serializer),
    }
}

/// A probe that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastProbe {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it found, for people: `ready`, `not ready: ...`, `no answer: ...`.
    pub verdict: String,
}

/// Looks after the workers until `stop` is true (or its sender is gone); then stops them all at once,
/// each with its grace, and the set runs empty.
///
/// # Errors
/// When no probes can be made.
pub fn start(
    configs: Vec<WorkerConfig>,
    out: mpsc::Sender<WorkerOutput>,
    stop: watch::Receiver<bool>,
) -> Result<JoinSet<()>, ProbeError> {
    let ways = Ways { prober: Prober::new()?, out, stop };
    let mut tasks = JoinSet::new();
    for config in configs {
        match config.driver {
            DriverKind::Child => tasks.spawn(look_after(config, ChildDriver::new, ways.clone())),
            DriverKind::Systemd => {
                tasks.spawn(look_after(config, |c, _| SystemdDriver::new(c), ways.clone()))
            }
            DriverKind::Docker => tasks.spawn(look_after(config, |c, _| DockerDriver::new(c), ways.clone())),
        };
    }
    Ok(tasks)
}

/// Looks after one worker until the stop. A task that panics is a fault of the agent: its worker ends
/// with it (its driver sees to that when it is dropped) and is looked after anew.
async fn look_after<D: Driver + 'static>(
    config: WorkerConfig,
    driver: fn(WorkerConfig, Words) -> D,
    ways: Ways,
) {
    loop {
        let mut task = JoinSet::new();
        task.spawn(Worker::new(config.clone(), driver(config.clone(), Words::default()), ways.clone()).run());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(worker = %config.name, %error, "a fault of the agent ended the worker; it is started again");
                tokio::time::sleep(config.backoff_base.0).await;
            }
            _ => return,
        }
    }
}

/// What the loop of a worker waits for.
enum Happening {
    Stop,
    News(News),
    /// The probe that began while this process lived came to its end.
    Probed(u32, ProbeResult),
    /// The frame stage has room for an event, or is gone.
    Room(Option<mpsc::OwnedPermit<WorkerOutput>>),
    Tick,
}

type Probing = Pin<Box<dyn Future<Output = (u32, ProbeResult)> + Send>>;

/// What every worker's task has in common: the ways to the outside.
#[derive(Clone)]
struct Ways {
    prober: Prober,
    out: mpsc::Sender<WorkerOutput>,
    stop: watch::Receiver<bool>,
}

struct Worker<D> {
    config: WorkerConfig,
    judge: JudgeConfig,
    state: State,
    /// When phase or process last changed, by the judge's clock and by the wall clock of that moment.
    since: (Duration, UnixMicros),
    started: Option<UnixMicros>,
    driver: D,
    ways: Ways,
    waiting: VecDeque<Event>,
    /// The probe under way; dropped with the process it asks.
    probing: Option<Probing>,
    probe_due: Duration,
    last_probe: Option<LastProbe>,
    status_due: Duration,
    statuses_dropped: u64,
    draws: u64,
}

impl<D: Driver> Worker<D> {
    fn new(config: WorkerConfig, driver: D, ways: Ways) -> Self {
        Self {
            judge: JudgeConfig::from(&config),
            config,
            state: State::new(),
            since: (Duration::ZERO, clock::now()),
            started: None,
            driver,
            ways,
            waiting: VecDeque::new(),
            probing: None,
            probe_due: Duration::ZERO,
            last_probe: None,
            status_due: Duration::ZERO,
            statuses_dropped: 0,
            draws: 0,
        }
    }

    async fn run(mut self) {
        self.judge(Input::AgentStarted).await;
        loop {
            let happening = self.next().await;
            match happening {
                Happening::Stop => break,
                Happening::News(News::Exited(exit)) => {
                    self.judge(Input::Exited { pid: exit.pid, reason: exit.reason }).await;
                }
                Happening::News(_) => {}
                Happening::Probed(pid, result) => self.probed(pid, result).await,
                Happening::Room(Some(permit)) => self.send_one(permit),
                Happening::Room(None) => self.lose_events(),
                Happening::Tick => self.judge(Input::Tick).await,
            }
            self.begin_probe();
            self.send_status();
        }
        self.driver.leave(self.config.stop_grace.map_or(Duration::from_secs(10), |grace| grace.0)).await;
        self.flush().await;
    }

    /// Waits in one place for whatever comes first.
    async fn next(&mut self) -> Happening {
        let wake = self.next_wake().saturating_sub(clock::uptime());
        let room = self.ways.out.clone();
        let events_wait = !self.waiting.is_empty();
        let probing = self.probing.as_mut();
        tokio::select! {
            // In this order: a stop goes before everything, an exit before a probe of what is no more.
            biased;
            () = stopped(&mut self.ways.stop) => Happening::Stop,
            news = self.driver.news() => Happening::News(news),
            permit = room.reserve_owned(), if events_wait => Happening::Room(permit.ok()),
            (pid, result) = or_never(probing) => Happening::Probed(pid, result),
            () = tokio::time::sleep(wake) => Happening::Tick,
        }
    }

    fn next_wake(&self) -> Duration {
        let probe = (self.probing.is_none() && self.state.pid().is_some()).then_some(self.probe_due);
        let deadline = self.state.deadline(&self.judge);
        [probe, deadline].into_iter().flatten().fold(self.status_due, Duration::min)
    }

    /// Puts an input to the judge and does what it says; a start answers with an input of its own.
    async fn judge(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let before = (self.state.phase(), self.state.pid(), self.state.ready());
            let unit = self.next_unit();
            let (state, actions) = step(self.state.clone(), input, clock::uptime(), &self.judge, unit);
            let process_changed = before.1 != state.pid();
            let changed = before != (state.phase(), state.pid(), state.ready());
            self.state = state;
            if self.since.0 != self.state.since() {
                self.since = (self.state.since(), clock::now());
            }
            if process_changed {
                self.forget_probe();
                self.started = self.state.pid().map(|_| clock::now());
            }
            for action in actions {
                match action {
                    Action::Start => inputs.push_back(self.start_process().await),
                    Action::Emit(what) => self.emit(what).await,
                }
            }
            if changed {
                self.status_due = Duration::ZERO;
                self.send_status();
            }
        }
    }

    async fn start_process(&mut self) -> Input {
        match self.driver.start().await {
            Ok(process) => Input::Started { pid: process.pid },
            Err(error) => Input::StartFailed { reason: error.to_string() },
        }
    }

    async fn probed(&mut self, pid: u32, result: ProbeResult) {
        self.probing = None;
        self.last_probe =
            Some(LastProbe { took_ms: millis(result.took), verdict: result.verdict.to_string() });
        self.judge(Input::Probed { pid, verdict: result.verdict }).await;
        self.status_due = Duration::ZERO;
    }

    /// A new process, or none: what was asked of the one before tells nothing any more.
    fn forget_probe(&mut self) {
        self.probing = None;
        self.last_probe = None;
        self.probe_due = clock::uptime().saturating_add(self.config.readiness.interval.0);
    }

    fn begin_probe(&mut self) {
        let now = clock::uptime();
        let Some(pid) = self.state.pid() else { return };
        if self.probing.is_some() || now < self.probe_due {
            return;
        }
        self.probe_due = now.saturating_add(self.config.readiness.interval.0);
        let (prober, config) = (self.ways.prober.clone(), self.config.readiness.clone());
        self.probing = Some(Box::pin(async move { (pid, prober.probe(&config).await) }));
    }

    async fn emit(&mut self, what: What) {
        log(&what);
        if self.waiting.len() >= EVENTS_WAITING_MAX {
            let room = self.ways.out.clone();
            let permit = tokio::select! {
                permit = room.reserve_owned() => Some(permit.ok()),
                // A stop is not kept waiting: the few events beyond the limit are flushed after it.
                () = stopped(&mut self.ways.stop) => None,
            };
            match permit {
                Some(Some(permit)) => self.send_one(permit),
                Some(None) => self.lose_events(),
                None => {}
            }
        }
        self.waiting.push_back(Event::new(clock::now(), what));
    }

    fn send_one(&mut self, permit: mpsc::OwnedPermit<WorkerOutput>) {
        if let Some(event) = self.waiting.pop_front() {
            drop(permit.send(WorkerOutput::Event(event)));
        }
    }

    /// The frame stage is gone, which only a fault brings about before the stop; the worker is looked
    /// after all the same.
    fn lose_events(&mut self) {
        let worker = &self.config.name;
        tracing::error!(%worker, events_lost = self.waiting.len(), "the frame stage takes no events any more");
        self.waiting.clear();
    }

    fn send_status(&mut self) {
        let now = clock::uptime();
        if now < self.status_due {
            return;
        }
        self.status_due = now.saturating_add(Duration::from_millis(STATUS_INTERVAL_MS));
        let status = self.status(now);
        if self.ways.out.try_send(WorkerOutput::Status(status)).is_err() {
            self.statuses_dropped = self.statuses_dropped.saturating_add(1);
        }
    }

    fn status(&self, now: Duration) -> WorkerStatus {
        WorkerStatus {
            worker: self.config.name.clone(),
            service: self.config.service().to_owned(),
            phase: self.state.phase(),
            ready: self.state.ready(),
            pid: self.state.pid(),
            restarts: self.state.restarts(),
            started: self.started,
            last_probe: self.last_probe.clone(),
            last_exit: self.state.last_exit().map(str::to_owned),
            next_start_in_ms: self.state.next_start().map(|until| millis(until.saturating_sub(now))),
            since: self.since.1,
            statuses_dropped: self.statuses_dropped,
        }
    }

    async fn flush(mut self) {
        let out = self.ways.out;
        let send_all = async {
            while let Some(event) = self.waiting.pop_front() {
                if out.send(WorkerOutput::Event(event)).await.is_err() {
                    break;
                }
            }
        };
        drop(tokio::time::timeout(Duration::from_millis(FLUSH_MS_MAX), send_all).await);
        if !self.waiting.is_empty() {
            tracing::error!(worker = %self.config.name, events_lost = self.waiting.len(), "the stop did not wait for the frame stage");
        }
    }

    /// The jitter of this host's worker at this time; nothing here has to be hard to guess.
    fn next_unit(&mut self) -> f64 {
        self.draws = self.draws.wrapping_add(1);
        let mut hasher = DefaultHasher::new();
        (self.config.name.as_str(), std::process::id(), clock::now().0, self.draws).hash(&mut hasher);
        backoff::unit(hasher.finish())
    }
}

/// Until the stop is wanted, or nobody is left to want it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|wanted| *wanted).await);
}

/// The future's output; for ever nothing while there is no future.
async fn or_never<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn log(what: &What) {
    match what {
        What::WorkerStarted { worker, pid } => tracing::info!(%worker, pid, "worker started"),
        What::WorkerReady { worker, load_ms, down_ms } => {
            tracing::info!(%worker, load_ms, down_ms, "worker ready");
        }
        What::WorkerNotReady { worker, reason } => tracing::warn!(%worker, reason, "worker not ready"),
        What::WorkerStartOverdue { worker, reason, waited_ms } => {
            tracing::warn!(%worker, reason, waited_ms, "worker takes too long to start");
        }
        What::WorkerExited { worker, pid, reason, attempt, restart_in_ms } => {
            tracing::warn!(%worker, pid, reason, attempt, restart_in_ms, "worker exited");
        }
        other => tracing::info!(event = ?other, "worker event"),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restart::{Exit, Found, Process, Signal, StartError};
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

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
                Some(pid) => {
                    News::Exited(Exit { pid, reason: String::from("exit code 1"), ..Exit::default() })
                }
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

    fn config() -> WorkerConfig {
        let text = "name = \"w\"\ndriver = \"child\"\ncommand = []\nbackoff_base = \"0s\"\n\
                    readiness = { url = \"http://127.0.0.1/\" }\n";
        diarwatch_shared::config::parse(Path::new("w.toml"), text).unwrap()
    }

    /// A crash loop without a wait, whose events nobody has taken yet and of which more are due than
    /// may wait.
    async fn crash_loop() -> (JoinSet<()>, mpsc::Receiver<WorkerOutput>, watch::Sender<bool>) {
        let (out, outputs) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let starts = Arc::new(AtomicU32::new(0));
        let driver = Crashing { starts: Arc::clone(&starts), alive: None };
        let ways = Ways { prober: Prober::new().unwrap(), out, stop: stopped };
        let mut tasks = JoinSet::new();
        tasks.spawn(Worker::new(config(), driver, ways).run());
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
        let ways = Ways { prober: Prober::new().unwrap(), out, stop: stopped };
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
}
