//! One generation of the spool: a sled directory with a tail journal beside it. The only file that
//! knows sled.
//!
//! sled 0.34's `flush()` does not fsync, after some power cuts its open panics, and after one refused
//! write (a full disk) it refuses everything. So "durable on the node" means: in the journal,
//! fdatasynced. sled holds the same records for reading in order; when it refuses, cannot be opened or
//! holds less, it is set aside and made again from the journal at the next read. No key is ever
//! deleted (sled would not give the space back): a generation goes as a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use diarwatch_shared::log::{Log, LogKind};
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::schema::SchemaId;
use tracing::warn;

use super::SpoolError;

/// Memory that sled may use for its cache, bytes.
const CACHE_BYTES: u64 = 8 << 20;
const TAG_FRAME: u8 = 1;
const TAG_SCHEMA: u8 = 2;

/// First and last number of an epoch's frames; frames of one epoch are contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First number.
    pub from: Seq,
    /// First number behind the last.
    pub to: Seq,
}

/// An open generation.
pub struct Generation {
    directory: PathBuf,
    journal: Log,
    /// None after it refused, until it is needed again.
    index: Option<Index>,
    ranges: BTreeMap<Epoch, Range>,
    schemas: BTreeSet<SchemaId>,
    payload_bytes: u64,
}

impl Generation {
    /// Opens or creates a generation. Its sled is opened when it is needed, or by [`Generation::wake`]:
    /// each open one has threads and a cache of its own, and a long outage leaves many generations.
    ///
    /// # Errors
    /// When the journal cannot be opened.
    pub fn open(directory: &Path) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(directory).map_err(|error| SpoolError::io(directory, &error))?;
        let (journal, records) = open_journal(directory)?;
        let mut generation = Self {
            directory: directory.to_owned(),
            journal,
            index: None,
            ranges: BTreeMap::new(),
            schemas: BTreeSet::new(),
            payload_bytes: 0,
        };
        for record in records.iter().filter_map(|record| parse(record)) {
            generation.count(&record);
        }
        Ok(generation)
    }

    /// Opens its sled, before anything is appended.
    pub fn wake(&mut self) {
        let opened = open_journal(&self.directory).and_then(|(_, records)| Index::of(&self.path(), &records));
        match opened {
            Ok(index) => self.index = Some(index),
            // A full disk: the journal is enough to run on, and to make it again from.
            Err(error) => warn!(%error, "spool generation has no index for now"),
        }
    }

    /// Closes its sled until it is needed again.
    pub fn rest(&mut self) {
        self.index = None;
    }

    /// Whether its sled is open.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.index.is_some()
    }

    /// Appends a frame; it is durable when this returns.
    ///
    /// # Errors
    /// When the disk refuses; the frame is then not here.
    pub fn append(&mut self, epoch: Epoch, seq: Seq, bytes: &[u8]) -> Result<(), SpoolError> {
        self.put(&Record::Frame { epoch, seq, bytes })?;
        Ok(self.journal.sync()?)
    }

    /// Keeps a schema beside the frames that use it; durable with the next frame.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append_schema(&mut self, id: SchemaId, bytes: &[u8]) -> Result<(), SpoolError> {
        self.put(&Record::Schema { id, bytes })
    }

    /// Frames of an epoch from `from` on, at most `count`.
    ///
    /// # Errors
    /// When they cannot be read, nor sled be made again.
    pub fn read(&mut self, epoch: Epoch, from: Seq, count: usize) -> Result<Vec<(Seq, Vec<u8>)>, SpoolError> {
        self.ask(|index| {
            let range = frame_key(epoch, from)..=frame_key(epoch, Seq::MAX);
            let row = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
                let (key, bytes) = entry?;
                let seq = key.last_chunk::<8>().map_or(0, |tail| Seq::from_be_bytes(*tail));
                Ok((seq, bytes.to_vec()))
            };
            index.frames.range(range).take(count).map(row).collect()
        })
    }

    /// The bytes of a schema, if this generation holds it.
    ///
    /// # Errors
    /// As [`Generation::read`].
    pub fn schema(&mut self, id: SchemaId) -> Result<Option<Vec<u8>>, SpoolError> {
        if !self.schemas.contains(&id) {
            return Ok(None);
        }
        self.ask(|index| Ok(index.schemas.get(id.0.to_be_bytes())?.map(|bytes| bytes.to_vec())))
    }

    /// Whether it holds a schema.
    #[must_use]
    pub fn has_schema(&self, id: SchemaId) -> bool {
        self.schemas.contains(&id)
    }

    /// The frames it holds, by epoch.
    #[must_use]
    pub fn ranges(&self) -> &BTreeMap<Epoch, Range> {
        &self.ranges
    }

    /// Bytes of the frames in it.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Closes it and removes its directory.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(self) -> Result<(), SpoolError> {
        let Self { directory, index, journal, .. } = self;
        drop((index, journal));
        std::fs::remove_dir_all(&directory).map_err(|error| SpoolError::io(&directory, &error))
    }

    fn path(&self) -> PathBuf {
        self.directory.join("db")
    }

    /// Into the journal, which decides, and into sled, which may refuse.
    fn put(&mut self, record: &Record<'_>) -> Result<(), SpoolError> {
        self.journal.append(&record.to_bytes())?;
        self.count(record);
        if let Some(index) = &self.index
            && let Err(why) = guarded(|| index.put(record))
        {
            warn!(path = %self.directory.display(), why, "sled refuses; it is made again from the journal");
            self.index = None;
        }
        Ok(())
    }

    /// Asks sled; one that refuses is made again from the journal and asked once more.
    fn ask<T>(&mut self, question: impl Fn(&Index) -> sled::Result<T>) -> Result<T, SpoolError> {
        if let Some(index) = &self.index {
            match guarded(|| question(index)) {
                Ok(answer) => return Ok(answer),
                Err(why) => warn!(path = %self.directory.display(), why, "sled cannot be read"),
            }
        }
        self.index = None;
        let (journal, records) = open_journal(&self.directory)?;
        self.journal = journal;
        let index = Index::of(&self.path(), &records)?;
        let answer = guarded(|| question(&index)).map_err(|why| SpoolError::sled(&self.directory, why));
        self.index = Some(index);
        answer
    }

    fn count(&mut self, record: &Record<'_>) {
        match *record {
            Record::Schema { id, .. } => drop(self.schemas.insert(id)),
            Record::Frame { epoch, seq, bytes } => {
                self.payload_bytes += bytes.len() as u64;
                let range = self.ranges.entry(epoch).or_insert(Range { from: seq, to: seq });
                range.from = range.from.min(seq);
                range.to = range.to.max(seq.saturating_add(1));
            }
        }
    }
}

