//! Callbacks: takes the ends of jobs in their order, posts each to where its client wants it. A client
//! that does not take one gets it again a few times; then it is given up, which the log says. Those that
//! wait are bounded by the channel they come by.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::core::{Callback, Core};
use super::state::Worker;
use crate::fleet::client;
use crate::say::say;

/// Callbacks that wait.
pub(super) const WAITING_MAX: usize = 1_000;
/// How often one is tried.
const TRIES_MAX: u32 = 3;
/// For one try.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before the next try.
const TRY_PAUSE: Duration = Duration::from_millis(200);

/// Sends them as they come; has no end of its own.
pub(super) async fn send(core: &Core, mut callbacks: mpsc::Receiver<Callback>) {
    let client = client();
    while let Some(callback) = callbacks.recv().await {
        core.free(Worker::may_call_back).await;
        let id = callback.told.get("job_id").and_then(serde_json::Value::as_str).unwrap_or_default();
        let sent = match &client {
            Ok(client) => post(client, &callback).await,
            Err(error) => Err(error.clone()),
        };
        say(&match sent {
            Ok(status) => format!("INFO callback for {id} answered {status}"),
            Err(error) => format!("WARNING callback for {id} given up: {error}"),
        });
        core.change(|worker| worker.callbacks = worker.callbacks.saturating_sub(1));
    }
    std::future::pending::<()>().await;
}

async fn post(client: &reqwest::Client, callback: &Callback) -> Result<u16, String> {
    let mut last = String::new();
    for number in 0..TRIES_MAX {
        sleep(TRY_PAUSE * number).await;
        match client.post(&callback.url).timeout(TRY_TIMEOUT).json(&callback.told).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(answer.status().as_u16()),
            Ok(answer) => last = format!("{} answered {}", callback.url, answer.status()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}
