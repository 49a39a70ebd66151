//! What takes time and is done beside a worker's loop: hooks, a job made up for it, questions to the fleet, the
//! evidence and the jobs of an ended process. Takes what is to be done; gives the judge's next input, or events
//! to tell. Each is bounded by its own time-out.

use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::event::{Cause, What};

use tokio::sync::Mutex;

use crate::config::worker::WorkerConfig;
use crate::config::worker::hook::Hook;
use crate::hook;
use crate::judge::Input;
use crate::judge::ladder::Deed;
use crate::leases::{Leases, Wish};
use crate::synthetic;

/// Until the driver looks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What an errand brings back.
pub(super) enum Brought {
    /// For the judge.
    Input(Input),
    /// How a job went that was made up for this process.
    Proved(Option<u32>, Result<Duration, String>),
    /// To be told.
    Told(Vec<What>),
}

/// Posts a job made up for the process `pid`; `history` is what earlier ones took.
pub(super) async fn proof(pid: Option<u32>, config: WorkerConfig, history: Vec<Duration>) -> Brought {
    Brought::Proved(pid, prove(&config, &history).await)
}

/// Runs the hook of a deed, after those before it: what takes out and what puts back must not overtake
/// each other.
pub(super) async fn deed(deed: Deed, config: WorkerConfig, turn: Arc<Mutex<()>>) -> Brought {
    let _turn = turn.lock().await;
    let result = match deed {
        Deed::TakeOut => run(config.stop.take_out.as_ref(), &config).await,
        Deed::PutBack => run(config.stop.put_back.as_ref(), &config).await,
        // Signals are the driver's, and a made-up job is no hook.
        Deed::Prove | Deed::Send(_) => Ok(Duration::ZERO),
    };
    Brought::Input(Input::Done { deed, result })
}

async fn run(hook: Option<&Hook>, config: &WorkerConfig) -> Result<Duration, String> {
    let began = clock::uptime();
    if let Some(hook) = hook {
        hook::run(hook, &config.name, None).await?;
    }
    Ok(clock::uptime().saturating_sub(began))
}

async fn prove(config: &WorkerConfig, history: &[Duration]) -> Result<Duration, String> {
    let proof = &config.proof;
    let Some(url) = &proof.job_url else { return Ok(Duration::ZERO) };
    let took = match &proof.job_file {
        None => synthetic::post(url, synthetic::WAV, proof.job_max.0).await?,
        Some(path) => {
            let wav = tokio::fs::read(path).await;
            let wav = wav.map_err(|error| format!("proof.job_file = {}: {error}", path.display()))?;
            synthetic::post(url, &wav, proof.job_max.0).await?
        }
    };
    if synthetic::plausible(took, history) {
        return Ok(took);
    }
    Err(format!(
        "it took {} ms, more than {} times as long as before",
        took.as_millis(),
        synthetic::SLOWER_MAX
    ))
}

/// Asks the fleet.
pub(super) async fn lease(leases: Leases, config: WorkerConfig, cause: Cause) -> Brought {
    let wish = Wish { worker: config.name.clone(), cause, ready: true };
    Brought::Input(Input::Leased(leases.ask(wish).await))
}
