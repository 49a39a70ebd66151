//! `diarwatch why WORKER`: why a worker is as it is, for whoever is woken by it. Takes the judge's document;
//! gives what it is now and since when, what each view says, every limit and wait that counts now, and the
//! last decisions with their times. Lines that say nothing are left out. Pure but for the question.

use std::time::Duration;

use clap::Args;
use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::Cause;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::workers::Saying;
use diarwatch_shared::texts::{Lang, Text, fill};
use serde_json::Value;

use super::answer::{Answer, Screen, show};
use super::common::Common;
use super::order;
use super::output::{Cell, Column, Table};
use super::paint::{Level, Tone};
use super::values::{Place, gib, span, wait};

/// What is asked.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The worker's name.
    name: String,
}

/// Loads of former starts that are shown.
const LOADS_SHOWN: usize = 5;

/// A line: what it is about, and what is said.
const LINES: &[Column] = &[Column::new("what", Text::Key), Column::new("said", Text::Value).rest()];
/// A view: its name, what it says, why.
const VIEWS: &[Column] = &[
    Column::new("view", Text::Key),
    Column::new("says", Text::State),
    Column::new("words", Text::Reason).rest(),
];

/// Runs the command.
pub(super) fn run(options: &Options, common: &Common) -> Exit {
    show(common, || {
        let document = order::why(common, "why", &options.name)?;
        let screen = Told { root: Place::root(&document), common, lang: common.lang() }.screen();
        Ok(Answer { document, screen: Screen::Text(screen), rows: None, exit: Exit::Ok })
    })
}

/// A document as it is told.
struct Told<'a> {
    root: Place<'a>,
    common: &'a Common,
    lang: Lang,
}

