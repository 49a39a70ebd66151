//! `diarwatch worker restart|drain|resume|hold|release`: what a person wants of a worker. Takes a name and a
//! reason; says first what a restart would cost, and asks. Gives what was done, or who refused it and why.
//!
//! The agent answers an order when its worker's task has taken it, for which it is given longer than for a
//! question; `--wait` follows the worker until it is ready again.

mod remote;

use std::io::{BufRead, IsTerminal, Read, Write, stderr, stdin};
use std::time::Duration;

use clap::Args;
use diarwatch_shared::clock;
use diarwatch_shared::daemon::talk;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::workers::Saying;
use diarwatch_shared::texts::{Lang, Text, fill};
use serde_json::{Value, json};

use super::answer::{Answer, Screen, show};
use super::common::Common;
use super::output::{Cell, Column, Table};
use super::paint::Tone;
use super::values::{Place, count, span, wait};
use super::worker;
use crate::cli::ask::{Trouble, ask};
use crate::judge::ladder::GRACE_MARGIN;
use crate::judge::order::name;
use crate::observe::{ORDER_TIMEOUT, REASON_BYTES_MAX};
use crate::orders::Verb;

/// Beyond what an order may take, for its way there and back.
const WAY: Duration = Duration::from_secs(1);
/// How long `--wait` waits where `--timeout` does not say: a drain, a grace and a start at their longest.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Between two looks of `--wait`.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// For so long the agent's board may still show how the worker was before the order.
const STALE: Duration = Duration::from_secs(3);
/// Bytes of a person's answer that are read.
const YES_BYTES_MAX: u64 = 64;

/// What every order takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The worker's name.
    name: String,
    /// Why; it stands in the event and in the log.
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: Option<String>,
    #[command(flatten)]
    far: remote::Far,
}

/// What a restart takes.
#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    order: Options,
    /// Wait for no job: those under way are lost.
    #[arg(long)]
    now: bool,
    /// Do not ask, whatever would be lost.
    #[arg(short, long)]
    yes: bool,
    /// Stay until it is ready again, for as long as `--timeout` says (an hour without it).
    #[arg(long)]
    wait: bool,
}

const COLUMNS: &[Column] = &[
    Column::new("node", Text::Node),
    Column::new("worker", Text::Worker),
    Column::new("verb", Text::EventWorkerOrder),
    Column::new("done", Text::Detail),
    Column::number("jobs_under_way", Text::QueueProcessing),
    Column::machine("ready"),
];

/// Runs every order but a restart.
pub(super) fn plain(verb: Verb, options: &Options, common: &Common) -> Exit {
    show(common, || {
        let done = send(common, verb, options, false)?;
        Ok(answer(&done, None, common.lang()))
    })
}

/// Runs a restart.
pub(super) fn restart(options: &Restart, common: &Common) -> Exit {
    show(common, || {
        let lang = common.lang();
        if common.fleet {
            remote::check_restart(options.yes, options.wait, &options.order.name)?;
            let done = send(common, Verb::Restart, &options.order, options.now)?;
            return Ok(answer(&done, None, lang));
        }
        let known = why(common, "worker restart", &options.order.name)?;
        if !options.yes
            && let Some(stake) = stake(&known, options.now, lang, || settings(common, &options.order.name))
        {
            confirm(&stake, &options.order.name, lang)?;
        }
        let begun = clock::uptime();
        let before = Before {
            pid: known.pointer("/why/pid").and_then(Value::as_u64),
            since_us: known.get("since_us").and_then(Value::as_u64),
        };
        let done = send(common, Verb::Restart, &options.order, options.now)?;
        if !options.wait {
            return Ok(answer(&done, None, lang));
        }
        follow(common, &options.order.name, &before)?;
        Ok(answer(&done, Some(clock::uptime().saturating_sub(begun)), lang))
    })
}

/// What the agent knows of a worker; `words` are those of the command that asks.
pub(super) fn why(common: &Common, words: &str, name: &str) -> Result<Value, Trouble> {
    common.ask(&json!({ "ask": "why", "worker": name })).map_err(|trouble| match trouble.exit {
        Exit::Unknown => worker::not_found(common, words, name),
        _ => trouble,
    })
}

