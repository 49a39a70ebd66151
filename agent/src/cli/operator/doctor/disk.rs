//! The spool and the disk under it: may the agent write, is there room, was anything lost.

use std::path::{Path, PathBuf};

use diarwatch_shared::texts::Text;
use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};
use serde_json::Value;

use super::Facts;
use super::host::{self, CHANGE};
use super::report::{Finding, word};
use crate::config::SpoolConfig;

/// Files that a spool needs to go on: a generation has a few, and a new one is begun before the old goes.
const INODES_LEAST: u64 = 64;
/// Below this somebody should see what makes so many files.
const INODES_FEW: u64 = 1_024;
/// Generations that must fit for the spool to go on.
const GENERATIONS_LEAST: u64 = 2;

/// What a file system has left for the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    bytes: u64,
    /// None where the file system has no such number.
    inodes: Option<u64>,
}

impl Left {
    fn of(stat: &StatVfs, root: bool) -> Self {
        // What is reserved is root's.
        let (blocks, inodes) =
            if root { (stat.f_bfree, stat.f_ffree) } else { (stat.f_bavail, stat.f_favail) };
        let inodes = (stat.f_files > 0).then_some(inodes);
        Self { bytes: blocks.saturating_mul(stat.f_frsize), inodes }
    }
}

/// The spool's directory, or the nearest above it that is there, and its file system.
fn spool(facts: &Facts) -> Result<(&SpoolConfig, PathBuf, StatVfs), Finding> {
    let config = &facts.config()?.spool;
    let place = host::existing(&config.directory).unwrap_or_else(|| PathBuf::from("/"));
    match statvfs(&place) {
        Ok(stat) => Ok((config, place, stat)),
        Err(error) => Err(unseen(facts, &config.directory, &error)),
    }
}

fn unseen(facts: &Facts, path: &Path, error: &dyn std::fmt::Display) -> Finding {
    let shown = format!("{}: {error}", path.display());
    Finding::skip(Text::DoctorNotAllowed, &[&facts.host.me.name, &shown]).try_this("sudo diarwatch doctor")
}

/// `spool.directory`
pub(super) fn directory(facts: &Facts) -> Finding {
    let (config, place, stat) = match spool(facts) {
        Ok(spool) => spool,
        Err(skip) => return skip,
    };
    let wanted = config.directory.display();
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let mend = format!(
            "findmnt -T {0}; sudo dmesg | tail; sudo mount -o remount,rw \"$(findmnt -nT {0} -o TARGET)\"",
            word(place.display())
        );
        return Finding::fail(Text::DoctorReadOnly, &[&wanted], mend);
    }
    if !place.is_dir() {
        let mend = format!("ls -ld {}", word(place.display()));
        return Finding::fail(Text::DoctorNoDirectory, &[&wanted, &place.display()], mend);
    }
    let who = facts.agent_user();
    match host::obstacle(&place, &who, CHANGE) {
        Ok(None) => Finding::pass(Text::DoctorMayWrite, &[&who.name, &wanted]),
        Ok(Some(obstacle)) => {
            let shown = format!("{} ({})", obstacle.path.display(), facts.host.shown(&obstacle));
            let wanted_word = word(&wanted);
            let mend = if obstacle.path == config.directory {
                format!("sudo chown -R {} {wanted_word}; sudo chmod u+rwx {wanted_word}", who.name)
            } else {
                format!("sudo install -d -o {} -m 0750 {wanted_word}; namei -l {wanted_word}", who.name)
            };
            Finding::fail(Text::DoctorMayNotWrite, &[&who.name, &wanted, &shown], mend)
        }
        Err(error) => unseen(facts, &place, &error),
    }
}

/// `disk.space`
pub(super) fn space(facts: &Facts) -> Finding {
    let (config, place, stat) = match spool(facts) {
        Ok(spool) => spool,
        Err(skip) => return skip,
    };
    let used = facts.status().ok().and_then(|status| status.pointer("/spool/bytes")?.as_u64());
    judge_space(&place, Left::of(&stat, facts.agent_user().uid == 0), config, used.unwrap_or(0))
}

fn judge_space(place: &Path, left: Left, config: &SpoolConfig, used: u64) -> Finding {
    let shown = place.display();
    let mend = format!(
        "df -h {0}; sudo du -xh --max-depth=2 \"$(findmnt -nT {0} -o TARGET)\" | sort -h | tail",
        word(&shown)
    );
    if left.bytes < config.generation_bytes.0.saturating_mul(GENERATIONS_LEAST) {
        return Finding::fail(Text::DoctorDiskFull, &[&shown, &size(left.bytes)], mend);
    }
    let wanted = config.bytes_max.0.saturating_sub(used);
    if left.bytes < wanted {
        return Finding::warn(
            Text::DoctorDiskTight,
            &[&shown, &size(left.bytes), &size(config.bytes_max.0), &size(used)],
            mend,
        );
    }
    Finding::pass(Text::DoctorDiskRoom, &[&shown, &size(left.bytes)])
}

