//! What a live worker is stopped for, and what proves that it is back.

use super::*;

#[test]
fn a_live_worker_of_which_nothing_is_seen_is_never_stopped_however_it_answers() {
    let mut desk = Desk::ready();
    for verdict in [silent(), silent(), silent(), not_ready()].iter().cycle().take(1_000) {
        let actions = desk.after(60_000, probed(1, verdict.clone()));
        assert!(signals(&actions).is_empty() && !actions.contains(&Action::Start), "{actions:?}");
    }
    assert_eq!(desk.state.pid(), Some(1));
}

#[test]
fn a_worker_that_is_silent_and_does_nothing_is_stopped_within_ninety_seconds_and_started_at_once() {
    let mut desk = Desk::ready();
    let actions = desk.live(61, &still(1 << 30), &silent());
    assert_eq!((cause(&actions), signals(&actions)), (Some(Cause::Wedged), vec![Signal::Terminate]));
    assert_eq!(desk.state.phase(), Phase::Stopping);
    let actions = desk.live(16, &still(1 << 30), &silent());
    assert_eq!(signals(&actions), [Signal::Kill]);
    desk.put(Input::Seen(Views::default()));
    let actions = desk.put(exited(1));
    assert!(actions.contains(&Action::Start), "no back-off after a stop that was planned: {actions:?}");
    let ended = actions.iter().any(|action| matches!(action, Action::Ended { cause: Cause::Wedged, .. }));
    assert!(ended, "{actions:?}");
}

#[test]
fn a_worker_that_works_in_silence_is_never_stopped() {
    for busy in [still(1 << 30), still(0)] {
        let mut desk = Desk::ready();
        let views = if busy.gpu.unwrap().memory_bytes > 0 {
            Views { gpu: Some(GpuView { memory_bytes: 1 << 30, busy: Some(true) }), ..busy }
        } else {
            Views { cpu_ratio: Some(1.0), ..busy }
        };
        assert_eq!(signals(&desk.live(10_000, &views, &silent())), []);
    }
}

#[test]
fn a_load_that_stands_still_is_ended_at_its_gate_and_one_that_moves_at_the_latest_by_the_maximum() {
    let mut desk = Desk::ready();
    desk.put(exited(1));
    desk.after(1_000, Input::Tick);
    desk.put(started(2));
    assert_eq!(signals(&desk.live(89, &still(0), &silent())), [], "a load of 3 s was seen: the gate is 90 s");
    let actions = desk.live(1, &still(0), &silent());
    assert_eq!((cause(&actions), signals(&actions)), (Some(Cause::StartOverdue), vec![Signal::Terminate]));
    assert_eq!(signals(&desk.live(3, &still(0), &silent())), [Signal::Kill]);
    desk.put(Input::Seen(Views::default()));
    desk.put(exited(2));
    desk.after(3_000, Input::Tick);
    desk.put(started(3));
    let moves = Views { cpu_ratio: Some(0.02), ..still(0) };
    assert_eq!(signals(&desk.live(299, &moves, &silent())), []);
    assert_eq!(signals(&desk.live(1, &moves, &silent())), [Signal::Terminate]);
}

#[test]
fn trouble_that_is_older_than_ten_minutes_only_informs() {
    let mut desk = Desk::ready();
    let old = Trouble {
        name: "xid_31".into(),
        calls_for: CallsFor::Restart(Cause::Xid),
        age: Duration::from_secs(601),
        text: "MMU fault".into(),
    };
    let actions = desk.put(Input::Trouble(old));
    assert!(matches!(actions.as_slice(), [Action::Emit(What::WorkerTrouble { .. })]), "{actions:?}");
}

#[test]
fn what_a_worker_wrote_of_its_failure_names_the_exit() {
    let mut desk = Desk::starting();
    desk.put(started(1));
    desk.put(Input::Trouble(Trouble {
        name: "token".into(),
        calls_for: CallsFor::Naming,
        age: Duration::ZERO,
        text: "the pipeline is private or gated".into(),
    }));
    desk.put(exited(1));
    assert_eq!(desk.state.last_exit(), Some("signal 9 (SIGKILL): token: the pipeline is private or gated"));
}

#[test]
fn a_recovery_is_proved_by_probes_in_a_row_a_job_and_gpu_memory() {
    let mut desk = Desk::starting();
    (desk.config.readiness, desk.config.prove_job) = (3, true);
    let ready = |desk: &mut Desk, pid| {
        desk.put(started(pid));
        assert_eq!(desk.live(1, &still(1 << 30), &Verdict::Ready), []);
        assert_eq!(desk.live(1, &still(1 << 30), &silent()), []);
        assert_eq!(desk.live(2, &still(1 << 30), &Verdict::Ready), [], "in a row");
        desk.live(1, &still(1 << 30), &Verdict::Ready)
    };
    assert_eq!(ready(&mut desk, 1), [Action::Do(Deed::Prove)]);
    let proved = |result| Input::Done { deed: Deed::Prove, result };
    let actions = desk.put(proved(Ok(Duration::from_secs(1))));
    assert!(matches!(told(&actions)[..], [What::WorkerReady { .. }]), "{actions:?}");
    desk.put(Input::Seen(Views::default()));
    desk.put(exited(1));
    desk.after(1_000, Input::Tick);
    // It comes up again, and its job fails.
    assert_eq!(ready(&mut desk, 2), [Action::Do(Deed::Prove)]);
    let actions = desk.put(proved(Err("no answer within 60s".into())));
    assert_eq!((cause(&actions), signals(&actions)), (Some(Cause::ProofFailed), vec![Signal::Terminate]));
    desk.put(Input::Seen(Views::default()));
    let actions = desk.put(exited(2));
    assert!(!actions.contains(&Action::Start), "a proof that failed is a start that failed: {actions:?}");
    desk.after(2_000, Input::Tick);
    desk.put(started(3));
    // It comes up again without GPU memory.
    assert_eq!(desk.live(3, &still(0), &Verdict::Ready), [Action::Do(Deed::Prove)]);
    assert_eq!(desk.put(proved(Ok(Duration::from_secs(20)))), []);
    let actions = desk.live(16, &still(0), &Verdict::Ready);
    assert_eq!(cause(&actions), Some(Cause::FellToCpu));
}

