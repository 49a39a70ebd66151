//! A process comes, goes and comes back.

use super::*;

#[test]
fn a_deploy_raises_no_alert_while_the_worker_first_loads() {
    let mut desk = Desk::starting();
    assert_eq!(desk.put(started(1)), [Action::Emit(What::WorkerStarted { worker: worker(), pid: 1 })]);
    for verdict in [silent(), silent(), silent(), not_ready()] {
        assert_eq!(desk.after(1_000, probed(1, verdict)), []);
        assert_eq!((desk.state.ready(), desk.state.phase()), (None, Phase::Starting));
    }
    assert_eq!(
        desk.after(1_000, probed(1, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 5_000, down_ms: None })]
    );
    assert_eq!((desk.state.ready(), desk.state.phase()), (Some(true), Phase::Ready));
}

#[test]
fn a_killed_worker_is_not_ready_until_its_next_process_is() {
    let mut desk = Desk::ready();
    let exit = What::WorkerExited {
        worker: worker(),
        pid: Some(1),
        reason: "signal 9 (SIGKILL)".into(),
        attempt: 1,
        restart_in_ms: 999,
    };
    let actions = desk.after(500, exited(1));
    assert_eq!(told(&actions), [&exit]);
    assert!(matches!(&actions[0], Action::Ended { cause: Cause::Exited, .. }), "evidence before the restart");
    assert_eq!((desk.state.ready(), desk.state.phase()), (Some(false), Phase::Waiting));
    assert_eq!(desk.after(998, Input::Tick), []);
    assert_eq!(desk.after(1, Input::Tick), [Action::Start]);
    desk.put(started(2));
    assert_eq!((desk.state.ready(), desk.state.phase()), (Some(false), Phase::Starting));
    assert_eq!(
        desk.after(3_000, probed(2, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 3_000, down_ms: Some(3_999) })]
    );
    assert_eq!(desk.state.ready(), Some(true));
    assert_eq!(desk.state.restarts(), 1);
    assert_eq!(desk.state.last_exit(), Some("signal 9 (SIGKILL)"));
}

#[test]
fn a_body_that_says_not_ready_counts_at_once_and_silence_only_in_a_row() {
    let mut desk = Desk::ready();
    for verdict in [silent(), Verdict::Ready, silent()] {
        assert_eq!(desk.after(1_000, probed(1, verdict)), []);
    }
    assert_eq!(
        desk.after(1_000, probed(1, silent())),
        [Action::Emit(What::WorkerNotReady { worker: worker(), reason: "refused".into() })]
    );
    assert_eq!((desk.state.ready(), desk.state.phase()), (Some(false), Phase::NotReady));
    assert_eq!(desk.after(1_000, probed(1, silent())), [], "it is told once");
    assert_eq!(
        desk.after(1_000, probed(1, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 3_000, down_ms: Some(2_000) })]
    );
    assert_eq!(
        desk.after(1_000, probed(1, not_ready())),
        [Action::Emit(What::WorkerNotReady { worker: worker(), reason: "loading".into() })]
    );
    assert_eq!(
        desk.after(500, probed(1, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 3_000, down_ms: Some(500) })],
        "each loss is measured from its own beginning"
    );
}

#[test]
fn a_start_that_takes_too_long_is_told_once_with_what_the_probe_saw() {
    let mut desk = Desk::starting();
    desk.config.stop_live = false;
    desk.put(started(1));
    desk.after(1_000, probed(1, not_ready()));
    assert_eq!(desk.after(298_999, Input::Tick), []);
    assert_eq!(desk.state.ready(), None);
    let overdue = What::WorkerStartOverdue { worker: worker(), reason: "loading".into(), waited_ms: 300_000 };
    let actions = desk.after(1, Input::Tick);
    assert_eq!(told(&actions)[0], &overdue);
    assert!(matches!(told(&actions)[1], What::WorkerTrouble { trouble, .. } if trouble == "stop_live_off"));
    assert_eq!(desk.state.ready(), Some(false));
    assert_eq!(desk.after(600_000, Input::Tick), []);
    assert_eq!(
        desk.put(probed(1, Verdict::Ready)),
        [Action::Emit(What::WorkerReady { worker: worker(), load_ms: 900_000, down_ms: Some(600_000) })]
    );
}

#[test]
fn readiness_that_arrives_with_the_last_second_is_not_told_as_overdue() {
    let mut desk = Desk::starting();
    desk.put(started(1));
    let actions = desk.after(301_000, probed(1, Verdict::Ready));
    assert!(
        matches!(actions.as_slice(), [Action::Emit(What::WorkerReady { down_ms: None, .. })]),
        "{actions:?}"
    );
}

/// Lets the worker crash once, after it was ready for so long; gives attempt and wait.
pub(super) fn crash(desk: &mut Desk, pid: u32, ready_ms: u64) -> (u32, u64) {
    desk.put(started(pid));
    desk.put(probed(pid, Verdict::Ready));
    let actions = desk.after(ready_ms, exited(pid));
    let exit = told(&actions).into_iter().find_map(|what| match what {
        What::WorkerExited { attempt, restart_in_ms, .. } => Some((*attempt, *restart_in_ms)),
        _ => None,
    });
    let (attempt, wait) = exit.unwrap();
    assert_eq!(desk.after(wait, Input::Tick), [Action::Start]);
    (attempt, wait)
}