impl Told<'_> {
    fn screen(&self) -> String {
        let why = self.root.at("why");
        let mut lines = vec![self.head(&why)];
        lines.extend(self.upright(self.facts(&why)));
        lines.push(String::new());
        lines.push(Tone::Dim.mark(self.say(Saying::ViewsTitle)));
        lines.extend(self.views(&why));
        lines.push(String::new());
        lines.push(Tone::Dim.mark(self.say(Saying::DecisionsTitle)));
        lines.extend(self.decisions(&why));
        lines.join("\n")
    }

    fn say(&self, saying: Saying) -> &'static str {
        saying.in_lang(self.lang)
    }

    /// A time of so many milliseconds below a key.
    fn time(&self, place: &Place, key: &str) -> String {
        place.get(key).as_f64().map_or_else(|| "?".to_owned(), wait)
    }

    fn at(&self, at: UnixMicros) -> String {
        self.common.tz.moment(at, self.now())
    }

    fn now(&self) -> UnixMicros {
        UnixMicros(self.root.get("now_us").as_u64().unwrap_or_default())
    }

    /// What it is now, and since when.
    fn head(&self, why: &Place) -> String {
        let worker = self.root.text("worker").unwrap_or("?");
        let service = self.root.text("service").filter(|service| *service != worker);
        let named = service.map_or_else(|| worker.to_owned(), |service| format!("{service} ({worker})"));
        let (level, saying) = match why.text("phase") {
            Some("starting") => (Level::Warning, Saying::NowStarting),
            Some("ready") => (Level::Ok, Saying::NowReady),
            Some("not_ready") => (Level::Critical, Saying::NowNotReady),
            Some("stopping") => (Level::Warning, Saying::NowStopping),
            Some("waiting") => (Level::Critical, Saying::NowWaiting),
            Some("left_alone") => (Level::Warning, Saying::NowLeftAlone),
            Some("unknown") => (Level::Warning, Saying::NowUnknown),
            _ => (Level::Unknown, Saying::NowOther),
        };
        let phase = why.text("phase").unwrap_or("?");
        let mut said = level.say(&fill(self.say(saying), &[&named, &phase]));
        if let Some(since) = self.root.get("since_us").as_u64().map(UnixMicros) {
            let ago = span(self.now().since(since).as_secs_f64());
            let since = fill(self.say(Saying::SinceAt), &[&self.at(since), &ago]);
            said.push_str(&Tone::Plain.mark(&format!("  {since}")));
        }
        said
    }

    /// What counts now, a line each.
    fn facts(&self, why: &Place) -> Vec<(Saying, String)> {
        let mut facts = Vec::new();
        let mut add = |title, said: Option<String>| facts.extend(said.map(|said| (title, said)));
        let text = |key: &str| why.text(key).map(str::to_owned);
        add(Saying::Reason, text("reason"));
        add(Saying::LastExit, self.root.text("last_exit").map(str::to_owned));
        add(Saying::Stop, self.stop(why));
        add(Saying::NextStart, why.get("next_start_in_ms").as_f64().map(|ms| self.in_at(ms)));
        add(Saying::Start, why.get("starting_ms").as_f64().map(|_| self.start(why)));
        add(Saying::Proof, self.proof(why));
        add(Saying::Budget, Some(self.budget(why)));
        let tries = why.get("breaker_tries").as_u64();
        add(Saying::Breaker, tries.map(|tries| fill(self.say(Saying::BreakerOpen), &[&tries])));
        add(Saying::Lease, self.lease(why));
        let by = |key: &str| text(key).map(|by| fill(self.say(Saying::By), &[&by]));
        add(Saying::Held, by("held_by"));
        add(Saying::Drained, by("drained_by"));
        add(Saying::Gpu, Some(self.gpu(why)));
        add(Saying::Jobs, Some(self.jobs(why)));
        facts
    }

    fn upright(&self, facts: Vec<(Saying, String)>) -> Vec<String> {
        let mut table = Table::new("why", self.lang, LINES);
        for (title, said) in facts {
            table.push(vec![Cell::text(format!("  {}", self.say(title))), Cell::text(said)]);
        }
        rows(&table, self.common)
    }

    fn in_at(&self, ms: f64) -> String {
        let at = self.now().plus(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default());
        fill(self.say(Saying::InAt), &[&wait(ms), &self.at(at)])
    }

    fn stop(&self, why: &Place) -> Option<String> {
        let stop = why.at("stopping");
        let step = match stop.text("step")? {
            "taking_out" => self.say(Saying::StepTakingOut),
            "draining" => self.say(Saying::StepDraining),
            "terminating" => self.say(Saying::StepTerminating),
            "tracing" => self.say(Saying::StepTracing),
            "killing" => self.say(Saying::StepKilling),
            other => other,
        };
        let cause = cause(stop.get("cause"), self.lang);
        let reason = stop.text("reason").unwrap_or("-");
        let next = self.time(&stop, "next_step_in_ms");
        Some(fill(self.say(Saying::StopLine), &[&cause, &reason, &step, &next]))
    }

    fn start(&self, why: &Place) -> String {
        let mut said = fill(self.say(Saying::StartSoFar), &[&self.time(why, "starting_ms")]);
        let (gate, most) = (self.time(why, "gate_ms"), self.time(why, "startup_max_ms"));
        said.push_str(&fill(self.say(Saying::StartRules), &[&gate, &most]));
        let loads: Vec<String> = why
            .get("loads_ms")
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .map(wait)
            .collect();
        if let Some(last) =
            loads.get(loads.len().saturating_sub(LOADS_SHOWN)..).filter(|last| !last.is_empty())
        {
            said.push_str(&fill(self.say(Saying::StartLoads), &[&last.join(", ")]));
        }
        said
    }

    fn proof(&self, why: &Place) -> Option<String> {
        // Of one that does not serve yet; a worker that is ready has proved it.
        let saying = match why.text("proof")? {
            "readiness" => Saying::ProofReadiness,
            "job" => Saying::ProofJob,
            "gpu_memory" => Saying::ProofGpu,
            "done" => Saying::ProofDone,
            other => return Some(other.to_owned()),
        };
        Some(self.say(saying).to_owned())
    }

    fn budget(&self, why: &Place) -> String {
        let number =
            |key: &str| why.get(key).as_u64().map_or_else(|| "?".to_owned(), |number| number.to_string());
        let spent = number("restarts_in_window");
        let (most, attempts) = (number("restarts_max"), number("attempts"));
        fill(self.say(Saying::BudgetSpent), &[&spent, &most, &self.time(why, "window_ms"), &attempts])
    }

    fn lease(&self, why: &Place) -> Option<String> {
        let denied = why.text("lease_denied").unwrap_or("-");
        Some(match why.text("lease")? {
            "none" => return None,
            "asked" => self.say(Saying::LeaseAsked).to_owned(),
            "denied" => fill(self.say(Saying::LeaseDenied), &[&denied]),
            "held" => self.say(Saying::LeaseHeld).to_owned(),
            other => other.to_owned(),
        })
    }

    fn gpu(&self, why: &Place) -> String {
        match (why.get("gpu_memory_bytes").as_f64(), why.get("uses_gpu").as_bool()) {
            (_, Some(false)) => self.say(Saying::GpuNotUsed).to_owned(),
            (Some(bytes), _) => fill(self.say(Saying::GpuHolds), &[&format!("{} GiB", gib(bytes))]),
            (None, _) => self.say(Saying::GpuNotTold).to_owned(),
        }
    }

    fn jobs(&self, why: &Place) -> String {
        let mut said = match why.get("jobs_under_way").as_u64() {
            Some(jobs) => fill(self.say(Saying::JobsUnderWay), &[&jobs]),
            None => self.say(Saying::JobsUnknown).to_owned(),
        };
        if let Some(longest) = why.get("longest_job_ms").as_f64() {
            said.push_str(&fill(self.say(Saying::JobsLongest), &[&wait(longest)]));
        }
        said
    }

    fn views(&self, why: &Place) -> Vec<String> {
        let mut table = Table::new("why", self.lang, VIEWS);
        for view in why.items("views") {
            let name = match view.text("view").unwrap_or("?") {
                "health" => self.say(Saying::ViewHealth),
                "cpu" => self.say(Saying::ViewCpu),
                "gpu" => self.say(Saying::ViewGpu),
                "jobs" => self.say(Saying::ViewJobs),
                other => other,
            };
            let says = view.text("says").unwrap_or("?");
            let (level, word) = match says {
                "well" => (Level::Ok, self.say(Saying::SaysWell)),
                "against" => (Level::Critical, self.say(Saying::SaysAgainst)),
                "unknown" => (Level::Unknown, self.say(Saying::SaysUnknown)),
                other => (Level::Unknown, other),
            };
            let words = Cell::text(view.text("words").unwrap_or("-"));
            table.push(vec![Cell::text(format!("  {name}")), Cell::state(says, level, word), words]);
        }
        rows(&table, self.common)
    }

    fn decisions(&self, why: &Place) -> Vec<String> {
        let mut table = Table::new("why", self.lang, LINES);
        for decision in why.items("decisions") {
            let ago = Duration::from_millis(decision.get("ago_ms").as_u64().unwrap_or_default());
            let at = self.at(self.now().minus(ago));
            let what = Cell::text(decision.text("what").unwrap_or("-"));
            table.push(vec![Cell::text(format!("  {at}")), what]);
        }
        if table.is_empty() {
            return vec![format!("  {}", Tone::Dim.mark(self.say(Saying::NoDecisions)))];
        }
        rows(&table, self.common)
    }
}

