//! What systemd says of a unit, put together. Takes properties as they come, by answer or by signal;
//! gives where the unit stands and how its main process ended. Pure: no bus, no clock, no files.
//!
//! A signal of the service's side comes before the one of the unit's side, each with all that changes,
//! so an end is complete once both were seen. It is kept under its pid: when systemd starts the next
//! process at once, the end of the one before is still known.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::restart::Exit;
use crate::restart::child::exit_of;

/// Ends of main processes that are remembered, the newest; one is asked for within milliseconds.
const ENDS_MAX: usize = 4;

/// systemd's codes of an end, as in `waitid`.
const KILLED: i64 = 2;
const DUMPED: i64 = 3;

/// Results after which systemd itself ended the process: nobody stopped it by hand.
const ENDED_BY_SYSTEMD: [&str; 3] = ["watchdog", "oom-kill", "protocol"];

/// A property's value, as far as any is used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    /// The number of a job; 0 for none.
    Job(u32),
    Bytes(Vec<u8>),
}

/// The side of a unit that properties belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Unit,
    Service,
}

/// A unit as systemd last described it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub active: String,
    /// A finer word: `running`, `dead`, `auto-restart`, `stop-sigterm`.
    pub sub: String,
    /// `success`, or why it is down: `exit-code`, `signal`, `core-dump`, `oom-kill`, `start-limit-hit`.
    pub result: String,
    /// Its main process; 0 while there is none.
    pub main_pid: u32,
    /// How often systemd restarted it by itself.
    pub restarts: i64,
    /// The job that is under way for it; 0 for none.
    pub job: u32,
    pub control_group: String,
    pub invocation_id: String,
    /// Whether it was made over the bus and has no file.
    pub transient: bool,
    /// Whether systemd counts its starts and refuses one too many.
    pub start_limit: bool,
    /// Whether systemd ends it after some time of running.
    runtime_limit: bool,
    /// `Restart=`: after which results systemd starts it again.
    restart: String,
    /// The last main process, also when it is gone.
    exec: Exec,
    /// When it last left `active`, in microseconds since boot.
    active_exit_us: i64,
    /// The job that stops the live main process, if one does.
    stopped_by: Option<u32>,
    /// The job that started it, while that is not over: a process that dies then was not stopped by it.
    started_by: Option<u32>,
    ends: VecDeque<End>,
}

/// A main process by systemd's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exec {
    pid: u32,
    started_us: i64,
    exited_us: i64,
    code: i64,
    status: i64,
}

/// The end of a main process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    exec: Exec,
    result: String,
    /// The unit's side as it was then; none until it is told.
    unit: Option<UnitThen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct UnitThen {
    auto_restart: bool,
    job: u32,
    by_hand: bool,
}

/// An end with what is not part of an [`Exit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub exit: Exit,
    /// The job that was under way then; it says whether a person stops or restarts.
    pub job: u32,
}

impl Unit {
    /// Takes properties of one side; `own_job` is the job that the agent asked for last.
    pub(super) fn apply(&mut self, side: Side, properties: Vec<(String, Value)>, own_job: u32) {
        for (name, value) in properties {
            match side {
                Side::Unit => self.set_unit(&name, value),
                Side::Service => self.set_service(&name, value),
            }
        }
        match side {
            Side::Service => self.note_end(),
            Side::Unit => self.note_unit(own_job),
        }
    }

    /// Whether systemd waits to start it again by itself.
    pub(super) fn auto_restarts(&self) -> bool {
        self.sub.starts_with("auto-restart")
    }

    /// Whether it is being taken down while its main process is gone: what is left of it keeps the next
    /// start waiting, up to `TimeoutStopSec=`.
    pub(super) fn waits_for_leftovers(&self) -> bool {
        let waits = ["stop-sigterm", "stop-sigkill", "final-sigterm", "final-sigkill"];
        self.main_pid == 0 && waits.contains(&self.sub.as_str())
    }

    /// Whether it is down with no job that would change that.
    pub(super) fn is_down(&self) -> bool {
        self.job == 0 && ["inactive", "failed"].contains(&self.active.as_str())
    }

