//! The spool: frames on the node's disk until the aggregator has them on its own.
//!
//! Takes sealed frames in order; gives them back by epoch and number. When the link is down it
//! grows to its bound, then gives up its oldest generation, counts what was lost and remembers the
//! gap, which is sent in place of the frames. Blocking I/O under one lock ([`Handle`]); one agent at a
//! time, seen to by a lock on the directory.

mod generation;
mod notes;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::log::LogError;
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::schema::SchemaId;
use diarwatch_shared::wire::control::{Durable, Gap};
use tracing::warn;

use crate::config::SpoolConfig;
use generation::{Generation, Range};
use notes::Notes;

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
    /// Another agent has it open.
    #[error(
        "spool {path} is in use by another agent; stop that one first, or give this one a [spool] directory of its own"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
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

    fn sled(path: &Path, why: String) -> Self {
        Self::Sled { path: path.to_owned(), why }
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
    notes: Notes,
    /// The schema that this run's frames use; each generation has its own copy of it.
    schema: Option<(SchemaId, Vec<u8>)>,
    /// Held as long as the spool is; the kernel lets go of it when the agent ends, however it ends.
    _lock: File,
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
    /// Opens the spool of a run that starts at `now`; its epoch is newer than any the spool has seen.
    ///
    /// # Errors
    /// When the directory cannot be made, read or written, or another agent has it open.
    pub fn open(config: &SpoolConfig, now: clock::UnixMicros) -> Result<Self, SpoolError> {
        let directory = &config.directory;
        std::fs::create_dir_all(directory).map_err(|error| SpoolError::io(directory, &error))?;
        // Before anything is looked at: opening cuts torn ends, which a living agent is still writing.
        let lock = lock(directory)?;
        let mut notes = Notes::read(directory)?;
        let mut generations = VecDeque::new();
        for number in numbers(directory)? {
            generations.push_back((number, Generation::open(&path_of(directory, number))?));
        }
        let newest = generations.iter().flat_map(|(_, generation)| generation.ranges().keys()).max().copied();
        let epoch = Epoch::next(newest.max(notes.newest_epoch()), now.0);
        notes.epoch = Some(epoch);
        let mut spool = Self {
            config: config.clone(),
            epoch,
            generations,
            opened: clock::uptime(),
            acked: BTreeMap::new(),
            notes,
            schema: None,
            _lock: lock,
        };
        // The last run's open generation goes on: an agent that is started again and again must not
        // leave a generation each time.
        match spool.generations.back_mut() {
            Some((_, open)) => open.wake(),
            None => spool.rotate()?,
        }
        // A full disk must not keep the agent from starting.
        if let Err(error) = spool.notes.write(directory) {
            warn!(%error, "spool is open, but its notes are not written");
        }
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

    /// Appends a frame of this run, with its schema when it is new; both are durable when it returns.
    ///
    /// # Errors
    /// When the disk refuses; the frame is then not here.
    pub fn append(
        &mut self,
        seq: Seq,
        schema: Option<(SchemaId, &[u8])>,
        frame: &[u8],
    ) -> Result<(), SpoolError> {
        if let Err(error) = self.rotate_when_due() {
            warn!(%error, "the spool's open generation goes on");
        }
        if let Some((id, bytes)) = schema {
            self.schema = Some((id, bytes.to_vec()));
        }
        let Some((_, open)) = self.generations.back_mut() else {
            return Err(SpoolError::Io {
                path: self.config.directory.clone(),
                why: "no generation is open".into(),
            });
        };
        // Older generations go when they are acknowledged, and their copy with them.
        if let Some((id, bytes)) = &self.schema
            && !open.has_schema(*id)
        {
            open.append_schema(*id, bytes)?;
        }
        open.append(self.epoch, seq, frame)
    }

    /// Every epoch with frames or gaps that are not acknowledged, and this run's, in order.
    #[must_use]
    pub fn epochs(&self) -> Vec<Epoch> {
        let mut epochs: Vec<Epoch> = self.pending().map(|(epoch, _)| epoch).collect();
        epochs.extend(self.notes.gaps.iter().map(|gap| gap.epoch));
        epochs.push(self.epoch);
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// What stands at `from` and behind it in an epoch, at most `count` items.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read(&mut self, epoch: Epoch, from: Seq, count: usize) -> Result<Vec<Item>, SpoolError> {
        let mut frames: BTreeMap<Seq, Vec<u8>> = BTreeMap::new();
        let holds =
            |generation: &Generation| generation.ranges().get(&epoch).is_some_and(|range| range.to > from);
        for (_, generation) in self.generations.iter_mut().filter(|(_, generation)| holds(generation)) {
            frames.extend(generation.read(epoch, from, count)?);
            if frames.len() >= count {
                break;
            }
        }
        self.rest_all_but(|generation| {
            generation
                .ranges()
                .get(&epoch)
                .is_some_and(|range| range.from < from.saturating_add(count as u64) && range.to > from)
        });
        // Frames alone decide how far is read: a gap that is known at once must not pass those before it.
        let gaps = self.notes.gaps.iter().filter(|gap| gap.epoch == epoch && gap.to > from);
        let mut items: BTreeMap<Seq, Item> = gaps.map(|gap| (gap.from, Item::Gap(gap.clone()))).collect();
        items.extend(frames.into_iter().map(|(seq, bytes)| (seq, Item::Frame(seq, bytes))));
        Ok(items.into_values().take(count).collect())
    }

    /// The bytes of a schema.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn schema(&mut self, id: SchemaId) -> Result<Option<Vec<u8>>, SpoolError> {
        if let Some((_, bytes)) = self.schema.as_ref().filter(|(known, _)| *known == id) {
            return Ok(Some(bytes.clone()));
        }
        // Each generation has what its frames use: one that was just read answers without being opened.
        let holds = |awake: bool| {
            move |generation: &&mut (u64, Generation)| {
                generation.1.has_schema(id) && generation.1.is_awake() == awake
            }
        };
        for awake in [true, false] {
            if let Some((_, generation)) = self.generations.iter_mut().rev().find(holds(awake)) {
                return generation.schema(id);
            }
        }
        Ok(None)
    }

    /// Generations whose sled is open.
    #[must_use]
    pub fn awake(&self) -> usize {
        self.generations.iter().filter(|(_, generation)| generation.is_awake()).count()
    }

    /// Closes every sled but the newest one's and those to be kept.
    fn rest_all_but(&mut self, keep: impl Fn(&Generation) -> bool) {
        let sealed = self.generations.len().saturating_sub(1);
        let others = self.generations.iter_mut().take(sealed).filter(|(_, generation)| !keep(generation));
        others.for_each(|(_, generation)| generation.rest());
    }

    /// Frames of an epoch below `next` are on the aggregator's disk: what is all of that is dropped.
    ///
    /// # Errors
    /// When the disk refuses; the ack counts all the same.
    pub fn ack(&mut self, durable: Durable) -> Result<(), SpoolError> {
        // What was never here cannot be acknowledged: neither unknown epochs nor frames to come.
        let Some(end) = self.end_of(durable.epoch) else { return Ok(()) };
        let known = self.acked.entry(durable.epoch).or_default();
        *known = durable.next.min(end).max(*known);
        let before = self.notes.gaps.len();
        let acked = &self.acked;
        self.notes.gaps.retain(|gap| acked.get(&gap.epoch).is_none_or(|next| *next < gap.to));
        let noted =
            if self.notes.gaps.len() == before { Ok(()) } else { self.notes.write(&self.config.directory) };
        self.drop_acked().and(noted)
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
        Stats { bytes, frames_unacked, frames_lost: self.notes.lost }
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

    /// The first number behind everything that is here of an epoch.
    fn end_of(&self, epoch: Epoch) -> Option<Seq> {
        let frames = self.generations.iter().filter_map(|(_, generation)| generation.ranges().get(&epoch));
        let gaps = self.notes.gaps.iter().filter(|gap| gap.epoch == epoch);
        frames.map(|range| range.to).chain(gaps.map(|gap| gap.to)).max()
    }

    fn is_acked(&self, generation: &Generation) -> bool {
        generation
            .ranges()
            .iter()
            .all(|(epoch, range)| self.acked.get(epoch).is_some_and(|next| *next >= range.to))
    }

    /// Drops every acknowledged generation but the open one.
    fn drop_acked(&mut self) -> Result<(), SpoolError> {
        let mut outcome = Ok(());
        let mut at = 0;
        while at + 1 < self.generations.len() {
            let done = self.generations.get(at).is_some_and(|(_, generation)| self.is_acked(generation));
            if !done {
                at += 1;
            } else if let Some((_, generation)) = self.generations.remove(at) {
                outcome = outcome.and(generation.remove());
            }
        }
        let kept: Vec<Epoch> =
            self.acked.keys().copied().filter(|epoch| self.end_of(*epoch).is_some()).collect();
        self.acked.retain(|epoch, _| *epoch == self.epoch || kept.contains(epoch));
        outcome
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
        let mut open = Generation::open(&path_of(&self.config.directory, number))?;
        open.wake();
        self.generations.push_back((number, open));
        self.rest_all_but(|_| false);
        self.opened = clock::uptime();
        Ok(())
    }

    /// Gives up oldest generations until the rest is within the bound.
    fn keep_bound(&mut self) -> Result<(), SpoolError> {
        while self.generations.len() > 1 && self.stats().bytes > self.config.bytes_max.0 {
            let Some((_, oldest)) = self.generations.pop_front() else { return Ok(()) };
            for (epoch, range) in oldest.ranges() {
                let from = range.from.max(self.acked.get(epoch).copied().unwrap_or(0));
                self.notes.give_up(*epoch, Range { from, to: range.to });
            }
            // The gap is remembered before the frames go: a crash between leaves a gap too many, never one
            // too few. Only a disk without room for the notes gets that room first.
            let noted = self.notes.write(&self.config.directory);
            oldest.remove()?;
            if noted.is_err() {
                self.notes.write(&self.config.directory)?;
            }
        }
        Ok(())
    }
}

fn lock(directory: &Path) -> Result<File, SpoolError> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|error| SpoolError::io(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(SpoolError::InUse { path: directory.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(SpoolError::io(&path, &error)),
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
