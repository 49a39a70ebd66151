//! What the driver knows of its container, and what of that the judge was told. Takes the engine's events,
//! its answers and the end of a process; gives news, each once, or says when the engine has to be asked.
//! Pure: the time since the agent's start is an argument.
//!
//! A run of a container is known by its id and the time of its begin, so that an event of an earlier run,
//! however late it comes, is never taken for one of this run.

use std::collections::VecDeque;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;

use super::end::{self, Known};
use crate::engine::{Container, Event, Health};
use crate::restart::{Exit, News, Process};

/// How long the engine may take to notice an end that the kernel told.
const DIE_WAIT: Duration = Duration::from_secs(2);
/// How long after an end that another's signal preceded the `stop` or `destroy` event may come.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// How long the engine may call a process alive that is gone.
const LIE_MAX: Duration = Duration::from_secs(10);
/// From one question to a lying engine to the next.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long after a signal was sent its event may come.
const SENT_WAIT: Duration = Duration::from_secs(10);
/// Signals of our own whose events are awaited.
const SENT_MAX: usize = 16;
/// Bytes of what a HEALTHCHECK said that are told.
const HEALTH_BYTES_MAX: usize = 240;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tell the news that is there.
    Tell,
    /// Ask the engine for the container.
    Ask,
    /// Wait for an event; at most until this uptime.
    Wait(Option<Duration>),
}

/// A run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: String,
    started: UnixMicros,
}

#[derive(Clone, Debug)]
struct Run {
    key: Key,
    pid: u32,
    /// Another had Docker send it a signal.
    killed: bool,
    oom: bool,
    /// The judge was told that its HEALTHCHECK fails.
    unhealthy: bool,
}

#[derive(Clone, Debug)]
struct Ending {
    seen: Duration,
    code: Option<i32>,
    stopped: bool,
    destroyed: bool,
    renamed: Option<String>,
    /// When the engine is asked for the rest.
    due: Duration,
}

/// The book of one container.
#[derive(Debug)]
pub struct Book {
    name: String,
    /// The run that the judge takes for running.
    run: Option<Run>,
    ending: Option<Ending>,
    /// The run of whose end the judge was told, and that end.
    over: Option<(Key, Exit)>,
    ask: bool,
    news: VecDeque<News>,
    /// Signals of our own whose events have not come, and when they were sent.
    sent: VecDeque<(i32, Duration)>,
}