    /// How this process, started then, ended; once systemd has told all of it.
    pub(super) fn end_of(&self, (pid, started_us): (u32, i64)) -> Option<Told> {
        let same = |end: &&End| (end.exec.pid, end.exec.started_us) == (pid, started_us);
        let end = self.ends.iter().find(same)?;
        let then = end.unit.as_ref()?;
        let mut exit = end.words();
        exit.by_hand = then.by_hand;
        exit.manager_restarts = then.auto_restart;
        Some(Told { exit, job: then.job })
    }

    /// The main process that lives, with when it was started: a pid alone may be used again.
    pub(super) fn main(&self) -> Option<(u32, i64)> {
        (self.main_pid != 0).then_some((self.main_pid, self.exec.started_us))
    }

    /// How its last process ended, now that all has settled; none while one runs or when none is known.
    pub(super) fn last_end(&self) -> Option<Exit> {
        let mut exit = self.end_of((self.exec.pid, self.exec.started_us))?.exit;
        exit.manager_restarts = self.auto_restarts();
        Some(exit)
    }

    /// Whether it failed in a start that came after this process.
    pub(super) fn failed_after(&self, pid: u32) -> bool {
        self.active == "failed" && self.exec.pid != pid
    }

    fn set_unit(&mut self, name: &str, value: Value) {
        match (name, value) {
            ("LoadState", Value::Text(text)) => self.load = text,
            ("ActiveState", Value::Text(text)) => self.active = text,
            ("SubState", Value::Text(text)) => self.sub = text,
            ("Job", Value::Job(id)) => self.job = id,
            ("ActiveExitTimestampMonotonic", Value::Number(us)) => self.active_exit_us = us,
            ("StartLimitIntervalUSec", Value::Number(us)) => self.start_limit = us != 0,
            ("Transient", Value::Flag(flag)) => self.transient = flag,
            ("InvocationID", Value::Bytes(bytes)) => {
                self.invocation_id = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            }
            _ => {}
        }
    }

    fn set_service(&mut self, name: &str, value: Value) {
        match (name, value) {
            ("MainPID", Value::Number(pid)) => self.main_pid = u32::try_from(pid).unwrap_or_default(),
            ("Result", Value::Text(text)) => self.result = text,
            ("Restart", Value::Text(text)) => self.restart = text,
            ("NRestarts", Value::Number(count)) => self.restarts = count,
            // A unit that is down has none; what it had stays of use for what is left of it.
            ("ControlGroup", Value::Text(path)) if !path.is_empty() => self.control_group = path,
            ("RuntimeMaxUSec", Value::Number(us)) => self.runtime_limit = us > 0,
            ("ExecMainPID", Value::Number(pid)) => {
                self.exec.pid = u32::try_from(pid).unwrap_or_default();
            }
            ("ExecMainStartTimestampMonotonic", Value::Number(us)) => self.exec.started_us = us,
            ("ExecMainExitTimestampMonotonic", Value::Number(us)) => self.exec.exited_us = us,
            ("ExecMainCode", Value::Number(code)) => self.exec.code = code,
            ("ExecMainStatus", Value::Number(status)) => self.exec.status = status,
            _ => {}
        }
    }

    fn note_end(&mut self) {
        let known = |end: &End| end.exec.pid == self.exec.pid && end.exec.started_us == self.exec.started_us;
        if self.exec.pid == 0 || self.exec.exited_us == 0 {
            return;
        }
        if let Some(end) = self.ends.iter_mut().find(|end| known(end)) {
            if end.unit.is_none() {
                end.result.clone_from(&self.result);
            }
            return;
        }
        if self.ends.len() >= ENDS_MAX {
            self.ends.pop_front();
        }
        self.ends.push_back(End { exec: self.exec.clone(), result: self.result.clone(), unit: None });
    }

