//! The GPU source: keeps one sampler child running and turns what it says into ticks and events.
//!
//! Takes the messages of its child; gives ticks to the frame stage, which drops them when it is slow,
//! and events, which wait. The agent's own process never loads NVML. A child that falls silent or tells
//! of a stuck call makes the driver "unresponsive": no value is sent or shown again, everything else
//! goes on. A wedged driver gets at most one more child until it answers again. Errors of GPUs are seen
//! here too, and in the kernel's log, which speaks also while the driver does not.

pub mod child;
pub mod errors;
mod kernel_line;
mod kernel_log;
pub mod message;
mod nvml;
mod processes;
mod reports;
mod series;
mod sightings;
mod silence;
pub mod xid;

use std::process::Stdio;
use std::time::Duration;

use diarwatch_shared::backoff::{Backoff, unit};
use diarwatch_shared::clock;
use diarwatch_shared::event::{Event, RecoveryAction, What};
use diarwatch_shared::reading::Reading;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Sink;
use crate::board::{Board, Snapshot};
use crate::config::GpuConfig;
use errors::{Errors, Seen};
use message::{MESSAGE_BYTES_MAX, Message};
use series::Series;
use silence::{Silence, Verdict, WEDGED_AFTER};

/// Tier of utilisation, memory and power.
pub const FAST: u8 = 0;
/// Tier of temperature and clock.
pub const SLOW: u8 = 1;
/// Metrics of the fast tier, in order.
pub const FAST_METRICS: [&str; 5] = [
    "gpu_utilization_ratio",
    "gpu_memory_utilization_ratio",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
    "gpu_power_watts",
];
/// Metrics of the slow tier, in order.
pub const SLOW_METRICS: [&str; 2] = ["gpu_temperature_celsius", "gpu_sm_clock_hertz"];

/// How often the state of the driver is told, whatever it is.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// For a child that ended, or was killed, to be gone.
const END_WAIT: Duration = Duration::from_secs(2);
/// Messages that may wait for the agent's loop; the child waits when there are more.
const MESSAGES_MAX: usize = 32;
/// Errors that were seen and wait to be told; whoever sees more waits.
const SEEN_MAX: usize = 64;
/// Between children that end early.
const RESPAWN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// What is known of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DriverState {
    /// The first sampler has not answered yet.
    #[default]
    Starting,
    /// Switched off in the configuration.
    Disabled,
    /// No driver could be loaded; tried again from time to time.
    Absent {
        /// Why.
        reason: String,
    },
    /// It answers.
    Up {
        /// Its version.
        version: String,
    },
    /// A call does not return.
    Unresponsive {
        /// The NVML function.
        function: String,
        /// The GPU last entered.
        gpu: Option<u32>,
    },
}

/// How a child's life ended.
enum End {
    /// It found no driver.
    Absent,
    /// The driver did not answer for [`WEDGED_AFTER`].
    Wedged,
    /// It ended, with this status; whether the driver had answered it.
    Exited(String, bool),
}

/// Runs the GPU source until the agent stops.
pub async fn run(config: GpuConfig, sink: Sink, board: Board) {
    if !config.enabled {
        board.update(|board| board.driver = DriverState::Disabled);
        return std::future::pending().await;
    }
    let (seen, errors) = mpsc::channel(SEEN_MAX);
    let told = Errors::new(xid::Table::shipped(&config.xid_overrides), sink.clone(), board.clone());
    let state = DriverState::Starting;
    let log = kernel_log::follow(seen.clone());
    let source = Source { sink, board, series: None, state, tell_due: Duration::ZERO, seen };
    // One task: all of them end with it.
    tokio::select! {
        () = told.run(errors) => {}
        () = log => {}
        () = children(&config, source) => {}
    }
}

/// One child after another.
async fn children(config: &GpuConfig, mut source: Source) {
    let mut early_ends = 0_u32;
    let mut wedged = false;
    loop {
        let started = clock::uptime();
        match source.one_child(config, &mut wedged).await {
            Ok(End::Absent) => source.rest(config.retry_interval.0).await,
            Ok(End::Wedged) => wedged = true,
            Ok(End::Exited(status, answered)) => {
                let lived = clock::uptime().saturating_sub(started);
                early_ends = if lived > WEDGED_AFTER { 0 } else { early_ends };
                let wait = RESPAWN.wait(early_ends, unit(clock::now().0));
                early_ends = early_ends.saturating_add(1);
                warn!(status, wait_ms = wait.as_millis(), "GPU sampler ended; another one is started");
                source.orphaned(status, answered).await;
                source.rest(wait).await;
            }
            Err(error) => {
                source.absent(format!("sampler child cannot be started: {error}")).await;
                source.rest(config.retry_interval.0).await;
            }
        }
    }
}