/// `disk.inodes`
pub(super) fn inodes(facts: &Facts) -> Finding {
    let (_, place, stat) = match spool(facts) {
        Ok(spool) => spool,
        Err(skip) => return skip,
    };
    judge_inodes(&place, Left::of(&stat, facts.agent_user().uid == 0))
}

fn judge_inodes(place: &Path, left: Left) -> Finding {
    let shown = place.display();
    let mend = format!(
        "df -i {0}; sudo du -x --inodes --max-depth=2 \"$(findmnt -nT {0} -o TARGET)\" | sort -n | tail",
        word(&shown)
    );
    match left.inodes {
        None => Finding::skip(Text::DoctorNoInodes, &[&shown]),
        Some(inodes) if inodes < INODES_LEAST => {
            Finding::fail(Text::DoctorInodesFull, &[&shown, &inodes], mend)
        }
        Some(inodes) if inodes < INODES_FEW => {
            Finding::warn(Text::DoctorInodesFull, &[&shown, &inodes], mend)
        }
        Some(inodes) => Finding::pass(Text::DoctorInodesRoom, &[&shown, &inodes]),
    }
}

/// `spool.frames`
pub(super) fn frames(facts: &Facts) -> Finding {
    facts.status().map_or_else(|skip| skip, judge_frames)
}

fn judge_frames(status: &Value) -> Finding {
    let spool = &status["spool"];
    let number = |key: &str| spool[key].as_u64().unwrap_or(0);
    if let Some(problem) = spool["problem"].as_str() {
        return Finding::fail(
            Text::DoctorSpoolProblem,
            &[&problem],
            "sudo diarwatch doctor --only spool,disk",
        );
    }
    match number("frames_lost") {
        0 => Finding::pass(Text::DoctorFramesKept, &[&number("frames_unacked"), &size(number("bytes"))]),
        lost => Finding::warn(
            Text::DoctorFramesLost,
            &[&lost, &number("frames_unacked")],
            "diarwatch doctor --only link,disk   # then raise bytes_max under [spool]",
        ),
    }
}

/// A size in the largest unit that leaves a whole number before the point.
#[expect(clippy::cast_precision_loss, reason = "for people, one digit behind the point")]
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, unit)| format!("{:.1} {name}", bytes as f64 / *unit as f64),
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use diarwatch_shared::quantity::Bytes;
    use serde_json::json;

    const MIB: u64 = 1 << 20;

    fn space_left(bytes: u64, used: u64) -> Verdict {
        let config = SpoolConfig {
            bytes_max: Bytes(100 * MIB),
            generation_bytes: Bytes(4 * MIB),
            ..SpoolConfig::default()
        };
        judge_space(Path::new("/s"), Left { bytes, inodes: None }, &config, used).verdict
    }

    #[test]
    fn a_disk_is_full_when_the_spool_cannot_go_on_and_tight_when_it_cannot_grow_to_its_bound() {
        assert_eq!(space_left(8 * MIB - 1, 0), Verdict::Fail);
        assert_eq!(space_left(8 * MIB, 0), Verdict::Warn);
        assert_eq!(space_left(100 * MIB, 0), Verdict::Pass);
        assert_eq!(space_left(60 * MIB, 40 * MIB), Verdict::Pass);
    }

    #[test]
    fn inodes_run_out_as_bytes_do_and_some_file_systems_have_none() {
        let judge = |inodes| judge_inodes(Path::new("/s"), Left { bytes: 0, inodes }).verdict;
        assert_eq!(judge(Some(0)), Verdict::Fail);
        assert_eq!(judge(Some(100)), Verdict::Warn);
        assert_eq!(judge(Some(100_000)), Verdict::Pass);
        assert_eq!(judge(None), Verdict::Skip);
    }

    #[test]
    fn lost_frames_are_a_warning_and_a_spool_that_takes_none_is_a_failure() {
        let judge = |spool: Value| judge_frames(&json!({ "spool": spool })).verdict;
        assert_eq!(judge(json!({ "problem": "journal: full", "frames_lost": 0 })), Verdict::Fail);
        assert_eq!(judge(json!({ "problem": null, "frames_lost": 2 })), Verdict::Warn);
        assert_eq!(judge(json!({ "problem": null, "frames_lost": 0 })), Verdict::Pass);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([size(12), size(1536), size(5 << 30)], ["12 B", "1.5 KiB", "5.0 GiB"]);
    }
}
