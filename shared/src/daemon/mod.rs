//! What every daemon does around its work: start its log, tell systemd, wait for the stop signal.

mod journal;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Starts the log: under systemd to the journal with its fields, else readable on stderr.
///
/// The level comes from `DIARWATCH_LOG` (default `info`), in the syntax of tracing's `EnvFilter`.
pub fn start_log(identifier: &str) {
    let filter =
        EnvFilter::try_from_env("DIARWATCH_LOG").unwrap_or_else(|_| EnvFilter::new("info,quinn=warn"));
    let registry = tracing_subscriber::registry();
    let started = match journal::JournalLayer::connect(identifier) {
        Some(layer) => registry.with(layer.with_filter(filter)).try_init(),
        None => {
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            registry.with(layer.with_filter(filter)).try_init()
        }
    };
    // A second start in one process (tests) keeps the first log.
    drop(started);
}

/// Tells systemd that the service does its work now.
pub fn ready(status: &str) {
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]));
}

/// Tells systemd that the service is stopping.
pub fn stopping() {
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
}

/// Waits for SIGTERM or SIGINT and says which.
///
/// # Errors
/// When the signals cannot be watched.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}
