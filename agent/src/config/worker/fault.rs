//! What is wrong with a value of the configuration: takes a key, a problem and how to mend it; gives
//! them together, so that all faults are told at once.

use std::fmt;

use diarwatch_shared::quantity::Span;

/// What is wrong with a value, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, from the worker's or the queue's table on: `readiness.url`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub hint: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.problem, self.hint)
    }
}

/// Faults as they are found.
#[derive(Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    pub(crate) fn add(
        &mut self,
        field: impl Into<String>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Fault { field: field.into(), problem: problem.into(), hint: hint.into() });
    }

    pub(crate) fn at_least(&mut self, field: &str, span: Span, millis: u64) {
        let floor = Span::millis(millis);
        if span < floor {
            self.add(field, format!("{span} is too short"), format!("write at least {floor}"));
        }
    }
}
