//! The spool: frames on the node's disk until the aggregator has them on its own.
//!
//! Takes sealed frames in order; gives them back by epoch and number. When the link is down it
//! grows to its bound, then gives up its oldest generation, counts what was lost and remembers the
//! gap, which is sent in place of the frames. Blocking I/O under one lock ([`Handle`]).

mod generation;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::log::{LogError, replace_file};
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::schema::SchemaId;
use diarwatch_shared::wire::control::{Durable, Gap};

use crate::config::SpoolConfig;
use generation::{Generation, Range};

/// Gaps that are remembered; older ones are merged into the oldest kept.
const GAPS_MAX: usize = 256;

/// Why the spool could not do something.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system refused.
    #[error("spool {path}: {why}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// sled refused.
    #[error("spool {path}: sled: {why}")]
    Sled {
        /// The directory.
        path: PathBuf,
        /// What sled said.
        why: String,
    },
    /// The journal refused.
    #[error("spool {0}")]
    Journal(#[from] LogError),
}

impl SpoolError {
    fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io { path: path.to_owned(), why: error.to_string() }
    }

    fn sled(path: &Path, error: &impl std::fmt::Display) -> Self {
        Self::Sled { path: path.to_owned(), why: error.to_string() }
    }
}

/// What stands at a place in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A sealed frame.
    Frame(Seq, Vec<u8>),
    /// Frames that were given up.
    Gap(Gap),
}

/// How full the spool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes on disk.
    pub bytes: u64,
    /// Frames not acknowledged.
    pub frames_unacked: u64,
    /// Frames given up since the directory was made.
    pub frames_lost: u64,
}

/// The spool of one agent.
pub struct Spool {
    config: SpoolConfig,
    epoch: Epoch,
    generations: VecDeque<(u64, Generation)>,
    opened: Duration,
    acked: BTreeMap<Epoch, Seq>,
    gaps: Vec<Gap>,
    lost: u64,
}

/// A spool that tasks share; each call blocks on the disk.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<Spool>>);

impl Handle {
    /// Runs `work` on the spool, off the async threads.
    ///
    /// # Errors
    /// As `work`, or when the runtime stops.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let spool = Arc::clone(&self.0);
        let run = move || work(&mut spool.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| {
            Err(SpoolError::Io { path: PathBuf::new(), why: format!("spool task ended: {error}") })
        })
    }
}

impl Spool {
    /// Opens the spool of a run that starts at `now`; its epoch is newer than any the spool holds.
    ///
    /// # Errors
    /// When the directory cannot be made, read or written.
    pub fn open(config: &SpoolConfig, now: clock::UnixMicros) -> Result<Self, SpoolError> {
        let directory = &config.directory;
        std::fs::create_dir_all(directory).map_err(|error| SpoolError::io(directory, &error))?;
        let (gaps, lost) = read_gaps(directory)?;
        let mut generations = VecDeque::new();
        for number in numbers(directory)? {
            generations.push_back((number, Generation::open(&path_of(directory, number))?));
        }
        let newest = generations.iter().flat_map(|(_, generation)| generation.ranges().keys()).max().copied();
        let newest = newest.max(gaps.iter().map(|gap| gap.epoch).max());
        let epoch = Epoch::next(newest, now.0);
        let mut spool = Self {
            config: config.clone(),
            epoch,
            generations,
            opened: clock::uptime(),
            acked: BTreeMap::new(),
            gaps,
            lost,
        };
        spool.rotate()?;
        Ok(spool)
    }

    /// A handle that tasks can share.
    #[must_use]
    pub fn into_handle(self) -> Handle {
        Handle(Arc::new(Mutex::new(self)))
    }

