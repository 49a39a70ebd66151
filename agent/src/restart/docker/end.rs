//! How a run of a container ended, and whose doing that was. Takes what the engine says of it, now and in
//! its past events; gives an [`Exit`] with words for a person. Pure.
//!
//! Only `docker stop` (and what does the same: `docker restart`, `docker compose up` that makes it anew)
//! and a removal by force count as a person's will: a `stop` event, or a kill by another and a `destroy`
//! event. A `docker kill`, of whatever signal, without one of them is a crash like any other, and so is
//! the SIGTERM that an agent of before sent: both are started again.

use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;

use crate::engine::{Container, Event};
use crate::restart::Exit;
use crate::restart::child::signal_words;

/// How long before the host's start a container that ended with the host may have ended.
const SHUTDOWN: Duration = Duration::from_secs(300);
/// What Docker adds to the signal that ended a process, and the highest signal.
const SIGNALLED: std::ops::RangeInclusive<i32> = 129..=192;
const SIGKILL: i32 = 9;

/// Whose doing an end was, as far as the engine remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// A person's or a deploy's.
    Stopped,
    /// Nobody's, or a kill's; true when another than this agent sent a signal before, so that the news of
    /// a stop may be on its way.
    Died(bool),
    /// It remembers nothing of it.
    Forgotten,
}

/// What is known of an end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The process; 0 when it is not known.
    pub pid: u32,
    /// What Docker calls the exit code.
    pub code: Option<i32>,
    /// Whether the kernel ended a process of it for want of memory.
    pub oom: bool,
    /// Whether another had Docker send it a signal.
    pub killed: bool,
    /// Whether a person or a deploy stopped it.
    pub by_hand: bool,
}

/// Whose doing the end of a container's last run was; `events` are those since its begin.
#[must_use]
pub fn past(events: &[Event], container: &Container) -> Past {
    let began = container.started().unwrap_or_default();
    let of_run = events.iter().filter(|event| event.id == container.id && event.at >= began);
    let (mut died, mut killed) = (false, false);
    for event in of_run {
        match event.action.as_str() {
            "stop" => return Past::Stopped,
            "die" => died = true,
            "kill" => killed = true,
            _ => {}
        }
    }
    if died { Past::Died(killed) } else { Past::Forgotten }
}

/// Whether an end that nothing is known of was a person's doing: it went as an orderly stop goes, and not
/// when the host went down.
#[must_use]
pub fn looks_stopped(container: &Container, host_started: Option<UnixMicros>) -> bool {
    let orderly = [0, 143].contains(&container.state.exit_code) && container.state.error.is_empty();
    let with_the_host = container
        .finished()
        .zip(host_started)
        .is_some_and(|(finished, started)| finished < started && finished >= started.minus(SHUTDOWN));
    orderly && !container.state.oom_killed && !with_the_host
}

/// The end in the words of the judge.
#[must_use]
pub fn exit(known: Known, container: Option<&Container>) -> Exit {
    let signal = known.code.filter(|code| SIGNALLED.contains(code)).map(|code| code - 128);
    let code = known.code.filter(|_| signal.is_none());
    let mut reason = match (code, signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => signal_words(signal),
        (None, None) => String::from("its end was not seen"),
    };
    if known.oom && signal == Some(SIGKILL) {
        "out of memory (cgroup limit)".clone_into(&mut reason);
    } else if known.oom {
        reason.push_str(", a process of it out of memory (cgroup limit)");
    } else if known.by_hand {
        reason = format!("stopped by hand ({reason})");
    } else if known.killed && signal.is_some() {
        reason.push_str(", through Docker");
    }
    let error = container.map(|container| container.state.error.as_str()).filter(|error| !error.is_empty());
    if let Some(error) = error {
        let error = error.get(..error.floor_char_boundary(240)).unwrap_or_default();
        reason = format!("{reason}: {error}");
    }
    let restarts = !known.by_hand && container.is_some_and(|container| container.state.restarting);
    Exit {
        pid: known.pid,
        reason,
        code,
        signal,
        oom: known.oom,
        core: false,
        by_hand: known.by_hand,
        manager_restarts: restarts,
    }
}

/// An end that is none: the container was frozen, renamed, or replaced.
#[must_use]
pub fn set_aside(pid: u32, reason: String) -> Exit {
    Exit { pid, reason, by_hand: true, ..Exit::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(code: i32, more: &str) -> Container {
        Container::of(&format!(
            r#"{{"Id":"0a","State":{{"Status":"exited","ExitCode":{code},"StartedAt":"2026-01-01T00:00:10Z",
                "FinishedAt":"2026-01-01T00:01:00Z"{more}}}}}"#
        ))
    }

    fn at(text: &str) -> Option<UnixMicros> {
        UnixMicros::from_rfc3339(text)
    }

    fn reason(code: i32, oom: bool, killed: bool, by_hand: bool) -> String {
        exit(Known { pid: 7, code: Some(code), oom, killed, by_hand }, None).reason
    }

    #[test]
    fn an_end_is_told_in_words_for_people() {
        assert_eq!(reason(3, false, false, false), "exit code 3");
        assert_eq!(reason(255, false, false, false), "exit code 255");
        assert_eq!(reason(139, false, false, false), "signal 11 (SIGSEGV)");
        assert_eq!(reason(137, false, true, false), "signal 9 (SIGKILL), through Docker");
        assert_eq!(reason(137, true, false, false), "out of memory (cgroup limit)");
        assert_eq!(
            reason(1, true, false, false),
            "exit code 1, a process of it out of memory (cgroup limit)"
        );
        assert_eq!(reason(143, false, true, true), "stopped by hand (signal 15 (SIGTERM))");
        let exit = exit(Known { code: Some(137), ..Known::default() }, None);
        assert_eq!((exit.code, exit.signal), (None, Some(9)));
    }

    #[test]
    fn what_the_engine_remembers_says_who_stopped_it() {
        let event = |action: &str, id: &str, second: u64| Event {
            action: action.into(),
            id: id.into(),
            at: at("2026-01-01T00:00:00Z").unwrap().plus(Duration::from_secs(second)),
            ..Event::default()
        };
        let container = container(143, "");
        let past = |events: &[Event]| past(events, &container);
        assert_eq!(past(&[event("kill", "0a", 59), event("die", "0a", 60)]), Past::Died(true));
        assert_eq!(past(&[event("die", "0a", 60), event("stop", "0a", 60)]), Past::Stopped);
        assert_eq!(past(&[event("die", "0a", 60), event("stop", "0b", 60)]), Past::Died(false));
        assert_eq!(past(&[event("stop", "0a", 9)]), Past::Forgotten, "that was the run before");
        assert_eq!(past(&[]), Past::Forgotten);
    }

    #[test]
    fn an_orderly_end_that_nothing_is_known_of_was_a_stop_unless_the_host_went_down() {
        assert!(looks_stopped(&container(0, ""), None));
        assert!(looks_stopped(&container(143, ""), at("2025-12-31T00:00:00Z")));
        assert!(looks_stopped(&container(143, ""), at("2026-01-02T00:00:00Z")), "it was stopped long before");
        assert!(!looks_stopped(&container(143, ""), at("2026-01-01T00:02:00Z")));
        for code in [1, 137, 139] {
            assert!(!looks_stopped(&container(code, ""), None), "{code}");
        }
        assert!(!looks_stopped(&container(0, ",\"OOMKilled\":true"), None));
        assert!(!looks_stopped(&container(0, ",\"Error\":\"no such device\""), None));
    }
}
