//! What hinders a start, and who is there to be adopted.

use std::path::Path;
use std::time::Duration;

use diarwatch_agent::restart::{Driver, Found, News, Process};
use diarwatch_shared::clock;

use crate::unit::*;

#[tokio::test]
async fn starts_that_systemd_would_refuse_as_too_many_are_not_refused() {
    let Some(unit) = Unit::with("dwt-limit.service", "").await else { return };
    unit.write("[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n[Service]\nExecStart=/bin/sleep 1000\n");
    let (mut driver, mut pid) = running(&unit).await;
    for _ in 0..5 {
        kill("KILL", pid);
        assert_eq!(exit(&mut driver).await.signal, Some(9));
        pid = driver.start().await.unwrap().pid;
    }
    kill("KILL", pid);
    exit(&mut driver).await;
    // What an agent that died leaves: systemd has refused a start.
    while run("systemctl", &["start", unit.name]) {
        run("systemctl", &["kill", "-s", "KILL", unit.name]);
        unit.until("ActiveState", "failed").await;
    }
    let mut second = unit.driver();
    second.look().await.unwrap();
    second.start().await.unwrap();
}

#[tokio::test]
async fn what_a_dead_worker_leaves_does_not_keep_the_next_start_waiting() {
    let leftover = "sh -c \"trap : TERM; while :; do sleep 1; done\" & exec sleep 1000";
    let service = format!(
        "TimeoutStopSec=infinity\nRestart=on-failure\nRestartSec=1h\nExecStart=/bin/sh -c '{leftover}'"
    );
    let Some(unit) = Unit::with("dwt-left.service", &service).await else { return };
    let (mut driver, pid) = running(&unit).await;
    let all = async {
        while driver.pids().len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("its helpers run");
    let before = driver.pids();
    kill("KILL", pid);
    exit(&mut driver).await;
    driver.start().await.unwrap();
    assert!(driver.pids().is_disjoint(&before), "{before:?} {:?}", driver.pids());
}

#[tokio::test]
async fn a_unit_that_is_not_there_or_cannot_run_is_named_with_what_mends_it() {
    let Some(unit) = Unit::with("dwt-none.service", "ExecStart=/no/such/program").await else { return };
    let error = driver("unit = \"dwt-absent.service\"").look().await.unwrap_err();
    assert!(error.contains("dwt-absent.service: there is no such unit"), "{error}");
    let mut driver = unit.driver();
    driver.look().await.unwrap();
    let said = match driver.start().await {
        Ok(_) => exit(&mut driver).await.reason,
        Err(error) => error.to_string(),
    };
    assert!(said.contains("exit code 203: systemd could not run the program of ExecStart="), "{said}");
}

#[tokio::test]
async fn a_bus_that_restarts_and_a_systemd_executed_anew_are_told_and_the_worker_is_found_again() {
    let Some(unit) = Unit::with("dwt-bus.service", "ExecStart=/bin/sleep 1000").await else { return };
    let (mut driver, pid) = running(&unit).await;
    for command in [["restart", "dbus.service"], ["daemon-reexec", "--quiet"]] {
        run("systemctl", &command);
        let lost = news(&mut driver).await;
        assert!(matches!(lost, News::Lost { .. }), "{lost:?}");
        let Found::Running(Process { pid: again, .. }) = found_again(&mut driver).await else {
            panic!("it runs")
        };
        assert_eq!(again, pid);
    }
    systemctl(&["daemon-reload"]);
    silence(&mut driver).await;
    kill("KILL", pid);
    assert_eq!(exit(&mut driver).await.pid, pid);
    driver.start().await.unwrap();
}

#[tokio::test]
async fn a_command_becomes_a_unit_that_outlives_its_driver_and_is_adopted_by_the_next() {
    let Some(unit) = Unit::transient("diarwatch-worker-dwt.service").await else { return };
    let script = "printf %s \"$1\" >/run/dwt-words; printf %s \"$WORDS\" >/run/dwt-env; exec sleep 1000";
    let keys = format!(
        "command = [\"/bin/sh\", \"-c\", '{script}', \"sh\", \"$HOME %n ${{X}} 話\"]\n\
         environment = {{ WORDS = \"%h $y 'z' \\\"q\\\"\" }}\nworking_directory = \"/run\"\nuser = \"nobody\""
    );
    for name in ["/run/dwt-words", "/run/dwt-env"] {
        std::fs::write(name, "").unwrap();
        run("chown", &["nobody", name]);
    }
    let mut first = driver(&keys);
    assert_eq!(first.look().await.unwrap(), Found::Stopped { exit: None });
    let pid = first.start().await.unwrap().pid;
    let written = async {
        while std::fs::read_to_string("/run/dwt-env").unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
    assert_eq!(std::fs::read_to_string("/run/dwt-words").unwrap(), "$HOME %n ${X} 話");
    assert_eq!(std::fs::read_to_string("/run/dwt-env").unwrap(), "%h $y 'z' \"q\"");
    assert_eq!(unit.show("User"), "nobody");
    first.leave(Duration::ZERO).await;
    drop(first);
    let mut second = driver(&keys);
    let found = second.look().await.unwrap();
    assert!(matches!(found, Found::Running(process) if process.pid == pid), "{found:?}");
    // It waits for systemd's own restart then: once as a former agent left it, once as its own.
    for _ in 0..2 {
        kill("KILL", unit.show("MainPID").parse().unwrap());
        let exit = exit(&mut second).await;
        assert!(exit.manager_restarts && exit.signal == Some(9), "{exit:?}");
        second.start().await.unwrap();
    }
    systemctl(&["stop", unit.name]);
    assert!(exit(&mut second).await.by_hand);
    second.start().await.unwrap();
}

/// kill -9 to the new process running, back-off zero; prints one line.
#[tokio::test]
#[ignore = "a figure, not a statement"]
async fn from_kill_to_the_new_process() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    for (kind, more) in [("plain", ""), ("floor", "Restart=on-failure\nRestartSec=60\nKillMode=mixed")] {
        let service = format!("ExecStart=/bin/sleep 1000\n{more}");
        let Some(unit) = Unit::with("dwt-figure.service", &service).await else { return };
        let (mut driver, mut pid) = running(&unit).await;
        let (mut seen, mut took) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let killed = clock::uptime();
            let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
            assert_eq!(exit(&mut driver).await.signal, Some(9));
            seen.push(clock::uptime().saturating_sub(killed));
            pid = driver.start().await.unwrap().pid;
            took.push(clock::uptime().saturating_sub(killed));
            assert!(Path::new(&format!("/proc/{pid}")).exists());
        }
        seen.sort_unstable();
        took.sort_unstable();
        let at = |sorted: &[Duration], per_cent: usize| {
            sorted[(sorted.len() * per_cent / 100).min(sorted.len() - 1)]
        };
        println!(
            "{kind} n={rounds} seen p50={:?} p99={:?} running p50={:?} p99={:?} max={:?}",
            at(&seen, 50),
            at(&seen, 99),
            at(&took, 50),
            at(&took, 99),
            took.last().unwrap()
        );
    }
}
