//! One table in every form: columns for a terminal, CSV (RFC 4180), one JSON document a row, one
//! document. Takes rows of cells, each a value for machines and a text for people; gives bytes on stdout.
//! A reader that is gone (`| head`) ends the command quietly.

use std::io::{ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

use comfy_table::{Cell as Field, CellAlignment, ColumnConstraint, ContentArrangement, presets};
use diarwatch_shared::daemon::harmless;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Map, Value, json};

use super::paint::{Level, Tone};
use crate::cli::ask::Trouble;

/// Version of the documents that are made here.
const SCHEMA: u16 = 1;
/// Between two columns.
const GAP: u16 = 2;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    key: &'static str,
    title: Text,
    shown: Shown,
    right: bool,
    rest: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Always,
    Wide,
    /// In forms for machines alone.
    Never,
}

impl Column {
    /// A column of words.
    pub(super) const fn new(key: &'static str, title: Text) -> Self {
        Self { key, title, shown: Shown::Always, right: false, rest: false }
    }

    /// A column of numbers.
    pub(super) const fn number(key: &'static str, title: Text) -> Self {
        Self { right: true, ..Self::new(key, title) }
    }

    /// A value that people read elsewhere in the row.
    pub(super) const fn machine(key: &'static str) -> Self {
        Self { shown: Shown::Never, ..Self::new(key, Text::Value) }
    }

    /// Shown with `-o wide`.
    pub(super) const fn wide(self) -> Self {
        Self { shown: Shown::Wide, ..self }
    }

    /// Takes the room that is left, on as many lines as it needs.
    pub(super) const fn rest(self) -> Self {
        Self { rest: true, ..self }
    }
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    value: Value,
    text: String,
    reason: Option<String>,
    /// Why values inside of it are missing, by their pointers from here.
    inside: Vec<(String, String)>,
}

impl Cell {
    /// A value and its text for people.
    pub(super) fn new(value: impl Into<Value>, text: impl AsRef<str>) -> Self {
        Self { value: value.into(), text: Tone::Plain.mark(text.as_ref()), ..Self::default() }
    }

    /// A text that is its own value.
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::new(text.as_ref(), text.as_ref())
    }

    /// What there is none of.
    pub(super) fn none() -> Self {
        Self { text: Tone::Dim.mark("-"), ..Self::default() }
    }

    /// What could not be had, and why.
    pub(super) fn missing(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::none() }
    }

    /// Values inside of it could not be had: each pointer from here, and why.
    pub(super) fn inside(self, inside: Vec<(String, String)>) -> Self {
        Self { inside, ..self }
    }

    /// A state: shape, word and colour.
    pub(super) fn state(value: impl Into<Value>, level: Level, word: &str) -> Self {
        Self { value: value.into(), text: level.say(word), ..Self::default() }
    }

    #[cfg(test)]
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// Rows of one kind.
#[derive(Clone, Debug)]
pub(super) struct Table {
    kind: &'static str,
    lang: Lang,
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table; `kind` is that of a row's document.
    pub(super) fn new(kind: &'static str, lang: Lang, columns: &'static [Column]) -> Self {
        Self { kind, lang, columns, rows: Vec::new() }
    }

    /// Adds a row: a cell for each column, in order.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Columns for people, with marks of colour; at most so wide where that is known.
    pub(super) fn to_text(&self, wide: bool, width: Option<u16>) -> String {
        let shown = |column: &Column| match column.shown {
            Shown::Always => true,
            Shown::Wide => wide,
            Shown::Never => false,
        };
        let columns: Vec<(usize, &Column)> =
            self.columns.iter().enumerate().filter(|(_, column)| shown(column)).collect();
        let head = columns.iter().map(|(_, column)| column.title.in_lang(self.lang).to_uppercase());
        let mut lines = vec![head.map(|title| Tone::Dim.mark(&title)).collect::<Vec<_>>()];
        let text =
            |row: &Vec<Cell>, at: usize| row.get(at).map_or_else(String::new, |cell| cell.text.clone());
        lines.extend(self.rows.iter().map(|row| columns.iter().map(|(at, _)| text(row, *at)).collect()));
        let styles: Vec<Style> = columns
            .iter()
            .map(|(_, column)| Style { right: column.right, rest: column.rest, gap: GAP })
            .collect();
        lay_out(lines, &styles, width)
    }

