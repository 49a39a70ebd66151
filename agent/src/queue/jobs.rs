//! Which of the jobs that a table shows are new: a job counts once, also when it became visible late.
//!
//! Takes pages of jobs in order of their end; gives those that were not given before, and the time to ask
//! from. A transaction may commit a job's end seconds after that end, so each page begins a little
//! before the newest job; jobs are told apart by their values, equal ones by their number. Pure.

use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;

use super::Ended;

/// Jobs of one look; the next look continues.
pub const PAGE_JOBS_MAX: usize = 1_000;
/// How far back the first look asks.
pub const HISTORY: Duration = Duration::from_secs(3_600);
/// How late a job's end may become visible.
const LATE_MAX: Duration = Duration::from_secs(10);
/// A job that ends later than this from now has a wrong time.
const AHEAD_MAX: Duration = Duration::from_secs(3_600);

/// What was given so far.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    newest: Option<UnixMicros>,
    /// Jobs that the next page may show again.
    given: Vec<Ended>,
}

impl Jobs {
    /// After which time to ask.
    #[must_use]
    pub fn ask(&self, now: UnixMicros) -> UnixMicros {
        self.newest.map_or_else(|| now.minus(HISTORY), |newest| newest.minus(LATE_MAX))
    }

    /// The new ones of a page, which is in order and was asked for by [`Jobs::ask`].
    pub fn fresh(&mut self, page: Vec<Ended>, now: UnixMicros) -> Vec<Ended> {
        let full = page.len() >= PAGE_JOBS_MAX;
        let page: Vec<Ended> = page.into_iter().filter(|job| job.at <= now.plus(AHEAD_MAX)).collect();
        let mut known = self.given.clone();
        let mut fresh = Vec::new();
        for job in &page {
            match known.iter().position(|given| given == job) {
                Some(at) => drop(known.swap_remove(at)),
                None => fresh.push(*job),
            }
        }
        let last = page.last().map(|job| job.at);
        // A full page is continued where it ended, or it would be the same for ever.
        let next = if full { last.map(|last| last.plus(LATE_MAX)) } else { last };
        self.newest = self.newest.max(next);
        let from = self.ask(now);
        self.given.extend(&fresh);
        self.given.retain(|job| job.at > from);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job(at_micros: u64, took: f64) -> Ended {
        Ended { at: UnixMicros(at_micros), failed: false, took_seconds: Some(took), audio_seconds: None }
    }

    /// What a table would answer.
    fn page(table: &[Ended], after: UnixMicros) -> Vec<Ended> {
        let mut rows: Vec<Ended> = table.iter().filter(|job| job.at > after).copied().collect();
        rows.sort_by_key(|job| job.at);
        rows.truncate(PAGE_JOBS_MAX);
        rows
    }

    const NOW: UnixMicros = UnixMicros(10_000_000_000_000);

    #[test]
    fn a_job_whose_end_becomes_visible_late_is_counted_and_equal_ones_by_their_number() {
        let mut jobs = Jobs::default();
        let second = |second: u64| NOW.0 - 600_000_000 + second * 1_000_000;
        let mut table = vec![job(second(1), 1.0), job(second(20), 2.0)];
        assert_eq!(jobs.fresh(page(&table, jobs.ask(NOW)), NOW).len(), 2);
        assert_eq!(jobs.fresh(page(&table, jobs.ask(NOW)), NOW), []);
        table.extend([job(second(12), 3.0), job(second(20), 2.0)]);
        assert_eq!(
            jobs.fresh(page(&table, jobs.ask(NOW)), NOW),
            [job(second(12), 3.0), job(second(20), 2.0)]
        );
        assert_eq!(jobs.fresh(page(&table, jobs.ask(NOW)), NOW), []);
    }

    #[test]
    fn more_jobs_than_a_page_come_with_the_next_looks() {
        let mut jobs = Jobs::default();
        // All of them within the time that is asked for again.
        let table: Vec<Ended> = (0..2_500).map(|n| job(NOW.0 - 5_000_000 + n, 1.0)).collect();
        let mut count = 0;
        for _ in 0..4 {
            count += jobs.fresh(page(&table, jobs.ask(NOW)), NOW).len();
        }
        assert_eq!(count, 2_500);
    }

    #[test]
    fn a_job_of_the_far_future_hides_no_other() {
        let mut jobs = Jobs::default();
        let mut table = vec![job(NOW.0 * 2, 1.0)];
        assert_eq!(jobs.fresh(page(&table, jobs.ask(NOW)), NOW), []);
        table.push(job(NOW.0 - 1, 1.0));
        assert_eq!(jobs.fresh(page(&table, jobs.ask(NOW)), NOW).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_job_is_given_once_however_late_within_ten_seconds_it_shows(
            rows in proptest::collection::vec((0_u64..300, 0_u64..9, 0_u8..3), 0..200)
        ) {
            let mut jobs = Jobs::default();
            let begin = NOW.0 - 1_000_000_000;
            let mut given = Vec::new();
            for second in 0..320_u64 {
                let shown = rows.iter().filter(|(at, late, _)| at + late <= second);
                let table: Vec<Ended> =
                    shown.map(|(at, _, took)| job(begin + at * 1_000_000, f64::from(*took))).collect();
                given.extend(jobs.fresh(page(&table, jobs.ask(NOW)), NOW));
            }
            prop_assert_eq!(given.len(), rows.len());
            prop_assert!(jobs.given.len() <= rows.len());
        }
    }
}
