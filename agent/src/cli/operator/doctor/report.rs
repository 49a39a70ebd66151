//! What the checks found, as text, as documents and as an exit number. Pure; what comes from outside (a
//! name of a container, an error of the system) cannot leave its line.

use std::fmt::Display;

use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text, fill};
use serde_json::{Value, json};

use crate::cli::operator::common::Form;
use crate::cli::operator::paint::{Level, Tone};

/// Version of the document.
const DOCTOR_SCHEMA: u32 = 1;

/// What is to be thought of one thing, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It is as it should be.
    Pass,
    /// It could not be looked at, or there is none here.
    Skip,
    /// A person should look at it; nothing is broken yet.
    Warn,
    /// It is broken.
    Fail,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Pass, Self::Warn, Self::Fail, Self::Skip];

    /// The word in a document.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// Shape and word for people, marked; the words of a language are equally wide.
    fn shown(self, lang: Lang) -> String {
        let (level, text) = match self {
            Self::Pass => (Level::Ok, Text::DoctorPass),
            Self::Skip => (Level::Unknown, Text::DoctorSkip),
            Self::Warn => (Level::Warning, Text::DoctorWarn),
            Self::Fail => (Level::Critical, Text::DoctorFail),
        };
        level.say(text.in_lang(lang))
    }
}

/// A text with its values, in whatever language it will be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    text: Text,
    values: Vec<String>,
}

impl Said {
    /// The text in a language, on one line.
    pub(super) fn in_lang(&self, lang: Lang) -> String {
        let values: Vec<&dyn Display> = self.values.iter().map(|value| value as &dyn Display).collect();
        on_one_line(&fill(self.text.in_lang(lang), &values))
    }
}

