//! Workers that end: by themselves, by a signal, for want of memory, again and again.

use serde_json::{Value, json};

use super::same;
use crate::asked::LIMIT;
use crate::lab::{Lab, Layout, layout};
use crate::node::Tree;
use crate::site::Site;
use crate::worker::Worker;

/// Leaves a process that takes no notice of SIGTERM, and says at each start whether the last one's lives.
const BROOD: &str = r#"ExecStartPre=/bin/sh -c 'if test -e /run/%N.child && kill -0 $$(cat /run/%N.child); then echo alive; fi >>/run/%N.seen; true'
ExecStart=
ExecStart=/bin/sh -c 'trap "" TERM; sleep 1000 & echo $! >/run/%N.child; trap - TERM; exec /usr/bin/diarwatch-standins ARGUMENTS'
"#;

pub(super) fn a_worker_that_exits_is_started_again_and_told(lab: &Lab) -> Result<(), String> {
    Site::with(lab, "exit", &[Worker::new("w", 8001)], |site| {
        let before = site.agent.phase("w", "ready")?;
        site.tell("w", &json!({ "exit": 3 }))?;
        let now = site.agent.another("w", before)?;
        same("the unit's process", &site.main("w"), &now.to_string())?;
        same("restarts by systemd", site.node.show("w.service", "NRestarts").as_str(), "0")?;
        let exited = site.agent.nth("w", "worker_exited", 1)?;
        same("how it ended", &exited["reason"], &json!("exit code 3"))?;
        same("the restart", &exited["attempt"], &json!(1))?;
        let ready = site.agent.nth("w", "worker_ready", 2)?;
        same("the loss is told", &ready["down_ms"].is_u64(), &true)?;
        same("its restarts", &site.agent.worker("w")["restarts"], &json!(1))
    })
}

pub(super) fn what_a_killed_worker_left_is_gone_before_its_next_start(lab: &Lab) -> Result<(), String> {
    let brood = |name: &'static str, port, mode: &str| {
        let worker = Worker::new(name, port);
        let service = BROOD.replace("ARGUMENTS", &worker.arguments("0.0.0.0")) + mode;
        Worker { service, ..worker }
    };
    // systemd kills what a unit of the first two leaves, of the third nothing.
    let workers = [
        brood("mixed", 8001, "KillMode=mixed\n"),
        brood("group", 8002, "KillMode=control-group\n"),
        brood("process", 8003, "KillMode=process\n"),
    ];
    Site::with(lab, "brood", &workers, |site| {
        let mut before = Vec::new();
        for worker in &workers {
            before.push((worker.name, site.agent.phase(worker.name, "ready")?));
            site.kill(&worker.unit_name())?;
        }
        for (name, process) in before {
            site.agent.another(name, process)?;
            let seen = site.node.sh(&format!("cat /run/{name}.seen; pgrep -fc 'sleep 1000$'"))?;
            same(&format!("{name}: what lived at its next start ({seen})"), &seen.contains("alive"), &false)?;
        }
        let left = site.node.sh("pgrep -xc sleep")?;
        same("children, one of each", left.as_str(), "3")?;
        // They would keep the node from its end.
        site.node.sh("systemctl stop diarwatch-agent; systemctl kill --signal=KILL mixed group process")?;
        Ok(())
    })
}

pub(super) fn a_worker_that_is_killed_for_memory_is_told_as_that(lab: &Lab) -> Result<(), String> {
    Site::with(lab, "oom", &[Worker::new("w", 8001)], |site| {
        let before = site.agent.phase("w", "ready")?;
        site.node.kill_as_oomd("w.service")?;
        site.agent.another("w", before)?;
        let exited = site.agent.nth("w", "worker_exited", 1)?;
        same("how it ended", &exited["reason"], &json!("out of memory, signal 9 (SIGKILL)"))
    })
}

