//! The tracker against lines as they come: twice, not at all, in the middle; and against a model.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

const SEES: Sees = Sees { accepted: true, started: true };
const FORGET_AFTER: Duration = Duration::from_secs(6 * 3_600);
/// Some time of 2025.
const BEGIN: UnixMicros = UnixMicros(1_764_826_335_000_000);

fn at(seconds: u64) -> UnixMicros {
    BEGIN.plus(Duration::from_secs(seconds))
}

fn event(step: Step, id: &str, seconds: u64) -> LineEvent {
    let id = (!id.is_empty()).then(|| id.to_owned());
    LineEvent { step, id, at: Some(at(seconds)), took_seconds: None, audio_seconds: None }
}

/// A tracker to which these lines came, each when it was written.
fn after(lines: &[(Step, &str, u64)]) -> Tracker {
    let mut tracker = Tracker::new(SEES, FORGET_AFTER);
    for (step, id, seconds) in lines {
        tracker.apply(&event(*step, id, *seconds), at(*seconds));
    }
    tracker
}

/// Waiting, processing, oldest.
fn numbers(tracker: &mut Tracker, seconds: u64) -> (f64, f64, f64) {
    let look = tracker.look(at(seconds));
    (look.waiting.unwrap(), look.processing.unwrap(), look.oldest_seconds.unwrap())
}

use Step::{Accepted, Failed, Finished, Restarted, Started};

#[test]
fn a_job_waits_is_worked_on_and_ends() {
    let mut tracker = after(&[(Accepted, "a", 0), (Accepted, "b", 10), (Accepted, "c", 20)]);
    assert_eq!(numbers(&mut tracker, 30), (3.0, 0.0, 30.0));
    tracker.apply(&event(Started, "a", 31), at(31));
    assert_eq!(numbers(&mut tracker, 40), (2.0, 1.0, 30.0));
    tracker.apply(&event(Finished, "a", 91), at(91));
    tracker.apply(&event(Failed, "c", 92), at(92));
    let look = tracker.look(at(100));
    assert_eq!((look.waiting, look.processing, look.oldest_seconds), (Ok(1.0), Ok(0.0), Ok(90.0)));
    let done = Ended { at: at(91), failed: false, took_seconds: Some(60.0), audio_seconds: None };
    assert_eq!(look.ended, [done, Ended { at: at(92), failed: true, took_seconds: None, ..done }]);
    assert_eq!(tracker.look(at(101)).ended, [], "an end is told once");
}

#[test]
fn jobs_under_way_are_told_with_their_ids_those_that_are_worked_on_first() {
    let mut tracker = after(&[(Accepted, "a", 0), (Accepted, "", 1), (Accepted, "b", 2), (Started, "b", 3)]);
    let job = |id: Option<&str>, since, started: Option<u64>| UnderWay {
        id: id.map(str::to_owned),
        since: at(since),
        started: started.map(at),
        audio_seconds: None,
    };
    let told = [job(Some("b"), 2, Some(3)), job(Some("a"), 0, None), job(None, 1, None)];
    assert_eq!(tracker.look(at(4)).under_way, told);
    let many: Vec<(Step, &str, u64)> = vec![(Accepted, "", 5); 2 * UNDER_WAY_MAX];
    assert_eq!(after(&many).look(at(6)).under_way.len(), UNDER_WAY_MAX);
}

#[test]
fn the_time_that_a_line_says_is_believed_before_the_one_between_two_lines() {
    let mut tracker = after(&[(Accepted, "a", 0), (Started, "a", 1)]);
    let said = LineEvent { took_seconds: Some(12.5), ..event(Finished, "a", 61) };
    tracker.apply(&said, at(61));
    assert_eq!(tracker.look(at(61)).ended[0].took_seconds, Some(12.5));
}

#[test]
fn the_length_of_the_audio_may_stand_in_any_line_of_the_job() {
    let mut tracker = Tracker::new(SEES, FORGET_AFTER);
    tracker.apply(&LineEvent { audio_seconds: Some(3_600.0), ..event(Accepted, "a", 0) }, at(0));
    tracker.apply(&event(Started, "a", 1), at(1));
    tracker.apply(&event(Finished, "a", 2), at(2));
    assert_eq!(tracker.look(at(3)).ended[0].audio_seconds, Some(3_600.0));
}

#[test]
fn a_log_that_begins_in_the_middle_is_never_below_zero() {
    let mut tracker = after(&[(Finished, "x", 0), (Failed, "y", 1), (Started, "z", 2)]);
    let look = tracker.look(at(3));
    assert_eq!((look.waiting, look.processing), (Ok(0.0), Ok(1.0)));
    assert_eq!(look.ended.len(), 2);
}