struct Source {
    sink: Sink,
    board: Board,
    series: Option<Series>,
    state: DriverState,
    tell_due: Duration,
    seen: mpsc::Sender<Seen>,
}

impl Source {
    /// One child from start to end.
    async fn one_child(&mut self, config: &GpuConfig, wedged: &mut bool) -> std::io::Result<End> {
        let (child, mut messages) = spawn(config)?;
        let mut silence = Silence::since(clock::uptime(), config.fast_interval.0);
        let mut answered = false;
        loop {
            let now = clock::uptime();
            let wake = silence.due(now).map_or(self.tell_due, |due| due.min(self.tell_due));
            match timeout(wake.saturating_sub(now), messages.recv()).await {
                Ok(Some(Message::Absent { reason })) => {
                    self.absent(reason).await;
                    bury(child, END_WAIT).await;
                    return Ok(End::Absent);
                }
                Ok(Some(message)) => {
                    silence.broken_by(&message, clock::uptime(), wedged);
                    answered |= matches!(message, Message::Found { .. });
                    self.take(message).await;
                }
                Ok(None) => return Ok(End::Exited(bury(child, END_WAIT).await, answered)),
                Err(_) => {}
            }
            match silence.verdict(clock::uptime(), *wedged) {
                Verdict::Answers => {}
                Verdict::Silent => self.unresponsive(String::from("unknown"), None).await,
                Verdict::Wedged => {
                    warn!("GPU driver has not answered for long; one more sampler is started");
                    bury(child, Duration::ZERO).await;
                    return Ok(End::Wedged);
                }
            }
            self.tell();
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Found { driver, simulated, gpus } => {
                info!(driver, simulated, gpus = gpus.len(), "NVML is loaded");
                self.board.update(|board| board.gpus_found(simulated, &gpus));
                self.series = Some(Series::new(&driver, simulated, &gpus));
                // One that did not answer has to give values first.
                if !matches!(self.state, DriverState::Unresponsive { .. }) {
                    self.enter(DriverState::Up { version: driver }).await;
                }
            }
            Message::Tick { tier, at_us, gpus } => self.tick(tier, at_us, gpus).await,
            Message::Stuck { function, gpu } => self.unresponsive(function, gpu).await,
            // One that did not answer has to give values first.
            Message::Processes { gpu, list } if matches!(self.state, DriverState::Up { .. }) => {
                self.board.update(|board| board.gpu_processes(gpu, list, clock::uptime()));
            }
            Message::Recovery { gpu, action } => self.recovery(gpu, action.into()).await,
            Message::Xid { gpu, code } => self.saw(Seen::Xid { gpu, code }).await,
            Message::Reports { problem } => self.saw(Seen::Reports { problem }).await,
            Message::Processes { .. } | Message::Unstuck | Message::Absent { .. } => {}
        }
    }

