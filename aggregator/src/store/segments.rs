//! Segments on disk: the append-only log cut in files, schemas kept by content beside them.
//!
//! Takes frames as they came, with node and arrival; gives them back in order. A new segment begins
//! with every cursor, so that old segments can go without their frames being taken again. Blocking.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::log::{Log, LogError, LogKind, replace_file};
use diarwatch_shared::node::NodeId;
use diarwatch_shared::schema::{Schema, SchemaId};

/// A segment is closed at this size, bytes.
const SEGMENT_BYTES: u64 = 64 << 20;
/// A segment is closed at this age.
const SEGMENT_AGE: Duration = Duration::from_secs(3_600);
const TAG_FRAME: u8 = 1;
const TAG_CURSORS: u8 = 2;

/// Why the store could not read or write.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("store {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log refused.
    #[error("store {0}")]
    Log(#[from] LogError),
}

/// A record of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A frame as it came.
    Frame {
        /// From whom.
        node: NodeId,
        /// When it arrived.
        arrived: UnixMicros,
        /// The sealed frame.
        bytes: Vec<u8>,
    },
    /// Every cursor, as JSON.
    Cursors(Vec<u8>),
}

/// The segments of a store.
#[derive(Debug)]
pub struct Segments {
    directory: PathBuf,
    open: Log,
    number: u64,
    opened: UnixMicros,
}

impl Segments {
    /// Opens the directory and hands every record of the last segments to `visit`, oldest first.
    /// `replay_from` is the arrival time that the caller needs; older segments are not read.
    ///
    /// # Errors
    /// When the directory or a segment cannot be read or written.
    pub fn open(
        directory: &Path,
        replay_from: UnixMicros,
        now: UnixMicros,
        mut visit: impl FnMut(Record),
    ) -> Result<Self, StoreError> {
        for needed in [directory.join("segments"), directory.join("schemas")] {
            std::fs::create_dir_all(&needed)
                .map_err(|source| StoreError::Io { path: needed.clone(), source })?;
        }
        let numbers = numbers(directory)?;
        let changed = |number: &u64| modified(&path_of(directory, *number));
        // A segment that was last written before the time asked for holds nothing of it.
        let first = numbers.iter().rposition(|number| changed(number) < replay_from).map_or(0, |at| at + 1);
        let last = numbers.len().saturating_sub(1);
        for number in numbers.iter().skip(first.min(last)) {
            Log::open(&path_of(directory, *number), LogKind::StoreSegment, |body| {
                visit_one(body, &mut visit)
            })?;
        }
        let number = numbers.last().copied().unwrap_or(0);
        let open = Log::open(&path_of(directory, number), LogKind::StoreSegment, |_| ())?;
        Ok(Self { directory: directory.to_owned(), open, number, opened: now })
    }

