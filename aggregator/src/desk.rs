//! Alerts and outbox as one durable state: on disk before anything is sent.
//!
//! Takes changes; gives them back after a restart or a power cut. One small file, replaced as a
//! whole at each change that matters. Whoever holds the desk while it is saved keeps others waiting,
//! so that no message is seen before it is durable. A disk that refuses is said on the page and does
//! not keep an alert from its people.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diarwatch_shared::log::replace_file;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tracing::error;

use crate::alerts::State;
use crate::notify::Outbox;

/// The version this program writes, and the newest it reads.
pub const STATE_VERSION: u16 = 1;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    version: u16,
    /// The alerts.
    pub alerts: State,
    /// Messages on their way.
    pub outbox: Outbox,
    /// Why the state is not on disk, for a person.
    #[serde(skip)]
    pub problem: Option<String>,
    /// Rules that could not be evaluated in the newest round, and why.
    #[serde(skip)]
    pub faults: Vec<String>,
}

/// Why a state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It is there and cannot be read.
    #[error("alert state {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
}

/// The shared state.
#[derive(Clone, Debug)]
pub struct Desk {
    kept: Arc<Mutex<Kept>>,
    path: Arc<PathBuf>,
    changed: Arc<Notify>,
}

impl Desk {
    /// Opens the state in a directory; a new one is empty.
    ///
    /// # Errors
    /// When it is there and is damaged or of a later version: alerts must not be forgotten silently.
    pub fn open(directory: &Path) -> Result<Self, DeskError> {
        let path = directory.join("alerts.json");
        let unreadable = |why: String| DeskError::Unreadable { path: path.clone(), why };
        let kept = match std::fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(unreadable)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        Ok(Self { kept: Arc::new(Mutex::new(kept)), path: Arc::new(path), changed: Arc::default() })
    }

    /// Reads the state.
    pub async fn read<T>(&self, read: impl FnOnce(&Kept) -> T) -> T {
        read(&*self.kept.lock().await)
    }

    /// Changes the state. When `change` says that it matters, the state is on disk before anybody
    /// else sees it, and waiters are woken. What a disk refused is tried again with every change.
    pub async fn change<T>(&self, change: impl FnOnce(&mut Kept) -> (bool, T)) -> T {
        let mut kept = self.kept.lock().await;
        let (matters, answer) = change(&mut kept);
        if matters || kept.problem.is_some() {
            kept.version = STATE_VERSION;
            let problem = self.save(&kept).await.err();
            if let Some(problem) = problem.as_ref().filter(|_| problem != kept.problem) {
                error!(problem, "alert state is not on disk");
            }
            kept.problem = problem;
        }
        if matters {
            self.changed.notify_one();
        }
        answer
    }

    /// Waits until a change mattered.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn save(&self, kept: &Kept) -> Result<(), String> {
        let bytes = serde_json::to_vec(kept).map_err(|error| error.to_string())?;
        let path = Arc::clone(&self.path);
        let save =
            move || replace_file(&path, &bytes).map_err(|error| format!("{}: {error}", path.display()));
        tokio::task::spawn_blocking(save).await.map_err(|error| error.to_string())?
    }
}

fn parse(bytes: &[u8]) -> Result<Kept, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u16,
    }
    let hint = "move the file away to start without it; alerts that are firing are then told again";
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| format!("{error}; {hint}"))?;
    if version > STATE_VERSION {
        return Err(format!("version {version} is newer than this program ({STATE_VERSION}); upgrade it"));
    }
    serde_json::from_slice(bytes).map_err(|error| format!("{error}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_matters_is_there_after_a_restart_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let desk = Desk::open(dir.path()).unwrap();
        desk.change(|kept| (true, kept.outbox.accepted = 7)).await;
        desk.change(|kept| (false, kept.outbox.accepted = 8)).await;
        let again = Desk::open(dir.path()).unwrap();
        assert_eq!(again.read(|kept| kept.outbox.accepted).await, 7);
        for (text, word) in [("{", "move the file away"), (r#"{"version":9}"#, "upgrade")] {
            std::fs::write(dir.path().join("alerts.json"), text).unwrap();
            assert!(Desk::open(dir.path()).unwrap_err().to_string().contains(word));
        }
    }

    #[tokio::test]
    async fn what_a_disk_refused_is_there_as_soon_as_it_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (place, away) = (dir.path().join("store"), dir.path().join("away"));
        std::fs::create_dir(&place).unwrap();
        let desk = Desk::open(&place).unwrap();
        std::fs::rename(&place, &away).unwrap();
        desk.change(|kept| (true, kept.outbox.accepted = 7)).await;
        assert!(desk.read(|kept| kept.problem.is_some()).await);
        std::fs::rename(&away, &place).unwrap();
        desk.change(|_| (false, ())).await;
        assert_eq!(desk.read(|kept| kept.problem.clone()).await, None);
        assert_eq!(Desk::open(&place).unwrap().read(|kept| kept.outbox.accepted).await, 7);
    }
}
