//! The judge's memory on disk, one small file a worker: takes what has to outlive the agent; gives it back at
//! the start. A file that cannot be read is said and begun afresh, one of a later version is left as it is.
//! Written beside the loop and whole (new file, fsync, rename); of several changes the newest is written.

use std::io::Write;
use std::path::{Path, PathBuf};

use diarwatch_shared::clock;
use diarwatch_shared::node::WorkerId;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use crate::judge::State;
use crate::judge::saved::{Saved, VERSION};

/// Bytes of a file that are read.
const BYTES_MAX: u64 = 64 * 1024;

/// Where one worker's memory is.
#[derive(Debug)]
pub(super) struct Memory {
    path: Option<PathBuf>,
    writing: Option<JoinHandle<()>>,
    /// It changed since it was last written.
    dirty: bool,
}

impl Memory {
    /// In this directory, or nowhere.
    pub(super) fn new(directory: Option<&Path>, worker: &WorkerId) -> Self {
        let path = directory.map(|directory| directory.join(format!("{worker}.json")));
        Self { path, writing: None, dirty: false }
    }

    /// What an earlier agent knew.
    pub(super) fn read(&mut self) -> State {
        let Some(path) = &self.path else { return State::new() };
        match read(path) {
            Ok(Some(saved)) => State::restored(&saved, clock::uptime(), clock::now()),
            Ok(None) => State::new(),
            Err(problem) => {
                warn!(path = %path.display(), problem, "what was known of a worker is not; it begins afresh");
                if problem.starts_with(LATER) {
                    self.path = None;
                }
                State::new()
            }
        }
    }

    /// It has to be written.
    pub(super) fn changed(&mut self) {
        self.dirty = self.path.is_some();
    }

    /// Writes what changed, beside the loop, unless a write is under way.
    pub(super) fn write(&mut self, state: &State) {
        if !self.dirty || self.writing.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Some(path) = self.path.clone() else { return };
        self.dirty = false;
        let saved = state.saved(clock::uptime(), clock::now());
        self.writing = Some(tokio::task::spawn_blocking(move || tell(&path, write(&path, &saved))));
    }

    /// The agent ends: the newest is written before that.
    pub(super) async fn close(mut self, state: &State) {
        if let Some(task) = self.writing.take() {
            drop(task.await);
        }
        self.write(state);
        if let Some(task) = self.writing.take() {
            drop(task.await);
        }
    }
}

/// How the problem of a file begins that a later agent wrote.
const LATER: &str = "a later version of the agent";

fn tell(path: &Path, written: std::io::Result<()>) {
    if let Err(error) = written {
        error!(path = %path.display(), %error, "what is known of a worker cannot be written; a restart of the agent forgets it");
    }
}

fn read(path: &Path) -> Result<Option<Saved>, String> {
    let bytes = match std::fs::metadata(path) {
        Ok(found) if found.len() <= BYTES_MAX => std::fs::read(path).map_err(|error| error.to_string())?,
        Ok(found) => return Err(format!("it has {} bytes, at most {BYTES_MAX} are read", found.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or_default();
    if version > u64::from(VERSION) {
        return Err(format!("{LATER} wrote it (version {version}); it is left as it is"));
    }
    serde_json::from_value(value).map(Some).map_err(|error| error.to_string())
}

fn write(path: &Path, saved: &Saved) -> std::io::Result<()> {
    write_whole(path, &serde_json::to_vec(saved).map_err(std::io::Error::other)?)
}

/// Writes a small file whole: the old one or the new one is there, whatever happens meanwhile.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let new = path.with_extension("json.new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(directory: &Path) -> Memory {
        Memory::new(Some(directory), &WorkerId::new("w").unwrap())
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_a_later_version_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("workers");
        let path = directory.join("w.json");
        let mut first = memory(&directory);
        let state = first.read();
        first.changed();
        first.close(&state).await;
        assert!(read(&path).unwrap().is_some());
        for broken in ["", "{", "[]", r#"{"version":1}"#] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(memory(&directory).read(), State::new(), "{broken}");
        }
        let later = r#"{"version":2,"levitates":true}"#;
        std::fs::write(&path, later).unwrap();
        let mut memory = memory(&directory);
        let state = memory.read();
        memory.changed();
        memory.close(&state).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), later);
    }
}
