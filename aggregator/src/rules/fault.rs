//! What is wrong with a rule file, and where. Taken by the one who wrote the file, as
//! `path:line:column: problem; hint` or as JSON; nothing waits for it.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One fault of a rule file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct RuleFault {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
    /// How to mend it, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.problem)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// A fault inside one text (an expression, a template): a byte offset instead of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFault {
    /// Where, in bytes from the start of the text.
    pub offset: usize,
    /// What is wrong.
    pub problem: String,
    /// How to mend it, when that is known.
    pub hint: Option<String>,
}

impl TextFault {
    /// A fault without a hint.
    pub(super) fn new(offset: usize, problem: impl Into<String>) -> Self {
        Self { offset, problem: problem.into(), hint: None }
    }

    /// The same fault with a way out.
    pub(super) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}
