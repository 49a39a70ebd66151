//! The whole picture: header, panes, footer, help.
//!
//! Takes the model and the time; paints. Pure. When the agent does not answer, everything below the
//! header is grey and its titles say how old it is; a picture that does not fit says what it needs.

use std::time::Duration;

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::texts::{Lang, Text};

use super::document::{Driver, UNTOLD};
use super::layout::{HEIGHT_MIN, Plan, WIDTH_MIN};
use super::model::Model;
use super::paint::{Ink, Paint, width};
use super::{panes, words};
use crate::cli::operator::values::{memory, percent};

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: UnixMicros,
    pub(super) uptime: Duration,
}

/// Paints everything.
pub(super) fn draw(paint: &mut Paint, model: &Model, zone: &Zone, now: Now) {
    let Some(plan) = model.plan() else { return too_small(paint, model.lang) };
    let silence = model.silence(now.uptime);
    header(paint, model, &plan, zone, now);
    for placed in &plan.placed {
        panes::draw(paint, model, &plan, *placed, zone, now);
    }
    let (_, height) = paint.size();
    if silence.is_some() {
        // But the node's name, the silence, and why.
        let old = plan.header - u16::from(model.trouble().is_some());
        paint.grey(1, old - 1);
        paint.grey(plan.header, height.saturating_sub(plan.header + 1));
    }
    footer(paint, model.lang, height.saturating_sub(1));
    if model.help {
        help(paint, model.lang);
    }
}

fn too_small(paint: &mut Paint, lang: Lang) {
    let (columns, rows) = paint.size();
    let text = |text: Text| text.in_lang(lang);
    let lines = [
        text(Text::TopTooSmall).to_owned(),
        format!("{} {WIDTH_MIN}x{HEIGHT_MIN}", text(Text::TopNeeds)),
        format!("{} {columns}x{rows}", text(Text::TopNow)),
        format!("q {}", text(Text::TopQuit)),
    ];
    for (y, line) in (0..rows).zip(lines) {
        paint.text(0, y, columns, &line, Ink::Plain);
    }
}

/// A piece of a header line; of those that do not fit, the least important go first.
struct Piece {
    text: String,
    ink: Ink,
    importance: u8,
}

fn piece(text: impl Into<String>, ink: Ink, importance: u8) -> Piece {
    Piece { text: text.into(), ink, importance }
}

/// Paints pieces from the left, two columns apart; the most important ones that fit.
fn pieces(paint: &mut Paint, y: u16, columns: u16, mut pieces: Vec<Piece>) {
    let mut by_importance: Vec<(u8, usize)> = pieces.iter().map(|piece| piece.importance).zip(0..).collect();
    by_importance.sort_unstable_by(|one, other| other.cmp(one));
    let mut left = columns.saturating_add(2);
    let mut kept = Vec::new();
    for (_, at) in by_importance {
        let needs = pieces.get(at).map_or(0, |piece| width(&piece.text).saturating_add(2));
        // The first one is cut rather than left out.
        if needs <= left || kept.is_empty() {
            left = left.saturating_sub(needs);
            kept.push(at);
        }
    }
    let mut places = 0..;
    pieces.retain(|_| places.next().is_some_and(|at| kept.contains(&at)));
    let mut x = 0;
    for piece in pieces {
        x = paint.text(x, y, columns.saturating_sub(x), &piece.text, piece.ink).saturating_add(2);
    }
}

fn header(paint: &mut Paint, model: &Model, plan: &Plan, zone: &Zone, now: Now) {
    let (columns, _) = paint.size();
    let roomy = columns >= 80;
    let time = if roomy { zone.date_time(now.wall) } else { time_and_zone(&zone.date_time(now.wall)) };
    let time_columns = width(&time).min(columns);
    paint.right(columns - time_columns, 0, time_columns, &time, Ink::Plain);
    pieces(paint, 0, columns.saturating_sub(time_columns + 2), first_line(model, model.lang, now));
    if model.problems().is_empty() || plan.header > 2 {
        pieces(paint, 1, columns, second_line(model, model.lang));
    }
    let mut x = 0;
    for (level, text) in model.problems() {
        let told = format!("{} {text}", level.shape());
        x = paint
            .text(x, plan.header - 1, columns.saturating_sub(x), &told, Ink::of(level))
            .saturating_add(2);
    }
}

/// `14:32:15 JST` of a date and time with a zone.
fn time_and_zone(date_time: &str) -> String {
    date_time.split_once(' ').map_or(date_time, |(_, time)| time).to_owned()
}

fn first_line(model: &Model, lang: Lang, now: Now) -> Vec<Piece> {
    let text = |text: Text| text.in_lang(lang);
    let mut pieces = vec![piece(&model.view.node, Ink::Strong, 9)];
    if let Some(since) = model.silence(now.uptime) {
        let told = format!("■ {} {} {}", text(Text::TopNoAnswer), text(Text::TopFor), words::age(since));
        pieces.push(piece(told, Ink::Bad, 8));
    } else {
        let told = format!("{} {}", model.level.shape(), model.level.word(lang));
        pieces.push(piece(told, Ink::of(model.level), 8));
    }
    if model.view.simulated {
        pieces.push(piece("■ SIMULATED", Ink::Look, 7));
    }
    if model.paused {
        pieces.push(piece(format!("‖ {}", text(Text::TopPaused)), Ink::Focus, 6));
    }
    pieces
}

