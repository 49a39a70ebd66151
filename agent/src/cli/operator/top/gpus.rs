//! The pane of the GPUs: a row each, and the chosen one at 10 Hz where there is room.
//!
//! Takes the model and the rows of the pane; paints them. Pure. A GPU without any value says so and why;
//! the lines of the table are a minute, or 0.1 s a column.

use diarwatch_shared::texts::Text;

use super::document::{Driver, Figure, Gpu};
use super::history::{Metric, WINDOW_US};
use super::layout::{Pane, Plan};
use super::model::driver_to_tell;
use super::paint::{Ink, width};
use super::panes::{Rows, above, no_data};
use crate::cli::operator::paint::Level;
use crate::cli::operator::values::{celsius, gib, memory, percent, watts};

/// One column of a line at 10 Hz.
const FINE_SLOT_US: u64 = 100_000;
/// Where the columns of the GPUs begin.
struct GpuColumns {
    name: (u16, u16),
    utilization: (u16, u16),
    line: (u16, u16),
    memory: (u16, u16),
    bar: (u16, u16),
    power: (u16, u16),
    power_line: (u16, u16),
    temperature: (u16, u16),
}

impl GpuColumns {
    fn of(columns: u16, longest_name: u16) -> Self {
        let bar_columns = if columns < 72 { 0 } else { (columns / 10).min(20) };
        let bar_gap = u16::from(bar_columns > 0);
        // Mark and index, then one column before each of the others.
        let taken = 4 + 5 + 1 + 16 + bar_gap + bar_columns + 7 + 6;
        let left = columns.saturating_sub(taken);
        let name_columns = longest_name.min(left / 2).max(4);
        let lines = left.saturating_sub(name_columns);
        let power_line_columns = if lines > 40 { lines / 3 } else { 0 };
        let power_gap = u16::from(power_line_columns > 0);
        let line_columns = lines.saturating_sub(power_line_columns + power_gap);
        let mut x = 4;
        let mut next = |gap: u16, columns: u16| {
            let at = x + gap;
            x = at + columns;
            (at, columns)
        };
        Self {
            name: next(0, name_columns),
            utilization: next(1, 4),
            line: next(1, line_columns),
            memory: next(1, 15),
            bar: next(bar_gap, bar_columns),
            power: next(1, 6),
            power_line: next(power_gap, power_line_columns),
            temperature: next(1, 5),
        }
    }
}

impl Rows<'_, '_> {
    /// Paints the pane.
    pub(super) fn gpus(&mut self, plan: &Plan) {
        let model = self.model;
        let longest = model.view.gpus.iter().map(|gpu| width(short(&gpu.name))).max().unwrap_or_default();
        let at = GpuColumns::of(self.columns(), longest);
        let span =
            if model.minute { String::from("60s") } else { format!("{:.1}s", f64::from(at.line.1) / 10.0) };
        let labels = [
            (at.utilization.0, at.line.1 + 5, format!("{} {span}", self.text(Text::Utilization))),
            above(at.memory, self.text(Text::Memory)),
            above(at.power, self.text(Text::Power)),
            above(at.temperature, self.text(Text::Temp)),
        ];
        self.title(Text::Gpu, if model.view.gpus.is_empty() { &[] } else { &labels });
        if let Some(driver) = driver_to_tell(&model.view.driver) {
            self.driver(driver);
        }
        let gpus = model.view.gpus.iter().enumerate();
        let shown = gpus.skip(model.offset(Pane::Gpus)).take(usize::from(self.placed.rows));
        for (place, gpu) in shown {
            self.gpu(&at, gpu, place == model.chosen);
        }
        if model.view.gpus.is_empty() && driver_to_tell(&model.view.driver).is_none() {
            self.line(self.text(Text::NoGpus), Ink::Plain);
        }
        self.notes(&model.gpu_notes());
        if let Some(gpu) = model.view.gpus.get(model.chosen).filter(|_| plan.detail > 0) {
            self.detail(gpu, plan.detail);
        }
    }

    fn driver(&mut self, driver: &Driver) {
        let (text, level) = match driver {
            Driver::Absent(why) => (format!("{}: {why}", self.text(Text::NoDriver)), Level::Warning),
            Driver::Unresponsive(call) => {
                (format!("{}: {call}", self.text(Text::DriverUnresponsive)), Level::Critical)
            }
            Driver::Disabled => (self.text(Text::TopGpusOff).to_owned(), Level::Unknown),
            _ => (self.text(Text::DriverStarting).to_owned(), Level::Unknown),
        };
        self.line(&format!("{} {text}", level.shape()), Ink::of(level));
    }

