//! A terminal for tests: a tmux of their own, with a shell in it. Takes keys and sizes; gives what is
//! on the screen. It ends with the test, and with it everything that was started in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use diarwatch_shared::daemon::talk;

use super::{children_of, until};

/// The terminal.
pub struct Terminal {
    directory: tempfile::TempDir,
}

impl Terminal {
    /// A shell in a terminal of 80 by 24; none, and a line that says so, where there is no tmux.
    pub fn open() -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            talk("SKIPPED: tmux is not here; .ci/install installs it");
            return None;
        }
        let terminal = Self { directory: tempfile::tempdir().unwrap() };
        let session = ["new-session", "-d", "-x", "80", "-y", "24", "-s", "test"];
        terminal.tmux(&[&session[..], &["env PS1='$ ' TERM=tmux-256color sh -i"]].concat());
        terminal.tmux(&["set-option", "-g", "window-size", "manual"]);
        terminal.sees("a shell", |screen| screen.contains('$'));
        Some(terminal)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("tmux")
    }

    fn try_tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        // Its own server, no configuration of the person who runs this; -u: UTF-8 whatever the locale.
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(self.socket()).args(arguments);
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").output().unwrap()
    }

    #[track_caller]
    fn tmux(&self, arguments: &[&str]) -> String {
        let output = self.try_tmux(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "test"])
    }

    /// Waits until the screen shows something, and gives it.
    #[track_caller]
    pub fn sees(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, || {
                last = self.screen();
                fits(&last).then(|| last.clone())
            })
        }));
        looked.unwrap_or_else(|_| panic!("waited in vain until the screen shows {what}. It shows:\n{last}"))
    }

    /// Types a line.
    pub fn types(&self, line: &str) {
        self.tmux(&["send-keys", "-t", "test", "-l", line]);
        self.press("Enter");
    }

    /// Presses a key, by tmux's name of it.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "test", key]);
    }

    /// From now on keeps what is sent to it in a file, or no longer.
    pub fn pipe(&self, file: Option<&Path>) {
        let keep = file.map(|file| format!("cat >{}", file.display()));
        self.tmux(&[&["pipe-pane", "-t", "test"][..], keep.as_deref().as_slice()].concat());
    }

    /// Gives it another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-t", "test", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What tmux knows of it, such as `alternate_on`.
    pub fn fact(&self, name: &str) -> String {
        self.tmux(&["display-message", "-p", "-t", "test", &format!("#{{{name}}}")]).trim().to_owned()
    }

    /// The process that the shell runs now.
    #[track_caller]
    pub fn process(&self) -> u32 {
        let shell = self.fact("pane_pid").parse().unwrap();
        until("the shell runs something", || children_of(shell).first().copied())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.try_tmux(&["kill-server"]));
    }
}
