//! The queue kind `directory`: jobs are files, and where a file is says how far its job is. Takes the
//! names in a few directories; gives how many files fit each pattern, and the age of the oldest that
//! waits. A directory on a mount that hangs holds up one thread, which is left behind: the looks say so,
//! and no second thread is sent after it.
//!
//! A file that appears among the completed between two looks is a job that was completed; one that
//! appeared and was cleared away in between is not seen.

use std::collections::{BTreeMap, HashSet};
use std::fs::{DirEntry, read_dir};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use diarwatch_shared::clock::UnixMicros;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::figure::Figure;
use super::{Look, Source};
use crate::config::worker::Faults;

/// Entries of one directory that are looked at; more are told.
pub const ENTRIES_MAX: usize = 100_000;
/// Bytes of one pattern.
pub const PATTERN_BYTES_MAX: usize = 256;
/// Patterns of one `exclude`.
pub const EXCLUDES_MAX: usize = 32;
/// A directory as a queue: `[queue.directory]`.
///
/// A pattern is a name in which `*` stands for any characters and `?` for one, such as `*.wav`; a path
/// below `path` may stand before it, such as `done/*.json`. Only files count, and a name that begins
/// with a dot only where the pattern does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The directory, absolute. No default.
    pub path: PathBuf,
    /// Files that wait. No default.
    pub waiting: String,
    /// Files that are worked on. Default: not known.
    pub processing: Option<String>,
    /// Files of jobs that are done. Default: not known.
    pub completed: Option<String>,
    /// Files of jobs that came to nothing. Default: not known.
    pub failed: Option<String>,
    /// Names that never count, such as `*.part`, a file that is still being written. Default: none.
    #[serde(default)]
    pub exclude: Vec<String>,
}

impl DirectoryConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if !self.path.is_absolute() {
            let problem = format!("`{}` is not an absolute path", self.path.display());
            faults.add("directory.path", problem, "write for example /srv/diarization/jobs");
        }
        for (figure, pattern) in self.patterns() {
            if let Err(problem) = Pattern::new(pattern) {
                let hint = "write a name such as *.wav, where needed behind a path below `path`";
                faults.add(format!("directory.{}", key_of(figure)), problem, hint);
            }
        }
        if self.exclude.len() > EXCLUDES_MAX {
            let problem = format!("it has {} patterns", self.exclude.len());
            faults.add("directory.exclude", problem, format!("write at most {EXCLUDES_MAX}"));
        }
        for name in &self.exclude {
            if name.is_empty() || name.len() > PATTERN_BYTES_MAX || name.contains('/') {
                let problem = format!("`{name}` is no pattern of a name");
                faults.add("directory.exclude", problem, "write for example *.part");
            }
        }
    }

    fn patterns(&self) -> impl Iterator<Item = (Figure, &str)> {
        let given = [
            (Figure::Waiting, Some(self.waiting.as_str())),
            (Figure::Processing, self.processing.as_deref()),
            (Figure::CompletedTotal, self.completed.as_deref()),
            (Figure::FailedTotal, self.failed.as_deref()),
        ];
        given.into_iter().filter_map(|(figure, pattern)| Some((figure, pattern?)))
    }
}

/// The key of a pattern in the configuration.
fn key_of(figure: Figure) -> &'static str {
    match figure {
        Figure::CompletedTotal => "completed",
        Figure::FailedTotal => "failed",
        other => other.key(),
    }
}

/// A directory that is looked at.
#[derive(Debug)]
pub struct Directory {
    plan: Plan,
    /// How the disk is read; a test has one that hangs.
    read: fn(&Plan) -> Result<Listing, String>,
    /// The look under way, and when it began.
    pending: Option<(UnixMicros, oneshot::Receiver<Result<Listing, String>>)>,
    completed: Appeared,
    failed: Appeared,
}

impl Directory {
    /// A directory that was not looked at yet.
    #[must_use]
    pub fn new(config: &DirectoryConfig) -> Self {
        let (completed, failed) = (Appeared::default(), Appeared::default());
        Self { plan: Plan::new(config), read: Listing::read, pending: None, completed, failed }
    }

