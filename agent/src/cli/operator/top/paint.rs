//! Text, lines and bars onto a buffer of cells; the one file that knows ratatui's types of drawing.
//!
//! Takes text with an [`Ink`]; what does not fit its width is cut at a whole character, with `…`. A
//! Japanese character has two columns and is never cut in half. Nothing is written outside the buffer.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use crate::cli::operator::paint::Level;

/// What something means; with colours or without, it never means by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    /// Labels and lines between panes.
    Faint,
    Strong,
    Good,
    Look,
    Bad,
    /// Lines and bars of values.
    Value,
    /// Where the keys go.
    Focus,
}

impl Ink {
    /// Of how well something is; its shape says the same.
    pub(super) fn of(level: Level) -> Self {
        match level {
            Level::Ok => Self::Good,
            Level::Unknown => Self::Plain,
            Level::Warning => Self::Look,
            Level::Critical => Self::Bad,
        }
    }
}

/// From nothing to full, in eighths.
const UPWARD: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
/// Where there is no sample.
const GAP: &str = "·";
/// Cut here.
const CUT: &str = "…";

/// Columns that a text takes.
pub(super) fn width(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}

/// The text, or as much of it as fits.
fn clip(text: &str, columns: u16) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut room = columns.saturating_sub(width(CUT));
    let mut clipped = String::new();
    for grapheme in Span::raw(text).styled_graphemes(Style::new()) {
        let Some(left) = room.checked_sub(width(grapheme.symbol)) else { break };
        room = left;
        clipped.push_str(grapheme.symbol);
    }
    if columns > 0 {
        clipped.push_str(CUT);
    }
    clipped
}

/// A buffer to paint on.
pub(super) struct Paint<'a> {
    buffer: &'a mut Buffer,
    colour: bool,
}

impl<'a> Paint<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, colour: bool) -> Self {
        Self { buffer, colour }
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (u16, u16) {
        (self.buffer.area.width, self.buffer.area.height)
    }

    fn style(&self, ink: Ink) -> Style {
        let style = Style::new();
        let coloured = |colour| if self.colour { style.fg(colour) } else { style };
        match ink {
            Ink::Plain => style,
            Ink::Faint if self.colour => style.fg(Color::DarkGray),
            Ink::Faint => style.add_modifier(Modifier::DIM),
            Ink::Strong => style.add_modifier(Modifier::BOLD),
            Ink::Good => coloured(Color::Green),
            Ink::Look => coloured(Color::Yellow).add_modifier(Modifier::BOLD),
            Ink::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Ink::Value => coloured(Color::Cyan),
            Ink::Focus => style.add_modifier(Modifier::REVERSED),
        }
    }

    /// Writes a text that may take `columns`; gives the column after it.
    pub(super) fn text(&mut self, x: u16, y: u16, columns: u16, text: &str, ink: Ink) -> u16 {
        let (width, height) = self.size();
        if x >= width || y >= height {
            return x;
        }
        let columns = columns.min(width - x);
        let style = self.style(ink);
        self.buffer.set_stringn(x, y, clip(text, columns), usize::from(columns), style).0
    }

    /// Writes a text at the right end of its columns.
    pub(super) fn right(&mut self, x: u16, y: u16, columns: u16, text: &str, ink: Ink) {
        let indent = columns.saturating_sub(width(text));
        self.text(x.saturating_add(indent), y, columns - indent, text, ink);
    }

    /// Writes one character over and over.
    pub(super) fn fill(&mut self, x: u16, y: u16, columns: u16, symbol: &str, ink: Ink) {
        self.text(x, y, columns, &symbol.repeat(usize::from(columns.min(self.size().0))), ink);
    }

    /// A bar of a part between 0 and 1.
    pub(super) fn bar(&mut self, x: u16, y: u16, columns: u16, part: f64, ink: Ink) {
        let full = level(part, usize::from(columns));
        let full = u16::try_from(full).unwrap_or(columns);
        self.fill(x, y, columns, "░", Ink::Faint);
        self.fill(x, y, full, "█", ink);
    }

    /// A line of values over `rows` rows, the first at the top; `max` is its full height. A gap is no
    /// zero: a zero has the lowest block.
    pub(super) fn line(&mut self, (x, y): (u16, u16), rows: u16, values: &[Option<f64>], max: f64) {
        let steps = usize::from(rows) * 8;
        for row in 0..rows {
            let below = usize::from(rows - 1 - row) * 8;
            let symbols: String = values
                .iter()
                .map(|value| match value {
                    None if below == 0 => GAP,
                    None => " ",
                    Some(value) => {
                        let height = level(value / max, steps).max(1);
                        UPWARD.get(height.saturating_sub(below).min(8)).copied().unwrap_or(" ")
                    }
                })
                .collect();
            let columns = u16::try_from(values.len()).unwrap_or(u16::MAX);
            self.text(x, y.saturating_add(row), columns, &symbols, Ink::Value);
        }
    }

    /// Makes rows grey: what they say is old.
    pub(super) fn grey(&mut self, top: u16, rows: u16) {
        let area = Rect::new(0, top, self.size().0, rows).intersection(self.buffer.area);
        for position in area.positions() {
            let faint = self.style(Ink::Faint);
            if let Some(cell) = self.buffer.cell_mut(position) {
                cell.modifier.remove(Modifier::BOLD);
                cell.set_style(faint);
            }
        }
    }

    /// Marks a row as the chosen one.
    pub(super) fn choose(&mut self, y: u16, columns: u16) {
        for x in 0..columns {
            if let Some(cell) = self.buffer.cell_mut(Position::new(x, y)) {
                cell.modifier.insert(Modifier::REVERSED);
            }
        }
    }

    /// Empties an area.
    pub(super) fn clear(&mut self, x: u16, y: u16, columns: u16, rows: u16) {
        for row in 0..rows {
            self.fill(x, y.saturating_add(row), columns, " ", Ink::Plain);
        }
    }
}

