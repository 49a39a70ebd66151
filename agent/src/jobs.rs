//! What becomes of jobs that were under way when a worker ended. Takes a loss; gives a decision for each
//! job: give it back once, or set it aside because it ended too many workers. Pure: the shell carries
//! decisions out and stores the ledger.
//!
//! A job that was worked on when its worker ended by itself is a suspect. The first time it is given
//! back; at its second worker it is set aside, and never given back again while it is remembered. A job
//! that only waited is never a suspect; it is given back when the worker kept it in memory, once for
//! each worker that lost it. The shell stores the ledger **before** it acts, so an agent that is killed
//! between the two gives a job back once or not at all, and never twice.

use std::collections::BTreeMap;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::node::WorkerId;
use serde::{Deserialize, Serialize};

/// The version of the stored form.
pub const LEDGER_VERSION: u16 = 1;
/// Workers that a job may end before it is set aside.
pub const KILLS_MAX: usize = 2;
/// How long a job is remembered after its last loss.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Jobs that are remembered; of more the oldest are forgotten, and counted.
pub const JOBS_MAX: usize = 4_096;
/// Kills of one job that are remembered, the newest.
pub const KILLS_KEPT_MAX: usize = 8;
/// Bytes of a job's id; a longer one is left alone, since what is cut may be another job.
pub const ID_BYTES_MAX: usize = 512;
/// Bytes of a stored ledger that are read.
pub const LEDGER_BYTES_MAX: usize = 16 << 20;

/// The jobs that a worker had when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostJobs {
    /// Which worker.
    pub worker: WorkerId,
    /// When it ended: with the worker, what tells this loss from others.
    pub at: UnixMicros,
    /// Jobs that were worked on, by their ids.
    pub started: Vec<String>,
    /// Jobs that waited in the worker's memory and are gone with it; none where the queue keeps them.
    pub waiting: Vec<String>,
    /// Whether the worker ended by itself, or was stopped because it hung. A person, a deploy or a
    /// planned restart makes nobody a suspect.
    pub blames: bool,
}

/// What becomes of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is given back to its queue.
    Resubmit {
        /// Its id.
        job: String,
    },
    /// It is not given back any more.
    SetAside {
        /// Its id.
        job: String,
        /// The workers that it ended, oldest first, at most [`KILLS_KEPT_MAX`].
        kills: Vec<Kill>,
    },
}

/// The end of a worker while it worked on a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Which worker.
    pub worker: WorkerId,
    /// When.
    pub at: UnixMicros,
}

/// What is remembered of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    jobs: BTreeMap<String, Suspect>,
    forgotten_early: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Suspect {
    kills: Vec<Kill>,
    /// The newest loss that was decided on.
    last: Kill,
    /// It stays set aside, whatever is forgotten of its kills.
    set_aside: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u16,
    #[serde(default)]
    forgotten_early: u64,
    jobs: BTreeMap<String, Suspect>,
}

impl Ledger {
    /// Decides on each job of a loss, in order, each once; a loss that was decided on before gives nothing.
    pub fn lost(&mut self, lost: &LostJobs) -> Vec<Decision> {
        self.forget(lost.at);
        let started = lost.started.iter().map(|job| (job, lost.blames));
        let waiting = lost.waiting.iter().map(|job| (job, false));
        let decided: Vec<Decision> =
            started.chain(waiting).filter_map(|(job, blamed)| self.decide(job, blamed, lost)).collect();
        self.make_room();
        decided
    }

    /// Forgets what is older than [`REMEMBERED_FOR`]; the clock may have gone back.
    pub fn forget(&mut self, now: UnixMicros) {
        self.jobs.retain(|_, job| now.since(job.last.at) <= REMEMBERED_FOR);
    }