    /// Sends a thread of its own: a call that hangs in the kernel cannot be taken back.
    fn begin(&mut self, now: UnixMicros) -> Result<&mut oneshot::Receiver<Result<Listing, String>>, String> {
        let (answer, answered) = oneshot::channel();
        let (plan, read) = (self.plan.clone(), self.read);
        let look = move || drop(answer.send(read(&plan)));
        let thread = std::thread::Builder::new().name(String::from("queue-dir")).spawn(look);
        thread.map_err(|error| format!("look at {}: {error}", self.plan.path.display()))?;
        Ok(&mut self.pending.insert((now, answered)).1)
    }

    /// Why there is no new look now.
    fn hangs(&mut self) -> Option<String> {
        let (began, answered) = self.pending.as_mut()?;
        if matches!(answered.try_recv(), Err(TryRecvError::Empty)) {
            let path = self.plan.path.display();
            let hint = "is it on a mount that hangs? It is looked at again when it answers";
            return Some(format!("look at {path}: no answer since {began}; {hint}"));
        }
        // What it answered is of some time ago.
        self.pending = None;
        None
    }

    fn figures(&mut self, listing: &Listing, now: UnixMicros) -> Look {
        let mut look = Look::default();
        for (figure, files) in &listing.files {
            let count = match figure {
                Figure::CompletedTotal => self.completed.take(files),
                Figure::FailedTotal => self.failed.take(files),
                _ => files.len(),
            };
            look.set(*figure, Ok(number(count)));
            if *figure == Figure::Waiting {
                let oldest = files.iter().filter_map(|file| file.changed).min();
                look.oldest_seconds = Ok(oldest.map_or(0.0, |changed| now.since(changed).as_secs_f64()));
            }
        }
        look.doubt = listing.overfull.as_ref().map(|path| {
            let (path, most) = (path.display(), self.plan.entries_max);
            format!("{path} has more than {most} entries, of which the rest is not counted; clear it up")
        });
        look
    }
}

impl Source for Directory {
    async fn look(&mut self, now: UnixMicros) -> Result<Look, String> {
        if let Some(problem) = self.hangs() {
            return Err(problem);
        }
        let listing = self.begin(now)?.await;
        self.pending = None;
        let fault = |_| String::from("look at a directory: a fault of the agent ended it");
        let listing = listing.map_err(fault)??;
        Ok(self.figures(&listing, now))
    }
}

/// Files that were not there before, counted as they appear; those of the first look are not.
#[derive(Debug, Default)]
struct Appeared {
    known: Option<HashSet<u64>>,
    total: usize,
}

impl Appeared {
    fn take(&mut self, files: &[Found]) -> usize {
        let keys: HashSet<u64> = files.iter().map(|file| file.key).collect();
        if let Some(known) = &self.known {
            self.total = self.total.saturating_add(keys.difference(known).count());
        }
        self.known = Some(keys);
        self.total
    }
}

/// What is looked for where.
#[derive(Clone, Debug)]
struct Plan {
    path: PathBuf,
    /// Each directory with the patterns of its names.
    places: BTreeMap<PathBuf, Vec<(Figure, String)>>,
    exclude: Vec<String>,
    /// [`ENTRIES_MAX`]; a test has fewer.
    entries_max: usize,
}

impl Plan {
    fn new(config: &DirectoryConfig) -> Self {
        let mut places: BTreeMap<PathBuf, Vec<(Figure, String)>> = BTreeMap::new();
        for (figure, pattern) in config.patterns() {
            let Ok(pattern) = Pattern::new(pattern) else { continue };
            // Joined with nothing, the path would end in a `/` wherever it is told.
            let place =
                if pattern.below.is_empty() { config.path.clone() } else { config.path.join(pattern.below) };
            places.entry(place).or_default().push((figure, pattern.name.to_owned()));
        }
        Self { path: config.path.clone(), places, exclude: config.exclude.clone(), entries_max: ENTRIES_MAX }
    }

