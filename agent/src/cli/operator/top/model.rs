//! The state of `diarwatch top`.
//!
//! Takes answers of the agent and keys; gives what is to be asked next and what is to be drawn. Pure:
//! (state, input, now) -> state. An agent that does not answer is asked again once a second, and what
//! it said before is old, not gone.

use std::time::Duration;

use diarwatch_shared::texts::Lang;
use serde_json::{Value, json};

use super::document::{self, Driver, Event, Figure, View};
use super::history::{History, Metric};
use super::layout::{self, Pane, Plan, Shape};
use crate::cli::operator::health::{self, Finding};
use crate::cli::operator::paint::Level;

/// Between two questions for the lines; the loop goes round every 100 ms.
const HISTORY_EVERY: Duration = Duration::from_millis(80);
/// Between two questions for everything else, and between two tries while there is no answer.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Without an answer for so long, what is shown is old.
const SILENT_AFTER: Duration = Duration::from_millis(1_500);
/// Events that are asked for.
const EVENTS_ASKED: usize = 100;
/// Events that are kept.
const EVENTS_MAX: usize = 200;

/// A question to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Status,
    Events,
    /// The lines, after this time.
    History {
        after_us: u64,
    },
}

impl Question {
    /// As it is sent.
    pub(super) fn document(self) -> Value {
        match self {
            Self::Status => json!({ "ask": "status" }),
            Self::Events => json!({ "ask": "events", "limit": EVENTS_ASKED }),
            Self::History { after_us } => {
                let metrics = Metric::ALL.map(Metric::name);
                json!({ "ask": "history", "metrics": metrics, "after_us": after_us })
            }
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For a person.
    pub(super) problem: String,
    /// Whether it is the agent that cannot be reached, and not one question that it refuses.
    pub(super) unreachable: bool,
}

/// What a key means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Quit,
    Pause,
    Help,
    Zoom,
    Span,
    Focus(Pane),
    NextPane,
    PreviousPane,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Other,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Answer(Question, Result<Value, Refusal>),
    Press(Press),
    /// The terminal has so many columns and rows.
    Size(u16, u16),
}

/// Everything that is drawn, and when what was asked.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) lang: Lang,
    pub(super) view: View,
    /// How the node is, as the other commands say it.
    pub(super) level: Level,
    /// What is wrong, worst first.
    pub(super) findings: Vec<Finding>,
    /// Oldest first.
    pub(super) events: Vec<Event>,
    pub(super) history: History,
    pub(super) focus: Pane,
    pub(super) zoomed: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// Whether the lines of the table show a minute, and not 0.1 s a column.
    pub(super) minute: bool,
    /// The chosen GPU, by its place in the list.
    pub(super) chosen: usize,
    /// A question that the agent refuses, though it answers.
    pub(super) complaint: Option<String>,
    /// First line shown of each pane.
    offsets: [usize; 4],
    size: (u16, u16),
    quit: bool,
    /// Why the last question had no answer.
    trouble: Option<String>,
    answered: Duration,
    asked: [Option<Duration>; 2],
    under_way: usize,
}

impl Model {
    /// A model after a first answer to [`Question::Status`].
    pub(super) fn new(status: &Value, lang: Lang, now: Duration) -> Self {
        let mut model = Self {
            lang,
            view: View::default(),
            level: Level::Unknown,
            findings: Vec::new(),
            events: Vec::new(),
            history: History::default(),
            focus: Pane::Gpus,
            zoomed: false,
            paused: false,
            help: false,
            minute: true,
            chosen: 0,
            complaint: None,
            offsets: [0; 4],
            size: (0, 0),
            quit: false,
            trouble: None,
            answered: now,
            asked: [None; 2],
            under_way: 0,
        };
        model.status(status);
        model
    }

    fn status(&mut self, document: &Value) {
        self.view = document::view(document);
        self.findings = health::findings(document, self.lang);
        self.level = health::level(document, &self.findings);
    }

    /// Whether it is over.
    pub(super) fn over(&self) -> bool {
        self.quit
    }

    /// What is to be asked now; none while answers are under way.
    pub(super) fn questions(&mut self, now: Duration) -> Vec<Question> {
        let [status, history] = self.asked;
        let due = |asked: Option<Duration>, every| asked.is_none_or(|at| now.saturating_sub(at) >= every);
        if self.under_way > 0 {
            return Vec::new();
        }
        let mut questions = Vec::new();
        if due(status, STATUS_EVERY) {
            self.asked[0] = Some(now);
            questions.push(Question::Status);
            if !self.paused && self.trouble.is_none() {
                questions.push(Question::Events);
            }
        }
        if !self.paused && self.trouble.is_none() && due(history, HISTORY_EVERY) {
            self.asked[1] = Some(now);
            questions.push(Question::History { after_us: self.history.after_us() });
        }
        self.under_way = questions.len();
        questions
    }

