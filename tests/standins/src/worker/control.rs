//! What a worker can be told: takes the JSON of a control message, a scenario file or a command line,
//! gives it checked. Bounded; an unknown key is refused.

use std::path::Path;

use diarwatch_shared::quantity::Span;
use serde::{Deserialize, Serialize};

use crate::command::StandinError;

/// Bytes of a scenario file, and of what is kept for the next start.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Steps of a scenario.
const STEPS_MAX: usize = 1_024;

/// What a worker is told to do; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Ready, whatever was said before and even while the model loads; or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A wedge: nothing is answered and nothing worked on, no CPU and no GPU is used, also in the
    /// middle of a job, until told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang: Option<bool>,
    /// Answers nothing, but works: on its jobs, and without one it only looks busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_silent: Option<bool>,
    /// Works on the CPU: no GPU memory, a tenth of the speed, and ready as before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_fallback: Option<bool>,
    /// The next job, or the one under way, fails by CUDA's lack of memory; then it is as this says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<AfterOom>,
    /// Takes so many MiB of the host's memory, for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_oom: Option<u32>,
    /// Holds so many MiB of GPU memory more after each job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leak: Option<u32>,
    /// The next job, or the one under way, kills the process by SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poison: Option<bool>,
    /// Takes no notice of SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_sigterm: Option<bool>,
    /// What stays on the GPU when the process is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_stays: Option<Stays>,
    /// Ends as pyannote does that may not download its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_model: Option<bool>,
    /// Exits with this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
    /// Dies by SIGABRT after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_after: Option<Span>,
    /// What it is told when it starts the next time; needs `--next-start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_start: Option<Box<Control>>,
}

/// What a worker does after CUDA ran out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterOom {
    /// It goes on with the next job.
    GoOn,
    /// It goes on, but says that it is not ready.
    NotReady,
}

/// What a driver in trouble keeps of a process that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stays {
    /// Nothing, as it should be.
    Nothing,
    /// Its memory, under its pid.
    Leaked,
    /// Its memory and a full load, under nobody's pid.
    Ghost,
}

/// A control at its time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Time since the start.
    pub after: Span,
    /// What it is told then.
    pub control: Control,
}

/// A control out of its text.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_control(text: &str) -> Result<Control, String> {
    serde_json::from_str(text).map_err(|error| format!("not a control message: {error}"))
}

/// The steps of a scenario file.
pub(super) fn steps_of(path: &Path) -> Result<Vec<Step>, StandinError> {
    let wrong = |problem: String| StandinError::Scenario { path: path.to_owned(), problem };
    let text = text_of(path).map_err(wrong)?;
    let steps: Vec<Step> = serde_json::from_str(&text).map_err(|error| {
        wrong(format!("{error}; write [{{\"after\": \"10s\", \"control\": {{\"ready\": false}}}}]"))
    })?;
    if steps.len() > STEPS_MAX {
        return Err(wrong(format!("it has {} steps, at most {STEPS_MAX} are done", steps.len())));
    }
    Ok(steps)
}

/// What a former life left to be obeyed at this start, once; none where it left nothing.
pub(super) fn taken_over(path: &Path) -> Result<Option<Control>, StandinError> {
    if !path.exists() {
        return Ok(None);
    }
    let wrong = |problem: String| StandinError::Scenario { path: path.to_owned(), problem };
    let control = parse_control(&text_of(path).map_err(wrong)?).map_err(wrong)?;
    std::fs::remove_file(path).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(control))
}

/// Leaves a control for the next start.
pub(super) fn leave(path: &Path, control: &Control) -> Result<(), String> {
    let text = serde_json::to_string(control).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()))
}

fn text_of(path: &Path) -> Result<String, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("it has {bytes} bytes, at most {FILE_BYTES_MAX} are read"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_with_an_unknown_key_is_refused() {
        assert!(parse_control(r#"{"redy": true}"#).is_err());
        assert!(parse_control(r#"{"exit": 256}"#).is_err());
        assert!(parse_control(r#"{"oom": "later"}"#).is_err());
    }

    #[test]
    fn a_scenario_is_read_and_a_bad_one_is_named_with_its_place() {
        const STEPS: &str =
            r#"[{"after": "10s", "control": {"hang": true}}, {"after": "20s", "control": {"exit": 3}}]"#;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steps.json");
        std::fs::write(&path, STEPS).unwrap();
        let steps = steps_of(&path).unwrap();
        assert_eq!(steps.iter().map(|step| step.control.exit).collect::<Vec<_>>(), [None, Some(3)]);
        std::fs::write(&path, "[\n{\"after\": 10}]").unwrap();
        let error = steps_of(&path).unwrap_err();
        assert!(error.to_string().contains("line 2") && error.to_string().contains("steps.json"), "{error}");
        assert_eq!(error.exit(), diarwatch_shared::exit::Exit::BadConfig);
    }

    #[test]
    fn what_is_left_for_the_next_start_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("next.json");
        assert_eq!(taken_over(&path).unwrap(), None);
        let control = parse_control(r#"{"cpu_fallback": true, "crash_after": "90s"}"#).unwrap();
        leave(&path, &control).unwrap();
        assert_eq!(taken_over(&path).unwrap(), Some(control));
        assert_eq!(taken_over(&path).unwrap(), None);
    }
}