    fn note_unit(&mut self, own_job: u32) {
        let lives = self.exec.pid != 0 && self.exec.exited_us == 0;
        let foreign = (self.job != 0 && self.job != own_job).then_some(self.job);
        if lives {
            let stops = self.active == "deactivating";
            self.started_by = if self.active == "activating" { foreign } else { self.started_by };
            self.stopped_by = foreign.filter(|_| stops).or(self.stopped_by.filter(|_| stops));
        }
        let (auto_restart, stopped_by, started_by) = (self.auto_restarts(), self.stopped_by, self.started_by);
        let (active_exit_us, runtime_limit) = (self.active_exit_us, self.runtime_limit);
        for end in self.ends.iter_mut().filter(|end| end.unit.is_none()) {
            let by_job =
                stopped_by.is_some() || (foreign.is_some() && foreign != started_by && !auto_restart);
            // Only a stop makes the unit leave `active` while its process still lives.
            let by_systemd = ENDED_BY_SYSTEMD.contains(&end.result.as_str())
                || (end.result == "timeout" && runtime_limit && !by_job);
            let left_first = end.exec.started_us <= active_exit_us && active_exit_us < end.exec.exited_us;
            let by_hand = by_job || (left_first && !by_systemd);
            // It passes through `deactivating` and `failed`, which do not tell yet what comes after.
            let will_restart = !by_hand && restarts_after(&self.restart, &end.result);
            let (auto_restart, job) = (auto_restart || will_restart, foreign.unwrap_or_default());
            end.unit = Some(UnitThen { auto_restart, job, by_hand });
        }
        if !lives {
            (self.stopped_by, self.started_by) = (None, None);
        }
    }
}

impl End {
    fn words(&self) -> Exit {
        let status = i32::try_from(self.exec.status).unwrap_or(i32::MAX);
        let core = self.exec.code == DUMPED;
        let raw = match self.exec.code {
            KILLED | DUMPED => (status & 0x7f) | if core { 0x80 } else { 0 },
            _ => (status & 0xff) << 8,
        };
        let mut exit = exit_of(ExitStatus::from_raw(raw));
        exit.pid = self.exec.pid;
        let how = std::mem::take(&mut exit.reason);
        match self.result.as_str() {
            "oom-kill" => {
                exit.oom = true;
                exit.reason = format!("out of memory, {how}");
            }
            "watchdog" => exit.reason = format!("it gave systemd's watchdog no sign of life, {how}"),
            "timeout" => exit.reason = format!("a time limit of its unit ran out, {how}"),
            _ => {
                let step = exit.code.and_then(start_step);
                exit.reason =
                    step.map_or_else(|| how.clone(), |step| format!("{how}: systemd could not {step}"));
            }
        }
        exit
    }
}

/// Whether systemd starts a unit again after this result. Exit codes that a unit sets apart are left
/// out: it is noticed when the restart does not come.
fn restarts_after(policy: &str, result: &str) -> bool {
    match policy {
        "always" => true,
        "on-success" => result == "success",
        "on-failure" => result != "success",
        "on-abnormal" => !["success", "exit-code"].contains(&result),
        "on-abort" => ["signal", "core-dump"].contains(&result),
        "on-watchdog" => result == "watchdog",
        _ => false,
    }
}

