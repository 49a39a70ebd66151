//! What a new configuration changes: at once, or only after a restart. Pure.
//!
//! Takes the configuration in effect and the one that was read; gives what to do, and the document
//! that `diarwatch config show` prints.

use std::path::Path;

use diarwatch_shared::clock::UnixMicros;
use serde_json::{Value, json};

use crate::config::Config;
use crate::config::effective::effective;

/// Version of the document.
pub const CONFIG_SCHEMA: u16 = 1;

/// Which stages a new configuration exchanges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `[gpu]`.
    pub gpu: bool,
    /// `[aggregator]`.
    pub uplink: bool,
    /// `[[worker]]`.
    pub workers: bool,
    /// `[[service]]`.
    pub services: bool,
    /// `[[queue]]`.
    pub queues: bool,
    /// `[[figure]]`.
    pub figures: bool,
    /// Sections that changed and wait for a restart of the agent.
    pub restart: Vec<&'static str>,
}

/// What `new` changes.
#[must_use]
pub fn plan(old: &Config, new: &Config) -> Plan {
    let fixed = [
        ("identity", old.identity != new.identity),
        ("spool", old.spool != new.spool),
        ("socket", old.socket.path != new.socket.path),
        ("host", old.host != new.host),
    ];
    Plan {
        gpu: old.gpu != new.gpu,
        uplink: old.aggregator != new.aggregator,
        workers: old.workers != new.workers,
        services: old.services != new.services,
        queues: old.queues != new.queues,
        figures: old.figures != new.figures,
        restart: fixed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect(),
    }
}

/// The groups of series whose source `new` has no more, or has under another name of its service.
/// Those of workers end with the worker's process.
#[must_use]
pub fn groups_gone(old: &Config, new: &Config) -> Vec<String> {
    let groups = |config: &Config| -> Vec<(String, String)> {
        let queues = config.queues.iter();
        let queues = queues.map(|queue| (format!("queue/{}", queue.name), queue.service().to_owned()));
        let services = config.services.iter();
        let services = services.map(|service| (format!("service/{}", service.name), String::new()));
        let figures = config.figures.iter().map(|figure| (figure.group(), String::new()));
        queues.chain(services).chain(figures).collect()
    };
    let kept = groups(new);
    groups(old).into_iter().filter(|group| !kept.contains(group)).map(|(group, _)| group).collect()
}

/// What stays in effect of `new`: sections that wait for a restart keep their old values.
#[must_use]
pub fn in_effect(old: &Config, new: Config) -> Config {
    let Config { identity, spool, mut socket, host, .. } = old.clone();
    socket.operators.clone_from(&new.socket.operators);
    Config { identity, spool, socket, host, ..new }
}

/// The document of the configuration in effect; `restart` are sections of it that are not yet.
#[must_use]
pub fn describe(path: &Path, text: &str, loaded: UnixMicros, restart: &[&str]) -> Value {
    let settings = effective(path, text).unwrap_or_default();
    json!({
        "schema": CONFIG_SCHEMA,
        "kind": "config",
        "path": path,
        "loaded_us": loaded.0,
        "problem": null,
        "restart_needed": restart,
        "settings": settings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const LEAST: &str = "[identity]\nca = \"ca.pem\"\ncertificate = \"n.pem\"\nkey = \"n.key\"\n[aggregator]\nendpoints = [\"127.0.0.1:9440\"]\n";

    fn config(more: &str) -> Config {
        parse(Path::new("agent.toml"), &format!("{LEAST}{more}")).unwrap()
    }

    #[test]
    fn a_source_that_is_gone_ends_its_series_and_a_renamed_service_too() {
        let queue = |service: &str| {
            format!(
                "[[queue]]\nname = \"q\"\nservice = \"{service}\"\nredis = {{ url = \"redis://a\", list = \"b\" }}\n"
            )
        };
        let rest = "[[figure]]\nmetric = \"sessions_max\"\nfixed = 1\n[[service]]\nname = \"API\"\nurl = \"http://a/\"\n";
        let old = config(&format!("{}{rest}", queue("a")));
        assert!(groups_gone(&old, &old).is_empty());
        assert_eq!(groups_gone(&old, &config(&format!("{}{rest}", queue("b")))), ["queue/q"]);
        assert_eq!(groups_gone(&old, &config(&queue("a"))), ["service/API", "figure/sessions_max/"]);
    }

    #[test]
    fn only_what_changed_is_exchanged_and_what_cannot_be_waits_for_a_restart() {
        assert_eq!(plan(&config(""), &config("")), Plan::default());
        let new = config("[gpu]\nfast_interval = \"200ms\"\n[spool]\nbytes_max = \"2GiB\"\n");
        let seen = plan(&config(""), &new);
        assert_eq!(seen, Plan { gpu: true, restart: vec!["spool"], ..Plan::default() });
        let kept = in_effect(&config(""), new.clone());
        assert_eq!((&kept.spool, &kept.gpu), (&config("").spool, &new.gpu));
        assert_eq!(plan(&kept, &new).restart, ["spool"], "it is said again at the next reload");
    }
}
