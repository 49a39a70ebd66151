//! What processes hold of the GPUs by their own word: takes a folder in which each has a file, gives
//! their memory and load, so that a stand-in of a worker is on a GPU as the real driver would say it.
//!
//! A file is named by its process (`1234`, or `1234.1` for a second one) and has a line for each GPU:
//! `UUID-or-index MIB SM`, in MiB and percent. A claim lasts as long as its process, and a word behind
//! it says how that is known or that it stays:
//!
//! - `locked`: the process is the one that holds a lock (`flock`) on the file. The kernel tells its pid as
//!   seen from here, also of a process in a container, and drops the lock however the process ends.
//! - `leaked`: the process may be gone; the driver still lists it.
//! - `ghost`: the process may be gone; what it used still counts and no process is listed for it.
//!
//! What cannot be read claims nothing. Files and lines are bounded.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::scenario::{Card, Process};

/// Files of a folder that are read.
const FILES_MAX: usize = 256;
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 4 * 1_024;
/// Bytes of the kernel's list of locks.
const LOCKS_BYTES_MAX: u64 = 1024 * 1024;
/// Where the kernel tells who holds which lock.
const LOCKS: &str = "/proc/locks";

/// What a process holds of one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// UUID or index.
    gpu: String,
    /// The process, unless none is listed.
    pid: Option<u32>,
    /// Memory, MiB.
    pub(crate) mib: u32,
    /// Multiprocessors, percent.
    pub(crate) sm: u32,
}

impl Claim {
    /// Whether it is about this GPU.
    pub(crate) fn is_on(&self, index: u32, card: &Card) -> bool {
        self.gpu == card.uuid || self.gpu.parse() == Ok(index)
    }

    /// As the driver lists it.
    pub(crate) fn process(&self) -> Option<Process> {
        self.pid.map(|pid| Process { pid, mib: self.mib, sm: self.sm, memory: 0 })
    }
}

/// The claims of a folder that hold now.
pub(crate) fn read(folder: &Path) -> Vec<Claim> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
    let mut locks = None;
    let mut claims = Vec::new();
    for file in files {
        let Some(named) = file.file_name().to_str().and_then(named_pid) else { continue };
        let Ok(metadata) = file.metadata() else { continue };
        let text = text_of(&file.path(), FILE_BYTES_MAX);
        claims.extend(text.lines().filter_map(|line| {
            claim(line, named, is_alive, || {
                holder(locks.get_or_insert_with(|| text_of(Path::new(LOCKS), LOCKS_BYTES_MAX)), &metadata)
            })
        }));
    }
    claims
}

/// The pid that a file is named by.
fn named_pid(name: &str) -> Option<u32> {
    name.split('.').next()?.parse().ok()
}

/// What one line claims, if it holds.
fn claim(
    line: &str,
    named: u32,
    is_alive: impl FnOnce(u32) -> bool,
    holder: impl FnOnce() -> Option<u32>,
) -> Option<Claim> {
    let mut words = line.split_whitespace();
    let (gpu, mib, sm) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let pid = match words.next() {
        None if is_alive(named) => Some(named),
        Some("locked") => Some(holder()?),
        Some("leaked") => Some(named),
        Some("ghost") => None,
        _ => return None,
    };
    Some(Claim { gpu: gpu.to_owned(), pid, mib, sm })
}

/// A process that has ended and was not waited for holds nothing any more.
fn is_alive(pid: u32) -> bool {
    let stat = text_of(Path::new(&format!("/proc/{pid}/stat")), FILE_BYTES_MAX);
    // The name in brackets may hold anything, brackets too.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X' | 'x'))
}

/// Who holds a lock on a file, out of lines such as `3: FLOCK ADVISORY WRITE 4242 fd:01:655391 0 EOF`.
fn holder(locks: &str, file: &Metadata) -> Option<u32> {
    let device = file.dev();
    let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
    let minor = (device & 0xff) | (device >> 12 & !0xff);
    let inode = file.ino();
    let whole = format!("{major:02x}:{minor:02x}:{inode}");
    let end = format!(":{inode}");
    // Some file systems (overlayfs) tell another device in `stat` than in the list.
    locked_by(locks, |place| place == whole).or_else(|| locked_by(locks, |place| place.ends_with(&end)))
}

fn locked_by(locks: &str, is_place: impl Fn(&str) -> bool) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(4);
        // Of one that waits for a lock the words are shifted by its arrow, and no pid is here.
        let pid = words.next()?.parse().ok()?;
        words.next().filter(|place| is_place(place)).map(|_| pid)
    })
}

fn text_of(path: &Path, bytes_max: u64) -> String {
    let mut bytes = Vec::new();
    drop(File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes)));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_gpu(pid: Option<u32>) -> Option<Claim> {
        Some(Claim { gpu: "0".into(), pid, mib: 2_048, sm: 35 })
    }

    #[test]
    fn a_claim_lasts_as_long_as_its_process_unless_it_says_otherwise() {
        let of = |line: &str, alive: bool, holder: Option<u32>| claim(line, 42, |_| alive, || holder);
        assert_eq!(of("0 2048 35", true, None), on_gpu(Some(42)));
        assert_eq!(of("0 2048 35", false, Some(7)), None);
        assert_eq!(of("0 2048 35 leaked", false, None), on_gpu(Some(42)));
        assert_eq!(of("0 2048 35 ghost", false, None), on_gpu(None));
        assert_eq!(of("0 2048 35 locked", false, Some(7)), on_gpu(Some(7)));
        assert_eq!(of("0 2048 35 locked", true, None), None);
        for nonsense in ["", "0", "0 2048", "0 x 35", "0 2048 35 for ever"] {
            assert_eq!(of(nonsense, true, Some(1)), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_claim_is_on_the_gpu_of_its_index_or_uuid() {
        let (claim, card) = (on_gpu(None).unwrap(), Card::numbered(1));
        assert!(claim.is_on(0, &card) && !claim.is_on(1, &card));
        assert!(Claim { gpu: card.uuid.clone(), ..claim }.is_on(1, &card));
    }

    #[test]
    fn a_file_is_named_by_its_process() {
        assert_eq!(
            [named_pid("42"), named_pid("42.1"), named_pid(".42"), named_pid("a")],
            [Some(42), Some(42), None, None]
        );
    }

    #[test]
    fn a_process_that_was_not_waited_for_holds_nothing() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while is_alive(child.id()) {
            std::thread::yield_now();
        }
        assert!(Path::new(&format!("/proc/{}", child.id())).exists());
        child.wait().unwrap();
        assert!(is_alive(std::process::id()));
    }

    #[test]
    fn the_kernel_tells_who_holds_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1");
        let file = File::create(&path).unwrap();
        std::fs::write(&path, "0 512 3 locked\n").unwrap();
        assert_eq!(read(folder.path()), []);
        file.lock().unwrap();
        let claims = read(folder.path());
        assert_eq!(claims.first().and_then(|claim| claim.pid), Some(std::process::id()));
        drop(file);
        assert_eq!(read(folder.path()), []);
    }
}
