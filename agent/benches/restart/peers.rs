//! Who else restarts workers: supervisord (Debian's package) and systemd by itself. The same program, the
//! same kill; takes rounds, gives times.

use std::process::{Child, Command, Stdio};

use crate::command::must;
use crate::marks::Marks;
use crate::times::{Pauses, Times};

/// Milliseconds in which supervisord is left in peace at least: it looks once a second, at any phase.
const SUPERVISORD_PEACE: u64 = 500;
/// The same for systemd, which is told at once.
const SYSTEMD_PEACE: u64 = 20;
/// supervisord as its users set it up for this: a start counts at once, and none is the last.
const SUPERVISORD: &str = "[supervisord]\nnodaemon=true\nuser=root\nlogfile=FOLDER/log\npidfile=FOLDER/pid\n\
    childlogdir=FOLDER\n[program:bench]\ncommand=PROGRAM worker FOLDER/marks\nautorestart=true\n\
    startsecs=0\nstartretries=1000000\n";

/// Says what to install.
pub(crate) fn supervisord_is_here() -> Result<(), String> {
    let version = must(&["supervisord", "--version"])
        .map_err(|_| String::from("supervisord is not here; install the package `supervisor`"))?;
    println!("supervisord {version}");
    Ok(())
}

/// supervisord's times.
pub(crate) fn supervisord(rounds: usize) -> Result<Times, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let text = SUPERVISORD
        .replace("FOLDER", &folder.path().display().to_string())
        .replace("PROGRAM", &program.display().to_string());
    let file = folder.path().join("supervisord.conf");
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let marks = Marks::at(&folder.path().join("marks"));
    // It ends with this program, however that ends.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "supervisord", "-c"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _ended = Ended(command.spawn().map_err(|error| format!("supervisord: {error}"))?);
    Ok(times("supervisord", &marks, rounds, SUPERVISORD_PEACE))
}

/// systemd's own, of a unit that was started.
pub(crate) fn systemd_own(marks: &Marks, rounds: usize) -> Times {
    times("systemd_own", marks, rounds, SYSTEMD_PEACE)
}

fn times(who: &str, marks: &Marks, rounds: usize, peace: u64) -> Times {
    let (mut pid, _) = marks.next();
    let (mut all, mut pauses) = (Times::default(), Pauses::new());
    for _ in 0..rounds {
        pauses.sleep(peace);
        let (next, took) = marks.killed(pid);
        all.add(took);
        pid = next;
    }
    all.tell(&format!("{who}: kill to running"));
    all
}

/// supervisord, which ends its workers when it is asked to end.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(must(&["kill", "-TERM", &self.0.id().to_string()]));
        drop(self.0.wait());
    }
}
