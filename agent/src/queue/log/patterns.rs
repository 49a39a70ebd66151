//! The patterns of a worker's lines. Takes the regular expressions of the configuration, refused at
//! start where they cannot work; gives for each line what it says of a job, or that it says nothing.
//! Pure. A pattern takes time that grows with the line only, whatever the line holds, and lines are bounded.
//!
//! Named groups: `id`; the time that a job took in `hours`, `minutes`, `seconds`, `milliseconds`; the
//! length of its audio in the same units with `audio_` before. Several units add up, so that
//! `(?<minutes>\d+)m(?<seconds>\d+)s` is read as it is written.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::config::nearest;
use regex::{Captures, Regex, RegexBuilder};

use super::LogConfig;
use super::tracker::{LineEvent, Sees, Step};
use crate::config::worker::Faults;

/// Bytes of one pattern.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// Bytes of memory that one compiled pattern may take.
const PROGRAM_BYTES_MAX: usize = 1 << 20;
/// A time above this, in seconds, is a misread number: no job takes 30 days.
const SECONDS_MAX: f64 = 30.0 * 86_400.0;

const ID: &str = "id";
const UNITS: [(&str, &str, f64); 4] = [
    ("hours", "audio_hours", 3_600.0),
    ("minutes", "audio_minutes", 60.0),
    ("seconds", "audio_seconds", 1.0),
    ("milliseconds", "audio_milliseconds", 0.001),
];

/// The patterns of one log, in the order in which they are tried: the first that fits decides.
#[derive(Clone, Debug)]
pub struct Patterns(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    step: Step,
    regex: Regex,
    /// Which named groups it has; looking one up that it lacks costs time for nothing.
    has_id: bool,
    took: Vec<(String, f64)>,
    audio: Vec<(String, f64)>,
}

impl Patterns {
    /// The patterns of a configuration; those that cannot work are faults and left out.
    pub(crate) fn new(config: &LogConfig, faults: &mut Faults) -> Self {
        let mut patterns = Vec::new();
        let given = [
            ("restart", Step::Restarted, config.restart.as_deref()),
            ("failed", Step::Failed, config.failed.as_deref()),
            ("finished", Step::Finished, Some(config.finished.as_str())),
            ("started", Step::Started, config.started.as_deref()),
            ("accepted", Step::Accepted, config.accepted.as_deref()),
        ];
        for (key, step, text) in given {
            let Some(text) = text else { continue };
            match pattern(step, text) {
                Ok(pattern) => patterns.push(pattern),
                Err((problem, hint)) => faults.add(format!("log.{key}"), problem, hint),
            }
        }
        Self(patterns)
    }

    /// What these patterns can tell at all.
    #[must_use]
    pub fn sees(&self) -> Sees {
        let has = |step| self.0.iter().any(|pattern| pattern.step == step);
        Sees { accepted: has(Step::Accepted), started: has(Step::Started) }
    }

    /// What a line says of a job; none where it says nothing.
    #[must_use]
    pub fn read(&self, line: &str, at: Option<UnixMicros>) -> Option<LineEvent> {
        self.0.iter().find_map(|pattern| pattern.read(line, at))
    }
}

impl Pattern {
    fn read(&self, line: &str, at: Option<UnixMicros>) -> Option<LineEvent> {
        let plain = !self.has_id && self.took.is_empty() && self.audio.is_empty();
        if plain {
            let event = LineEvent { step: self.step, id: None, at, took_seconds: None, audio_seconds: None };
            return self.regex.is_match(line).then_some(event);
        }
        let captures = self.regex.captures(line)?;
        let id = captures.name(ID).map(|id| id.as_str()).filter(|id| !id.is_empty()).map(str::to_owned);
        Some(LineEvent {
            step: self.step,
            id,
            at,
            took_seconds: sum(&captures, &self.took),
            audio_seconds: sum(&captures, &self.audio),
        })
    }
}

/// The units that are there, added up; none where one of them is no time.
fn sum(captures: &Captures<'_>, groups: &[(String, f64)]) -> Option<f64> {
    let mut total = None;
    for (name, factor) in groups {
        let Some(text) = captures.name(name) else { continue };
        let value: f64 = text.as_str().parse().ok()?;
        total = Some(total.unwrap_or(0.0) + value * factor);
    }
    total.filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))
}

fn pattern(step: Step, text: &str) -> Result<Pattern, (String, String)> {
    if text.len() > PATTERN_BYTES_MAX {
        let problem = format!("it has {} bytes", text.len());
        return Err((problem, format!("write at most {PATTERN_BYTES_MAX}")));
    }
    let built = RegexBuilder::new(text).size_limit(PROGRAM_BYTES_MAX).build();
    let regex = built.map_err(|error| {
        let hint = "write it in single quotes ('...'), with groups such as (?<id>\\S+); look-around and back-references are not known";
        (one_line(&error), hint.to_owned())
    })?;
    if regex.is_match("") {
        let hint = "write a text that only this kind of line has";
        return Err((String::from("it fits every line, an empty one too"), hint.to_owned()));
    }
    let names: Vec<&str> = regex.capture_names().flatten().collect();
    if let Some(name) = names.iter().find(|name| !groups().any(|known| known == **name)) {
        let meant = nearest(name, groups());
        let hint = meant.map_or_else(
            || {
                format!(
                    "the groups are {}; leave others without a name",
                    groups().collect::<Vec<_>>().join(", ")
                )
            },
            |meant| format!("did you mean `{meant}`?"),
        );
        return Err((format!("it has an unknown group `{name}`"), hint));
    }
    let with = |name: fn(&(&'static str, &'static str, f64)) -> &'static str| {
        let named = UNITS.iter().map(|unit| (name(unit), unit.2));
        named.filter(|unit| names.contains(&unit.0)).map(|unit| (unit.0.to_owned(), unit.1)).collect()
    };
    let (took, audio) = (with(|unit| unit.0), with(|unit| unit.1));
    Ok(Pattern { step, has_id: names.contains(&ID), took, audio, regex })
}

