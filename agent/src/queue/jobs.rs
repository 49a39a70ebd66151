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
