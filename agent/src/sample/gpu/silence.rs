//! What the silence of a sampler means: takes its messages and the time, gives whether the driver
//! answers. Pure.

use std::time::Duration;

use super::FAST;
use super::message::Message;

/// A child that says nothing for this long, beyond its own interval, has a driver that does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// A driver that does not answer for this long gets one more child.
pub(super) const WEDGED_AFTER: Duration = Duration::from_secs(30);

/// What is to be thought of a child now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The driver answers, or may still.
    Answers,
    /// It does not.
    Silent,
    /// It has not for so long that one more child is started.
    Wedged,
}

/// One child, listened to.
pub(super) struct Silence {
    heard: Duration,
    silence_max: Duration,
}

impl Silence {
    /// A child that begins at `now` and ticks every `interval`.
    pub(super) fn since(now: Duration, interval: Duration) -> Self {
        Self { heard: now, silence_max: SILENCE_MAX.saturating_add(interval) }
    }

    /// It said something; that a call is stuck is no sign of life of the driver, and what it reports by
    /// itself is none of the calls. A driver is not `wedged` any more when it gives the values of the fast
    /// tier, which are read last: others it may still give.
    pub(super) fn broken_by(&mut self, message: &Message, now: Duration, wedged: &mut bool) {
        if !matches!(message, Message::Stuck { .. } | Message::Xid { .. } | Message::Reports { .. }) {
            self.heard = now;
        }
        if matches!(message, Message::Tick { tier: FAST, .. }) {
            *wedged = false;
        }
    }

    /// When silence begins to mean something; none when it has.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        let due = self.heard.saturating_add(self.silence_max);
        (due >= now).then_some(due)
    }

    /// What to think at `now`. A child that was started while the driver was `wedged` is the last: it is
    /// left in there for as long as it takes.
    pub(super) fn verdict(&self, now: Duration, wedged: bool) -> Verdict {
        let silent = now.saturating_sub(self.heard);
        if silent > WEDGED_AFTER.max(self.silence_max) && !wedged {
            Verdict::Wedged
        } else if silent > self.silence_max {
            Verdict::Silent
        } else {
            Verdict::Answers
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_millis(100);

    fn tick(tier: u8) -> Message {
        Message::Tick { tier, at_us: 0, gpus: Vec::new() }
    }

    #[test]
    fn a_child_that_ticks_rarely_is_not_silent_between_its_ticks() {
        assert_eq!(Silence::since(Duration::ZERO, INTERVAL).verdict(3 * SECOND, false), Verdict::Silent);
        assert_eq!(Silence::since(Duration::ZERO, 5 * SECOND).verdict(6 * SECOND, false), Verdict::Answers);
        assert_eq!(Silence::since(Duration::ZERO, 60 * SECOND).verdict(61 * SECOND, false), Verdict::Answers);
    }

    #[test]
    fn a_stuck_call_is_no_sign_of_life() {
        let mut silence = Silence::since(Duration::ZERO, INTERVAL);
        let stuck = Message::Stuck { function: "nvmlInit_v2".into(), gpu: None };
        silence.broken_by(&stuck, 3 * SECOND, &mut false);
        silence.broken_by(&Message::Xid { gpu: None, code: 119 }, 3 * SECOND, &mut false);
        assert_eq!(silence.verdict(3 * SECOND, false), Verdict::Silent);
        silence.broken_by(&tick(FAST), 3 * SECOND, &mut false);
        assert_eq!(silence.verdict(3 * SECOND, false), Verdict::Answers);
    }

    #[test]
    fn a_wedged_driver_gets_one_more_child_until_it_answers_again() {
        let mut silence = Silence::since(Duration::ZERO, INTERVAL);
        let mut wedged = false;
        assert_eq!(silence.verdict(31 * SECOND, wedged), Verdict::Wedged);
        wedged = true;
        assert_eq!(silence.verdict(3_600 * SECOND, wedged), Verdict::Silent, "the second one stays");
        silence.broken_by(&Message::Unstuck, 3_600 * SECOND, &mut wedged);
        silence.broken_by(&tick(super::super::SLOW), 3_600 * SECOND, &mut wedged);
        assert!(wedged, "a call that came back, and values of another tier, are no answer");
        silence.broken_by(&tick(FAST), 3_600 * SECOND, &mut wedged);
        assert_eq!(silence.verdict(3_631 * SECOND, wedged), Verdict::Wedged);
    }

    #[test]
    fn silence_that_was_noticed_wakes_nobody_again() {
        let silence = Silence::since(Duration::ZERO, INTERVAL);
        assert_eq!(silence.due(SECOND), Some(2 * SECOND + INTERVAL));
        assert_eq!(silence.due(3 * SECOND), None);
    }
}
