//! Segments on disk: the append-only log cut in files.
//!
//! Takes frames as they came, with node and arrival; gives them back in order. A new segment begins
//! with every cursor, so that old segments can go without their frames being taken again. One process
//! at a time: a lock says so. Blocking.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::log::{Log, LogError, LogKind};
use diarwatch_shared::node::NodeId;

/// A segment is closed at this size, bytes.
const SEGMENT_BYTES: u64 = 64 << 20;
/// A segment is closed at this age.
const SEGMENT_AGE: Duration = Duration::from_secs(3_600);
const TAG_FRAME: u8 = 1;
const TAG_CURSORS: u8 = 2;
const TAG_BEGUN: u8 = 3;
/// Tries for the lock, and between them: an aggregator that was stopped a moment ago may still end.
const LOCK_TRIES: u32 = 20;
const LOCK_RETRY: Duration = Duration::from_millis(100);

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
    /// Another process has it.
    #[error(
        "store {0} is in use by another process; stop that aggregator or give this one a directory of its own"
    )]
    InUse(PathBuf),
    /// What a segment begins with cannot be used.
    #[error("store {path}: a segment begins with cursors that cannot be read: {why}")]
    Cursors {
        /// The store.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
}

impl StoreError {
    /// Whether it may pass by itself; what may not needs a person.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Log(LogError::Foreign { .. } | LogError::Newer { .. }) | Self::Cursors { .. })
    }
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
    /// Some of the cursors, as JSON.
    Cursors(Vec<u8>),
    /// The cursors before this are all there were when the segment began.
    Begun,
}

/// The segments of a store.
#[derive(Debug)]
pub struct Segments {
    directory: PathBuf,
    open: Log,
    number: u64,
    opened: UnixMicros,
    /// Held while the store is open; the kernel gives it back however the process ends.
    _lock: File,
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
        let segments = directory.join("segments");
        std::fs::create_dir_all(&segments)
            .map_err(|source| StoreError::Io { path: segments.clone(), source })?;
        let lock = lock(&directory.join("lock"))?;
        let mut numbers = numbers(directory)?;
        forget_half_begun(directory, &mut numbers)?;
        let last = numbers.pop().unwrap_or(0);
        let changed = |number: &u64| modified(&path_of(directory, *number));
        // A segment that was last written before the time asked for holds nothing of it.
        let first = numbers.iter().rposition(|number| changed(number) < replay_from).map_or(0, |at| at + 1);
        for number in numbers.iter().skip(first) {
            open_log(directory, *number, &mut visit)?;
        }
        let open = open_log(directory, last, &mut visit)?;
        Ok(Self { directory: directory.to_owned(), open, number: last, opened: now, _lock: lock })
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

    /// Starts a new segment with `cursors`, in as many records as they need, and removes what passes
    /// the bounds.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn rotate(
        &mut self,
        cursors: &[Vec<u8>],
        keep_from: UnixMicros,
        bytes_max: u64,
        now: UnixMicros,
    ) -> Result<(), StoreError> {
        let mut next = Log::open(&path_of(&self.directory, self.number + 1), LogKind::StoreSegment, |_| ())?;
        for part in cursors {
            let mut record = vec![TAG_CURSORS];
            record.extend(part);
            next.append(&record)?;
        }
        next.append(&[TAG_BEGUN])?;
        next.sync()?;
        self.open = next;
        self.number += 1;
        self.opened = now;
        self.keep_bounds(keep_from, bytes_max)
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

fn lock(path: &Path) -> Result<File, StoreError> {
    let fail = |source| StoreError::Io { path: path.to_owned(), source };
    let file = File::options().write(true).create(true).truncate(false).open(path).map_err(fail)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
    }
    Err(StoreError::InUse(path.to_owned()))
}

