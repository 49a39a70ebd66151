//! The processes on a GPU, from three answers of the driver. Takes who holds memory, and samples of what
//! processes used; gives one list, and when the next GPU's list may be asked for. Pure.
//!
//! A list of processes is the dearest thing that the driver is asked for: milliseconds, under a lock that
//! the workers need, too. So one GPU is asked at a time, and the more rarely the longer the answer takes.

use std::collections::BTreeMap;
use std::time::Duration;

use diarwatch_shared::reading::{Missing, Reading};

use super::message::{PROCESSES_MAX, Process, Processes};

/// From one list of a GPU to its next, while there is room in the driver's budget.
pub(super) const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The longest: beyond it the list would be too old to conclude anything from.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(4);
/// The driver's budget: one part in so many of the time is spent on lists of processes.
const BUDGET_PARTS: u32 = 100;
/// For how long a sample speaks for a process, when no newer one has come.
const SAMPLE_HOLDS: Duration = Duration::from_secs(2);
/// Percent; drivers have been seen to give more for processes that are gone.
const PERCENT_MAX: u32 = 100;

/// A process that holds memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// How much it holds, bytes.
    pub memory: Reading,
}

/// What a process used at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its pid.
    pub pid: u32,
    /// When, by the driver's clock, microseconds.
    pub at_us: u64,
    /// Of the multiprocessors, percent.
    pub sm_percent: u32,
}

/// What the processes of one GPU use, from look to look.
#[derive(Debug)]
pub struct Meter {
    /// The driver's time of the newest sample; none before the first answer.
    cursor: Option<u64>,
    /// Why there is no value now; none while there is.
    missing: Option<Missing>,
    busy: BTreeMap<u32, (f64, Duration)>,
}

impl Default for Meter {
    fn default() -> Self {
        Self { cursor: None, missing: Some(Missing::NotYet), busy: BTreeMap::new() }
    }
}

impl Meter {
    /// After which of the driver's times it is to be asked for samples.
    pub fn since_us(&self) -> Option<u64> {
        self.cursor
    }

    /// The driver's answer at `now`. The first one only says where its samples end: what it has of before
    /// shows processes as busy that have long stopped.
    pub fn take(&mut self, answer: Result<Vec<Sample>, Missing>, now: Duration) {
        let samples = match answer {
            Ok(samples) => samples,
            Err(missing) => {
                *self = Self { cursor: self.cursor, missing: Some(missing), busy: BTreeMap::new() };
                return;
            }
        };
        let newest = samples.iter().map(|sample| sample.at_us).max().unwrap_or_default();
        let Some(seen) = self.cursor else {
            self.cursor = Some(newest);
            return;
        };
        self.cursor = Some(newest.max(seen));
        self.missing = None;
        self.busy.retain(|_, (_, at)| now.saturating_sub(*at) < SAMPLE_HOLDS);
        let sane = |sample: &&Sample| sample.at_us > seen && sample.sm_percent <= PERCENT_MAX;
        let mut new: BTreeMap<u32, u32> = BTreeMap::new();
        for sample in samples.iter().filter(sane) {
            let most = new.entry(sample.pid).or_default();
            *most = sample.sm_percent.max(*most);
        }
        let new = new.into_iter().map(|(pid, percent)| (pid, (f64::from(percent) / 100.0, now)));
        self.busy.extend(new.take(PROCESSES_MAX));
    }

    /// What a process that is on the GPU used lately. The driver speaks of those alone that used anything.
    fn ratio(&self, pid: u32) -> Reading {
        self.missing.map_or_else(|| Ok(self.busy.get(&pid).map_or(0.0, |(ratio, _)| *ratio)), Err)
    }

