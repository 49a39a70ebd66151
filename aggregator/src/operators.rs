//! Who may order something: named tokens, of which the file keeps hashes only. The only file that knows
//! what a token looks like.
//!
//! Takes a file with lines `name sha256`, read anew at each order, so that a token that is removed is
//! refused at once; gives the operator's name. A file that others than its owner may write is not trusted.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use diarwatch_shared::identity::provider;
use diarwatch_shared::log::sync_parent;
use diarwatch_shared::wire::intent::{hex, unhex};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

/// Operators in a file.
pub const OPERATORS_MAX: usize = 64;
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Characters of an operator's name.
pub const NAME_CHARS_MAX: usize = 63;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// What a token begins with, so that one that leaked is recognised.
const TOKEN_PREFIX: &str = "diarwatch_";
/// Bytes of a token that is looked at.
const TOKEN_BYTES_MAX: usize = 256;

/// Why operators cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may write it: whoever does gives himself a token.
    #[error("{0} may be written by others than its owner; run `chmod go-w {0}`")]
    Writable(PathBuf),
    /// It is no file of operators.
    #[error(
        "{path}:{line}: {why}; a line is `name sha256`, as `diarwatch-aggregator operator add NAME` writes it"
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// There is one of this name.
    #[error("operator `{0}` has a token already; remove it first if it is to get a new one")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no operator `{name}` in {path}")]
    Unknown {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The name cannot be one.
    #[error("`{0}` cannot be the name of an operator: up to 63 of a-z, A-Z, 0-9, `.`, `_`, `-` and `@`")]
    Name(String),
    /// There are as many as there may be.
    #[error("there are {OPERATORS_MAX} operators already")]
    Full,
    /// No random numbers can be had.
    #[error("the system gives no random numbers")]
    Random,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Operator {
    name: String,
    hash: [u8; SHA256_OUTPUT_LEN],
}

/// Who may order something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operators(Vec<Operator>);

impl Operators {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there, others may write it, or a line is wrong.
    pub fn read(path: &Path) -> Result<Self, OperatorError> {
        let fail = |source| OperatorError::Io { path: path.to_owned(), source };
        let about = std::fs::metadata(path).map_err(fail)?;
        if about.permissions().mode() & 0o022 != 0 {
            return Err(OperatorError::Writable(path.to_owned()));
        }
        if about.len() > FILE_BYTES_MAX {
            return Err(fail(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 64 KiB")));
        }
        Self::parse(path, &std::fs::read_to_string(path).map_err(fail)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, OperatorError> {
        let mut operators = Self::default();
        for (line, words) in (1..).zip(text.lines()) {
            let words: Vec<&str> = words.split_whitespace().collect();
            let wrong = |why: &str| OperatorError::Form { path: path.to_owned(), line, why: why.to_owned() };
            let (name, hash) = match words[..] {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                [name, hash] => (name, hash),
                _ => return Err(wrong("it does not have two words")),
            };
            let hash = unhex(hash).and_then(|bytes| bytes.try_into().ok());
            let hash = hash.ok_or_else(|| wrong("the second word is no SHA-256 in base 16"))?;
            operators.put(name, hash).map_err(|error| wrong(&error.to_string()))?;
        }
        Ok(operators)
    }

    fn put(&mut self, name: &str, hash: [u8; SHA256_OUTPUT_LEN]) -> Result<(), OperatorError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(allowed) {
            return Err(OperatorError::Name(name.chars().take(80).collect()));
        }
        if self.0.iter().any(|known| known.name == name) {
            return Err(OperatorError::Exists(name.to_owned()));
        }
        if self.0.len() >= OPERATORS_MAX {
            return Err(OperatorError::Full);
        }
        self.0.push(Operator { name: name.to_owned(), hash });
        Ok(())
    }

    /// Whose token this is. All of them are compared, each as a whole, whatever the answer.
    #[must_use]
    pub fn who(&self, token: &str) -> Option<&str> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let hash = hash_of(token);
        self.0.iter().fold(None, |found, operator| {
            let same = same(&operator.hash, &hash);
            if same { Some(operator.name.as_str()) } else { found }
        })
    }

    /// Their names, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|operator| operator.name.as_str())
    }

    fn text(&self) -> String {
        self.0.iter().map(|operator| format!("{} {}\n", operator.name, hex(&operator.hash))).collect()
    }
}

/// Gives an operator a token, which nobody can read again. `like` is a file or folder of whom the aggregator
/// runs as: a new file is made his when root makes it.
///
/// # Errors
/// When the operator has one already, or the file cannot be read or written.
pub fn add(path: &Path, name: &str, like: &Path) -> Result<String, OperatorError> {
    let mut operators = read_or_none(path)?;
    let mut bytes = [0; TOKEN_BYTES];
    provider().secure_random.fill(&mut bytes).map_err(|_| OperatorError::Random)?;
    let token = format!("{TOKEN_PREFIX}{}", hex(&bytes));
    operators.put(name, hash_of(&token))?;
    write(path, &operators.text(), like)?;
    Ok(token)
}

/// Takes an operator's token away.
///
/// # Errors
/// When there is no such operator, or the file cannot be read or written.
pub fn remove(path: &Path, name: &str) -> Result<(), OperatorError> {
    let mut operators = Operators::read(path)?;
    let before = operators.0.len();
    operators.0.retain(|operator| operator.name != name);
    if operators.0.len() == before {
        return Err(OperatorError::Unknown { name: name.to_owned(), path: path.to_owned() });
    }
    write(path, &operators.text(), path)
}

fn read_or_none(path: &Path) -> Result<Operators, OperatorError> {
    match Operators::read(path) {
        Err(OperatorError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Operators::default())
        }
        read => read,
    }
}

/// Replaces the file as a whole; nobody but its owner may ever have read it.
fn write(path: &Path, text: &str, like: &Path) -> Result<(), OperatorError> {
    let fail = |source| OperatorError::Io { path: path.to_owned(), source };
    let owner = std::fs::metadata(path).or_else(|_| std::fs::metadata(like)).ok();
    let beside = path.with_extension("new");
    drop(std::fs::remove_file(&beside));
    let replace = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let own = file.metadata()?.uid();
        if let Some(owner) = owner.filter(|owner| owner.uid() != own) {
            chown(&beside, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        sync_parent(path)
    };
    replace().map_err(fail)
}

fn hash_of(token: &str) -> [u8; SHA256_OUTPUT_LEN] {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap_or_default()
}

/// Compares in a time that does not depend on where they differ.
fn same(one: &[u8; SHA256_OUTPUT_LEN], other: &[u8; SHA256_OUTPUT_LEN]) -> bool {
    let differ =
        one.iter().zip(other).fold(0, |differ, (one, other)| std::hint::black_box(differ | (one ^ other)));
    differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_token_is_its_operators_until_it_is_removed_and_is_not_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operators");
        let tokens = ["alice", "bob@example.com"].map(|name| add(&path, name, dir.path()).unwrap());
        assert_ne!(tokens[0], tokens[1]);
        let operators = Operators::read(&path).unwrap();
        assert_eq!(operators.names().collect::<Vec<_>>(), ["alice", "bob@example.com"]);
        assert_eq!(operators.who(&tokens[0]), Some("alice"));
        assert_eq!(operators.who(&tokens[1]), Some("bob@example.com"));
        for wrong in ["", "diarwatch_", &tokens[0][1..], &tokens[0].to_uppercase(), &"x".repeat(10_000)] {
            assert_eq!(operators.who(wrong), None, "{wrong}");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&tokens[0][10..]), "{text}");
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(add(&path, "alice", dir.path()), Err(OperatorError::Exists(_))));
        remove(&path, "alice").unwrap();
        assert_eq!(Operators::read(&path).unwrap().who(&tokens[0]), None);
        assert_eq!(Operators::read(&path).unwrap().who(&tokens[1]), Some("bob@example.com"));
        assert!(matches!(remove(&path, "alice"), Err(OperatorError::Unknown { .. })));
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_file_that_others_may_write_gives_nobody_a_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operators");
        add(&path, "alice", dir.path()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
        let said = Operators::read(&path).unwrap_err().to_string();
        assert!(said.contains("chmod go-w"), "{said}");
        assert!(add(&path, "mallory", dir.path()).is_err());
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let path = Path::new("operators");
        let good = format!("# who\n\nalice {}\n", "0".repeat(64));
        assert_eq!(Operators::parse(path, &good).unwrap().names().count(), 1);
        for bad in ["bob", "bob 00", "bob xyz zyx", "b/b 00", &format!("alice {}", "1".repeat(64))] {
            let said = Operators::parse(path, &format!("{good}{bad}\n")).unwrap_err().to_string();
            assert!(said.starts_with("operators:4: "), "{said}");
        }
        let many: String = (0..65).map(|number| format!("o{number} {}\n", "0".repeat(64))).collect();
        assert!(Operators::parse(path, &many).is_err());
        for bad in ["", "a b", "a\nb", "é", "a/b", &"x".repeat(64)] {
            assert!(matches!(Operators::default().put(bad, [0; 32]), Err(OperatorError::Name(_))), "{bad}");
        }
    }
}
