//! What the spool remembers beside its frames: gaps, what was lost, and the newest epoch, which must
//! be known even after every frame of it was acknowledged and dropped. One small JSON file, replaced
//! as a whole; `spool.json` in the spool's directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use diarwatch_shared::log::replace_file;
use diarwatch_shared::node::Epoch;
use diarwatch_shared::wire::control::Gap;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::SpoolError;
use super::generation::Range;

/// The version this program writes, and the newest it reads.
const NOTES_VERSION: u16 = 1;
/// Gaps that are remembered; the oldest are forgotten.
const GAPS_MAX: usize = 256;

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Notes {
    version: u16,
    /// The newest run of the agent.
    pub(super) epoch: Option<Epoch>,
    /// Frames given up since the directory was made.
    pub(super) lost: u64,
    /// Frames that are not here any more and that the aggregator has not got, in order.
    pub(super) gaps: Vec<Gap>,
}

#[derive(Deserialize)]
struct Version {
    version: u16,
}

impl Notes {
    /// Reads the notes; none yet is none. A file that is damaged is set aside: the frames matter more.
    pub(super) fn read(directory: &Path) -> Result<Self, SpoolError> {
        let path = path_in(directory);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::new()),
            Err(error) => return Err(SpoolError::io(&path, &error)),
        };
        let version = serde_json::from_slice::<Version>(&bytes).map_or(0, |kept| kept.version);
        if version > NOTES_VERSION {
            let why =
                format!("version {version} is newer than this program; upgrade it or move the file away");
            return Err(SpoolError::Io { path, why });
        }
        serde_json::from_slice(&bytes).or_else(|error| {
            warn!(path = %path.display(), %error, "the spool's notes are damaged and set aside");
            std::fs::rename(&path, path.with_extension("damaged"))
                .map_err(|error| SpoolError::io(&path, &error))?;
            Ok(Self::new())
        })
    }

    /// Replaces the file.
    pub(super) fn write(&self, directory: &Path) -> Result<(), SpoolError> {
        let path = path_in(directory);
        let text = serde_json::to_vec(self).unwrap_or_default();
        replace_file(&path, &text).map_err(|error| SpoolError::io(&path, &error))
    }

    /// The newest epoch that is told of.
    pub(super) fn newest_epoch(&self) -> Option<Epoch> {
        self.epoch.max(self.gaps.iter().map(|gap| gap.epoch).max())
    }

    /// Frames that the spool's bound cost.
    pub(super) fn give_up(&mut self, epoch: Epoch, Range { from, to }: Range) {
        if from < to {
            self.lost += to - from;
            self.gaps.push(Gap { epoch, from, to, reason: "spool_full".into() });
            merge(&mut self.gaps);
        }
    }

    fn new() -> Self {
        Self { version: NOTES_VERSION, epoch: None, lost: 0, gaps: Vec::new() }
    }
}

/// Joins neighbours; forgets the oldest when there are too many.
fn merge(gaps: &mut Vec<Gap>) {
    gaps.sort_by_key(|gap| (gap.epoch, gap.from));
    let mut merged: Vec<Gap> = Vec::with_capacity(gaps.len());
    for gap in gaps.drain(..) {
        match merged.last_mut() {
            Some(last) if last.epoch == gap.epoch && gap.from <= last.to => last.to = last.to.max(gap.to),
            _ => merged.push(gap),
        }
    }
    let surplus = merged.len().saturating_sub(GAPS_MAX);
    gaps.extend(merged.into_iter().skip(surplus));
}

fn path_in(directory: &Path) -> PathBuf {
    directory.join("spool.json")
}