    /// The row upright: a line for each column.
    pub(super) fn to_sheet(&self, width: Option<u16>) -> String {
        let mut lines = Vec::new();
        for row in &self.rows {
            for (column, cell) in
                self.columns.iter().zip(row).filter(|(column, _)| column.shown != Shown::Never)
            {
                let text = match &cell.reason {
                    Some(reason) => {
                        Tone::Dim.mark(&format!("{} ({reason})", Text::NoData.in_lang(self.lang)))
                    }
                    None => cell.text.clone(),
                };
                lines.push(vec![Tone::Dim.mark(column.title.in_lang(self.lang)), text]);
            }
        }
        lay_out(lines, &[Style::default(), Style { rest: true, ..Style::default() }], width)
    }

    /// RFC 4180: a head line, CRLF, quotes where they are needed; the last column says why values are not
    /// there, as `key=reason` words.
    pub(super) fn to_csv(&self, head: bool) -> String {
        let mut out = String::new();
        if head {
            let keys = self.columns.iter().map(|column| column.key.to_owned()).chain(["reasons".to_owned()]);
            push_record(&mut out, keys);
        }
        for row in &self.rows {
            let reasons: Vec<String> = self
                .columns
                .iter()
                .zip(row)
                .filter_map(|(column, cell)| Some(format!("{}={}", column.key, cell.reason.as_ref()?)))
                .collect();
            push_record(&mut out, row.iter().map(|cell| plain(&cell.value)).chain([reasons.join(";")]));
        }
        out
    }

    /// A document for each row.
    pub(super) fn to_documents(&self) -> Vec<Value> {
        let document = |row: &Vec<Cell>| {
            let mut document = Map::new();
            document.insert("schema".into(), SCHEMA.into());
            document.insert("kind".into(), self.kind.into());
            let mut reasons = Map::new();
            document.append(&mut self.row(row, "", &mut reasons));
            document.insert("reasons".into(), Value::Object(reasons));
            Value::Object(document)
        };
        self.rows.iter().map(document).collect()
    }

