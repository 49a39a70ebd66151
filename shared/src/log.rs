//! The append-only log: the journal under the agent's spool and the aggregator's store.
//!
//! Takes records; gives them back in order after any crash. A file is a header of 16 bytes
//! (`DWATCHLG`, version, kind, 4 reserved) and then records: length u32, CRC32C u32 (over length
//! and body), body; all little endian. A torn tail is cut at open: what was never synced may be
//! gone, what was synced is there. Durable means [`Log::sync`] returned. Blocking I/O; the caller
//! decides on which thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The version this program writes, and the newest it reads.
pub const LOG_VERSION: u16 = 1;
/// Bytes of one record.
pub const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;

const MAGIC: [u8; 8] = *b"DWATCHLG";
const HEADER_BYTES: u64 = 16;
const HEAD_BYTES: usize = 8;

/// What a log is for; a file of another kind is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum LogKind {
    /// Tail journal of a spool generation.
    SpoolJournal = 1,
    /// Segment of the aggregator's store.
    StoreSegment = 2,
    /// The newest events of a node, for its operator.
    Events = 3,
}

/// Why a log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system refused.
    #[error("log {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a log of this kind.
    #[error("log {path} is not a diarwatch log of kind {kind:?}; move it away and start again")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The kind that was asked for.
        kind: LogKind,
    },
    /// Written by a later version.
    #[error(
        "log {path} has version {version}, this program reads up to {LOG_VERSION}; upgrade it or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// A record that may not be written.
    #[error("record of {0} bytes is larger than the limit of {RECORD_BYTES_MAX} bytes")]
    TooLarge(usize),
}

/// An open log, positioned at its end.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    length: u64,
    torn: u64,
}

impl Log {
    /// Opens or creates a log, hands each whole record to `visit` and cuts a torn tail.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is of another kind or a later version.
    pub fn open(path: &Path, kind: LogKind, mut visit: impl FnMut(&[u8])) -> Result<Self, LogError> {
        let fail = |source| LogError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if size < HEADER_BYTES {
            // A header that was never whole: nothing can have been synced behind it.
            create_header(&mut file, kind).map_err(fail)?;
            sync_parent(path).map_err(fail)?;
            return Ok(Self { file, path: path.to_owned(), length: HEADER_BYTES, torn: 0 });
        }
        check_header(&mut file, path, kind)?;
        let length = scan(&mut file, size, &mut visit).map_err(fail)?;
        if length < size {
            file.set_len(length).map_err(fail)?;
            file.sync_data().map_err(fail)?;
        }
        file.seek(SeekFrom::Start(length)).map_err(fail)?;
        Ok(Self { file, path: path.to_owned(), length, torn: size - length })
    }

    /// Appends a record. It is durable only after [`Log::sync`].
    ///
    /// # Errors
    /// When the body is too large or the disk refuses; a half-written record is taken back.
    pub fn append(&mut self, body: &[u8]) -> Result<(), LogError> {
        let length = match u32::try_from(body.len()) {
            Ok(length) if body.len() <= RECORD_BYTES_MAX => length.to_le_bytes(),
            _ => return Err(LogError::TooLarge(body.len())),
        };
        let mut record = Vec::with_capacity(HEAD_BYTES + body.len());
        record.extend(length);
        record.extend(record_crc(length, body).to_le_bytes());
        record.extend(body);
        if let Err(source) = self.file.write_all(&record) {
            // Best effort: if this fails too, the next open cuts the torn tail.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(self.fail(source));
        }
        self.length += record.len() as u64;
        Ok(())
    }

    /// Puts everything appended so far on the disk.
    ///
    /// # Errors
    /// When the disk refuses; what was appended since the last good sync is then not durable.
    pub fn sync(&self) -> Result<(), LogError> {
        self.file.sync_data().map_err(|source| self.fail(source))
    }

    /// Bytes of the file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == HEADER_BYTES
    }

    /// Bytes that were cut off as torn when it was opened.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }

    fn fail(&self, source: io::Error) -> LogError {
        LogError::Io { path: self.path.clone(), source }
    }
}

/// Makes the names in a directory durable (a created, renamed or removed file).
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Replaces a small file as a whole: written beside it, synced, renamed, the name synced.
///
/// # Errors
/// When the disk refuses; the old file is then still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    sync_parent(path)
}

