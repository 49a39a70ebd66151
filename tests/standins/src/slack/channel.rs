//! The channel behind the webhooks: takes requests with their time, gives Slack's answer and keeps
//! what it accepted. Pure. The oldest messages go when there are too many; each is counted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::limits::{self, Refusal};
use super::rate::{Bucket, whole_seconds};

/// Messages that are kept.
const MESSAGES_MAX: usize = 500;
/// Bytes of all kept messages as they came.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Webhooks with a rate of their own; Slack has no more of this workspace.
const WEBHOOKS_MAX: usize = 64;
/// Longest hang of an answer, milliseconds.
const HANG_MS_MAX: u64 = 600_000;

/// What goes wrong on purpose; what is left out stays as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The next requests fail.
    fail: Option<Fail>,
    /// The next requests are dealt with at once, but answered this much later.
    hang_ms: Option<u64>,
    /// How many of them, 1 if not said.
    count: Option<u32>,
}

/// Requests that fail.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    status: u16,
    retry_after_s: Option<u64>,
    /// How many, 1 if not said.
    count: Option<u32>,
}

/// A message that was accepted.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// When it came, milliseconds since 1970.
    pub at_ms: i64,
    /// The path of its webhook.
    pub channel: String,
    /// The message as it came.
    pub payload: Value,
    #[serde(skip)]
    bytes: usize,
}

/// A request to a webhook.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// The path of the webhook.
    pub channel: &'a str,
    /// Whether its content type is JSON.
    pub is_json: bool,
    /// Its body.
    pub body: &'a [u8],
    /// When it came, on the monotonic clock.
    pub now: Duration,
    /// When it came, on the wall clock.
    pub at: UnixMicros,
}

/// Slack's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status of HTTP.
    pub status: u16,
    /// `Retry-After`, seconds.
    pub retry_after_s: Option<u64>,
    /// The body, plain text.
    pub body: &'static str,
    /// How long the answer is held back.
    pub hold: Duration,
}

/// The channel.
#[derive(Debug, Default)]
pub struct Channel {
    messages: VecDeque<Message>,
    kept_bytes: usize,
    buckets: HashMap<String, Bucket>,
    fail: Option<Fail>,
    hang: Option<(Duration, u32)>,
    accepted: u64,
    forgotten: u64,
    failed_on_purpose: u64,
    hung_on_purpose: u64,
    refused: BTreeMap<Refusal, u64>,
}

impl Channel {
    /// Deals with one request.
    pub fn post(&mut self, post: &Post<'_>) -> Answer {
        let hold = self.next_hold();
        if let Some(fail) = self.next_fail() {
            let body = if fail.status == 429 { "rate_limited" } else { "failed_on_purpose" };
            return Answer { status: fail.status, retry_after_s: fail.retry_after_s, body, hold };
        }
        match self.accept(post) {
            Ok(()) => Answer { status: 200, retry_after_s: None, body: "ok", hold },
            Err((refusal, wait)) => {
                *self.refused.entry(refusal).or_default() += 1;
                let retry_after_s = wait.map(whole_seconds);
                Answer { status: refusal.status(), retry_after_s, body: refusal.word(), hold }
            }
        }
    }

    /// Takes what goes wrong next.
    ///
    /// # Errors
    /// A fragment that says which number is out of bounds.
    pub fn obey(&mut self, control: &Control) -> Result<(), String> {
        if control.fail.is_some_and(|fail| !(400..=599).contains(&fail.status)) {
            return Err("fail.status is an error of HTTP, 400 to 599".to_owned());
        }
        if control.hang_ms.is_some_and(|millis| millis > HANG_MS_MAX) {
            return Err(format!("hang_ms is at most {HANG_MS_MAX}"));
        }
        self.fail = control.fail.or(self.fail);
        let hang = control.hang_ms.map(|millis| (Duration::from_millis(millis), control.count.unwrap_or(1)));
        self.hang = hang.or(self.hang);
        Ok(())
    }

