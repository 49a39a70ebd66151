//! `diarwatch top`: GPUs, workers and queues live in a terminal, until `q`. It only shows.
//!
//! Takes the agent's answers and a person's keys; gives a picture ten times a second. This file is the
//! loop; [`model`] decides, [`draw`] paints. An agent that hangs or is gone costs its values, which
//! are shown as old, never the keys.

mod asker;
mod document;
mod draw;
mod gpus;
mod history;
mod layout;
mod model;
mod paint;
mod panes;
mod terminal;
mod words;

#[cfg(test)]
mod pictures;

use std::time::Duration;

use clap::Args;
use diarwatch_shared::clock;
use diarwatch_shared::daemon::talk;
use diarwatch_shared::exit::Exit;

use super::common::Common;
use crate::cli::ask::Trouble;
use asker::Asker;
use draw::Now;
use model::{Input, Model, Question};
use terminal::{Did, Screen, Signals};

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);

/// Flags of `top`.
#[derive(Debug, Args)]
pub(super) struct Options {}

/// Runs until `q`.
pub(super) fn run(_options: &Options, common: &Common) -> Exit {
    let status = refusal(common).map_or_else(|| common.ask(&Question::Status.document()), Err);
    let status = match status {
        Ok(status) => status,
        Err(trouble) => return trouble.tell(),
    };
    let mut model = Model::new(&status, common.lang(), clock::uptime());
    match live(&mut model, common) {
        Ok(()) => Exit::Ok,
        Err(problem) => {
            talk(&format!("error: {problem}"));
            talk("try: diarwatch status --watch");
            Exit::Critical
        }
    }
}

/// Why there can be no picture.
fn refusal(common: &Common) -> Option<Trouble> {
    let terminal = std::env::var("TERM").unwrap_or_default();
    let problem = if !common.terminal() {
        "top draws on a terminal, and stdout is none"
    } else if terminal.is_empty() || terminal == "dumb" {
        "top cannot draw on a terminal of this kind (TERM)"
    } else {
        return None;
    };
    Some(Trouble::new(Exit::Usage, problem, "diarwatch status --watch"))
}

fn live(model: &mut Model, common: &Common) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let colours = super::paint::wanted(common.color, true, |name| std::env::var(name).ok());
    let signals = Signals::watch().map_err(failed("the signals cannot be watched"))?;
    let asker = Asker::start(common.socket.clone(), common.timeout)
        .map_err(failed("the thread that asks cannot be started"))?;
    let mut screen = Screen::take(colours).map_err(failed("the terminal cannot be used"))?;
    let mut next = clock::uptime();
    while !model.over() && !signals.end() {
        if signals.continued() {
            screen.again().map_err(failed("the terminal cannot be taken again"))?;
        }
        while let Some((question, answer)) = asker.answer()? {
            model.take(Input::Answer(question, answer), clock::uptime());
        }
        for question in model.questions(clock::uptime()) {
            asker.ask(question);
        }
        let (columns, rows) = screen.size().map_err(failed("the terminal has no size"))?;
        model.take(Input::Size(columns, rows), clock::uptime());
        let now = Now { wall: clock::now(), uptime: clock::uptime() };
        screen
            .show(|paint| draw::draw(paint, model, &common.tz, now))
            .map_err(failed("the terminal takes no picture"))?;
        let uptime = clock::uptime();
        next = (next + FRAME).max(uptime);
        for did in screen.keys(next.saturating_sub(uptime)).map_err(failed("no keys can be read"))? {
            match did {
                Did::Press(press) => model.take(Input::Press(press), clock::uptime()),
                Did::Suspend => screen.suspend().map_err(failed("the terminal cannot be taken again"))?,
            }
        }
        // A key is answered by a picture at once; the rhythm goes on.
        next = next.min(clock::uptime());
    }
    Ok(())
}
