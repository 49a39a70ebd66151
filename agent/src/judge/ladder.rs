//! How a live worker is stopped, step by step: takes what was done, what is under way and the time; gives the
//! next deed. Pure.
//!
//! Out of the balancer -> its jobs end -> SIGTERM, with a grace as long as its jobs -> a signal that makes it
//! write its traceback, where one is configured -> SIGKILL to everything of it -> nothing of it is left.
//! A worker that hangs is not waited for. Each step is bounded; the last is repeated until it worked.

use std::time::Duration;

use diarwatch_shared::event::Cause;
use serde::Serialize;

use crate::restart::Signal;

/// How long a hook may keep a ladder.
pub const HOOK_MAX: Duration = Duration::from_secs(60);
/// Between the traceback's signal and SIGKILL.
pub const TRACEBACK_WAIT: Duration = Duration::from_secs(2);
/// From one SIGKILL to the next.
pub const KILL_AGAIN: Duration = Duration::from_secs(10);
/// What a start that stands still has between SIGTERM and SIGKILL.
pub const LOAD_GRACE: Duration = Duration::from_secs(3);
/// What is added to the longest job, for the grace.
pub const GRACE_MARGIN: Duration = Duration::from_secs(30);

/// What the steps depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether something takes the worker out of its balancer.
    pub take_out: bool,
    /// How long jobs are waited for before SIGTERM.
    pub drain_max: Duration,
    /// The grace, where it does not follow the jobs.
    pub grace: Option<Duration>,
    /// The grace of a worker that hangs.
    pub hung_grace: Duration,
    /// The signal of the traceback.
    pub traceback: Option<i32>,
}

/// How much patience a worker is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Patience {
    /// It works: its jobs may end.
    Jobs,
    /// Jobs under way are given up, or fail in any case.
    Short,
    /// It has not even come up.
    Load,
}

/// A stop under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// Why.
    pub cause: Cause,
    /// What was seen.
    pub reason: String,
    /// Its patience.
    pub patience: Patience,
    /// Where it stands.
    pub step: Step,
    /// Since when.
    pub since: Duration,
}

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The balancer is being told.
    TakingOut,
    /// Its jobs end.
    Draining,
    /// SIGTERM was sent.
    Terminating,
    /// The traceback was asked for.
    Tracing,
    /// SIGKILL was sent.
    Killing,
}

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Run the hook that takes the worker out of its balancer.
    TakeOut,
    /// Run the hook that puts it back.
    PutBack,
    /// Send this.
    Send(Signal),
    /// Post a job made up for it.
    Prove,
}

impl Ladder {
    /// The first step.
    #[must_use]
    pub fn begin(
        cause: Cause,
        reason: String,
        patience: Patience,
        now: Duration,
        rules: &Rules,
    ) -> (Self, Option<Deed>) {
        let mut ladder = Self { cause, reason, patience, step: Step::Draining, since: now };
        if patience == Patience::Load {
            let deed = ladder.go(Step::Terminating, now);
            return (ladder, deed);
        }
        if rules.take_out {
            let deed = ladder.go(Step::TakingOut, now);
            return (ladder, deed);
        }
        (ladder, None)
    }

    /// The next deed, if one is due. `jobs` under way, as far as that is known; `longest` is the longest
    /// job that was seen.
    pub fn next(
        &mut self,
        jobs: Option<u32>,
        longest: Option<Duration>,
        now: Duration,
        rules: &Rules,
    ) -> Option<Deed> {
        let waited = now.saturating_sub(self.since);
        match self.step {
            Step::TakingOut if waited >= HOOK_MAX => self.go(Step::Draining, now),
            // Jobs of which nothing is known are ended by the worker itself, within the grace.
            Step::Draining if self.patience != Patience::Jobs || matches!(jobs, None | Some(0)) => {
                self.go(Step::Terminating, now)
            }
            Step::Draining if waited >= rules.drain_max => self.go(Step::Terminating, now),
            Step::Terminating if waited >= self.grace(longest, rules) => match rules.traceback {
                Some(_) => self.go(Step::Tracing, now).map(|_| self.trace(rules)),
                None => self.go(Step::Killing, now),
            },
            Step::Tracing if waited >= TRACEBACK_WAIT => self.go(Step::Killing, now),
            Step::Killing if waited >= KILL_AGAIN => self.go(Step::Killing, now),
            _ => None,
        }
    }

    /// The hook came to its end, however.
    pub fn taken_out(&mut self, now: Duration) {
        if self.step == Step::TakingOut {
            self.go(Step::Draining, now);
        }
    }

    /// When time alone takes it a step on.
    #[must_use]
    pub fn deadline(&self, longest: Option<Duration>, rules: &Rules) -> Duration {
        let wait = match self.step {
            Step::TakingOut => HOOK_MAX,
            Step::Draining => rules.drain_max,
            Step::Terminating => self.grace(longest, rules),
            Step::Tracing => TRACEBACK_WAIT,
            Step::Killing => KILL_AGAIN,
        };
        self.since.saturating_add(wait)
    }

