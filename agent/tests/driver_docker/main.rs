//! The driver `docker` under a real Docker Engine: what a person, a deploy, the kernel, the engine itself
//! and the judge do to a container, and what the driver says of it.
//!
//! The engine is another's to start: its socket is read from `DIARWATCH_TEST_DOCKER_SOCKET`, the name of an
//! image that has busybox as `/bin/sh` from `DIARWATCH_TEST_DOCKER_IMAGE` (default `busybox`), and a shell
//! command that restarts the engine from `DIARWATCH_TEST_DOCKER_RESTART`. Without them a test says so and
//! does nothing. It has to run on the engine's own host, as root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of a test"
)]

mod hand;
mod hostile;

use std::fs::File;
use std::time::Duration;

use diarwatch_agent::restart::{Driver, Found, News, Signal};
use diarwatch_shared::clock;
use hand::{DEAF, Hand, POLITE, exited, kill, lives, news, running, silent, started, stopped, until_gone};

#[tokio::test]
async fn an_exit_code_is_told_once_and_the_container_starts_again() {
    let Some(hand) = Hand::new("code") else { return };
    hand.makes(&hand.name, "sleep 0.5; exit 3", "", "");
    let mut driver = hand.driver();
    assert_eq!(driver.look().await, Ok(Found::Stopped { exit: None }), "it was never started");
    for _ in 0..2 {
        let pid = driver.start().await.unwrap().pid;
        let exit = exited(&mut driver).await;
        assert_eq!((exit.pid, exit.reason.as_str(), exit.code), (pid, "exit code 3", Some(3)));
        assert!(!exit.by_hand && !exit.oom && !exit.manager_restarts);
        silent(&mut driver).await;
    }
    let again = hand.driver().look().await;
    assert_eq!(stopped(again).reason, "exit code 3", "a driver that was not there knows it, too");
}

#[tokio::test]
async fn a_killed_process_is_told_at_once_and_its_whole_container_is_known() {
    let Some(hand) = Hand::new("kill9") else { return };
    hand.runs("sleep 1000 & sleep 1000 & wait");
    let (mut driver, pid) = hand.adopted().await;
    while driver.pids().len() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(driver.pids().contains(&pid));
    kill(pid);
    let exit = exited(&mut driver).await;
    assert_eq!((exit.pid, exit.reason.as_str(), exit.signal), (pid, "signal 9 (SIGKILL)", Some(9)));
    assert!(!exit.by_hand);
    assert!(driver.pids().is_empty());
    let next = driver.start().await.unwrap();
    assert_ne!(next.pid, pid);
    assert!(next.age < hand::PATIENCE && lives(next.pid));
    silent(&mut driver).await;
}

#[tokio::test]
async fn a_docker_kill_by_hand_is_no_stop() {
    let Some(hand) = Hand::new("dockerkill") else { return };
    hand.runs(POLITE);
    let (mut driver, _) = hand.adopted().await;
    hand.does("kill");
    let exit = exited(&mut driver).await;
    assert_eq!(exit.reason, "signal 9 (SIGKILL), through Docker");
    assert!(!exit.by_hand);
    assert!(!stopped(hand.driver().look().await).by_hand);
    driver.start().await.unwrap();
    hand.does("kill?signal=TERM");
    assert!(!exited(&mut driver).await.by_hand);
}

