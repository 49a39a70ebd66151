//! The last hour of a queue in steps of ten seconds: what came out of it, what waited, whether that fell.
//!
//! Takes counts and samples with their time; gives sums over the last so long, and over how long they
//! really are. Bounded: one bucket a step. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;

/// One step.
const STEP: Duration = Duration::from_secs(10);
/// Steps that are kept: an hour and what is open.
pub const BUCKETS_MAX: usize = 362;

/// A look's counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: UnixMicros,
    /// Jobs that waited.
    pub waiting: f64,
    /// Jobs that were worked on, where that is known.
    pub processing: Option<f64>,
}

/// What came out in a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Out {
    /// Jobs completed.
    pub completed: f64,
    /// Jobs failed.
    pub failed: f64,
    /// The time it came out in.
    pub over: Duration,
}

impl Out {
    /// Jobs that ended, however.
    #[must_use]
    pub fn all(&self) -> f64 {
        self.completed + self.failed
    }
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    completed: f64,
    failed: f64,
    first: Option<Sample>,
    fell: bool,
}

/// The last hour.
#[derive(Clone, Debug)]
pub struct Window {
    /// Since when it knows everything.
    began: UnixMicros,
    /// By the number of their step since 1970.
    buckets: BTreeMap<u64, Bucket>,
    newest: Option<Sample>,
}

impl Window {
    /// A window that knows nothing before `now`.
    #[must_use]
    pub fn new(now: UnixMicros) -> Self {
        Self { began: now, buckets: BTreeMap::new(), newest: None }
    }

    /// Since when it knows everything.
    #[must_use]
    pub fn began(&self) -> UnixMicros {
        self.began
    }

    /// It is told of what was before it began.
    pub fn reach_back(&mut self, at: UnixMicros) {
        self.began = self.began.min(at);
    }

    /// Jobs ended.
    pub fn add(&mut self, at: UnixMicros, completed: f64, failed: f64) {
        let bucket = self.bucket(at);
        bucket.completed += completed;
        bucket.failed += failed;
    }

    /// A look.
    pub fn sample(&mut self, sample: Sample) {
        let fell = self.newest.is_some_and(|newest| sample.waiting < newest.waiting);
        let bucket = self.bucket(sample.at);
        bucket.first.get_or_insert(sample);
        bucket.fell |= fell;
        self.newest = Some(sample);
    }

    /// What came out since `from`, to the step.
    #[must_use]
    pub fn out(&self, from: UnixMicros, now: UnixMicros) -> Out {
        let from = from.max(self.began);
        // The step that `from` is in is left out, but for the one that the window began in.
        let first = if from == self.began { step(from) } else { step(from) + 1 };
        let begin = start(first).max(self.began);
        let mut out = Out { completed: 0.0, failed: 0.0, over: now.since(begin) };
        for bucket in self.buckets.range(first..).map(|(_, bucket)| bucket) {
            out.completed += bucket.completed;
            out.failed += bucket.failed;
        }
        out
    }

    /// The first look at or after `from`, to the step.
    #[must_use]
    pub fn sample_since(&self, from: UnixMicros) -> Option<Sample> {
        self.buckets.range(step(from)..).find_map(|(_, bucket)| bucket.first)
    }

    /// Whether less waited than at the look before, at or after `from`, to the step.
    #[must_use]
    pub fn fell_since(&self, from: UnixMicros) -> bool {
        self.buckets.range(step(from)..).any(|(_, bucket)| bucket.fell)
    }

    /// Forgets what was before `oldest`.
    pub fn forget(&mut self, oldest: UnixMicros) {
        self.buckets = self.buckets.split_off(&step(oldest));
        while self.buckets.len() > BUCKETS_MAX {
            self.buckets.pop_first();
        }
    }

    fn bucket(&mut self, at: UnixMicros) -> &mut Bucket {
        self.buckets.entry(step(at)).or_default()
    }
}

fn step(at: UnixMicros) -> u64 {
    u64::try_from(u128::from(at.0) / STEP.as_micros()).unwrap_or(u64::MAX)
}

fn start(step: u64) -> UnixMicros {
    UnixMicros(step.saturating_mul(u64::try_from(STEP.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Window {
        /// Buckets that are kept.
        pub(in crate::queue) fn len(&self) -> usize {
            self.buckets.len()
        }
    }

    fn at(seconds: u64) -> UnixMicros {
        UnixMicros(1_000_000 * (1_764_826_337 + seconds))
    }

    proptest! {
        #[test]
        fn what_came_out_is_counted_once_and_over_the_time_it_came_out_in(
            jobs in proptest::collection::vec(0_u64..3_000, 0..200), back in 10_u64..4_000
        ) {
            let mut window = Window::new(at(0));
            for job in &jobs {
                window.add(at(*job), 1.0, 0.0);
            }
            let now = at(3_000);
            let out = window.out(now.minus(Duration::from_secs(back)), now);
            let begin = now.minus(out.over);
            let expected = jobs.iter().filter(|job| at(**job) >= begin).count();
            prop_assert_eq!(out.completed, f64::from(u32::try_from(expected).unwrap()));
            // To the step: never longer than asked for, shorter by less than one.
            prop_assert!(out.over <= Duration::from_secs(back.min(3_000)));
            prop_assert!(out.over + STEP >= Duration::from_secs(back.min(3_000)));
        }
    }

    #[test]
    fn an_hour_is_kept_and_a_fall_is_remembered_for_as_long() {
        let mut window = Window::new(at(0));
        for second in 0..8_000 {
            let waiting = if second == 6_000 { 1.0 } else { 2.0 };
            window.sample(Sample { at: at(second), waiting, processing: None });
            window.forget(at(second).minus(Duration::from_secs(3_600)));
            assert!(window.len() <= BUCKETS_MAX);
        }
        assert!(window.fell_since(at(5_995)) && !window.fell_since(at(6_010)));
        assert!(window.sample_since(at(0)).is_some_and(|first| first.at >= at(4_380)));
    }
}