impl Book {
    /// A book of the container of this name; nothing is known yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            run: None,
            ending: None,
            over: None,
            ask: false,
            news: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }

    /// What to do next.
    pub fn step(&self, now: Duration) -> Step {
        match &self.ending {
            _ if !self.news.is_empty() => Step::Tell,
            Some(ending) if ending.due <= now => Step::Ask,
            Some(ending) => Step::Wait(Some(ending.due)),
            None if self.ask => Step::Ask,
            None => Step::Wait(None),
        }
    }

    /// The next news.
    pub fn tell(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// The first process of the run that the judge takes for running, and the id of its container.
    pub fn run(&self) -> Option<(u32, &str)> {
        self.run.as_ref().map(|run| (run.pid, run.key.id.as_str()))
    }

    /// Whether this run was seen to run before.
    pub fn knows(&self, container: &Container) -> bool {
        self.run.as_ref().is_some_and(|run| Some(&run.key) == Key::of(container).as_ref())
    }

    /// What the judge was told of the end of the container's last run, if it was.
    pub fn told(&self, container: &Container) -> Option<&Exit> {
        let key = Key::of(container);
        self.over.as_ref().filter(|(over, _)| Some(over) == key.as_ref()).map(|(_, exit)| exit)
    }

    /// The judge is told by its own question that this runs.
    pub fn runs(&mut self, container: &Container, pid: u32) {
        self.news.clear();
        (self.ending, self.ask) = (None, false);
        if !self.knows(container) {
            self.run = Key::of(container).map(|key| Run::new(key, pid));
        }
        self.health(container.state.health.as_ref());
    }

    /// The judge is told by its own question that nothing runs.
    pub fn stopped(&mut self, container: Option<&Container>, exit: Option<Exit>) {
        self.news.clear();
        (self.ending, self.ask, self.run) = (None, false, None);
        self.over = container.and_then(Key::of).map(|key| (key, exit.unwrap_or_default()));
    }

    /// What is known of the end of the run that was known, or of one that was not.
    pub fn known(&self, container: &Container, by_hand: bool) -> Known {
        let run = self.run.as_ref().filter(|_| self.knows(container));
        Known {
            pid: run.map_or(0, |run| run.pid),
            code: Some(container.state.exit_code),
            oom: container.state.oom_killed || run.is_some_and(|run| run.oom),
            killed: run.is_some_and(|run| run.killed),
            by_hand,
        }
    }

    /// A signal of our own is about to be sent: its event is no other's doing.
    pub fn sends(&mut self, signal: i32, now: Duration) {
        self.sent.push_back((signal, now));
        if self.sent.len() > SENT_MAX {
            self.sent.pop_front();
        }
    }

    /// It was not sent after all.
    pub fn not_sent(&mut self, signal: i32) {
        if let Some(at) = self.sent.iter().rposition(|(sent, _)| *sent == signal) {
            self.sent.remove(at);
        }
    }

    /// The first process is gone, says the kernel.
    pub fn gone(&mut self, now: Duration) {
        if self.run.is_some() && self.ending.is_none() {
            self.ending = Some(Ending::new(now, now.saturating_add(DIE_WAIT)));
        }
    }

    /// Something happened that could not be read.
    pub fn missed(&mut self) {
        self.ask = true;
    }

    /// The engine is gone. What it told of an end last is no person's word: an engine that goes down stops
    /// its containers as a person does. The next look says what became of the run.
    pub fn lost(&mut self) {
        (self.ending, self.ask) = (None, false);
    }

    /// The engine tells of something.
    pub fn event(&mut self, event: &Event, now: Duration) {
        let by_name = event.name == self.name;
        let of_run =
            self.run.as_ref().is_some_and(|run| run.key.id == event.id && event.at >= run.key.started);
        let looked_at = ["start", "pause", "unpause", "health_status", "rename"];
        // What does not speak for itself is looked at: the container may be another now.
        self.ask |= by_name && (!of_run || looked_at.contains(&event.action.as_str()));
        if !of_run {
            return;
        }
        match event.action.as_str() {
            "kill" => self.killed(event.signal, now),
            "oom" => self.run.iter_mut().for_each(|run| run.oom = true),
            "die" => {
                let killed = self.run.as_ref().is_some_and(|run| run.killed);
                let ending = self.ending.get_or_insert_with(|| Ending::new(now, now));
                ending.code = ending.code.or(event.exit_code);
                ending.due = if killed && !ending.stopped { now.saturating_add(STOP_WAIT) } else { now };
            }
            "stop" => self.settle(now, |ending| ending.stopped = true),
            "destroy" => self.settle(now, |ending| ending.destroyed = true),
            "rename" if !by_name => {
                self.settle(now, |ending| ending.renamed = Some(event.name.clone()));
            }
            // It runs anew: there is nothing more to wait for.
            "start" if self.ending.is_some() => self.settle(now, |_| {}),
            _ => {}
        }
    }

    /// The engine's answer to [`Step::Ask`]: the container, and how long its process runs; none when there
    /// is no container of the name.
    ///
    /// # Errors
    /// When the answer cannot be: for a person.
    pub fn said(&mut self, said: Option<(&Container, Duration)>, now: Duration) -> Result<(), String> {
        self.ask = false;
        let (container, age) = (said.map(|(container, _)| container), said.map(|(_, age)| age));
        let key = container.and_then(Key::of);
        let process = container.and_then(Container::process);
        if let Some(run) = self.run.take() {
            let same = key.as_ref() == Some(&run.key);
            let renamed = self.ending.as_ref().is_some_and(|ending| ending.renamed.is_some());
            if same && process.is_some() && !renamed {
                self.run = Some(run);
                self.health(container.and_then(|container| container.state.health.as_ref()));
                return self.still_runs(now);
            }
            let ending = self.ending.take();
            let exit = run.end(ending, container, same);
            self.over = Some((run.key, exit.clone()));
            self.news.push_back(News::Exited(exit));
        }
        let (Some(container), Some(key)) = (container, key) else { return Ok(()) };
        if let Some(pid) = process {
            self.begin(key, Process { pid, age: age.unwrap_or_default() }, container);
        } else if self.told(container).is_none() && !container.state.paused {
            // It was started by another and ended before it was looked at.
            let exit = end::exit(self.known(container, false), Some(container));
            self.over = Some((key, exit.clone()));
            self.news.push_back(News::Exited(exit));
        }
        Ok(())
    }

    fn begin(&mut self, key: Key, process: Process, container: &Container) {
        self.run = Some(Run::new(key, process.pid));
        self.news.push_back(News::Started(process));
        self.health(container.state.health.as_ref());
    }

    /// The engine calls the run alive; with an end that the kernel told, it is asked again for a while.
    fn still_runs(&mut self, now: Duration) -> Result<(), String> {
        let Some(ending) = &mut self.ending else { return Ok(()) };
        if now.saturating_sub(ending.seen) < LIE_MAX {
            ending.due = now.saturating_add(ASK_AGAIN);
            return Ok(());
        }
        let pid = self.run.as_ref().map_or(0, |run| run.pid);
        Err(stale(&self.name, pid))
    }

    fn health(&mut self, health: Option<&Health>) {
        let Some((run, health)) = self.run.as_mut().zip(health) else { return };
        let news = match (health.status.as_str(), run.unhealthy) {
            ("unhealthy", false) => {
                let said = health.last(HEALTH_BYTES_MAX);
                let said = if said.is_empty() { String::from("it said nothing") } else { said };
                let reason = format!("its HEALTHCHECK failed {} times: {said}", health.failing_streak);
                News::Health { healthy: false, reason }
            }
            ("healthy", true) => {
                News::Health { healthy: true, reason: String::from("its HEALTHCHECK succeeds") }
            }
            _ => return,
        };
        run.unhealthy = !run.unhealthy;
        self.news.push_back(news);
    }

    fn killed(&mut self, signal: Option<i32>, now: Duration) {
        self.sent.retain(|(_, at)| now.saturating_sub(*at) < SENT_WAIT);
        if let Some(at) = self.sent.iter().position(|(sent, _)| Some(*sent) == signal) {
            self.sent.remove(at);
        } else if let Some(run) = &mut self.run {
            run.killed = true;
        }
    }

    fn settle(&mut self, now: Duration, note: impl FnOnce(&mut Ending)) {
        let ending = self.ending.get_or_insert_with(|| Ending::new(now, now));
        note(ending);
        ending.due = now;
    }
}

