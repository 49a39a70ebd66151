//! A worker's log in a container. Takes the stream of the Docker Engine; gives lines with the engine's
//! own time, and tells when the container stopped or was started anew, which the engine knows without
//! a pattern. The engine reads its log from disk, so a slow reader here makes it wait and the
//! container never does.
//!
//! After a break the stream is asked for from a little before the last line on, and what was seen is
//! passed over by its time and text: no line is missed, none counts twice.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::backoff;
use diarwatch_shared::clock::{self, UnixMicros};
use tokio::time::timeout;

use super::frames::Frames;
use super::sink::{Sink, Take as _};
use super::stamp::Stamp;
use super::{BEHIND_MAX, READ_BACK_TIMEOUT, RETRY};
use crate::engine::{self, Engine};

/// From one question whether the container still runs to the next.
const INSPECT_INTERVAL: Duration = Duration::from_secs(10);
/// A stream that lasted so long did not fail at its start.
const RAN_WELL: Duration = Duration::from_secs(60);
/// The engine notes a start a little after the first lines may be written.
const STARTING: Duration = Duration::from_secs(1);
/// stdout and stderr are stamped before they are put in order: lines of two streams that come together
/// may stand in the other order.
pub(crate) const DISORDER: Duration = Duration::from_millis(5);
/// The newest lines that are known again after a break.
const SEEN_MAX: usize = 512;

/// Reads the log of a container for ever.
pub async fn follow(name: &str, socket: &Path, read_back: Duration, mut sink: Sink) {
    match Engine::new(socket, name) {
        Ok(engine) => Container::new(engine, name, read_back, sink).run().await,
        Err(error) => {
            sink.problem(format!("prepare the client of the Docker Engine: {error}; restart the agent"));
            std::future::pending::<()>().await;
        }
    }
}

struct Container {
    engine: Engine,
    name: String,
    sink: Sink,
    caught_up: bool,
    since: UnixMicros,
    /// When the container was started whose jobs are counted; none while it does not run.
    started: Option<UnixMicros>,
    seen: Seen,
}

/// What matters of a container to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inspected {
    running: bool,
    started: UnixMicros,
    terminal: bool,
}

impl From<engine::Container> for Inspected {
    fn from(said: engine::Container) -> Self {
        let started = said.started().unwrap_or_default();
        Self { running: said.state.running, started, terminal: said.has_terminal() }
    }
}

/// Why the stream is not read any more.
enum End {
    /// The engine ended it.
    Ended,
    /// The container is another one now, or stopped.
    Changed,
    /// It is too far behind: what is between is skipped.
    Behind,
}

impl Container {
    fn new(engine: Engine, name: &str, read_back: Duration, sink: Sink) -> Self {
        Self {
            engine,
            name: name.to_owned(),
            sink,
            caught_up: false,
            since: clock::now().minus(read_back),
            started: None,
            seen: Seen::default(),
        }
    }

    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let began = clock::uptime();
            let result = self.read().await;
            if clock::uptime().saturating_sub(began) > RAN_WELL {
                failures = 0;
            }
            match result {
                Ok(End::Behind) => {
                    let now = clock::now();
                    self.sink.skipped(now);
                    self.since = now;
                    self.seen = Seen::default();
                }
                Ok(End::Changed | End::Ended) => {}
                Err(problem) => self.sink.problem(problem),
            }
            let jitter = backoff::unit(clock::now().0);
            tokio::time::sleep(RETRY.wait(failures, jitter)).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn read(&mut self) -> Result<End, String> {
        let inspected = Inspected::from(self.engine.inspect().await?);
        self.see(inspected)?;
        if !self.caught_up {
            let back = timeout(READ_BACK_TIMEOUT, self.pump(inspected, false)).await;
            self.caught_up = true;
            match back {
                Ok(Ok(_)) => {}
                Ok(Err(problem)) => return Err(problem),
                Err(_) => return Ok(End::Behind),
            }
        }
        self.pump(inspected, true).await
    }

    /// Takes in whether the container runs, and whether it is the one that ran before.
    fn see(&mut self, inspected: Inspected) -> Result<(), String> {
        let now = clock::now();
        if !inspected.running {
            if self.started.take().is_some() {
                self.sink.restarted(now, now);
            }
            let name = &self.name;
            return Err(format!("container {name} does not run, and its queue is gone with it; start it"));
        }
        match self.started.replace(inspected.started) {
            Some(before) if before != inspected.started => self.sink.restarted(inspected.started, now),
            _ => {}
        }
        // What was logged before this start is of a queue that is gone.
        self.since = self.since.max(inspected.started.minus(STARTING));
        Ok(())
    }

