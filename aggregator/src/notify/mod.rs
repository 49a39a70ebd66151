//! The notify stage: messages that must reach a person, in order, until they are accepted.
//!
//! Takes changes of alerts; gives messages to a channel one after the other. The [`Outbox`] is part
//! of the durable state: a message is on disk before the first try and leaves only when the channel
//! took it; one whose fate is not known (a crash, an answer that did not come) is sent again and says
//! so. When the channel is slow or says "later", messages wait in order; when the outbox is
//! full the oldest goes and is counted. Pure: the shell sends and tells the outcome.

pub mod message;
pub mod slack;

use std::collections::VecDeque;
use std::time::Duration;

use diarwatch_shared::backoff::Backoff;
use diarwatch_shared::clock::UnixMicros;
use serde::{Deserialize, Serialize};

use crate::alerts::Alert;

/// Messages that may wait.
pub const OUTBOX_MAX: usize = 1_000;
/// Between tries when the channel does not say how long to wait.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// The longest wait that a channel may ask for; a broken answer must not silence it for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// The shortest one; `Retry-After: 0` must not make a busy loop.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// A message to people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The alert as it was when it changed.
    pub alert: Alert,
    /// Tries so far.
    pub attempts: u32,
    /// Not to be tried before.
    pub not_before: UnixMicros,
    /// It was handed to the channel and what became of it is not known.
    #[serde(default)]
    pub in_flight: bool,
    /// The channel may have it already.
    #[serde(default)]
    pub repeated: bool,
}

/// What a channel made of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has it.
    Accepted,
    /// It will take it later, after this long if it said so.
    Later {
        /// What the channel asked for.
        after: Option<Duration>,
        /// Why, for a person.
        reason: String,
    },
    /// It may have it: the answer did not come.
    Unknown {
        /// Why, for a person.
        reason: String,
    },
    /// It will never take this message.
    Never {
        /// Why, for a person.
        reason: String,
    },
}

/// Messages on their way, oldest first, and what became of the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    messages: VecDeque<Message>,
    /// Messages that the channel took.
    pub accepted: u64,
    /// Messages given up because the outbox was full.
    pub dropped: u64,
    /// Messages that the channel refused for good.
    pub refused: u64,
    /// Why the channel does not take messages now, for a person.
    pub problem: Option<String>,
}

impl Outbox {
    /// Adds a message behind the others.
    pub fn push(&mut self, alert: Alert, now: UnixMicros) {
        if self.messages.len() >= OUTBOX_MAX {
            self.messages.pop_front();
            self.dropped += 1;
        }
        self.messages.push_back(Message {
            alert,
            attempts: 0,
            not_before: now,
            in_flight: false,
            repeated: false,
        });
    }

    /// Messages on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether none is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The message to try at `now`, or how long to wait for the next; order is kept.
    ///
    /// # Errors
    /// The wait, `None` when the outbox is empty.
    pub fn due(&self, now: UnixMicros) -> Result<&Message, Option<Duration>> {
        let first = self.messages.front().ok_or(None)?;
        let wait = first.not_before.since(now);
        // No wait is longer than the longest one: the clock went back.
        if wait.is_zero() || wait > RETRY_AFTER_MAX { Ok(first) } else { Err(Some(wait)) }
    }

    /// Takes the first message for a try. To be durable before the try: what is in flight when the
    /// program ends may have arrived.
    pub fn begin(&mut self) -> Option<Message> {
        let first = self.messages.front_mut()?;
        first.repeated |= first.in_flight;
        first.in_flight = true;
        Some(first.clone())
    }