impl Key {
    fn of(container: &Container) -> Option<Self> {
        Some(Self { id: container.id.clone(), started: container.started()? })
    }
}

impl Run {
    fn new(key: Key, pid: u32) -> Self {
        Self { key, pid, killed: false, oom: false, unhealthy: false }
    }

    /// How it ended; `same` when the container is still at this run.
    fn end(&self, ending: Option<Ending>, container: Option<&Container>, same: bool) -> Exit {
        let of_run = container.filter(|_| same);
        let replaced = container.is_none_or(|container| container.id != self.key.id);
        if same && container.is_some_and(|container| container.state.paused) {
            return end::set_aside(self.pid, String::from("paused by hand"));
        }
        let Some(ending) = ending else {
            if replaced {
                return end::set_aside(self.pid, String::from("its container was removed by hand"));
            }
            return self.exit(of_run.map(|container| container.state.exit_code), false, container, same);
        };
        if let Some(name) = ending.renamed {
            return end::set_aside(self.pid, format!("its container was renamed to {name} by hand"));
        }
        let by_hand = ending.stopped || self.killed && (ending.destroyed || replaced);
        let code = ending.code.or_else(|| of_run.map(|container| container.state.exit_code));
        self.exit(code, by_hand, container, same)
    }

    fn exit(&self, code: Option<i32>, by_hand: bool, container: Option<&Container>, same: bool) -> Exit {
        let of_run = container.filter(|_| same);
        let oom = self.oom || of_run.is_some_and(|container| container.state.oom_killed);
        let known = Known { pid: self.pid, code, oom, killed: self.killed, by_hand };
        let mut exit = end::exit(known, of_run);
        // The engine was faster than the question.
        let again = container
            .is_some_and(|container| !same && container.id == self.key.id && container.has_restart_policy());
        exit.manager_restarts |= again && !by_hand;
        exit
    }
}