fn second_line(model: &Model, lang: Lang) -> Vec<Piece> {
    let text = |text: Text| text.in_lang(lang);
    let view = &model.view;
    let endpoint = view.link.endpoint.as_deref().unwrap_or("-");
    let link = match view.link.connected {
        Some(true) => piece(format!("● {} {endpoint}", text(Text::LinkUp)), Ink::Good, 8),
        Some(false) => piece(format!("▲ {} {endpoint}", text(Text::LinkDown)), Ink::Look, 8),
        None => piece(format!("{}: {}", text(Text::Link), panes::no_data(UNTOLD, lang)), Ink::Plain, 8),
    };
    let count = |value: Option<u64>, word: Text| {
        let told = value.map_or_else(|| panes::no_data(UNTOLD, lang), |value| value.to_string());
        format!("{} {told}", text(word))
    };
    let mut pieces = vec![link];
    pieces.extend(view.link.round_trip_ms.map(|ms| piece(format!("{ms:.1} ms"), Ink::Plain, 2)));
    pieces.push(piece(count(view.spool.unacked, Text::Backlog), Ink::Plain, 7));
    let cpu = match &view.host.cpu {
        Ok(ratio) => percent(*ratio),
        Err(why) => panes::no_data(why, lang),
    };
    pieces.push(piece(format!("{} {cpu}", text(Text::Cpu)), Ink::Plain, 6));
    let memory = match &view.host.memory_used {
        Ok(used) => memory(*used, &view.host.memory_total),
        Err(why) => panes::no_data(why, lang),
    };
    pieces.push(piece(format!("{} {memory}", text(Text::Memory)), Ink::Plain, 5));
    if let Driver::Up(version) = &view.driver {
        pieces.push(piece(format!("{} {version}", text(Text::TopDriver)), Ink::Plain, 4));
    }
    let spool = view.spool.bytes.map(|bytes| format!("{} {}", text(Text::Spool), words::bytes(bytes)));
    pieces.extend(spool.map(|spool| piece(spool, Ink::Plain, 3)));
    pieces.push(piece(format!("{} {}", text(Text::Agent), view.version), Ink::Plain, 1));
    pieces
}

fn footer(paint: &mut Paint, lang: Lang, y: u16) {
    let text = |text: Text| text.in_lang(lang);
    let keys = [
        ("q", Text::TopQuit, 9),
        (Text::TopSpace.in_lang(lang), Text::TopPause, 8),
        ("?", Text::TopHelp, 7),
        ("Tab ↑↓", Text::TopMove, 6),
        ("Enter", Text::TopZoom, 5),
        ("t", Text::TopSpan, 4),
        ("g", Text::Gpu, 3),
        ("w", Text::Worker, 2),
        ("e", Text::TopEvents, 1),
    ];
    let told =
        keys.map(|(key, word, importance)| piece(format!("{key} {}", text(word)), Ink::Faint, importance));
    let (columns, _) = paint.size();
    pieces(paint, y, columns, told.into());
}

fn help(paint: &mut Paint, lang: Lang) {
    let text = |text: Text| text.in_lang(lang);
    let space = format!("{} / p", text(Text::TopSpace));
    let keys = [
        ("q Esc Ctrl-C", Text::TopHelpQuit),
        (space.as_str(), Text::TopHelpPause),
        ("Tab Shift-Tab", Text::TopHelpTab),
        ("↑ ↓ PgUp PgDn", Text::TopHelpArrows),
        ("g w u e", Text::TopHelpPanes),
        ("Enter", Text::TopHelpZoom),
        ("t", Text::TopHelpSpan),
    ];
    let more = [Text::TopHelpShapes, Text::TopHelpReadOnly, Text::TopHelpBack];
    let (columns, _) = paint.size();
    let wide = columns.min(72);
    let x = (columns - wide) / 2;
    paint.clear(x, 1, wide, 13);
    let title = format!(" diarwatch top: {} ", text(Text::TopHelp));
    paint.fill(x, 1, wide, "─", Ink::Faint);
    paint.text(x + 2, 1, wide - 2, &title, Ink::Strong);
    let mut y = 2;
    for (key, word) in keys {
        paint.text(x + 2, y, 14, key, Ink::Strong);
        paint.text(x + 17, y, wide.saturating_sub(18), text(word), Ink::Plain);
        y += 1;
    }
    for word in more {
        y += 1;
        paint.text(x + 2, y, wide.saturating_sub(3), text(word), Ink::Plain);
    }
    paint.fill(x, y + 1, wide, "─", Ink::Faint);
}
