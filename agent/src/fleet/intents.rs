//! What an intent has to be before anybody follows it: (bytes, signature, the peer's certificate, what is
//! known here and now) to an accepted one, or why not. Pure but for the ids it remembers.
//!
//! Signed by the peer of this connection, for this node, within its time by the aggregator's clock, signed
//! since this agent started, not seen before, a worker that is here and a verb that is one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::limits::REASON_CHARS_MAX;
use diarwatch_shared::node::{NodeId, WorkerId};
use diarwatch_shared::wire::control::Intent;
use diarwatch_shared::wire::intent::{INTENT_ID_CHARS_MAX, INTENT_LIFE_MAX, open};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::board::FarClock;
use crate::orders::Verb;

/// Ids that are remembered until their intents could not be followed anyway.
const USED_MAX: usize = 256;
/// How wrong the measured offset of the clocks may be: half of the longest round trip of a hello.
const CLOCK_SLACK: Duration = Duration::from_secs(3);
/// Characters of the name of whoever wants it.
const BY_CHARS_MAX: usize = 100;

/// What is known when an intent comes.
pub(super) struct Seen {
    pub(super) node: NodeId,
    pub(super) workers: BTreeSet<WorkerId>,
    /// By the clock that never steps.
    pub(super) uptime: Duration,
    /// By this node's wall clock.
    pub(super) now: UnixMicros,
    /// The aggregator's clock.
    pub(super) far: FarClock,
}

/// An intent that is to be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) intent: Intent,
    pub(super) verb: Verb,
    /// Its end by this node's clock.
    pub(super) not_after: UnixMicros,
}

/// One that is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// To tell the aggregator, when it has one.
    pub(super) id: Option<String>,
    pub(super) why: String,
}

/// Ids that were used, with their ends by the aggregator's clock.
#[derive(Debug)]
pub(super) struct Intents {
    started: Duration,
    used: BTreeMap<String, UnixMicros>,
}

impl Intents {
    /// Of an agent that starts now, by the clock that never steps.
    pub(super) fn new(started: Duration) -> Self {
        Self { started, used: BTreeMap::new() }
    }

    pub(super) fn judge(
        &mut self,
        text: &str,
        signature: &str,
        peer: &CertificateDer<'_>,
        seen: &Seen,
    ) -> Result<Accepted, Refused> {
        let intent = open(text, signature, peer)
            .map_err(|error| Refused { id: id_of(text), why: error.to_string() })?;
        self.accept(&intent, seen)
            .map(|(verb, not_after)| Accepted { intent: intent.clone(), verb, not_after })
            .map_err(|why| Refused { id: id_of(text), why })
    }

    fn accept(&mut self, intent: &Intent, seen: &Seen) -> Result<(Verb, UnixMicros), String> {
        if intent.node != seen.node {
            return Err(format!("it is for node `{}`, this is `{}`", intent.node, seen.node));
        }
        let theirs = seen.far.at(seen.uptime);
        self.in_time(intent, seen, theirs)?;
        let verb: Verb = serde_json::from_value(Value::from(intent.verb.as_str()))
            .map_err(|_| String::from("it wants something that this version of the agent does not know"))?;
        if intent.now && verb != Verb::Restart {
            return Err(String::from("`now` is for a restart only"));
        }
        if !seen.workers.contains(&intent.worker) {
            return Err(format!("this node has no worker `{}`", intent.worker));
        }
        let long =
            |text: &str, most: usize| text.chars().count() > most || text.chars().any(char::is_control);
        if long(&intent.by, BY_CHARS_MAX)
            || intent.reason.as_ref().is_some_and(|reason| long(reason, REASON_CHARS_MAX))
        {
            return Err(String::from("its `by` or `reason` is no short line"));
        }
        self.once(intent, theirs)?;
        Ok((verb, seen.now.plus(intent.not_after.since(theirs))))
    }

    fn in_time(&self, intent: &Intent, seen: &Seen, theirs: UnixMicros) -> Result<(), String> {
        if theirs > intent.not_after {
            let late = theirs.since(intent.not_after).as_secs();
            return Err(format!("it ended {late} s ago, by the aggregator's clock"));
        }
        let longest = INTENT_LIFE_MAX.saturating_add(CLOCK_SLACK);
        if intent.not_after.since(intent.issued) > INTENT_LIFE_MAX || intent.not_after.since(theirs) > longest
        {
            let most = INTENT_LIFE_MAX.as_secs();
            return Err(format!(
                "it is good for more than {most} s; if the aggregator's clock was set, restart the agent's link"
            ));
        }
        // What a former run followed, this run does not know: nothing from before it is taken.
        if intent.issued < seen.far.at(self.started) {
            return Err(String::from("it was signed before this agent started"));
        }
        Ok(())
    }

    fn once(&mut self, intent: &Intent, theirs: UnixMicros) -> Result<(), String> {
        if intent.id.is_empty() || intent.id.chars().count() > INTENT_ID_CHARS_MAX {
            return Err(String::from("its id is none"));
        }
        self.used.retain(|_, not_after| *not_after >= theirs);
        if self.used.contains_key(&intent.id) {
            return Err(String::from("it was used before"));
        }
        if self.used.len() >= USED_MAX {
            return Err(format!("more than {USED_MAX} intents in {} s", INTENT_LIFE_MAX.as_secs()));
        }
        self.used.insert(intent.id.clone(), intent.not_after);
        Ok(())
    }
}