#[test]
fn a_ready_worker_that_loses_its_gpu_memory_has_fallen_to_the_cpu() {
    let mut desk = Desk::starting();
    desk.put(started(1));
    desk.live(5, &still(1 << 30), &Verdict::Ready);
    let actions = desk.live(20, &still(0), &Verdict::Ready);
    assert!(actions.contains(&Action::AskLease { cause: Cause::FellToCpu }), "{actions:?}");
}

#[test]
fn memory_that_grows_with_each_job_leads_to_a_restart_between_jobs() {
    let mut desk = Desk::starting();
    desk.put(started(1));
    desk.live(5, &still(1 << 30), &Verdict::Ready);
    let mut actions = Vec::new();
    for job in 0..30 {
        let jobs =
            Some(JobsView { completed_total: job, ended_total: job, started: 1, ..JobsView::default() });
        let gpu = Some(GpuView { memory_bytes: (1 << 30) + job * (100 << 20), busy: Some(true) });
        actions.extend(desk.live(10, &Views { jobs, gpu, ..still(0) }, &Verdict::Ready));
    }
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::AskLease { .. })).count(), 1);
    let actions = desk.put(Input::Leased(Lease::Granted { id: 1 }));
    assert_eq!(
        (cause(&actions), signals(&actions)),
        (Some(Cause::GpuMemoryGrowth), vec![]),
        "a job is under way"
    );
}

#[test]
fn nothing_is_started_into_a_wedged_driver_or_beside_what_is_left_of_it() {
    let mut desk = Desk::starting();
    desk.put(started(1));
    desk.live(5, &still(1 << 30), &Verdict::Ready);
    desk.put(Input::Seen(Views { driver_wedged: true, ..Views::default() }));
    desk.put(exited(1));
    let wedged = Views { driver_wedged: true, ..Views::default() };
    let mut actions = Vec::new();
    for _ in 0..60 {
        actions.extend(desk.after(1_000, Input::Seen(wedged.clone())));
    }
    assert!(matches!(told(&actions)[..], [What::WorkerTrouble { .. }]), "told once: {actions:?}");
    let left = Views { pids: [77].into(), ..Views::default() };
    actions.clear();
    for _ in 0..60 {
        actions.extend(desk.after(1_000, Input::Seen(left.clone())));
    }
    assert!(!actions.contains(&Action::Start) && signals(&actions).contains(&Signal::Kill));
    let leftovers = told(&actions).iter().filter(|what| matches!(what, What::WorkerLeftover { .. })).count();
    assert_eq!(leftovers, 1);
    let actions: Vec<Action> =
        (0..2).flat_map(|_| desk.after(1_000, Input::Seen(Views::default()))).collect();
    assert_eq!(actions, [Action::Start]);
}

#[test]
fn a_job_made_up_for_it_proves_no_health_and_a_real_one_later_does() {
    let mut desk = Desk::starting();
    desk.config.prove_job = true;
    let jobs = |done| {
        let jobs = JobsView { completed_total: done, ended_total: done, ..JobsView::default() };
        Input::Seen(Views { jobs: Some(jobs), ..Views::default() })
    };
    let proof = Input::Done { deed: Deed::Prove, result: Ok(Duration::from_millis(22)) };
    for pid in 1..=4_u32 {
        desk.put(started(pid));
        desk.put(jobs(u64::from(pid)));
        desk.put(probed(pid, Verdict::Ready));
        desk.put(proof.clone());
        desk.after(1_000, jobs(u64::from(pid) + 1));
        desk.after(1_000, exited(pid));
        desk.after(4_000, Input::Tick);
    }
    assert!(desk.state.budget.breaker().is_some(), "its own job is no proof of health");
    desk.after(300_000, Input::Tick);
    desk.put(started(5));
    desk.put(probed(5, Verdict::Ready));
    desk.put(proof);
    desk.after(11_000, jobs(6));
    desk.after(1_000, jobs(7));
    assert!(desk.state.budget.breaker().is_none(), "a job of somebody's is");
}

#[test]
fn a_start_that_flaps_is_ended_at_the_latest_by_the_maximum_and_a_loss_takes_as_many_answers_as_a_start() {
    let mut desk = Desk::starting();
    desk.config.readiness = 3;
    desk.put(started(1));
    let moves = Views { cpu_ratio: Some(0.02), ..still(0) };
    let mut actions = Vec::new();
    for _ in 0..151 {
        actions.extend(desk.live(1, &moves, &Verdict::Ready));
        actions.extend(desk.live(1, &moves, &not_ready()));
    }
    assert_eq!(cause(&actions), Some(Cause::StartOverdue));
    let mut desk = Desk::ready();
    desk.config.readiness = 3;
    desk.put(probed(1, not_ready()));
    let back = |desk: &mut Desk| told(&desk.put(probed(1, Verdict::Ready))).len();
    assert_eq!([back(&mut desk), back(&mut desk), back(&mut desk)], [0, 0, 1]);
}