fn groups() -> impl Iterator<Item = &'static str> {
    std::iter::once(ID).chain(UNITS.iter().flat_map(|unit| [unit.0, unit.1]))
}

/// The parser draws an arrow under the fault over several lines; its last one is the reason.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    format!("it is no regular expression: {last}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::config::parse;
    use std::path::Path;

    fn config(finished: &str) -> LogConfig {
        let text = format!(
            "journal = \"pyannote.service\"\naccepted = '(?:job|task) (?<id>\\S+) accepted'\n\
             started = 'processing (?<id>\\S+)'\nfinished = '{finished}'\n\
             failed = 'job (?<id>\\S+) failed'\nrestart = 'Uvicorn running'\n"
        );
        parse(Path::new("agent.toml"), &text).unwrap()
    }

    fn with(finished: &str) -> Patterns {
        let mut faults = Faults::default();
        let patterns = Patterns::new(&config(finished), &mut faults);
        assert_eq!(faults.0, []);
        patterns
    }

    const FINISHED: &str =
        r"job (?<id>\S+) done in (?<seconds>[0-9.]+)s \(audio (?<audio_seconds>[0-9.]+)s\)";

    #[test]
    fn a_line_says_what_happened_to_which_job_and_for_how_long() {
        let patterns = with(FINISHED);
        let read = |line: &str| patterns.read(line, Some(UnixMicros(7)));
        let event = read("INFO job 議事録-7 done in 12.5s (audio 3600.0s)").unwrap();
        assert_eq!((event.step, event.id.as_deref()), (Step::Finished, Some("議事録-7")));
        assert_eq!((event.took_seconds, event.audio_seconds), (Some(12.5), Some(3600.0)));
        assert_eq!(event.at, Some(UnixMicros(7)));
        assert_eq!(read("task 1 accepted").unwrap().step, Step::Accepted);
        assert_eq!(read("processing 1 now").unwrap().step, Step::Started);
        assert_eq!(read("job 1 failed: CUDA out of memory").unwrap().step, Step::Failed);
        assert_eq!(read("INFO: Uvicorn running on http://0.0.0.0:8001").unwrap().step, Step::Restarted);
        assert_eq!(read("GET /health 200 OK"), None);
    }

    #[test]
    fn the_units_of_a_time_add_up_and_nonsense_is_no_time() {
        let took = |finished: &str, line: &str| with(finished).read(line, None).unwrap().took_seconds;
        let clock = r"took (?:(?<hours>\d+)h)?(?<minutes>\S+)m(?<seconds>\d+)s";
        assert_eq!(took(clock, "took 2m30s"), Some(150.0));
        assert_eq!(took(clock, "took 1h2m30s"), Some(3750.0));
        assert_eq!(took(clock, "took -9m30s"), None);
        assert_eq!(took(clock, "took NaNm30s"), None);
        assert_eq!(took(clock, "took 99999999m30s"), None);
        assert_eq!(took(r"in (?<milliseconds>\d+) ms", "in 250 ms"), Some(0.25));
        assert_eq!(took("done", "done"), None);
    }

    #[test]
    fn a_pattern_that_cannot_work_is_refused_with_how_to_mend_it() {
        let fault = |finished: &str| {
            let mut faults = Faults::default();
            Patterns::new(&config(finished), &mut faults);
            faults.0.remove(0)
        };
        assert!(fault("job (").problem.contains("unclosed group"), "{}", fault("job (").problem);
        assert!(fault("(?=a)").hint.contains("look-around"));
        assert_eq!(fault("(?<audio_second>.+) done").hint, "did you mean `audio_seconds`?");
        assert!(fault("(?<speaker>.+) done").hint.contains("audio_milliseconds"));
        assert!(fault(".*").problem.contains("fits every line"));
        assert!(fault(&"a".repeat(PATTERN_BYTES_MAX + 1)).problem.contains("1025 bytes"));
        assert!(fault(r"(\w{200}){200}x").problem.contains("size"), "{}", fault(r"(\w{200}){200}x").problem);
        assert_eq!(fault("job (").field, "log.finished");
    }

    #[test]
    fn the_patterns_say_what_they_can_tell() {
        let sees = with("done").sees();
        assert!(sees.accepted && sees.started);
        let least: LogConfig =
            parse(Path::new("a.toml"), "journal = 'a.service'\nfinished = 'done'\n").unwrap();
        let sees = Patterns::new(&least, &mut Faults::default()).sees();
        assert!(!sees.accepted && !sees.started);
    }
}
