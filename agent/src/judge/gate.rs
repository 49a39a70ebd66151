//! How long a start may take: takes what earlier starts took; gives the limit. Pure.
//!
//! A worker that loads is never ended for being slow, only for standing still: before `max` a start is
//! over its time only when some view of it is known and none of them moves.

use std::collections::VecDeque;
use std::time::Duration;

/// Starts that are remembered.
pub const LOADS_MAX: usize = 20;

/// What the last starts took, from the process to its first readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loads(VecDeque<Duration>);

impl Loads {
    /// What is remembered of an earlier run of the agent; the oldest first.
    #[must_use]
    pub fn of(loads: impl IntoIterator<Item = Duration>) -> Self {
        let mut all = Self::default();
        loads.into_iter().for_each(|load| all.add(load));
        all
    }

    /// A start that came to its end.
    pub fn add(&mut self, load: Duration) {
        if self.0.len() >= LOADS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(load);
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().copied()
    }

    /// Twice the p99 of what is remembered (of twenty, that is the longest), at least `min` and at most
    /// `max`; `max` while nothing is known.
    #[must_use]
    pub fn limit(&self, min: Duration, max: Duration) -> Duration {
        let Some(longest) = self.0.iter().max() else { return max };
        longest.saturating_mul(2).max(min).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIN: Duration = Duration::from_secs(90);
    const MAX: Duration = Duration::from_secs(300);

    #[test]
    fn the_gate_is_twice_the_longest_of_the_last_twenty_starts_within_its_bounds() {
        assert_eq!(Loads::default().limit(MIN, MAX), MAX, "nothing is known yet");
        let of = |seconds: &[u64]| Loads::of(seconds.iter().map(|s| Duration::from_secs(*s))).limit(MIN, MAX);
        assert_eq!(of(&[10]), MIN);
        assert_eq!(of(&[10, 60, 20]), Duration::from_secs(120));
        assert_eq!(of(&[200]), MAX);
        let mut many = vec![140];
        many.extend([50; LOADS_MAX]);
        assert_eq!(of(&many), Duration::from_secs(100), "the oldest is forgotten");
    }

    proptest! {
        #[test]
        fn the_gate_stays_within_its_bounds_and_is_longer_than_what_was_seen(
            loads in prop::collection::vec(0_u64..2_000, 0..60)
        ) {
            let all = Loads::of(loads.iter().map(|s| Duration::from_secs(*s)));
            let limit = all.limit(MIN, MAX);
            prop_assert!((MIN..=MAX).contains(&limit));
            prop_assert!(all.iter().all(|load| limit >= load.min(MAX)));
        }
    }
}
