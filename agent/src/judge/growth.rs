//! Whether a worker keeps GPU memory with each job: takes its memory after each job; says when so much came
//! together that a restart between two jobs is better than an allocation that fails in the middle of
//! one. Pure.
//!
//! The first jobs warm caches up and do not count. After them each of the last jobs must have left some,
//! so that one long recording, or an allocator that settles, is no leak.

use std::collections::VecDeque;

/// Jobs that warm up.
pub const WARM_JOBS: u64 = 3;
/// Jobs in a row that each have to leave memory behind.
pub const GROWING_JOBS: usize = 5;

/// GPU memory after jobs, of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    jobs: u64,
    /// Memory after the warm-up, bytes.
    base: Option<u64>,
    last: VecDeque<u64>,
}

/// What came together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Bytes a job, over the last [`GROWING_JOBS`].
    pub per_job: u64,
    /// Bytes since the warm-up.
    pub total: u64,
}

impl Growth {
    /// `jobs` more jobs ended and the worker's processes hold so many bytes of GPU memory now.
    pub fn after_jobs(&mut self, jobs: u64, memory: u64) {
        self.jobs = self.jobs.saturating_add(jobs);
        if self.jobs < WARM_JOBS {
            return;
        }
        self.base.get_or_insert(memory);
        if self.last.len() > GROWING_JOBS {
            self.last.pop_front();
        }
        self.last.push_back(memory);
    }

    /// The leak, when each of the last jobs left at least `per_job` on the average, none gave any back,
    /// and at least `total` came together.
    #[must_use]
    pub fn leak(&self, per_job: u64, total: u64) -> Option<Leak> {
        if self.last.len() <= GROWING_JOBS {
            return None;
        }
        let (first, last) = (*self.last.front()?, *self.last.back()?);
        let grows = self.last.iter().zip(self.last.iter().skip(1)).all(|(before, after)| after > before);
        let leak = Leak {
            per_job: last.saturating_sub(first) / GROWING_JOBS as u64,
            total: last.saturating_sub(self.base?),
        };
        (grows && leak.per_job >= per_job && leak.total >= total).then_some(leak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn after(memory: impl IntoIterator<Item = u64>) -> Growth {
        let mut growth = Growth::default();
        memory.into_iter().for_each(|mib| growth.after_jobs(1, mib * MIB));
        growth
    }

    #[test]
    fn memory_that_grows_with_each_job_is_a_leak_once_enough_came_together() {
        let leaking = after((0..20).map(|job| 2_000 + job * 64));
        assert_eq!(leaking.leak(32 * MIB, 1_000 * MIB), Some(Leak { per_job: 64 * MIB, total: 1_088 * MIB }));
        assert_eq!(leaking.leak(32 * MIB, 2_000 * MIB), None, "not enough yet");
        assert_eq!(leaking.leak(65 * MIB, 1_000 * MIB), None, "too little a job");
    }

    #[test]
    fn warming_up_one_long_job_and_an_allocator_that_settles_are_no_leak() {
        assert_eq!(after([100, 2_000, 4_000]).leak(0, 0), None);
        assert_eq!(after([2_000, 2_000, 2_000, 2_000, 6_000, 6_000, 6_000, 6_000, 6_000]).leak(1, 1), None);
        assert_eq!(after((0..30).map(|job| 2_000 + (job % 3) * 500)).leak(1, 1), None);
    }

    proptest! {
        #[test]
        fn memory_that_ever_falls_within_the_last_jobs_is_no_leak(
            memory in prop::collection::vec(0_u64..100_000, 0..40)
        ) {
            let leak = after(memory.clone()).leak(1, 1);
            let tail = &memory[memory.len().saturating_sub(GROWING_JOBS + 1)..];
            prop_assert!(leak.is_none() || tail.windows(2).all(|pair| pair[1] > pair[0]));
        }
    }
}
