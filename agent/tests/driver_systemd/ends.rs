//! How a worker ends, and who ended it.

use std::path::Path;
use std::time::Duration;

use diarwatch_agent::restart::{Driver, Found, Signal};

use crate::unit::*;

#[tokio::test]
async fn an_exit_code_is_told_and_the_next_start_gives_a_new_process() {
    let Some(unit) = Unit::with("dwt-code.service", "ExecStart=/bin/sh -c 'sleep 0.2; exit 3'").await else {
        return;
    };
    let (mut driver, pid) = running(&unit).await;
    assert_eq!(driver.pids().first(), Some(&pid));
    let exit = exit(&mut driver).await;
    assert_eq!((exit.pid, exit.code, exit.reason.as_str()), (pid, Some(3), "exit code 3"));
    assert!(!exit.by_hand && !exit.manager_restarts);
    let next = driver.start().await.unwrap().pid;
    assert_ne!(next, pid);
    assert_eq!(self::exit(&mut driver).await.pid, next);
    assert_eq!(driver.invocation_id(), unit.show("InvocationID"));
}

#[tokio::test]
async fn a_worker_that_ends_well_by_itself_was_not_stopped_by_hand() {
    let Some(unit) = Unit::with("dwt-well.service", "ExecStart=/bin/sleep 0.2").await else { return };
    let (mut driver, _) = running(&unit).await;
    let exit = exit(&mut driver).await;
    assert_eq!((exit.code, exit.by_hand), (Some(0), false));
}

#[tokio::test]
async fn a_killed_worker_is_seen_and_started_again() {
    let Some(unit) = Unit::with("dwt-kill.service", "ExecStart=/bin/sleep 1000").await else { return };
    let (mut driver, pid) = running(&unit).await;
    kill("KILL", pid);
    let exit = exit(&mut driver).await;
    assert_eq!((exit.signal, exit.reason.as_str()), (Some(9), "signal 9 (SIGKILL)"));
    assert!(!exit.by_hand && !exit.oom && !exit.core);
    assert_ne!(driver.start().await.unwrap().pid, pid);
    silence(&mut driver).await;
}

#[tokio::test]
async fn sigterm_from_the_agent_or_from_a_shell_is_no_stop_by_hand() {
    let Some(unit) = Unit::with("dwt-term.service", "ExecStart=/bin/sleep 1000").await else { return };
    let (mut driver, _) = running(&unit).await;
    driver.signal(Signal::Terminate).await.unwrap();
    let first = exit(&mut driver).await;
    assert_eq!((first.signal, first.by_hand), (Some(15), false));
    let pid = driver.start().await.unwrap().pid;
    kill("TERM", pid);
    assert!(!exit(&mut driver).await.by_hand);
    driver.start().await.unwrap();
    driver.signal(Signal::Traceback(10)).await.unwrap();
    assert_eq!(exit(&mut driver).await.signal, Some(10));
    driver.signal(Signal::Kill).await.expect("nothing to kill is no error");
}

#[tokio::test]
async fn a_worker_that_the_kernel_ended_for_memory_is_told_as_such() {
    let service = "MemoryMax=20M\nMemorySwapMax=0\nExecStart=/bin/sh -c 'sleep 0.3; exec tail /dev/zero'";
    let Some(unit) = Unit::with("dwt-oom.service", service).await else { return };
    let (mut driver, pid) = running(&unit).await;
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let first = group.lines().any(|line| line.contains(":memory:") && line.contains("dwt-oom"));
    let second = format!("/sys/fs/cgroup{}/memory.max", unit.show("ControlGroup"));
    if !first && !Path::new(&second).exists() {
        println!("skipped: no memory limit is enforced in this node");
        return;
    }
    let exit = exit(&mut driver).await;
    assert_eq!(exit.signal, Some(9));
    // systemd tells it by version 2 of cgroups; by version 1 it is told when the counter was read before
    // systemd removed it.
    assert!(exit.oom || first, "{exit:?}");
    assert_eq!(exit.reason.starts_with("out of memory"), exit.oom, "{exit:?}");
}

#[tokio::test]
async fn what_systemd_calls_an_oom_kill_is_told_as_such() {
    let Some(unit) = Unit::with("dwt-oomd.service", "ExecStart=/bin/sleep 1000").await else { return };
    let (mut driver, pid) = running(&unit).await;
    let cgroup = format!("/sys/fs/cgroup{}", unit.show("ControlGroup"));
    let flags = rustix::fs::XattrFlags::empty();
    let marked = ["user.oomd_ooms", "user.oomd_kill"]
        .map(|name| rustix::fs::setxattr(cgroup.as_str(), name, b"1", flags).is_ok());
    if marked != [true, true] {
        println!("skipped: the cgroups of this node are not of version 2");
        return;
    }
    kill("KILL", pid);
    let exit = exit(&mut driver).await;
    assert_eq!((exit.oom, exit.reason.as_str()), (true, "out of memory, signal 9 (SIGKILL)"));
}

