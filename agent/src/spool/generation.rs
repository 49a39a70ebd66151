//! One generation of the spool: a sled directory with a tail journal beside it. The only file that
//! knows sled.
//!
//! sled 0.34's `flush()` does not fsync, and after some power cuts its open panics. So "durable on
//! the node" means: in the journal, fdatasynced. sled holds the same records for reading in order;
//! when it cannot be opened or holds less, it is set aside and made again from the journal. No key
//! is ever deleted (sled would not give the space back): a generation goes as a directory.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use diarwatch_shared::log::{Log, LogKind};
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::schema::SchemaId;

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
    db: sled::Db,
    frames: sled::Tree,
    schemas: sled::Tree,
    journal: Log,
    ranges: BTreeMap<Epoch, Range>,
    payload_bytes: u64,
}

impl Generation {
    /// Opens or creates a generation.
    ///
    /// # Errors
    /// When the disk refuses; a damaged sled is rebuilt and is no error.
    pub fn open(directory: &Path) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(directory).map_err(|error| SpoolError::io(directory, &error))?;
        let mut records: Vec<Vec<u8>> = Vec::new();
        let journal =
            Log::open(&directory.join("journal"), LogKind::SpoolJournal, |body| records.push(body.to_vec()))?;
        let path = directory.join("db");
        let db = match open_sled(&path) {
            Ok(db) if holds(&db, &records) => db,
            opened => {
                let why = opened.err().unwrap_or_else(|| String::from("it holds less than its journal"));
                tracing::warn!(path = %path.display(), why, "spool generation is rebuilt from its journal");
                rebuild(&path, &records)?
            }
        };
        let tree = |name: &str| db.open_tree(name).map_err(|error| SpoolError::sled(&path, &error));
        let (frames, schemas) = (tree("frames")?, tree("schemas")?);
        let mut generation = Self {
            directory: directory.to_owned(),
            frames,
            schemas,
            db,
            journal,
            ranges: BTreeMap::new(),
            payload_bytes: 0,
        };
        for record in &records {
            if let Some(Record::Frame { epoch, seq, bytes }) = parse(record) {
                generation.count(epoch, seq, bytes.len());
            }
        }
        Ok(generation)
    }

    /// Appends a frame; durable after [`Generation::sync`].
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, epoch: Epoch, seq: Seq, bytes: &[u8]) -> Result<(), SpoolError> {
        let key = frame_key(epoch, seq);
        self.journal.append(&record(TAG_FRAME, &key, bytes))?;
        self.frames.insert(key, bytes).map_err(|error| SpoolError::sled(&self.directory, &error))?;
        self.count(epoch, seq, bytes.len());
        Ok(())
    }

    /// Keeps a schema beside the frames that use it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append_schema(&mut self, id: SchemaId, bytes: &[u8]) -> Result<(), SpoolError> {
        let mut key = [0; 16];
        key.split_at_mut(8).0.copy_from_slice(&id.0.to_be_bytes());
        self.journal.append(&record(TAG_SCHEMA, &key, bytes))?;
        self.schemas
            .insert(id.0.to_be_bytes(), bytes)
            .map_err(|error| SpoolError::sled(&self.directory, &error))?;
        Ok(())
    }

    /// Makes everything appended so far survive a power cut.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<(), SpoolError> {
        Ok(self.journal.sync()?)
    }

    /// Frames of an epoch from `from` on, at most `count`.
    ///
    /// # Errors
    /// When sled cannot read.
    pub fn read(&self, epoch: Epoch, from: Seq, count: usize) -> Result<Vec<(Seq, Vec<u8>)>, SpoolError> {
        let range = frame_key(epoch, from)..=frame_key(epoch, Seq::MAX);
        let row = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, bytes) = entry.map_err(|error| SpoolError::sled(&self.directory, &error))?;
            let seq = key.last_chunk::<8>().map_or(0, |tail| Seq::from_be_bytes(*tail));
            Ok((seq, bytes.to_vec()))
        };
        self.frames.range(range).take(count).map(row).collect()
    }

    /// The bytes of a schema, if this generation holds it.
    #[must_use]
    pub fn schema(&self, id: SchemaId) -> Option<Vec<u8>> {
        self.schemas.get(id.0.to_be_bytes()).ok().flatten().map(|bytes| bytes.to_vec())
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
        let Self { directory, db, frames, schemas, journal, .. } = self;
        drop((frames, schemas, db, journal));
        std::fs::remove_dir_all(&directory).map_err(|error| SpoolError::io(&directory, &error))
    }

    fn count(&mut self, epoch: Epoch, seq: Seq, bytes: usize) {
        self.payload_bytes += bytes as u64;
        let range = self.ranges.entry(epoch).or_insert(Range { from: seq, to: seq });
        range.from = range.from.min(seq);
        range.to = range.to.max(seq + 1);
    }
}

enum Record<'a> {
    Frame { epoch: Epoch, seq: Seq, bytes: &'a [u8] },
    Schema { id: SchemaId, bytes: &'a [u8] },
}

fn frame_key(epoch: Epoch, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&epoch.0.to_be_bytes());
    tail.copy_from_slice(&seq.to_be_bytes());
    key
}

fn record(tag: u8, key: &[u8; 16], bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(17 + bytes.len());
    record.push(tag);
    record.extend(key);
    record.extend(bytes);
    record
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

/// Opens sled with its panics caught.
fn open_sled(path: &Path) -> Result<sled::Db, String> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(1_000));
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err(String::from("sled panicked at open")),
    }
}

/// Whether sled has everything that the journal has.
fn holds(db: &sled::Db, records: &[Vec<u8>]) -> bool {
    let Ok(frames) = db.open_tree("frames") else { return false };
    let Ok(schemas) = db.open_tree("schemas") else { return false };
    records.iter().all(|record| match parse(record) {
        Some(Record::Frame { epoch, seq, bytes }) => {
            frames.get(frame_key(epoch, seq)).is_ok_and(|found| found.is_some_and(|found| found == bytes))
        }
        Some(Record::Schema { id, .. }) => schemas.contains_key(id.0.to_be_bytes()).unwrap_or(false),
        None => true,
    })
}

fn rebuild(path: &Path, records: &[Vec<u8>]) -> Result<sled::Db, SpoolError> {
    if path.exists() {
        let aside = path.with_extension("damaged");
        if aside.exists() {
            std::fs::remove_dir_all(&aside).map_err(|error| SpoolError::io(&aside, &error))?;
        }
        std::fs::rename(path, &aside).map_err(|error| SpoolError::io(path, &error))?;
    }
    let db = open_sled(path).map_err(|why| SpoolError::Sled { path: path.to_owned(), why })?;
    let fill = || -> sled::Result<()> {
        let (frames, schemas) = (db.open_tree("frames")?, db.open_tree("schemas")?);
        for record in records {
            match parse(record) {
                Some(Record::Frame { epoch, seq, bytes }) => {
                    drop(frames.insert(frame_key(epoch, seq), bytes)?)
                }
                Some(Record::Schema { id, bytes }) => drop(schemas.insert(id.0.to_be_bytes(), bytes)?),
                None => {}
            }
        }
        Ok(())
    };
    fill().map_err(|error| SpoolError::sled(path, &error))?;
    Ok(db)
}
