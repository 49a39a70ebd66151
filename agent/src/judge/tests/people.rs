//! What people and the fleet want.

use super::*;

#[test]
fn a_worker_that_a_person_stopped_is_left_alone_until_somebody_starts_it() {
    let mut desk = Desk::ready();
    let by_hand = Exit { by_hand: true, ..end(1) };
    let actions = desk.put(Input::Exited(by_hand.clone()));
    assert!(told(&actions).iter().any(|what| matches!(what, What::WorkerLeftAlone { .. })), "{actions:?}");
    assert_eq!((desk.state.phase(), desk.state.ready()), (Phase::LeftAlone, Some(false)), "never green");
    assert_eq!(desk.after(86_400_000, Input::Tick), []);
    desk.put(Input::StartedByOther(Process { pid: 2, age: Duration::ZERO }));
    assert_eq!(desk.state.pid(), Some(2));
    desk.put(Input::Exited(Exit { pid: 2, ..by_hand }));
    let actions = desk.order(Verb::Restart);
    assert!(actions.contains(&Action::Start), "{actions:?}");
}

#[test]
fn a_worker_that_is_held_is_neither_stopped_nor_started() {
    let mut desk = Desk::ready();
    desk.order(Verb::Hold);
    assert_eq!(signals(&desk.live(300, &still(1 << 30), &silent())), []);
    let refused = desk.order(Verb::Restart);
    assert!(
        refused
            .iter()
            .any(|action| matches!(action, Action::Answer(Err(why)) if why.contains("alice holds it")))
    );
    desk.put(Input::Seen(Views::default()));
    assert!(!desk.put(exited(1)).contains(&Action::Start));
    assert_eq!(desk.after(86_400_000, Input::Tick), []);
    assert!(desk.order(Verb::Release).contains(&Action::Start));
}

#[test]
fn a_person_that_wants_a_restart_is_told_of_the_jobs_and_the_worker_may_end_them() {
    let mut desk = Desk::ready();
    let jobs = |waiting, started| Views {
        jobs: Some(JobsView {
            waiting,
            started,
            longest: Some(Duration::from_secs(200)),
            ..JobsView::default()
        }),
        ..still(1 << 30)
    };
    desk.put(Input::Seen(jobs(2, 1)));
    let actions = desk.order(Verb::Restart);
    let said = actions
        .iter()
        .find_map(|action| if let Action::Answer(Ok(said)) = action { Some(said) } else { None });
    assert_eq!(said.unwrap()["jobs_under_way"], 3);
    assert_eq!(signals(&actions), [], "its jobs end first");
    assert_eq!(signals(&desk.after(5_000, Input::Seen(jobs(0, 0)))), [Signal::Terminate]);
    assert_eq!(signals(&desk.after(229_000, Input::Tick)), [], "the grace is as long as the longest job");
    desk.put(Input::Seen(Views::default()));
    let actions = desk.put(exited(1));
    assert!(actions.contains(&Action::Start) && desk.state.attempts == 0, "{actions:?}");
}

#[test]
fn a_ready_worker_is_stopped_only_with_the_fleets_leave_and_a_dead_one_is_started_without() {
    let mut desk = Desk::ready();
    let lost = || {
        Input::Trouble(Trouble {
            name: "cuda_context_lost".into(),
            calls_for: CallsFor::Restart(Cause::CudaContextLost),
            age: Duration::ZERO,
            text: "CUDA error: an illegal memory access was encountered".into(),
        })
    };
    let actions = desk.put(lost());
    assert!(actions.contains(&Action::AskLease { cause: Cause::CudaContextLost }), "{actions:?}");
    assert_eq!(signals(&actions), []);
    let denied = Lease::Denied { reason: "two others are away".into(), retry_after: Duration::from_secs(60) };
    assert_eq!(desk.put(Input::Leased(denied)), []);
    assert_eq!(signals(&desk.after(59_000, lost())), []);
    assert!(desk.after(1_000, lost()).contains(&Action::AskLease { cause: Cause::CudaContextLost }));
    let actions = desk.put(Input::Leased(Lease::Granted { id: 7 }));
    assert_eq!(signals(&actions), [Signal::Terminate]);
    desk.put(Input::Seen(Views::default()));
    assert!(desk.put(exited(1)).contains(&Action::Start));
    desk.put(started(2));
    assert!(desk.after(1_000, probed(2, Verdict::Ready)).contains(&Action::ReturnLease { id: 7 }));
}

