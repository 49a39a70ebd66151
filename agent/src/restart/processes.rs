//! The processes of a worker as the kernel shows them. Takes a process group or a cgroup; gives pids,
//! CPU time, states. Reads a few small files of /proc and /sys/fs/cgroup and never waits; what is gone
//! meanwhile is left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::PIDS_MAX;
use crate::proc_text::{ProcessStat, TICKS_PER_SECOND, process_stat};

/// cgroups below a worker's own that are looked into.
const CGROUPS_MAX: usize = 64;

/// The live processes of a process group.
#[must_use]
pub fn of_group(group: u32) -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.group == group && stat.lives()))
        .take(PIDS_MAX)
        .collect()
}

/// The live processes of a cgroup and those below it; `path` as `/proc/PID/cgroup` says it, from the
/// root of the hierarchy on.
#[must_use]
pub fn of_cgroup(path: &str) -> BTreeSet<u32> {
    let Some(directory) = directory_of(path) else { return BTreeSet::new() };
    let (mut found, mut todo, mut seen) = (BTreeSet::new(), vec![directory], 0);
    while let Some(directory) = todo.pop() {
        seen += 1;
        let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.trim().parse::<u32>().ok());
        found.extend(pids.filter(|pid| *pid != 0 && stat(*pid).is_some_and(|stat| stat.lives())));
        if seen >= CGROUPS_MAX || found.len() >= PIDS_MAX {
            break;
        }
        let below = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        todo.extend(
            below.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()),
        );
    }
    while found.len() > PIDS_MAX {
        found.pop_last();
    }
    found
}

/// The live processes whose cgroup has this in its name, such as a container's id: for a host whose cgroups
/// lie where [`of_cgroup`] does not look.
#[must_use]
pub fn of_cgroups_named(part: &str) -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    let named = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        text.contains(part) && stat(*pid).is_some_and(|stat| stat.lives())
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(named).take(PIDS_MAX).collect()
}

/// The cgroup of a process: of the unified hierarchy, else of systemd's own.
#[must_use]
pub fn cgroup_of(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = |wanted: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == wanted).then(|| path.to_owned())
        })
    };
    let unified = path("").filter(|path| path != "/");
    unified.or_else(|| path("name=systemd"))
}

/// Where a file of a cgroup lies, for its memory events and the like.
#[must_use]
pub fn directory_of(cgroup: &str) -> Option<PathBuf> {
    let relative = cgroup.trim_start_matches('/');
    if relative.is_empty() || relative.split('/').any(|part| part == "..") {
        return None;
    }
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let mut found = roots.iter().map(|root| Path::new(root).join(relative));
    found.find(|directory| directory.join("cgroup.procs").exists())
}

/// What /proc says of a process; none when it is gone.
#[must_use]
pub fn stat(pid: u32) -> Option<ProcessStat> {
    process_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// CPU time of these processes together.
#[must_use]
pub fn cpu_time(pids: &BTreeSet<u32>) -> Duration {
    let ticks: u64 = pids.iter().filter_map(|pid| stat(*pid)).map(|stat| stat.cpu_ticks).sum();
    #[expect(clippy::cast_precision_loss, reason = "ticks of a worker's life are far below 2^53")]
    Duration::try_from_secs_f64(ticks as f64 / TICKS_PER_SECOND).unwrap_or_default()
}

/// How long a process runs already.
#[must_use]
pub fn age(pid: u32) -> Option<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "ticks since boot are far below 2^53")]
    let started = stat(pid)?.start_ticks as f64 / TICKS_PER_SECOND;
    Duration::try_from_secs_f64((uptime - started).max(0.0)).ok()
}

/// Those that hang in the kernel, in uninterruptible sleep: no signal ends them.
#[must_use]
pub fn uninterruptible(pids: &BTreeSet<u32>) -> BTreeSet<u32> {
    pids.iter().copied().filter(|pid| stat(*pid).is_some_and(|stat| stat.state == 'D')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself() {
        let me = std::process::id();
        let stat = stat(me).unwrap();
        assert!(of_group(stat.group).contains(&me));
        assert!(age(me).is_some());
        assert!(
            cgroup_of(me).is_none_or(|path| directory_of(&path).is_none() || of_cgroup(&path).contains(&me))
        );
        assert!(stat.lives());
    }

    #[test]
    fn a_path_out_of_the_hierarchy_is_no_cgroup() {
        assert_eq!(directory_of("/../../etc"), None);
        assert_eq!(directory_of("/"), None);
        assert!(of_cgroup("/no/such").is_empty());
    }
}
