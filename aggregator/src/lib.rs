//! The aggregator: takes every node's frames, keeps them, finds what is wrong and tells people.
//!
//! The stages in the order of the data: [`intake`] -> [`store`] -> [`rules`] -> [`alerts`] ->
//! [`notify`], run by [`engine`]; [`api`] and [`dashboard`] show what is known.

pub mod alerts;
pub mod api;
pub mod cli;
pub mod computed;
pub mod config;
pub mod dashboard;
pub mod desk;
pub mod engine;
pub mod intake;
pub mod metrics;
pub mod notify;
pub mod pki;
pub mod rules;
pub mod store;
pub mod view;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diarwatch_shared::clock::{self, Zone};
use diarwatch_shared::daemon;
use diarwatch_shared::identity::{Identity, IdentityError};
use tokio::net::TcpListener;
use tracing::{info, warn};

use api::Api;
use config::{Config, IdentityConfig, SlackConfig};
use desk::{Desk, DeskError};
use notify::slack::Slack;
use rules::{RuleFault, RuleSet, SHIPPED};
use store::{Store, StoreError};

/// Why the aggregator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file that the configuration names cannot be read.
    #[error("{key} = {path}: {source}")]
    Read {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The identity cannot be used.
    #[error("[identity] {0}; make one with `diarwatch-aggregator pki init`")]
    Identity(#[from] IdentityError),
    /// Rules are wrong.
    #[error("[rules] {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rules(Vec<RuleFault>),
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
}

/// Runs the aggregator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; once it runs it goes on.
pub async fn run(config: Config) -> Result<(), StartError> {
    let tls = identity(&config.identity)?.server()?;
    let rules = load_rules(&config.rules.files)?;
    let slack = config.slack.as_ref().map(open_slack).transpose()?;
    if slack.is_none() {
        warn!("no [slack] is configured: alerts stand on the page only");
    }
    let zone = Zone::named(&config.display.zone).map_err(StartError::Listen)?;
    let lang = config.display.lang;
    let config = Arc::new(config);

    // intake -> store
    let endpoint = intake::bind(config.intake.listen, tls).map_err(StartError::Listen)?;
    let listen = config.http.listen;
    let http = TcpListener::bind(listen)
        .await
        .map_err(|error| StartError::Listen(format!("[http] listen = {listen}: {error}")))?;
    let store = Store::start(&config.store, &config.nodes.expected, clock::now())?;
    let desk = Desk::open(&config.store.directory)?;
    tokio::spawn(intake::serve(endpoint.clone(), store.clone()));
    // rules -> alerts -> notify
    tokio::spawn(engine::evaluate(
        store.clone(),
        rules,
        desk.clone(),
        config.rules.clone(),
        config.nodes.clone(),
    ));
    tokio::spawn(engine::notify(store.clone(), desk.clone(), slack, zone.clone(), lang));
    // api, dashboard
    let api = Api::new(store, desk, Arc::clone(&config), zone).router();
    tokio::spawn(async move { axum::serve(http, api).await });

    let (intake, page) = (config.intake.listen, config.http.listen);
    info!(%intake, %page, "aggregator runs");
    daemon::ready(&format!("intake {intake}, page http://{page}/"));
    let signal = daemon::stop_signal().await.map_err(StartError::Signals)?;
    info!(signal, "aggregator stops");
    daemon::stopping();
    endpoint.close(0_u32.into(), b"aggregator stops");
    endpoint.wait_idle().await;
    Ok(())
}

/// The shipped rules, then the configured files.
fn load_rules(files: &[PathBuf]) -> Result<RuleSet, StartError> {
    let mut groups = Vec::new();
    for (name, text) in SHIPPED {
        groups.extend(rules::load(Path::new(name), text).map_err(StartError::Rules)?);
    }
    for path in files {
        let text = read("[rules] files", path)?;
        groups.extend(rules::load(path, &String::from_utf8_lossy(&text)).map_err(StartError::Rules)?);
    }
    Ok(RuleSet::new(groups))
}

fn open_slack(config: &SlackConfig) -> Result<Slack, StartError> {
    let path = &config.webhook_url_file;
    let text = read("[slack] webhook_url_file", path)?;
    Slack::new(&String::from_utf8_lossy(&text)).map_err(|why| StartError::Slack { path: path.clone(), why })
}

fn identity(config: &IdentityConfig) -> Result<Identity, StartError> {
    let (ca, certificate) =
        (read("[identity] ca", &config.ca)?, read("[identity] certificate", &config.certificate)?);
    Ok(Identity::from_pem(&ca, &certificate, &read("[identity] key", &config.key)?)?)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::Read { key, path: path.to_owned(), source })
}
