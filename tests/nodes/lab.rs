//! The lab: the inside, where nodes and engines live. Takes the namespaces that `outside.rs` made; gives
//! ground to stand on: `/run` and `/etc` whose changes the machine does not see, a bridge on which each
//! node has an address, and cgroups under one name.
//!
//! The lab's own end of the bridge is [`LAB_ADDRESS`]: what runs in the lab, such as an aggregator,
//! reaches nodes and is reached by them. Nothing reaches the world.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::command::must;

/// Where hierarchies of cgroups are mounted.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";
/// What a lab's name begins with; the id of its outer half follows.
pub(crate) const NAME: &str = "diarwatch-nodes-";
/// The lab's end of the bridge.
pub(crate) const LAB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 7, 1);
/// Where all that is written lies, in memory.
const SCRATCH: &str = "/run/lab";
/// Controllers of version 1 that a node with limits gets.
const LIMITING: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "devices"];
/// Enters the cgroups that are named first, then becomes the command.
const LAUNCH: &str = r#"set -e; n=$1; shift
while [ "$n" -gt 0 ]; do mkdir -p "$1"; echo $$ >"$1/cgroup.procs"; shift; n=$((n - 1)); done
exec "$@""#;

/// Everything that checks share.
pub(crate) struct Lab {
    pub(crate) root: PathBuf,
    /// The product's programs where nodes have them: the layer above the root.
    pub(crate) product: PathBuf,
    /// Tests of programs that checks ran.
    pub(crate) tests: AtomicUsize,
    name: String,
    given: AtomicU8,
}

/// How this machine mounts cgroups.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Version 2 alone.
    Unified,
    /// Controllers in version 1, with or without an empty version 2 beside them.
    Hybrid,
}

impl Lab {
    /// Makes the ground.
    pub(crate) fn enter(root: &Path, name: &str) -> Result<Self, String> {
        must(&["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])?;
        for folder in ["/run/lock", "/run/etc/upper", "/run/etc/work", "/run/lab/product"] {
            fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
        }
        // dockerd writes a key there.
        let etc = "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work";
        must(&["mount", "-t", "overlay", "overlay", "-o", etc, "/etc"])?;
        must(&["ip", "link", "set", "lo", "up"])?;
        // Of its own: else it takes the lowest of its ports', and with each node that comes or goes the others
        // lose the lab for as long as they believe in the old one.
        must(&["ip", "link", "add", "br0", "address", "02:00:0a:63:07:01", "type", "bridge"])?;
        must(&["ip", "addr", "add", &format!("{LAB_ADDRESS}/24"), "dev", "br0"])?;
        must(&["ip", "link", "set", "br0", "up"])?;
        let (root, product) = (root.to_owned(), Path::new(SCRATCH).join("product"));
        let (named, given) = (name.to_owned(), AtomicU8::new(0));
        let lab = Self { root, product, tests: AtomicUsize::new(0), name: named, given };
        if layout() == Layout::Unified {
            // Where a controller is not to be had, nodes boot all the same, without its limits.
            let folder = Path::new(CGROUPS).join(name);
            drop(fs::create_dir_all(&folder));
            for controller in ["+memory", "+pids", "+cpu"] {
                drop(fs::write(Path::new(CGROUPS).join("cgroup.subtree_control"), controller));
                drop(fs::write(folder.join("cgroup.subtree_control"), controller));
            }
        }
        Ok(lab)
    }

    /// A number that nothing else in this lab has.
    pub(crate) fn number(&self) -> u8 {
        self.given.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A new folder in memory, gone with the lab.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, String> {
        let folder = Path::new(SCRATCH).join(name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }

    /// The path of a cgroup from the top of each hierarchy.
    pub(crate) fn cgroup(&self, name: &str) -> String {
        format!("/{}/{name}", self.name)
    }

    /// Starts a program in a cgroup of its own, its output in a file; with `limits` the controllers of
    /// version 1 are its own, too.
    pub(crate) fn start(
        &self,
        name: &str,
        limits: bool,
        log: &Path,
        command: &mut Command,
    ) -> Result<Child, String> {
        let said = |error| format!("{}: {error}", log.display());
        let folders: Vec<PathBuf> = self.folders(name, limits);
        let file = fs::File::create(log).map_err(said)?;
        let mut launch = Command::new("sh");
        launch.args(["-c", LAUNCH, "launch", &folders.len().to_string()]).args(folders);
        launch.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            value.map(|value| launch.env(key, value));
        }
        launch.stdin(Stdio::null()).stderr(file.try_clone().map_err(said)?).stdout(file);
        launch.spawn().map_err(said)
    }

    fn folders(&self, name: &str, limits: bool) -> Vec<PathBuf> {
        let top = Path::new(CGROUPS);
        let mut tops = match layout() {
            Layout::Unified => vec![top.to_owned()],
            Layout::Hybrid => vec![top.join("systemd"), top.join("unified")],
        };
        if limits && layout() == Layout::Hybrid {
            tops.extend(LIMITING.map(|controller| top.join(controller)));
        }
        let within = tops.into_iter().filter(|folder| folder.exists());
        within.map(|folder| folder.join(&self.name).join(name)).collect()
    }

    /// Ends every process that is still in the cgroups of that name, or below.
    pub(crate) fn kill(&self, name: &str) {
        self.folders(name, true).iter().flat_map(|folder| processes(folder)).for_each(kill);
    }
}

/// How this machine mounts cgroups.
pub(crate) fn layout() -> Layout {
    let unified = Path::new(CGROUPS).join("cgroup.controllers").exists();
    if unified { Layout::Unified } else { Layout::Hybrid }
}

/// Where version 2 is mounted.
pub(crate) fn version_2() -> PathBuf {
    match layout() {
        Layout::Unified => CGROUPS.into(),
        Layout::Hybrid => Path::new(CGROUPS).join("unified"),
    }
}

/// Takes away a folder of the lab with everything that is mounted in it.
pub(crate) fn remove(folder: &Path) {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = text.lines().filter_map(|line| line.split(' ').nth(1));
    // The innermost was mounted last.
    for place in
        places.filter(|place| Path::new(place).starts_with(folder)).collect::<Vec<_>>().into_iter().rev()
    {
        drop(must(&["umount", "--lazy", place]));
    }
    drop(fs::remove_dir_all(folder));
}

/// The processes of a cgroup and of those below it.
pub(crate) fn processes(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes(&entry.path()));
        }
    }
    found
}

/// SIGKILL by number; who is gone is gone.
pub(crate) fn kill(id: i32) {
    // 0 stands for a process of another namespace, which is none of ours.
    if let Some(pid) = rustix::process::Pid::from_raw(id).filter(|_| id > 1) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
