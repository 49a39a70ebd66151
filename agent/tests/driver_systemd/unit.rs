//! What the tests of the driver have in common: units that are put away again, and a driver of each.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use diarwatch_agent::config::worker::WorkerConfig;
use diarwatch_agent::restart::systemd::SystemdDriver;
use diarwatch_agent::restart::{Driver, Exit, Found, News};
use diarwatch_shared::config::parse;
use tokio::sync::{Mutex, MutexGuard};

/// A test that waits longer than this has failed; nothing else here depends on time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// One test at a time: some restart the bus under all of them.
static ONE: Mutex<()> = Mutex::const_new(());

/// A unit of a test.
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    _one: MutexGuard<'static, ()>,
}

impl Unit {
    /// A unit with these lines under [Service]; none where there is no systemd to try it on.
    pub(crate) async fn with(name: &'static str, service: &str) -> Option<Self> {
        let one = ONE.lock().await;
        let up = Path::new("/run/systemd/system").is_dir() && run("systemctl", &["show-environment"]);
        if !up || !rustix::process::getuid().is_root() {
            println!("skipped: there is no systemd to ask, or this is not root; run it in a node");
            return None;
        }
        let unit = Self { name, _one: one };
        unit.put_away();
        unit.write(&format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\n{service}\n"));
        Some(unit)
    }

    /// The name alone; what has it is made by the driver.
    pub(crate) async fn transient(name: &'static str) -> Option<Self> {
        let unit = Self::with(name, "ExecStart=/bin/true").await?;
        unit.put_away();
        Some(unit)
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
        systemctl(&["daemon-reload"]);
    }

    pub(crate) fn file(&self) -> String {
        format!("/run/systemd/system/{}", self.name)
    }

    pub(crate) fn put_away(&self) {
        run("systemctl", &["kill", "-s", "KILL", self.name]);
        run("systemctl", &["stop", self.name]);
        run("systemctl", &["reset-failed", self.name]);
        let _ = std::fs::remove_file(self.file());
        systemctl(&["daemon-reload"]);
    }

    pub(crate) fn driver(&self) -> SystemdDriver {
        driver(&format!("unit = \"{}\"", self.name))
    }

    pub(crate) fn show(&self, property: &str) -> String {
        let out = Command::new("systemctl").args(["show", "-P", property, self.name]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    pub(crate) async fn until(&self, property: &str, value: &str) {
        let wait = async {
            while self.show(property) != value {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let last = || format!("{property} becomes {value}, it is {}", self.show(property));
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{}", last()));
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.put_away();
    }
}

pub(crate) fn driver(keys: &str) -> SystemdDriver {
    let text = format!(
        "name = \"dwt\"\ndriver = \"systemd\"\n{keys}\nreadiness = {{ url = \"http://127.0.0.1/\" }}\n"
    );
    SystemdDriver::new(parse::<WorkerConfig>(Path::new("w.toml"), &text).unwrap())
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|out| out.status.success())
}

pub(crate) fn systemctl(arguments: &[&str]) {
    assert!(run("systemctl", arguments), "systemctl {arguments:?}");
}

pub(crate) fn kill(signal: &str, pid: u32) {
    assert!(run("/bin/kill", &["-s", signal, &pid.to_string()]));
}

pub(crate) async fn news(driver: &mut SystemdDriver) -> News {
    tokio::time::timeout(PATIENCE, driver.news()).await.expect("something happens")
}

pub(crate) async fn exit(driver: &mut SystemdDriver) -> Exit {
    match news(driver).await {
        News::Exited(exit) => exit,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn started(driver: &mut SystemdDriver) -> u32 {
    match news(driver).await {
        News::Started(process) => process.pid,
        other => panic!("{other:?}"),
    }
}

/// A driver whose worker runs.
pub(crate) async fn running(unit: &Unit) -> (SystemdDriver, u32) {
    let mut driver = unit.driver();
    driver.look().await.unwrap();
    let pid = driver.start().await.unwrap().pid;
    assert_eq!(unit.show("MainPID"), pid.to_string());
    (driver, pid)
}

pub(crate) async fn found_again(driver: &mut SystemdDriver) -> Found {
    let mut found = driver.look().await;
    while found.is_err() {
        found = tokio::time::timeout(PATIENCE, driver.look()).await.expect("a look is bounded");
    }
    found.expect("it was found")
}

/// Nothing is told for a moment; what would be told wrongly comes within milliseconds.
pub(crate) async fn silence(driver: &mut SystemdDriver) {
    let told = tokio::time::timeout(Duration::from_millis(300), driver.news()).await;
    assert!(told.is_err(), "{told:?}");
}