    /// Jobs that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Jobs that were forgotten before their time because of [`JOBS_MAX`].
    #[must_use]
    pub fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }

    /// The bytes that are stored: JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (jobs, forgotten_early) = (self.jobs.clone(), self.forgotten_early);
        serde_json::to_vec(&Stored { version: LEDGER_VERSION, forgotten_early, jobs }).unwrap_or_default()
    }

    /// Reads what was stored.
    ///
    /// # Errors
    /// When it is no ledger, or one of a later version: what, and how to mend it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u16,
        }
        let hint = "move it away to begin anew: jobs that ended a worker before may be given back once more";
        if bytes.len() > LEDGER_BYTES_MAX {
            return Err(format!("the ledger of jobs has more than {LEDGER_BYTES_MAX} bytes; {hint}"));
        }
        let wrong = |error: serde_json::Error| format!("the ledger of jobs cannot be read: {error}; {hint}");
        let found: Version = serde_json::from_slice(bytes).map_err(wrong)?;
        if found.version > LEDGER_VERSION {
            return Err(format!(
                "the ledger of jobs has version {}, which is later than {LEDGER_VERSION}; run the agent that wrote it, or {hint}",
                found.version
            ));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(wrong)?;
        let mut ledger = Self { jobs: stored.jobs, forgotten_early: stored.forgotten_early };
        ledger.make_room();
        Ok(ledger)
    }

    fn decide(&mut self, job: &str, blamed: bool, lost: &LostJobs) -> Option<Decision> {
        if job.is_empty() || job.len() > ID_BYTES_MAX {
            return None;
        }
        let loss = Kill { worker: lost.worker.clone(), at: lost.at };
        let known = self.jobs.get(job);
        // An older loss than the newest one was decided on, or the clock went back: rather not at all than twice.
        if known.is_some_and(|known| loss.at <= known.last.at) {
            return None;
        }
        let mut suspect = known.cloned().unwrap_or_else(|| Suspect {
            kills: Vec::new(),
            last: loss.clone(),
            set_aside: false,
        });
        if blamed {
            suspect.kills.push(loss.clone());
            let over = suspect.kills.len().saturating_sub(KILLS_KEPT_MAX);
            suspect.kills.drain(..over);
        }
        suspect.set_aside |= suspect.kills.len() >= KILLS_MAX;
        suspect.last = loss;
        let job = job.to_owned();
        let decision = if suspect.set_aside {
            Decision::SetAside { job: job.clone(), kills: suspect.kills.clone() }
        } else {
            Decision::Resubmit { job: job.clone() }
        };
        self.jobs.insert(job, suspect);
        Some(decision)
    }

    /// Those that ended no worker go first, then the oldest.
    fn make_room(&mut self) {
        let over = self.jobs.len().saturating_sub(JOBS_MAX);
        if over == 0 {
            return;
        }
        let mut order: Vec<(usize, UnixMicros, String)> =
            self.jobs.iter().map(|(job, known)| (known.kills.len(), known.last.at, job.clone())).collect();
        order.sort_unstable();
        for (_, _, job) in order.iter().take(over) {
            self.jobs.remove(job);
        }
        self.forgotten_early = self.forgotten_early.saturating_add(u64::try_from(over).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(secs: u64) -> UnixMicros {
        UnixMicros(1_764_826_335_000_000 + secs * 1_000_000)
    }

    fn lost(worker: &str, secs: u64, started: &[&str], waiting: &[&str], blames: bool) -> LostJobs {
        let owned = |jobs: &[&str]| jobs.iter().map(|job| (*job).to_owned()).collect();
        let worker = WorkerId::new(worker).unwrap();
        LostJobs { worker, at: at(secs), started: owned(started), waiting: owned(waiting), blames }
    }

    fn resubmit(job: &str) -> Decision {
        Decision::Resubmit { job: job.into() }
    }

    #[test]
    fn a_job_that_ends_a_second_worker_is_set_aside_with_both() {
        let mut ledger = Ledger::default();
        assert_eq!(
            ledger.lost(&lost("a", 0, &["poison"], &["next"], true)),
            [resubmit("poison"), resubmit("next")]
        );
        let second = ledger.lost(&lost("b", 60, &["poison"], &["next"], true));
        let [Decision::SetAside { job, kills }, next] = second.as_slice() else { panic!("{second:?}") };
        assert_eq!((job.as_str(), kills.len()), ("poison", 2));
        assert_eq!((kills[0].worker.as_str(), kills[1].worker.as_str()), ("a", "b"));
        assert_eq!(*next, resubmit("next"), "who only waited is not to blame");
    }

    #[test]
    fn a_loss_that_is_told_again_gives_nothing_also_after_the_agent_was_restarted() {
        let mut ledger = Ledger::default();
        let loss = lost("a", 0, &["1"], &["2"], true);
        assert_eq!(ledger.lost(&loss).len(), 2);
        let mut ledger = Ledger::from_bytes(&ledger.to_bytes()).unwrap();
        assert_eq!(ledger.lost(&loss), []);
        assert_eq!(ledger.lost(&lost("a", 0, &["1", "1"], &["1"], true)), []);
    }

    #[test]
    fn an_order_of_a_person_makes_nobody_a_suspect() {
        let mut ledger = Ledger::default();
        for secs in 0..10 {
            assert_eq!(ledger.lost(&lost("a", secs, &["1"], &[], false)), [resubmit("1")]);
        }
    }

    #[test]
    fn after_seven_days_a_job_is_new_again() {
        let mut ledger = Ledger::default();
        ledger.lost(&lost("a", 0, &["1"], &[], true));
        let later = 7 * 86_400 + 1;
        assert_eq!(ledger.lost(&lost("a", later, &["1"], &[], true)), [resubmit("1")]);
        ledger.forget(at(3 * later));
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_full_ledger_forgets_those_that_ended_no_worker_first() {
        let mut ledger = Ledger::default();
        ledger.lost(&lost("a", 0, &["suspect"], &[], true));
        let jobs: Vec<String> = (0..JOBS_MAX + 9).map(|n| format!("job-{n}")).collect();
        ledger.lost(&LostJobs { waiting: jobs, ..lost("a", 1, &[], &[], true) });
        assert_eq!((ledger.len(), ledger.forgotten_early()), (JOBS_MAX, 10));
        assert!(matches!(
            ledger.lost(&lost("a", 2, &["suspect"], &[], true)).as_slice(),
            [Decision::SetAside { .. }]
        ));
    }

    #[test]
    fn a_later_version_and_what_is_no_ledger_are_refused_with_a_way_out() {
        for (bytes, words) in
            [("{\"version\":2,\"work\":[]}", "version 2"), ("{", "cannot be read"), ("[]", "move it away")]
        {
            let refused = Ledger::from_bytes(bytes.as_bytes()).unwrap_err();
            assert!(refused.contains(words) && refused.contains("move it away"), "{refused}");
        }
        let golden = br#"{"version":1,"forgotten_early":0,"jobs":{"7":{"kills":[{"worker":"a","at":5}],"last":{"worker":"a","at":5},"set_aside":false}}}"#;
        assert_eq!(Ledger::from_bytes(golden).unwrap().to_bytes(), golden);
    }

    #[test]
    fn an_id_without_end_is_left_alone() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        assert_eq!(Ledger::default().lost(&lost("a", 0, &[&long, ""], &[], true)), []);
    }

    proptest! {
        #[test]
        fn whatever_is_lost_no_job_is_given_back_twice_for_one_loss_nor_after_its_second_kill(
            losses in prop::collection::vec(
                (0_u8..3, 0_u64..40, prop::collection::vec(0_u8..5, 0..4), prop::collection::vec(0_u8..5, 0..4), any::<bool>(), any::<bool>()),
                0..40,
            ),
        ) {
            let mut ledger = Ledger::default();
            let mut kills: BTreeMap<String, Vec<(u8, u64)>> = BTreeMap::new();
            let mut given: BTreeMap<(String, u8, u64), u32> = BTreeMap::new();
            for (worker, secs, started, waiting, blames, stored) in losses {
                let ids = |jobs: &[u8]| jobs.iter().map(u8::to_string).collect::<Vec<_>>();
                let loss = LostJobs {
                    worker: WorkerId::new(format!("w{worker}")).unwrap(),
                    at: at(secs),
                    started: ids(&started),
                    waiting: ids(&waiting),
                    blames,
                };
                for decision in ledger.lost(&loss) {
                    let (Decision::Resubmit { job } | Decision::SetAside { job, .. }) = &decision;
                    let of = kills.entry(job.clone()).or_default();
                    if blames && loss.started.contains(job) && !of.contains(&(worker, secs)) {
                        of.push((worker, secs));
                    }
                    match &decision {
                        Decision::Resubmit { .. } => {
                            prop_assert!(of.len() < KILLS_MAX, "given back after {} kills", of.len());
                            let times = given.entry((job.clone(), worker, secs)).or_default();
                            *times += 1;
                            prop_assert_eq!(*times, 1, "given back twice for one loss");
                        }
                        Decision::SetAside { kills, .. } => {
                            prop_assert!(of.len() >= KILLS_MAX, "set aside after {} kills", of.len());
                            prop_assert!(kills.len() <= KILLS_KEPT_MAX);
                        }
                    }
                }
                if stored {
                    ledger = Ledger::from_bytes(&ledger.to_bytes()).unwrap();
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Ledger::from_bytes(&bytes);
        }
    }
}
