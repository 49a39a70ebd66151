//! One worker's loop: waits in one place for what comes first, puts it to the judge, does what the judge says.

use std::collections::VecDeque;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::backoff;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::{Event, What};
use serde_json::Value;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::errand::Brought;
use super::memory::Memory;
use super::status::{LastProbe, WorkerStatus};
use super::views::Looker;
use super::{Ways, WorkerOutput, say};
use crate::config::worker::WorkerConfig;
use crate::evidence::ProbeSeen;
use crate::findings::Finding;
use crate::judge::{Input, JudgeConfig, Phase, State, Wanted, step};
use crate::listen;
use crate::orders::Order;
use crate::probe::ProbeResult;
use crate::restart::{Driver, News};
use crate::words::Words;

/// Events of one worker that wait for the frame stage before the worker's task waits as well.
pub const EVENTS_WAITING_MAX: usize = 256;
/// From one probe to the next while a worker comes up, at most: what is waited for is time without a worker.
const COMING_UP_INTERVAL: Duration = Duration::from_millis(250);
/// How long the events that still wait at a stop are offered to the frame stage, in milliseconds.
pub const FLUSH_MS_MAX: u64 = 2_000;
/// From one status, and one look from outside, to the next when nothing changes, in milliseconds.
pub const STATUS_INTERVAL_MS: u64 = 1_000;
/// The grace of a worker that ends with the agent, where none is configured.
const LEAVE_GRACE: Duration = Duration::from_secs(10);
/// Probes that are kept for the evidence.
const PROBES_KEPT_MAX: usize = 30;

/// What the loop of a worker waits for.
enum Happening {
    Stop,
    News(News),
    Probed(u32, ProbeResult),
    Room(Option<mpsc::OwnedPermit<WorkerOutput>>),
    Found(Finding),
    Errand(Option<Brought>),
    Order(Option<Order>),
    Tick,
}

type Probing = Pin<Box<dyn Future<Output = (u32, ProbeResult)> + Send>>;

pub(super) struct Worker<D> {
    pub(super) config: WorkerConfig,
    pub(super) judge: JudgeConfig,
    pub(super) state: State,
    pub(super) memory: Memory,
    /// When phase or process last changed, by the judge's clock and by the wall clock of that moment.
    pub(super) since: (Duration, UnixMicros),
    pub(super) started: Option<UnixMicros>,
    pub(super) driver: D,
    pub(super) words: Words,
    pub(super) ways: Ways,
    pub(super) waiting: VecDeque<Event>,
    /// The probe under way; dropped with the process it asks.
    pub(super) probing: Option<Probing>,
    pub(super) probe_due: Duration,
    pub(super) last_probe: Option<LastProbe>,
    pub(super) looker: Looker,
    pub(super) look_due: Duration,
    /// When the driver is asked again what is there, after it could not tell.
    pub(super) driver_due: Option<Duration>,
    pub(super) errands: JoinSet<Brought>,
    /// Hooks run one after another.
    pub(super) turn: Arc<Mutex<()>>,
    /// What made-up jobs took that proved it, the newest last.
    pub(super) proofs: Vec<Duration>,
    /// Its last probes, for the evidence.
    pub(super) probes: VecDeque<ProbeSeen>,
    /// Follows what it writes, where that does not come by a pipe.
    pub(super) listening: Option<JoinHandle<()>>,
    pub(super) answer: Option<oneshot::Sender<Result<Value, String>>>,
    pub(super) status_due: Duration,
    pub(super) statuses_dropped: u64,
    pub(super) draws: u64,
}

impl<D: Driver> Worker<D> {
    pub(super) fn new(config: WorkerConfig, driver: D, words: Words, ways: Ways) -> Self {
        let mut memory = Memory::new(ways.ground.memory.as_deref(), &config.name);
        Self {
            judge: JudgeConfig::from(&config),
            state: memory.read(),
            memory,
            config,
            since: (Duration::ZERO, clock::now()),
            started: None,
            driver,
            words,
            ways,
            waiting: VecDeque::new(),
            probing: None,
            probe_due: Duration::ZERO,
            last_probe: None,
            looker: Looker::default(),
            look_due: Duration::ZERO,
            driver_due: None,
            errands: JoinSet::new(),
            turn: Arc::default(),
            proofs: Vec::new(),
            probes: VecDeque::new(),
            listening: None,
            answer: None,
            status_due: Duration::ZERO,
            statuses_dropped: 0,
            draws: 0,
        }
    }