#[test]
fn a_line_that_comes_twice_counts_once() {
    let mut tracker = after(&[
        (Accepted, "a", 0),
        (Accepted, "a", 0),
        (Started, "a", 1),
        (Accepted, "a", 1),
        (Started, "a", 2),
        (Finished, "a", 3),
        (Finished, "a", 3),
    ]);
    let look = tracker.look(at(4));
    assert_eq!((look.waiting, look.processing, look.ended.len()), (Ok(0.0), Ok(0.0), 1));
    assert_eq!(look.ended[0].took_seconds, Some(2.0), "from its first start");
    assert_eq!(tracker.counts().repeated, 1);
}

/// Seen with a real Docker Engine: stdout and stderr are two pipes, and "done" on the one was stamped
/// 82 microseconds before "started" on the other. The job stayed in processing until it was forgotten.
#[test]
fn a_line_that_another_stream_overtook_brings_no_job_back() {
    let mut tracker = Tracker::new(SEES, FORGET_AFTER);
    let micros = |step, by| LineEvent { at: Some(UnixMicros(BEGIN.0 + by)), ..event(step, "a", 0) };
    for line in [micros(Accepted, 0), micros(Finished, 10), micros(Started, 92), micros(Accepted, 93)] {
        tracker.apply(&line, at(1));
    }
    let look = tracker.look(at(1));
    assert_eq!((look.waiting, look.processing, look.ended.len()), (Ok(0.0), Ok(0.0), 1));
    assert_eq!(tracker.counts().repeated, 2);
    tracker.apply(&event(Accepted, "a", 1), at(1));
    assert_eq!(numbers(&mut tracker, 1), (1.0, 0.0, 0.0), "a second later it is a job again");
}