#[tokio::test]
async fn what_the_agent_sends_is_no_persons_doing_even_to_the_next_agent() {
    let Some(hand) = Hand::new("own") else { return };
    hand.runs(POLITE);
    let (mut driver, pid) = hand.adopted().await;
    // Until the trap is set, a first process ignores it.
    while lives(pid) {
        driver.signal(Signal::Terminate).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(driver);
    let mut driver = hand.driver();
    let exit = stopped(driver.look().await);
    assert_eq!((exit.code, exit.by_hand), (Some(0), false));
    let pid = driver.start().await.unwrap().pid;
    driver.signal(Signal::Traceback(10)).await.unwrap();
    driver.signal(Signal::Kill).await.unwrap();
    let exit = exited(&mut driver).await;
    assert_eq!((exit.pid, exit.signal, exit.by_hand), (pid, Some(9), false));
    driver.signal(Signal::Kill).await.unwrap();
}

#[tokio::test]
async fn what_its_healthcheck_says_is_told_when_it_changes() {
    let Some(hand) = Hand::new("health") else { return };
    let check = r#","Healthcheck":{"Test":["CMD-SHELL","test -e /tmp/ill && echo CUDA error && exit 1; exit 0"],
        "Interval":200000000,"Timeout":5000000000,"Retries":1}"#;
    let ill = "while :; do sleep 2; touch /tmp/ill; sleep 2; rm /tmp/ill; done";
    hand.makes(&hand.name, ill, "", check);
    hand.does("start");
    let (mut driver, pid) = hand.adopted().await;
    let News::Health { healthy: false, reason } = news(&mut driver).await else { panic!("it is ill") };
    assert!(reason.starts_with("its HEALTHCHECK failed") && reason.ends_with("CUDA error"), "{reason}");
    assert!(matches!(news(&mut driver).await, News::Health { healthy: true, .. }));
    assert!(lives(pid));
}

#[tokio::test]
async fn an_end_for_want_of_memory_says_so() {
    let Some(hand) = Hand::new("oom") else { return };
    let memory = r#","Memory":16777216,"MemorySwap":16777216"#;
    hand.makes(&hand.name, "sleep 0.5; x=aaaaaaaaaa; while :; do x=$x$x; done", memory, "");
    hand.does("start");
    let (mut driver, _) = hand.adopted().await;
    let exit = exited(&mut driver).await;
    assert_eq!((exit.reason.as_str(), exit.oom, exit.by_hand), ("out of memory (cgroup limit)", true, false));
    assert!(stopped(hand.driver().look().await).oom);
}

#[tokio::test]
async fn the_engines_own_restarts_are_followed_and_one_that_waits_is_started_at_once() {
    let Some(hand) = Hand::new("policy") else { return };
    let always = r#","RestartPolicy":{"Name":"always"}"#;
    hand.makes(&hand.name, "sleep 0.5; exit 4", always, "");
    hand.does("start");
    let (mut driver, mut pid) = hand.adopted().await;
    for _ in 0..3 {
        let exit = exited(&mut driver).await;
        assert_eq!((exit.pid, exit.code), (pid, Some(4)));
        assert!(exit.manager_restarts && !exit.by_hand, "{exit:?}");
        let next = started(&mut driver).await;
        assert_ne!(next, pid);
        pid = next;
    }
    assert!(exited(&mut driver).await.manager_restarts);
    // The engine waits by now; the judge does not have to.
    let pid = driver.start().await.unwrap().pid;
    let exit = exited(&mut driver).await;
    assert_eq!((exit.pid, exit.code), (pid, Some(4)), "it was told of once");
}