/// The records in order of their keys, as sled holds them.
struct Index {
    frames: sled::Tree,
    schemas: sled::Tree,
    /// Closed when the last of them is dropped.
    _db: sled::Db,
}

impl Index {
    /// Opens sled, or makes it again when it does not hold what the journal has.
    fn of(path: &Path, records: &[Vec<u8>]) -> Result<Self, SpoolError> {
        match guarded(|| Self::open(path)) {
            Ok(index) if index.holds(records) => return Ok(index),
            Ok(_) => {
                warn!(path = %path.display(), "spool generation holds less than its journal and is rebuilt from it");
                clear(path)?;
            }
            Err(why) => {
                warn!(path = %path.display(), why, "spool generation is set aside and rebuilt from its journal");
                set_aside(path)?;
            }
        }
        let rebuilt = guarded(|| {
            let index = Self::open(path)?;
            records.iter().filter_map(|record| parse(record)).try_for_each(|record| index.put(&record))?;
            Ok(index)
        });
        rebuilt.map_err(|why| SpoolError::sled(path, why))
    }

    fn open(path: &Path) -> sled::Result<Self> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(1_000));
        let db = config.open()?;
        Ok(Self { frames: db.open_tree("frames")?, schemas: db.open_tree("schemas")?, _db: db })
    }

    fn put(&self, record: &Record<'_>) -> sled::Result<()> {
        match *record {
            Record::Frame { epoch, seq, bytes } => self.frames.insert(frame_key(epoch, seq), bytes)?,
            Record::Schema { id, bytes } => self.schemas.insert(id.0.to_be_bytes(), bytes)?,
        };
        Ok(())
    }

    /// Whether it has everything that the journal has; of a number that stands there twice (an append
    /// that failed half-way) the last counts.
    fn holds(&self, records: &[Vec<u8>]) -> bool {
        let mut seen = BTreeSet::new();
        records.iter().rev().filter_map(|record| parse(record)).all(|record| match record {
            Record::Frame { epoch, seq, bytes } if seen.insert((epoch, seq)) => self
                .frames
                .get(frame_key(epoch, seq))
                .is_ok_and(|found| found.is_some_and(|found| found == bytes)),
            Record::Frame { .. } => true,
            Record::Schema { id, .. } => self.schemas.contains_key(id.0.to_be_bytes()).unwrap_or(false),
        })
    }
}

enum Record<'a> {
    Frame { epoch: Epoch, seq: Seq, bytes: &'a [u8] },
    Schema { id: SchemaId, bytes: &'a [u8] },
}

impl Record<'_> {
    fn to_bytes(&self) -> Vec<u8> {
        let (tag, key, bytes) = match *self {
            Record::Frame { epoch, seq, bytes } => (TAG_FRAME, frame_key(epoch, seq), bytes),
            Record::Schema { id, bytes } => (TAG_SCHEMA, frame_key(Epoch(id.0), 0), bytes),
        };
        let mut record = Vec::with_capacity(17 + bytes.len());
        record.push(tag);
        record.extend(key);
        record.extend(bytes);
        record
    }
}

fn parse(record: &[u8]) -> Option<Record<'_>> {
    let (tag, rest) = record.split_first()?;
    let (head, rest) = rest.split_first_chunk::<8>()?;
    let (tail, bytes) = rest.split_first_chunk::<8>()?;
    match *tag {
        TAG_FRAME => Some(Record::Frame {
            epoch: Epoch(u64::from_be_bytes(*head)),
            seq: Seq::from_be_bytes(*tail),
            bytes,
        }),
        TAG_SCHEMA => Some(Record::Schema { id: SchemaId(u64::from_be_bytes(*head)), bytes }),
        _ => None,
    }
}

fn frame_key(epoch: Epoch, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&epoch.0.to_be_bytes());
    tail.copy_from_slice(&seq.to_be_bytes());
    key
}

fn open_journal(directory: &Path) -> Result<(Log, Vec<Vec<u8>>), SpoolError> {
    let mut records: Vec<Vec<u8>> = Vec::new();
    let path = directory.join("journal");
    let journal = Log::open(&path, LogKind::SpoolJournal, |body| records.push(body.to_vec()))?;
    Ok((journal, records))
}

/// Asks sled with its panics caught.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(String::from("it panicked")),
    }
}

fn set_aside(path: &Path) -> Result<(), SpoolError> {
    let aside = path.with_extension("damaged");
    clear(&aside)?;
    match std::fs::rename(path, &aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(SpoolError::io(path, &error)),
        _ => Ok(()),
    }
}

/// Removes what is there, directory or not.
fn clear(path: &Path) -> Result<(), SpoolError> {
    let cleared = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match cleared {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(SpoolError::io(path, &error)),
        _ => Ok(()),
    }
}
