//! The files of this host below a root that a test may move, and who may do what with them.
//!
//! Takes paths; gives bounded texts, names and permissions. What the mode bits say is judged by a pure
//! function, for a user who need not be the one who asks; access lists and the like are not seen.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of a file that are looked at.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Permission bits of one class.
pub(super) const READ: u32 = 4;
/// To change what is in a directory one must be let through it, too.
pub(super) const CHANGE: u32 = 3;
const THROUGH: u32 = 1;

/// Somebody who wants to do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// The name, or the number where there is none.
    pub(super) name: String,
    /// User.
    pub(super) uid: u32,
    /// Groups.
    pub(super) gids: BTreeSet<u32>,
}

/// What a file says of who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) path: PathBuf,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The last twelve bits.
    pub(super) mode: u32,
}

impl Guard {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        Self { path: path.to_owned(), uid, gid, mode }
    }

    /// Whether the bits let somebody; root is let by all.
    pub(super) fn lets(&self, who: &Who, want: u32) -> bool {
        let class = if who.uid == self.uid {
            6
        } else if who.gids.contains(&self.gid) {
            3
        } else {
            0
        };
        who.uid == 0 || (self.mode >> class) & want == want
    }
}

/// This host, as seen from here.
#[derive(Clone, Debug)]
pub(super) struct Host {
    root: PathBuf,
    /// Who asks.
    pub(super) me: Who,
}

impl Host {
    /// The host below `root`, `/` but in tests.
    pub(super) fn below(root: &Path) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let mut gids: BTreeSet<u32> = rustix::process::getgroups()
            .unwrap_or_default()
            .into_iter()
            .map(rustix::fs::Gid::as_raw)
            .collect();
        gids.insert(rustix::process::getegid().as_raw());
        let mut host = Self { root: root.to_owned(), me: Who { name: String::new(), uid, gids } };
        host.me.name = host.user(uid);
        host
    }

    /// Where an absolute path lies.
    pub(super) fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The beginning of a text file.
    pub(super) fn read(&self, absolute: &str) -> io::Result<String> {
        read(&self.path(absolute))
    }

    /// Names of a directory's entries; none when it cannot be read.
    pub(super) fn list(&self, absolute: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(absolute)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Name of a user, or the number.
    pub(super) fn user(&self, uid: u32) -> String {
        let passwd = self.read("/etc/passwd").unwrap_or_default();
        named(&passwd, uid).map_or_else(|| uid.to_string(), str::to_owned)
    }

    /// Name of a group, or the number.
    pub(super) fn group(&self, gid: u32) -> String {
        let group = self.read("/etc/group").unwrap_or_default();
        named(&group, gid).map_or_else(|| gid.to_string(), str::to_owned)
    }

    /// A user by name, with the groups of `/etc/group`.
    pub(super) fn who(&self, name: &str) -> Option<Who> {
        let passwd = self.read("/etc/passwd").ok()?;
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.into_iter().find(|fields| fields.first() == Some(&name))?;
        let number = |at: usize| found.get(at).and_then(|field| field.parse::<u32>().ok());
        let mut gids = BTreeSet::from([number(3)?]);
        for line in self.read("/etc/group").unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let member = fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
            let gid = fields.get(2).and_then(|field| field.parse::<u32>().ok());
            gids.extend(gid.filter(|_| member));
        }
        Some(Who { name: name.to_owned(), uid: number(2)?, gids })
    }

    /// Owner, group and mode as `ls -l` would have them.
    pub(super) fn shown(&self, guard: &Guard) -> String {
        format!("{}:{} {:04o}", self.user(guard.uid), self.group(guard.gid), guard.mode)
    }
}

/// The beginning of a text file.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a path says of itself.
pub(super) fn guard(path: &Path) -> io::Result<Guard> {
    std::fs::metadata(path).map(|metadata| Guard::of(path, &metadata))
}

/// The first thing on the way that does not let somebody: a directory above, or the path itself.
pub(super) fn obstacle(path: &Path, who: &Who, want: u32) -> io::Result<Option<Guard>> {
    let whole = std::path::absolute(path)?;
    // The way to a link, and the way to what it stands for.
    for end in [&whole, &std::fs::canonicalize(&whole)?] {
        let mut above: Vec<&Path> = end.ancestors().skip(1).collect();
        above.reverse();
        for directory in above {
            let guard = guard(directory)?;
            if !guard.lets(who, THROUGH) {
                return Ok(Some(guard));
            }
        }
    }
    let guard = guard(&whole)?;
    Ok((!guard.lets(who, want)).then_some(guard))
}

/// The nearest of a path and the directories above it that is there.
pub(super) fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|path| path.exists()).map(Path::to_owned)
}

/// The name of a number in `/etc/passwd` or `/etc/group`.
fn named(table: &str, number: u32) -> Option<&str> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn who(uid: u32, gid: u32) -> Who {
        Who { name: "x".into(), uid, gids: BTreeSet::from([gid]) }
    }

    fn bits(mode: u32) -> Guard {
        Guard { path: "/x".into(), uid: 10, gid: 20, mode }
    }

    #[test]
    fn the_first_class_that_fits_decides_even_when_a_later_one_would_let() {
        assert!(bits(0o600).lets(&who(10, 1), READ));
        assert!(!bits(0o600).lets(&who(11, 20), READ));
        assert!(bits(0o640).lets(&who(11, 20), READ));
        assert!(!bits(0o044).lets(&who(10, 20), READ), "the owner is no `other`");
        assert!(bits(0o000).lets(&who(0, 0), READ));
        assert!(!bits(0o755).lets(&who(11, 1), CHANGE));
    }

    #[test]
    fn numbers_get_their_names_and_stay_numbers_without_one() {
        let passwd = "root:x:0:0:r:/root:/bin/sh\nbroken\ndiarwatch:x:991:990::/:/bin/false\n";
        assert_eq!(named(passwd, 991), Some("diarwatch"));
        assert_eq!(named(passwd, 5), None);
    }

    proptest! {
        #[test]
        fn more_bits_never_take_a_right_away(mode in 0_u32..0o1000, more in 0_u32..0o1000, uid in 9_u32..12, gid in 19_u32..22) {
            let who = who(uid, gid);
            prop_assert!(!bits(mode).lets(&who, READ) || bits(mode | more).lets(&who, READ));
        }
    }
}