/// A table without its head.
fn rows(table: &Table, common: &Common) -> Vec<String> {
    table.to_text(false, common.width()).lines().skip(1).map(str::to_owned).collect()
}

/// Why a worker is stopped, in words; a cause of a later version by its own.
pub(super) fn cause(value: &Value, lang: Lang) -> String {
    let cause: Option<Cause> = serde_json::from_value(value.clone()).ok();
    match cause.filter(|cause| *cause != Cause::Unknown) {
        Some(cause) => Saying::from(cause).in_lang(lang).to_owned(),
        None => value.as_str().unwrap_or("?").replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::paint::finish;
    use super::super::{Arguments, Command};
    use super::*;
    use clap::Parser;
    use serde_json::json;

    fn told(why: &Value, lang: &str) -> String {
        let document = json!({
            "node": "n", "worker": "w", "service": "pyannote #1", "now_us": 100_000_000_000_u64,
            "since_us": 99_900_000_000_u64, "last_exit": "exit code 1", "why": why,
        });
        let words = ["diarwatch", "why", "w", "--tz", "Asia/Tokyo", "--lang", lang];
        let arguments = Arguments::parse_from(words);
        assert!(matches!(arguments.command, Some(Command::Why(_))));
        let common = &arguments.common;
        let screen = Told { root: Place::root(&document), common, lang: common.lang() }.screen();
        finish(&screen, false)
    }

    fn waiting() -> Value {
        json!({
            "phase": "waiting", "pid": null, "views": [{ "view": "cpu", "says": "unknown", "words": "not seen" }],
            "uses_gpu": true, "gpu_memory_bytes": null, "gate_ms": 90_000, "startup_max_ms": 300_000,
            "restarts_in_window": 3, "restarts_max": 3, "window_ms": 600_000, "attempts": 4, "breaker_tries": 1,
            "next_start_in_ms": 240_000, "lease": "denied", "lease_denied": "below the floor", "held_by": "alice",
            "jobs_under_way": 2, "decisions": [{ "ago_ms": 60_000, "what": "the breaker opens" }],
        })
    }

    #[test]
    fn an_explanation_says_what_it_is_what_is_counted_and_what_comes_next() {
        let en = told(&waiting(), "en");
        for words in [
            "■ pyannote #1 (w) has ended and waits for its next start",
            "(1m40s ago)",
            "exit code 1",
            "3 of 3 restarts in 10m00s",
            "open: restarted too often",
            "in 4m00s",
            "denied: below the floor",
            "by alice",
            "2 accepted or running",
            "the driver does not tell",
            "○ unknown",
            "the breaker opens",
        ] {
            assert!(en.contains(words), "{words}:\n{en}");
        }
        let ja = told(&waiting(), "ja");
        for words in ["次の起動を待っています", "再起動の枠", "ブレーカー", "保留", "直近の判断", "○ 不明"]
        {
            assert!(ja.contains(words), "{words}:\n{ja}");
        }
    }

    #[test]
    fn a_stop_under_way_says_why_its_step_and_when_the_next_one_is_due() {
        let stopping = json!({ "phase": "stopping", "stopping": {
            "cause": "wedged", "reason": "it has answered nothing for 61 s", "patience": "short",
            "step": "terminating", "next_step_in_ms": 14_000,
        }});
        let en = told(&stopping, "en");
        let line =
            "it hangs (it has answered nothing for 61 s): SIGTERM was sent; the next step in 14s at most";
        assert!(en.contains(line), "{en}");
        assert!(told(&stopping, "ja").contains("SIGTERM 送信済み"));
    }

    #[test]
    fn whatever_a_document_holds_there_is_some_text() {
        for why in
            [json!(null), json!([]), json!({ "phase": 3, "views": [7], "decisions": "x", "stopping": [] })]
        {
            assert!(told(&why, "ja").contains("pyannote #1"));
        }
    }
}