/// The id in a text, believed for nothing but to say that it is refused.
fn id_of(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let id = value.get("id")?.as_str()?;
    (1..=INTENT_ID_CHARS_MAX).contains(&id.chars().count()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: UnixMicros = UnixMicros(1_764_826_335_000_000);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// An agent that runs for 100 s, whose clock is an hour ahead of the aggregator's.
    fn seen(uptime: u64) -> Seen {
        Seen {
            node: NodeId::new("gpu-01").unwrap(),
            workers: BTreeSet::from([WorkerId::new("w").unwrap()]),
            uptime: secs(uptime),
            now: THEIRS.plus(secs(3_600 + uptime - 100)),
            far: FarClock::heard(THEIRS, secs(100), secs(100)),
        }
    }

    fn intents() -> Intents {
        Intents::new(secs(90))
    }

    fn intent(id: &str) -> Intent {
        Intent {
            id: id.into(),
            node: NodeId::new("gpu-01").unwrap(),
            worker: WorkerId::new("w").unwrap(),
            verb: "restart".into(),
            now: false,
            by: "alice".into(),
            reason: None,
            issued: THEIRS,
            not_after: THEIRS.plus(secs(60)),
        }
    }

    #[test]
    fn an_intent_ends_by_the_aggregators_clock_however_this_nodes_is_set() {
        let (verb, not_after) = intents().accept(&intent("a"), &seen(130)).unwrap();
        assert_eq!((verb, not_after), (Verb::Restart, seen(160).now));
        let said = intents().accept(&intent("a"), &seen(162)).unwrap_err();
        assert_eq!(said, "it ended 2 s ago, by the aggregator's clock");
    }

    #[test]
    fn what_does_not_fit_this_node_and_this_time_is_refused() {
        let said = |change: &dyn Fn(&mut Intent)| {
            let mut intent = intent("a");
            change(&mut intent);
            intents().accept(&intent, &seen(100)).unwrap_err()
        };
        assert!(said(&|i| i.node = NodeId::new("gpu-02").unwrap()).contains("it is for node `gpu-02`"));
        assert!(said(&|i| i.worker = WorkerId::new("x").unwrap()).contains("no worker `x`"));
        assert!(said(&|i| i.verb = "rm -rf /".into()).contains("does not know"));
        assert!(said(&|i| (i.verb, i.now) = ("drain".into(), true)).contains("`now`"));
        assert!(said(&|i| i.not_after = THEIRS.plus(secs(301))).contains("more than 300 s"));
        assert!(said(&|i| i.not_after = UnixMicros(u64::MAX)).contains("more than 300 s"));
        let ahead =
            |i: &mut Intent| (i.issued, i.not_after) = (THEIRS.plus(secs(200)), THEIRS.plus(secs(400)));
        assert!(said(&ahead).contains("more than 300 s"));
        assert!(said(&|i| i.issued = THEIRS.minus(secs(11))).contains("before this agent started"));
        assert!(said(&|i| i.by = "a\nb".into()).contains("no short line"));
        assert!(said(&|i| i.reason = Some("x".repeat(301))).contains("no short line"));
        assert!(said(&|i| i.id = "x".repeat(65)).contains("id"));
        assert!(said(&|i| i.id = String::new()).contains("id"));
    }

    #[test]
    fn an_intent_is_followed_once_and_the_memory_of_it_is_bounded() {
        let mut intents = intents();
        assert!(intents.accept(&intent("a"), &seen(100)).is_ok());
        assert_eq!(intents.accept(&intent("a"), &seen(159)).unwrap_err(), "it was used before");
        for number in 1..USED_MAX {
            assert!(intents.accept(&intent(&number.to_string()), &seen(100)).is_ok());
        }
        assert!(intents.accept(&intent("b"), &seen(100)).unwrap_err().contains("more than 256"));
        let later = Intent { not_after: THEIRS.plus(secs(90)), ..intent("b") };
        assert!(intents.accept(&later, &seen(161)).is_ok(), "ids whose time is over are forgotten");
        assert_eq!(intents.used.len(), 1);
    }

    #[test]
    fn what_is_refused_unread_is_told_by_its_id_when_it_has_one() {
        let peer = CertificateDer::from(vec![0; 8]);
        let mut intents = intents();
        let mut refused =
            |text: &str, signature: &str| intents.judge(text, signature, &peer, &seen(100)).unwrap_err();
        assert_eq!(refused(r#"{"id":"a"}"#, "00").id.as_deref(), Some("a"));
        for text in ["", "no json", "[]", r#"{"id":7}"#, &format!(r#"{{"id":"{}"}}"#, "x".repeat(65))] {
            assert_eq!(refused(text, "00").id, None, "{text}");
        }
        assert!(refused(&"x".repeat(5_000), "00").why.contains("bytes"));
        assert!(refused(r#"{"id":"a"}"#, "not hex").why.contains("signature"));
    }
}
