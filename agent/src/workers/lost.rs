//! The ledger of lost jobs on disk, one for all workers of a node: a job may end one worker and then another.
//! Takes a loss; gives what becomes of each job, once that is written down. A file that cannot be read is put
//! aside and begun afresh, one that cannot be written gives nothing back: never twice.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{error, warn};

use crate::jobs::{Decision, LEDGER_BYTES_MAX, Ledger, LostJobs};

/// The ledger of this node; a clone is the same.
#[derive(Clone, Debug)]
pub struct Jobs(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    ledger: Ledger,
}

impl Jobs {
    /// The ledger in this file.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let ledger = read(&path).unwrap_or_else(|problem| {
            let aside = path.with_extension("json.bad");
            warn!(path = %path.display(), problem, "the ledger of lost jobs is put aside and begun afresh");
            drop(std::fs::rename(&path, aside));
            Ledger::default()
        });
        Self(Arc::new(Mutex::new(Kept { path, ledger })))
    }

    /// What becomes of these jobs; nothing when that cannot be written down.
    pub(super) async fn decide(&self, lost: LostJobs) -> Vec<Decision> {
        let kept = Arc::clone(&self.0);
        let decide = move || {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let decisions = kept.ledger.lost(&lost);
            match super::memory::write_whole(&kept.path, &kept.ledger.to_bytes()) {
                Ok(()) => decisions,
                Err(error) => {
                    error!(path = %kept.path.display(), %error, "lost jobs are not given back: that cannot be written down");
                    Vec::new()
                }
            }
        };
        tokio::task::spawn_blocking(decide).await.unwrap_or_default()
    }
}

fn read(path: &Path) -> Result<Ledger, String> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() <= LEDGER_BYTES_MAX as u64 => {
            Ledger::from_bytes(&std::fs::read(path).map_err(|error| error.to_string())?)
        }
        Ok(found) => Err(format!("it has {} bytes, at most {LEDGER_BYTES_MAX} are read", found.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ledger::default()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::clock::UnixMicros;
    use diarwatch_shared::node::WorkerId;

    fn lost(worker: &str, at: u64) -> LostJobs {
        let (worker, at) = (WorkerId::new(worker).unwrap(), UnixMicros(at));
        LostJobs { worker, at, started: vec!["job-1".into()], waiting: Vec::new(), blames: true }
    }

    #[tokio::test]
    async fn a_job_that_ended_one_worker_is_known_to_the_next_agent_and_a_disk_that_refuses_gives_nothing_back()
     {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.json");
        let first = Jobs::open(path.clone()).decide(lost("a", 1_000_000)).await;
        assert_eq!(first, [Decision::Resubmit { job: "job-1".into() }]);
        let second = Jobs::open(path.clone()).decide(lost("b", 2_000_000)).await;
        assert!(matches!(second.as_slice(), [Decision::SetAside { .. }]), "{second:?}");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Jobs::open(path.clone()).decide(lost("c", 3_000_000)).await.len(), 1);
        assert!(folder.path().join("jobs.json.bad").exists());
        let nowhere = Jobs::open(folder.path().join("jobs.json").join("below"));
        assert_eq!(nowhere.decide(lost("d", 4_000_000)).await, []);
    }
}