    /// Takes what happened.
    pub(super) fn take(&mut self, input: Input, now: Duration) {
        match input {
            Input::Answer(question, answer) => {
                self.under_way = self.under_way.saturating_sub(1);
                match answer {
                    Ok(document) => self.answer(question, &document, now),
                    Err(refusal) if refusal.unreachable => self.trouble = Some(refusal.problem),
                    Err(refusal) => self.complaint = Some(refusal.problem),
                }
            }
            Input::Press(press) => self.press(press),
            Input::Size(width, height) => self.size = (width, height),
        }
        self.keep_in_bounds();
    }

    fn answer(&mut self, question: Question, document: &Value, now: Duration) {
        self.trouble = None;
        self.answered = now;
        if self.paused {
            return;
        }
        match question {
            Question::Status => {
                self.complaint = None;
                self.status(document);
            }
            Question::Events => self.remember(document::events(document, self.lang)),
            Question::History { .. } => self.history.take(document),
        }
    }

    /// An agent that started again knows only its own events: those before them are kept.
    fn remember(&mut self, newest: Vec<Event>) {
        let Some(first) = newest.first().map(|event| event.at_us) else { return };
        self.events.retain(|event| event.at_us < first);
        self.events.extend(newest);
        let surplus = self.events.len().saturating_sub(EVENTS_MAX);
        self.events.drain(..surplus);
    }

    fn press(&mut self, press: Press) {
        if self.help && press != Press::Quit {
            self.help = false;
            return;
        }
        let page = self.plan().map_or(1, |plan| plan.rows(self.focus)).max(1);
        match press {
            Press::Quit => self.quit = true,
            Press::Pause => self.paused = !self.paused,
            Press::Help => self.help = true,
            Press::Zoom => self.zoomed = !self.zoomed,
            Press::Span => self.minute = !self.minute,
            Press::Focus(pane) => self.focus = pane,
            Press::NextPane => self.focus = beside(self.focus, 1),
            Press::PreviousPane => self.focus = beside(self.focus, Pane::ALL.len() - 1),
            Press::Up => self.scroll(-1),
            Press::Down => self.scroll(1),
            Press::PageUp => self.scroll(-isize::from(page.cast_signed())),
            Press::PageDown => self.scroll(isize::from(page.cast_signed())),
            Press::First => self.scroll(isize::MIN),
            Press::Last => self.scroll(isize::MAX),
            Press::Other => {}
        }
    }

    fn scroll(&mut self, by: isize) {
        if self.focus == Pane::Gpus {
            self.chosen = self.chosen.saturating_add_signed(by);
        } else if let Some(offset) = self.offsets.get_mut(self.focus as usize) {
            *offset = offset.saturating_add_signed(by);
        }
    }

    /// No list is scrolled past its end, and the chosen GPU is seen.
    fn keep_in_bounds(&mut self) {
        self.chosen = self.chosen.min(self.view.gpus.len().saturating_sub(1));
        let Some(plan) = self.plan() else { return };
        for pane in Pane::ALL {
            let rows = usize::from(plan.rows(pane));
            let last = self.count(pane).saturating_sub(rows);
            let chosen = self.chosen;
            let Some(offset) = self.offsets.get_mut(pane as usize).filter(|_| rows > 0) else { continue };
            if pane == Pane::Gpus {
                *offset = (*offset).clamp((chosen + 1).saturating_sub(rows), chosen);
            }
            *offset = (*offset).min(last);
        }
    }

    /// How many lines a pane has.
    pub(super) fn count(&self, pane: Pane) -> usize {
        match pane {
            Pane::Gpus => self.view.gpus.len(),
            Pane::Workers => self.view.workers.len(),
            Pane::Queues => self.view.queues.len(),
            Pane::Events => self.events.len(),
        }
    }

    /// The first line of a pane that is shown.
    pub(super) fn offset(&self, pane: Pane) -> usize {
        self.offsets.get(pane as usize).copied().unwrap_or_default()
    }

    /// The rows of the screen; none when it is too small.
    pub(super) fn plan(&self) -> Option<Plan> {
        let lines = Pane::ALL.map(|pane| u16::try_from(self.count(pane)).unwrap_or(u16::MAX));
        // Without GPUs the driver's line takes the place of theirs.
        let driver = driver_to_tell(&self.view.driver).is_some() && !self.view.gpus.is_empty();
        let shape = Shape {
            problem: !self.problems().is_empty(),
            gpus_fixed: u16::from(driver) + u16::from(!self.gpu_notes().is_empty()),
            queues_fixed: u16::from(!self.queue_notes().is_empty()),
            lines,
            detail: !self.view.gpus.is_empty(),
            focus: self.focus,
            zoomed: self.zoomed,
        };
        layout::plan(self.size.0, self.size.1, &shape)
    }

