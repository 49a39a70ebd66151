//! What was checked. Takes each check by name with what was expected and seen; gives a line for each
//! and the figures of the last line. A check that fails ends nothing: all of them are run.

use std::fmt::{Debug, Display};
use std::sync::Mutex;

/// The checks of a run.
#[derive(Default)]
pub(crate) struct Report {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    checks: usize,
    failed: Vec<String>,
    figures: Figures,
}

/// What the last line says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) panels: usize,
    pub(crate) console_errors: usize,
    pub(crate) external_requests: usize,
    pub(crate) gzip_bytes: usize,
    pub(crate) nojs_bytes: usize,
}

/// Characters of what was seen that are shown.
const SEEN_CHARS_MAX: usize = 600;

impl Report {
    /// One check.
    pub(crate) fn check(&self, name: impl Display, good: bool, expected: impl Display, seen: impl Display) {
        let mut inner = self.inner.lock().unwrap();
        inner.checks += 1;
        if good {
            println!("  ok   {name}");
            return;
        }
        let seen: String = seen.to_string().chars().take(SEEN_CHARS_MAX).collect();
        let line = format!("{name}: expected {expected}, seen {seen}");
        println!("  FAIL {line}");
        inner.failed.push(line);
    }

    /// Two things that have to be the same.
    pub(crate) fn same<T: PartialEq + Debug>(&self, name: impl Display, seen: &T, expected: &T) {
        self.check(name, seen == expected, format!("{expected:?}"), format!("{seen:?}"));
    }

    /// A list that has to be empty.
    pub(crate) fn none<T: Debug>(&self, name: impl Display, seen: &[T]) {
        self.check(name, seen.is_empty(), "none", format!("{}: {seen:?}", seen.len()));
    }

    /// Something that had to happen.
    pub(crate) fn done(&self, name: impl Display, happened: &Result<(), String>) {
        let seen = happened.as_ref().err().cloned().unwrap_or_default();
        self.check(name, happened.is_ok(), "it to happen", seen);
    }

    /// Changes the figures.
    pub(crate) fn figures(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.inner.lock().unwrap().figures);
    }

    /// Says what failed and, last, the figures; gives whether all is good.
    pub(crate) fn end(&self) -> bool {
        let inner = self.inner.lock().unwrap();
        if !inner.failed.is_empty() {
            println!("{} of {} checks failed:", inner.failed.len(), inner.checks);
            inner.failed.iter().for_each(|line| println!("  {line}"));
        }
        let Figures { panels, console_errors, external_requests, gzip_bytes, nojs_bytes } = inner.figures;
        let (checks, gzip, nojs) = (inner.checks, kib(gzip_bytes), kib(nojs_bytes));
        println!(
            "page panels={panels} checks={checks} console_errors={console_errors} \
             external_requests={external_requests} gzip_kib={gzip:.1} nojs_kib={nojs:.1}"
        );
        inner.failed.is_empty()
    }
}

/// Bytes in KiB.
#[expect(clippy::cast_precision_loss, reason = "sizes of a page")]
pub(crate) fn kib(bytes: usize) -> f64 {
    bytes as f64 / 1_024.0
}
