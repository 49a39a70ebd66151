//! What an agent without root may do: exactly what polkit was told.

use std::path::Path;
use std::process::Command;

use diarwatch_agent::restart::{Driver, Found, Signal};

use crate::unit::*;

/// The user of the agent without root, and a unit that it may not touch.
const USER: &str = "diarwatch";
const FOREIGN: &str = "dwt-foreign.service";
/// Where the program of the tests can be read by that user.
const COPY: &str = "/run/dwt-driver-systemd";

#[tokio::test]
async fn without_root_exactly_the_named_units_can_be_started_and_stopped() {
    let Some(unit) = Unit::with("dwt-named.service", "ExecStart=/bin/sleep 1000").await else { return };
    if !Path::new("/etc/polkit-1/rules.d").is_dir() {
        println!("skipped: there is no polkit with rules in this node");
        return;
    }
    let rules = include_str!("../../../systemd/polkit/50-diarwatch.rules");
    let listed = rules.replace("\"pyannote.service\"", &format!("\"{}\"", unit.name));
    assert_ne!(listed, rules);
    std::fs::write("/etc/polkit-1/rules.d/50-dwt.rules", listed).unwrap();
    run("useradd", &["--system", USER]);
    std::fs::copy(std::env::current_exe().unwrap(), COPY).unwrap();
    std::fs::write(format!("/run/systemd/system/{FOREIGN}"), "[Service]\nExecStart=/bin/sleep 1000\n")
        .unwrap();
    systemctl(&["daemon-reload"]);
    systemctl(&["restart", "polkit.service"]);
    let words =
        ["-u", USER, "--", COPY, "--ignored", "--exact", "access::as_the_user_of_the_agent", "--nocapture"];
    let out = Command::new("runuser").args(words).output().unwrap();
    for path in ["/etc/polkit-1/rules.d/50-dwt.rules", COPY, &format!("/run/systemd/system/{FOREIGN}")] {
        std::fs::remove_file(path).unwrap();
    }
    run("systemctl", &["stop", FOREIGN]);
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
}

/// The part of the test above that runs without root.
#[tokio::test]
#[ignore = "another test runs it as another user"]
async fn as_the_user_of_the_agent() {
    assert!(!rustix::process::getuid().is_root());
    let mut named = driver("unit = \"dwt-named.service\"");
    assert_eq!(named.look().await.unwrap(), Found::Stopped { exit: None });
    let pid = named.start().await.unwrap().pid;
    named.signal(Signal::Kill).await.unwrap();
    assert_eq!(exit(&mut named).await.signal, Some(9));
    assert_ne!(named.start().await.unwrap().pid, pid);
    named.signal(Signal::Terminate).await.unwrap();
    assert_eq!(exit(&mut named).await.signal, Some(15));
    let mut foreign = driver(&format!("unit = \"{FOREIGN}\""));
    foreign.look().await.unwrap();
    let error = foreign.start().await.unwrap_err().to_string();
    assert!(error.contains("50-diarwatch.rules"), "{error}");
    let mut sshd = driver("unit = \"systemd-journald.service\"");
    assert!(matches!(sshd.look().await.unwrap(), Found::Running(_)));
    assert!(sshd.signal(Signal::Terminate).await.unwrap_err().contains("50-diarwatch.rules"));
    for verb in [["daemon-reload", "-q"], ["stop", FOREIGN], ["enable", "dwt-named.service"]] {
        assert!(!run("systemctl", &[&["--no-ask-password"][..], &verb[..]].concat()), "{verb:?}");
    }
    let mut own = driver("command = [\"/bin/sleep\", \"1000\"]");
    own.look().await.unwrap();
    let error = own.start().await.unwrap_err().to_string();
    assert!(error.contains("only root may make units"), "{error}");
}
