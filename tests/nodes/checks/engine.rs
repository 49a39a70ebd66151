//! The ground for the docker driver: what a real engine tells of containers that end.

use super::same;
use crate::docker::{Engine, busybox};
use crate::lab::Lab;

const STATE: &str = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}";

pub(super) fn a_container_that_is_killed_is_seen_as_exited_with_137(lab: &Lab) -> Result<(), String> {
    let engine = Engine::start(lab)?;
    engine.import("bare", &[&busybox()])?;
    engine.must(&[
        "run",
        "--detach",
        "--network=host",
        "--name=worker",
        "bare",
        "/bin/busybox",
        "sleep",
        "1000",
    ])?;
    same("running", engine.inspect("worker", "{{.State.Status}}")?.as_str(), "running")?;
    engine.must(&["kill", "worker"])?;
    engine.must(&["wait", "worker"])?;
    same("its state", engine.inspect("worker", STATE)?.as_str(), "exited 137 false")
}

pub(super) fn a_container_over_its_memory_is_seen_as_killed_for_it(lab: &Lab) -> Result<(), String> {
    let engine = Engine::start(lab)?;
    engine.import("bare", &[&busybox()])?;
    let fill = "x=a; while :; do x=$x$x; done";
    let words =
        ["run", "--network=host", "--name=fat", "--memory=20m", "bare", "/bin/busybox", "sh", "-c", fill];
    same("its exit", &engine.docker(&words).code, &137)?;
    same("its state", engine.inspect("fat", STATE)?.as_str(), "exited 137 true")
}