    /// Between SIGTERM and SIGKILL.
    #[must_use]
    pub fn grace(&self, longest: Option<Duration>, rules: &Rules) -> Duration {
        match self.patience {
            Patience::Jobs => {
                rules.grace.unwrap_or_else(|| longest.unwrap_or(Duration::ZERO).saturating_add(GRACE_MARGIN))
            }
            Patience::Short => rules.hung_grace,
            Patience::Load => LOAD_GRACE.min(rules.hung_grace),
        }
    }

    fn go(&mut self, step: Step, now: Duration) -> Option<Deed> {
        (self.step, self.since) = (step, now);
        match step {
            Step::TakingOut => Some(Deed::TakeOut),
            Step::Draining => None,
            Step::Terminating => Some(Deed::Send(Signal::Terminate)),
            // The number is the rules'.
            Step::Tracing => Some(Deed::Send(Signal::Traceback(0))),
            Step::Killing => Some(Deed::Send(Signal::Kill)),
        }
    }

    fn trace(&self, rules: &Rules) -> Deed {
        Deed::Send(Signal::Traceback(rules.traceback.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> Rules {
        Rules {
            take_out: true,
            drain_max: Duration::from_secs(1_800),
            grace: None,
            hung_grace: Duration::from_secs(15),
            traceback: Some(10),
        }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Every deed of a stop during which nothing answers, with its second.
    fn all(patience: Patience, jobs: Option<u32>, rules: &Rules, until: u64) -> Vec<(u64, Deed)> {
        let (mut ladder, deed) = Ladder::begin(Cause::Operator, String::new(), patience, secs(0), rules);
        let mut deeds: Vec<(u64, Deed)> = deed.map(|deed| (0, deed)).into_iter().collect();
        for second in 0..until {
            while let Some(deed) = ladder.next(jobs, Some(secs(200)), secs(second), rules) {
                deeds.push((second, deed));
            }
        }
        deeds
    }

    #[test]
    fn a_worker_with_jobs_is_given_the_time_of_its_jobs_before_each_harder_step() {
        let deeds = all(Patience::Jobs, Some(1), &rules(), 2_130);
        let expected = [
            (0, Deed::TakeOut),
            (1_860, Deed::Send(Signal::Terminate)),
            (2_090, Deed::Send(Signal::Traceback(10))),
            (2_092, Deed::Send(Signal::Kill)),
            (2_102, Deed::Send(Signal::Kill)),
            (2_112, Deed::Send(Signal::Kill)),
            (2_122, Deed::Send(Signal::Kill)),
        ];
        assert_eq!(deeds, expected);
    }

    #[test]
    fn a_worker_that_hangs_is_not_waited_for_and_one_that_never_came_up_even_less() {
        let rules = Rules { take_out: false, traceback: None, ..rules() };
        let kill = |at| (at, Deed::Send(Signal::Kill));
        assert_eq!(all(Patience::Short, Some(3), &rules, 20), [(0, Deed::Send(Signal::Terminate)), kill(15)]);
        assert_eq!(all(Patience::Load, None, &rules, 10), [(0, Deed::Send(Signal::Terminate)), kill(3)]);
    }

    #[test]
    fn a_worker_without_jobs_gets_its_signal_once_it_is_out_of_the_balancer() {
        let (mut ladder, deed) =
            Ladder::begin(Cause::Operator, String::new(), Patience::Jobs, secs(0), &rules());
        assert_eq!(deed, Some(Deed::TakeOut));
        assert_eq!(ladder.next(Some(0), None, secs(1), &rules()), None);
        ladder.taken_out(secs(1));
        assert_eq!(ladder.next(Some(0), None, secs(1), &rules()), Some(Deed::Send(Signal::Terminate)));
        assert_eq!(ladder.grace(None, &rules()), GRACE_MARGIN);
    }

    proptest! {
        #[test]
        fn sigkill_never_comes_before_sigterm_and_its_grace_and_always_comes(
            jobs in prop::option::of(0_u32..3), take_out: bool, short: bool, grace in 0_u64..4_000,
        ) {
            let rules = Rules { take_out, grace: Some(secs(grace)), ..rules() };
            let patience = if short { Patience::Short } else { Patience::Jobs };
            let deeds = all(patience, jobs, &rules, 8_000);
            let at = |wanted: Signal| deeds.iter().find(|(_, deed)| *deed == Deed::Send(wanted)).map(|(at, _)| *at);
            let (term, kill) = (at(Signal::Terminate).unwrap(), at(Signal::Kill).unwrap());
            let grace = if short { 15 } else { grace };
            prop_assert!(kill >= term + grace);
        }
    }
}