#[test]
fn without_an_aggregator_a_ready_worker_is_stopped_once_in_ten_minutes() {
    let mut desk = Desk::ready();
    let lost = |age| {
        let calls_for = CallsFor::Restart(Cause::CudaContextLost);
        Input::Trouble(Trouble { name: "x".into(), calls_for, age, text: String::new() })
    };
    desk.put(lost(Duration::ZERO));
    assert_eq!(signals(&desk.put(Input::Leased(Lease::Alone))), [Signal::Terminate]);
    desk.put(Input::Seen(Views::default()));
    desk.put(exited(1));
    desk.put(started(2));
    desk.put(probed(2, Verdict::Ready));
    desk.put(lost(Duration::ZERO));
    assert_eq!(signals(&desk.put(Input::Leased(Lease::Alone))), []);
    desk.after(600_000, lost(Duration::ZERO));
    assert_eq!(signals(&desk.put(Input::Leased(Lease::Alone))), [Signal::Terminate]);
}

#[test]
fn a_restart_by_hand_that_fails_is_no_wish_to_leave_it_so() {
    let mut desk = Desk::ready();
    desk.put(Input::Exited(Exit { by_hand: true, manager_restarts: true, ..end(1) }));
    let failed = Exit { pid: 0, reason: "exit code 1".into(), ..Exit::default() };
    desk.put(Input::Exited(failed));
    assert_eq!(desk.state.phase(), Phase::Waiting);
    assert_eq!(desk.after(1_000, Input::Tick), [Action::Start]);
}

#[test]
fn an_agent_that_starts_anew_is_no_new_try_of_an_open_breaker() {
    let mut desk = Desk::starting();
    for pid in 1..=3 {
        life::crash(&mut desk, pid, 1_000);
    }
    desk.put(started(4));
    desk.after(1_000, exited(4));
    let wall = diarwatch_shared::clock::UnixMicros(1_700_000_000_000_000);
    desk.state = State::restored(&desk.state.saved(desk.now, wall), desk.now, wall);
    desk.put(Input::AgentStarted);
    let crashed = Found::Stopped { exit: Some(end(4)) };
    assert!(!desk.put(Input::Found(crashed)).contains(&Action::Start));
    assert!(!desk.after(299_000, Input::Tick).contains(&Action::Start));
    assert!(desk.after(1_000, Input::Tick).contains(&Action::Start));
}

#[test]
fn a_worker_that_a_person_stopped_is_left_alone_by_the_next_agent_though_its_manager_forgot() {
    let mut desk = Desk::ready();
    desk.put(Input::Exited(Exit { by_hand: true, ..end(1) }));
    let wall = diarwatch_shared::clock::UnixMicros(1_700_000_000_000_000);
    desk.state = State::restored(&desk.state.saved(desk.now, wall), desk.now, wall);
    desk.put(Input::AgentStarted);
    assert!(!desk.put(Input::Found(Found::Stopped { exit: None })).contains(&Action::Start));
    assert_eq!(desk.state.phase(), Phase::LeftAlone);
    assert!(desk.order(Verb::Restart).contains(&Action::Start));
}

#[test]
fn a_hold_that_comes_while_it_waits_or_is_being_stopped_is_kept() {
    let mut waiting = Desk::ready();
    waiting.put(exited(1));
    waiting.order(Verb::Hold);
    assert_eq!(waiting.after(86_400_000, Input::Tick), []);
    assert_eq!(waiting.state.phase(), Phase::LeftAlone);
    let mut stopping = Desk::ready();
    stopping.put(Input::Seen(Views::default()));
    assert_eq!(signals(&stopping.order(Verb::Restart)), [Signal::Terminate]);
    stopping.order(Verb::Hold);
    assert_eq!(signals(&stopping.after(3_600_000, Input::Tick)), [], "the stop goes no step further");
    assert!(!stopping.put(exited(1)).contains(&Action::Start));
    assert_eq!(stopping.after(86_400_000, Input::Tick), []);
    assert!(stopping.order(Verb::Release).contains(&Action::Start));
}