    /// Since when there is no answer; none while there are answers.
    pub(super) fn silence(&self, now: Duration) -> Option<Duration> {
        let since = now.saturating_sub(self.answered);
        (self.trouble.is_some() || since >= SILENT_AFTER).then_some(since)
    }

    /// Why there is no answer, where that is known.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// What is to be told before everything else, worst first. What an agent that does not answer
    /// complained about is old.
    pub(super) fn problems(&self) -> Vec<(Level, &str)> {
        if let Some(trouble) = self.trouble() {
            return vec![(Level::Critical, trouble)];
        }
        let complaint = self.complaint.as_deref().map(|complaint| (Level::Warning, complaint));
        let link = self.view.link.problem.as_deref().filter(|_| self.view.link.connected != Some(true));
        let findings = self.findings.iter().map(|finding| (finding.level, finding.text.as_str()));
        let link = link.map(|problem| (Level::Warning, problem));
        complaint.into_iter().chain(findings).chain(link).collect()
    }

    /// Which single values of GPUs are missing, and why; a GPU without any value says so itself.
    pub(super) fn gpu_notes(&self) -> Vec<Note> {
        let gpus = || self.view.gpus.iter().filter(|gpu| gpu.gone().is_none());
        let all = self.view.gpus.len();
        let mut notes = Vec::new();
        for gpu in gpus() {
            let memory = gpu.memory_used.as_ref().and(gpu.memory_total.as_ref());
            note(&mut notes, Column::Utilization, &gpu.index, gpu.utilization.as_ref(), all);
            note(&mut notes, Column::Memory, &gpu.index, memory, all);
            note(&mut notes, Column::Power, &gpu.index, gpu.power.as_ref(), all);
            note(&mut notes, Column::Temperature, &gpu.index, gpu.temperature.as_ref(), all);
        }
        notes
    }

    /// Which values of queues are missing, and why; a queue that does not answer says so itself.
    pub(super) fn queue_notes(&self) -> Vec<Note> {
        let all = self.view.queues.len();
        let mut notes = Vec::new();
        for queue in self.view.queues.iter().filter(|queue| queue.problem.is_none()) {
            let figures: [(Column, &Figure); 6] = [
                (Column::Waiting, &queue.waiting),
                (Column::Processing, &queue.processing),
                (Column::Oldest, &queue.oldest),
                (Column::Mean, &queue.mean),
                (Column::Rate, &queue.rate),
                (Column::Drain, &queue.drain),
            ];
            for (column, figure) in figures {
                note(&mut notes, column, &queue.name, figure.as_ref(), all);
            }
        }
        notes
    }
}

/// A column of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Utilization,
    Memory,
    Power,
    Temperature,
    Waiting,
    Processing,
    Oldest,
    Mean,
    Rate,
    Drain,
}

/// A column in which values are missing for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) column: Column,
    pub(super) why: String,
    /// The rows; empty when it is all of them.
    pub(super) rows: Vec<String>,
    count: usize,
}

fn note(notes: &mut Vec<Note>, column: Column, row: &str, figure: Result<&f64, &String>, all: usize) {
    let Err(why) = figure else { return };
    let found = notes.iter_mut().find(|note| note.column == column && note.why == *why);
    let note = match found {
        Some(note) => note,
        None => {
            notes.push(Note { column, why: why.clone(), rows: Vec::new(), count: 0 });
            let Some(note) = notes.last_mut() else { return };
            note
        }
    };
    note.rows.push(row.to_owned());
    note.count += 1;
    if note.count == all {
        note.rows.clear();
    }
}

/// Whether the driver's state is worth a line.
pub(super) fn driver_to_tell(driver: &Driver) -> Option<&Driver> {
    match driver {
        Driver::Untold | Driver::Up(_) => None,
        told => Some(told),
    }
}