    pub(super) async fn run(mut self) {
        self.listening = listen::follow(&self.config, self.words.clone());
        self.judge(Input::AgentStarted).await;
        loop {
            match self.next().await {
                Happening::Stop => break,
                Happening::News(news) => self.news(news).await,
                Happening::Probed(pid, result) => self.probed(pid, result).await,
                Happening::Room(Some(permit)) => self.send_one(permit),
                Happening::Room(None) => self.lose_events(),
                Happening::Found(finding) => self.judge(say::trouble(finding, clock::now())).await,
                Happening::Errand(Some(brought)) => self.brought(brought).await,
                Happening::Order(Some(order)) => self.order(order).await,
                Happening::Errand(None) | Happening::Order(None) | Happening::Tick => {
                    self.judge(Input::Tick).await;
                }
            }
            self.look().await;
            self.begin_probe();
            self.send_status();
            self.memory.write(&self.state);
        }
        self.driver.leave(self.config.stop_grace.map_or(LEAVE_GRACE, |grace| grace.0)).await;
        self.memory.changed();
        self.bring_home().await;
        self.flush().await;
    }

    /// Waits in one place for whatever comes first.
    async fn next(&mut self) -> Happening {
        let wake = self.next_wake().saturating_sub(clock::uptime());
        let room = self.ways.ground.out.clone();
        let events_wait = !self.waiting.is_empty();
        let probing = self.probing.as_mut();
        let mut orders = self.ways.orders.lock().await;
        tokio::select! {
            // In this order: a stop goes before everything, an exit before a probe of what is no more.
            biased;
            () = stopped(&mut self.ways.stop) => Happening::Stop,
            news = self.driver.news() => Happening::News(news),
            order = or_closed(orders.recv()) => Happening::Order(Some(order)),
            permit = room.reserve_owned(), if events_wait => Happening::Room(permit.ok()),
            (pid, result) = or_never(probing) => Happening::Probed(pid, result),
            finding = self.words.finding() => Happening::Found(finding),
            Some(done) = self.errands.join_next() => Happening::Errand(done.ok()),
            () = tokio::time::sleep(wake) => Happening::Tick,
        }
    }

    fn next_wake(&self) -> Duration {
        let probe = (self.probing.is_none() && self.state.pid().is_some()).then_some(self.probe_due);
        let deadlines = [probe, self.state.deadline(), self.driver_due, Some(self.look_due)];
        deadlines.into_iter().flatten().fold(self.status_due, Duration::min)
    }

    async fn news(&mut self, news: News) {
        let input = match news {
            News::Started(process) => Input::StartedByOther(process),
            News::Exited(exit) => {
                // What is left of it decides whether it may be started at once.
                self.see(false).await;
                Input::Exited(exit)
            }
            News::Health { healthy, reason } => Input::Checked { healthy, reason },
            News::Lost { reason } => Input::Blind { reason },
        };
        self.judge(input).await;
    }

    async fn order(&mut self, order: Order) {
        if clock::now() > order.not_after {
            let problem = String::from("the order came too late; nothing was done");
            drop(order.answer.send(Err(problem)));
            return;
        }
        self.answer = Some(order.answer);
        let wanted = Wanted { verb: order.verb, now: order.now, by: order.by, reason: order.reason };
        self.judge(Input::Ordered(wanted)).await;
        self.status_due = Duration::ZERO;
    }

