//! The panes of workers, queues and events, and what all panes have in common.
//!
//! Takes the model and the rows of a pane; paints them. Pure. A missing value is `—` in its column, with
//! the reason in the line below the table; a row without any value says so itself.

use std::time::Duration;

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::texts::{Lang, Text};

use super::document::{Event, Queue, UNTOLD, Worker};
use super::draw::Now;
use super::layout::{Pane, Placed, Plan};
use super::model::{Column, Model, Note};
use super::paint::{Ink, Paint, width};
use super::words;
use crate::cli::operator::paint::Level;
use crate::cli::operator::values::{count, span, tenths};

/// A value that is not there; its reason is below the table.
pub(super) const NONE: &str = "—";
/// Events older than this are shown with their date.
const DATED_AFTER: Duration = Duration::from_secs(12 * 3_600);

/// No data, and why.
pub(super) fn no_data(why: &str, lang: Lang) -> String {
    format!("{} ({why})", Text::NoData.in_lang(lang))
}

/// Paints a pane.
pub(super) fn draw(paint: &mut Paint, model: &Model, plan: &Plan, placed: Placed, zone: &Zone, now: Now) {
    let mut rows = Rows { paint, model, zone, now, y: placed.top, placed };
    match placed.pane {
        Pane::Gpus => rows.gpus(plan),
        Pane::Workers => rows.workers(),
        Pane::Queues => rows.queues(),
        Pane::Events => rows.events(),
    }
}

/// The rows of one pane, from its title down.
pub(super) struct Rows<'a, 'b> {
    pub(super) paint: &'a mut Paint<'b>,
    pub(super) model: &'a Model,
    pub(super) zone: &'a Zone,
    now: Now,
    /// The next row.
    pub(super) y: u16,
    pub(super) placed: Placed,
}

/// Where the columns of the workers begin.
struct WorkerColumns {
    /// Columns of the name.
    name: u16,
    /// Whether names are shown with what people call them.
    whole_names: bool,
    word: (u16, u16),
    pid: u16,
    restarts: u16,
    reason: (u16, u16),
}

impl WorkerColumns {
    /// Columns that a reason should have, before names are shortened.
    const REASON: u16 = 20;
    /// Columns that a name has, whatever is left for the reason.
    const NAME: u16 = 12;

    fn of(columns: u16, workers: &[&Worker], lang: Lang) -> Self {
        let longest = |of: &dyn Fn(&Worker) -> String| {
            workers.iter().map(|worker| width(&of(worker))).max().unwrap_or_default()
        };
        let word_columns = longest(&|worker| word(worker, lang)).min(18);
        // Mark, word, process and restarts, each with its gap.
        let taken = 3 + 2 + word_columns + 2 + 8 + 9;
        let left = columns.saturating_sub(taken);
        let whole = longest(&|worker| name(worker, true));
        let whole_names = whole + Self::REASON <= left;
        let name = longest(&|worker| name(worker, whole_names))
            .min(left.saturating_sub(Self::REASON).max(Self::NAME));
        let word = 3 + name + 2;
        let pid = word + word_columns + 2;
        let reason = pid + 8 + 9;
        let reason = (reason, columns.saturating_sub(reason));
        Self { name, whole_names, word: (word, word_columns), pid, restarts: pid + 8, reason }
    }
}

