//! The root of the nodes. Takes a release and this machine's mirror; gives a folder with the smallest
//! Debian that boots, built once and kept under `target/nodes` by the name of what is in it.
//!
//! Why a root of its own and not an overlay of this machine's: units, init scripts and half-installed
//! packages of the machine would boot, too, and packages that are installed while nodes run would change
//! under them. `mmdebstrap` makes it in 20 s, once; after that it is there. It is of the machine's own
//! release, so that the C library fits what was built here.

use std::fs;
use std::path::{Path, PathBuf};

/// What is in a root.
pub(crate) struct Release {
    /// Debian's or Ubuntu's name of it.
    suite: String,
    /// Where its packages come from; nothing leaves that to mmdebstrap.
    mirror: Option<String>,
    packages: &'static [&'static str],
}

/// systemd with what it asks others for, users, and what tests call.
const PACKAGES: [&str; 9] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "polkitd",
    "passwd",
    "libnss-systemd",
    "python3-minimal",
    "procps",
    "iproute2",
];
/// What nobody reads there: the root is a quarter smaller without.
const LEFT_OUT: [&str; 4] = ["doc", "man", "locale", "zoneinfo"];

impl Release {
    /// This machine's own. Another release (an older systemd) is another value of this type, with its
    /// own mirror and packages: the checks take what they get.
    pub(crate) fn machines_own() -> Result<Self, String> {
        let text = fs::read_to_string("/etc/os-release").map_err(|error| error.to_string())?;
        let named = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let suite = named.ok_or("/etc/os-release names no release")?.trim_matches('"').to_owned();
        Ok(Self { mirror: machines_mirror(&suite), suite, packages: &PACKAGES })
    }

    /// Where it is kept; another list of packages is another folder.
    pub(crate) fn folder(&self, target: &Path) -> PathBuf {
        let words = [&[self.suite.as_str()], self.packages].concat().join(" ");
        // FNV-1a: only a name, and the same in each build.
        let key = words.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        target.join(format!("nodes/{}-{key:016x}", self.suite))
    }

    /// The command that makes it in a folder.
    pub(crate) fn make(&self, folder: &Path) -> Vec<String> {
        let mut words = vec!["mmdebstrap".to_owned(), "--quiet".into(), "--variant=essential".into()];
        words.push(format!("--include={}", self.packages.join(",")));
        words.extend(LEFT_OUT.map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")));
        words.extend([self.suite.clone(), folder.display().to_string()]);
        words.extend(self.mirror.clone());
        words
    }
}

/// Cargo's target folder: this program lies in its `debug/deps` or `release/deps`.
pub(crate) fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(3).map(PathBuf::from).unwrap_or_default()
}

/// The first mirror of the release that this machine's apt knows, in either of its two formats.
fn machines_mirror(suite: &str) -> Option<String> {
    let lists = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = lists.map(|entry| entry.path()).collect();
    paths.sort();
    paths.push("/etc/apt/sources.list".into());
    // apt reads no file with another ending.
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "list" || kind == "sources"));
    let texts = paths.iter().filter_map(|path| Some((path, fs::read_to_string(path).ok()?)));
    let mut found = texts.filter_map(|(path, text)| {
        let apart = if path.extension().is_some_and(|kind| kind == "list") { "\n" } else { "\n\n" };
        text.split(apart).find_map(|source| address(source, suite))
    });
    found.next()
}

/// The address in a source of that release; a comment is none.
fn address(source: &str, suite: &str) -> Option<String> {
    let lines = source.lines().filter(|line| !line.starts_with('#'));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let address = words.iter().find(|word| word.starts_with("http://") || word.starts_with("https://"))?;
    words.contains(&suite).then(|| (*address).to_owned())
}
