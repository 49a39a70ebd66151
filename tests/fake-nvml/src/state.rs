//! What every call passes first: takes the name of the entry point and the GPU it is about, gives
//! the [`Moment`] it is answered from, or the error that the scenario has for it.
//!
//! A call that hangs holds no lock: the others go on.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::abi::{Answer, Code, Handle};
use crate::book::{Book, Moment};
use crate::claims::Claim;
use crate::scenario::{Action, Card, Key, Process, Scenario};
use crate::{clock, stats};

/// How soon a hung call notices that the scenario healed it.
const HANG_STEP: Duration = Duration::from_millis(2);
/// A GPU is not busier than this, percent.
const UTIL_MAX: f64 = 100.0;

/// One GPU at the time of a call.
pub(crate) struct Device {
    moment: Moment,
    /// Its index.
    pub(crate) index: u32,
}

impl Device {
    /// What the scenario says about it.
    pub(crate) fn card(&self) -> Result<&Card, Code> {
        self.moment.scenario.cards.get(self.index as usize).ok_or(Code::INVALID_ARGUMENT)
    }

    /// A value now.
    pub(crate) fn read(&self, key: Key) -> Result<f64, Code> {
        self.read_ago(key, 0.0)
    }

    /// A value some seconds ago, not before the load. Claims have no past: those of now count.
    pub(crate) fn read_ago(&self, key: Key, seconds: f64) -> Result<f64, Code> {
        let card = self.card()?;
        let said = card.read(key, (self.moment.seconds - seconds).max(0.0))?;
        let claimed =
            |of: fn(&Claim) -> u32| self.claims(card).map(|claim| f64::from(of(claim))).sum::<f64>();
        Ok(match key {
            Key::MemUsedMib => said + claimed(|claim| claim.mib),
            Key::Util => (said + claimed(|claim| claim.sm)).min(UTIL_MAX),
            _ => said,
        })
    }

    /// The processes on it: the scenario's, then those that claim it.
    pub(crate) fn processes(&self) -> Result<Vec<Process>, Code> {
        let card = self.card()?;
        let claimed = self.claims(card).filter_map(Claim::process);
        Ok(card.processes.iter().copied().chain(claimed).collect())
    }

    fn claims(&self, card: &Card) -> impl Iterator<Item = &Claim> {
        self.moment.claims.iter().filter(|claim| claim.is_on(self.index, card))
    }

    /// A value now, cut to a whole number.
    pub(crate) fn whole(&self, key: Key) -> Result<u64, Code> {
        self.read(key).map(whole)
    }

    /// A value now, cut to what a C `unsigned int` holds.
    pub(crate) fn small(&self, key: Key) -> Result<u32, Code> {
        self.whole(key).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
    }

    /// A counter of what a key has added up to; it never runs backwards.
    pub(crate) fn counter(&self, key: Key) -> Result<u64, Code> {
        Ok(whole(self.moment.counter(self.index, self.card()?, key)?))
    }
}

/// Cuts a float to a whole number; what is below 0 is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// What a call does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Answer,
    Fail(Code),
    Wait(Duration),
}

/// Decides for a call that has been here for `waited`.
fn step(action: Action, waited: Duration) -> Step {
    match action {
        Action::Answer => Step::Answer,
        Action::Fail(code) => Step::Fail(code),
        Action::Hang(time) if waited < time => Step::Wait(HANG_STEP),
        Action::Delay(time) if waited < time => Step::Wait(time.saturating_sub(waited)),
        Action::Hang(_) | Action::Delay(_) => Step::Answer,
    }
}

/// What the whole process shares.
struct Shared {
    book: Book,
    /// Calls of `nvmlInit` without their `nvmlShutdown`.
    users: u32,
}

static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(|| {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let (scenario, claims) = (named("DIARWATCH_FAKE_NVML_SCENARIO"), named("DIARWATCH_FAKE_NVML_CLAIMS"));
    Mutex::new(Shared { book: Book::new(scenario, claims), users: 0 })
});

fn shared() -> MutexGuard<'static, Shared> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the call and applies what the scenario says about it.
pub(crate) fn enter(function: &'static str, gpu: Option<u32>) -> Result<Moment, Code> {
    let began = clock::uptime();
    stats::count(function, began);
    loop {
        let now = clock::uptime();
        let (moment, is_new, users) = {
            let mut shared = shared();
            let (moment, is_new) = shared.book.moment(now);
            (moment, is_new, shared.users)
        };
        if is_new {
            complain(&moment.scenario);
        }
        if users == 0 && !function.starts_with("nvmlInit") {
            return Err(Code::UNINITIALIZED);
        }
        match step(moment.scenario.action(function, gpu), now.saturating_sub(began)) {
            Step::Answer => return Ok(moment),
            Step::Fail(code) => return Err(code),
            Step::Wait(time) => std::thread::sleep(time),
        }
    }
}

/// A call about one GPU.
pub(crate) fn on_device(
    function: &'static str,
    handle: Handle,
    body: impl FnOnce(&Device) -> Answer,
) -> Answer {
    let index = handle.index();
    let moment = enter(function, index)?;
    let device = Device { moment, index: index.ok_or(Code::INVALID_ARGUMENT)? };
    device.card()?;
    body(&device)
}

/// A call about the library as a whole.
pub(crate) fn on_system(function: &'static str, body: impl FnOnce(&Moment) -> Answer) -> Answer {
    body(&enter(function, None)?)
}

/// One more user of the library.
pub(crate) fn begin() {
    let mut shared = shared();
    shared.users = shared.users.saturating_add(1);
}

/// One user less.
pub(crate) fn end() {
    let mut shared = shared();
    shared.users = shared.users.saturating_sub(1);
}

/// A scenario that is not understood is told to the person who wrote it, where they look: on
/// stderr, and after the lock is let go, for stderr may be a pipe that nobody reads.
fn complain(scenario: &Scenario) {
    let mut stderr = std::io::stderr().lock();
    for complaint in &scenario.complaints {
        drop(writeln!(stderr, "fake-nvml: scenario {complaint}"));
    }
    if scenario.complaints_dropped > 0 {
        drop(writeln!(stderr, "fake-nvml: scenario: {} more", scenario.complaints_dropped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_call_comes_back_when_it_is_healed_or_its_time_is_over() {
        let second = Duration::from_secs(1);
        assert_eq!(step(Action::Hang(Duration::MAX), second * 1_000_000), Step::Wait(HANG_STEP));
        assert_eq!(step(Action::Hang(second), second), Step::Answer);
        assert_eq!(step(Action::Answer, second), Step::Answer);
    }

    #[test]
    fn a_delayed_call_waits_only_for_what_is_left() {
        let millis = Duration::from_millis;
        assert_eq!(step(Action::Delay(millis(10)), millis(4)), Step::Wait(millis(6)));
        assert_eq!(step(Action::Delay(millis(10)), millis(10)), Step::Answer);
    }

    #[test]
    fn a_negative_value_is_zero_and_a_huge_one_saturates() {
        assert_eq!([whole(-5.0), whole(f64::NAN), whole(1e300)], [0, 0, u64::MAX]);
    }
}