    /// The list of a GPU, from those who compute and those who draw.
    pub fn list(&self, holders: Result<[Vec<Holder>; 2], Missing>) -> Processes {
        let [compute, graphics] = match holders {
            Ok(lists) => lists.map(|list| by_pid(&list)),
            Err(missing) => return Processes::Missing(missing as u8),
        };
        let mut merged = compute;
        for (pid, memory) in graphics {
            let known = merged.entry(pid).or_insert(memory);
            if let (Ok(one), Ok(other)) = (*known, memory) {
                *known = Ok(one.max(other));
            } else {
                *known = known.or(memory);
            }
        }
        let mut holders: Vec<(u32, Reading)> = merged.into_iter().collect();
        let bytes = |memory: &Reading| memory.unwrap_or(-1.0);
        holders.sort_by(|(_, one), (_, other)| bytes(other).total_cmp(&bytes(one)));
        let all = holders.len() <= PROCESSES_MAX;
        holders.truncate(PROCESSES_MAX);
        let shown = holders.into_iter().map(|(pid, memory)| Process {
            pid,
            memory: memory.into(),
            sm: self.ratio(pid).into(),
        });
        Processes::Are { shown: shown.collect(), all }
    }
}

/// A process stands in one list once for each of its parts of a GPU: their memory adds up.
fn by_pid(list: &[Holder]) -> BTreeMap<u32, Reading> {
    let mut by_pid = BTreeMap::new();
    for holder in list {
        let known = by_pid.entry(holder.pid).or_insert(Ok(0.0));
        *known = (*known).and_then(|bytes| holder.memory.map(|more| bytes + more));
    }
    by_pid
}

/// Which GPU's list is read next, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    gpus: u32,
    next: u32,
    due: Duration,
    /// The longest time that a list has taken of late.
    took: Duration,
}

impl Rounds {
    /// Rounds over so many GPUs, due at `now`.
    pub(super) fn over(gpus: usize, now: Duration) -> Self {
        let gpus = u32::try_from(gpus).unwrap_or(u32::MAX).max(1);
        Self { gpus, next: 0, due: now, took: Duration::ZERO }
    }

    /// When the next list is due.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// The place of the GPU that is next.
    pub(super) fn next(&self) -> usize {
        self.next as usize
    }