    /// Appends a frame; durable after [`Segments::sync`].
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, node: &NodeId, arrived: UnixMicros, bytes: &[u8]) -> Result<(), StoreError> {
        let name = node.as_str().as_bytes();
        let mut record = Vec::with_capacity(10 + name.len() + bytes.len());
        record.extend([TAG_FRAME, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        record.extend(name);
        record.extend(arrived.0.to_le_bytes());
        record.extend(bytes);
        Ok(self.open.append(&record)?)
    }

    /// Makes everything appended so far survive a power cut.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(self.open.sync()?)
    }

    /// Whether the open segment should be closed.
    #[must_use]
    pub fn is_due(&self, now: UnixMicros) -> bool {
        self.open.len() >= SEGMENT_BYTES || (now.since(self.opened) >= SEGMENT_AGE && !self.open.is_empty())
    }

    /// Starts a new segment with `cursors`, and removes what passes the bounds.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn rotate(
        &mut self,
        cursors: &[u8],
        keep_from: UnixMicros,
        bytes_max: u64,
        now: UnixMicros,
    ) -> Result<(), StoreError> {
        let mut next = Log::open(&path_of(&self.directory, self.number + 1), LogKind::StoreSegment, |_| ())?;
        let mut record = vec![TAG_CURSORS];
        record.extend(cursors);
        next.append(&record)?;
        next.sync()?;
        self.open = next;
        self.number += 1;
        self.opened = now;
        self.keep_bounds(keep_from, bytes_max)
    }

    /// Keeps a schema by its id.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_schema(&self, id: SchemaId, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.directory.join("schemas").join(format!("{id}.json"));
        if path.exists() {
            return Ok(());
        }
        replace_file(&path, bytes).map_err(|source| StoreError::Io { path, source })
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let numbers = numbers(&self.directory).unwrap_or_default();
        numbers
            .iter()
            .filter_map(|number| Some(std::fs::metadata(path_of(&self.directory, *number)).ok()?.len()))
            .sum()
    }

    fn keep_bounds(&self, keep_from: UnixMicros, bytes_max: u64) -> Result<(), StoreError> {
        let mut total = self.bytes();
        for number in numbers(&self.directory)?.into_iter().filter(|number| *number < self.number) {
            let path = path_of(&self.directory, number);
            let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if modified(&path) >= keep_from && total <= bytes_max {
                break;
            }
            std::fs::remove_file(&path).map_err(|source| StoreError::Io { path, source })?;
            total = total.saturating_sub(size);
        }
        Ok(())
    }
}

/// A schema kept in a store's directory.
#[must_use]
pub fn read_schema(directory: &Path, id: SchemaId) -> Option<Schema> {
    let bytes = std::fs::read(directory.join("schemas").join(format!("{id}.json"))).ok()?;
    Schema::from_bytes(&bytes).ok()
}

fn visit_one(body: &[u8], visit: &mut impl FnMut(Record)) {
    match body.split_first() {
        Some((&TAG_CURSORS, rest)) => visit(Record::Cursors(rest.to_vec())),
        Some((&TAG_FRAME, rest)) => {
            if let Some(record) = frame_record(rest) {
                visit(record);
            }
        }
        _ => {}
    }
}

fn frame_record(rest: &[u8]) -> Option<Record> {
    let (length, rest) = rest.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (arrived, bytes) = rest.split_first_chunk::<8>()?;
    let node = NodeId::new(std::str::from_utf8(name).ok()?).ok()?;
    Some(Record::Frame { node, arrived: UnixMicros(u64::from_le_bytes(*arrived)), bytes: bytes.to_vec() })
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join("segments").join(format!("{number:08}.log"))
}

fn numbers(directory: &Path) -> Result<Vec<u64>, StoreError> {
    let path = directory.join("segments");
    let fail = |source| StoreError::Io { path: path.clone(), source };
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn modified(path: &Path) -> UnixMicros {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let since =
        modified.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    UnixMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::clock;

    fn frames(directory: &Path, from: UnixMicros) -> Vec<Record> {
        let mut records = Vec::new();
        Segments::open(directory, from, clock::now(), |record| records.push(record)).unwrap();
        records
    }

    #[test]
    fn a_new_segment_begins_with_the_cursors_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let now = clock::now();
        let node = NodeId::new("gpu-01").unwrap();
        let mut segments = Segments::open(dir.path(), UnixMicros(0), now, |_| ()).unwrap();
        segments.append(&node, now, b"one").unwrap();
        segments.rotate(b"[]", UnixMicros(0), u64::MAX, now).unwrap();
        segments.append(&node, now, b"two").unwrap();
        segments.sync().unwrap();
        let frame = |bytes: &[u8]| Record::Frame { node: node.clone(), arrived: now, bytes: bytes.to_vec() };
        assert_eq!(
            frames(dir.path(), UnixMicros(0)),
            [frame(b"one"), Record::Cursors(b"[]".to_vec()), frame(b"two")]
        );
        segments.rotate(b"[]", clock::now().plus(Duration::from_secs(60)), u64::MAX, now).unwrap();
        assert_eq!(frames(dir.path(), UnixMicros(0)), [Record::Cursors(b"[]".to_vec())]);
    }
}
