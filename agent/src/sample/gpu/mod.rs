//! The GPU source: keeps one sampler child running and turns what it says into ticks and events.
//!
//! The agent's own process never loads NVML. A child that falls silent or tells of a stuck call
//! makes the driver "unresponsive": no value is sent again, everything else goes on. A wedged driver
//! gets at most one more child.

pub mod child;
pub mod message;
mod nvml;
mod series;

use std::process::Stdio;
use std::time::Duration;

use diarwatch_shared::backoff::{Backoff, unit};
use diarwatch_shared::clock;
use diarwatch_shared::event::{Event, What};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};
use tracing::{info, warn};

use super::Sink;
use crate::board::Board;
use crate::config::GpuConfig;
use message::{MESSAGE_BYTES_MAX, Message};
use series::Series;

/// Tier of utilisation, memory and power.
pub const FAST: u8 = 0;
/// Tier of temperature.
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
pub const SLOW_METRICS: [&str; 1] = ["gpu_temperature_celsius"];

/// A child that says nothing for this long has a driver that does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// A driver that does not answer for this long gets its one more child.
const WEDGED_AFTER: Duration = Duration::from_secs(30);
/// Messages that may wait for the agent's loop; the child waits when there are more.
const MESSAGES_MAX: usize = 32;
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
    Absent,
    Wedged,
    Exited,
}

/// Runs the GPU source until the agent stops.
pub async fn run(config: GpuConfig, sink: Sink, board: Board) {
    let mut source = Source { sink, board, series: None, state: DriverState::Starting };
    let mut early_ends = 0;
    let mut wedged = false;
    loop {
        let started = clock::uptime();
        match source.one_child(&config, wedged).await {
            Ok(End::Absent) => source.rest(config.retry_interval.0).await,
            Ok(End::Wedged) => wedged = true,
            Ok(End::Exited) => {
                wedged = false;
                let lived = clock::uptime().saturating_sub(started);
                early_ends = if lived > WEDGED_AFTER { 0 } else { early_ends + 1 };
                source.rest(RESPAWN.wait(early_ends, unit(clock::now().0))).await;
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
}

impl Source {
    /// One child from start to end. `last` is the one more child of a wedged driver: it is never killed.
    async fn one_child(&mut self, config: &GpuConfig, last: bool) -> std::io::Result<End> {
        let (mut child, mut messages) = spawn(config)?;
        let mut silent_since = clock::uptime();
        loop {
            match timeout(SILENCE_MAX, messages.recv()).await {
                Ok(Some(Message::Absent { reason })) => {
                    self.absent(reason).await;
                    drop(child.wait().await);
                    return Ok(End::Absent);
                }
                Ok(Some(message)) => {
                    let answers = !matches!(message, Message::Stuck { .. });
                    self.take(message).await;
                    silent_since = if answers { clock::uptime() } else { silent_since };
                }
                Ok(None) => {
                    drop(child.wait().await);
                    return Ok(End::Exited);
                }
                Err(_) => self.unresponsive(String::from("unknown"), None).await,
            }
            let silent = clock::uptime().saturating_sub(silent_since);
            if silent > WEDGED_AFTER && !last {
                warn!("GPU driver does not answer for {} s; starting one more sampler", silent.as_secs());
                drop(child.start_kill());
                // A thread in the driver may not be killable: its child is left behind.
                drop(timeout(SILENCE_MAX, child.wait()).await);
                return Ok(End::Wedged);
            }
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Found { driver, simulated, gpus } => {
                info!(driver, simulated, gpus = gpus.len(), "GPU driver answers");
                self.board.update(|board| board.gpus_found(simulated, &gpus));
                self.series = Some(Series::new(&driver, simulated, &gpus));
                self.enter(DriverState::Up { version: driver }).await;
            }
            Message::Tick { tier, at_us, gpus } => self.tick(tier, at_us, gpus).await,
            Message::Stuck { function, gpu } => self.unresponsive(function, gpu).await,
            Message::Unstuck | Message::Absent { .. } => {}
        }
    }

    async fn tick(&mut self, tier: u8, at_us: u64, gpus: Vec<Vec<message::Value>>) {
        let Some(series) = &self.series else { return };
        if matches!(self.state, DriverState::Unresponsive { .. }) {
            let version = series.driver.clone();
            self.enter(DriverState::Up { version }).await;
        }
        let Some(series) = &self.series else { return };
        let readings: Vec<Vec<_>> =
            gpus.into_iter().map(|gpu| gpu.into_iter().map(Into::into).collect()).collect();
        self.board.update(|board| board.gpu_values(tier, &readings));
        series.ticks(tier, at_us, readings).into_iter().for_each(|tick| self.sink.tick(tick));
        if tier == SLOW {
            self.sink.tick(series::driver_tick(clock::now(), &self.state));
        }
    }

    async fn absent(&mut self, reason: String) {
        self.series = None;
        self.board.update(|board| board.gpus_found(false, &[]));
        self.enter(DriverState::Absent { reason }).await;
    }

    async fn unresponsive(&mut self, function: String, gpu: Option<u32>) {
        self.board.update(crate::board::Snapshot::gpu_values_stale);
        if !matches!(self.state, DriverState::Unresponsive { .. }) {
            self.enter(DriverState::Unresponsive { function, gpu }).await;
        }
        self.sink.tick(series::driver_tick(clock::now(), &self.state));
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
        self.sink.tick(series::driver_tick(clock::now(), &self.state));
        if let Some(what) = what {
            warn!(event = ?what, "GPU driver");
            self.sink.event(Event::new(clock::now(), what)).await;
        }
    }

    /// Waits, telling the driver's state each second meanwhile.
    async fn rest(&self, wait: Duration) {
        let tell = async {
            let mut each_second = interval(Duration::from_secs(1));
            loop {
                each_second.tick().await;
                self.sink.tick(series::driver_tick(clock::now(), &self.state));
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = tell => {}
        }
    }
}

fn spawn(config: &GpuConfig) -> std::io::Result<(Child, mpsc::Receiver<Message>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("sampler").arg("--fast").arg(config.fast_interval.to_string());
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