impl Ending {
    fn new(seen: Duration, due: Duration) -> Self {
        Self { seen, code: None, stopped: false, destroyed: false, renamed: None, due }
    }
}

/// An engine that calls a dead process alive.
pub fn stale(name: &str, pid: u32) -> String {
    format!(
        "the Docker Engine says that container {name} runs, but its process {pid} is not there; restart the \
         engine (does the agent see the host's processes?)"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    /// Seconds of a day in 2026 for begins and events.
    fn at(second: u64) -> UnixMicros {
        UnixMicros::from_rfc3339("2026-01-01T00:00:00Z").unwrap().plus(Duration::from_secs(second))
    }

    fn container(id: &str, began: u64, state: &str) -> Container {
        let began = at(began);
        Container::of(&format!(
            r#"{{"Id":"{id}","State":{{"StartedAt":"{began}",{state}}},
                "HostConfig":{{"RestartPolicy":{{"Name":"always"}}}}}}"#
        ))
    }

    fn alive(id: &str, began: u64, pid: u32) -> Container {
        container(id, began, &format!(r#""Running":true,"Pid":{pid}"#))
    }

    fn ended(id: &str, began: u64, code: i32) -> Container {
        container(id, began, &format!(r#""ExitCode":{code}"#))
    }

    fn event(action: &str, id: &str, second: u64) -> Event {
        let signal = (action == "kill").then_some(15);
        let exit_code = (action == "die").then_some(143);
        Event { action: action.into(), id: id.into(), name: "w".into(), exit_code, signal, at: at(second) }
    }

    /// A book of a container that runs since second 10 as process 7.
    fn book() -> Book {
        let mut book = Book::new("w");
        book.runs(&alive("0a", 10, 7), 7);
        book
    }

    /// What is told when the engine says this.
    fn told(book: &mut Book, said: Option<&Container>, now: Duration) -> Vec<News> {
        assert_eq!(book.step(now), Step::Ask);
        book.said(said.map(|said| (said, Duration::ZERO)), now).unwrap();
        std::iter::from_fn(|| book.tell()).collect()
    }

    fn exit(news: &[News]) -> &Exit {
        match news.first() {
            Some(News::Exited(exit)) => exit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stop_counts_as_by_hand_only_with_its_event_which_is_waited_for() {
        let mut book = book();
        book.event(&event("kill", "0a", 20), NOW);
        book.event(&event("die", "0a", 20), NOW);
        assert_eq!(book.step(NOW), Step::Wait(Some(NOW + STOP_WAIT)));
        book.event(&event("stop", "0a", 21), NOW);
        let news = told(&mut book, Some(&ended("0a", 10, 143)), NOW);
        assert!(exit(&news).by_hand);
        assert_eq!(exit(&news).reason, "stopped by hand (signal 15 (SIGTERM))");
    }

    #[test]
    fn a_kill_by_another_without_a_stop_is_a_crash_after_a_while() {
        let mut book = book();
        book.event(&event("kill", "0a", 20), NOW);
        book.event(&event("die", "0a", 20), NOW);
        let news = told(&mut book, Some(&ended("0a", 10, 143)), NOW + STOP_WAIT);
        assert!(!exit(&news).by_hand);
    }

    #[test]
    fn what_an_engine_told_while_it_went_down_is_no_stop_by_hand_and_asks_for_nothing() {
        let mut book = book();
        for action in ["kill", "die", "stop"] {
            book.event(&event(action, "0a", 20), NOW);
        }
        book.lost();
        assert_eq!(book.step(NOW), Step::Wait(None));
        let after = ended("0a", 10, 0);
        assert!(book.knows(&after) && book.told(&after).is_none(), "the next look finds a run that ended");
    }

    #[test]
    fn the_end_of_what_the_agent_sent_is_told_without_a_wait() {
        let mut book = book();
        book.sends(15, NOW);
        book.event(&event("kill", "0a", 20), NOW);
        book.event(&event("die", "0a", 20), NOW);
        assert!(!exit(&told(&mut book, Some(&ended("0a", 10, 143)), NOW)).by_hand);
        // A second signal, of another, is not covered by the first.
        let mut book = self::book();
        book.sends(15, NOW);
        book.event(&event("kill", "0a", 20), NOW);
        book.event(&event("kill", "0a", 20), NOW);
        book.event(&event("die", "0a", 20), NOW);
        assert_eq!(book.step(NOW), Step::Wait(Some(NOW + STOP_WAIT)));
    }

    #[test]
    fn events_of_another_container_or_of_an_earlier_run_are_none_of_this_run() {
        let mut book = book();
        book.event(&Event { name: "w0".into(), ..event("die", "0b", 20) }, NOW);
        assert_eq!(book.step(NOW), Step::Wait(None));
        book.event(&event("die", "0a", 9), NOW);
        assert_eq!(told(&mut book, Some(&alive("0a", 10, 7)), NOW), []);
        assert_eq!(book.step(NOW), Step::Wait(None), "no end is waited for");
    }

    #[test]
    fn an_end_that_only_the_kernel_told_waits_for_its_exit_code() {
        let mut book = book();
        book.gone(NOW);
        assert_eq!(book.step(NOW), Step::Wait(Some(NOW + DIE_WAIT)));
        let news = told(&mut book, Some(&ended("0a", 10, 1)), NOW + DIE_WAIT);
        assert_eq!((exit(&news).pid, exit(&news).code), (7, Some(1)));
    }

    #[test]
    fn an_engine_that_calls_a_dead_process_alive_is_not_believed_for_ever() {
        let (mut book, mut now) = (book(), NOW);
        let alive = alive("0a", 10, 7);
        book.gone(now);
        let error = loop {
            match book.step(now) {
                Step::Ask => {
                    if let Err(error) = book.said(Some((&alive, Duration::ZERO)), now) {
                        break error;
                    }
                }
                Step::Wait(Some(due)) => now = due,
                other => panic!("{other:?}"),
            }
        };
        assert!(error.contains("its process 7 is not there; restart the engine"), "{error}");
        assert!(now - NOW < LIE_MAX + DIE_WAIT);
    }

    #[test]
    fn a_start_of_our_own_is_no_news_and_one_by_another_is() {
        let mut book = book();
        book.event(&event("start", "0a", 11), NOW);
        assert_eq!(told(&mut book, Some(&alive("0a", 10, 7)), NOW), []);
        book.event(&event("start", "0a", 30), NOW);
        let news = told(&mut book, Some(&alive("0a", 30, 8)), NOW);
        assert!(
            matches!(news.as_slice(), [News::Exited(_), News::Started(Process { pid: 8, .. })]),
            "{news:?}"
        );
        assert!(exit(&news).manager_restarts, "its policy did it");
    }

    #[test]
    fn one_that_another_started_and_that_ended_at_once_is_told_as_an_end() {
        let mut book = book();
        book.stopped(Some(&ended("0a", 10, 0)), Some(Exit { by_hand: true, ..Exit::default() }));
        book.event(&event("start", "0a", 30), NOW);
        book.event(&event("die", "0a", 31), NOW);
        let after = ended("0a", 30, 2);
        assert_eq!(exit(&told(&mut book, Some(&after), NOW)).code, Some(2));
        book.missed();
        assert_eq!(told(&mut book, Some(&after), NOW), [], "once");
    }

    #[test]
    fn a_container_that_removes_itself_when_it_crashes_was_not_removed_by_hand() {
        let mut book = book();
        book.event(&event("die", "0a", 20), NOW);
        book.event(&event("destroy", "0a", 20), NOW);
        assert!(!exit(&told(&mut book, None, NOW)).by_hand);
        let mut book = self::book();
        book.event(&event("kill", "0a", 20), NOW);
        book.event(&event("die", "0a", 20), NOW);
        book.event(&event("destroy", "0a", 20), NOW);
        assert!(exit(&told(&mut book, None, NOW)).by_hand);
    }

    /// What can happen to a container, and what the book is given of it.
    #[derive(Clone, Debug)]
    enum Happens {
        Event(&'static str, bool),
        Gone,
        Unreadable,
        Sends,
        Later(u64),
        Answer(usize),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        let actions =
            ["start", "die", "stop", "kill", "oom", "health_status", "destroy", "rename", "pause", "unpause"];
        prop_oneof![
            8 => (prop::sample::select(actions.to_vec()), any::<bool>()).prop_map(|(a, same)| Happens::Event(a, same)),
            1 => Just(Happens::Gone),
            1 => Just(Happens::Unreadable),
            1 => Just(Happens::Sends),
            3 => (0_u64..4_000).prop_map(Happens::Later),
            8 => (0_usize..9).prop_map(Happens::Answer),
        ]
    }

    /// Every way in which the engine may answer.
    fn answer(number: usize, began: u64) -> Option<Container> {
        Some(match number {
            0 | 1 => alive("0a", began, 7),
            2 => alive("0b", began, 8),
            3 => ended("0a", began, 0),
            4 => ended("0a", began, 137),
            5 => container("0a", began, r#""Running":true,"Restarting":true,"ExitCode":1"#),
            6 => container("0a", began, r#""Running":true,"Paused":true,"Pid":7"#),
            7 => {
                container("0a", began, r#""Running":true,"Pid":7,"Health":{"Status":"unhealthy","Log":null}"#)
            }
            _ => return None,
        })
    }

    proptest! {
        /// Whatever an engine says, in whatever order: starts and ends take turns, an end names the process
        /// that was told to run, what is by hand is not restarted by the engine, and the book waits for
        /// nothing without an end.
        #[test]
        fn whatever_the_engine_says_starts_and_ends_take_turns(
            steps in prop::collection::vec((happens(), 0_u64..3), 0..120),
        ) {
            let (mut book, mut now, mut second) = (book(), NOW, 10);
            let mut running = Some(7);
            for (happens, later) in steps {
                second += later;
                match happens {
                    Happens::Event(action, same) => {
                        let id = if same { "0a" } else { "0b" };
                        book.event(&event(action, id, second), now);
                    }
                    Happens::Gone => book.gone(now),
                    Happens::Unreadable => book.missed(),
                    Happens::Sends => book.sends(15, now),
                    Happens::Later(ms) => now += Duration::from_millis(ms),
                    Happens::Answer(number) => {
                        if book.step(now) != Step::Ask {
                            continue;
                        }
                        let said = answer(number, second);
                        // A lie that lasts is an error, which loses the engine.
                        if book.said(said.as_ref().map(|said| (said, Duration::ZERO)), now).is_err() {
                            let alive = alive("0a", second, 7);
                            book.runs(&alive, 7);
                            running = Some(7);
                        }
                        while let Some(news) = book.tell() {
                            match news {
                                News::Started(process) => {
                                    prop_assert_eq!(running.replace(process.pid), None);
                                }
                                News::Exited(exit) => {
                                    prop_assert!(running.is_some() || exit.pid == 0, "{:?}", exit);
                                    prop_assert_eq!(exit.pid, running.take().unwrap_or(0));
                                    prop_assert!(!(exit.by_hand && exit.manager_restarts));
                                    prop_assert!(!exit.reason.is_empty());
                                }
                                News::Health { .. } => prop_assert!(running.is_some()),
                                News::Lost { .. } => prop_assert!(false, "the driver tells that"),
                            }
                        }
                        prop_assert_eq!(book.run().map(|(pid, _)| pid), running);
                    }
                }
                let bound = now + DIE_WAIT.max(STOP_WAIT);
                prop_assert!(!matches!(book.step(now), Step::Wait(Some(due)) if due > bound));
                prop_assert!(book.sent.len() <= SENT_MAX && book.news.len() <= 4);
            }
        }
    }
}