fn on_one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What to think of it.
    pub(super) verdict: Verdict,
    /// What was seen.
    pub(super) seen: Said,
    /// What to type, when that is known.
    pub(super) mend: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, text: Text, values: &[&dyn Display], mend: Option<String>) -> Self {
        let values = values.iter().map(ToString::to_string).collect();
        Self { verdict, seen: Said { text, values }, mend }
    }

    /// Good.
    pub(super) fn pass(text: Text, values: &[&dyn Display]) -> Self {
        Self::new(Verdict::Pass, text, values, None)
    }

    /// Not looked at.
    pub(super) fn skip(text: Text, values: &[&dyn Display]) -> Self {
        Self::new(Verdict::Skip, text, values, None)
    }

    /// Worth a look.
    pub(super) fn warn(text: Text, values: &[&dyn Display], mend: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, text, values, Some(mend.into()))
    }

    /// Broken.
    pub(super) fn fail(text: Text, values: &[&dyn Display], mend: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, text, values, Some(mend.into()))
    }

    /// The same as a warning: something else still does the work.
    pub(super) fn milder(mut self) -> Self {
        self.verdict = self.verdict.min(Verdict::Warn);
        self
    }

    /// The same with what to type, for one that could not be looked at.
    pub(super) fn try_this(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// A word of a command line, quoted where a shell would make something else of it.
pub(super) fn word(text: impl Display) -> String {
    let text = text.to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+:,@%=".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A finding with its check.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The check.
    pub(super) id: &'static str,
    /// What it found.
    pub(super) finding: Finding,
    /// How long it took, in milliseconds.
    pub(super) took_ms: u64,
}

/// What the command ends with.
pub(super) fn exit(rows: &[Row]) -> Exit {
    match rows.iter().map(|row| row.finding.verdict).max() {
        Some(Verdict::Fail) => Exit::Critical,
        Some(Verdict::Warn) => Exit::Warning,
        _ => Exit::Ok,
    }
}

/// Everything in the form that was asked for, to its last line's end; text with marks of colour.
pub(super) fn render(rows: &[Row], form: Form, lang: Lang) -> String {
    match form {
        Form::Table | Form::Wide => text(rows, lang) + "\n",
        Form::Json => format!("{}\n", document(rows, lang)),
        Form::Ndjson => {
            let line = |row: &Row| {
                let mut value = one(row, lang);
                if let Value::Object(fields) = &mut value {
                    fields.insert("schema".to_owned(), json!(DOCTOR_SCHEMA));
                    fields.insert("kind".to_owned(), json!("doctor_check"));
                }
                format!("{value}\n")
            };
            rows.iter().map(line).collect()
        }
        Form::Csv => {
            let line = |row: &Row| {
                let Finding { verdict, seen, mend } = &row.finding;
                let cells = [row.id, verdict.word(), &seen.in_lang(lang), mend.as_deref().unwrap_or("")];
                cells.map(quoted).join(",") + "\r\n"
            };
            let head = "id,verdict,seen,mend\r\n".to_owned();
            std::iter::once(head).chain(rows.iter().map(line)).collect()
        }
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

fn text(rows: &[Row], lang: Lang) -> String {
    let widest = rows.iter().map(|row| row.id.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for row in rows {
        let seen = Tone::Plain.mark(&row.finding.seen.in_lang(lang));
        lines.push(format!("{} {:widest$}  {seen}", row.finding.verdict.shown(lang), row.id));
        if let Some(mend) = &row.finding.mend {
            lines.push(format!("    {} {}", Tone::Dim.mark("try:"), Tone::Plain.mark(mend)));
        }
    }
    let counts = Verdict::ALL.map(|verdict| format!("{} {}", verdict.shown(lang), count(rows, verdict)));
    lines.push(format!("{}: {}", Text::DoctorTitle.in_lang(lang), counts.join("  ")));
    lines.join("\n")
}

fn document(rows: &[Row], lang: Lang) -> Value {
    let counts: serde_json::Map<_, _> = Verdict::ALL
        .iter()
        .map(|verdict| (verdict.word().to_owned(), json!(count(rows, *verdict))))
        .collect();
    json!({
        "schema": DOCTOR_SCHEMA,
        "kind": "doctor",
        "version": env!("CARGO_PKG_VERSION"),
        "lang": lang.tag(),
        "counts": counts,
        "checks": rows.iter().map(|row| one(row, lang)).collect::<Vec<_>>(),
    })
}

fn one(row: &Row, lang: Lang) -> Value {
    json!({
        "id": row.id,
        "verdict": row.finding.verdict.word(),
        "seen": row.finding.seen.in_lang(lang),
        "mend": row.finding.mend,
        "took_ms": row.took_ms,
    })
}

fn count(rows: &[Row], verdict: Verdict) -> usize {
    rows.iter().filter(|row| row.finding.verdict == verdict).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::operator::paint::finish;
    use std::collections::BTreeSet;

    fn row(id: &'static str, finding: Finding) -> Row {
        Row { id, finding, took_ms: 1 }
    }

    fn rows() -> Vec<Row> {
        vec![
            row("a.good", Finding::pass(Text::DoctorConfigGood, &[&"/etc/x"])),
            row("b.bad", Finding::fail(Text::DoctorConfigBad, &[&"{1}\n\u{1b}[2J, \"x\""], "sudo fix")),
        ]
    }

    #[test]
    fn the_worst_finding_is_the_exit_and_what_was_skipped_is_no_fault() {
        let skip = row("s", Finding::skip(Text::DoctorNoStatus, &[]));
        let warn = row("w", Finding::warn(Text::DoctorNoStatus, &[], "x"));
        assert_eq!(exit(std::slice::from_ref(&skip)), Exit::Ok);
        assert_eq!(exit(&[skip, warn]), Exit::Warning);
        assert_eq!(exit(&rows()), Exit::Critical);
    }

    #[test]
    fn what_comes_from_outside_stays_on_its_line_and_is_no_template() {
        let text = finish(&render(&rows(), Form::Table, Lang::En), false);
        assert!(text.contains("{1}  [2J, \"x\""), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.lines().any(|line| line == "    try: sudo fix"), "{text}");
        let csv = render(&rows(), Form::Csv, Lang::En);
        assert!(csv.lines().nth(2).is_some_and(|line| line.contains("\"\"x\"\"")), "{csv}");
    }

    #[test]
    fn a_word_that_a_shell_would_act_on_is_quoted() {
        assert_eq!(word("/etc/diarwatch/ノード.pem"), "/etc/diarwatch/ノード.pem");
        assert_eq!(word("a b; rm"), "'a b; rm'");
        assert_eq!(word("it's"), r"'it'\''s'");
        assert_eq!(word(""), "''");
    }

    #[test]
    fn a_text_has_the_same_values_in_both_languages() {
        for text in Text::ALL {
            let places = |lang| -> BTreeSet<&str> {
                text.in_lang(lang).split('{').skip(1).filter_map(|part| part.split('}').next()).collect()
            };
            assert_eq!(places(Lang::Ja), places(Lang::En), "{text:?}");
        }
    }
}
