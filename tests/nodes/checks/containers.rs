//! Workers in containers of a real Docker Engine, and the agent beside it.

use std::path::Path;
use std::process::{Child, Command};

use serde_json::json;

use super::same;
use crate::asked::Asked;
use crate::command::{PATIENCE, until};
use crate::docker::{Engine, busybox, standins};
use crate::install::{Certificates, built, configuration};
use crate::lab::{LAB_ADDRESS, Lab};
use crate::worker::{Worker, tell};

/// The container, and the worker that it is.
const NAME: &str = "worker";
/// What is wrong with the image's check while this file is there.
const ILL: &str = "test ! -e /tmp/ill || { echo CUDA error; exit 1; }";

/// An engine with one container, and an agent that looks after it.
struct Beside<'lab> {
    agent: Asked,
    process: Child,
    config: std::path::PathBuf,
    log: std::path::PathBuf,
    engine: Engine<'lab>,
    worker: Worker,
    lab: &'lab Lab,
}

impl<'lab> Beside<'lab> {
    /// A container that was started by hand, with these options, and an agent that adopted it.
    fn start(lab: &'lab Lab, dockerd: &[&'static str], options: &[&str]) -> Result<Self, String> {
        let engine = Engine::start_with(lab, dockerd)?;
        engine.import("standin", &[&busybox(), &standins()?])?;
        // All of them have the lab's one address.
        let worker = Worker::new(NAME, 8_000 + u16::from(lab.number()));
        let certificates = Certificates::make(lab)?;
        certificates.sign("docker")?;
        let folder = engine.folder.join("agent");
        let socket = folder.join("agent.sock");
        let driver = format!(
            "driver = \"docker\"\ncontainer = \"{NAME}\"\ndocker_socket = \"{}\"",
            engine.socket.display()
        );
        let text = format!(
            "{}[spool]\ndirectory = \"{1}/spool\"\n[socket]\npath = \"{1}/agent.sock\"\n[gpu]\nenabled = false\n{2}",
            configuration(&certificates.folder.display().to_string(), "docker"),
            folder.display(),
            worker.table(&driver)
        );
        let said = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(said)?;
        let (config, log) = (folder.join("agent.toml"), folder.join("log"));
        std::fs::write(&config, text).map_err(said)?;
        run(&engine, &worker, options)?;
        let process = agent(lab, &config, &log)?;
        let beside = Self { agent: Asked { socket }, process, config, log, engine, worker, lab };
        beside.agent.phase(NAME, "ready").map_err(|error| beside.told(&error))?;
        Ok(beside)
    }

    /// The same, and what a check does there; a failure is told with the end of the agent's log.
    fn with(
        lab: &'lab Lab,
        options: &[&str],
        check: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut beside = Self::start(lab, &[], options)?;
        check(&mut beside).map_err(|error| beside.told(&error))
    }

    fn told(&self, error: &str) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{error}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
    }

    fn tell(&self, control: &serde_json::Value) -> Result<(), String> {
        tell(LAB_ADDRESS.into(), self.worker.port, control)
    }

    /// Its first process, as the engine says it.
    fn pid(&self) -> Result<u64, String> {
        let text = self.engine.inspect(NAME, "{{.State.Pid}}")?;
        text.parse().map_err(|error| format!("{text}: {error}"))
    }

    /// Ends the agent by this signal and starts another.
    fn agent_again(&mut self, signal: &str) -> Result<(), String> {
        crate::command::must(&["kill", "-s", signal, &self.process.id().to_string()])?;
        until("the agent's end", PATIENCE, || !matches!(self.process.try_wait(), Ok(None)))?;
        self.process = agent(self.lab, &self.config, &self.log)?;
        Ok(())
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn agent(lab: &Lab, config: &Path, log: &Path) -> Result<Child, String> {
    let mut command = Command::new(built("diarwatch-agent"));
    command.arg("run").arg("--config").arg(config);
    lab.start(&format!("agent-{}", lab.number()), false, log, &mut command)
}

/// What a person or a deploy does.
fn run(engine: &Engine, worker: &Worker, options: &[&str]) -> Result<(), String> {
    let arguments = worker.arguments("0.0.0.0");
    let start = ["run", "--detach", "--network=host", "--name", NAME];
    let program = ["standin", "/bin/diarwatch-standins"];
    let words: Vec<&str> = arguments.split_whitespace().collect();
    engine.must(&[&start, options, &program, &words].concat()).map(drop)
}

pub(super) fn a_container_that_exits_or_is_killed_runs_again(lab: &Lab) -> Result<(), String> {
    Beside::with(lab, &[], |beside| {
        let first = beside.agent.phase(NAME, "ready")?;
        same("it was adopted", &beside.agent.count(NAME, "worker_adopted"), &1)?;
        beside.tell(&json!({ "exit": 3 }))?;
        let second = beside.agent.another(NAME, first)?;
        same("the engine's process", &beside.pid()?, &second)?;
        let exited = beside.agent.nth(NAME, "worker_exited", 1)?;
        same("how it ended", &exited["reason"], &json!("exit code 3"))?;
        let bundle = beside.agent.nth(NAME, "worker_evidence", 1)?["bundle"].to_string();
        same(&format!("its last words in {bundle}"), &bundle.contains("worker listening on"), &true)?;
        crate::command::must(&["kill", "-9", &second.to_string()])?;
        beside.agent.another(NAME, second)?;
        let exited = beside.agent.nth(NAME, "worker_exited", 2)?;
        same("how it ended then", &exited["reason"], &json!("signal 9 (SIGKILL)"))?;
        let third = beside.agent.phase(NAME, "ready")?;
        beside.engine.must(&["kill", NAME])?;
        beside.agent.another(NAME, third).map(drop)
    })
}

pub(super) fn a_container_over_its_memory_runs_again_and_is_told_as_that(lab: &Lab) -> Result<(), String> {
    Beside::with(lab, &["--memory=60m", "--memory-swap=60m"], |beside| {
        let before = beside.agent.phase(NAME, "ready")?;
        beside.tell(&json!({ "host_oom": 500 }))?;
        beside.agent.another(NAME, before)?;
        let exited = beside.agent.nth(NAME, "worker_exited", 1)?;
        let reason = exited["reason"].as_str().unwrap_or_default();
        same(&format!("how it ended: {reason}"), &reason.starts_with("out of memory"), &true)
    })
}

pub(super) fn an_unhealthy_container_is_not_ready_until_its_check_is_well_again(
    lab: &Lab,
) -> Result<(), String> {
    let check = format!("--health-cmd={ILL}");
    let options = [&check, "--health-interval=500ms", "--health-retries=1", "--health-timeout=20s"];
    Beside::with(lab, &options, |beside| {
        let before = beside.agent.phase(NAME, "ready")?;
        beside.engine.must(&["exec", NAME, "/bin/busybox", "touch", "/tmp/ill"])?;
        let lost = beside.agent.nth(NAME, "worker_not_ready", 1)?;
        let reason = lost["reason"].as_str().unwrap_or_default();
        same(&format!("the check's words: {reason}"), &reason.contains("CUDA error"), &true)?;
        same("its process", &beside.pid()?, &before)?;
        beside.engine.must(&["exec", NAME, "/bin/busybox", "rm", "/tmp/ill"])?;
        same("its process is ready again", &beside.agent.phase(NAME, "ready")?, &before)?;
        same("restarts", &beside.agent.worker(NAME)["restarts"], &json!(0))
    })
}

pub(super) fn a_container_stopped_by_hand_is_left_alone_and_adopted_when_it_is_started(
    lab: &Lab,
) -> Result<(), String> {
    Beside::with(lab, &[], |beside| {
        let first = beside.agent.phase(NAME, "ready")?;
        beside.engine.must(&["restart", NAME])?;
        let second = beside.agent.another(NAME, first)?;
        beside.engine.must(&["stop", NAME])?;
        beside.agent.phase(NAME, "left_alone")?;
        beside.agent_again("KILL")?;
        beside.agent.phase(NAME, "left_alone")?;
        same("its process", &beside.pid()?, &0)?;
        beside.engine.must(&["start", NAME])?;
        let third = beside.agent.another(NAME, second)?;
        same("the engine's process", &beside.pid()?, &third)?;
        same("starts by the agent", &beside.agent.worker(NAME)["restarts"], &json!(0))
    })
}

pub(super) fn a_container_made_anew_under_its_name_is_adopted(lab: &Lab) -> Result<(), String> {
    Beside::with(lab, &[], |beside| {
        let before = beside.agent.phase(NAME, "ready")?;
        beside.engine.must(&["rm", "--force", NAME])?;
        beside.agent.wait(NAME, "it is gone", |agent| agent.worker(NAME)["ready"] == json!(false))?;
        run(&beside.engine, &beside.worker, &[])?;
        let now = beside.agent.another(NAME, before)?;
        same("the engine's process", &beside.pid()?, &now)?;
        crate::command::must(&["kill", "-9", &now.to_string()])?;
        beside.agent.another(NAME, now).map(drop)
    })
}

pub(super) fn an_agent_that_starts_anew_beside_an_engine_touches_no_container(
    lab: &Lab,
) -> Result<(), String> {
    Beside::with(lab, &[], |beside| {
        let before = beside.agent.phase(NAME, "ready")?;
        let facts = facts_of(&beside.engine)?;
        for (count, signal) in [(2, "KILL"), (3, "TERM")] {
            beside.agent_again(signal)?;
            beside.agent.nth(NAME, "worker_adopted", count)?;
            same("its process", &beside.agent.phase(NAME, "ready")?, &before)?;
        }
        same("the container", &facts_of(&beside.engine)?, &facts)
    })
}

fn facts_of(engine: &Engine) -> Result<String, String> {
    engine.inspect(NAME, "{{.Id}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}")
}

pub(super) fn an_engine_that_restarts_gets_its_worker_back(lab: &Lab) -> Result<(), String> {
    Beside::with(lab, &[], |beside| {
        let before = beside.agent.phase(NAME, "ready")?;
        beside.engine.restart()?;
        let now = beside.agent.another(NAME, before)?;
        same("the engine's process", &beside.pid()?, &now)
    })
}

pub(super) fn a_container_that_outlives_its_engine_is_not_touched(lab: &Lab) -> Result<(), String> {
    let mut beside = Beside::start(lab, &["--live-restore"], &[])?;
    let check = |beside: &mut Beside| {
        let before = beside.agent.phase(NAME, "ready")?;
        beside.engine.restart()?;
        // What it does from now on is seen as before.
        same("its process", &beside.agent.phase(NAME, "ready")?, &before)?;
        same("restarts", &beside.agent.worker(NAME)["restarts"], &json!(0))?;
        beside.tell(&json!({ "exit": 3 }))?;
        beside.agent.another(NAME, before)?;
        let exited = beside.agent.nth(NAME, "worker_exited", 1)?;
        same("how it ended", &exited["reason"], &json!("exit code 3"))
    };
    check(&mut beside).map_err(|error| beside.told(&error))
}