/// A part between 0 and 1 of `of` steps, rounded up so that little is not nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "between 0 and a number of cells"
)]
fn level(part: f64, of: usize) -> usize {
    let part = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
    ((part * of as f64).ceil() as usize).min(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(columns: u16, paint: impl FnOnce(&mut Paint)) -> String {
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, 1));
        paint(&mut Paint::new(&mut buffer, false));
        buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect()
    }

    #[test]
    fn a_japanese_character_is_never_cut_in_half() {
        assert_eq!(width("データなし"), 10);
        assert_eq!(clip("データなし", 10), "データなし");
        assert_eq!(clip("データなし", 9), "データな…");
        assert_eq!(clip("データなし", 8), "データ…");
        assert_eq!(clip("データなし", 1), "…");
        assert_eq!(clip("データなし", 0), "");
    }

    #[test]
    fn zero_is_the_lowest_block_and_a_gap_is_none() {
        let values = [Some(0.0), None, Some(0.5), Some(1.0), Some(7.0)];
        assert_eq!(painted(5, |paint| paint.line((0, 0), 1, &values, 1.0)), "▁·▄██");
    }

    #[test]
    fn text_that_would_steer_a_terminal_is_not_written() {
        let seen = painted(20, |paint| {
            paint.text(0, 0, 20, "a\u{1b}[2Jb\nc\u{7}", Ink::Plain);
        });
        assert!(!seen.contains(char::is_control) && seen.starts_with("a[2Jbc"), "{seen:?}");
    }

    #[test]
    fn nothing_is_written_outside() {
        painted(4, |paint| {
            paint.text(9, 0, 5, "x", Ink::Plain);
            paint.text(0, 9, 5, "x", Ink::Plain);
            paint.right(2, 0, 900, "データ", Ink::Plain);
            paint.grey(0, 900);
            paint.choose(7, 900);
            paint.bar(0, 0, u16::MAX, f64::NAN, Ink::Plain);
        });
    }
}
