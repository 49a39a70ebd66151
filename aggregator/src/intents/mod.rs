//! What people want of workers, and what became of it: a book of the newest, in memory; [`audit`] has them on
//! disk, [`door`] takes them over HTTP. The book is pure: (wish, who, now) to an intent that can be signed, an
//! agent's answer to an outcome. A full book forgets its oldest; while too many wait, new ones are refused.

pub mod audit;
pub mod door;

use std::collections::VecDeque;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::limits::REASON_CHARS_MAX;
use diarwatch_shared::node::{NodeId, WorkerId};
use diarwatch_shared::wire::control::Intent;
use diarwatch_shared::wire::intent::INTENT_LIFE_MAX;
use serde::{Deserialize, Serialize};

/// Intents that are remembered.
pub const INTENTS_MAX: usize = 256;
/// Intents that may wait for their answer.
pub const WAITING_MAX: usize = 64;
/// For how long an intent is good when nobody says.
const LIFE_SECONDS: u64 = 60;
/// An agent that has not answered so long after the end of an intent does not.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Characters of an agent's answer that are kept.
const ANSWER_CHARS_MAX: usize = 2_000;
/// What can be wanted.
const VERBS: [&str; 5] = ["restart", "drain", "resume", "hold", "release"];

/// What a person asks for, as it came.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Of which node.
    pub node: NodeId,
    /// Which worker.
    pub worker: WorkerId,
    /// `restart`, `drain`, `resume`, `hold` or `release`.
    pub verb: String,
    /// Give up the jobs under way (only for a restart).
    #[serde(default)]
    pub now: bool,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// For how long it is good, in seconds.
    #[serde(default = "life_seconds")]
    pub ttl_seconds: u64,
}

fn life_seconds() -> u64 {
    LIFE_SECONDS
}

/// What became of an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is on its way, or is being dealt with.
    Sent,
    /// The agent does it.
    Done,
    /// The agent, or the worker, will not.
    Refused,
    /// No answer came in time; nobody knows whether it was done.
    Unanswered,
}

/// An intent with its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Names it.
    pub id: String,
    /// For which node.
    pub node: NodeId,
    /// Which worker.
    pub worker: WorkerId,
    /// What is wanted.
    pub verb: String,
    /// Whether jobs under way are given up.
    pub now: bool,
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When it was signed.
    pub issued_us: UnixMicros,
    /// After this it is refused.
    pub not_after_us: UnixMicros,
    /// What became of it.
    pub outcome: Outcome,
    /// What is done, or why nothing is, in the agent's words.
    pub detail: Option<String>,
    /// When that was known.
    pub answered_us: Option<UnixMicros>,
}

/// How many there were since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent to an agent.
    pub sent: u64,
    /// Done by one.
    pub done: u64,
    /// Refused by one.
    pub refused: u64,
    /// Turned away at the door: no token, no node, no connection.
    pub rejected: u64,
}

/// The newest intents, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Book {
    entries: VecDeque<Entry>,
    counts: Counts,
}

impl Wish {
    /// The intent, to be signed.
    ///
    /// # Errors
    /// What of it cannot be, and what can.
    pub fn into_intent(self, id: String, by: &str, now: UnixMicros) -> Result<Intent, String> {
        if !VERBS.contains(&self.verb.as_str()) {
            return Err(format!("`verb` is one of {}", VERBS.join(", ")));
        }
        if self.now && self.verb != "restart" {
            return Err(String::from("`now` is for a restart only"));
        }
        let life = Duration::from_secs(self.ttl_seconds);
        if life.is_zero() || life > INTENT_LIFE_MAX {
            return Err(format!("`ttl_seconds` is between 1 and {}", INTENT_LIFE_MAX.as_secs()));
        }
        let told = |reason: &String| {
            reason.chars().count() <= REASON_CHARS_MAX && !reason.chars().any(char::is_control)
        };
        if !self.reason.as_ref().is_none_or(told) {
            return Err(format!("`reason` is one line of at most {REASON_CHARS_MAX} characters"));
        }
        Ok(Intent {
            id,
            node: self.node,
            worker: self.worker,
            verb: self.verb,
            now: self.now,
            by: by.to_owned(),
            reason: self.reason,
            issued: now,
            not_after: now.plus(life),
        })
    }
}