impl Rows<'_, '_> {
    pub(super) fn text(&self, text: Text) -> &'static str {
        text.in_lang(self.model.lang)
    }

    pub(super) fn columns(&self) -> u16 {
        self.paint.size().0
    }

    /// The title with its count, how old it is, and which lines are shown; labels stand above their
    /// columns.
    pub(super) fn title(&mut self, word: Text, labels: &[(u16, u16, String)]) {
        let (y, columns) = (self.y, self.columns());
        let (model, pane) = (self.model, self.placed.pane);
        let (count, rows) = (model.count(pane), usize::from(self.placed.rows));
        let first = model.offset(pane) + 1;
        let shown = if count > rows {
            format!("{first}-{}/{count}", (first + rows - 1).min(count))
        } else {
            count.to_string()
        };
        let ink = if model.focus == pane { Ink::Focus } else { Ink::Strong };
        self.paint.fill(0, y, columns, "─", Ink::Faint);
        let mut x = self.paint.text(1, y, columns, &format!(" {} {shown} ", self.text(word)), ink);
        if let Some(since) = model.silence(self.now.uptime) {
            let old = format!(" {} {} ", self.text(Text::TopStale), words::age(since));
            x = self.paint.text(x, y, columns, &old, Ink::Look);
        }
        for (at, columns, label) in labels {
            if *at > x {
                self.paint.text(*at, y, *columns, label, Ink::Faint);
            }
        }
        self.y += 1;
    }

    /// A line over all columns.
    pub(super) fn line(&mut self, text: &str, ink: Ink) {
        self.paint.text(1, self.y, self.columns().saturating_sub(1), text, ink);
        self.y += 1;
    }

    /// The shape of how well something is.
    pub(super) fn shape(&mut self, x: u16, level: Level) {
        self.paint.text(x, self.y, 1, &level.shape().to_string(), Ink::of(level));
    }

    /// The reasons of what is missing in a table.
    pub(super) fn notes(&mut self, notes: &[Note]) {
        if notes.is_empty() {
            return;
        }
        let told: Vec<String> = notes
            .iter()
            .map(|note| {
                let rows =
                    if note.rows.is_empty() { String::new() } else { format!(" {}", note.rows.join(",")) };
                format!("{}{rows} ({})", self.text(label(note.column)), note.why)
            })
            .collect();
        self.line(&format!("{NONE} {}: {}", self.text(Text::NoData), told.join("  ")), Ink::Faint);
    }

    /// A number at the right of its column, or the mark of a missing one.
    pub(super) fn cell<E>(&mut self, at: (u16, u16), figure: &Result<f64, E>, told: impl Fn(f64) -> String) {
        match figure {
            Ok(value) => self.paint.right(at.0, self.y, at.1, &told(*value), Ink::Plain),
            Err(_) => self.paint.right(at.0, self.y, at.1, NONE, Ink::Faint),
        }
    }

    fn workers(&mut self) {
        let model = self.model;
        let shown = model.view.workers.iter().skip(model.offset(Pane::Workers));
        let shown: Vec<&Worker> = shown.take(usize::from(self.placed.rows)).collect();
        let at = WorkerColumns::of(self.columns(), &shown, self.model.lang);
        let labels = [
            (at.pid, 8, self.text(Text::Pid).to_owned()),
            (at.restarts, 9, self.text(Text::TopRestarts).to_owned()),
            (at.reason.0, at.reason.1, self.text(Text::LastExit).to_owned()),
        ];
        self.title(Text::Worker, if shown.is_empty() { &[] } else { &labels });
        if shown.is_empty() {
            self.line(self.text(Text::NothingConfigured), Ink::Plain);
        }
        for worker in shown {
            self.worker(&at, worker);
        }
    }

    fn worker(&mut self, at: &WorkerColumns, worker: &Worker) {
        let y = self.y;
        let ink = Ink::of(worker.level);
        self.shape(1, worker.level);
        self.paint.text(3, y, at.name, &name(worker, at.whole_names), Ink::Plain);
        self.paint.text(at.word.0, y, at.word.1, &word(worker, self.model.lang), ink);
        let whole = |whole: Option<u64>| whole.map_or_else(|| String::from("-"), |whole| whole.to_string());
        self.paint.text(at.pid, y, 8, &whole(worker.pid), Ink::Plain);
        self.paint.text(at.restarts, y, 9, &whole(worker.restarts), Ink::Plain);
        // A process that is there and not ready says why itself; one that a person wants so, by that person.
        let asked = (worker.pid.is_some() || !worker.waits) && worker.level != Level::Ok;
        let reason = worker.verdict.as_ref().filter(|_| asked).or(worker.last_exit.as_ref());
        self.paint.text(at.reason.0, y, at.reason.1, reason.map_or("-", String::as_str), Ink::Plain);
        self.y += 1;
    }

    fn queues(&mut self) {
        let model = self.model;
        let columns = self.columns();
        let rate = columns >= 76;
        let cell = if rate { 9 } else { 8 };
        let mut order = vec![Column::Waiting, Column::Processing, Column::Oldest, Column::Mean];
        if rate {
            order.push(Column::Rate);
        }
        order.push(Column::Drain);
        let cells = u16::try_from(order.len()).unwrap_or(6) * cell;
        let first = columns.saturating_sub(cells + 1);
        let labels: Vec<(u16, u16, String)> = (0..)
            .zip(&order)
            .map(|(at, column)| above((first + at * cell + 1, cell - 1), self.text(label(*column))))
            .collect();
        let queues = &model.view.queues;
        self.title(Text::Queue, if queues.is_empty() { &[] } else { &labels });
        if queues.is_empty() {
            self.line(self.text(Text::NoQueues), Ink::Plain);
        }
        let shown = queues.iter().skip(model.offset(Pane::Queues)).take(usize::from(self.placed.rows));
        for queue in shown {
            self.queue(queue, first, &order, cell);
        }
        self.notes(&model.queue_notes());
    }

    fn queue(&mut self, queue: &Queue, first: u16, order: &[Column], cell: u16) {
        let y = self.y;
        let ink = Ink::of(queue.level);
        let mut marks = String::new();
        if queue.estimated {
            marks.push_str(&format!(" ({})", self.text(Text::Estimated)));
        }
        self.shape(1, queue.level);
        if let Some(problem) = &queue.problem {
            let why = queue.waiting.as_ref().err().map_or(UNTOLD, String::as_str);
            let told = format!("{}{marks}  {}: {problem}", queue.name, no_data(why, self.model.lang));
            self.paint.text(3, y, self.columns().saturating_sub(3), &told, ink);
            self.y += 1;
            return;
        }
        if queue.level != Level::Ok {
            marks.push_str(&format!(" {}", self.text(queue.word)));
        }
        let marks_columns = width(&marks).min(first.saturating_sub(8));
        let name_columns = first.saturating_sub(3 + marks_columns);
        let x = self.paint.text(3, y, name_columns, &queue.name, Ink::Plain);
        let ink = if queue.level == Level::Ok { Ink::Plain } else { ink };
        self.paint.text(x, y, marks_columns, &marks, ink);
        for (at, column) in (0..).zip(order) {
            let at = (first + at * cell + 1, cell - 1);
            match column {
                Column::Waiting => self.cell(at, &queue.waiting, count),
                Column::Processing => self.cell(at, &queue.processing, count),
                Column::Oldest => self.cell(at, &queue.oldest, span),
                Column::Mean => self.cell(at, &queue.mean, span),
                Column::Rate => self.cell(at, &queue.rate, tenths),
                _ => self.cell(at, &queue.drain, span),
            }
        }
        self.y += 1;
    }

    fn events(&mut self) {
        self.title(Text::TopEvents, &[]);
        let (model, columns) = (self.model, self.columns());
        if model.events.is_empty() {
            return self.line(self.text(Text::NoEvents), Ink::Plain);
        }
        let newest = model.events.iter().rev().skip(model.offset(Pane::Events));
        let shown: Vec<&Event> = newest.take(usize::from(self.placed.rows)).collect();
        let times: Vec<String> = shown.iter().map(|event| self.time(UnixMicros(event.at_us))).collect();
        let longest = |texts: &mut dyn Iterator<Item = &str>| texts.map(width).max().unwrap_or_default();
        let time = longest(&mut times.iter().map(String::as_str));
        let kind = longest(&mut shown.iter().map(|event| event.word.as_str())).min(28);
        let worker = longest(&mut shown.iter().filter_map(|event| event.worker.as_deref())).min(20);
        for (event, at) in shown.iter().zip(&times) {
            let y = self.y;
            self.paint.right(1, y, time, at, Ink::Plain);
            self.shape(time + 3, event.level);
            self.paint.text(time + 5, y, kind, &event.word, Ink::of(event.level));
            let mut x = time + 5 + kind + 2;
            if worker > 0 {
                self.paint.text(x, y, worker, event.worker.as_deref().unwrap_or_default(), Ink::Plain);
                x += worker + 2;
            }
            self.paint.text(x, y, columns.saturating_sub(x), &event.detail, Ink::Plain);
            self.y += 1;
        }
    }

    /// The time of day; with its date when that is not plain.
    fn time(&self, at: UnixMicros) -> String {
        if self.now.wall.since(at) < DATED_AFTER {
            return self.zone.time_of_day(at);
        }
        let date_time = self.zone.date_time(at);
        date_time.get(5..16).unwrap_or(&date_time).to_owned()
    }
}

