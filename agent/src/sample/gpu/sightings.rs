//! XIDs as they were seen, by the driver's reports and in the kernel's log, made one. Takes sightings and
//! the time; gives each XID once, with what either source knew of it. Pure.
//!
//! The two see the same error within milliseconds, but only the log knows the process, and only the driver
//! what it wants done. So an XID waits a moment for its other half before it is told.

use std::collections::VecDeque;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::RecoveryAction;

use super::kernel_line::Bus;

/// The same code of the same GPU within this time is the same error.
pub(super) const SAME_WITHIN: Duration = Duration::from_secs(5);
/// For how long an XID waits to hear what the driver wants done.
pub(super) const DRIVER_WAIT: Duration = Duration::from_millis(250);
/// For how long one that the driver reported waits for the kernel's log: journald tells its readers of what
/// it has written up to 250 ms later.
pub(super) const LOG_WAIT: Duration = Duration::from_millis(700);
/// XIDs of one GPU that come within this time have to do with each other.
const COMPANIONS_WITHIN: Duration = Duration::from_secs(30);
/// XIDs that wait at once; beyond it the oldest is told as it is.
const WAITING_MAX: usize = 64;
/// XIDs that are remembered.
pub(super) const TOLD_MAX: usize = 32;

/// Who saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// NVML.
    Driver,
    /// The kernel's log.
    KernelLog,
}

/// Which GPU it is about, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// Its index.
    pub(super) gpu: Option<u32>,
    /// Its identity; empty when it is not known.
    pub(super) uuid: String,
    /// Its place on the bus.
    pub(super) bus: Option<Bus>,
}

/// One XID, seen once or twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// When it was first seen, by [`clock::uptime`](diarwatch_shared::clock::uptime).
    pub(super) seen: Duration,
    /// Until when it waits for its other half.
    pub(super) until: Duration,
    /// When it happened.
    pub(super) at: UnixMicros,
    /// Its GPU.
    pub(super) subject: Subject,
    /// Its code.
    pub(super) code: u32,
    /// The process that it hit.
    pub(super) pid: Option<u32>,
    /// What the log says of it.
    pub(super) text: String,
    /// What the driver wants done, in the words of the log.
    pub(super) recovery: Option<RecoveryAction>,
    /// Who saw it first.
    pub(super) source: Source,
    /// Whether the other one has seen it, too.
    pub(super) twice: bool,
}

impl Sighting {
    fn is(&self, other: &Self) -> bool {
        let pids = match (self.pid, other.pid) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let gpus = match (&self.subject, &other.subject) {
            (one, other) if one.uuid.is_empty() || other.uuid.is_empty() => one.bus == other.bus,
            (one, other) => one.uuid == other.uuid,
        };
        self.code == other.code
            && gpus
            && pids
            && other.seen.saturating_sub(self.seen) < SAME_WITHIN
            && self.seen.saturating_sub(other.seen) < SAME_WITHIN
    }

    fn join(&mut self, other: Self) {
        self.twice |= self.source != other.source;
        self.pid = self.pid.or(other.pid);
        self.recovery = self.recovery.or(other.recovery);
        if self.text.is_empty() {
            self.text = other.text;
        }
        if self.subject.uuid.is_empty() {
            self.subject = other.subject;
        }
    }
}

/// What became of a sighting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// It waits for its other half, or is one.
    Waits,
    /// It was told already; the process was not known then and is now.
    KnowsPid(Sighting),
    /// It was told already.
    Known,
}

/// All sightings of late.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    waiting: VecDeque<Sighting>,
    told: VecDeque<Sighting>,
}

impl Sightings {
    /// One more.
    pub(super) fn see(&mut self, sighting: Sighting) -> Became {
        if let Some(half) = self.waiting.iter_mut().find(|half| half.is(&sighting)) {
            half.join(sighting);
            return Became::Waits;
        }
        if let Some(told) = self.told.iter_mut().rev().find(|told| told.is(&sighting)) {
            let knew = told.pid.is_some();
            told.join(sighting);
            return if knew || told.pid.is_none() { Became::Known } else { Became::KnowsPid(told.clone()) };
        }
        self.waiting.push_back(sighting);
        Became::Waits
    }

    /// When the next one is to be told.
    pub(super) fn due(&self) -> Option<Duration> {
        self.waiting.iter().map(|half| half.until).min()
    }