    /// The kept messages, oldest first.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> {
        self.messages.iter()
    }

    /// Forgets the messages, not the counts.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.kept_bytes = 0;
    }

    /// How many requests ended how.
    #[must_use]
    pub fn counts(&self) -> Value {
        let refused: BTreeMap<&str, u64> = Refusal::ALL
            .iter()
            .map(|refusal| (refusal.word(), self.refused.get(refusal).copied().unwrap_or(0)))
            .collect();
        json!({
            "accepted": self.accepted,
            "refused": refused,
            "failed_on_purpose": self.failed_on_purpose,
            "hung_on_purpose": self.hung_on_purpose,
            "forgotten": self.forgotten,
        })
    }

    fn accept(&mut self, post: &Post<'_>) -> Result<(), (Refusal, Option<Duration>)> {
        if !self.buckets.contains_key(post.channel) && self.buckets.len() >= WEBHOOKS_MAX {
            return Err((Refusal::NoService, None));
        }
        let bucket = self.buckets.entry(post.channel.to_owned()).or_default();
        bucket.take(post.now).map_err(|wait| (Refusal::RateLimited, Some(wait)))?;
        if !post.is_json {
            return Err((Refusal::InvalidPayload, None));
        }
        let payload = limits::accepted(post.body).map_err(|refusal| (refusal, None))?;
        self.accepted += 1;
        self.kept_bytes = self.kept_bytes.saturating_add(post.body.len());
        self.messages.push_back(Message {
            at_ms: post.at.as_millis(),
            channel: post.channel.to_owned(),
            payload,
            bytes: post.body.len(),
        });
        self.forget_oldest();
        Ok(())
    }

    fn forget_oldest(&mut self) {
        while self.messages.len() > MESSAGES_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.kept_bytes = self.kept_bytes.saturating_sub(oldest.bytes);
            self.forgotten += 1;
        }
    }

    fn next_fail(&mut self) -> Option<Fail> {
        let fail = self.fail.as_mut()?;
        let left = fail.count.unwrap_or(1).checked_sub(1)?;
        fail.count = Some(left);
        self.failed_on_purpose += 1;
        Some(*fail)
    }

    fn next_hold(&mut self) -> Duration {
        let Some((hold, left)) = self.hang.as_mut().filter(|(_, left)| *left > 0) else {
            return Duration::ZERO;
        };
        *left -= 1;
        self.hung_on_purpose += 1;
        *hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn post(body: &str, now_s: u64) -> Post<'_> {
        let (now, at) = (Duration::from_secs(now_s), UnixMicros(now_s * 1_000_000));
        Post { channel: "/services/T/B/X", is_json: true, body: body.as_bytes(), now, at }
    }

    fn told(text: &str) -> Channel {
        let mut channel = Channel::default();
        channel.obey(&serde_json::from_str(text).unwrap()).unwrap();
        channel
    }

    #[test]
    fn the_fourth_message_at_once_is_told_when_to_come_again() {
        let mut channel = Channel::default();
        let last = (0..4).map(|_| channel.post(&post(r#"{"text": "異常"}"#, 7))).last().unwrap();
        assert_eq!((last.status, last.retry_after_s, last.body), (429, Some(1), "rate_limited"));
        assert_eq!(channel.messages().count(), 3);
        assert_eq!(channel.counts()["refused"]["rate_limited"], 1);
    }

    #[test]
    fn webhooks_do_not_share_their_rate() {
        let mut channel = Channel::default();
        for number in 0..WEBHOOKS_MAX {
            let path = format!("/services/T/B/{number}");
            assert_eq!(channel.post(&Post { channel: &path, ..post(r#"{"text": "x"}"#, 0) }).status, 200);
        }
        assert_eq!(channel.post(&post(r#"{"text": "x"}"#, 0)).body, "no_service");
    }

    #[test]
    fn the_next_requests_fail_as_told_and_then_no_more() {
        let mut channel = told(r#"{"fail": {"status": 503, "retry_after_s": 2, "count": 2}}"#);
        let answers: Vec<_> = (0..3).map(|second| channel.post(&post(r#"{"text": "x"}"#, second))).collect();
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [503, 503, 200]);
        assert_eq!(answers[0].retry_after_s, Some(2));
        assert_eq!(channel.counts()["failed_on_purpose"], 2);
    }

    #[test]
    fn a_hung_answer_is_late_but_its_message_is_there() {
        let mut channel = told(r#"{"hang_ms": 1500}"#);
        let answer = channel.post(&post(r#"{"text": "x"}"#, 0));
        assert_eq!((answer.status, answer.hold), (200, Duration::from_millis(1_500)));
        assert_eq!(channel.messages().count(), 1);
        assert_eq!(channel.post(&post(r#"{"text": "x"}"#, 1)).hold, Duration::ZERO);
    }

    #[test]
    fn a_failure_that_is_none_is_refused() {
        let control = serde_json::from_str(r#"{"fail": {"status": 200}}"#).unwrap();
        assert!(Channel::default().obey(&control).is_err());
    }

    #[test]
    fn the_oldest_messages_go_first_and_are_counted() {
        let mut channel = Channel::default();
        let more = 7_u64;
        let count = u64::try_from(MESSAGES_MAX).unwrap() + more;
        for second in 0..count {
            channel.post(&post(&format!(r#"{{"text": "{second}"}}"#), second));
        }
        assert_eq!(channel.messages().count(), MESSAGES_MAX);
        assert_eq!(channel.messages().next().unwrap().payload["text"], more.to_string());
        assert_eq!(channel.counts()["forgotten"], more);
    }

    proptest! {
        // Megabytes per case: a few of them show it.
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn what_is_kept_stays_within_its_bytes(sizes in prop::collection::vec(0_usize..2_000_000, 1..30)) {
            let mut channel = Channel::default();
            for (second, size) in (0..).zip(sizes) {
                let body = format!(r#"{{"text": "x", "rest": "{}"}}"#, "y".repeat(size));
                channel.post(&post(&body, second));
                prop_assert!(channel.kept_bytes <= KEPT_BYTES_MAX);
                let kept: usize = channel.messages.iter().map(|message| message.bytes).sum();
                prop_assert_eq!(channel.kept_bytes, kept);
            }
        }
    }
}