/// A label at the right end of its column, as the numbers below it.
pub(super) fn above((x, columns): (u16, u16), label: &str) -> (u16, u16, String) {
    let indent = columns.saturating_sub(width(label));
    (x + indent, columns - indent, label.to_owned())
}

fn label(column: Column) -> Text {
    match column {
        Column::Utilization => Text::Utilization,
        Column::Memory => Text::Memory,
        Column::Power => Text::Power,
        Column::Temperature => Text::Temp,
        Column::Waiting => Text::QueueWaiting,
        Column::Processing => Text::QueueProcessing,
        Column::Oldest => Text::QueueOldest,
        Column::Mean => Text::JobMean,
        Column::Rate => Text::PerMinute,
        Column::Drain => Text::TopDrain,
    }
}

/// What people call it and what commands call it; the latter alone where that has to do.
fn name(worker: &Worker, whole: bool) -> String {
    if !whole || worker.service == worker.name {
        return worker.name.clone();
    }
    format!("{} ({})", worker.service, worker.name)
}

/// Its state; with the time that is left when it waits for its next start.
fn word(worker: &Worker, lang: Lang) -> String {
    let word = worker.word.in_lang(lang);
    let wait = worker.next_start_in_ms.filter(|_| worker.waits);
    wait.map_or_else(|| word.to_owned(), |ms| format!("{word} {}", words::age(Duration::from_millis(ms))))
}