    async fn tick(&mut self, tier: u8, at_us: u64, gpus: Vec<Vec<message::Value>>) {
        let Some(series) = &self.series else { return };
        if tier == FAST && matches!(self.state, DriverState::Unresponsive { .. }) {
            let version = series.driver.clone();
            self.enter(DriverState::Up { version }).await;
        }
        let Some(series) = &self.series else { return };
        let readings: Vec<Vec<_>> =
            gpus.into_iter().map(|gpu| gpu.into_iter().map(Into::into).collect()).collect();
        self.board.update(|board| board.gpu_values(tier, &readings));
        series.ticks(tier, at_us, readings).into_iter().for_each(|tick| self.sink.tick(tick));
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    async fn recovery(&mut self, gpu: u32, action: Reading) {
        let action = action.map(|number| RecoveryAction::of(number as u32));
        self.board.update(|board| board.gpu_recovery(gpu, action));
        self.saw(Seen::Recovery { gpu, action }).await;
    }

    async fn saw(&self, seen: Seen) {
        // The receiver is gone only when the agent stops.
        drop(self.seen.send(seen).await);
    }

    async fn absent(&mut self, reason: String) {
        self.saw(Seen::Unloaded).await;
        self.series = None;
        self.board.update(|board| board.gpus_found(false, &[]));
        self.enter(DriverState::Absent { reason }).await;
    }

    async fn unresponsive(&mut self, function: String, gpu: Option<u32>) {
        self.board.update(Snapshot::gpu_values_stale);
        if !matches!(self.state, DriverState::Unresponsive { .. }) {
            self.enter(DriverState::Unresponsive { function, gpu }).await;
        }
    }

    /// No child is left: what the last one said is not shown as if it were new.
    async fn orphaned(&mut self, status: String, answered: bool) {
        self.board.update(Snapshot::gpu_values_stale);
        if !answered && !matches!(self.state, DriverState::Unresponsive { .. }) {
            self.absent(format!("the sampler ended before the driver answered: {status}")).await;
        } else if matches!(self.state, DriverState::Up { .. }) {
            self.enter(DriverState::Starting).await;
        }
    }

    /// Takes on a state; an event tells of it when it is news.
    async fn enter(&mut self, state: DriverState) {
        if self.state == state {
            return;
        }
        let what = match (&self.state, &state) {
            (_, DriverState::Absent { reason }) => Some(What::GpuDriverAbsent { reason: reason.clone() }),
            (_, DriverState::Unresponsive { function, gpu }) => {
                Some(What::GpuDriverUnresponsive { function: function.clone(), gpu: *gpu })
            }
            (DriverState::Unresponsive { .. } | DriverState::Absent { .. }, DriverState::Up { .. }) => {
                Some(What::GpuDriverRecovered)
            }
            _ => None,
        };
        self.state = state.clone();
        self.board.update(|board| board.driver = state);
        self.tell_due = Duration::ZERO;
        self.tell();
        if let Some(what) = what {
            log(&what);
            self.sink.event(Event::new(clock::now(), what)).await;
        }
    }

    /// Tells the driver's state when that is due.
    fn tell(&mut self) {
        let now = clock::uptime();
        if now >= self.tell_due {
            self.tell_due = now + TELL_INTERVAL;
            self.sink.tick(series::driver_tick(clock::now(), &self.state));
        }
    }

    /// Waits, telling the driver's state meanwhile.
    async fn rest(&mut self, wait: Duration) {
        let end = clock::uptime() + wait;
        while clock::uptime() < end {
            self.tell();
            sleep(self.tell_due.min(end).saturating_sub(clock::uptime())).await;
        }
    }
}

fn log(what: &What) {
    match what {
        What::GpuDriverUnresponsive { function, gpu } => {
            warn!(function, gpu, "GPU driver does not answer");
        }
        What::GpuDriverAbsent { reason } => warn!(reason, "no NVIDIA driver"),
        other => info!(event = ?other, "GPU driver"),
    }
}

/// Sees a child to its end, which it may reach by itself within `patience`, and says how it ended. A
/// thread in the driver may not be killable: such a child is left behind.
async fn bury(mut child: Child, patience: Duration) -> String {
    let ended = match timeout(patience, child.wait()).await {
        Ok(ended) => Ok(ended),
        Err(_) => {
            drop(child.start_kill());
            timeout(END_WAIT, child.wait()).await
        }
    };
    match ended {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => String::from("it cannot be killed"),
    }
}

fn spawn(config: &GpuConfig) -> std::io::Result<(Child, mpsc::Receiver<Message>)> {
    // By this name the running program is found, even when a package has replaced its file: both ends
    // of the pipe must be of one version.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("diarwatch-agent").arg("sampler").arg("--fast").arg(config.fast_interval.to_string());
    command.arg("--slow").arg(config.slow_interval.to_string());
    if let Some(library) = &config.library {
        command.arg("--library").arg(library);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut pipe = child.stdout.take().ok_or_else(|| std::io::Error::other("sampler has no stdout"))?;
    let (messages, received) = mpsc::channel(MESSAGES_MAX);
    // A task of its own, because a read that is given up half-way would lose its place in the pipe.
    tokio::spawn(async move {
        while let Ok(message) = read(&mut pipe).await {
            if messages.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok((child, received))
}

async fn read(pipe: &mut ChildStdout) -> std::io::Result<Message> {
    let length = pipe.read_u32_le().await? as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(std::io::Error::other("sampler's message is too large"));
    }
    let mut body = vec![0; length];
    pipe.read_exact(&mut body).await?;
    message::parse(&body)
}
