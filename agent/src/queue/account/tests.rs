//! What an account tells: rates, times, the drain estimate, growth, and what it never tells.

use super::*;
use proptest::prelude::*;

fn account() -> Account {
    Account::new(
        Facts { queue: "q".into(), service: "s".into(), source: "http", estimated: false },
        UnixMicros(0),
    )
}

/// A time of this test, in seconds after an odd one.
fn at(seconds: f64) -> UnixMicros {
    let origin = UnixMicros(1_764_826_337_123_456);
    let distance = Duration::from_secs_f64(seconds.abs());
    if seconds < 0.0 { origin.minus(distance) } else { origin.plus(distance) }
}

fn waits(waiting: f64) -> Look {
    Look { waiting: Ok(waiting), ..Look::default() }
}

fn totals(waiting: f64, completed: f64, failed: f64) -> Look {
    Look { completed_total: Ok(completed), failed_total: Ok(failed), ..waits(waiting) }
}

fn job(seconds: f64, took: f64) -> Ended {
    Ended { at: at(seconds), failed: false, took_seconds: Some(took), audio_seconds: None }
}

/// A look of a source that gives the jobs that ended.
fn ended(waiting: f64, ended: Vec<Ended>) -> Look {
    Look { ended, mean_seconds: Err(Missing::NotYet), p95_seconds: Err(Missing::NotYet), ..waits(waiting) }
}

/// An account that was looked at once a second from 0 to `seconds`.
fn looked(seconds: u32, look: impl Fn(f64) -> Look) -> Account {
    let mut account = account();
    for second in (0..=seconds).map(f64::from) {
        account.looked(&look(second), at(second));
    }
    account
}

#[track_caller]
fn near(reading: Reading, expected: f64) {
    let found = reading.unwrap();
    assert!((found - expected).abs() <= expected.abs() * 0.03 + 1e-9, "{found} instead of {expected}");
}

#[test]
fn a_rate_is_over_the_last_ten_minutes_and_begins_after_one() {
    let look = |second: f64| totals(1.0, 1_000.0 + (second / 10.0).floor(), (second / 60.0).floor());
    assert_eq!(looked(59, look).told(at(59.0)).completed_per_minute, Err(Missing::NotYet));
    for seconds in [120, 600, 3_000] {
        let told = looked(seconds, look).told(at(seconds.into()));
        near(told.completed_per_minute, 6.0);
        assert!((0.9..=1.1).contains(&told.failed_per_minute.unwrap()), "{told:?}");
    }
    let stood_still = looked(1_300, |second| totals(1.0, second.min(600.0), 0.0));
    assert_eq!(stood_still.told(at(1_300.0)).completed_per_minute, Ok(0.0));
}

#[test]
fn a_total_that_went_back_adds_nothing_and_is_counted_on() {
    let total = |second: f64| if second < 300.0 { 5_000.0 + second } else { second - 300.0 };
    let told = looked(600, |second| totals(1.0, total(second), 0.0)).told(at(600.0));
    near(told.completed_per_minute, 60.0);
    assert_eq!(told.completed_total, Ok(599.0), "of 600 seconds one was lost");
}

#[test]
fn jobs_of_before_the_first_look_make_rates_but_do_not_count_as_this_runs() {
    let mut account = Account::new(account().facts, at(0.0));
    let history: Vec<Ended> = (1..=500).map(|n| job(-6.0 * f64::from(n), 30.0)).collect();
    account.looked(&ended(1.0, history), at(0.0));
    let told = account.told(at(0.0));
    near(told.completed_per_minute, 10.0);
    assert_eq!((told.completed_total, told.mean_seconds, told.p95_seconds), (Ok(0.0), Ok(30.0), Ok(30.0)));
    account.looked(&ended(1.0, vec![job(0.5, 30.0)]), at(1.0));
    assert_eq!(account.told(at(1.0)).completed_total, Ok(1.0));
}

#[test]
fn a_source_without_counts_says_so_and_one_without_jobs_yet_says_that() {
    let told = looked(100, |_| waits(1.0)).told(at(100.0));
    for reading in
        [told.completed_total, told.completed_per_minute, told.failed_per_minute, told.mean_seconds]
    {
        assert_eq!(reading, Err(Missing::NotSupported));
    }
    let told = looked(100, |_| ended(1.0, Vec::new())).told(at(100.0));
    assert_eq!((told.completed_total, told.completed_per_minute), (Ok(0.0), Ok(0.0)));
    assert_eq!((told.mean_seconds, told.p95_seconds), (Err(Missing::NotYet), Err(Missing::NotYet)));
    assert_eq!(told.seconds_per_audio_hour, Err(Missing::NotYet));
}