    /// What is to be told at `now`, each with the codes that came on its GPU shortly before. `is_whole` says
    /// that nothing more can be learnt of one that both have seen.
    pub(super) fn take(
        &mut self,
        now: Duration,
        is_whole: impl Fn(&Sighting) -> bool,
    ) -> Vec<(Sighting, Vec<u32>)> {
        let over = self.waiting.len().saturating_sub(WAITING_MAX);
        let ready = |(place, half): (usize, &Sighting)| {
            place < over || now >= half.until || (half.twice && is_whole(half))
        };
        let ready: Vec<bool> = self.waiting.iter().enumerate().map(ready).collect();
        let waiting = std::mem::take(&mut self.waiting);
        let mut out = Vec::new();
        let mut ready_ones = Vec::new();
        for (half, ready) in waiting.into_iter().zip(ready) {
            if ready { ready_ones.push(half) } else { self.waiting.push_back(half) }
        }
        for half in ready_ones {
            let near = |other: &&Sighting| {
                let apart = half.seen.saturating_sub(other.seen).max(other.seen.saturating_sub(half.seen));
                other.subject == half.subject && other.code != half.code && apart < COMPANIONS_WITHIN
            };
            let companions = self.told.iter().chain(&self.waiting).filter(near).map(|other| other.code);
            out.push((half.clone(), companions.collect()));
            self.told.push_back(half);
            if self.told.len() > TOLD_MAX {
                self.told.pop_front();
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn seen(source: Source, gpu: u32, code: u32, pid: Option<u32>, at_ms: u64) -> Sighting {
        Sighting {
            seen: ms(at_ms),
            until: ms(at_ms) + DRIVER_WAIT,
            at: UnixMicros(at_ms * 1_000),
            subject: Subject { gpu: Some(gpu), uuid: format!("GPU-{gpu}"), bus: None },
            code,
            pid,
            text: if source == Source::KernelLog { "of the log".into() } else { String::new() },
            recovery: None,
            source,
            twice: false,
        }
    }

    fn told(sightings: &mut Sightings, at_ms: u64) -> Vec<(u32, Option<u32>)> {
        let told = sightings.take(ms(at_ms), |_| true);
        told.into_iter().map(|(sighting, _)| (sighting.code, sighting.pid)).collect()
    }

    #[test]
    fn an_error_that_both_saw_is_told_once_with_what_either_knew() {
        let mut sightings = Sightings::default();
        assert_eq!(sightings.see(seen(Source::Driver, 0, 31, None, 0)), Became::Waits);
        assert!(sightings.take(ms(100), |_| true).is_empty(), "it waits for its other half");
        assert_eq!(sightings.due(), Some(DRIVER_WAIT));
        sightings.see(seen(Source::KernelLog, 0, 31, Some(7), 110));
        let one = sightings.take(ms(110), |_| true).remove(0).0;
        assert_eq!((one.pid, one.text.as_str(), one.twice), (Some(7), "of the log", true));
        assert_eq!(sightings.see(seen(Source::Driver, 0, 31, None, 4_900)), Became::Known);
        assert!(sightings.take(ms(6_000), |_| true).is_empty());
    }

    #[test]
    fn an_error_that_one_saw_is_told_after_a_moment() {
        let mut sightings = Sightings::default();
        sightings.see(seen(Source::Driver, 0, 79, None, 0));
        assert_eq!(told(&mut sightings, 250), [(79, None)]);
        let late = sightings.see(seen(Source::KernelLog, 0, 79, Some(7), 2_000));
        assert!(matches!(late, Became::KnowsPid(Sighting { pid: Some(7), .. })), "{late:?}");
        assert!(told(&mut sightings, 9_000).is_empty());
    }

    #[test]
    fn the_same_code_later_on_another_gpu_or_of_another_process_is_another_error() {
        let mut sightings = Sightings::default();
        sightings.see(seen(Source::KernelLog, 0, 31, Some(7), 0));
        sightings.see(seen(Source::KernelLog, 0, 31, Some(8), 10));
        sightings.see(seen(Source::KernelLog, 1, 31, Some(7), 20));
        assert_eq!(told(&mut sightings, 300).len(), 3);
        assert_eq!(sightings.see(seen(Source::KernelLog, 0, 31, Some(7), 4_999)), Became::Known);
        assert_eq!(sightings.see(seen(Source::KernelLog, 0, 31, Some(7), 5_000)), Became::Waits);
    }

    #[test]
    fn a_storm_of_one_error_is_told_once_in_five_seconds() {
        let mut sightings = Sightings::default();
        let mut count = 0;
        for at in 0..200 {
            sightings.see(seen(Source::KernelLog, 0, 94, None, at * 100));
            count += told(&mut sightings, at * 100).len();
        }
        assert_eq!(count, 4);
    }

    #[test]
    fn an_error_knows_those_that_came_before_it() {
        let mut sightings = Sightings::default();
        sightings.see(seen(Source::KernelLog, 0, 31, Some(7), 0));
        told(&mut sightings, 300);
        sightings.see(seen(Source::KernelLog, 0, 45, Some(7), 400));
        sightings.see(seen(Source::KernelLog, 1, 45, Some(9), 400));
        let told = sightings.take(ms(700), |_| true);
        assert_eq!(told.iter().map(|(_, codes)| codes.clone()).collect::<Vec<_>>(), [vec![31], vec![]]);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_nothing_is_lost(
            seen_ones in prop::collection::vec((any::<bool>(), 0_u32..3, 1_u32..200, 0_u32..4, 0_u64..50), 0..400),
        ) {
            let mut sightings = Sightings::default();
            let (mut at, mut first, mut count) = (0, std::collections::BTreeSet::new(), 0);
            for (driver, gpu, code, pid, gap) in seen_ones {
                at += gap;
                let source = if driver { Source::Driver } else { Source::KernelLog };
                let pid = (!driver && pid > 0).then_some(pid);
                sightings.see(seen(source, gpu, code, pid, at));
                first.insert((gpu, code));
                count += sightings.take(ms(at), |_| true).len();
                prop_assert!(sightings.waiting.len() <= WAITING_MAX && sightings.told.len() <= TOLD_MAX);
            }
            count += sightings.take(ms(at + 10_000), |_| true).len();
            prop_assert!(count >= first.len());
            prop_assert!(sightings.due().is_none());
        }
    }
}