#[test]
fn a_job_that_failed_and_is_accepted_again_is_a_job_again() {
    let mut tracker = after(&[
        (Accepted, "a", 0),
        (Failed, "a", 1),
        (Accepted, "a", 2),
        (Started, "a", 3),
        (Finished, "a", 5),
    ]);
    let ended = tracker.look(at(6)).ended;
    assert_eq!(ended.iter().map(|ended| ended.failed).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn without_ids_the_first_in_is_the_first_out() {
    let mut tracker = after(&[(Accepted, "", 0), (Accepted, "", 10), (Started, "", 11), (Finished, "", 21)]);
    assert_eq!(numbers(&mut tracker, 30), (1.0, 0.0, 20.0));
    for _ in 0..3 {
        tracker.apply(&event(Finished, "", 31), at(31));
    }
    assert_eq!(numbers(&mut tracker, 40), (0.0, 0.0, 0.0));
    tracker.apply(&event(Accepted, "", 41), at(41));
    assert_eq!(numbers(&mut tracker, 41), (1.0, 0.0, 0.0), "too many ends are no debt");
}

#[test]
fn an_id_that_appears_late_names_the_oldest_job_without_one() {
    let mut tracker = after(&[(Accepted, "", 0), (Accepted, "", 1), (Started, "a", 2)]);
    assert_eq!(numbers(&mut tracker, 3), (1.0, 1.0, 2.0));
    tracker.apply(&event(Finished, "a", 4), at(4));
    assert_eq!(numbers(&mut tracker, 5), (1.0, 0.0, 4.0));
}

#[test]
fn a_worker_that_starts_anew_has_lost_its_queue_and_that_is_told() {
    let mut tracker = after(&[(Accepted, "a", 0), (Accepted, "b", 0), (Started, "a", 1), (Restarted, "", 9)]);
    let look = tracker.look(at(10));
    assert_eq!((look.waiting, look.processing, look.oldest_seconds), (Ok(0.0), Ok(0.0), Ok(0.0)));
    assert!(look.ended.iter().all(|ended| ended.failed && ended.at == at(9)) && look.ended.len() == 2);
    assert_eq!(tracker.counts().lost, 2);
}

#[test]
fn a_job_that_is_never_heard_of_again_is_forgotten_and_counted() {
    let mut tracker = after(&[(Accepted, "a", 0), (Accepted, "b", 0), (Started, "b", 10)]);
    assert_eq!(numbers(&mut tracker, 6 * 3_600), (1.0, 1.0, 21_600.0));
    assert_eq!(numbers(&mut tracker, 6 * 3_600 + 1), (0.0, 1.0, 0.0), "b was heard of later");
    assert_eq!(numbers(&mut tracker, 6 * 3_600 + 11), (0.0, 0.0, 0.0));
    assert_eq!(tracker.counts().forgotten, 2);
    assert_eq!(tracker.look(at(30_000)).ended, []);
}

#[test]
fn what_the_log_does_not_tell_is_no_number() {
    let none = Err(Missing::NotSupported);
    let look = Tracker::new(Sees { accepted: false, started: false }, FORGET_AFTER).look(at(0));
    assert_eq!((look.waiting, look.processing, look.oldest_seconds), (none, none, none));
    let mut tracker = Tracker::new(Sees { accepted: true, started: false }, FORGET_AFTER);
    tracker.apply(&event(Accepted, "a", 0), at(0));
    tracker.apply(&event(Finished, "a", 9), at(9));
    let look = tracker.look(at(9));
    assert_eq!((look.waiting, look.processing), (Ok(0.0), none));
    assert_eq!(look.ended[0].took_seconds, None, "the time from accepted on is not the processing time");
}

#[test]
fn an_old_line_without_a_time_moves_the_job_and_tells_no_time() {
    let mut tracker = Tracker::new(SEES, FORGET_AFTER);
    for (step, id) in [(Accepted, "a"), (Accepted, "b"), (Started, "a"), (Finished, "a")] {
        tracker.apply(&LineEvent { at: None, ..event(step, id, 0) }, at(100));
    }
    let look = tracker.look(at(110));
    assert_eq!((look.waiting, look.processing, look.oldest_seconds), (Ok(1.0), Ok(0.0), Ok(10.0)));
    assert_eq!(look.ended, [], "an end of an unknown time is in no rate");
}

#[test]
fn more_jobs_than_are_kept_are_counted_and_put_the_numbers_in_doubt() {
    let mut tracker = Tracker::new(SEES, FORGET_AFTER);
    for number in 0..JOBS_MAX + 3 {
        tracker.apply(&event(Accepted, &format!("job-{number}"), 0), at(0));
    }
    assert_eq!(tracker.counts().not_taken, 3);
    assert!(tracker.hole().is_some());
    assert_eq!(tracker.jobs.len(), JOBS_MAX);
    let ends = ENDED_WAITING_MAX + 5;
    for number in 0..ends {
        tracker.apply(&event(Finished, &format!("job-{number}"), 1), at(1));
    }
    assert_eq!(tracker.look(at(2)).ended.len(), ENDED_WAITING_MAX);
    assert_eq!(tracker.counts().ended_dropped, 5);
    assert!(tracker.ended_ids.order.len() <= ENDED_IDS_MAX);
}

#[test]
fn a_hole_is_told_until_no_job_from_before_it_is_left() {
    let mut tracker = after(&[(Accepted, "a", 0)]);
    tracker.skipped(at(10));
    tracker.apply(&event(Accepted, "b", 20), at(20));
    tracker.look(at(1_000));
    assert_eq!(tracker.hole(), Some(at(10)));
    tracker.apply(&event(Finished, "a", 1_001), at(1_001));
    tracker.look(at(1_002));
    assert_eq!(tracker.hole(), None);
    tracker.skipped(at(2_000));
    tracker.apply(&event(Restarted, "", 2_001), at(2_001));
    assert_eq!(tracker.hole(), None, "a worker that starts anew has nothing from before");
}

#[test]
fn an_id_of_any_length_is_one_job() {
    let long = "話".repeat(10_000);
    let mut tracker = after(&[(Accepted, &long, 0), (Started, &long, 1)]);
    assert_eq!(numbers(&mut tracker, 2), (0.0, 1.0, 0.0));
    assert!(tracker.by_id.keys().all(|id| id.len() <= ID_BYTES_MAX));
}

/// The same as the tracker for lines that all have ids, written down without any cleverness.
#[derive(Default)]
struct Model {
    waiting: Vec<(String, u64)>,
    processing: Vec<String>,
    gone: Vec<String>,
    ended: usize,
    failed: usize,
}

impl Model {
    fn apply(&mut self, step: Step, id: &str, seconds: u64) {
        let waits = self.waiting.iter().any(|job| job.0 == id);
        let runs = self.processing.iter().any(|job| job == id);
        match step {
            Accepted if !waits && !runs => {
                self.waiting.push((id.to_owned(), seconds));
                self.gone.retain(|gone| gone != id);
            }
            Started if !runs => {
                self.waiting.retain(|job| job.0 != id);
                self.processing.push(id.to_owned());
                self.gone.retain(|gone| gone != id);
            }
            Finished | Failed if waits || runs || !self.gone.contains(&id.to_owned()) => {
                self.waiting.retain(|job| job.0 != id);
                self.processing.retain(|job| job != id);
                self.gone.push(id.to_owned());
                self.ended += 1;
                self.failed += usize::from(step == Failed);
            }
            Restarted => {
                self.failed += self.waiting.len() + self.processing.len();
                self.ended += self.waiting.len() + self.processing.len();
                self.waiting.clear();
                self.processing.clear();
            }
            _ => {}
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Accepted), 6 => Just(Started), 6 => Just(Finished), 2 => Just(Failed), 1 => Just(Restarted)
    ]
}

proptest! {
    #[test]
    fn whatever_lines_come_the_counts_are_those_of_the_model(
        lines in prop::collection::vec((steps(), 0_u8..12), 0..300)
    ) {
        let (mut tracker, mut model) = (Tracker::new(SEES, FORGET_AFTER), Model::default());
        let (mut ended, mut failed) = (0, 0);
        for (seconds, (step, id)) in (0_u64..).zip(lines) {
            let id = format!("job-{id}");
            tracker.apply(&event(step, &id, seconds), at(seconds));
            model.apply(step, &id, seconds);
            let look = tracker.look(at(seconds));
            prop_assert_eq!(look.waiting, Ok(model.waiting.len() as f64));
            prop_assert_eq!(look.processing, Ok(model.processing.len() as f64));
            let oldest = model.waiting.iter().map(|job| job.1).min().map_or(0, |since| seconds - since);
            prop_assert_eq!(look.oldest_seconds, Ok(oldest as f64));
            ended += look.ended.len();
            failed += look.ended.iter().filter(|ended| ended.failed).count();
            prop_assert_eq!((ended, failed), (model.ended, model.failed));
        }
    }

    #[test]
    fn without_ids_the_counts_are_two_numbers_that_never_fall_below_zero(
        lines in prop::collection::vec(steps(), 0..300)
    ) {
        let mut tracker = Tracker::new(SEES, FORGET_AFTER);
        let (mut waiting, mut processing) = (0_u32, 0_u32);
        for (seconds, step) in (0_u64..).zip(lines) {
            tracker.apply(&event(step, "", seconds), at(seconds));
            match step {
                Accepted => waiting += 1,
                Started => (waiting, processing) = (waiting.saturating_sub(1), processing + 1),
                Finished | Failed if processing > 0 => processing -= 1,
                Finished | Failed => waiting = waiting.saturating_sub(1),
                Restarted => (waiting, processing) = (0, 0),
            }
            let look = tracker.look(at(seconds));
            prop_assert_eq!((look.waiting, look.processing), (Ok(waiting.into()), Ok(processing.into())));
        }
    }

    #[test]
    fn whatever_comes_the_lanes_and_the_jobs_agree_and_all_is_forgotten_in_the_end(
        lines in prop::collection::vec((steps(), 0_u8..5, any::<bool>(), 0_u64..4_000), 0..200)
    ) {
        let mut tracker = Tracker::new(SEES, FORGET_AFTER);
        let mut last = 0;
        for (step, id, named, seconds) in lines {
            let id = if named { format!("job-{id}") } else { String::new() };
            let mut line = event(step, &id, seconds);
            line.at = line.at.filter(|_| !seconds.is_multiple_of(7));
            last = last.max(seconds);
            tracker.apply(&line, at(last));
            let lanes: BTreeMap<u64, bool> = tracker.waiting.all().map(|key| (key, true))
                .chain(tracker.processing.all().map(|key| (key, false))).collect();
            prop_assert_eq!(lanes.len(), tracker.waiting.len() + tracker.processing.len());
            prop_assert!(lanes.keys().eq(tracker.jobs.keys()));
            for (key, waits) in lanes {
                let job = &tracker.jobs[&key];
                prop_assert_eq!(job.started.is_none(), waits);
                prop_assert_eq!(job.id.as_ref().and_then(|id| tracker.by_id.get(id)), job.id.as_ref().map(|_| &key));
                let nameless = tracker.waiting.nameless.contains(&key) || tracker.processing.nameless.contains(&key);
                prop_assert_eq!(nameless, job.id.is_none());
            }
            prop_assert_eq!(tracker.by_id.len(), tracker.jobs.values().filter(|job| job.id.is_some()).count());
            prop_assert!(tracker.ended.iter().all(|ended| ended.took_seconds.is_none_or(|took| took >= 0.0)));
        }
        tracker.look(at(last + FORGET_AFTER.as_secs() + 1));
        prop_assert!(tracker.jobs.is_empty() && tracker.by_id.is_empty());
    }
}