fn beside(pane: Pane, by: usize) -> Pane {
    let at = (pane as usize + by) % Pane::ALL.len();
    Pane::ALL.get(at).copied().unwrap_or(pane)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn model() -> Model {
        Model::new(&json!({ "node": "n", "gpus": [{}, {}, {}], "workers": [{}] }), Lang::En, SECOND)
    }

    fn refuse(model: &mut Model, question: Question, unreachable: bool, now: Duration) {
        let problem = String::from("no");
        model.take(Input::Answer(question, Err(Refusal { problem, unreachable })), now);
    }

    fn event(at: u64) -> Value {
        json!({ "at": at, "kind": "agent_started" })
    }

    /// Everything that is asked in so many steps of 100 ms, each answered at once.
    fn asked(model: &mut Model, from: Duration, steps: u32) -> Vec<Question> {
        let mut all = Vec::new();
        for step in 0..steps {
            let now = from + Duration::from_millis(100) * step;
            for question in model.questions(now) {
                model.take(Input::Answer(question, Ok(json!({}))), now);
                all.push(question);
            }
        }
        all
    }

    #[test]
    fn lines_are_asked_for_ten_times_a_second_and_the_rest_once() {
        let asked = asked(&mut model(), SECOND, 10);
        let lines = asked.iter().filter(|question| matches!(question, Question::History { .. })).count();
        assert_eq!(lines, 10);
        assert_eq!(asked.iter().filter(|question| **question == Question::Status).count(), 1);
        assert_eq!(asked.iter().filter(|question| **question == Question::Events).count(), 1);
    }

    #[test]
    fn nothing_more_is_asked_while_an_answer_is_under_way() {
        let mut model = model();
        assert_eq!(model.questions(SECOND).len(), 3);
        assert!(model.questions(SECOND * 60).is_empty());
    }

    #[test]
    fn an_agent_that_is_gone_is_asked_once_a_second_until_it_is_back() {
        let mut model = model();
        for question in model.questions(SECOND) {
            refuse(&mut model, question, true, SECOND);
        }
        assert!(model.silence(SECOND).is_some(), "at once, not after a time");
        assert!(model.questions(SECOND + Duration::from_millis(900)).is_empty());
        assert_eq!(model.questions(SECOND * 2), [Question::Status]);
        model.take(Input::Answer(Question::Status, Ok(json!({ "node": "back" }))), SECOND * 2);
        assert_eq!((model.silence(SECOND * 2), model.view.node.as_str()), (None, "back"));
        assert_eq!(asked(&mut model, SECOND * 3, 1).len(), 3);
    }

    #[test]
    fn one_question_that_is_refused_is_no_silence() {
        let mut model = model();
        model.questions(SECOND);
        refuse(&mut model, Question::Events, false, SECOND);
        assert_eq!((model.silence(SECOND), model.complaint.as_deref()), (None, Some("no")));
    }

    #[test]
    fn a_paused_picture_still_knows_whether_the_agent_answers() {
        let mut model = model();
        model.take(Input::Press(Press::Pause), SECOND);
        assert_eq!(asked(&mut model, SECOND, 15), [Question::Status, Question::Status]);
        assert_eq!(model.view.node, "n", "what it says is not taken");
    }

    #[test]
    fn events_outlive_the_agent_that_told_them() {
        let mut model = model();
        let take = |model: &mut Model, at: &[u64]| {
            let list: Vec<Value> = at.iter().copied().map(event).collect();
            model.take(Input::Answer(Question::Events, Ok(json!({ "events": list }))), SECOND);
            model.events.iter().map(|event| event.at_us).collect::<Vec<_>>()
        };
        assert_eq!(take(&mut model, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(take(&mut model, &[2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(take(&mut model, &[]), [1, 2, 3, 4]);
        assert_eq!(take(&mut model, &[9]), [1, 2, 3, 4, 9], "it started again");
        let many: Vec<u64> = (10..600).collect();
        assert_eq!(take(&mut model, &many).len(), EVENTS_MAX);
    }

    #[test]
    fn keys_stay_within_the_lists() {
        let mut model = model();
        let press = |model: &mut Model, press| model.take(Input::Press(press), SECOND);
        model.take(Input::Size(80, 24), SECOND);
        press(&mut model, Press::Up);
        assert_eq!(model.chosen, 0);
        press(&mut model, Press::Last);
        assert_eq!(model.chosen, 2);
        press(&mut model, Press::PreviousPane);
        assert_eq!(model.focus, Pane::Events);
        press(&mut model, Press::NextPane);
        assert_eq!(model.focus, Pane::Gpus);
        model.take(Input::Answer(Question::Status, Ok(json!({}))), SECOND);
        assert_eq!(model.chosen, 0, "the GPUs are gone");
        press(&mut model, Press::Help);
        press(&mut model, Press::Zoom);
        assert!(!model.help && !model.zoomed, "the key went to the help");
        press(&mut model, Press::Quit);
        assert!(model.over());
    }

    #[test]
    fn the_worst_is_told_first_and_the_link_too() {
        let told = |status: Value| {
            let model = Model::new(&status, Lang::En, SECOND);
            model
                .problems()
                .iter()
                .map(|(level, text)| format!("{} {text}", level.shape()))
                .collect::<Vec<_>>()
        };
        assert!(told(json!({})).is_empty());
        let link = json!({ "connected": false, "problem": "timed out" });
        let waiting = json!({ "worker": "w", "phase": "waiting" });
        let status =
            json!({ "link": link, "driver": { "state": "absent", "reason": "none" }, "workers": [waiting] });
        assert_eq!(told(status), ["■ w Restarting", "▲ No NVIDIA driver: none", "▲ timed out"]);
        assert!(
            told(json!({ "link": { "connected": true, "problem": "timed out" } })).is_empty(),
            "it is over"
        );
    }
}