#[test]
fn the_wait_doubles_to_its_ceiling_and_starts_afresh_after_proven_health() {
    let mut desk = Desk::starting();
    desk.config.limits.restarts_max = 16;
    let crashes: Vec<_> = (1..=9).map(|pid| crash(&mut desk, pid, 599_999)).collect();
    let attempts: Vec<u32> = crashes.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let waits: Vec<u64> = crashes.iter().map(|(_, wait)| wait.div_ceil(1_000)).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
    assert_eq!(crash(&mut desk, 10, 600_000), (1, 999));
    assert_eq!(crash(&mut desk, 11, 599_999), (2, 1_999));
    assert_eq!(desk.state.restarts(), 11);
}

#[test]
fn the_fourth_crash_in_ten_minutes_opens_the_breaker_which_tries_for_ever_and_closes_by_one_completed_job() {
    let mut desk = Desk::starting();
    let waits: Vec<u64> = (1..=8).map(|pid| crash(&mut desk, pid, 1_000).1.div_ceil(1_000)).collect();
    assert_eq!(waits, [1, 2, 4, 300, 899, 1_799, 1_799, 1_799]);
    desk.put(started(9));
    desk.put(probed(9, Verdict::Ready));
    let jobs = |done| Views {
        jobs: Some(JobsView { completed_total: done, ended_total: done, ..JobsView::default() }),
        ..Views::default()
    };
    desk.put(Input::Seen(jobs(5)));
    desk.put(Input::Seen(jobs(6)));
    let actions = desk.after(1_000, exited(9));
    assert!(
        told(&actions).iter().any(|what| matches!(what, What::WorkerExited { attempt: 1, .. })),
        "{actions:?}"
    );
}

#[test]
fn a_worker_that_cannot_be_started_is_tried_again_and_is_not_ready() {
    let mut desk = Desk::starting();
    let actions = desk.put(Input::StartFailed { reason: "no such file".into() });
    assert!(
        matches!(actions.as_slice(), [Action::Emit(What::WorkerExited { pid: None, attempt: 1, .. })]),
        "{actions:?}"
    );
    assert_eq!(desk.state.ready(), Some(false));
    assert_eq!(desk.after(1_000, Input::Tick), [Action::Start]);
}

#[test]
fn news_of_a_process_that_is_no_more_changes_nothing() {
    let mut desk = Desk::ready();
    desk.put(exited(1));
    desk.after(1_000, Input::Tick);
    desk.put(started(2));
    let before = desk.state.clone();
    for stale in [exited(1), probed(1, Verdict::Ready), Input::AgentStarted] {
        assert_eq!(desk.put(stale), []);
        assert_eq!(desk.state, before);
    }
    assert_eq!(desk.put(Input::StartFailed { reason: "late".into() }), []);
    assert_eq!(desk.put(started(2)), []);
    assert_eq!(desk.state, before);
}

#[test]
fn a_process_that_someone_else_started_takes_the_place_of_the_wait() {
    let mut desk = Desk::ready();
    desk.put(exited(1));
    desk.put(Input::StartedByOther(Process { pid: 2, age: Duration::ZERO }));
    assert_eq!(desk.after(280_000, probed(2, Verdict::Ready)).len(), 1);
    assert_eq!((desk.state.pid(), desk.state.restarts()), (Some(2), 1));
}

#[test]
fn a_worker_that_runs_is_adopted_and_nothing_is_done_to_it() {
    let mut desk = Desk::new();
    desk.put(Input::AgentStarted);
    let process = Process { pid: 5, age: Duration::from_secs(86_400) };
    let actions = desk.put(Input::Found(Found::Running(process)));
    let adopted = What::WorkerAdopted { worker: worker(), pid: 5, age_ms: 86_400_000 };
    assert_eq!(actions, [Action::Emit(adopted)]);
    desk.config.prove_job = true;
    let busy = Views { cpu_ratio: Some(1.0), ..still(1 << 30) };
    assert_eq!(desk.live(200, &busy, &silent()), [], "it works in silence since before the agent came");
    let actions = desk.live(1, &busy, &Verdict::Ready);
    assert!(
        matches!(actions.as_slice(), [Action::Emit(What::WorkerReady { down_ms: None, .. })]),
        "{actions:?}"
    );
    assert_eq!(desk.state.restarts(), 0);
}

#[test]
fn while_its_manager_does_not_answer_nothing_is_decided() {
    let mut desk = Desk::ready();
    let actions = desk.put(Input::Blind { reason: "no bus".into() });
    assert!(actions.contains(&Action::Look), "{actions:?}");
    assert_eq!(desk.state.phase(), Phase::Unknown);
    assert_eq!(signals(&desk.live(300, &still(1 << 30), &silent())), []);
    let process = Process { pid: 1, age: Duration::from_secs(300) };
    desk.put(Input::Found(Found::Running(process)));
    assert_eq!((desk.state.pid(), desk.state.restarts()), (Some(1), 0));
    desk.put(Input::Blind { reason: "no bus".into() });
    let actions = desk.put(Input::Found(Found::Stopped { exit: Some(Exit { pid: 0, ..end(1) }) }));
    assert!(told(&actions).iter().any(|what| matches!(what, What::WorkerExited { .. })), "{actions:?}");
}

#[test]
fn a_worker_that_came_back_is_called_stable_once_after_half_an_hour() {
    let mut desk = Desk::ready();
    desk.put(exited(1));
    desk.after(1_000, Input::Tick);
    desk.put(started(2));
    desk.after(1_000, probed(2, Verdict::Ready));
    let actions = desk.after(1_800_000, Input::Tick);
    let stable = What::WorkerStable { worker: worker(), ready_ms: 1_800_000 };
    assert_eq!(told(&actions), [&stable]);
    assert_eq!(desk.after(1_800_000, Input::Tick), []);
}