#[test]
fn times_are_of_the_last_completed_jobs_and_a_source_may_give_its_own() {
    let mut account = account();
    let mut jobs: Vec<Ended> = (1..=100).map(|took| job(f64::from(took), f64::from(took))).collect();
    for job in &mut jobs {
        job.audio_seconds = job.took_seconds.map(|took| took * 10.0);
    }
    jobs.push(Ended { failed: true, ..job(101.0, 9_999.0) });
    jobs.push(Ended { took_seconds: None, ..job(101.0, 0.0) });
    account.looked(&ended(0.0, jobs), at(102.0));
    let told = account.told(at(102.0));
    assert_eq!((told.mean_seconds, told.p95_seconds), (Ok(50.5), Ok(95.0)));
    near(told.seconds_per_audio_hour, 360.0);
    account.looked(&Look { mean_seconds: Ok(7.0), ..ended(0.0, Vec::new()) }, at(103.0));
    assert_eq!(account.told(at(103.0)).mean_seconds, Ok(7.0));
    account.looked(&ended(0.0, Vec::new()), at(5_000.0));
    assert_eq!(account.told(at(5_000.0)).mean_seconds, Err(Missing::NotYet), "older than an hour");
}

#[test]
fn a_queue_that_shrinks_drains_at_its_present_rate() {
    // Ten a minute come out, four go in.
    let look = |second: f64| {
        let (completed, arrived) = ((second / 6.0).floor(), (second / 15.0).floor());
        totals(200.0 + arrived - completed, completed, 0.0)
    };
    let told = looked(600, look).told(at(600.0));
    near(told.drain_seconds, (200.0 - 60.0) / 6.0 * 60.0);
    // Of a source without counts the same, by what waits alone.
    near(
        looked(600, |second| waits(look(second).waiting.unwrap())).told(at(600.0)).drain_seconds,
        140.0 / 6.0 * 60.0,
    );
    assert_eq!(looked(30, look).told(at(30.0)).drain_seconds, Err(Missing::NotYet));
}

#[test]
fn what_does_not_shrink_has_no_drain_time_and_what_is_empty_has_none_to_wait() {
    let grows = |second: f64| totals(10.0 + (second / 10.0).floor(), (second / 20.0).floor(), 0.0);
    assert_eq!(looked(600, grows).told(at(600.0)).drain_seconds, Err(Missing::NotYet));
    assert_eq!(looked(600, |_| totals(5.0, 0.0, 0.0)).told(at(600.0)).drain_seconds, Err(Missing::NotYet));
    assert_eq!(looked(0, |_| waits(0.0)).told(at(0.0)).drain_seconds, Ok(0.0));
}

#[test]
fn jobs_that_move_to_be_worked_on_do_not_make_a_queue_drain() {
    let look = |second: f64| Look {
        processing: Ok((second / 60.0).floor()),
        ..totals(20.0 - (second / 60.0).floor(), 0.0, 0.0)
    };
    assert_eq!(looked(600, look).told(at(600.0)).drain_seconds, Err(Missing::NotYet));
}

#[test]
fn a_queue_that_only_grows_for_five_minutes_is_a_finding() {
    let stuck = |second: f64| totals(10.0 + (second / 30.0).floor(), 7.0, 3.0);
    assert_eq!(looked(290, stuck).told(at(290.0)).growing, Ok(0.0));
    assert_eq!(looked(320, stuck).told(at(320.0)).growing, Ok(1.0));
    let counted =
        |second: f64| totals(10.0 + (second / 30.0).floor(), if second < 200.0 { 7.0 } else { 8.0 }, 3.0);
    assert_eq!(looked(400, counted).told(at(400.0)).growing, Ok(0.0), "something came out");
    assert_eq!(looked(600, counted).told(at(600.0)).growing, Ok(1.0), "that was long ago");
    let failed = |second: f64| totals(10.0 + (second / 30.0).floor(), 7.0, (second / 100.0).floor());
    assert_eq!(looked(600, failed).told(at(600.0)).growing, Ok(0.0), "a job that failed came out, too");
    assert_eq!(looked(600, |_| totals(10.0, 7.0, 3.0)).told(at(600.0)).growing, Ok(0.0), "nothing came in");
    let without_counts = |second: f64| waits(10.0 + (second / 30.0).floor());
    assert_eq!(looked(320, without_counts).told(at(320.0)).growing, Ok(1.0));
    let fell_once =
        |second: f64| waits(10.0 + (second / 30.0).floor() - if second >= 200.0 { 1.0 } else { 0.0 });
    assert_eq!(looked(320, fell_once).told(at(320.0)).growing, Ok(0.0));
}

#[test]
fn where_jobs_take_long_a_queue_grows_for_twice_as_long_before_that_is_a_finding() {
    let mut account = account();
    let first = (0..=1_300).map(f64::from).find(|second| {
        let jobs = if *second < 1.0 { vec![job(0.0, 600.0)] } else { Vec::new() };
        account.looked(&ended(10.0 + (second / 30.0).floor(), jobs), at(*second));
        account.told(at(*second)).growing == Ok(1.0)
    });
    // To the step.
    assert!((1_200.0..=1_220.0).contains(&first.unwrap()), "{first:?}");
}