    /// One document with `head` and all rows under `key`.
    pub(super) fn to_document(&self, kind: &str, head: &[(&str, Value)], key: &str) -> Value {
        let mut reasons = Map::new();
        let rows: Vec<Value> = self
            .rows
            .iter()
            .enumerate()
            .map(|(at, row)| Value::Object(self.row(row, &format!("/{key}/{at}"), &mut reasons)))
            .collect();
        let mut document = json!({ "schema": SCHEMA, "kind": kind });
        if let Value::Object(document) = &mut document {
            document.extend(head.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            document.insert(key.to_owned(), Value::Array(rows));
            document.insert("reasons".into(), Value::Object(reasons));
        }
        document
    }

    fn row(&self, row: &[Cell], pointer: &str, reasons: &mut Map<String, Value>) -> Map<String, Value> {
        let mut table = Map::new();
        for (column, cell) in self.columns.iter().zip(row) {
            if let Some(reason) = &cell.reason {
                reasons.insert(format!("{pointer}/{}", column.key), reason.clone().into());
            }
            for (inside, reason) in &cell.inside {
                reasons.insert(format!("{pointer}/{}{inside}", column.key), reason.clone().into());
            }
            table.insert(column.key.to_owned(), cell.value.clone());
        }
        table
    }
}

#[derive(Clone, Copy, Debug)]
struct Style {
    right: bool,
    rest: bool,
    gap: u16,
}

impl Default for Style {
    fn default() -> Self {
        Self { right: false, rest: false, gap: GAP }
    }
}

/// A text behind a mark, on as many lines as it needs, none of them under the mark.
pub(super) fn hang(mark: &str, text: &str, width: Option<u16>) -> String {
    let styles = [Style { gap: 1, ..Style::default() }, Style { rest: true, ..Style::default() }];
    lay_out(vec![vec![mark.to_owned(), text.to_owned()]], &styles, width)
}

fn lay_out(lines: Vec<Vec<String>>, styles: &[Style], width: Option<u16>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING);
    for line in lines {
        table.add_row(line.into_iter().map(Field::new).collect::<Vec<_>>());
    }
    if let Some(width) = width {
        table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
    }
    let last = styles.len().saturating_sub(1);
    for (at, (column, style)) in table.column_iter_mut().zip(styles).enumerate() {
        column.set_padding((0, if at == last { 0 } else { style.gap }));
        if style.right {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if !style.rest {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn push_record(out: &mut String, fields: impl Iterator<Item = String>) {
    for (at, field) in fields.enumerate() {
        if at > 0 {
            out.push(',');
        }
        if field.contains([',', '"', '\r', '\n']) {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&field);
        }
    }
    out.push_str("\r\n");
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    }
}

/// Why stdout took no more, when it was not closed on purpose.
static REFUSED: Mutex<Option<String>> = Mutex::new(None);

/// Writes a text as it is; whether somebody reads on.
pub(super) fn put(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Some(error) = written.as_ref().err().filter(|error| error.kind() != ErrorKind::BrokenPipe) {
        *REFUSED.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
    written.is_ok()
}

/// The exit number, unless the answer did not get where it should.
pub(super) fn arrived(exit: Exit) -> Exit {
    match REFUSED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => {
            let problem = format!("the answer could not be written: {error}");
            Trouble::new(Exit::Temporary, problem, "df -h, and look where stdout goes").tell()
        }
        None => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::super::paint::finish;
    use super::*;
    use proptest::prelude::*;

    const COLUMNS: &[Column] = &[
        Column::new("name", Text::Name),
        Column::number("power_watts", Text::Power),
        Column::new("uuid", Text::Series).wide(),
        Column::machine("state"),
        Column::new("problem", Text::Problem).rest(),
    ];

    fn table(rows: &[(&str, Cell, &str)]) -> Table {
        let mut table = Table::new("gpu", Lang::En, COLUMNS);
        for (name, power, problem) in rows {
            let state = Cell::state("ok", Level::Ok, "OK");
            table.push(vec![Cell::text(name), power.clone(), Cell::text("u"), state, Cell::text(problem)]);
        }
        table
    }

    #[test]
    fn japanese_and_coloured_cells_align_with_plain_ones() {
        let rows = [
            ("話者分離1", Cell::state(61.5, Level::Critical, "61 W"), "x"),
            ("🎧 w", Cell::new(7, "7 W"), "x"),
            ("plain", Cell::missing("lost"), "x"),
        ];
        let text = finish(&table(&rows).to_text(false, None), false);
        let expected =
            "NAME        POWER  PROBLEM\n話者分離1  ■ 61 W  x\n🎧 w          7 W  x\nplain           -  x";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_long_text_wraps_in_its_own_column() {
        let rows = [("a", Cell::new(1, "1 W"), "no answer from 127.0.0.1:8001 within 2s")];
        let text = finish(&table(&rows).to_text(true, Some(40)), false);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.lines().count() > 2 && text.contains("SERIES"), "{text}");
    }

    #[test]
    fn a_row_is_the_same_in_every_form() {
        let table = table(&[("a", Cell::new(61.5, "61 W"), "x, \"y\""), ("b", Cell::missing("lost"), "")]);
        let csv = "name,power_watts,uuid,state,problem,reasons\r\na,61.5,u,ok,\"x, \"\"y\"\"\",\r\nb,,u,ok,,power_watts=lost\r\n";
        assert_eq!(table.to_csv(true), csv);
        let documents = table.to_documents();
        assert_eq!(documents[0]["kind"], "gpu");
        assert_eq!(documents[1]["reasons"], json!({ "/power_watts": "lost" }));
        let whole = table.to_document("gpus", &[("node", "n".into())], "gpus");
        assert_eq!(whole["gpus"][0]["power_watts"], 61.5);
        assert_eq!(
            (&whole["gpus"][1]["power_watts"], &whole["reasons"]),
            (&Value::Null, &json!({ "/gpus/1/power_watts": "lost" }))
        );
        assert_eq!((&whole["kind"], &whole["node"]), (&json!("gpus"), &json!("n")));
    }

    proptest! {
        #[test]
        fn csv_is_read_back_as_it_was_written(fields in proptest::collection::vec("[ -~あ\"\r\n,]{0,8}", 1..5)) {
            let mut out = String::new();
            push_record(&mut out, fields.iter().cloned());
            let (mut read, mut field, mut quoted) = (Vec::new(), String::new(), false);
            let mut chars = out.strip_suffix("\r\n").unwrap().chars().peekable();
            while let Some(c) = chars.next() {
                match c {
                    '"' if quoted && chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
                    '"' => quoted = !quoted,
                    ',' if !quoted => read.push(std::mem::take(&mut field)),
                    '\r' | '\n' if !quoted => prop_assert!(false, "a record broken in two: {out:?}"),
                    c => field.push(c),
                }
            }
            read.push(field);
            prop_assert_eq!(read, fields);
        }
    }
}
