//! What of the configuration takes effect while the aggregator runs: rules, nodes, display, Slack.
//!
//! Takes a configuration; gives [`InEffect`], which the loops look at in each round. SIGHUP reads file
//! and rules again; when anything of them is wrong all of the old stays, and log and page say why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diarwatch_shared::clock::Zone;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{self, Config, SlackConfig};
use crate::notify::slack::Slack;
use crate::rules::{self, RuleSet, SHIPPED};
use crate::{StartError, read};

/// What is in effect.
#[derive(Clone, Debug)]
pub struct InEffect {
    /// The configuration.
    pub config: Arc<Config>,
    /// Shipped and configured rules.
    pub rules: Arc<RuleSet>,
    /// Where messages go.
    pub slack: Option<Arc<Slack>>,
    /// The zone of times that people read.
    pub zone: Zone,
    /// Why the newest reload was refused, for a person.
    pub problem: Option<String>,
}

impl InEffect {
    /// Reads what a configuration names.
    ///
    /// # Errors
    /// When a rules file or the webhook's file cannot be used.
    pub fn of(config: Config) -> Result<Self, StartError> {
        let rules = load_rules(&config.rules.files)?;
        let slack = config.slack.as_ref().map(open_slack).transpose()?;
        let zone = Zone::named(&config.display.zone).map_err(StartError::Listen)?;
        let (rules, slack) = (Arc::new(rules), slack.map(Arc::new));
        Ok(Self { config: Arc::new(config), rules, slack, zone, problem: None })
    }
}

/// Reads the configuration again and puts it into effect; gives what to tell the service manager when
/// it was refused.
pub fn reload(path: &Path, effect: &watch::Sender<Arc<InEffect>>) -> Option<&'static str> {
    let old = Arc::clone(&effect.borrow());
    let read = config::load(path)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        .and_then(|new| {
            let (config, waits) = keep_fixed(&old.config, new);
            let new = InEffect::of(config).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok((new, waits))
        });
    match read {
        Ok((new, waits)) => {
            if !waits.is_empty() {
                warn!(
                    sections = waits.join(", "),
                    "configuration is in effect but for what waits for a restart of the aggregator"
                );
            }
            info!(path = %path.display(), rules = new.rules.alerts().count(), "configuration and rules were read again");
            effect.send_replace(Arc::new(new));
            None
        }
        Err(problem) => {
            error!(problem, "configuration is refused, the one before stays in effect");
            effect.send_replace(Arc::new(InEffect { problem: Some(problem), ..(*old).clone() }));
            Some("configuration refused, the one before stays in effect")
        }
    }
}

/// Sections that only a restart changes keep their old values; which of them did change.
fn keep_fixed(old: &Config, new: Config) -> (Config, Vec<&'static str>) {
    let changed = [
        ("identity", old.identity != new.identity),
        ("intake", old.intake != new.intake),
        ("http", old.http != new.http),
        ("store", old.store != new.store),
    ];
    let waits = changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect();
    let Config { identity, intake, http, store, .. } = old.clone();
    (Config { identity, intake, http, store, ..new }, waits)
}

/// The shipped rules, then the configured files.
fn load_rules(files: &[PathBuf]) -> Result<RuleSet, StartError> {
    let mut groups = Vec::new();
    for (name, text) in SHIPPED {
        groups.extend(rules::load(Path::new(name), text).map_err(StartError::Rules)?);
    }
    for path in files {
        let text = read("[rules] files", path, "put the file there or take it out of the list")?;
        let text = String::from_utf8(text).map_err(|error| StartError::NotUtf8 {
            path: path.clone(),
            line: error
                .as_bytes()
                .iter()
                .take(error.utf8_error().valid_up_to())
                .filter(|byte| **byte == b'\n')
                .count()
                + 1,
        })?;
        groups.extend(rules::load(path, &text).map_err(StartError::Rules)?);
    }
    Ok(RuleSet::new(groups))
}

fn open_slack(config: &SlackConfig) -> Result<Slack, StartError> {
    let path = &config.webhook_url_file;
    let text = read("[slack] webhook_url_file", path, "write the webhook's address into it")?;
    Slack::new(&String::from_utf8_lossy(&text)).map_err(|why| StartError::Slack { path: path.clone(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[identity]\nca = \"ca.pem\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";

    fn start(directory: &Path, more: &str) -> (PathBuf, watch::Sender<Arc<InEffect>>) {
        let path = put(directory, more);
        let effect = InEffect::of(config::load(&path).unwrap()).unwrap();
        (path, watch::Sender::new(Arc::new(effect)))
    }

    fn put(directory: &Path, more: &str) -> PathBuf {
        let path = directory.join("aggregator.toml");
        std::fs::write(&path, format!("{LEAST}{more}")).unwrap();
        path
    }

    #[test]
    fn a_rules_file_that_is_wrong_leaves_all_of_the_old_in_effect() {
        let dir = tempfile::tempdir().unwrap();
        let rules = dir.path().join("r.yaml");
        let group = |expr: &str| {
            format!("groups:\n  - name: g\n    rules:\n      - alert: Mine\n        expr: {expr}\n")
        };
        std::fs::write(&rules, group("up == 0")).unwrap();
        let files = format!("[rules]\nfiles = [{rules:?}]\n[nodes]\n");
        let (path, effect) = start(dir.path(), &files);
        let alerts = || effect.borrow().rules.alerts().filter(|rule| rule.name == "Mine").count();
        std::fs::write(&rules, group("up == (")).unwrap();
        put(dir.path(), &format!("{files}timeout = \"9s\"\n"));
        assert!(reload(&path, &effect).is_some());
        let problem = effect.borrow().problem.clone().unwrap();
        assert!(problem.contains("r.yaml:5:"), "{problem}");
        assert_eq!((alerts(), effect.borrow().config.nodes.timeout.to_string().as_str()), (1, "5s"));
        std::fs::write(&rules, group("up == 1")).unwrap();
        assert_eq!(reload(&path, &effect), None);
        assert_eq!(effect.borrow().problem, None);
        assert_eq!((alerts(), effect.borrow().config.nodes.timeout.to_string().as_str()), (1, "9s"));
    }

    #[test]
    fn what_only_a_restart_changes_keeps_its_old_value() {
        let dir = tempfile::tempdir().unwrap();
        let (path, effect) = start(dir.path(), "");
        put(dir.path(), "[http]\nlisten = \"127.0.0.1:1\"\n[display]\nlang = \"en\"\n");
        assert_eq!(reload(&path, &effect), None);
        let config = Arc::clone(&effect.borrow().config);
        assert_eq!(config.http.listen.port(), 9441);
        assert_eq!(config.display.lang, diarwatch_shared::texts::Lang::En);
    }
}
