//! What a worker holds of a GPU, told to the fake NVML: takes a folder and what is held, gives a file there
//! (`UUID-or-index MIB SM WORD`, as tests/fake-nvml/src/claims.rs reads it) and keeps it locked, so that
//! the claim goes however this process ends. A folder that refuses is told once and costs the claim.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use diarwatch_shared::clock;

use super::control::Stays;
use super::state::Holding;
use crate::say::say;

/// Files that one pid may have, each in a container of its own.
const SAME_PID_MAX: u32 = 64;
/// Bytes of a claim, filled up with spaces: it is written over in one piece.
const CLAIM_BYTES: usize = 128;
/// Files of the folder that are looked at for dead ones.
const FILES_MAX: usize = 10_000;
/// What a process that hangs in the driver leaves behind, percent.
const SM_GHOST: u32 = 100;

/// Where and how much.
#[derive(Clone, Debug)]
pub(super) struct Gpu {
    /// The folder of claims.
    pub(super) claims: PathBuf,
    /// UUID or index.
    pub(super) gpu: String,
    /// Memory of the model, MiB.
    pub(super) mib: u32,
    /// Multiprocessors while it works, percent.
    pub(super) sm: u32,
}

/// A claim that follows what is held.
pub(super) struct Claim {
    gpu: Option<Gpu>,
    held: Option<(PathBuf, File)>,
    shown: Option<Holding>,
}

impl Claim {
    /// Claims nothing yet; what dead processes left in the folder is removed.
    pub(super) fn new(gpu: Option<Gpu>) -> Self {
        gpu.iter().for_each(|gpu| sweep(&gpu.claims));
        Self { gpu, held: None, shown: None }
    }

    /// Shows what is held now.
    pub(super) fn show(&mut self, holding: Option<Holding>) {
        let Some(gpu) = self.gpu.as_ref().filter(|_| holding != self.shown) else { return };
        self.shown = holding;
        let done = match holding {
            Some(holding) => write(gpu, holding, &mut self.held),
            None => self.held.take().map_or(Ok(()), |(path, _)| std::fs::remove_file(path)),
        };
        if let Err(error) = done {
            say(&format!("WARNING no claim of a GPU in {}: {error}", gpu.claims.display()));
            self.gpu = None;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((path, _)) =
            self.held.take().filter(|_| self.shown.is_some_and(|it| it.stays == Stays::Nothing))
        {
            // What cannot be removed is no claim either once its lock is gone.
            drop(std::fs::remove_file(path));
        }
    }
}

fn write(gpu: &Gpu, holding: Holding, held: &mut Option<(PathBuf, File)>) -> io::Result<()> {
    let line = line(gpu, holding);
    match held {
        Some((_, file)) => file.write_all_at(line.as_bytes(), 0),
        None => {
            *held = Some(place(&gpu.claims, &line)?);
            Ok(())
        }
    }
}

fn line(gpu: &Gpu, Holding { leaked_mib, is_busy, stays }: Holding) -> String {
    let mib = gpu.mib.saturating_add(leaked_mib);
    let (sm, word) = match stays {
        Stays::Nothing => (if is_busy { gpu.sm } else { 0 }, "locked"),
        Stays::Leaked => (if is_busy { gpu.sm } else { 0 }, "leaked"),
        Stays::Ghost => (SM_GHOST, "ghost"),
    };
    let text = format!("{} {mib} {sm} {word}", gpu.gpu);
    format!("{text:<CLAIM_BYTES$}\n")
}

/// A locked file with that line under this process's pid. It gets its name when it is whole; two
/// containers may have the same pid, and the second takes another name.
fn place(folder: &Path, line: &str) -> io::Result<(PathBuf, File)> {
    let pid = std::process::id();
    let unnamed = folder.join(format!(".{pid}-{}", clock::now().0));
    let mut file = File::create_new(&unnamed)?;
    file.lock()?;
    file.write_all(line.as_bytes())?;
    let names = (0..SAME_PID_MAX).map(|number| match number {
        0 => folder.join(pid.to_string()),
        _ => folder.join(format!("{pid}.{number}")),
    });
    let named = names.into_iter().find(|name| std::fs::hard_link(&unnamed, name).is_ok());
    std::fs::remove_file(&unnamed)?;
    named.map(|name| (name, file)).ok_or_else(|| io::Error::other("no name in it is free"))
}

/// Removes what nobody holds any more.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX) {
        let path = entry.path();
        let is_claim = std::fs::read_to_string(&path).is_ok_and(|text| text.trim_end().ends_with(" locked"));
        let is_free = |file: File| file.try_lock().is_ok();
        if is_claim && File::open(&path).is_ok_and(is_free) {
            drop(std::fs::remove_file(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Holding = Holding { leaked_mib: 0, is_busy: false, stays: Stays::Nothing };

    fn names(folder: &Path) -> Vec<String> {
        let names =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_claim_follows_what_is_held_and_two_of_one_pid_are_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let gpu = Gpu { claims: folder.path().to_owned(), gpu: "0".into(), mib: 2_000, sm: 60 };
        let pid = std::process::id().to_string();
        let text = || std::fs::read_to_string(folder.path().join(&pid)).unwrap();
        std::fs::write(folder.path().join("999"), "0 1 1 locked\n").unwrap();
        let (mut first, mut second) = (Claim::new(Some(gpu.clone())), Claim::new(Some(gpu)));
        assert_eq!(names(folder.path()), Vec::<String>::new(), "what a dead process left is removed");
        first.show(Some(Holding { leaked_mib: 300, is_busy: true, ..IDLE }));
        second.show(Some(IDLE));
        assert_eq!(text().split_whitespace().collect::<Vec<_>>(), ["0", "2300", "60", "locked"]);
        assert_eq!(names(folder.path()), [pid.clone(), format!("{pid}.1")]);
        first.show(Some(Holding { stays: Stays::Ghost, ..IDLE }));
        assert_eq!(text().split_whitespace().collect::<Vec<_>>(), ["0", "2000", "100", "ghost"]);
        second.show(None);
        drop(first);
        assert_eq!(names(folder.path()), [pid], "a ghost stays");
    }
}
