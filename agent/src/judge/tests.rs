//! What the judge promises, as statements and as properties over any order of inputs.

use super::*;
use proptest::prelude::*;

fn config() -> JudgeConfig {
    JudgeConfig {
        worker: WorkerId::new("w").unwrap(),
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(120)),
        startup_max: Duration::from_secs(300),
        healthy_after: Duration::from_secs(60),
        failures: 2,
    }
}

/// A judge with a hand on the clock.
struct Bench {
    state: State,
    now: Duration,
    config: JudgeConfig,
}

impl Bench {
    fn new() -> Self {
        Self { state: State::new(), now: Duration::ZERO, config: config() }
    }

    /// A worker that is ready as process 1.
    fn ready() -> Self {
        let mut bench = Self::new();
        bench.put(Input::AgentStarted);
        bench.put(Input::Started { pid: 1 });
        bench.after(3_000, probed(1, Verdict::Ready));
        bench
    }

    fn after(&mut self, ms: u64, input: Input) -> Vec<Action> {
        self.now += Duration::from_millis(ms);
        let (state, actions) = step(self.state.clone(), input, self.now, &self.config, 0.999_999);
        self.state = state;
        actions
    }

    fn put(&mut self, input: Input) -> Vec<Action> {
        self.after(0, input)
    }
}

fn probed(pid: u32, verdict: Verdict) -> Input {
    Input::Probed { pid, verdict }
}

fn not_ready() -> Verdict {
    Verdict::NotReady { reason: "loading".into() }
}

fn silent() -> Verdict {
    Verdict::NoAnswer { reason: "refused".into() }
}

fn exited(pid: u32) -> Input {
    Input::Exited { pid, reason: "signal 9 (SIGKILL)".into() }
}

fn worker() -> WorkerId {
    WorkerId::new("w").unwrap()
}

#[test]
fn a_deploy_raises_no_alert_while_the_worker_first_loads() {
    let mut bench = Bench::new();
    assert_eq!(bench.put(Input::AgentStarted), [Action::Start]);
    assert_eq!(
        bench.put(Input::Started { pid: 1 }),
        [Action::Emit(What::WorkerStarted { worker: worker(), pid: 1 })]
    );
    for verdict in [silent(), silent(), silent(), not_ready()] {
        assert_eq!(bench.after(1_000, probed(1, verdict)), []);
        assert_eq!((bench.state.ready(), bench.state.phase()), (None, Phase::Starting));
    }
    assert_eq!(
        bench.after(1_000, probed(1, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 5_000, down_ms: None })]
    );
    assert_eq!((bench.state.ready(), bench.state.phase()), (Some(true), Phase::Ready));
}

#[test]
fn a_killed_worker_is_not_ready_until_its_next_process_is() {
    let mut bench = Bench::ready();
    let told = What::WorkerExited {
        worker: worker(),
        pid: Some(1),
        reason: "signal 9 (SIGKILL)".into(),
        attempt: 1,
        restart_in_ms: 999,
    };
    assert_eq!(bench.after(500, exited(1)), [Action::Emit(told)]);
    assert_eq!((bench.state.ready(), bench.state.phase()), (Some(false), Phase::Waiting));
    assert_eq!(bench.after(998, Input::Tick), []);
    assert_eq!(bench.after(1, Input::Tick), [Action::Start]);
    bench.put(Input::Started { pid: 2 });
    assert_eq!((bench.state.ready(), bench.state.phase()), (Some(false), Phase::Starting));
    assert_eq!(
        bench.after(3_000, probed(2, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 3_000, down_ms: Some(3_999) })]
    );
    assert_eq!(bench.state.ready(), Some(true));
    assert_eq!(bench.state.restarts(), 1);
    assert_eq!(bench.state.last_exit(), Some("signal 9 (SIGKILL)"));
}

#[test]
fn a_body_that_says_not_ready_counts_at_once_and_silence_only_in_a_row() {
    let mut bench = Bench::ready();
    for verdict in [silent(), Verdict::Ready, silent()] {
        assert_eq!(bench.after(1_000, probed(1, verdict)), []);
    }
    assert_eq!(
        bench.after(1_000, probed(1, silent())),
        [Action::Emit(What::WorkerNotReady { worker: worker(), reason: "refused".into() })]
    );
    assert_eq!((bench.state.ready(), bench.state.phase()), (Some(false), Phase::NotReady));
    assert_eq!(bench.after(1_000, probed(1, silent())), [], "it is told once");
    assert_eq!(
        bench.after(1_000, probed(1, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 3_000, down_ms: Some(2_000) })]
    );
    assert_eq!(
        bench.after(1_000, probed(1, not_ready())),
        [Action::Emit(What::WorkerNotReady { worker: worker(), reason: "loading".into() })]
    );
    assert_eq!(
        bench.after(500, probed(1, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 3_000, down_ms: Some(500) })],
        "each loss is measured from its own beginning"
    );
}

