//! What a command says, in the form that was asked for: once, or again and again for `--watch`.
//!
//! Takes a look that gives an [`Answer`]; writes it. A terminal is drawn anew, anything else gets one
//! answer after the other. A reader that is gone ends it quietly.

use std::time::Duration;

use diarwatch_shared::exit::Exit;
use serde_json::Value;

use super::common::{Common, Form};
use super::output::{Table, put};
use crate::cli::ask::Trouble;

/// Clears the terminal and goes to its begin.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// What a command says.
pub(super) struct Answer {
    /// `-o json`.
    pub(super) document: Value,
    /// What people read.
    pub(super) screen: Screen,
    /// The rows of `-o csv` and `-o ndjson`; without them ndjson is the document.
    pub(super) rows: Option<Table>,
    /// What the command ends with.
    pub(super) exit: Exit,
}

/// What people read.
pub(super) enum Screen {
    /// The rows as columns; this text when there is none.
    Columns(&'static str),
    /// The one row upright.
    Sheet,
    /// A text with marks of colour.
    Text(String),
}

impl Answer {
    /// A list.
    pub(super) fn list(document: Value, rows: Table, empty: &'static str) -> Self {
        Self { document, screen: Screen::Columns(empty), rows: Some(rows), exit: Exit::Ok }
    }

    /// One thing; the document is that of the row.
    pub(super) fn one(rows: Table) -> Self {
        let document = rows.to_documents().into_iter().next().unwrap_or_default();
        Self { document, screen: Screen::Sheet, rows: Some(rows), exit: Exit::Ok }
    }

    fn render(&self, common: &Common, head: bool) -> String {
        let line = |document: &Value| format!("{document}\n");
        match (common.form(), &self.rows) {
            (Form::Csv, Some(rows)) => rows.to_csv(head),
            (Form::Ndjson, Some(rows)) => rows.to_documents().iter().map(line).collect(),
            (Form::Json | Form::Ndjson | Form::Csv, _) => line(&self.document),
            (form, rows) => {
                let text = self.people(rows.as_ref(), form == Form::Wide, common.width());
                common.finish(&text) + "\n"
            }
        }
    }

    fn people(&self, rows: Option<&Table>, wide: bool, width: Option<u16>) -> String {
        match (&self.screen, rows) {
            (Screen::Columns(empty), Some(rows)) if rows.is_empty() => (*empty).to_owned(),
            (Screen::Columns(_), Some(rows)) => rows.to_text(wide, width),
            (Screen::Sheet, Some(rows)) => rows.to_sheet(width),
            (Screen::Text(text), _) => text.clone(),
            _ => String::new(),
        }
    }
}

/// Looks and shows; again and again with `--watch`.
pub(super) fn show(common: &Common, mut look: impl FnMut() -> Result<Answer, Trouble>) -> Exit {
    let mut first = true;
    loop {
        let exit = match look() {
            Ok(answer) => {
                let redraw = common.watch.is_some() && common.terminal() && people(common.form());
                let blank = if first || redraw || !people(common.form()) { "" } else { "\n" };
                let clear = if redraw { CLEAR } else { blank };
                if !put(&format!("{clear}{}", answer.render(common, first))) {
                    return Exit::Ok;
                }
                answer.exit
            }
            Err(trouble) if first => return trouble.tell(),
            // An agent that starts again does not end the watch.
            Err(trouble) => trouble.tell(),
        };
        first = false;
        let Some(seconds) = common.watch else { return exit };
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
}

fn people(form: Form) -> bool {
    matches!(form, Form::Table | Form::Wide)
}