impl Book {
    /// Writes an intent down that will be sent; false when too many wait for their answer.
    pub fn take(&mut self, intent: &Intent, now: UnixMicros) -> bool {
        let waiting = self.entries.iter().filter(|entry| entry.outcome_at(now) == Outcome::Sent).count();
        if waiting >= WAITING_MAX {
            return false;
        }
        if self.entries.len() >= INTENTS_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry::of(intent));
        self.counts.sent += 1;
        true
    }

    /// A node's answer; only to its own intent, and only once. Gives what is to be written down.
    pub fn answered(
        &mut self,
        node: &NodeId,
        id: &str,
        done: Option<String>,
        refused: Option<String>,
        now: UnixMicros,
    ) -> Option<Entry> {
        let open = |entry: &&mut Entry| entry.id == id && entry.node == *node && entry.answered_us.is_none();
        let entry = self.entries.iter_mut().find(open)?;
        entry.outcome = if refused.is_some() { Outcome::Refused } else { Outcome::Done };
        entry.detail = refused.or(done).map(|text| cut(&text));
        entry.answered_us = Some(now);
        match entry.outcome {
            Outcome::Done => self.counts.done += 1,
            _ => self.counts.refused += 1,
        }
        Some(entry.clone())
    }

    /// One was turned away at the door.
    pub fn rejected(&mut self) {
        self.counts.rejected += 1;
    }

    /// All that are remembered, the newest first, as they stand now.
    pub fn entries(&self, now: UnixMicros) -> impl Iterator<Item = Entry> {
        let stands = move |entry: &Entry| Entry { outcome: entry.outcome_at(now), ..entry.clone() };
        self.entries.iter().rev().map(stands)
    }

    /// How many there were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl Entry {
    fn of(intent: &Intent) -> Self {
        let Intent { id, node, worker, verb, now, by, reason, issued, not_after } = intent.clone();
        let (issued_us, not_after_us, outcome) = (issued, not_after, Outcome::Sent);
        Self {
            id,
            node,
            worker,
            verb,
            now,
            by,
            reason,
            issued_us,
            not_after_us,
            outcome,
            detail: None,
            answered_us: None,
        }
    }

    fn outcome_at(&self, now: UnixMicros) -> Outcome {
        let late = now > self.not_after_us.plus(ANSWER_WAIT);
        if self.outcome == Outcome::Sent && late { Outcome::Unanswered } else { self.outcome }
    }
}

/// An agent's words are shown to people: cut to a sane length, on one line.
fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ANSWER_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_764_826_335_000_000);

    fn wish(text: &str) -> Wish {
        let fields = format!(r#"{{"node":"gpu-01","worker":"w","verb":"restart"{text}}}"#);
        serde_json::from_str(&fields).unwrap()
    }

    fn intent(number: usize) -> Intent {
        wish("").into_intent(format!("i{number}"), "alice", NOW).unwrap()
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        let said = |text: &str| wish(text).into_intent("i".into(), "alice", NOW).unwrap_err();
        assert!(said(r#","ttl_seconds":0"#).contains("ttl_seconds"));
        assert!(said(r#","ttl_seconds":301"#).contains("between 1 and 300"));
        assert!(said(r#","reason":"a\nb""#).contains("one line"));
        assert!(said(&format!(r#","reason":"{}""#, "あ".repeat(301))).contains("300 characters"));
        let other = |verb: &str, now| Wish { verb: verb.into(), now, ..wish("") };
        assert!(other("drain", true).into_intent("i".into(), "a", NOW).unwrap_err().contains("`now`"));
        assert!(
            other("rm -rf /", false)
                .into_intent("i".into(), "a", NOW)
                .unwrap_err()
                .contains("restart, drain")
        );
        let good =
            wish(r#","now":true,"ttl_seconds":300,"reason":"遅い""#).into_intent("i".into(), "alice", NOW);
        let good = good.unwrap();
        assert_eq!((good.by.as_str(), good.not_after), ("alice", NOW.plus(INTENT_LIFE_MAX)));
        assert!(
            serde_json::from_str::<Wish>(r#"{"node":"a","worker":"w","verb":"hold","command":"x"}"#).is_err()
        );
    }

    #[test]
    fn an_answer_counts_once_and_only_from_the_node_it_was_for() {
        let (node, other) = (NodeId::new("gpu-01").unwrap(), NodeId::new("gpu-02").unwrap());
        let mut book = Book::default();
        assert!(book.take(&intent(1), NOW));
        assert_eq!(book.answered(&other, "i1", Some("x".into()), None, NOW), None);
        assert_eq!(book.answered(&node, "i2", Some("x".into()), None, NOW), None);
        let entry = book.answered(&node, "i1", None, Some("held\nby bob".into()), NOW).unwrap();
        assert_eq!((entry.outcome, entry.detail.as_deref()), (Outcome::Refused, Some("held by bob")));
        assert_eq!(book.answered(&node, "i1", Some("x".into()), None, NOW), None);
        assert_eq!(book.counts(), Counts { sent: 1, refused: 1, ..Counts::default() });
    }

    #[test]
    fn the_book_is_bounded_and_an_agent_that_is_silent_is_told_as_that() {
        let node = NodeId::new("gpu-01").unwrap();
        let mut book = Book::default();
        for number in 0..WAITING_MAX {
            assert!(book.take(&intent(number), NOW));
        }
        assert!(!book.take(&intent(999), NOW));
        let late = NOW.plus(Duration::from_secs(60) + ANSWER_WAIT + Duration::from_secs(1));
        assert!(book.entries(late).all(|entry| entry.outcome == Outcome::Unanswered));
        for number in 0..INTENTS_MAX {
            assert!(book.take(&Intent { issued: late, not_after: late, ..intent(1_000 + number) }, late));
            book.answered(&node, &format!("i{}", 1_000 + number), Some("done".into()), None, late);
        }
        assert_eq!(book.entries(late).count(), INTENTS_MAX);
        assert_eq!(book.entries(late).next().unwrap().id, "i1255");
    }
}