    fn gpu(&mut self, at: &GpuColumns, gpu: &Gpu, chosen: bool) {
        let y = self.y;
        self.paint.right(1, y, 2, &gpu.index, Ink::Plain);
        self.paint.text(at.name.0, y, at.name.1, short(&gpu.name), Ink::Plain);
        if chosen && self.model.view.gpus.len() > 1 {
            self.paint.text(0, y, 1, "›", Ink::Strong);
            self.paint.choose(y, 3);
        }
        if let Some(why) = gpu.gone() {
            let x = at.utilization.0;
            let told = format!("{} {}", gpu.level.shape(), no_data(why, self.model.lang));
            let ink = Ink::of(gpu.level);
            self.paint.text(x, y, self.columns().saturating_sub(x), &told, ink);
            self.y += 1;
            return;
        }
        self.cell(at.utilization, &gpu.utilization, percent);
        let slot_us = if self.model.minute { WINDOW_US / u64::from(at.line.1.max(1)) } else { FINE_SLOT_US };
        self.values(at.line, gpu, Metric::Utilization, slot_us);
        self.cell(at.memory, &gpu.memory_used, |used| memory(used, &gpu.memory_total));
        if let (Ok(used), Ok(total)) = (&gpu.memory_used, &gpu.memory_total) {
            self.paint.bar(at.bar.0, y, at.bar.1, used / total, Ink::Value);
        }
        self.cell(at.power, &gpu.power, watts);
        let slot_us =
            if self.model.minute { WINDOW_US / u64::from(at.power_line.1.max(1)) } else { FINE_SLOT_US };
        self.values(at.power_line, gpu, Metric::Power, slot_us);
        self.cell(at.temperature, &gpu.temperature, celsius);
        self.y += 1;
    }

    fn values(&mut self, at: (u16, u16), gpu: &Gpu, metric: Metric, slot_us: u64) {
        let slots = self.model.history.slots(&gpu.index, metric, slot_us, usize::from(at.1));
        let max = full(metric, gpu, &slots);
        self.paint.line((at.0, self.y), 1, &slots, max);
    }

    /// The chosen GPU at 10 Hz.
    fn detail(&mut self, gpu: &Gpu, rows: u16) {
        let columns = self.columns();
        for metric in Metric::ALL {
            let (word, now) = match metric {
                Metric::Utilization => (Text::Utilization, told(&gpu.utilization, percent)),
                Metric::Memory => (Text::Memory, told(&gpu.memory_used, whole_gib)),
                Metric::Power => (Text::Power, told(&gpu.power, |watts| format!("{watts:.1} W"))),
            };
            let label = format!("GPU {} {}", gpu.index, self.text(word));
            let at = (19, columns.saturating_sub(19 + 12));
            let slots = self.model.history.slots(&gpu.index, metric, FINE_SLOT_US, usize::from(at.1));
            let max = full(metric, gpu, &slots);
            let last = self.y + rows - 1;
            self.paint.text(1, last, 17, &label, Ink::Plain);
            self.paint.line((at.0, self.y), rows, &slots, max);
            if rows > 1 {
                let top = match metric {
                    Metric::Utilization => percent(max),
                    Metric::Memory => whole_gib(max),
                    Metric::Power => watts(max),
                };
                self.paint.right(columns.saturating_sub(11), self.y, 11, &top, Ink::Faint);
            }
            self.paint.right(columns.saturating_sub(11), last, 11, &now, Ink::Strong);
            self.y += rows;
        }
    }
}

/// Every card here is NVIDIA's.
fn short(name: &str) -> &str {
    name.strip_prefix("NVIDIA ").unwrap_or(name)
}

/// A value that has room for its reason.
fn told(figure: &Figure, text: impl Fn(f64) -> String) -> String {
    figure.as_ref().map_or_else(Clone::clone, |value| text(*value))
}

fn whole_gib(bytes: f64) -> String {
    format!("{} GiB", gib(bytes))
}

/// What a full line means: all of it where that is known, else the most that was seen.
fn full(metric: Metric, gpu: &Gpu, slots: &[Option<f64>]) -> f64 {
    let seen = slots.iter().flatten().copied().fold(0.0, f64::max);
    let whole = match metric {
        Metric::Utilization => 1.0,
        Metric::Memory => gpu.memory_total.as_ref().copied().unwrap_or(seen),
        Metric::Power => seen,
    };
    if whole > 0.0 { whole } else { 1.0 }
}