/// Removes a newest segment that was only half begun: a rotation was cut off before its cursors were
/// durable, so no frame was ever written behind them. A frame in it would lack the cursors before it.
fn forget_half_begun(directory: &Path, numbers: &mut Vec<u64>) -> Result<(), StoreError> {
    while let [_, .., last] = numbers.as_slice() {
        let mut begun = false;
        open_log(directory, *last, &mut |record| begun |= !matches!(record, Record::Cursors(_)))?;
        if begun {
            break;
        }
        let path = path_of(directory, *last);
        std::fs::remove_file(&path).map_err(|source| StoreError::Io { path, source })?;
        numbers.pop();
    }
    Ok(())
}

fn open_log(directory: &Path, number: u64, visit: &mut impl FnMut(Record)) -> Result<Log, StoreError> {
    Ok(Log::open(&path_of(directory, number), LogKind::StoreSegment, |body| visit_one(body, visit))?)
}

fn visit_one(body: &[u8], visit: &mut impl FnMut(Record)) {
    match body.split_first() {
        Some((&TAG_CURSORS, rest)) => visit(Record::Cursors(rest.to_vec())),
        Some((&TAG_BEGUN, _)) => visit(Record::Begun),
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

/// When a file was written last.
pub(super) fn modified(path: &Path) -> UnixMicros {
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
        segments.rotate(&[b"[]".to_vec()], UnixMicros(0), u64::MAX, now).unwrap();
        segments.append(&node, now, b"two").unwrap();
        segments.sync().unwrap();
        drop(segments);
        let frame = |bytes: &[u8]| Record::Frame { node: node.clone(), arrived: now, bytes: bytes.to_vec() };
        assert_eq!(
            frames(dir.path(), UnixMicros(0)),
            [frame(b"one"), Record::Cursors(b"[]".to_vec()), Record::Begun, frame(b"two")]
        );
        let mut segments = Segments::open(dir.path(), UnixMicros(0), now, |_| ()).unwrap();
        segments
            .rotate(&[b"[]".to_vec()], clock::now().plus(Duration::from_secs(60)), u64::MAX, now)
            .unwrap();
        drop(segments);
        assert_eq!(frames(dir.path(), UnixMicros(0)), [Record::Cursors(b"[]".to_vec()), Record::Begun]);
    }

    #[test]
    fn a_rotation_that_was_cut_off_leaves_no_segment_without_cursors() {
        let now = clock::now();
        let node = NodeId::new("gpu-01").unwrap();
        let frame = |bytes: &[u8]| Record::Frame { node: node.clone(), arrived: now, bytes: bytes.to_vec() };
        let begin = |directory: &Path| {
            let mut segments = Segments::open(directory, UnixMicros(0), now, |_| ()).unwrap();
            segments.rotate(&[b"[1]".to_vec(), b"[2]".to_vec()], UnixMicros(0), u64::MAX, now).unwrap();
            segments
        };
        let whole = {
            let dir = tempfile::tempdir().unwrap();
            drop(begin(dir.path()));
            std::fs::read(path_of(dir.path(), 1)).unwrap()
        };
        for cut in 0..whole.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut segments = begin(dir.path());
            segments.append(&node, now, b"one").unwrap();
            segments.sync().unwrap();
            drop(segments);
            // What a power cut may leave of the next one.
            std::fs::write(path_of(dir.path(), 2), &whole[..cut]).unwrap();
            let mut segments = Segments::open(dir.path(), UnixMicros(u64::MAX), now, |_| ()).unwrap();
            segments.append(&node, now, b"two").unwrap();
            drop(segments);
            let cursors = |text: &[u8]| Record::Cursors(text.to_vec());
            let expected = [cursors(b"[1]"), cursors(b"[2]"), Record::Begun, frame(b"one"), frame(b"two")];
            assert_eq!(frames(dir.path(), UnixMicros(u64::MAX)), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_second_process_is_refused_and_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let now = clock::now();
        let first = Segments::open(dir.path(), UnixMicros(0), now, |_| ()).unwrap();
        let error = Segments::open(dir.path(), UnixMicros(0), now, |_| ()).unwrap_err();
        assert!(error.to_string().contains("in use by another process"), "{error}");
        assert!(error.may_pass());
        drop(first);
        assert!(Segments::open(dir.path(), UnixMicros(0), now, |_| ()).is_ok());
    }
}
