//! The stages that a reload can exchange, as tasks: started, exchanged, stopped.
//!
//! Takes the configuration and the ways to the stages that stay (frame, spool, board). A reload whose
//! configuration is refused leaves everything as it is and says so in the log, on the board and to
//! systemd; what is accepted touches only what changed.

use std::path::{Path, PathBuf};

use diarwatch_shared::clock;
use diarwatch_shared::config::ConfigError;
use diarwatch_shared::node::{Epoch, Seq};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{error, info, warn};

use crate::board::Board;
use crate::config::queue::QueueConfig;
use crate::config::worker::WorkerConfig;
use crate::config::{self, AggregatorConfig, Config, GpuConfig};
use crate::crew::Crew;
use crate::fleet::Fleet;
use crate::leases::Leases;
use crate::orders::Order;
use crate::reload::{self, Plan};
use crate::sample::{self, Input, Sink};
use crate::spool::Handle;
use crate::uplink::{self, Uplink};
use crate::workers::{Ground, Jobs};
use crate::{StartError, ended, figures, queue, services};

/// Outputs of the workers that may wait; events wait for room, statuses are sent again.
const WORKER_OUTPUTS_MAX: usize = 256;

/// What the stages stand on.
pub struct Ways {
    /// To the frame stage.
    pub inputs: mpsc::Sender<Input>,
    /// TLS with this node's certificate.
    pub tls: rustls::ClientConfig,
    /// Frames on disk.
    pub spool: Handle,
    /// This run.
    pub epoch: Epoch,
    /// The number of the next frame.
    pub next: watch::Receiver<Seq>,
    /// What is known now.
    pub board: Board,
    /// The directory of what is remembered of workers.
    pub memory: PathBuf,
    /// Leases and intents, whichever link stands.
    pub fleet: Fleet,
    /// Where the workers ask for leave to be stopped.
    pub leases: Leases,
}

/// The running stages.
pub struct Stages {
    config: Config,
    ways: Ways,
    sink: Sink,
    gpu: JoinHandle<()>,
    uplink: JoinHandle<Result<(), String>>,
    crew: Crew,
    forward: JoinHandle<()>,
    services: JoinSet<()>,
    figures: JoinSet<()>,
    queues: JoinHandle<String>,
}

impl Stages {
    /// Starts all of them.
    ///
    /// # Errors
    /// When no probes can be made.
    pub fn start(config: Config, ways: Ways) -> Result<Self, StartError> {
        let sink = Sink::new(ways.inputs.clone());
        sample::host::start(config.host.interval.0, sink.clone(), ways.board.clone());
        let gpu = ways.gpu(&config.gpu, &sink);
        let services = services::start(config.services.clone(), &sink, &ways.board)?;
        let figures = figures::start(config.figures.clone(), &sink, &ways.board);
        let queues = ways.queues(&config.queues, &sink);
        let (crew, forward) = ways.crew();
        let uplink = ways.uplink(&config.aggregator);
        let mut stages = Self { config, ways, sink, gpu, uplink, crew, forward, services, figures, queues };
        stages.workers(stages.config.workers.clone());
        Ok(stages)
    }

    /// Waits until a stage ends, which none does by itself unless something is broken.
    pub async fn ended(&mut self) -> StartError {
        tokio::select! {
            end = &mut self.gpu => ended("gpu", end),
            end = &mut self.uplink => ended("uplink", end),
            end = &mut self.queues => ended("queue", end),
        }
    }

