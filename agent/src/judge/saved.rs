//! What outlives the agent of a worker's judge: what earlier starts took, restarts and breaker, what a person
//! holds. An agent that is upgraded must not forget that a worker was restarted three times just now. Takes
//! and gives times of the wall clock; the file is written by the shell. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use serde::{Deserialize, Serialize};

use super::budget::{Breaker, Budget};
use super::gate::Loads;
use super::{State, millis};

/// The version of the form.
pub const VERSION: u32 = 1;
/// Restarts that are read back.
const SPENT_MAX: usize = 64;

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// [`VERSION`] of the writer; a later one is left as it is.
    pub version: u32,
    /// What the last starts took, in milliseconds.
    pub loads_ms: Vec<u64>,
    /// Restarts since it last proved healthy.
    pub attempts: u32,
    /// When they were.
    pub spent: Vec<UnixMicros>,
    /// An open breaker: since when, tries, when the next is due.
    #[serde(default)]
    pub breaker: Option<(UnixMicros, u32, UnixMicros)>,
    /// The longest job, in milliseconds.
    #[serde(default)]
    pub longest_job_ms: Option<u64>,
    /// Whether it ever held GPU memory, and whether it did when it became ready.
    #[serde(default)]
    pub gpu: (bool, bool),
    /// Who holds it.
    #[serde(default)]
    pub held: Option<String>,
    /// Who drained it.
    #[serde(default)]
    pub drained: Option<String>,
    /// Why it is left alone.
    #[serde(default)]
    pub left_alone: Option<String>,
    /// Whether its balancer leaves it out.
    #[serde(default)]
    pub out: bool,
    /// Restarts so far, for the series.
    #[serde(default)]
    pub restarts: u64,
}

impl State {
    /// What has to be written down, at `now` by the judge's clock and `wall` by the wall clock.
    #[must_use]
    pub fn saved(&self, now: Duration, wall: UnixMicros) -> Saved {
        // Times ahead are in the future of the wall clock, too.
        let wall_of = |at: Duration| match at.checked_sub(now) {
            Some(ahead) => wall.plus(ahead),
            None => wall.minus(now.saturating_sub(at)),
        };
        Saved {
            version: VERSION,
            loads_ms: self.loads.iter().map(millis).collect(),
            attempts: self.attempts,
            spent: self.budget.spent.iter().copied().map(wall_of).collect(),
            breaker: self.budget.breaker.map(|b| (wall_of(b.opened), b.tries, wall_of(b.next))),
            longest_job_ms: self.longest_job.map(millis),
            gpu: (self.gpu_seen, self.gpu_when_ready),
            held: self.held.clone(),
            drained: self.drained.clone(),
            left_alone: self.left_alone(),
            out: self.out,
            restarts: self.restarts,
        }
    }

    /// Why it is left alone, now or when an earlier agent saw it last.
    fn left_alone(&self) -> Option<String> {
        match &self.stage {
            super::Stage::LeftAlone { reason } => Some(reason.clone()),
            super::Stage::Idle => self.was_left_alone.clone(),
            _ => None,
        }
    }

    /// A worker of which an earlier agent wrote this down. A wall clock that was set meanwhile cannot make
    /// a wait longer than the breaker's longest.
    #[must_use]
    pub fn restored(saved: &Saved, now: Duration, wall: UnixMicros) -> Self {
        let ago = |at: UnixMicros| now.saturating_sub(wall.since(at));
        let spent: VecDeque<Duration> =
            saved.spent.iter().rev().take(SPENT_MAX).rev().map(|at| ago(*at)).collect();
        let longest = super::budget::TRIES.last().copied().unwrap_or_default();
        let breaker = saved.breaker.map(|(opened, tries, next)| Breaker {
            opened: ago(opened),
            tries,
            next: if next > wall { now.saturating_add(next.since(wall).min(longest)) } else { ago(next) },
        });
        Self {
            loads: Loads::of(saved.loads_ms.iter().map(|ms| Duration::from_millis(*ms))),
            attempts: saved.attempts,
            budget: Budget { spent, breaker },
            longest_job: saved.longest_job_ms.map(Duration::from_millis),
            gpu_seen: saved.gpu.0,
            gpu_when_ready: saved.gpu.1,
            held: saved.held.clone(),
            drained: saved.drained.clone(),
            was_left_alone: saved.left_alone.clone(),
            out: saved.out,
            restarts: saved.restarts,
            ..Self::new()
        }
    }

    /// A worker of which nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: super::Stage::Idle,
            since: Duration::ZERO,
            lost_at: None,
            attempts: 0,
            restarts: 0,
            last_exit: None,
            loads: Loads::default(),
            budget: Budget::default(),
            longest_job: None,
            gpu_seen: false,
            gpu_when_ready: false,
            views: super::Views::default(),
            blind: None,
            held: None,
            drained: None,
            was_left_alone: None,
            out: false,
            lease: super::Leave::None,
            stopped_alone: None,
            named: None,
            often: VecDeque::new(),
            often_told: VecDeque::new(),
            told: None,
            notes: VecDeque::new(),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_an_agents_restart_counts_after_it() {
        let (now, wall) = (Duration::from_secs(10_000), UnixMicros(1_700_000_000_000_000));
        let mut state = State::new();
        state.budget.spent = VecDeque::from([Duration::from_secs(9_700), Duration::from_secs(9_990)]);
        let breaker =
            Breaker { opened: Duration::from_secs(9_995), tries: 1, next: Duration::from_secs(10_900) };
        state.budget.breaker = Some(breaker);
        state.loads.add(Duration::from_secs(42));
        (state.attempts, state.held) = (4, Some("alice".into()));
        let text = serde_json::to_string(&state.saved(now, wall)).unwrap();
        // Another boot, a minute later.
        let (later, wall) = (Duration::from_secs(400), wall.plus(Duration::from_secs(60)));
        let back = State::restored(&serde_json::from_str(&text).unwrap(), later, wall);
        assert_eq!(back.budget.spent, [Duration::from_secs(40), Duration::from_secs(330)]);
        let breaker = back.budget.breaker.unwrap();
        assert_eq!((breaker.tries, breaker.next), (1, Duration::from_secs(400 + 840)));
        assert_eq!((back.attempts, back.held.as_deref()), (4, Some("alice")));
        assert_eq!(back.loads, state.loads);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_wait_longer_than_the_breakers_longest() {
        let (now, wall) = (Duration::from_secs(10_000), UnixMicros(1_700_000_000_000_000));
        let mut state = State::new();
        state.budget.breaker =
            Some(Breaker { opened: now, tries: 2, next: now + Duration::from_secs(1_800) });
        let saved = state.saved(now, wall);
        let back = State::restored(&saved, now, wall.minus(Duration::from_secs(86_400)));
        assert!(back.budget.breaker.unwrap().next <= now + Duration::from_secs(1_800));
    }
}
