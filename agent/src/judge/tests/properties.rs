//! Whatever happens, in any order.

use proptest::prelude::*;

use super::*;

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Ready), Just(not_ready()), Just(silent())]
}

fn any_views() -> impl Strategy<Value = Views> {
    let gpu = prop::option::of((0_u64..3, any::<Option<bool>>()));
    (prop::option::of(0.0..0.2_f64), gpu, any::<bool>(), prop::option::of((0_u32..3, 0_u64..9))).prop_map(
        |(cpu_ratio, gpu, driver_wedged, jobs)| Views {
            cpu_ratio,
            gpu: gpu.map(|(gib, busy)| GpuView { memory_bytes: gib << 30, busy }),
            driver_wedged,
            jobs: jobs.map(|(started, done)| JobsView {
                started,
                completed_total: done,
                ended_total: done,
                ..JobsView::default()
            }),
            ..Views::default()
        },
    )
}

fn any_lease() -> impl Strategy<Value = Lease> {
    let denied = Lease::Denied { reason: String::new(), retry_after: Duration::from_secs(30) };
    prop_oneof![Just(Lease::Alone), Just(denied), (0_u64..9).prop_map(|id| Lease::Granted { id })]
}

fn any_input() -> impl Strategy<Value = Input> {
    let pid = 1_u32..4;
    let verb =
        prop::sample::select(vec![Verb::Restart, Verb::Drain, Verb::Resume, Verb::Hold, Verb::Release]);
    let order = |verb| Input::Ordered(Wanted { verb, now: false, by: "a".into(), reason: None });
    prop_oneof![
        1 => Just(Input::AgentStarted),
        1 => Just(Input::Found(Found::Stopped { exit: None })),
        3 => pid.clone().prop_map(started),
        1 => Just(Input::StartFailed { reason: "refused".into() }),
        3 => (pid.clone(), any::<bool>()).prop_map(|(pid, by_hand)| Input::Exited(Exit { by_hand, ..end(pid) })),
        6 => (pid, any_verdict()).prop_map(|(pid, verdict)| probed(pid, verdict)),
        6 => any_views().prop_map(Input::Seen),
        1 => any_lease().prop_map(Input::Leased),
        1 => verb.prop_map(order),
        1 => Just(Input::Blind { reason: "gone".into() }),
        4 => Just(Input::Tick),
    ]
}

fn any_history() -> impl Strategy<Value = Vec<(u64, Input)>> {
    let gap = prop_oneof![Just(0), 0_u64..2_000, 0_u64..400_000];
    proptest::collection::vec((gap, any_input()), 0..80)
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
            Input::Started(process) => *self = Self { live: Some(process.pid), launching: false },
            Input::StartFailed { .. } => self.launching = false,
            Input::Exited(exit) if self.live == Some(exit.pid) => self.live = None,
            Input::Found(Found::Stopped { .. }) => self.live = None,
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn a_worker_is_never_started_while_a_process_of_it_lives_or_starts(history in any_history()) {
        let (mut desk, mut world) = (Desk::new(), World::default());
        for (gap, input) in history {
            world.saw(&input);
            for action in desk.after(gap, input) {
                if action == Action::Start {
                    prop_assert!(world.live.is_none() && !world.launching);
                    world.launching = true;
                }
            }
            prop_assert_eq!(desk.state.pid(), world.live);
        }
    }

    #[test]
    fn a_signal_is_sent_only_to_a_live_process_that_is_being_stopped(history in any_history()) {
        let mut desk = Desk::new();
        for (gap, input) in history {
            let before = desk.state.alive().is_some_and(|alive| alive.stopping.is_some());
            let actions = desk.after(gap, input);
            let sent = signals(&actions);
            let after = desk.state.alive().is_some_and(|alive| alive.stopping.is_some());
            prop_assert!(sent.is_empty() || before || after, "{sent:?}");
            let held = desk.state.held.is_some();
            prop_assert!(cause(&actions).is_none() || !held, "a held worker is not stopped");
        }
    }

    #[test]
    fn every_exit_is_followed_by_one_start_after_a_bounded_wait(history in any_history(), unit in 0.0_f64..1.0) {
        let mut desk = Desk::new();
        for (gap, input) in history {
            desk.after(gap, input);
        }
        desk.order(Verb::Release);
        desk.put(started(77));
        desk.put(Input::Seen(Views::default()));
        let (state, actions) = step(desk.state.clone(), exited(77), desk.now, &desk.config, unit);
        desk.state = state;
        let exit = told(&actions).into_iter().find_map(|what| {
            if let What::WorkerExited { restart_in_ms, .. } = what { Some(*restart_in_ms) } else { None }
        });
        let wait = exit.expect("an exit is told");
        prop_assert!(wait <= 1_800_000);
        let mut starts = actions.iter().filter(|action| **action == Action::Start).count();
        if starts == 0 {
            prop_assert_eq!(desk.state.deadline(), desk.state.next_start());
            prop_assert!(!desk.after(wait.saturating_sub(1), Input::Tick).contains(&Action::Start));
            starts = (0..100).flat_map(|_| desk.after(1, Input::Tick)).filter(|a| *a == Action::Start).count();
        }
        prop_assert_eq!(starts, 1);
    }

    #[test]
    fn readiness_is_what_the_phase_says_and_never_unknown_after_a_loss(history in any_history()) {
        let (mut desk, mut known) = (Desk::new(), false);
        for (gap, input) in history {
            let told_ready = desk.after(gap, input).iter().any(|action| {
                matches!(action, Action::Emit(What::WorkerReady { .. } | What::WorkerExited { .. } | What::WorkerNotReady { .. }))
            });
            known |= told_ready;
            prop_assert!(!known || desk.state.ready().is_some());
            let phase = desk.state.phase();
            prop_assert!(desk.state.ready() != Some(true) || matches!(phase, Phase::Ready | Phase::Unknown));
            prop_assert!(desk.state.ready() == Some(true) || phase != Phase::Ready);
        }
    }

    #[test]
    fn whatever_happened_it_can_be_explained_written_down_and_read_back(history in any_history()) {
        let mut desk = Desk::new();
        for (gap, input) in history {
            desk.after(gap, input);
        }
        let why = desk.state.why(desk.now, &desk.config);
        prop_assert!(serde_json::to_vec(&why).unwrap().len() < 32 * 1024);
        let wall = diarwatch_shared::clock::UnixMicros(1_700_000_000_000_000);
        let saved = desk.state.saved(desk.now, wall);
        let back = State::restored(&saved, desk.now, wall);
        prop_assert_eq!(back.saved(desk.now, wall), saved);
    }
}