    /// The outcome of trying a message that was the first; `jitter` is in [0, 1). A full outbox may
    /// have given it up meanwhile: then only the outcome is counted.
    pub fn tried(&mut self, message: &Message, outcome: Outcome, now: UnixMicros, jitter: f64) {
        let unknown = matches!(outcome, Outcome::Unknown { .. });
        let (problem, after, stays) = match outcome {
            Outcome::Accepted => {
                self.accepted += 1;
                (None, None, false)
            }
            Outcome::Never { reason } => {
                self.refused += 1;
                (Some(reason), None, false)
            }
            Outcome::Later { reason, after } => (Some(reason), after, true),
            Outcome::Unknown { reason } => (Some(reason), None, true),
        };
        self.problem = problem;
        let Some(first) = self.messages.front_mut().filter(|first| *first == message) else { return };
        if !stays {
            self.messages.pop_front();
            return;
        }
        first.in_flight = unknown;
        let asked = after.map(|after| after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX));
        let wait = asked.unwrap_or_else(|| RETRY.wait(first.attempts, jitter));
        first.attempts = first.attempts.saturating_add(1);
        first.not_before = now.plus(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::Phase;
    use diarwatch_shared::schema::Labels;
    use proptest::prelude::*;

    fn alert(name: &str) -> Alert {
        Alert {
            labels: [("alertname".to_owned(), name.to_owned())].into(),
            annotations: Labels::new(),
            value: 0.0,
            phase: Phase::Firing,
            active_since: UnixMicros(0),
            fired_at: None,
            resolved_at: None,
            seen_at: UnixMicros(0),
            keep_firing_for_us: 0,
        }
    }

    fn try_first(outbox: &mut Outbox, outcome: Outcome, now: UnixMicros) {
        let first = outbox.begin().unwrap();
        outbox.tried(&first, outcome, now, 0.5);
    }

    #[test]
    fn a_channel_that_says_later_is_left_alone_for_as_long_as_it_said() {
        let mut outbox = Outbox::default();
        outbox.push(alert("a"), UnixMicros(0));
        let later =
            |after_s| Outcome::Later { after: Some(Duration::from_secs(after_s)), reason: "429".into() };
        try_first(&mut outbox, later(30), UnixMicros(0));
        assert_eq!(outbox.due(UnixMicros(1_000_000)), Err(Some(Duration::from_secs(29))));
        assert_eq!(outbox.due(UnixMicros(30_000_000)).unwrap().attempts, 1);
        try_first(&mut outbox, later(0), UnixMicros(30_000_000));
        assert_eq!(outbox.due(UnixMicros(30_000_000)), Err(Some(RETRY_AFTER_MIN)), "no busy loop");
    }

    #[test]
    fn a_clock_that_went_back_delays_no_message() {
        let mut outbox = Outbox::default();
        let hour = UnixMicros(3_600_000_000);
        outbox.push(alert("a"), hour);
        try_first(&mut outbox, Outcome::Later { after: None, reason: String::new() }, hour);
        assert!(outbox.due(UnixMicros(0)).is_ok());
    }

    #[test]
    fn a_message_that_was_given_up_while_it_was_sent_takes_no_other_with_it() {
        let mut outbox = Outbox::default();
        (0..OUTBOX_MAX).for_each(|number| outbox.push(alert(&number.to_string()), UnixMicros(0)));
        let sent = outbox.begin().unwrap();
        outbox.push(alert("newest"), UnixMicros(0));
        for outcome in [Outcome::Accepted, Outcome::Never { reason: String::new() }] {
            outbox.tried(&sent, outcome, UnixMicros(0), 0.5);
            assert_eq!(outbox.due(UnixMicros(0)).unwrap().alert.label("alertname"), "1");
        }
        assert_eq!((outbox.len(), outbox.accepted, outbox.dropped), (OUTBOX_MAX, 1, 1));
    }

    #[test]
    fn a_message_says_that_it_may_have_come_before() {
        let reason = String::new;
        let known = Outcome::Later { after: None, reason: reason() };
        let cases = [(Some(known), false), (Some(Outcome::Unknown { reason: reason() }), true), (None, true)];
        for (outcome, repeated) in cases {
            let mut outbox = Outbox::default();
            outbox.push(alert("a"), UnixMicros(0));
            let first = outbox.begin().unwrap();
            assert!(!first.repeated, "the first try is none");
            if let Some(outcome) = outcome.clone() {
                outbox.tried(&first, outcome, UnixMicros(0), 0.5);
            }
            // A restart, or the next try.
            let text = serde_json::to_string(&outbox).unwrap();
            let mut outbox: Outbox = serde_json::from_str(&text).unwrap();
            assert_eq!(outbox.begin().unwrap().repeated, repeated, "{outcome:?}");
        }
    }

    #[test]
    fn a_full_outbox_gives_up_its_oldest_and_counts_it() {
        let mut outbox = Outbox::default();
        for number in 0..=OUTBOX_MAX {
            outbox.push(alert(&number.to_string()), UnixMicros(0));
        }
        assert_eq!((outbox.len(), outbox.dropped), (OUTBOX_MAX, 1));
        assert_eq!(outbox.due(UnixMicros(0)).unwrap().alert.label("alertname"), "1");
    }

    proptest! {
        #[test]
        fn whatever_the_channel_does_messages_leave_in_order_and_none_is_lost(outcomes in prop::collection::vec(0_u8..4, 1..200)) {
            let mut outbox = Outbox::default();
            (0..20).for_each(|number| outbox.push(alert(&number.to_string()), UnixMicros(0)));
            let mut now = UnixMicros(0);
            let mut left: Vec<String> = Vec::new();
            for outcome in outcomes.into_iter().chain(std::iter::repeat_n(0, 20)) {
                match outbox.due(now) {
                    Err(Some(wait)) => { prop_assert!(wait <= RETRY_AFTER_MAX); now = now.plus(wait); }
                    Err(None) => break,
                    Ok(_) => {}
                }
                let Ok(first) = outbox.due(now) else { continue };
                let name = first.alert.label("alertname").to_owned();
                let outcome = match outcome {
                    0 | 1 => { left.push(name); Outcome::Accepted }
                    2 => Outcome::Later { after: None, reason: String::new() },
                    _ => Outcome::Later { after: Some(Duration::from_secs(9_999)), reason: String::new() },
                };
                try_first(&mut outbox, outcome, now);
            }
            prop_assert_eq!(left, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
        }
    }
}
