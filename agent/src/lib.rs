//! The agent of a GPU host: samples, keeps, sends, and restarts workers.
//!
//! The stages in the order of the data: [`sample`] -> [`frame`] (run by [`pipeline`]) -> [`spool`] ->
//! [`uplink`]; and [`probe`] -> [`judge`] -> [`restart`] -> event, run by [`workers`] and ending in
//! the same spool. [`observe`] answers the operator's [`cli`] from the [`board`].
//!
//! One thread runs all tasks (workers are tied to it by their death signal); the host's files and
//! the spool's disk have threads of their own, NVML a process of its own.

pub mod authority;
pub mod board;
pub mod cli;
pub mod config;
pub mod crew;
pub mod engine;
pub mod evidence;
pub mod figures;
pub mod findings;
pub mod fleet;
pub mod frame;
pub mod history;
pub mod hook;
pub mod jobs;
pub mod judge;
pub mod leases;
pub mod listen;
pub mod masking;
pub mod observe;
pub mod orders;
pub mod pipeline;
pub mod probe;
pub mod proc_text;
pub mod queue;
pub mod recent;
pub mod reload;
pub mod restart;
pub mod sample;
pub mod services;
pub mod spool;
pub mod stages;
pub mod status;
pub mod synthetic;
pub mod uplink;
pub mod words;
pub mod worker_series;
pub mod workers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::identity::{Identity, IdentityError};
use diarwatch_shared::{clock, daemon};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use board::Board;
use config::{Config, IdentityConfig};
use fleet::Fleet;
use history::History;
use leases::Leases;
use orders::Orders;
use pipeline::Pipeline;
use sample::{INPUTS_MAX, Input};
use spool::{Spool, SpoolError};
use stages::{Stages, Ways};

/// For the last frames to be acknowledged when the agent stops; they stay in the spool otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A PEM file cannot be read.
    #[error(
        "[identity] {key} = {path}: {source}; issue it with `diarwatch-aggregator pki`, or correct the path"
    )]
    Read {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The identity cannot be used.
    #[error("[identity] {0}")]
    Identity(#[from] IdentityError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The socket cannot be opened.
    #[error("[socket] path = {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A stage ended while the agent runs: a fault of its own, after which a fresh start is better.
    #[error("the {stage} stage ended: {why}; the agent ends too, so that it is started again")]
    Ended {
        /// The stage.
        stage: &'static str,
        /// What is known of it.
        why: String,
    },
    /// Workers or services cannot be probed.
    #[error("probes: {0}")]
    Probes(#[from] probe::ProbeError),
    /// The signals cannot be watched.
    #[error("signals: {0}")]
    Signals(std::io::Error),
}

/// Runs the agent until SIGTERM or SIGINT; SIGHUP reads its configuration again.
///
/// # Errors
/// When it cannot start, or when a stage ended by itself.
pub async fn run(path: &Path, text: &str, config: Config) -> Result<(), StartError> {
    let mut reloads = daemon::Reloads::new().map_err(StartError::Signals)?;
    let identity = identity(&config.identity)?;
    let node = identity.node()?;
    identity.check_node(clock::now())?;
    let tls = identity.client()?;
    let started = clock::now();
    let spool = Spool::open(&config.spool, started)?;
    let epoch = spool.epoch();
    let spool = spool.into_handle();
    let board = Board::new(node.clone(), epoch, started);
    let socket = config.socket.path.clone();
    let listener =
        observe::bind(&socket).map_err(|source| StartError::Socket { path: socket.clone(), source })?;
    board.update(|board| {
        board.config = reload::describe(path, text, started, &[]);
        board.operators.clone_from(&config.socket.operators);
    });

    let (inputs, received) = mpsc::channel(INPUTS_MAX);
    let (next, next_seen) = watch::channel(0);
    // frame -> spool
    let (history, former) = History::open(&config.spool.directory);
    board.update(|board| former.iter().for_each(|event| board.recent.event(event)));
    let pipeline = Pipeline::new(spool.clone(), epoch, next, board.clone(), history);
    let mut pipeline = tokio::spawn(pipeline.run(received));
    // observe
    let (orders, mut ordered) = Orders::new();
    let mut observe = tokio::spawn(observe::serve(listener, board.clone(), orders.clone()));
    // sample, probe -> judge -> restart -> event, uplink
    let (leases, wishes) = Leases::new();
    let ways = Ways {
        inputs: inputs.clone(),
        tls,
        spool,
        epoch,
        next: next_seen,
        board: board.clone(),
        memory: config.spool.directory.join("workers"),
        fleet: Fleet::start(wishes, orders, board.clone(), epoch),
        leases,
    };
    let mut stages = Stages::start(config, ways)?;

    info!(node = %node, epoch = epoch.0, "agent runs");
    daemon::ready(&format!("node {node}"));
    let mut stop = std::pin::pin!(daemon::stop_signal());
    let signal = loop {
        tokio::select! {
            signal = &mut stop => break signal.map_err(StartError::Signals)?,
            () = reloads.next() => {
                daemon::reloading();
                let outcome = stages.reload(path);
                daemon::ready(&outcome);
            }
            Some(order) = ordered.recv() => stages.order(order),
            error = stages.ended() => return Err(error),
            end = &mut pipeline => return Err(ended("frame", end)),
            end = &mut observe => return Err(ended("observe", end)),
        }
    };

    info!(signal, "agent stops");
    daemon::stopping();
    let uplink = stages.stop().await;
    drop(inputs.send(Input::Stop).await);
    drop(pipeline.await);
    drain(&board).await;
    uplink.abort();
    observe.abort();
    drop(std::fs::remove_file(socket));
    let (emitted, acked) = board.read(|board| (board.frames_emitted, board.spool.frames_acked));
    info!(frames_emitted = emitted, frames_acked = acked, "agent stopped");
    Ok(())
}

fn ended(stage: &'static str, end: Result<impl std::fmt::Debug, tokio::task::JoinError>) -> StartError {
    let why = end.map_or_else(|error| error.to_string(), |end| format!("{end:?}"));
    StartError::Ended { stage, why }
}

/// Waits until the aggregator has everything, or for [`DRAIN_TIMEOUT`].
async fn drain(board: &Board) {
    let drained = async {
        while board.read(|board| board.spool.frames_acked < board.frames_emitted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if !board.read(|board| board.link.connected) {
        warn!("agent stops without a link: what was not sent stays in the spool");
    } else if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        warn!("agent stops before everything was acknowledged: the rest stays in the spool");
    }
}

fn identity(config: &IdentityConfig) -> Result<Identity, StartError> {
    let read = |key: &'static str, path: &Path| {
        std::fs::read(path).map_err(|source| StartError::Read { key, path: path.to_owned(), source })
    };
    let (ca, certificate) = (read("ca", &config.ca)?, read("certificate", &config.certificate)?);
    Ok(Identity::from_pem(&ca, &certificate, &read("key", &config.key)?)?)
}