#[test]
fn a_live_worker_that_is_not_ready_is_never_restarted() {
    let mut bench = Bench::ready();
    for verdict in [silent(), silent(), silent(), not_ready()].iter().cycle().take(1_000) {
        assert!(!bench.after(60_000, probed(1, verdict.clone())).contains(&Action::Start));
    }
    assert_eq!(bench.state.pid(), Some(1));
}

#[test]
fn a_start_that_takes_too_long_is_told_once_with_what_the_probe_saw() {
    let mut bench = Bench::new();
    bench.put(Input::AgentStarted);
    bench.put(Input::Started { pid: 1 });
    bench.after(1_000, probed(1, not_ready()));
    assert_eq!(bench.state.deadline(&bench.config), Some(Duration::from_secs(300)));
    assert_eq!(bench.after(298_999, Input::Tick), []);
    assert_eq!(bench.state.ready(), None);
    assert_eq!(
        bench.after(1, Input::Tick),
        [Action::Emit(What::WorkerStartOverdue {
            worker: worker(),
            reason: "loading".into(),
            waited_ms: 300_000
        })]
    );
    assert_eq!(bench.state.ready(), Some(false));
    assert_eq!(bench.after(600_000, Input::Tick), []);
    assert_eq!(
        bench.put(probed(1, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 900_000, down_ms: Some(600_000) })]
    );
}

#[test]
fn readiness_that_arrives_with_the_last_second_is_not_told_as_overdue() {
    let mut bench = Bench::new();
    bench.put(Input::AgentStarted);
    bench.put(Input::Started { pid: 1 });
    let actions = bench.after(301_000, probed(1, Verdict::Ready));
    assert!(
        matches!(actions.as_slice(), [Action::Emit(What::WorkerReady { down_ms: None, .. })]),
        "{actions:?}"
    );
}

/// Lets the worker crash once, after it was ready for so long; gives attempt and wait.
fn crash(bench: &mut Bench, pid: u32, ready_ms: u64) -> (u32, u64) {
    bench.put(Input::Started { pid });
    bench.put(probed(pid, Verdict::Ready));
    let actions = bench.after(ready_ms, exited(pid));
    let [Action::Emit(What::WorkerExited { attempt, restart_in_ms, .. })] = actions.as_slice() else {
        panic!("an exit is told: {actions:?}");
    };
    assert_eq!(bench.after(*restart_in_ms, Input::Tick), [Action::Start]);
    (*attempt, *restart_in_ms)
}

#[test]
fn the_wait_doubles_to_its_ceiling_and_starts_afresh_after_proven_health() {
    let mut bench = Bench::new();
    bench.put(Input::AgentStarted);
    let crashes: Vec<_> = (1..=9).map(|pid| crash(&mut bench, pid, 59_999)).collect();
    let attempts: Vec<u32> = crashes.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let waits: Vec<u64> = crashes.iter().map(|(_, wait)| wait.div_ceil(1_000)).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
    assert_eq!(crash(&mut bench, 10, 60_000), (1, 999));
    assert_eq!(crash(&mut bench, 11, 59_999), (2, 1_999));
    assert_eq!(bench.state.restarts(), 11);
}

#[test]
fn a_worker_that_cannot_be_started_is_tried_again_and_is_not_ready() {
    let mut bench = Bench::new();
    bench.put(Input::AgentStarted);
    let actions = bench.put(Input::StartFailed { reason: "no such file".into() });
    assert!(
        matches!(actions.as_slice(), [Action::Emit(What::WorkerExited { pid: None, attempt: 1, .. })]),
        "{actions:?}"
    );
    assert_eq!(bench.state.ready(), Some(false));
    assert_eq!(bench.after(1_000, Input::Tick), [Action::Start]);
}

#[test]
fn news_of_a_process_that_is_no_more_changes_nothing() {
    let mut bench = Bench::ready();
    bench.put(exited(1));
    bench.after(1_000, Input::Tick);
    bench.put(Input::Started { pid: 2 });
    let before = bench.state.clone();
    for stale in [exited(1), probed(1, Verdict::Ready), Input::AgentStarted] {
        assert_eq!(bench.put(stale), []);
        assert_eq!(bench.state, before);
    }
    assert_eq!(bench.put(Input::StartFailed { reason: "late".into() }), []);
    assert_eq!(bench.put(Input::Started { pid: 2 }), []);
    assert_eq!(bench.state, before);
}

