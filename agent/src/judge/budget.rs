//! How often a worker may be restarted: takes restarts and proofs of health; says whether the next start
//! is due by the back-off, or after the long wait of an open breaker. Pure.
//!
//! It never gives up: an open breaker tries again after 5, 15, 30, 30, ... minutes, for ever. Proven
//! health forgets everything. A try of an open breaker is not counted as a restart of the budget.

use std::collections::VecDeque;
use std::time::Duration;

/// Waits of an open breaker before each try; the last one is repeated.
pub const TRIES: [Duration; 3] =
    [Duration::from_secs(300), Duration::from_secs(900), Duration::from_secs(1_800)];

/// How many restarts within which window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Restarts.
    pub restarts_max: u32,
    /// Within this time.
    pub window: Duration,
}

/// Restarts since the worker last proved healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// When, by the judge's clock; the oldest first.
    pub(super) spent: VecDeque<Duration>,
    pub(super) breaker: Option<Breaker>,
}

/// Too many restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// When it opened.
    pub opened: Duration,
    /// Tries since then.
    pub tries: u32,
    /// When the next try is due.
    pub next: Duration,
}

/// When a worker may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// After its back-off.
    Backoff,
    /// Not before the breaker's next try; `opened_now` when it was closed until now.
    Breaker {
        /// When.
        at: Duration,
        /// Whether this is news.
        opened_now: bool,
    },
}

impl Budget {
    /// A worker ended, or could not be started: when may it be started again?
    pub fn plan(&mut self, now: Duration, limits: Limits) -> Plan {
        if let Some(breaker) = &mut self.breaker {
            if breaker.next <= now {
                breaker.next = now.saturating_add(wait_of(breaker.tries));
            }
            return Plan::Breaker { at: breaker.next, opened_now: false };
        }
        self.forget_old(now, limits);
        if self.spent.len() < limits.restarts_max as usize {
            return Plan::Backoff;
        }
        let breaker = Breaker { opened: now, tries: 0, next: now.saturating_add(wait_of(0)) };
        self.breaker = Some(breaker);
        Plan::Breaker { at: breaker.next, opened_now: true }
    }

    /// It is started now.
    pub fn spend(&mut self, now: Duration, limits: Limits) {
        match &mut self.breaker {
            Some(breaker) => {
                breaker.tries = breaker.tries.saturating_add(1);
                breaker.next = now.saturating_add(wait_of(breaker.tries));
            }
            None => {
                self.forget_old(now, limits);
                self.spent.push_back(now);
            }
        }
    }

    /// It proved healthy, or a person wants a fresh beginning.
    pub fn proven(&mut self) {
        *self = Self::default();
    }

    /// Restarts within the window.
    #[must_use]
    pub fn spent(&self, now: Duration, limits: Limits) -> usize {
        self.spent.iter().filter(|at| now.saturating_sub(**at) < limits.window).count()
    }

    /// The breaker, while it is open.
    #[must_use]
    pub fn breaker(&self) -> Option<Breaker> {
        self.breaker
    }

    fn forget_old(&mut self, now: Duration, limits: Limits) {
        while self.spent.front().is_some_and(|at| now.saturating_sub(*at) >= limits.window) {
            self.spent.pop_front();
        }
    }
}

fn wait_of(tries: u32) -> Duration {
    let last = TRIES.len() - 1;
    TRIES.get((tries as usize).min(last)).copied().unwrap_or(Duration::from_secs(1_800))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { restarts_max: 3, window: Duration::from_secs(600) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_fourth_end_within_ten_minutes_opens_the_breaker_and_it_tries_for_ever() {
        let mut budget = Budget::default();
        for second in [1, 2, 3] {
            assert_eq!(budget.plan(at(second), LIMITS), Plan::Backoff);
            budget.spend(at(second), LIMITS);
        }
        assert_eq!(budget.plan(at(4), LIMITS), Plan::Breaker { at: at(304), opened_now: true });
        let mut now = 304;
        for wait in [900, 1_800, 1_800, 1_800] {
            budget.spend(at(now), LIMITS);
            let next = at(now + wait);
            assert_eq!(budget.plan(at(now + 1), LIMITS), Plan::Breaker { at: next, opened_now: false });
            now += wait;
        }
        budget.proven();
        assert_eq!(budget.plan(at(now), LIMITS), Plan::Backoff);
    }

    #[test]
    fn restarts_that_are_older_than_the_window_do_not_count() {
        let mut budget = Budget::default();
        for second in [0, 300, 599] {
            budget.spend(at(second), LIMITS);
        }
        assert_eq!(budget.plan(at(600), LIMITS), Plan::Backoff);
        assert_eq!(budget.spent(at(600), LIMITS), 2);
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded_and_the_next_start_is_always_known(
            ends in prop::collection::vec((0_u64..400, any::<bool>()), 1..60)
        ) {
            let (mut budget, mut now, mut restarts, mut tries) = (Budget::default(), 0, Vec::new(), Vec::new());
            for (after, healthy) in ends {
                now += after;
                if healthy && after > 350 {
                    budget.proven();
                    restarts.clear();
                }
                match budget.plan(at(now), LIMITS) {
                    Plan::Backoff => restarts.push(now),
                    Plan::Breaker { at: next, .. } => {
                        prop_assert!(next > at(now).saturating_sub(at(1)) && next <= at(now + 1_800));
                        now = now.max(next.as_secs());
                        if let Some(last) = tries.last() {
                            prop_assert!(now - last >= 300 || budget.breaker().unwrap().tries == 0);
                        }
                        tries.push(now);
                    }
                }
                budget.spend(at(now), LIMITS);
                let recent = restarts.iter().filter(|then| now - **then < 600).count();
                prop_assert!(recent <= 3, "{recent} restarts in ten minutes");
            }
        }
    }
}