    async fn pump(&mut self, inspected: Inspected, follow: bool) -> Result<End, String> {
        let since = self.seen.newest().map_or(self.since, |newest| self.since.max(newest.minus(DISORDER)));
        let mut stream = self.engine.logs(since, follow, None).await?;
        let mut frames = Frames::new(inspected.terminal);
        let mut inspect_due = clock::uptime() + INSPECT_INTERVAL;
        self.seen.again();
        if follow {
            self.sink.well();
        }
        loop {
            if let Ok(bytes) = timeout(INSPECT_INTERVAL, stream.next()).await {
                let now = clock::now();
                let Some(bytes) = bytes? else {
                    frames.rest(|line, cut| self.line(line, cut, now));
                    return Ok(End::Ended);
                };
                frames.take(bytes.as_ref(), |line, cut| self.line(line, cut, now))?;
                let late = self.seen.newest().is_some_and(|newest| now.since(newest) > BEHIND_MAX);
                if self.sink.pace().await && late && follow {
                    return Ok(End::Behind);
                }
            }
            if follow && clock::uptime() >= inspect_due {
                inspect_due = clock::uptime() + INSPECT_INTERVAL;
                let found = Inspected::from(self.engine.inspect().await?);
                if !found.running || found.started != inspected.started {
                    return Ok(End::Changed);
                }
            }
        }
    }

    fn line(&mut self, line: &str, cut: bool, now: UnixMicros) {
        if cut {
            self.sink.line_cut();
        }
        let (stamp, text) = line.split_once(' ').unwrap_or((line, ""));
        let Some(at) = Stamp::find(stamp).and_then(|stamp| stamp.instant(None)) else {
            return self.sink.line(line, Some(now), now);
        };
        if at >= self.since && self.seen.is_new(at, line) {
            self.sink.line(text, Some(at), now);
        }
    }
}

/// The newest lines, by time and a hash of what the engine sent, which has its nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    lines: VecDeque<(UnixMicros, u64)>,
    newest: Option<UnixMicros>,
    /// Lines from before a break that are to come once more. Each is passed over once: the worker may
    /// have written the same text twice.
    again: Vec<(UnixMicros, u64)>,
    /// The newest line before the break.
    broke: Option<UnixMicros>,
}

impl Seen {
    /// The time of the newest line.
    pub(crate) fn newest(&self) -> Option<UnixMicros> {
        self.newest
    }

    /// The stream begins anew.
    pub(crate) fn again(&mut self) {
        self.again = self.lines.iter().copied().collect();
        self.broke = self.newest;
    }

    /// Whether this line was not seen before.
    pub(crate) fn is_new(&mut self, at: UnixMicros, line: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let line = (at, hasher.finish());
        if self.broke.is_some_and(|broke| at > broke.plus(DISORDER)) {
            self.again.clear();
        }
        if let Some(place) = self.again.iter().position(|known| *known == line) {
            self.again.swap_remove(place);
            return false;
        }
        self.newest = self.newest.max(Some(at));
        self.lines.push_back(line);
        if self.lines.len() > SEEN_MAX {
            self.lines.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use diarwatch_shared::config::parse;
    use proptest::prelude::*;

    use super::*;
    use crate::config::worker::Faults;
    use crate::queue::log::patterns::Patterns;
    use crate::queue::log::{Board, LogConfig, lock};

    #[test]
    fn a_container_that_was_started_anew_between_two_questions_has_lost_its_queue() {
        let text = "container = 'a'\naccepted = 'job (?<id>\\S+) accepted'\nfinished = 'done'\n";
        let config: LogConfig = parse(Path::new("agent.toml"), text).unwrap();
        let patterns = Patterns::new(&config, &mut Faults::default());
        let board = Arc::new(Mutex::new(Board::new(&patterns, config.forget_after.0)));
        let sink = Sink::new(Arc::clone(&board), patterns);
        let engine = Engine::new(&config.docker_socket, "a").unwrap();
        let mut container = Container::new(engine, "a", Duration::ZERO, sink);
        let now = clock::now();
        let started =
            |secs| Inspected { running: true, started: now.plus(Duration::from_secs(secs)), terminal: false };
        let waiting = || lock(&board).tracker.look(now).waiting;
        container.see(started(0)).unwrap();
        container.sink.line("job 1 accepted", Some(now), now);
        container.see(started(0)).unwrap();
        assert_eq!(waiting(), Ok(1.0));
        container.see(started(1)).unwrap();
        assert_eq!(waiting(), Ok(0.0));
    }

    #[test]
    fn the_same_text_twice_is_two_lines_and_comes_again_as_two() {
        let mut seen = Seen::default();
        let at = UnixMicros(7);
        assert!(seen.is_new(at, "upload accepted") && seen.is_new(at, "upload accepted"));
        seen.again();
        assert!(!seen.is_new(at, "upload accepted") && !seen.is_new(at, "upload accepted"));
        assert!(seen.is_new(at, "upload accepted"), "a third one");
    }

    proptest! {
        #[test]
        fn wherever_the_stream_breaks_each_line_counts_once(
            steps in prop::collection::vec((0_u64..4_000, "[ab]"), 0..60),
            breaks in prop::collection::vec(0_usize..60, 0..6),
        ) {
            let mut at = UnixMicros(1_000_000);
            let mut log = Vec::new();
            for (step, text) in &steps {
                at = UnixMicros(at.0 + step);
                log.push((at, text.as_str()));
            }
            let (mut seen, mut counted) = (Seen::default(), 0);
            for end in breaks.into_iter().map(|end| end.min(log.len())).chain([log.len()]) {
                seen.again();
                let since = seen.newest().map_or(UnixMicros(0), |newest| newest.minus(DISORDER));
                let sent = log.iter().take(end).filter(|(at, _)| *at >= since);
                counted += sent.filter(|(at, text)| seen.is_new(*at, text)).count();
            }
            prop_assert_eq!(counted, log.len());
        }
    }
}