#[test]
fn a_process_that_someone_else_started_takes_the_place_of_the_wait() {
    let mut bench = Bench::ready();
    bench.put(exited(1));
    bench.put(Input::Started { pid: 2 });
    assert_eq!(bench.after(600_000, probed(2, Verdict::Ready)).len(), 1);
    assert_eq!((bench.state.pid(), bench.state.restarts()), (Some(2), 0));
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Ready), Just(not_ready()), Just(silent())]
}

fn any_input() -> impl Strategy<Value = Input> {
    let pid = 1_u32..4;
    prop_oneof![
        1 => Just(Input::AgentStarted),
        3 => pid.clone().prop_map(|pid| Input::Started { pid }),
        1 => Just(Input::StartFailed { reason: "refused".into() }),
        3 => pid.clone().prop_map(exited),
        4 => (pid, any_verdict()).prop_map(|(pid, verdict)| probed(pid, verdict)),
        4 => Just(Input::Tick),
    ]
}

fn any_history() -> impl Strategy<Value = Vec<(u64, Input)>> {
    let gap = prop_oneof![Just(0), 0_u64..2_000, 0_u64..400_000];
    proptest::collection::vec((gap, any_input()), 0..60)
}

/// What the outside knows of the worker, kept without a look into the state.
#[derive(Default)]
struct World {
    live: Option<u32>,
    launching: bool,
}

impl World {
    fn saw(&mut self, input: &Input) {
        match input {
            Input::Started { pid } => *self = Self { live: Some(*pid), launching: false },
            Input::StartFailed { .. } => self.launching = false,
            Input::Exited { pid, .. } if self.live == Some(*pid) => self.live = None,
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn a_worker_is_never_started_while_a_process_of_it_lives_or_starts(history in any_history()) {
        let (mut bench, mut world) = (Bench::new(), World::default());
        for (gap, input) in history {
            world.saw(&input);
            for action in bench.after(gap, input) {
                if action == Action::Start {
                    prop_assert!(world.live.is_none() && !world.launching);
                    world.launching = true;
                }
            }
            prop_assert_eq!(bench.state.pid(), world.live);
        }
    }

    #[test]
    fn every_exit_is_followed_by_one_start_after_a_bounded_wait(history in any_history(), unit in 0.0_f64..1.0) {
        let mut bench = Bench::new();
        for (gap, input) in history {
            bench.after(gap, input);
        }
        bench.put(Input::Started { pid: 77 });
        let (state, actions) = step(bench.state.clone(), exited(77), bench.now, &bench.config, unit);
        bench.state = state;
        let Some(Action::Emit(What::WorkerExited { restart_in_ms, .. })) = actions.last() else {
            return Err(TestCaseError::fail("an exit is told"));
        };
        prop_assert!((500..=120_000).contains(restart_in_ms));
        prop_assert_eq!(bench.state.deadline(&bench.config), bench.state.next_start());
        prop_assert_eq!(bench.after(restart_in_ms - 1, Input::Tick), []);
        let starts: usize = (0..100).map(|_| bench.after(1, Input::Tick).len()).sum();
        prop_assert_eq!(starts, 1);
    }

    #[test]
    fn readiness_is_unknown_only_before_the_first_readiness_or_loss(history in any_history()) {
        let (mut bench, mut known) = (Bench::new(), false);
        for (gap, input) in history {
            let replaced = matches!(&input, Input::Started { pid } if bench.state.pid().is_some_and(|now| now != *pid));
            let told = bench.after(gap, input).iter().any(|action| {
                matches!(action, Action::Emit(what) if !matches!(what, What::WorkerStarted { .. }))
            });
            known |= told || replaced;
            prop_assert_eq!(bench.state.ready().is_some(), known);
            prop_assert_eq!(bench.state.ready() == Some(true), bench.state.phase() == Phase::Ready);
        }
    }

    #[test]
    fn a_deadline_that_is_kept_is_gone(history in any_history()) {
        let mut bench = Bench::new();
        for (gap, input) in history {
            bench.after(gap, input);
            if let Some(deadline) = bench.state.deadline(&bench.config) {
                let (state, actions) = step(bench.state.clone(), Input::Tick, deadline, &bench.config, 0.5);
                prop_assert!(deadline > bench.now && actions.len() == 1);
                prop_assert_ne!(state.deadline(&bench.config), Some(deadline));
            }
        }
    }
}