fn create_header(file: &mut File, kind: LogKind) -> io::Result<()> {
    let mut header = Vec::with_capacity(16);
    header.extend(MAGIC);
    header.extend(LOG_VERSION.to_le_bytes());
    header.extend((kind as u16).to_le_bytes());
    header.extend([0; 4]);
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    file.sync_all()
}

fn check_header(file: &mut File, path: &Path, kind: LogKind) -> Result<(), LogError> {
    let mut header = [0; 16];
    file.read_exact(&mut header).map_err(|source| LogError::Io { path: path.to_owned(), source })?;
    let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, k0, k1, ..] = header;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC {
        return Err(LogError::Foreign { path: path.to_owned(), kind });
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version > LOG_VERSION {
        return Err(LogError::Newer { path: path.to_owned(), version });
    }
    if u16::from_le_bytes([k0, k1]) == kind as u16 {
        Ok(())
    } else {
        Err(LogError::Foreign { path: path.to_owned(), kind })
    }
}

/// Reads records from behind the header; gives the end of the last whole one.
fn scan(file: &mut File, size: u64, visit: &mut impl FnMut(&[u8])) -> io::Result<u64> {
    let mut reader = io::BufReader::with_capacity(256 * 1024, file);
    let mut end = HEADER_BYTES;
    loop {
        let mut head = [0; HEAD_BYTES];
        if size - end < HEAD_BYTES as u64 {
            return Ok(end);
        }
        reader.read_exact(&mut head)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let length_bytes = [l0, l1, l2, l3];
        let length = u32::from_le_bytes(length_bytes) as usize;
        let after = end + HEAD_BYTES as u64 + length as u64;
        if length > RECORD_BYTES_MAX || after > size {
            return Ok(end);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if record_crc(length_bytes, &body) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Ok(end);
        }
        visit(&body);
        end = after;
    }
}

/// Over the length too: a run of zeros is then not a valid record.
fn record_crc(length: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length) ^ 0x5A5A_5A5A, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(path: &Path) -> (Vec<Vec<u8>>, u64) {
        let mut records = Vec::new();
        let log = Log::open(path, LogKind::SpoolJournal, |body| records.push(body.to_vec())).unwrap();
        (records, log.torn())
    }

    fn write_all(path: &Path, records: &[Vec<u8>]) {
        let mut log = Log::open(path, LogKind::SpoolJournal, |_| ()).unwrap();
        for record in records {
            log.append(record).unwrap();
        }
        log.sync().unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_log_cut_anywhere_gives_back_a_prefix_and_takes_more(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..12),
            cut in 0_u64..400,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            write_all(&path, &records);
            let size = std::fs::metadata(&path).unwrap().len();
            OpenOptions::new().write(true).open(&path).unwrap().set_len(size.saturating_sub(cut)).unwrap();
            let (kept, _) = read_all(&path);
            prop_assert!(records.starts_with(&kept));
            write_all(&path, &[b"after".to_vec()]);
            let (again, torn) = read_all(&path);
            prop_assert_eq!(torn, 0);
            prop_assert_eq!(again.last().map(Vec::as_slice), Some(&b"after"[..]));
            prop_assert_eq!(again.len(), kept.len() + 1);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write_all(&path, &[b"first".to_vec(), b"second".to_vec()]);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (records, torn) = read_all(&path);
        assert_eq!(records, [b"first".to_vec()]);
        assert_eq!(torn, 14);
    }

    #[test]
    fn a_run_of_zeros_behind_the_end_is_not_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write_all(&path, &[b"first".to_vec()]);
        let size = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(size + 4096).unwrap();
        assert_eq!(read_all(&path).0.len(), 1);
    }

    #[test]
    fn a_later_version_and_a_foreign_file_are_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut newer = MAGIC.to_vec();
        newer.extend([9, 0, 1, 0, 0, 0, 0, 0]);
        for (bytes, word) in
            [(newer, "upgrade"), (b"some other file, longer".to_vec(), "not a diarwatch log")]
        {
            std::fs::write(&path, &bytes).unwrap();
            let error = Log::open(&path, LogKind::SpoolJournal, |_| ()).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }
}