    /// Puts an input to the judge and does what it says; a start answers with an input of its own.
    pub(super) async fn judge(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let before = (self.state.phase(), self.state.pid(), self.state.ready());
            let unit = self.next_unit();
            let (state, actions) =
                step(std::mem::take(&mut self.state), input, clock::uptime(), &self.judge, unit);
            let process_changed = before.1 != state.pid();
            let changed = before != (state.phase(), state.pid(), state.ready());
            self.state = state;
            if self.since.0 != self.state.since() {
                self.since = (self.state.since(), clock::now());
            }
            if process_changed {
                self.process_changed();
            }
            for action in actions {
                inputs.extend(self.act(action).await);
            }
            if changed {
                self.status_due = Duration::ZERO;
                self.send_status();
            }
        }
    }

    /// A look from outside when it is due, and the driver's own when that is.
    async fn look(&mut self) {
        let now = clock::uptime();
        if self.driver_due.is_some_and(|due| now >= due) {
            self.driver_due = None;
            if let Some(input) = self.driver_look().await {
                self.judge(input).await;
            }
        }
        if now >= self.look_due {
            self.see(self.state.pid().is_some()).await;
        }
    }

    async fn see(&mut self, lives: bool) {
        let now = clock::uptime();
        self.look_due = now.saturating_add(Duration::from_millis(STATUS_INTERVAL_MS));
        let board = self.ways.ground.board.as_ref();
        let views = self.looker.look(self.driver.pids(), lives, &self.config, board, &self.words, now);
        let troubles = self.looker.xids(board, &views.pids, now);
        self.judge(Input::Seen(views)).await;
        for trouble in troubles {
            self.judge(Input::Trouble(trouble)).await;
        }
    }

    async fn probed(&mut self, pid: u32, result: ProbeResult) {
        self.probing = None;
        let (took_ms, verdict) = (millis(result.took), result.verdict.to_string());
        if self.probes.len() >= PROBES_KEPT_MAX {
            self.probes.pop_front();
        }
        self.probes.push_back(ProbeSeen { at: clock::now(), took_ms, verdict: verdict.clone() });
        self.last_probe = Some(LastProbe { took_ms, verdict });
        self.judge(Input::Probed { pid, verdict: result.verdict }).await;
        self.status_due = Duration::ZERO;
    }

    /// A new process, or none: what was asked of the one before tells nothing any more.
    fn process_changed(&mut self) {
        let now = clock::uptime();
        self.probing = None;
        self.last_probe = None;
        self.probe_due = now.saturating_add(self.probe_wait());
        if self.state.pid().is_some() {
            self.looker.begin();
        }
        let age = self.state.process_started().map(|started| now.saturating_sub(started));
        self.started = age.map(|age| clock::now().minus(age));
    }

    fn begin_probe(&mut self) {
        let now = clock::uptime();
        let Some(pid) = self.state.pid() else { return };
        if self.probing.is_some() || now < self.probe_due {
            return;
        }
        self.probe_due = now.saturating_add(self.probe_wait());
        let (prober, config) = (self.ways.prober.clone(), self.config.readiness.clone());
        self.probing = Some(Box::pin(async move { (pid, prober.probe(&config).await) }));
    }

    fn probe_wait(&self) -> Duration {
        let usual = self.config.readiness.interval.0;
        if self.state.phase() == Phase::Starting { usual.min(COMING_UP_INTERVAL) } else { usual }
    }

    pub(super) async fn emit(&mut self, what: What) {
        say::log(&what);
        if self.waiting.len() >= EVENTS_WAITING_MAX {
            let room = self.ways.ground.out.clone();
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
        let status = Box::new(self.status(now));
        if self.ways.ground.out.try_send(WorkerOutput::Status(status)).is_err() {
            self.statuses_dropped = self.statuses_dropped.saturating_add(1);
        }
    }

    fn status(&self, now: Duration) -> WorkerStatus {
        let why = self.state.why(now, &self.judge);
        WorkerStatus {
            worker: self.config.name.clone(),
            service: self.config.service().to_owned(),
            driver: self.config.driver,
            phase: self.state.phase(),
            ready: self.state.ready(),
            pid: self.state.pid(),
            restarts: self.state.restarts(),
            started: self.started,
            last_probe: self.last_probe.clone(),
            last_exit: self.state.last_exit().map(str::to_owned),
            next_start_in_ms: self.state.next_start().map(|until| millis(until.saturating_sub(now))),
            since: self.since.1,
            held_by: why.held_by.clone(),
            drained_by: why.drained_by.clone(),
            restarts_in_window: why.restarts_in_window,
            breaker_open: why.breaker_tries.is_some(),
            statuses_dropped: self.statuses_dropped,
            findings_dropped: self.words.findings_dropped(),
            why,
        }
    }

    /// What is still gathered is waited for a little: the evidence of the last end is the one that is wanted.
    async fn bring_home(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
        let home = async {
            while let Some(Ok(brought)) = self.errands.join_next().await {
                if let Brought::Told(told) = brought {
                    self.waiting.extend(told.into_iter().map(|what| Event::new(clock::now(), what)));
                }
            }
        };
        drop(tokio::time::timeout(Duration::from_millis(FLUSH_MS_MAX), home).await);
        self.errands.abort_all();
    }

    async fn flush(mut self) {
        let out = self.ways.ground.out;
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
        self.memory.close(&self.state).await;
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

/// The future's value; for ever nothing once its channel is closed.
async fn or_closed<T>(future: impl Future<Output = Option<T>>) -> T {
    match future.await {
        Some(value) => value,
        None => std::future::pending().await,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
