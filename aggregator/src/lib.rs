//! The aggregator: takes every node's frames, keeps them, finds what is wrong and tells people.
//!
//! The stages in the order of the data: [`intake`] -> [`store`] -> [`rules`] -> [`alerts`] ->
//! [`notify`], run by [`engine`]; [`api`] and [`dashboard`] show what is known.

pub mod alerts;
pub mod api;
pub mod cli;
pub mod computed;
pub mod config;
pub mod control;
pub mod dashboard;
pub mod desk;
pub mod effect;
pub mod engine;
pub mod intake;
pub mod intents;
pub mod lease;
pub mod listen;
pub mod metrics;
pub mod notify;
pub mod operators;
pub mod pki;
pub mod rules;
pub mod store;
pub mod trend;
pub mod view;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diarwatch_shared::clock;
use diarwatch_shared::daemon;
use diarwatch_shared::identity::{Identity, IdentityError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use api::Api;
use config::{Config, IdentityConfig};
use control::Control;
use dashboard::live::Pages;
use desk::{Desk, DeskError};
use effect::InEffect;
use listen::Bounded;
use rules::RuleFault;
use store::{Store, StoreError};

/// Why the aggregator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file that the configuration names cannot be read.
    #[error("{key} = {path}: {source}; {hint}")]
    Read {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The identity cannot be used.
    #[error("[identity] {0}; make one with `diarwatch-aggregator pki init`")]
    Identity(#[from] IdentityError),
    /// The operators cannot be read.
    #[error("[http] operator_token_file = {0}; make it with `diarwatch-aggregator operator add NAME`")]
    Operators(#[from] operators::OperatorError),
    /// Rules are wrong.
    #[error("[rules] {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rules(Vec<RuleFault>),
    /// A rules file is of another encoding.
    #[error(
        "[rules] files = {path}: line {line} is not UTF-8; convert the file, for example with `iconv -f SHIFT_JIS -t UTF-8`"
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first line that is not.
        line: usize,
    },
    /// The webhook's address cannot be used.
    #[error("[slack] webhook_url_file = {path}: {why}")]
    Slack {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The alert state cannot be opened.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// A socket cannot be opened.
    #[error("{0}")]
    Listen(String),
    /// The signals cannot be watched.
    #[error("signals: {0}")]
    Signals(io::Error),
    /// A stage ended by itself: without it alerts would stop in silence.
    #[error("{0}; this is a fault of diarwatch, please report it with the lines above")]
    Ended(String),
}

/// Runs the aggregator until SIGTERM or SIGINT; SIGHUP reads its configuration and rules again.
///
/// # Errors
/// When it cannot start, or when a stage ended by itself.
pub async fn run(path: &Path, config: Config) -> Result<(), StartError> {
    let mut reloads = daemon::Reloads::new().map_err(StartError::Signals)?;
    let identity = identity(&config.identity)?;
    identity.check_aggregator(clock::now())?;
    let signer = identity.signer()?;
    let tls = identity.server()?;
    if let Some(path) = &config.http.operator_token_file {
        operators::Operators::read(path)?;
    }
    let (effect, in_effect) = watch::channel(Arc::new(InEffect::of(config.clone())?));
    if config.slack.is_none() {
        warn!("no [slack] is configured: alerts stand on the page only");
    }

    // intake -> store
    let endpoint = intake::bind(config.intake.listen, tls).map_err(StartError::Listen)?;
    let listen = config.http.listen;
    let http = TcpListener::bind(listen)
        .await
        .map_err(|error| StartError::Listen(format!("[http] listen = {listen}: {error}")))?;
    let store = Store::start(&config.store, &config.nodes.expected, clock::now())?;
    let desk = Desk::open(&config.store.directory)?;
    let control = Control::open(store.clone(), in_effect.clone(), signer, &config.store.directory)?;
    // Port 0 in the configuration is any free one: what is said is what the kernel gave.
    let said = |address: io::Result<SocketAddr>, asked| address.unwrap_or(asked);
    let (intake, page) = (said(endpoint.local_addr(), config.intake.listen), said(http.local_addr(), listen));
    let mut stages = JoinSet::new();
    stages.spawn(named("intake", intake::serve(endpoint.clone(), store.clone(), control.clone())));
    let stored = store.clone();
    stages.spawn(named("store", async move { stored.ended().await }));
    // rules -> alerts -> notify
    stages.spawn(named("rules", engine::evaluate(store.clone(), desk.clone(), in_effect.clone())));
    stages.spawn(named("notify", engine::notify(store.clone(), desk.clone(), in_effect.clone())));
    // api, dashboard
    let pages = Pages::open(store.clone(), desk.clone(), in_effect);
    let api = Api::new(store, desk, pages.clone(), control).router();
    stages.spawn(named("page", pages.clone().run()));
    stages.spawn(named("api", async move { axum::serve(Bounded::new(http), api).await }));

    info!(%intake, %page, "aggregator runs");
    let status = format!("intake {intake}, page http://{page}/");
    daemon::ready(&status);
    let mut stop = std::pin::pin!(daemon::stop_signal());
    let signal = loop {
        tokio::select! {
            signal = &mut stop => break signal.map_err(StartError::Signals)?,
            () = reloads.next() => {
                daemon::reloading();
                let refused = effect::reload(path, &effect);
                daemon::ready(refused.unwrap_or(&status));
            }
            ended = first_end(&mut stages) => return Err(ended),
        }
    };
    info!(signal, "aggregator stops");
    daemon::stopping();
    endpoint.close(0_u32.into(), b"aggregator stops");
    pages.save().await;
    endpoint.wait_idle().await;
    Ok(())
}

/// A stage with its name as its end.
async fn named<T>(name: &'static str, stage: impl Future<Output = T>) -> &'static str {
    stage.await;
    name
}

/// Waits until a stage ends, which none does by itself unless something is broken.
async fn first_end(stages: &mut JoinSet<&'static str>) -> StartError {
    match stages.join_next().await {
        Some(Ok(name)) => StartError::Ended(format!("the {name} stage ended")),
        Some(Err(error)) => StartError::Ended(format!("a stage ended: {error}")),
        None => StartError::Ended(String::from("no stage runs")),
    }
}

fn identity(config: &IdentityConfig) -> Result<Identity, StartError> {
    let read = |key, path: &Path| read(key, path, "make one with `diarwatch-aggregator pki init`");
    let ca = read("[identity] ca", &config.ca)?;
    let certificate = read("[identity] certificate", &config.certificate)?;
    Ok(Identity::from_pem(&ca, &certificate, &read("[identity] key", &config.key)?)?)
}

pub(crate) fn read(key: &'static str, path: &Path, hint: &'static str) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::Read { key, path: path.to_owned(), source, hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stage_that_ends_by_itself_ends_the_aggregator() {
        let mut stages = JoinSet::new();
        stages.spawn(named("notify", std::future::pending::<()>()));
        stages.spawn(named("store", async {}));
        assert!(first_end(&mut stages).await.to_string().contains("the store stage ended"));
        stages.spawn(named("rules", async { panic!("broken on purpose") }));
        assert!(first_end(&mut stages).await.to_string().contains("broken on purpose"));
    }
}
