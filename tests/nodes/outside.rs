//! The outer half, on the machine itself. Takes nothing from the machine but root and its programs;
//! gives a root for nodes, then this program again in a lab, and what that ended with. A bench that wants
//! nodes (`agent/benches/restart`) uses it as well.
//!
//! What stands around the lab: a process namespace whose first process dies when this one does
//! (`--pdeathsig`, `--kill-child`), and takes all others with it; a mount and a network namespace, which
//! end with their last process. So Ctrl-C, a panic or SIGKILL leave no process, mount, link or socket.
//! Only folders of cgroups stay, and this half removes them: its own, and those of one that was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::daemon;
use tokio::process::Command;

use crate::command::until;
use crate::lab::{CGROUPS, NAME};
use crate::root::{Release, target};

/// What the tests call, and Debian's packages of it.
const PROGRAMS: [(&str, &str); 7] = [
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("timeout", "coreutils"),
];
/// How long the kernel may take to end a lab's processes.
const ENDING: Duration = Duration::from_secs(20);

/// Why the inner half did not come to its end.
pub(crate) enum Stop {
    /// This machine lacks something.
    Missing(String),
    /// What stands around the lab went wrong.
    Failed(String),
    /// A signal ended it.
    Signal,
}

/// Prepares, runs this program in a lab as `inside ROOT NAME WORD`, and clears up; gives what it ended with.
pub(crate) fn run(word: &str) -> Result<u8, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Stop::Failed(format!("a runtime: {error}")))?.block_on(work(word))
}

async fn work(word: &str) -> Result<u8, Stop> {
    missing().map_or(Ok(()), |why| Err(Stop::Missing(why)))?;
    remove_dead_labs();
    if contained(&["true".into()], &["--net"]).await? != 0 {
        return Err(Stop::Missing("this machine allows no namespaces (unshare --mount --pid --net)".into()));
    }
    let release = Release::machines_own().map_err(Stop::Missing)?;
    let root = release.folder(&target());
    if !root.exists() {
        make(&release, &root).await?;
    }
    let own = |error: std::io::Error| Stop::Failed(format!("its own path: {error}"));
    let program = std::env::current_exe().map_err(own)?.display().to_string();
    let name = format!("{NAME}{}", std::process::id());
    let words = [program, "inside".into(), root.display().to_string(), name.clone(), word.into()];
    let ended = contained(&words, &["--net"]).await;
    let removed = until("the lab's cgroups to be empty", ENDING, || remove_cgroups(&name));
    let code = ended?;
    removed.map_err(Stop::Failed)?;
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Runs a program in namespaces that end with this process; gives its exit number.
async fn contained(words: &[String], more: &[&str]) -> Result<i32, Stop> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child"]);
    command.arg("--mount-proc").args(more).arg("--").args(words).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| Stop::Failed(format!("setpriv: {error}")))?;
    tokio::select! {
        ended = child.wait() => Ok(ended.ok().and_then(|status| status.code()).unwrap_or(1)),
        _ = daemon::stop_signal() => {
            drop(child.kill().await);
            Err(Stop::Signal)
        }
    }
}

/// Makes the root beside its place and puts it there when it is whole.
async fn make(release: &Release, root: &Path) -> Result<(), Stop> {
    let failed = |error: std::io::Error| Stop::Failed(format!("{}: {error}", root.display()));
    let parent = root.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&parent).map_err(failed)?;
    let half = parent.join(format!("half-{}", std::process::id()));
    drop(fs::remove_dir_all(&half));
    println!("==> making {} (once)", root.display());
    let made = contained(&release.make(&half), &[]).await;
    if matches!(made, Ok(0)) && fs::rename(&half, root).is_ok() {
        return Ok(());
    }
    drop(fs::remove_dir_all(&half));
    // Another run may have been faster.
    match made {
        Ok(_) if root.exists() => Ok(()),
        Ok(_) => Err(Stop::Missing("mmdebstrap cannot make a root here; its last lines say why".into())),
        Err(stop) => Err(stop),
    }
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this needs root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    let absent: Vec<&str> =
        PROGRAMS.iter().filter(|(name, _)| !here(name)).map(|(_, package)| *package).collect();
    (!absent.is_empty()).then(|| format!("not installed: {} (.ci/install installs it)", absent.join(", ")))
}

/// Removes a lab's folders of cgroups in each hierarchy; says whether none is left.
fn remove_cgroups(name: &str) -> bool {
    let inner = fs::read_dir(CGROUPS).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let each: Vec<PathBuf> = inner.chain([PathBuf::from(CGROUPS)]).map(|folder| folder.join(name)).collect();
    each.iter().for_each(|folder| remove_tree(folder));
    each.iter().all(|folder| !folder.exists())
}

/// A cgroup goes when those in it went; what is not empty stays.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    drop(fs::remove_dir(folder));
}

/// What a run that was killed by SIGKILL left: its name ends with the id of a process that is gone.
fn remove_dead_labs() {
    let folders =
        fs::read_dir(CGROUPS).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let all = folders.chain([PathBuf::from(CGROUPS)]).filter_map(|folder| fs::read_dir(folder).ok());
    let names = all.flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let dead = names.filter(|name| {
        let id = name.strip_prefix(NAME).and_then(|id| id.parse::<u32>().ok());
        id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists())
    });
    for name in dead {
        remove_cgroups(&name);
    }
}
