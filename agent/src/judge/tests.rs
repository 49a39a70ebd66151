//! What the judge promises, as statements and as properties over any order of inputs.

mod evidence;
mod life;
mod people;
mod properties;

use super::ladder::Deed;
use super::progress::{GpuView, JobsView};
use super::*;
use crate::leases::Lease;
use crate::orders::Verb;
use crate::probe::Verdict;
use crate::restart::Signal;
use crate::restart::{Exit, Found, Process};

pub(super) fn config() -> JudgeConfig {
    JudgeConfig {
        worker: WorkerId::new("w").unwrap(),
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(120)),
        startup_min: Duration::from_secs(90),
        startup_max: Duration::from_secs(300),
        healthy_after: Duration::from_secs(600),
        stable_after: Duration::from_secs(1_800),
        failures: 2,
        readiness: 1,
        prove_job: false,
        limits: Limits { restarts_max: 3, window: Duration::from_secs(600) },
        stop_live: true,
        wedge_after: Duration::from_secs(60),
        leak: (32 << 20, 1 << 30),
        gpu: GpuNeed::Auto,
        stop: Rules {
            take_out: false,
            drain_max: Duration::from_secs(1_800),
            grace: None,
            hung_grace: Duration::from_secs(15),
            traceback: None,
        },
        put_back: false,
    }
}

/// A judge with a hand on the clock.
struct Desk {
    state: State,
    now: Duration,
    config: JudgeConfig,
}

impl Desk {
    fn new() -> Self {
        Self { state: State::new(), now: Duration::ZERO, config: config() }
    }

    /// A worker that does not run and is being started.
    fn starting() -> Self {
        let mut desk = Self::new();
        assert_eq!(desk.put(Input::AgentStarted), [Action::Look]);
        assert_eq!(desk.put(Input::Found(Found::Stopped { exit: None })), [Action::Start]);
        desk
    }

    /// A worker that is ready as process 1.
    fn ready() -> Self {
        let mut desk = Self::starting();
        desk.put(started(1));
        desk.after(3_000, probed(1, Verdict::Ready));
        desk
    }

    fn after(&mut self, ms: u64, input: Input) -> Vec<Action> {
        self.now += Duration::from_millis(ms);
        let (state, actions) = step(self.state.clone(), input, self.now, &self.config, 0.999_999);
        self.state = state;
        actions.into_iter().filter(|action| *action != Action::Save).collect()
    }

    fn put(&mut self, input: Input) -> Vec<Action> {
        self.after(0, input)
    }

    /// The same look and probe each second, for so long; every action but the telling.
    fn live(&mut self, seconds: u64, views: &Views, verdict: &Verdict) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..seconds {
            actions.extend(self.after(1_000, Input::Seen(views.clone())));
            let pid = self.state.pid().unwrap_or_default();
            actions.extend(self.put(probed(pid, verdict.clone())));
        }
        actions
    }

    fn order(&mut self, verb: Verb) -> Vec<Action> {
        self.put(Input::Ordered(Wanted { verb, now: false, by: "alice".into(), reason: None }))
    }
}

fn started(pid: u32) -> Input {
    Input::Started(Process { pid, age: Duration::ZERO })
}

pub(super) fn probed(pid: u32, verdict: Verdict) -> Input {
    Input::Probed { pid, verdict }
}

fn not_ready() -> Verdict {
    Verdict::NotReady { reason: "loading".into() }
}

fn silent() -> Verdict {
    Verdict::NoAnswer { reason: "refused".into() }
}

fn end(pid: u32) -> Exit {
    Exit { pid, reason: "signal 9 (SIGKILL)".into(), signal: Some(9), ..Exit::default() }
}

fn exited(pid: u32) -> Input {
    Input::Exited(end(pid))
}

fn worker() -> WorkerId {
    WorkerId::new("w").unwrap()
}

fn told(actions: &[Action]) -> Vec<&What> {
    actions
        .iter()
        .filter_map(|action| if let Action::Emit(what) = action { Some(what) } else { None })
        .collect()
}

fn signals(actions: &[Action]) -> Vec<Signal> {
    let sent =
        |action: &Action| if let Action::Do(Deed::Send(signal)) = action { Some(*signal) } else { None };
    actions.iter().filter_map(sent).collect()
}

fn cause(actions: &[Action]) -> Option<Cause> {
    told(actions)
        .iter()
        .find_map(|what| if let What::WorkerStopping { cause, .. } = what { Some(*cause) } else { None })
}

/// A worker that is there and does nothing.
fn still(memory: u64) -> Views {
    let gpu = Some(GpuView { memory_bytes: memory, busy: Some(false) });
    Views { cpu_ratio: Some(0.0), gpu, ..Views::default() }
}