    /// Its list took so long to read, until `now`.
    pub(super) fn took(&mut self, took: Duration, now: Duration) {
        // One dear list is forgotten within some rounds, and one that hung is no dearer than the dearest.
        let dearest = INTERVAL_MAX / BUDGET_PARTS;
        self.took = took.min(dearest).max(self.took - self.took / 8);
        let gap = self.took.saturating_mul(BUDGET_PARTS);
        self.due = now + gap.clamp(INTERVAL_MIN / self.gpus, INTERVAL_MAX / self.gpus);
        self.next = (self.next + 1) % self.gpus;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sample(pid: u32, at_us: u64, sm_percent: u32) -> Sample {
        Sample { pid, at_us, sm_percent }
    }

    fn holder(pid: u32, bytes: f64) -> Holder {
        Holder { pid, memory: Ok(bytes) }
    }

    fn process(pid: u32, memory: Reading, sm: Reading) -> Process {
        Process { pid, memory: memory.into(), sm: sm.into() }
    }

    fn shown(processes: Processes) -> Vec<Process> {
        let Processes::Are { shown, .. } = processes else { panic!("{processes:?}") };
        shown
    }

    #[test]
    fn a_process_that_computes_and_draws_is_one_and_the_largest_comes_first() {
        let compute = vec![holder(7, 100.0), holder(8, 300.0), holder(7, 50.0)];
        let drawing = vec![holder(8, 300.0), Holder { pid: 9, memory: Err(Missing::NotSupported) }];
        let not_yet = Err(Missing::NotYet);
        let expected = [
            process(8, Ok(300.0), not_yet),
            process(7, Ok(150.0), not_yet),
            process(9, Err(Missing::NotSupported), not_yet),
        ];
        assert_eq!(shown(Meter::default().list(Ok([compute, drawing]))), expected);
    }

    #[test]
    fn what_the_driver_has_of_before_is_no_work_of_now() {
        let mut meter = Meter::default();
        meter.take(Ok(vec![sample(7, 1_000, 90)]), SECOND);
        assert_eq!((meter.ratio(7), meter.since_us()), (Err(Missing::NotYet), Some(1_000)));
        meter.take(Ok(vec![sample(7, 1_000, 90), sample(8, 2_000, 40), sample(8, 1_500, 60)]), 2 * SECOND);
        assert_eq!((meter.ratio(7), meter.ratio(8)), (Ok(0.0), Ok(0.6)));
    }

    #[test]
    fn a_sample_speaks_for_a_while_and_then_the_process_is_idle() {
        let mut meter = Meter::default();
        meter.take(Ok(Vec::new()), Duration::ZERO);
        meter.take(Ok(vec![sample(7, 5, 80)]), SECOND);
        meter.take(Ok(Vec::new()), 2 * SECOND);
        assert_eq!(meter.ratio(7), Ok(0.8));
        meter.take(Ok(Vec::new()), 3 * SECOND);
        assert_eq!(meter.ratio(7), Ok(0.0));
        meter.take(Err(Missing::NotSupported), 4 * SECOND);
        assert_eq!(meter.ratio(7), Err(Missing::NotSupported));
    }

    #[test]
    fn garbage_of_the_driver_is_not_published() {
        let mut meter = Meter::default();
        meter.take(Ok(Vec::new()), Duration::ZERO);
        meter.take(Ok(vec![sample(7, 5, 4_000_000_000), sample(8, 0, 50)]), SECOND);
        assert_eq!((meter.ratio(7), meter.ratio(8)), (Ok(0.0), Ok(0.0)));
    }

    #[test]
    fn a_list_that_is_too_long_says_so_and_keeps_the_largest() {
        let many = (0..1_000).map(|pid| holder(pid, f64::from(pid))).collect();
        let Processes::Are { shown, all } = Meter::default().list(Ok([many, Vec::new()])) else { panic!() };
        assert_eq!((shown.len(), all, shown[0].pid), (PROCESSES_MAX, false, 999));
    }

    #[test]
    fn a_driver_that_is_slow_is_asked_more_rarely_and_each_gpu_in_turn() {
        let mut rounds = Rounds::over(2, Duration::ZERO);
        assert_eq!((rounds.next(), rounds.due()), (0, Duration::ZERO));
        rounds.took(Duration::from_micros(50), Duration::ZERO);
        assert_eq!((rounds.next(), rounds.due()), (1, SECOND / 2));
        rounds.took(Duration::from_millis(9), SECOND);
        assert_eq!((rounds.next(), rounds.due()), (0, SECOND + Duration::from_millis(900)));
        rounds.took(5 * SECOND, 2 * SECOND);
        assert_eq!(rounds.due(), 2 * SECOND + INTERVAL_MAX / 2);
        (0..24).for_each(|_| rounds.took(Duration::from_micros(50), 2 * SECOND));
        assert_eq!(rounds.due(), 2 * SECOND + SECOND / 2, "one that hung is forgotten");
    }

    proptest! {
        #[test]
        fn whatever_the_driver_says_a_process_uses_at_most_all_of_a_gpu(
            answers in prop::collection::vec(prop::collection::vec((0_u32..4, any::<u64>(), any::<u32>()), 0..20), 0..8),
        ) {
            let mut meter = Meter::default();
            for (second, answer) in (0_u32..).zip(answers) {
                let samples = answer.into_iter().map(|(pid, at_us, sm_percent)| Sample { pid, at_us, sm_percent });
                meter.take(Ok(samples.collect()), SECOND * second);
                for pid in 0..4 {
                    prop_assert!(meter.ratio(pid).is_ok_and(|ratio| (0.0..=1.0).contains(&ratio)) || meter.ratio(pid) == Err(Missing::NotYet));
                }
            }
        }
    }
}
