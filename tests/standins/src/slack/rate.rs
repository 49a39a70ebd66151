//! Slack's rate: about one message a second for each webhook, with a small burst. Pure: takes the
//! time of a request, gives leave or how long to wait.

use std::time::Duration;

/// Time between two messages, in the long run.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Messages at once, after a rest.
pub const BURST: u32 = 3;

/// A token bucket, kept as the time at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes a token.
    ///
    /// # Errors
    /// How long to wait for one when there is none; nothing is taken then.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now);
        let missing = full_at.saturating_sub(now);
        let room = INTERVAL * (BURST - 1);
        if missing > room {
            return Err(missing.saturating_sub(room));
        }
        self.full_at = full_at + INTERVAL;
        Ok(())
    }
}

/// Whole seconds of a wait, as `Retry-After` says them; never too few.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_messages_pass_at_once_and_the_fourth_waits_a_second() {
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(100);
        let taken: Vec<_> = (0..4).map(|_| bucket.take(now)).collect();
        assert_eq!(taken, [Ok(()), Ok(()), Ok(()), Err(INTERVAL)]);
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_too_short() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
    }

    proptest! {
        #[test]
        fn who_waits_as_told_is_let_in(gaps in prop::collection::vec(0_u64..2_000, 1..60)) {
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Err(wait) = bucket.take(now) {
                    prop_assert!(wait > Duration::ZERO);
                    let later = now + Duration::from_secs(whole_seconds(wait));
                    prop_assert_eq!(bucket.clone().take(later), Ok(()));
                }
            }
        }

        #[test]
        fn no_stretch_of_time_has_more_than_its_seconds_and_the_burst(
            gaps in prop::collection::vec(0_u64..700, 1..80),
        ) {
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            let mut passed: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if bucket.take(now).is_ok() {
                    passed.push(now);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let count = u64::try_from(last - first + 1).unwrap();
                    prop_assert!(count <= (*to - *from).as_secs() + u64::from(BURST));
                }
            }
        }
    }
}
