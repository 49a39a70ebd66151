//! What every daemon does around its work: start its log, tell systemd, wait for the stop signal.

mod journal;
mod terminal;

use std::io::IsTerminal;

pub use terminal::{harmless, is_harmful, say, talk};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What is logged when `DIARWATCH_LOG` does not say.
const LOG_DEFAULT: &str = "info,quinn=warn";

/// Starts the log: under systemd to the journal with its fields, else readable on stderr, with
/// colours only on a terminal that wants them (`NO_COLOR`).
///
/// The level comes from `DIARWATCH_LOG` (default `info`), in the syntax of tracing's `EnvFilter`;
/// a value that is not understood is named in the log and the default is kept.
pub fn start_log(identifier: &str) {
    let asked = std::env::var("DIARWATCH_LOG").unwrap_or_default();
    let wanted = if asked.is_empty() { LOG_DEFAULT } else { &asked };
    let (filter, refused) = match EnvFilter::try_new(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(LOG_DEFAULT), Some(error)),
    };
    let registry = tracing_subscriber::registry();
    let started = match journal::JournalLayer::connect(identifier) {
        Some(layer) => registry.with(layer.with_filter(filter)).try_init(),
        None => {
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours());
            registry.with(layer.with_filter(filter)).try_init()
        }
    };
    // A second start in one process (tests) keeps the first log.
    drop(started);
    if let Some(error) = refused {
        tracing::warn!(value = asked, %error, "DIARWATCH_LOG is not understood, the log stays at `{LOG_DEFAULT}`");
    }
}

fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Tells systemd that the service does its work now.
pub fn ready(status: &str) {
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]));
}

/// Tells systemd that the configuration is being read again; [`ready`] ends that.
pub fn reloading() {
    drop(sd_notify::notify(&[sd_notify::NotifyState::Reloading]));
}

/// SIGHUPs, the wish to read the configuration again; several in a row may be one.
pub struct Reloads(Signal);

impl Reloads {
    /// Watches from now on.
    ///
    /// # Errors
    /// When the signal cannot be watched.
    pub fn new() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
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