#[tokio::test]
async fn a_core_dump_is_told_where_the_kernel_left_one() {
    let service =
        "LimitCORE=infinity\nWorkingDirectory=/run\nExecStart=/bin/sh -c 'sleep 0.2; kill -SEGV $$$$'";
    let Some(unit) = Unit::with("dwt-core.service", service).await else { return };
    let (mut driver, _) = running(&unit).await;
    let exit = exit(&mut driver).await;
    assert_eq!(exit.signal, Some(11));
    assert_eq!(exit.core, unit.show("ExecMainCode") == "3", "{exit:?}");
    assert_eq!(exit.reason.ends_with(", core dumped"), exit.core);
}

#[tokio::test]
async fn a_worker_stopped_by_hand_is_told_as_such_however_it_ends() {
    let trap =
        |code| format!("ExecStart=/bin/sh -c 'trap \"exit {code}\" TERM; while :; do sleep 0.05; done'");
    for service in
        ["ExecStart=/bin/sleep 1000".into(), trap(0), trap(1), format!("{}\nRestart=always", trap(1))]
    {
        let Some(unit) = Unit::with("dwt-stop.service", &service).await else { return };
        let (mut driver, pid) = running(&unit).await;
        systemctl(&["stop", unit.name]);
        let exit = exit(&mut driver).await;
        assert!(exit.by_hand && !exit.manager_restarts && exit.pid == pid, "{service}: {exit:?}");
        silence(&mut driver).await;
        systemctl(&["start", unit.name]);
        assert_eq!(started(&mut driver).await.to_string(), unit.show("MainPID"));
    }
}

#[tokio::test]
async fn a_stop_by_hand_is_seen_also_while_no_agent_ran() {
    let trap = "ExecStart=/bin/sh -c 'trap \"exit 1\" TERM; while :; do sleep 0.05; done'";
    let Some(unit) = Unit::with("dwt-away.service", trap).await else { return };
    let (mut driver, _) = running(&unit).await;
    driver.leave(Duration::ZERO).await;
    systemctl(&["stop", unit.name]);
    let Found::Stopped { exit: Some(exit) } = unit.driver().look().await.unwrap() else {
        panic!("it is down")
    };
    assert!(exit.by_hand, "{exit:?}");
    systemctl(&["start", unit.name]);
    kill("KILL", unit.show("MainPID").parse().unwrap());
    unit.until("ActiveState", "failed").await;
    let Found::Stopped { exit: Some(exit) } = unit.driver().look().await.unwrap() else {
        panic!("it is down")
    };
    assert_eq!((exit.by_hand, exit.signal), (false, Some(9)));
}

#[tokio::test]
async fn a_restart_by_hand_is_adopted_and_one_that_fails_is_told() {
    let Some(unit) = Unit::with("dwt-again.service", "ExecStart=/bin/sleep 1000").await else { return };
    let (mut driver, pid) = running(&unit).await;
    systemctl(&["restart", unit.name]);
    let first = exit(&mut driver).await;
    assert!(first.by_hand && first.manager_restarts && first.pid == pid, "{first:?}");
    assert_eq!(started(&mut driver).await.to_string(), unit.show("MainPID"));
    unit.write("[Service]\nExecStartPre=/bin/false\nExecStart=/bin/sleep 1000\n");
    run("systemctl", &["restart", unit.name]);
    let second = exit(&mut driver).await;
    assert!(second.by_hand && second.manager_restarts, "{second:?}");
    let third = exit(&mut driver).await;
    assert!(!third.by_hand && third.reason.contains("given up"), "{third:?}");
    let error = driver.start().await.unwrap_err().to_string();
    assert!(error.starts_with("start dwt-again.service: systemd says `exit-code`"), "{error}");
}

#[tokio::test]
async fn systemds_own_restart_is_told_and_adopted_or_cut_short() {
    let service = "Restart=always\nRestartSec=100ms\nExecStart=/bin/sleep 1000";
    let Some(unit) = Unit::with("dwt-auto.service", service).await else { return };
    let (mut driver, pid) = running(&unit).await;
    kill("KILL", pid);
    let first = exit(&mut driver).await;
    assert!(first.manager_restarts && !first.by_hand, "{first:?}");
    let second = started(&mut driver).await;
    assert_eq!(unit.show("NRestarts"), "1");
    unit.write("[Service]\nRestart=on-failure\nRestartSec=1h\nExecStart=/bin/sleep 1000\n");
    kill("KILL", second);
    assert!(exit(&mut driver).await.manager_restarts);
    assert_ne!(driver.start().await.unwrap().pid, second);
    silence(&mut driver).await;
    kill("KILL", unit.show("MainPID").parse().unwrap());
    assert!(exit(&mut driver).await.manager_restarts);
    systemctl(&["stop", unit.name]);
    assert!(exit(&mut driver).await.by_hand, "the wait is called off by hand");
}