/// Gives an order to this node's agent, or through the aggregator to that of another.
fn send(common: &Common, verb: Verb, options: &Options, now: bool) -> Result<Value, Trouble> {
    let name_of_worker = &options.name;
    if common.fleet {
        return remote::send(
            common,
            &options.far,
            name(verb),
            name_of_worker,
            now,
            options.reason.as_deref(),
        );
    }
    options.far.check_local()?;
    let question = json!({
        "ask": "order", "worker": name_of_worker, "verb": verb, "now": now, "reason": options.reason,
    });
    ask(&common.socket, &question, common.timeout.max(ORDER_TIMEOUT + WAY)).map_err(|trouble| {
        let words = format!("worker {}", name(verb));
        let hint = match trouble.exit {
            Exit::Unknown => return worker::not_found(common, &words, name_of_worker),
            Exit::NoPermission if trouble.hint.is_none() => {
                format!("sudo diarwatch {words} {name_of_worker}")
            }
            Exit::Refused => format!("diarwatch why {name_of_worker}"),
            Exit::Temporary => format!("diarwatch why {name_of_worker}; then the same again"),
            _ => return trouble,
        };
        Trouble { hint: Some(hint), ..trouble }
    })
}

/// How long a worker's jobs are waited for, and how long it has after SIGTERM, as its configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Patience {
    drain: Option<String>,
    grace: Option<String>,
}

/// Of the configuration in effect; what it does not say is not known.
fn settings(common: &Common, name: &str) -> Patience {
    let document = common.ask(&json!({ "ask": "config" })).unwrap_or_default();
    let settings = document.get("settings").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of = |setting: &Value, key: &str| setting.get(key).and_then(Value::as_str).map(str::to_owned);
    let named = |setting: &&Value| {
        let key = of(setting, "key").unwrap_or_default();
        key.starts_with("worker[") && key.ends_with("].name") && of(setting, "value").as_deref() == Some(name)
    };
    let Some(place) = settings.iter().find(named).and_then(|setting| of(setting, "key")) else {
        return Patience::default();
    };
    let place = place.trim_end_matches("name");
    let value = |key: &str| {
        let whole = format!("{place}{key}");
        settings
            .iter()
            .find(|setting| of(setting, "key").as_ref() == Some(&whole))
            .and_then(|s| of(s, "value"))
    };
    Patience { drain: value("stop.drain_max"), grace: value("stop_grace") }
}

/// What a restart would cost; none when nothing can be lost, or the agent will refuse it anyway.
fn stake(known: &Value, now: bool, lang: Lang, settings: impl FnOnce() -> Patience) -> Option<String> {
    let root = Place::root(known);
    let why = root.at("why");
    let jobs = why.get("jobs_under_way").as_u64();
    let stopping = why.text("phase") == Some("stopping") && !now;
    if why.get("pid").is_null() || jobs == Some(0) || why.text("held_by").is_some() || stopping {
        return None;
    }
    let Patience { drain, grace } = settings();
    let longest = Duration::from_millis(why.get("longest_job_ms").as_u64().unwrap_or_default());
    let grace = grace.unwrap_or_else(|| span((longest + GRACE_MARGIN).as_secs_f64()));
    let drain = drain.unwrap_or_else(|| "?".to_owned());
    let say = |saying: Saying| saying.in_lang(lang);
    Some(match (jobs, now) {
        (Some(jobs), false) => fill(say(Saying::RestartWaits), &[&jobs, &drain, &grace]),
        (Some(jobs), true) => fill(say(Saying::RestartLoses), &[&jobs]),
        (None, false) => fill(say(Saying::RestartMayLose), &[&grace]),
        (None, true) => say(Saying::RestartMayLoseNow).to_owned(),
    })
}