#[tokio::test]
async fn what_the_agent_kills_is_not_started_by_the_engine() {
    let Some(hand) = Hand::new("nopolicy") else { return };
    hand.makes(&hand.name, DEAF, r#","RestartPolicy":{"Name":"always"}"#, "");
    hand.does("start");
    let (mut driver, _) = hand.adopted().await;
    driver.signal(Signal::Kill).await.unwrap();
    let exit = exited(&mut driver).await;
    assert!(!exit.manager_restarts && !exit.by_hand, "{exit:?}");
    silent(&mut driver).await;
    driver.start().await.unwrap();
}

#[tokio::test]
async fn a_container_stopped_by_hand_is_left_alone_until_somebody_starts_it() {
    let Some(hand) = Hand::new("stop") else { return };
    for (script, seconds) in [(POLITE, 20), (DEAF, 1)] {
        hand.runs(script);
        let (mut driver, pid) = hand.adopted().await;
        hand.does(&format!("stop?t={seconds}"));
        let exit = exited(&mut driver).await;
        assert!(exit.by_hand && exit.pid == pid, "{exit:?}");
        assert!(exit.reason.starts_with("stopped by hand"), "{exit:?}");
        assert!(stopped(driver.look().await).by_hand);
        assert!(stopped(hand.driver().look().await).by_hand, "an agent that was not there knows it");
        hand.does("start");
        // The engine was asked again: what it said then is told already, the start is not.
        assert_ne!(started(&mut driver).await, pid);
        assert!(hand.removes() < 300);
    }
}

#[tokio::test]
async fn a_restart_by_hand_is_an_end_by_hand_and_a_start() {
    let Some(hand) = Hand::new("restart") else { return };
    hand.runs(DEAF);
    let (mut driver, pid) = hand.adopted().await;
    hand.does("restart?t=1");
    let exit = exited(&mut driver).await;
    assert!(exit.by_hand && exit.pid == pid, "{exit:?}");
    let next = started(&mut driver).await;
    assert_ne!(next, pid);
    silent(&mut driver).await;
    assert_eq!(running(driver.look().await).pid, next);
}

#[tokio::test]
async fn a_container_made_anew_under_its_name_is_adopted() {
    let Some(hand) = Hand::new("anew") else { return };
    hand.runs(DEAF);
    let (mut driver, pid) = hand.adopted().await;
    assert!(hand.removes() < 300);
    let exit = exited(&mut driver).await;
    assert!(exit.by_hand && exit.pid == pid, "{exit:?}");
    assert!(driver.start().await.unwrap_err().to_string().contains("there is no such container"));
    hand.runs(DEAF);
    let second = started(&mut driver).await;
    // As `docker compose up` does it.
    let (fresh, name) = (format!("{}-fresh", hand.name), &hand.name);
    hand.makes(&fresh, DEAF, "", "");
    hand.does("stop?t=1");
    assert!(hand.removes() < 300);
    assert_eq!(hand.request("POST", &format!("containers/{fresh}/rename?name={name}"), "").0, 204);
    hand.does("start");
    let exit = exited(&mut driver).await;
    assert!(exit.by_hand && exit.pid == second, "{exit:?}");
    let third = started(&mut driver).await;
    assert!(lives(third) && third != second);
    silent(&mut driver).await;
}

#[tokio::test]
async fn a_container_that_lost_its_name_is_not_the_worker_any_more() {
    let Some(hand) = Hand::new("rename") else { return };
    hand.runs(DEAF);
    let (mut driver, pid) = hand.adopted().await;
    let (other, name) = (format!("{}-old", hand.name), &hand.name);
    hand.does(&format!("rename?name={other}"));
    let exit = exited(&mut driver).await;
    assert!(exit.by_hand && exit.reason.contains(&other), "{exit:?}");
    driver.signal(Signal::Kill).await.unwrap();
    silent(&mut driver).await;
    assert!(lives(pid), "it is another's now");
    assert_eq!(hand.request("POST", &format!("containers/{other}/rename?name={name}"), "").0, 204);
    assert_eq!(started(&mut driver).await, pid);
}

#[tokio::test]
async fn a_paused_container_is_left_alone_and_goes_on() {
    let Some(hand) = Hand::new("pause") else { return };
    hand.runs(DEAF);
    let (mut driver, pid) = hand.adopted().await;
    hand.does("pause");
    let exit = exited(&mut driver).await;
    assert_eq!((exit.by_hand, exit.reason.as_str()), (true, "paused by hand"));
    assert!(stopped(hand.driver().look().await).by_hand);
    hand.does("unpause");
    assert_eq!(started(&mut driver).await, pid);
    hand.does("pause");
    assert!(exited(&mut driver).await.by_hand);
    // An operator's `diarwatch worker restart`.
    assert_eq!(driver.start().await.unwrap().pid, pid);
}

#[tokio::test]
async fn an_agent_that_starts_anew_adopts_what_runs_and_learns_what_ended() {
    let Some(hand) = Hand::new("adopt") else { return };
    hand.runs(DEAF);
    let (mut driver, pid) = hand.adopted().await;
    driver.leave(Duration::ZERO).await;
    drop(driver);
    let (mut driver, same) = hand.adopted().await;
    assert_eq!(same, pid, "it was not touched");
    silent(&mut driver).await;
    drop(driver);
    kill(pid);
    until_gone(pid).await;
    let mut driver = hand.driver();
    let found = loop {
        // The engine takes a moment to notice, and says so.
        if let Ok(found) = driver.look().await {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let exit = stopped(Ok(found));
    assert_eq!((exit.signal, exit.by_hand), (Some(9), false));
}

#[tokio::test]
async fn a_container_that_is_not_there_says_what_to_do() {
    let Some(hand) = Hand::new("absent") else { return };
    let mut driver = hand.driver();
    let error = driver.look().await.unwrap_err();
    assert!(error.contains(&hand.name) && error.contains("`docker ps --all`"), "{error}");
    let error = driver.start().await.unwrap_err().to_string();
    assert!(error.contains(&hand.name) && error.contains("docker compose up"), "{error}");
    hand.makes(&hand.name, DEAF, r#","Devices":[{"PathOnHost":"/dev/no-such-gpu"}]"#, "");
    driver.look().await.unwrap();
    let error = driver.start().await.unwrap_err().to_string();
    assert!(error.contains("no-such-gpu"), "{error}");
}

#[tokio::test]
async fn a_restart_of_the_engine_touches_no_worker_that_lives_and_stops_none_for_good() {
    let Some(hand) = Hand::with("engine", File::lock) else { return };
    let Ok(restart) = std::env::var("DIARWATCH_TEST_DOCKER_RESTART") else {
        println!("SKIPPED: engine: DIARWATCH_TEST_DOCKER_RESTART restarts no Docker Engine");
        return;
    };
    hand.runs(POLITE);
    let (mut driver, pid) = hand.adopted().await;
    let lives_on = hand.request("GET", "info", "").1.contains("\"LiveRestoreEnabled\":true");
    let mut restart = std::process::Command::new("/bin/sh").args(["-c", &restart]).spawn().unwrap();
    let told = news(&mut driver).await;
    assert!(matches!(&told, News::Lost { reason } if reason.contains("Docker Engine")), "{told:?}");
    let found = loop {
        if let Ok(found) = driver.look().await {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    restart.wait().unwrap();
    if lives_on {
        assert_eq!(running(Ok(found)).pid, pid);
    } else {
        let exit = stopped(Ok(found));
        assert!(!exit.by_hand, "nobody wanted it to stop: {exit:?}");
        driver.start().await.unwrap();
    }
    silent(&mut driver).await;
}

/// Prints how long it takes from a SIGKILL to the next process; asserts nothing of it.
#[tokio::test]
async fn a_killed_container_runs_again_soon() {
    let Some(hand) = Hand::new("soon") else { return };
    hand.runs(DEAF);
    let (mut driver, mut pid) = hand.adopted().await;
    let (mut seen, mut again) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let began = clock::uptime();
        kill(pid);
        assert!(!exited(&mut driver).await.by_hand);
        seen.push(clock::uptime().saturating_sub(began).as_millis());
        pid = driver.start().await.unwrap().pid;
        again.push(clock::uptime().saturating_sub(began).as_millis());
    }
    for (what, mut figures) in [("told", seen), ("running again", again)] {
        figures.sort_unstable();
        let (median, worst) = (figures.get(15), figures.last());
        println!("kill -9 to {what}: p50 {median:?} ms, max {worst:?} ms, n=30");
    }
}