    fn counts(&self, pattern: &str, name: &str) -> bool {
        let hidden = name.starts_with('.') && !pattern.starts_with('.');
        !hidden && fits(pattern, name) && !self.exclude.iter().any(|excluded| fits(excluded, name))
    }
}

struct Pattern<'a> {
    below: &'a str,
    name: &'a str,
}

impl<'a> Pattern<'a> {
    fn new(text: &'a str) -> Result<Self, String> {
        let (below, name) = text.rsplit_once('/').unwrap_or(("", text));
        if name.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(format!("`{text}` is no pattern of a name"));
        }
        if text.starts_with('/') || below.contains(['*', '?']) || below.split('/').any(|part| part == "..") {
            return Err(format!("`{text}` is no place below `path`"));
        }
        Ok(Self { below, name })
    }
}

/// Whether a name fits a pattern of `*` and `?`; in time that grows with both lengths, whatever they hold.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut in_name) = (0, 0);
    // Where to go on when what follows the last star does not fit: the star takes one character more.
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = name.get(in_name) {
        match pattern.get(at) {
            Some('*') => {
                at += 1;
                star = Some((at, in_name));
            }
            Some(expected) if *expected == '?' || expected == letter => {
                at += 1;
                in_name += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                (at, in_name) = (after, taken + 1);
                star = Some((after, taken + 1));
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|letter| *letter == '*')
}

/// A file that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// Its name and inode: a file that takes the name of an old one is another one.
    key: u64,
    /// When it was last changed, of those that wait.
    changed: Option<UnixMicros>,
}

/// What one look at the disk gave.
#[derive(Debug, Default)]
struct Listing {
    files: Vec<(Figure, Vec<Found>)>,
    /// A directory with more than [`ENTRIES_MAX`] entries.
    overfull: Option<PathBuf>,
}

impl Listing {
    fn read(plan: &Plan) -> Result<Self, String> {
        let mut listing = Self::default();
        for (path, patterns) in &plan.places {
            listing.read_place(path, patterns, plan).map_err(|error| problem(path, &error))?;
        }
        Ok(listing)
    }

    fn read_place(&mut self, path: &Path, patterns: &[(Figure, String)], plan: &Plan) -> std::io::Result<()> {
        let mut files: Vec<(Figure, Vec<Found>)> =
            patterns.iter().map(|(figure, _)| (*figure, Vec::new())).collect();
        for (count, entry) in read_dir(path)?.enumerate() {
            if count >= plan.entries_max {
                self.overfull = Some(path.to_owned());
                break;
            }
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            for ((_, pattern), (figure, found)) in patterns.iter().zip(&mut files) {
                if plan.counts(pattern, &name) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    found.push(Found::of(&entry, *figure));
                }
            }
        }
        self.files.append(&mut files);
        Ok(())
    }
}

impl Found {
    fn of(entry: &DirEntry, figure: Figure) -> Self {
        let mut hasher = DefaultHasher::new();
        (entry.file_name(), entry.ino()).hash(&mut hasher);
        // Of the others the time is not needed, and asking costs a call each.
        let changed = if figure == Figure::Waiting { changed(entry) } else { None };
        Self { key: hasher.finish(), changed }
    }
}

/// None when it is gone since its directory was read.
fn changed(entry: &DirEntry) -> Option<UnixMicros> {
    let found = entry.metadata().ok()?;
    let (seconds, nanos) = (u64::try_from(found.mtime()).ok()?, u64::try_from(found.mtime_nsec()).ok()?);
    Some(UnixMicros(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)))
}

fn problem(path: &Path, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "create it, or correct `path` and the patterns",
        ErrorKind::PermissionDenied => "let the agent's user list it",
        _ => "look at its disk or its mount",
    };
    format!("look at {}: {error}; {hint}", path.display())
}

#[expect(clippy::cast_precision_loss, reason = "files of a few directories fit 53 bits")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