/// What systemd could not do before the program ran, by the exit code that says so.
fn start_step(code: i32) -> Option<&'static str> {
    Some(match code {
        200 => "enter WorkingDirectory=",
        202 | 209 | 222 => "open its input or output",
        203 => "run the program of ExecStart=",
        216 => "set Group=",
        217 => "find or set User=",
        226 => "set up its file system (ProtectSystem= and the like)",
        228 => "set SystemCallFilter=",
        233 | 238..=242 => "make its directories (StateDirectory= and the like)",
        243 => "load its credentials",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A unit whose process 7 was started at 100 and runs.
    fn running() -> Unit {
        let mut unit = Unit::default();
        tell(
            &mut unit,
            Side::Service,
            &[("MainPID", 7), ("ExecMainPID", 7), ("ExecMainStartTimestampMonotonic", 100)],
        );
        stands(&mut unit, "active", "running", 0, 0);
        unit
    }

    fn tell(unit: &mut Unit, side: Side, numbers: &[(&str, i64)]) {
        let properties = numbers.iter().map(|(name, number)| ((*name).to_owned(), Value::Number(*number)));
        unit.apply(side, properties.collect(), 1);
    }

    /// The unit's side; the agent's own job is number 1.
    fn stands(unit: &mut Unit, active: &str, sub: &str, job: u32, left_active_us: i64) {
        let properties = vec![
            ("ActiveState".to_owned(), Value::Text(active.into())),
            ("SubState".to_owned(), Value::Text(sub.into())),
            ("Job".to_owned(), Value::Job(job)),
            ("ActiveExitTimestampMonotonic".to_owned(), Value::Number(left_active_us)),
        ];
        unit.apply(Side::Unit, properties, 1);
    }

    /// The service's side of the end of process 7 at 200.
    fn ends(unit: &mut Unit, result: &str, code: i64, status: i64) {
        unit.apply(Side::Service, vec![("Result".into(), Value::Text(result.into()))], 1);
        let numbers = [
            ("MainPID", 0),
            ("ExecMainExitTimestampMonotonic", 200),
            ("ExecMainCode", code),
            ("ExecMainStatus", status),
        ];
        tell(unit, Side::Service, &numbers);
    }

    fn end(unit: &Unit) -> Exit {
        unit.end_of((7, 100)).expect("its end was told").exit
    }

    fn after(result: &str, code: i64, status: i64) -> Exit {
        let mut unit = running();
        ends(&mut unit, result, code, status);
        stands(&mut unit, "failed", "failed", 0, 201);
        end(&unit)
    }

    #[test]
    fn an_end_is_told_in_words_for_people() {
        assert_eq!(after("exit-code", 1, 3).reason, "exit code 3");
        assert_eq!(after("signal", 2, 9).reason, "signal 9 (SIGKILL)");
        assert_eq!(after("signal", 2, 35).reason, "signal 35");
        assert_eq!(after("core-dump", 3, 11).reason, "signal 11 (SIGSEGV), core dumped");
        assert_eq!(after("oom-kill", 2, 9).reason, "out of memory, signal 9 (SIGKILL)");
        assert_eq!(
            after("watchdog", 3, 6).reason,
            "it gave systemd's watchdog no sign of life, signal 6 (SIGABRT), core dumped"
        );
        let exec = after("exit-code", 1, 203);
        assert_eq!(exec.reason, "exit code 203: systemd could not run the program of ExecStart=");
        assert_eq!((exec.code, exec.signal, exec.pid), (Some(203), None, 7));
    }

    #[test]
    fn an_end_is_complete_once_both_sides_of_it_were_told() {
        let mut unit = running();
        assert_eq!(unit.main(), Some((7, 100)));
        ends(&mut unit, "signal", 2, 9);
        assert_eq!(unit.end_of((7, 100)), None);
        stands(&mut unit, "failed", "failed", 0, 201);
        assert!(unit.end_of((7, 100)).is_some());
        assert_eq!(unit.end_of((7, 300)), None);
    }

    #[test]
    fn a_stop_by_a_job_of_another_is_by_hand_and_one_by_the_own_job_is_not() {
        for (job, by_hand) in [(9, true), (1, false), (0, false)] {
            let mut unit = running();
            stands(&mut unit, "deactivating", "stop-sigterm", job, 0);
            ends(&mut unit, "success", 2, 15);
            stands(&mut unit, "inactive", "dead", 0, 0);
            assert_eq!(end(&unit).by_hand, by_hand, "job {job}");
        }
    }

    #[test]
    fn a_unit_that_left_active_before_its_process_ended_was_stopped_by_hand() {
        for (left, result, by_hand) in [
            (150, "success", true),
            (150, "exit-code", true),
            (150, "timeout", true),
            (150, "watchdog", false),
            (150, "oom-kill", false),
            (201, "success", false),
            // Of the run before: this one was never active.
            (50, "exit-code", false),
        ] {
            let mut unit = running();
            ends(&mut unit, result, 1, 1);
            stands(&mut unit, "inactive", "dead", 0, left);
            assert_eq!(end(&unit).by_hand, by_hand, "{left} {result}");
        }
    }

    #[test]
    fn a_time_limit_of_the_unit_is_no_hand() {
        let mut unit = running();
        tell(&mut unit, Side::Service, &[("RuntimeMaxUSec", 5)]);
        ends(&mut unit, "timeout", 2, 15);
        stands(&mut unit, "failed", "failed", 0, 150);
        let exit = end(&unit);
        assert!(!exit.by_hand);
        assert_eq!(exit.reason, "a time limit of its unit ran out, signal 15 (SIGTERM)");
    }

    #[test]
    fn a_crash_while_another_starts_it_is_no_stop_by_hand() {
        let mut unit = running();
        stands(&mut unit, "activating", "start", 9, 0);
        ends(&mut unit, "signal", 2, 9);
        stands(&mut unit, "failed", "failed", 9, 0);
        assert!(!end(&unit).by_hand);
    }

    #[test]
    fn the_end_of_a_process_is_known_after_the_next_one_runs() {
        let mut unit = running();
        ends(&mut unit, "signal", 2, 9);
        stands(&mut unit, "activating", "auto-restart", 0, 201);
        let next = [("MainPID", 8), ("ExecMainPID", 8), ("ExecMainStartTimestampMonotonic", 300)];
        tell(&mut unit, Side::Service, &[&next[..], &[("ExecMainExitTimestampMonotonic", 0)]].concat());
        stands(&mut unit, "active", "running", 0, 201);
        assert!(end(&unit).manager_restarts);
        assert_eq!(unit.main(), Some((8, 300)));
        assert_eq!(unit.last_end(), None);
    }

    #[test]
    fn systemds_own_restart_is_foretold_by_its_policy() {
        for (policy, result, restarts) in [
            ("no", "signal", false),
            ("always", "success", true),
            ("on-failure", "success", false),
            ("on-failure", "exit-code", true),
            ("on-abnormal", "exit-code", false),
            ("on-abnormal", "oom-kill", true),
            ("on-abort", "core-dump", true),
            ("on-watchdog", "signal", false),
            ("on-success", "success", true),
        ] {
            let mut unit = running();
            unit.apply(Side::Service, vec![("Restart".into(), Value::Text(policy.into()))], 1);
            ends(&mut unit, result, 1, 0);
            stands(&mut unit, "failed", "failed", 0, 201);
            assert_eq!(end(&unit).manager_restarts, restarts, "{policy} {result}");
            let settled = unit.last_end().expect("it is down");
            assert!(!settled.manager_restarts, "what is settled is not foretold");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_told_an_end_is_kept_for_its_own_process_and_few_are_kept(
            lives in proptest::collection::vec((1_u32..6, 0_i64..4, 0_i64..70, 0_u32..4, 0_i64..900), 0..20)
        ) {
            let mut unit = Unit::default();
            for (number, (pid, code, status, job, left)) in (0_i64..).zip(lives) {
                let (from, pid) = (number * 10 + 1, i64::from(pid));
                let started = [("MainPID", pid), ("ExecMainPID", pid), ("ExecMainExitTimestampMonotonic", 0)];
                tell(&mut unit, Side::Service, &[&started[..], &[("ExecMainStartTimestampMonotonic", from)]].concat());
                stands(&mut unit, "active", "running", job, left);
                prop_assert_eq!(unit.last_end(), None);
                tell(&mut unit, Side::Service, &[
                    ("MainPID", 0), ("ExecMainExitTimestampMonotonic", from + 5),
                    ("ExecMainCode", code), ("ExecMainStatus", status),
                ]);
                stands(&mut unit, "failed", "failed", 0, left);
                let told = unit.end_of((u32::try_from(pid).unwrap(), from)).expect("it was told");
                prop_assert_eq!(i64::from(told.exit.pid), pid);
                prop_assert_eq!(told.exit.code.is_some(), told.exit.signal.is_none() );
                prop_assert!(unit.ends.len() <= ENDS_MAX);
            }
        }
    }
}