/// Asks a person; where there is none, `--yes` has to stand for one.
fn confirm(stake: &str, name: &str, lang: Lang) -> Result<(), Trouble> {
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        let hint = format!("diarwatch worker restart {name} --yes");
        return Err(Trouble::new(Exit::Usage, stake, hint));
    }
    talk(stake);
    // A prompt that cannot be written is answered by nobody, which is a no.
    drop(stderr().write_all(fill(Saying::RestartAsk.in_lang(lang), &[&name]).as_bytes()));
    let mut line = String::new();
    let read = stdin().lock().take(YES_BYTES_MAX).read_line(&mut line);
    match line.trim().to_lowercase().as_str() {
        "y" | "yes" | "はい" if read.is_ok() => Ok(()),
        _ => {
            let problem = fill(Saying::RestartNotDone.in_lang(lang), &[&name]);
            Err(Trouble { problem, hint: None, exit: Exit::Refused })
        }
    }
}

/// How a worker was before it was restarted.
struct Before {
    pid: Option<u64>,
    since_us: Option<u64>,
}

/// Follows a worker until another process of it is ready, and tells where it is meanwhile.
fn follow(common: &Common, name: &str, before: &Before) -> Result<(), Trouble> {
    let patience = if common.timeout_given { common.timeout } else { WAIT_MAX };
    let begun = clock::uptime();
    let mut told = String::new();
    loop {
        let waited = clock::uptime().saturating_sub(begun);
        let document = common.ask(&json!({ "ask": "status" }));
        let workers = document.as_ref().map(|document| Place::root(document).items("workers"));
        let found = workers.iter().flatten().find(|worker| worker.text("worker") == Some(name));
        let fresh = |worker: &&Place| worker.get("since_us").as_u64() != before.since_us || waited >= STALE;
        let mut line = String::from("-");
        if let Some(worker) = found.filter(fresh) {
            if ready_anew(worker, name, before)? {
                return Ok(());
            }
            line = where_it_is(worker, common.lang());
            if line != told {
                talk(&format!("{name}: {line}"));
                told.clone_from(&line);
            }
        }
        if waited >= patience {
            document?;
            let problem = format!("{name} was not ready within {}: {line}", span(patience.as_secs_f64()));
            return Err(Trouble::new(Exit::Temporary, problem, format!("diarwatch why {name}")));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Whether another process of it is ready; why it will not be so soon, when that is known.
fn ready_anew(worker: &Place, name: &str, before: &Before) -> Result<bool, Trouble> {
    let hint = || format!("diarwatch why {name}");
    let last_exit = worker.text("last_exit").unwrap_or("-");
    if worker.text("phase") == Some("left_alone") {
        let why = worker.text("reason").unwrap_or(last_exit);
        return Err(Trouble::new(Exit::Refused, format!("{name} is left alone: {why}"), hint()));
    }
    let open = worker.get("breaker_open").as_bool() == Some(true);
    if let Some(next) = worker.get("next_start_in_ms").as_f64().filter(|_| open) {
        let problem = format!("{name} was restarted too often, next try in {}: {last_exit}", wait(next));
        return Err(Trouble::new(Exit::Temporary, problem, hint()));
    }
    let pid = worker.get("pid").as_u64();
    Ok(worker.text("phase") == Some("ready") && pid.is_some() && pid != before.pid)
}

/// A worker's state, with why it is not ready.
fn where_it_is(worker: &Place, lang: Lang) -> String {
    let word = worker::level(worker).1.in_lang(lang);
    let verdict = worker.at("last_probe").text("verdict").filter(|verdict| *verdict != "ready");
    let dead = worker.text("last_exit").filter(|_| worker.get("pid").is_null());
    let why = worker.text("reason").or(dead).or(verdict);
    why.map_or_else(|| word.to_owned(), |why| format!("{word} ({why})"))
}

/// What was done, in every form; `ready_after` when that was waited for.
fn answer(document: &Value, ready_after: Option<Duration>, lang: Lang) -> Answer {
    let place = Place::root(document);
    let done = place.text("done").unwrap_or("-");
    let said = done_in(done, lang);
    let mut rows = Table::new("order", lang, COLUMNS);
    rows.push(vec![
        place.word("node"),
        place.word("worker"),
        place.word("verb"),
        Cell::new(done, said),
        place.cell("jobs_under_way", count),
        ready_after.map_or_else(Cell::none, |_| Cell::new(true, "true")),
    ]);
    let mut text =
        format!("{}: {}", Tone::Strong.mark(place.text("worker").unwrap_or("?")), Tone::Plain.mark(said));
    if let Some(jobs) = place.get("jobs_under_way").as_u64() {
        let jobs = fill(Saying::JobsUnderWay.in_lang(lang), &[&jobs]);
        text.push_str(&Tone::Plain.mark(&format!(" ({}: {jobs})", Saying::Jobs.in_lang(lang))));
    }
    if let Some(after) = ready_after {
        let ready = fill(Saying::ReadyAgain.in_lang(lang), &[&span(after.as_secs_f64())]);
        text.push_str(&Tone::Good.mark(&format!(" ● {ready}")));
    }
    let document = rows.to_documents().into_iter().next().unwrap_or_default();
    Answer { document, screen: Screen::Text(text), rows: Some(rows), exit: Exit::Ok }
}

/// What an agent says was done, in a language; what a later one says, in its own words.
fn done_in(done: &str, lang: Lang) -> &str {
    let known = Saying::DONE.into_iter().find(|saying| saying.in_lang(Lang::En) == done);
    known.map_or(done, |saying| saying.in_lang(lang))
}

fn parse_reason(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err(String::from("it is empty; say why, or leave it out")),
        length if length > REASON_BYTES_MAX => Err(format!("it has {length} bytes of {REASON_BYTES_MAX}")),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience { drain: Some("30m".into()), grace: None }
    }

    fn asked(why: &Value, now: bool) -> Option<String> {
        stake(&json!({ "why": why }), now, Lang::En, patience)
    }

    #[test]
    fn a_restart_says_what_it_costs_and_asks_only_where_something_can_be_lost() {
        let busy = json!({ "phase": "ready", "pid": 7, "jobs_under_way": 3, "longest_job_ms": 60_000 });
        let said = asked(&busy, false).unwrap();
        assert!(said.starts_with("3 jobs accepted or running would be waited for up to 30m"), "{said}");
        assert!(said.contains("1m30s later") && said.contains("with --now they are lost"), "{said}");
        assert_eq!(asked(&busy, true).unwrap(), "--now: 3 jobs accepted or running are lost");
        let untold = json!({ "phase": "ready", "pid": 7, "jobs_under_way": null });
        let said = asked(&untold, false).unwrap();
        assert!(said.contains("not known") && said.contains("30s after SIGTERM"), "{said}");
        for nothing in [
            json!({ "phase": "ready", "pid": 7, "jobs_under_way": 0 }),
            json!({ "phase": "waiting", "pid": null, "jobs_under_way": 3 }),
            json!({ "phase": "ready", "pid": 7, "jobs_under_way": 3, "held_by": "alice" }),
            json!({ "phase": "stopping", "pid": 7, "jobs_under_way": 3 }),
        ] {
            assert_eq!(asked(&nothing, false), None, "{nothing}");
        }
    }

    #[test]
    fn only_another_process_that_is_ready_ends_the_wait_and_what_will_not_come_soon_is_told() {
        let before = Before { pid: Some(7), since_us: Some(1) };
        let of = |worker: Value| ready_anew(&Place::root(&worker), "w", &before);
        assert_eq!(of(json!({ "phase": "ready", "pid": 7 })), Ok(false), "the old one");
        assert_eq!(of(json!({ "phase": "starting", "pid": 8 })), Ok(false));
        assert_eq!(of(json!({ "phase": "ready", "pid": 8 })), Ok(true));
        let alone = of(json!({ "phase": "left_alone", "reason": "it ended while it is held" })).unwrap_err();
        assert_eq!(
            (alone.exit, alone.problem.as_str()),
            (Exit::Refused, "w is left alone: it ended while it is held")
        );
        let open =
            of(json!({ "phase": "waiting", "breaker_open": true, "next_start_in_ms": 240_000 })).unwrap_err();
        assert!(open.exit == Exit::Temporary && open.problem.contains("next try in 4m00s"), "{open:?}");
    }

    #[test]
    fn what_was_done_is_said_in_the_readers_language_and_a_later_agents_word_as_it_is() {
        assert_eq!(done_in("it is stopped and started again", Lang::Ja), "停止して起動し直します");
        assert_eq!(done_in("levitated", Lang::Ja), "levitated");
    }
}
