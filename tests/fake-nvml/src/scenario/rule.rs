//! What a scenario does to calls, and the events it raises. Pure.

use std::time::Duration;

use super::not_a;
use crate::abi::Code;

/// Longest delay of one call; a longer one is a hang.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// The highest number that NVML returns ("unknown error").
const CODE_MAX: i32 = 999;

/// Which calls a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Any call.
    Any,
    /// Calls about any GPU.
    EveryGpu,
    /// Calls about one GPU.
    Gpu(u32),
}

impl Scope {
    /// Reads the part after `gpu.`: an index or `*`.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::EveryGpu);
        }
        text.parse().map(Self::Gpu).map_err(|_| format!("`{text}` is not the index of a GPU, nor `*`"))
    }

    pub(super) fn covers(self, gpu: Option<u32>) -> bool {
        match self {
            Self::Any => true,
            Self::EveryGpu => gpu.is_some(),
            Self::Gpu(index) => gpu == Some(index),
        }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is answered.
    Answer,
    /// It returns an error.
    Fail(Code),
    /// It does not return until the time is over or the scenario heals it.
    Hang(Duration),
    /// It is answered late.
    Delay(Duration),
}

impl Action {
    /// Reads `ok`, `lost`, `err:CODE`, `hang`, `hang:SECONDS` or `delay_us:N`.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a state; write ok, lost, err:CODE, hang, hang:SECONDS or delay_us:N");
        match text.split_once(':').unwrap_or((text, "")) {
            ("ok", "") => Ok(Self::Answer),
            ("lost", "") => Ok(Self::Fail(Code::GPU_IS_LOST)),
            ("hang", "") => Ok(Self::Hang(Duration::MAX)),
            ("hang", seconds) => {
                let seconds = seconds.parse().map_err(|_| wrong())?;
                Duration::try_from_secs_f64(seconds).map(Self::Hang).map_err(|_| wrong())
            }
            // 0 would tell the caller that an answer is there which nobody wrote.
            ("err", code) => {
                let code = code.parse().ok().filter(|code| (1..=CODE_MAX).contains(code));
                code.map(|code| Self::Fail(Code(code))).ok_or_else(wrong)
            }
            ("delay_us", micros) => {
                let delay = micros.parse().map(Duration::from_micros).map_err(|_| wrong())?;
                Some(Self::Delay(delay)).filter(|_| delay <= DELAY_MAX).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

/// One line about calls.
#[derive(Debug)]
pub(crate) struct Rule {
    scope: Scope,
    function: String,
    /// What happens to the calls it fits.
    pub(crate) action: Action,
}

impl Rule {
    pub(super) fn parse(scope: Scope, function: &str, value: &str) -> Result<Self, String> {
        if function != "*" && !function.starts_with("nvml") {
            return Err(not_a("function of NVML, nor `*`", function));
        }
        Ok(Self { scope, function: function.to_owned(), action: Action::parse(value)? })
    }

    pub(super) fn fits(&self, function: &str, gpu: Option<u32>) -> bool {
        (self.function == "*" || self.function == function) && self.scope.covers(gpu)
    }
}

/// Something a GPU reports by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its number; a waiting caller gets those above the last it got.
    pub(crate) seq: u64,
    /// The GPU it is about.
    pub(crate) gpu: u32,
    /// The bit of its kind.
    pub(crate) kind: u64,
    /// The XID, or nothing.
    pub(crate) data: u64,
}

impl Event {
    /// Reads `GPU KIND DATA`; the kind is a bit or `xid`, `sbe`, `dbe`, `pstate`, `clock`,
    /// `unavailable`, `recovery`.
    pub(super) fn parse(seq: &str, value: &str) -> Result<Self, String> {
        let parts: Vec<&str> = value.split_whitespace().collect();
        let read = match parts.as_slice() {
            [gpu, kind, data] => Self::read(seq, gpu, kind, data),
            _ => None,
        };
        read.ok_or_else(|| format!("`{value}` is not an event; write event.SEQ = GPU KIND DATA"))
    }

    fn read(seq: &str, gpu: &str, kind: &str, data: &str) -> Option<Self> {
        let kind = match kind {
            "sbe" => 1,
            "dbe" => 2,
            "pstate" => 4,
            "xid" => 8,
            "clock" => 16,
            "unavailable" => 0x4000,
            "recovery" => 0x8000,
            bit => bit.parse().ok()?,
        };
        Some(Self { seq: seq.parse().ok()?, gpu: gpu.parse().ok()?, kind, data: data.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_zero_is_refused_for_it_would_pass_as_an_answer() {
        assert!(Action::parse("err:0").is_err());
        assert_eq!(Action::parse("err:15"), Action::parse("lost"));
    }

    #[test]
    fn a_hang_without_a_time_lasts_until_it_is_healed() {
        assert_eq!(Action::parse("hang"), Ok(Action::Hang(Duration::MAX)));
        assert_eq!(Action::parse("hang:2.5"), Ok(Action::Hang(Duration::from_millis(2_500))));
        assert!(Action::parse("hang:-1").is_err());
    }

    #[test]
    fn an_xid_is_an_event_of_its_gpu() {
        assert_eq!(Event::parse("4", "3 xid 79"), Ok(Event { seq: 4, gpu: 3, kind: 8, data: 79 }));
        assert!(Event::parse("4", "3 xid").is_err());
    }
}
