//! Who ordered what, as JSON lines on disk: an intent is here before it leaves, its answer once it came.
//!
//! Takes values; gives nothing back but an error, and then the intent is not sent. Append-only; a file that is
//! full becomes `intents.log.1` in the place of the one before.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use diarwatch_shared::log::sync_parent;
use serde_json::Value;

/// Bytes of a file before the next one is begun.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The open file.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Audit {
    /// Opens `intents.log` in a directory.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Self::with(directory, FILE_BYTES_MAX)
    }

    fn with(directory: &Path, bytes_max: u64) -> io::Result<Self> {
        let path = directory.join("intents.log");
        let (file, bytes) = open(&path)?;
        Ok(Self { path, file, bytes, bytes_max })
    }

    /// Writes a line; it is on disk when this returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, line: &Value) -> io::Result<()> {
        let line = format!("{line}\n");
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            (self.file, self.bytes) = open(&self.path)?;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += line.len() as u64;
        self.file.sync_data()
    }
}

/// The file and its length. A line that a power cut tore is ended, so that the next is whole.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    sync_parent(path)?;
    let mut bytes = file.metadata()?.len();
    let mut last = [b'\n'];
    if bytes > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
        bytes += 1;
    }
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_stay_over_a_restart_a_torn_one_spoils_no_other_and_a_full_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let mut audit = Audit::with(dir.path(), 40).unwrap();
        audit.append(&json!({ "id": 1 })).unwrap();
        drop(audit);
        let mut torn = OpenOptions::new().append(true).open(dir.path().join("intents.log")).unwrap();
        torn.write_all(b"{\"id").unwrap();
        let mut audit = Audit::with(dir.path(), 40).unwrap();
        audit.append(&json!({ "id": 2 })).unwrap();
        assert_eq!(read("intents.log"), "{\"id\":1}\n{\"id\n{\"id\":2}\n");
        for id in 3..6 {
            audit.append(&json!({ "id": id })).unwrap();
        }
        assert!(read("intents.log.1").ends_with("{\"id\":3}\n"), "{}", read("intents.log.1"));
        assert_eq!(read("intents.log"), "{\"id\":4}\n{\"id\":5}\n");
    }
}
