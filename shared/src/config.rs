//! Configuration text to a typed value, refused early with the line at fault.
//!
//! Takes TOML; gives the value, or an error with path, line, column and, for an unknown key, the
//! nearest known one. Pure: whoever calls reads the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Line and column, from 1, when the fault has a place.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub problem: String,
    /// How to mend it, when that is known.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.problem)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// A file that cannot be read; `default` is where it is looked for without an argument.
    #[must_use]
    pub fn unreadable(path: &Path, error: &std::io::Error, default: &str) -> Self {
        let hint = format!("write one there or name another with --config; `{default}` is the default");
        Self::whole(path, format!("cannot be read: {error}"), Some(hint))
    }

    /// A fault of the file as a whole, or of a file it names.
    #[must_use]
    pub fn whole(path: &Path, problem: impl Into<String>, hint: Option<String>) -> Self {
        Self { path: path.to_owned(), place: None, problem: problem.into(), hint }
    }
}

/// Reads a configuration; every struct in it must deny unknown fields.
///
/// # Errors
/// When the text is not TOML, a key is unknown or missing, or a value is not acceptable.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map(|span| line_and_column(text, span.start));
        let problem = error.message().to_owned();
        let hint = suggestion(&problem);
        ConfigError { path: path.to_owned(), place, problem, hint }
    })
}

/// The line, from 1, at which each key of a TOML text is set, by its dotted path: `gpu.fast_interval`,
/// `worker[0].name`. Empty when the text is not TOML.
#[must_use]
pub fn places(text: &str) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        place_table("", table.get_ref(), text, &mut places);
    }
    places
}

fn place_table(prefix: &str, table: &DeTable<'_>, text: &str, places: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        places.insert(path.clone(), line_and_column(text, key.span().start).0);
        match value.get_ref() {
            DeValue::Table(inner) => place_table(&path, inner, text, places),
            DeValue::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        place_table(&format!("{path}[{at}]"), inner, text, places);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Line and column (in characters), from 1, of a byte offset.
#[must_use]
pub fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

/// The nearest of `known` to `word`, when it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

/// "unknown field `a`, expected one of `b`, `c`" to "did you mean `b`?"
fn suggestion(message: &str) -> Option<String> {
    let rest =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (word, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    nearest(word, known).map(|name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code)]
        interval: crate::quantity::Span,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code)]
        sample: Inner,
    }

    fn fail(text: &str) -> String {
        parse::<Outer>(Path::new("a.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_has_line_column_and_a_suggestion() {
        let error = fail("# 監視\n[sample]\nintervall = \"1s\"\n");
        assert!(error.starts_with("a.toml:3:1: unknown field `intervall`"), "{error}");
        assert!(error.ends_with("did you mean `interval`?"), "{error}");
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_at_its_place() {
        let error = fail("[sample]\ninterval = 3\n");
        assert!(error.starts_with("a.toml:2:12: ") && error.contains("`3s`"), "{error}");
    }

    #[test]
    fn a_key_is_found_at_the_line_that_sets_it() {
        let found = places("a = 1\n[b]\nc.d = 2\n[[e]]\nf = 3\n[[e]]\nf = 4\n");
        let line = |key: &str| found.get(key).copied();
        assert_eq!(
            (line("a"), line("b.c.d"), line("e[0].f"), line("e[1].f")),
            (Some(1), Some(3), Some(5), Some(7))
        );
        assert_eq!(places("not = = toml"), BTreeMap::new());
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        assert_eq!(line_and_column("あ = い", "あ = ".len()), (1, 5));
    }
}
