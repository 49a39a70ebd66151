//! An order that goes through the aggregator: it signs it, the node's agent opens it. Takes the node, the file
//! with the operator's token and what is wanted; gives the agent's answer.

use std::path::PathBuf;

use clap::Args;
use diarwatch_shared::exit::Exit;
use serde_json::{Value, json};

use crate::cli::ask::Trouble;
use crate::cli::operator::aggregator::{IntentWish, post_intent, wait_intent};
use crate::cli::operator::common::Common;
use crate::observe::ORDER_TIMEOUT;

/// For how long an order is good, in seconds: the agent answers at once, or it is not there.
const TTL_SECONDS: u64 = 60;

/// Where it goes, and who says so.
#[derive(Debug, Args)]
pub(super) struct Far {
    /// The node, with `--fleet`.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// A file with your token of `diarwatch-aggregator operator add`, with `--fleet`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Far {
    /// These mean nothing to this node's own agent.
    pub(super) fn check_local(&self) -> Result<(), Trouble> {
        if self.node.is_none() && self.token_file.is_none() {
            return Ok(());
        }
        Err(Trouble::new(
            Exit::Usage,
            "--node and --token-file are for orders through the aggregator",
            "add --fleet",
        ))
    }
}

/// A restart through the aggregator: what it would cost is not known here, and nobody follows it.
pub(super) fn check_restart(yes: bool, wait: bool, name: &str) -> Result<(), Trouble> {
    if wait {
        let hint = "leave --wait out; `diarwatch status --fleet` shows the node";
        return Err(Trouble::new(Exit::Usage, "a restart through the aggregator cannot be followed", hint));
    }
    if !yes {
        let problem = format!("what a restart of {name} would cost is not known through the aggregator");
        return Err(Trouble::new(
            Exit::Usage,
            problem,
            "add --yes; or ask `diarwatch why` on the node first",
        ));
    }
    Ok(())
}

/// Sends it and waits for the agent's answer.
pub(super) fn send(
    common: &Common,
    far: &Far,
    verb: &str,
    worker: &str,
    now: bool,
    reason: Option<&str>,
) -> Result<Value, Trouble> {
    let missing = |what: &str, hint: &str| Trouble::new(Exit::Usage, format!("--fleet needs {what}"), hint);
    let node = far.node.clone().ok_or_else(|| missing("--node", "diarwatch nodes prints their names"))?;
    let token_file = far.token_file.as_ref().ok_or_else(|| {
        missing(
            "--token-file",
            "diarwatch-aggregator operator add NAME prints a token, once; keep it in a file",
        )
    })?;
    let wish = IntentWish {
        node: node.clone(),
        worker: worker.to_owned(),
        verb: verb.to_owned(),
        now,
        reason: reason.map(str::to_owned),
        ttl_seconds: TTL_SECONDS,
    };
    let id = post_intent(common, token_file, &wish)?;
    let entry = wait_intent(common, &id, common.timeout.max(ORDER_TIMEOUT))?;
    // The agent's own document as text, or the words of a later one.
    let detail = entry.get("detail").and_then(Value::as_str).unwrap_or_default();
    let said: Value = serde_json::from_str(detail).unwrap_or_else(|_| json!({ "done": detail }));
    let of = |key: &str| said.get(key).cloned().unwrap_or_default();
    Ok(json!({
        "node": node, "worker": worker, "verb": verb, "done": of("done"), "jobs_under_way": of("jobs_under_way"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_through_the_aggregator_needs_a_node_a_token_and_for_a_restart_a_yes() {
        let far = |node: Option<&str>, file: Option<&str>| Far {
            node: node.map(str::to_owned),
            token_file: file.map(PathBuf::from),
        };
        assert!(far(None, None).check_local().is_ok());
        assert_eq!(far(Some("n"), None).check_local().unwrap_err().exit, Exit::Usage);
        assert_eq!(far(None, Some("f")).check_local().unwrap_err().exit, Exit::Usage);
        assert_eq!(check_restart(false, false, "w").unwrap_err().exit, Exit::Usage);
        assert_eq!(check_restart(true, true, "w").unwrap_err().exit, Exit::Usage);
        assert!(check_restart(true, false, "w").is_ok());
    }
}