#[test]
fn a_source_that_fails_tells_no_old_number_and_after_a_while_begins_anew() {
    let mut account = looked(600, |second| totals(3.0, second, 0.0));
    near(account.told(at(600.0)).completed_per_minute, 60.0);
    account.failed(Missing::Timeout, "no whole answer within 2s".into());
    let told = account.told(at(602.0));
    assert_eq!(told, Told::nothing(Ok(0.0), Missing::Timeout));
    let status = account.status(at(602.0));
    assert_eq!(
        (status.problem.as_deref(), status.seen),
        (Some("no whole answer within 2s"), Some(at(600.0)))
    );
    // A short silence: what was counted meanwhile came out meanwhile.
    account.looked(&totals(3.0, 660.0, 0.0), at(660.0));
    near(account.told(at(660.0)).completed_per_minute, 60.0);
    // A long one: nobody knows when it came out.
    account.looked(&totals(3.0, 9_000.0, 0.0), at(1_000.0));
    assert_eq!(account.told(at(1_000.0)).completed_per_minute, Err(Missing::NotYet));
    assert_eq!(account.told(at(1_000.0)).completed_total, Ok(9_000.0));
}

#[test]
fn a_clock_that_goes_back_begins_anew() {
    let mut account = looked(600, |second| totals(3.0, second, 0.0));
    account.looked(&totals(3.0, 601.0, 0.0), at(10.0));
    assert_eq!(account.told(at(10.0)).completed_per_minute, Err(Missing::NotYet));
    for second in (11..=100).map(f64::from) {
        account.looked(&totals(3.0, 590.0 + second, 0.0), at(second));
    }
    near(account.told(at(100.0)).completed_per_minute, 59.0);
}

#[test]
fn before_the_first_look_nothing_is_known() {
    assert_eq!(account().told(at(0.0)), Told::nothing(Err(Missing::NotYet), Missing::NotYet));
}

#[test]
fn a_flood_of_jobs_takes_bounded_room() {
    let mut account = account();
    for second in 0..20_i32 {
        let jobs = (0..1_000).map(|n| job(f64::from(second - n * 7), 1.0)).collect();
        account.looked(&ended(1.0, jobs), at(f64::from(second)));
    }
    assert!(account.jobs.len() <= JOBS_MAX);
    assert!(account.window.len() <= crate::queue::window::BUCKETS_MAX);
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        4 => (0.0..1e6_f64).prop_map(|value| Ok(value.floor())),
        1 => Just(Err(Missing::NotSupported)),
        1 => Just(Err(Missing::NotYet)),
    ]
}

fn any_look() -> impl Strategy<Value = Look> {
    let readings = proptest::collection::vec(reading(), 7);
    let jobs = proptest::collection::vec((-8_000.0..8_000.0_f64, 0.0..1e4_f64, any::<bool>()), 0..5);
    (readings, jobs).prop_map(|(readings, jobs)| {
        let ended = jobs.into_iter().map(|(when, took, failed)| Ended {
            failed,
            audio_seconds: Some(took / 2.0),
            ..job(4_000.0 + when, took)
        });
        let mut look = Look { ended: ended.collect(), ..Look::default() };
        for (figure, reading) in super::super::figure::Figure::ALL.into_iter().zip(readings) {
            look.set(figure, reading);
        }
        look
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_source_says_numbers_are_finite_and_none_is_below_zero(
        looks in proptest::collection::vec((any_look(), 0.0..8_000.0_f64, any::<bool>()), 1..40)
    ) {
        let mut account = account();
        for (look, seconds, answers) in looks {
            let now = at(seconds);
            if answers {
                account.looked(&look, now);
            } else {
                account.failed(Missing::Failed, "odd".into());
            }
            let told = account.told(now);
            let all = [
                told.waiting, told.processing, told.oldest_seconds, told.completed_total, told.failed_total,
                told.completed_per_minute, told.failed_per_minute, told.drain_seconds, told.growing,
                told.mean_seconds, told.p95_seconds, told.seconds_per_audio_hour,
            ];
            for value in all.iter().flatten() {
                prop_assert!(answers, "a source that fails tells nothing: {told:?}");
                prop_assert!(value.is_finite() && *value >= 0.0, "{told:?}");
            }
            prop_assert!(account.window.len() <= crate::queue::window::BUCKETS_MAX);
        }
    }

    #[test]
    fn however_a_total_moves_the_count_never_falls(steps in proptest::collection::vec(0.0..1e6_f64, 1..50)) {
        let mut account = account();
        let mut before = 0.0;
        for (second, total) in steps.into_iter().enumerate() {
            let now = at(f64::from(u32::try_from(second).unwrap()));
            account.looked(&totals(0.0, total, 0.0), now);
            let count = account.told(now).completed_total.unwrap();
            prop_assert!(count >= before);
            before = count;
        }
    }
}
