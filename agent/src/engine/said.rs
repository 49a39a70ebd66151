//! What the Docker Engine says, as far as it is asked. Takes JSON; gives containers and events, or nothing
//! where they cannot be what they claim. Pure.

use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use serde::Deserialize;
use serde_json::Value;

/// Characters of a container's id: 64 hexadecimal digits, and room for what is compatible.
const ID_BYTES_MAX: usize = 128;

/// A container, as `docker inspect` says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    /// Its id; another one after it was made anew.
    pub id: String,
    /// How it is.
    pub state: State,
    /// What it was made of.
    config: Config,
    host_config: HostConfig,
}

/// How a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "the engine's own words")]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// Whether its process lives, or is about to be started again by the engine.
    pub running: bool,
    /// Whether it was frozen.
    pub paused: bool,
    /// Whether the engine waits before it starts it again.
    pub restarting: bool,
    /// Whether the kernel ended a process of this run for want of memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// The host's number of its first process; 0 without one.
    pub pid: u32,
    /// How its last run ended; 128 and the signal for one that a signal ended.
    pub exit_code: i32,
    /// Why it could not be started.
    pub error: String,
    started_at: String,
    finished_at: String,
    /// What its HEALTHCHECK says, if it has one.
    pub health: Option<Health>,
}

/// What a container's HEALTHCHECK says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`, or `none`.
    pub status: String,
    /// Checks that failed in a row.
    pub failing_streak: u32,
    /// The last five checks; absent before the first.
    log: Option<Vec<Check>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    output: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    tty: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    restart_policy: RestartPolicy,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RestartPolicy {
    name: String,
}

/// Something that happened to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `start`, `die`, `stop`, `kill`, `oom`, `health_status`, `destroy`, `rename`, `pause`, `unpause`.
    pub action: String,
    /// The container.
    pub id: String,
    /// Its name; the new one when it was renamed.
    pub name: String,
    /// How it ended, of `die`.
    pub exit_code: Option<i32>,
    /// What it was sent, of `kill`.
    pub signal: Option<i32>,
    /// When, by the engine's clock, which is the host's.
    pub at: UnixMicros,
}

#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) message: String,
}

impl Container {
    /// Whether it has a terminal: its log is raw then.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.config.tty
    }

    /// Whether the engine starts it again by itself after some of its ends.
    #[must_use]
    pub fn has_restart_policy(&self) -> bool {
        !["", "no"].contains(&self.host_config.restart_policy.name.as_str())
    }

    /// When its last run began; none before the first.
    #[must_use]
    pub fn started(&self) -> Option<UnixMicros> {
        instant(&self.state.started_at)
    }

    /// When its last run ended; none before the first end.
    #[must_use]
    pub fn finished(&self) -> Option<UnixMicros> {
        instant(&self.state.finished_at)
    }

    /// Its first process, where that lives and is not frozen.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        let state = &self.state;
        let lives = state.running && !state.restarting && !state.paused && state.pid > 1;
        lives.then_some(state.pid)
    }

    /// Whether this can be a container: its id becomes part of paths.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let fits = !self.id.is_empty() && self.id.len() <= ID_BYTES_MAX;
        if fits && self.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(());
        }
        Err("the id of its container is none")
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        serde_json::from_str(text).unwrap()
    }
}

impl Health {
    /// What the last check said, in at most so many bytes.
    #[must_use]
    pub fn last(&self, bytes_max: usize) -> String {
        let last = self.log.as_ref().and_then(|log| log.last());
        words(last.map(|check| check.output.trim()).unwrap_or_default(), bytes_max)
    }
}

impl Event {
    /// An event from its line of JSON; none when it is no event of a container.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let said: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let attribute = |key: &str| said.pointer("/Actor/Attributes")?.get(key)?.as_str();
        let action = said.get("Action").and_then(Value::as_str)?;
        let nanos = said.get("timeNano").and_then(Value::as_u64)?;
        Some(Self {
            // `health_status: unhealthy`
            action: action.split(':').next().unwrap_or_default().to_owned(),
            id: said.pointer("/Actor/ID").and_then(text)?,
            name: attribute("name").unwrap_or_default().to_owned(),
            exit_code: attribute("exitCode").and_then(|code| code.parse().ok()),
            signal: attribute("signal").and_then(|signal| signal.parse().ok()),
            at: UnixMicros(Duration::from_nanos(nanos).as_micros().try_into().ok()?),
        })
    }
}

/// Another's words for a line of our own: no control characters, at most so many bytes.
pub(super) fn words(text: &str, bytes_max: usize) -> String {
    let mut words: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    words.truncate(words.floor_char_boundary(bytes_max));
    words
}

/// A container that was never started says the year 1, which is before 1970.
fn instant(text: &str) -> Option<UnixMicros> {
    UnixMicros::from_rfc3339(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_the_engine_writes_it() {
        let line = r#"{"status":"die","id":"0a1b","from":"bb","Type":"container","Action":"die","Actor":{"ID":"0a1b",
            "Attributes":{"exitCode":"137","image":"bb","name":"pyannote-1"}},"scope":"local","time":1795490734,
            "timeNano":1795490734188635462}"#;
        let event = Event::read(line).unwrap();
        assert_eq!((event.action.as_str(), event.name.as_str()), ("die", "pyannote-1"));
        assert_eq!((event.exit_code, event.signal), (Some(137), None));
        assert_eq!(event.at, UnixMicros(1_795_490_734_188_635));
        let health = line.replace("\"Action\":\"die\"", "\"Action\":\"health_status: unhealthy\"");
        assert_eq!(Event::read(&health).unwrap().action, "health_status");
        assert_eq!(Event::read("{}"), None);
        assert_eq!(Event::read("GET / HTTP/1.1"), None);
    }

    #[test]
    fn a_container_that_was_never_started_has_no_begin_and_one_that_waits_has_no_process() {
        let container = |state: &str| Container::of(&format!(r#"{{"Id":"0a","State":{state}}}"#));
        assert_eq!(container(r#"{"StartedAt":"0001-01-01T00:00:00Z"}"#).started(), None);
        assert_eq!(container(r#"{"Running":true,"Pid":7}"#).process(), Some(7));
        assert_eq!(container(r#"{"Running":true,"Restarting":true,"Pid":0}"#).process(), None);
        assert_eq!(container(r#"{"Running":true,"Paused":true,"Pid":7}"#).process(), None);
        // A signal to process 0 goes to the agent's own group, one to 1 to the host's init.
        assert_eq!(container(r#"{"Running":true,"Pid":0}"#).process(), None);
        assert_eq!(container(r#"{"Running":true,"Pid":1}"#).process(), None);
    }

    #[test]
    fn an_id_that_is_a_path_is_none() {
        assert!(Container::of(r#"{"Id":"0a1B"}"#).check().is_ok());
        for id in ["", "../../images/prune", "0a?force=1"] {
            assert!(Container::of(&format!(r#"{{"Id":"{id}"}}"#)).check().is_err(), "{id}");
        }
    }

    #[test]
    fn the_last_check_is_told_in_one_line() {
        let health = r#"{"Id":"0a","State":{"Health":{"Status":"unhealthy","Log":[{"Output":"a"},{"Output":"b\nc\n"}]}}}"#;
        let health = Container::of(health).state.health.unwrap();
        assert_eq!((health.status.as_str(), health.last(240).as_str()), ("unhealthy", "b c"));
        assert_eq!(health.last(1), "b");
    }
}