pub(super) fn a_worker_over_its_memory_limit_comes_back_and_says_why_where_the_kernel_tells(
    lab: &Lab,
) -> Result<(), String> {
    let service = "MemoryMax=60M\nMemorySwapMax=0\n".to_owned();
    let worker = Worker { service, ..Worker::new("w", 8001) };
    let workers = std::slice::from_ref(&worker);
    let site = Site::set_up(lab, "limit", Tree::Limits, workers, workers)?;
    let before = site.agent.phase("w", "ready").map_err(|error| site.told(&error))?;
    site.tell("w", &json!({ "host_oom": 500 }))?;
    site.agent.another("w", before).map_err(|error| site.told(&error))?;
    let exited = site.agent.nth("w", "worker_exited", 1)?;
    let reason = exited["reason"].as_str().unwrap_or_default();
    let told = reason == "out of memory, signal 9 (SIGKILL)";
    // Of version 1 the kernel's count goes with the cgroup; who reads it too late knows the signal alone.
    let partly = layout() == Layout::Hybrid && reason == "signal 9 (SIGKILL)";
    same(&format!("how it ended: {reason}"), &(told || partly), &true)
}

pub(super) fn a_crash_loop_opens_the_breaker_which_says_when_it_tries_next_and_outlives_the_agent(
    lab: &Lab,
) -> Result<(), String> {
    let count = "ExecStartPre=/bin/sh -c 'echo start >>/run/starts'\n".to_owned();
    let options = "--next-start /run/loop.next";
    Site::with(lab, "loop", &[Worker { service: count, ..Worker::new("w", 8001).with(options) }], |site| {
        let crash = json!({ "crash_after": "50ms" });
        site.node.put("/run/loop.always", 0o644, crash.to_string().as_bytes())?;
        // From now on each start crashes.
        let again = "[Service]\nExecStartPre=/bin/cp /run/loop.always /run/loop.next\n";
        site.node.put("/etc/systemd/system/w.service.d/crash.conf", 0o644, again.as_bytes())?;
        site.node.sh("systemctl daemon-reload")?;
        site.tell("w", &json!({ "exit": 1 }))?;
        let opened = site.agent.nth("w", "worker_breaker_open", 1)?;
        same("restarts", &opened["restarts"], &json!(3))?;
        same("the next try", &opened["next_try_in_ms"], &json!(300_000))?;
        let waits = |why: &Value| {
            let next = why["next_start_in_ms"].as_u64().unwrap_or_default();
            why["phase"] == "waiting" && why["breaker_tries"] == 0 && next > 100_000 && next <= 300_000
        };
        site.agent.wait("w", "why says when it tries next", |agent| waits(&agent.why("w")))?;
        same("the breaker is shown", &site.agent.worker("w")["breaker_open"], &json!(true))?;
        let starts = || site.node.sh("wc -l </run/starts");
        same("starts", starts()?.as_str(), "4")?;
        site.agent_dies()?;
        site.agent.wait("w", "the breaker is open as before", |agent| waits(&agent.why("w")))?;
        same("starts by the next agent", starts()?.as_str(), "4")?;
        // A person is not bound by it.
        site.node
            .sh("rm -f /etc/systemd/system/w.service.d/crash.conf /run/loop.next; systemctl daemon-reload")?;
        site.agent.order("w", "restart")?;
        site.agent.phase("w", "ready")?;
        same("the breaker is closed", &site.agent.worker("w")["breaker_open"], &json!(false))
    })
}

pub(super) fn systemds_own_restart_is_the_floor_while_no_agent_runs(lab: &Lab) -> Result<(), String> {
    let service = "RestartSec=200ms\n".to_owned();
    Site::with(lab, "floor", &[Worker { service, ..Worker::new("w", 8001) }], |site| {
        let before = site.agent.phase("w", "ready")?;
        site.node.sh("systemctl stop diarwatch-agent")?;
        site.kill("w.service")?;
        site.node.wait("systemd's own restart", LIMIT, |node| {
            let main = node.show("w.service", "MainPID");
            main != "0" && main != before.to_string()
        })?;
        let restarted = site.main("w");
        site.node.sh("systemctl start diarwatch-agent")?;
        site.agent.nth("w", "worker_adopted", 1)?;
        let now = site.agent.phase("w", "ready")?;
        same("the process", &now.to_string(), &restarted)
    })
}