    /// This run's epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Appends a frame of this run, with its schema when it is new, and makes both durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(
        &mut self,
        seq: Seq,
        schema: Option<(SchemaId, &[u8])>,
        frame: &[u8],
    ) -> Result<(), SpoolError> {
        self.rotate_when_due()?;
        let epoch = self.epoch;
        let Some((_, open)) = self.generations.back_mut() else { return Ok(()) };
        if let Some((id, bytes)) = schema {
            open.append_schema(id, bytes)?;
        }
        open.append(epoch, seq, frame)?;
        open.sync()
    }

    /// Every epoch with frames or gaps that are not acknowledged, and this run's, in order.
    #[must_use]
    pub fn epochs(&self) -> Vec<Epoch> {
        let mut epochs: Vec<Epoch> = self.pending().map(|(epoch, _)| epoch).collect();
        epochs.extend(self.gaps.iter().map(|gap| gap.epoch));
        epochs.push(self.epoch);
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// What stands at `from` and behind it in an epoch, at most `count` items.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read(&self, epoch: Epoch, from: Seq, count: usize) -> Result<Vec<Item>, SpoolError> {
        let gaps = self.gaps.iter().filter(|gap| gap.epoch == epoch && gap.to > from);
        let mut items: BTreeMap<Seq, Item> = gaps.map(|gap| (gap.from, Item::Gap(gap.clone()))).collect();
        for (_, generation) in &self.generations {
            for (seq, bytes) in generation.read(epoch, from, count)? {
                items.insert(seq, Item::Frame(seq, bytes));
            }
            if items.len() >= count {
                break;
            }
        }
        Ok(items.into_values().take(count).collect())
    }

    /// The bytes of a schema.
    #[must_use]
    pub fn schema(&self, id: SchemaId) -> Option<Vec<u8>> {
        self.generations.iter().rev().find_map(|(_, generation)| generation.schema(id))
    }

    /// Frames of an epoch below `next` are on the aggregator's disk: what is all of that is dropped.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn ack(&mut self, durable: Durable) -> Result<(), SpoolError> {
        let known = self.acked.entry(durable.epoch).or_default();
        *known = durable.next.max(*known);
        let before = self.gaps.len();
        let acked = &self.acked;
        self.gaps.retain(|gap| acked.get(&gap.epoch).is_none_or(|next| *next < gap.to));
        if self.gaps.len() != before {
            self.write_gaps()?;
        }
        while self.generations.len() > 1
            && self.generations.front().is_some_and(|(_, front)| self.is_acked(front))
        {
            if let Some((_, front)) = self.generations.pop_front() {
                front.remove()?;
            }
        }
        Ok(())
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let bytes = self
            .generations
            .iter()
            .map(|(number, _)| disk_bytes(&path_of(&self.config.directory, *number)))
            .sum();
        let frames_unacked = self.pending().map(|(_, range)| range.to - range.from).sum();
        Stats { bytes, frames_unacked, frames_lost: self.lost }
    }

    /// Unacknowledged frames, per epoch and generation.
    fn pending(&self) -> impl Iterator<Item = (Epoch, Range)> + '_ {
        self.generations.iter().flat_map(|(_, generation)| generation.ranges()).filter_map(
            |(epoch, range)| {
                let from = range.from.max(self.acked.get(epoch).copied().unwrap_or(0));
                (from < range.to).then_some((*epoch, Range { from, to: range.to }))
            },
        )
    }

    fn is_acked(&self, generation: &Generation) -> bool {
        generation
            .ranges()
            .iter()
            .all(|(epoch, range)| self.acked.get(epoch).is_some_and(|next| *next >= range.to))
    }

    fn rotate_when_due(&mut self) -> Result<(), SpoolError> {
        let Some((_, open)) = self.generations.back() else { return self.rotate() };
        let old = clock::uptime().saturating_sub(self.opened) > self.config.generation_age.0;
        if open.payload_bytes() < self.config.generation_bytes.0 && !(old && open.payload_bytes() > 0) {
            return Ok(());
        }
        self.rotate()?;
        self.keep_bound()
    }

    fn rotate(&mut self) -> Result<(), SpoolError> {
        let number = self.generations.back().map_or(0, |(number, _)| number + 1);
        let open = Generation::open(&path_of(&self.config.directory, number))?;
        self.generations.push_back((number, open));
        self.opened = clock::uptime();
        Ok(())
    }

    /// Gives up oldest generations until the rest is within the bound.
    fn keep_bound(&mut self) -> Result<(), SpoolError> {
        while self.generations.len() > 1 && self.stats().bytes > self.config.bytes_max.0 {
            let Some((_, oldest)) = self.generations.pop_front() else { return Ok(()) };
            for (epoch, range) in oldest.ranges() {
                let from = range.from.max(self.acked.get(epoch).copied().unwrap_or(0));
                if from < range.to {
                    self.lost += range.to - from;
                    self.gaps.push(Gap { epoch: *epoch, from, to: range.to, reason: "spool_full".into() });
                }
            }
            // The gap is remembered before the frames go: a crash between leaves a gap too many, never one too few.
            self.write_gaps()?;
            oldest.remove()?;
        }
        Ok(())
    }

    fn write_gaps(&mut self) -> Result<(), SpoolError> {
        merge(&mut self.gaps);
        let path = self.config.directory.join("gaps.json");
        let text = serde_json::json!({ "version": 1, "lost": self.lost, "gaps": self.gaps }).to_string();
        replace_file(&path, text.as_bytes()).map_err(|error| SpoolError::io(&path, &error))
    }
}

/// Joins neighbours, and the oldest ones when there are too many.
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

fn read_gaps(directory: &Path) -> Result<(Vec<Gap>, u64), SpoolError> {
    #[derive(serde::Deserialize)]
    struct Kept {
        version: u16,
        lost: u64,
        gaps: Vec<Gap>,
    }
    let path = directory.join("gaps.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(SpoolError::io(&path, &error)),
    };
    match serde_json::from_str::<Kept>(&text) {
        Ok(kept) if kept.version == 1 => Ok((kept.gaps, kept.lost)),
        Ok(kept) => Err(SpoolError::Io {
            path,
            why: format!("version {} is newer than this program; upgrade it", kept.version),
        }),
        Err(error) => {
            Err(SpoolError::Io { path, why: format!("{error}; move the file away to start without it") })
        }
    }
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("generation-{number:08}"))
}

fn numbers(directory: &Path) -> Result<Vec<u64>, SpoolError> {
    let fail = |error: io::Error| SpoolError::io(directory, &error);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix("generation-")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests;