    /// Reads the configuration again; gives a line for the service manager.
    pub fn reload(&mut self, path: &Path) -> String {
        let read = config::read(path).and_then(|(text, new)| {
            let plan = reload::plan(&self.config, &new);
            self.exchange(&plan, &new)
                .map_err(|error| vec![ConfigError::whole(path, error.to_string(), None)])?;
            Ok((text, new, plan))
        });
        match read {
            Ok((text, new, Plan { restart, .. })) => {
                self.config = reload::in_effect(&self.config, new);
                let document = reload::describe(path, &text, clock::now(), &restart);
                self.ways.board.update(|board| {
                    board.config = document;
                    board.operators.clone_from(&self.config.socket.operators);
                });
                if !restart.is_empty() {
                    warn!(
                        sections = restart.join(", "),
                        "configuration is in effect but for what waits for a restart of the agent"
                    );
                }
                info!(path = %path.display(), "configuration was read again");
                format!("node {}", self.ways.board.read(|board| board.node.clone()))
            }
            Err(faults) => {
                let problem = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
                error!(problem, "configuration is refused, the one before stays in effect");
                self.ways.board.update(|board| {
                    if let Some(document) = board.config.as_object_mut() {
                        document.insert(String::from("problem"), Value::String(problem.clone()));
                    }
                });
                String::from("configuration refused, the one before stays in effect")
            }
        }
    }

    /// Exchanges what the plan names. The one part that can fail comes first.
    fn exchange(&mut self, plan: &Plan, new: &Config) -> Result<(), StartError> {
        for group in reload::groups_gone(&self.config, new) {
            if !self.sink.gone(&group) {
                warn!(group, "its series end only when they are too old: the frame stage is slow");
            }
        }
        if plan.services {
            self.services = services::start(new.services.clone(), &self.sink, &self.ways.board)?;
        }
        if plan.figures {
            self.figures = figures::start(new.figures.clone(), &self.sink, &self.ways.board);
        }
        if plan.queues {
            self.queues.abort();
            self.queues = self.ways.queues(&new.queues, &self.sink);
        }
        if plan.gpu {
            self.gpu.abort();
            self.ways.board.update(|board| board.gpus.clear());
            self.gpu = self.ways.gpu(&new.gpu, &self.sink);
        }
        if plan.uplink {
            self.uplink.abort();
            self.ways.board.update(|board| board.link.connected = false);
            self.uplink = self.ways.uplink(&new.aggregator);
        }
        if plan.workers {
            self.workers(new.workers.clone());
        }
        Ok(())
    }

    fn workers(&mut self, configs: Vec<WorkerConfig>) {
        self.crew.apply(configs);
    }

    /// Hands an order to its worker.
    pub fn order(&self, order: Order) {
        self.crew.order(order);
    }

    /// Stops the workers, then the GPU source; gives the uplink, which has yet to send the last frames.
    pub async fn stop(mut self) -> JoinHandle<Result<(), String>> {
        self.services.abort_all();
        self.figures.abort_all();
        self.queues.abort();
        self.crew.stop().await;
        drop(self.forward.await);
        self.gpu.abort();
        self.uplink
    }
}

impl Ways {
    fn gpu(&self, config: &GpuConfig, sink: &Sink) -> JoinHandle<()> {
        tokio::spawn(sample::gpu::run(config.clone(), sink.clone(), self.board.clone()))
    }

    fn queues(&self, configs: &[QueueConfig], sink: &Sink) -> JoinHandle<String> {
        self.board.update(|board| board.queues.clear());
        tokio::spawn(queue::shell::run(configs.to_vec(), sink.clone(), self.board.clone()))
    }

    fn uplink(&self, config: &AggregatorConfig) -> JoinHandle<Result<(), String>> {
        tokio::spawn(uplink::run(Uplink {
            endpoints: config.endpoints.clone(),
            tls: self.tls.clone(),
            spool: self.spool.clone(),
            epoch: self.epoch,
            next: self.next.clone(),
            board: self.board.clone(),
            fleet: self.fleet.clone(),
        }))
    }

    /// Workers speak through a queue of their own, so that its type stays theirs.
    fn crew(&self) -> (Crew, JoinHandle<()>) {
        let (outputs, mut told) = mpsc::channel(WORKER_OUTPUTS_MAX);
        let inputs = self.inputs.clone();
        let forward = tokio::spawn(async move {
            while let Some(output) = told.recv().await {
                if inputs.send(Input::Worker(output)).await.is_err() {
                    break;
                }
            }
        });
        let ground = Ground {
            out: outputs,
            board: Some(self.board.clone()),
            leases: self.leases.clone(),
            memory: Some(self.memory.clone()),
            jobs: Some(Jobs::open(self.memory.join("_jobs.json"))),
        };
        (Crew::new(ground), forward)
    }
}
