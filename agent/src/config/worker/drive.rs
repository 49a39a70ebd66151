//! Who starts and stops a worker, and what each of them needs to know. Takes what TOML gave; tells every
//! key that is missing, or that means nothing to the driver.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Faults, WorkerConfig};

/// Who starts and stops a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// systemd: a unit that is there (`unit`), or a transient one of `command`. The worker lives on when
    /// the agent ends.
    Systemd,
    /// The Docker Engine: a container that is there. The worker lives on when the agent ends.
    Docker,
    /// The agent itself; the worker ends with the agent. For a demo and for tests.
    Child,
}

impl WorkerConfig {
    pub(super) fn check_driver(&self, faults: &mut Faults) {
        match self.driver {
            DriverKind::Child => {
                self.means_nothing(
                    faults,
                    "child",
                    &[("unit", self.unit.is_some()), ("user", self.user.is_some())],
                );
                self.check_command(faults);
            }
            DriverKind::Systemd => self.check_systemd(faults),
            DriverKind::Docker => {
                let foreign = [("unit", self.unit.is_some()), ("command", !self.command.is_empty())];
                self.means_nothing(faults, "docker", &foreign);
                if self.container.is_none() {
                    let hint = "write the name that `docker ps --all` prints, such as pyannote-1";
                    faults.add("container", "it is missing beside driver = \"docker\"", hint);
                }
            }
        }
        if self.driver != DriverKind::Docker {
            self.means_nothing(faults, "systemd` or `child", &[("container", self.container.is_some())]);
        }
        self.check_names(faults);
    }

    fn check_systemd(&self, faults: &mut Faults) {
        match (&self.unit, self.command.is_empty()) {
            (Some(_), true) => {
                let foreign = [
                    ("user", self.user.is_some()),
                    ("working_directory", self.working_directory.is_some()),
                    ("environment", !self.environment.0.is_empty()),
                ];
                self.means_nothing(faults, "systemd` with `unit", &foreign);
            }
            (None, false) => self.check_command(faults),
            (Some(_), false) => {
                let hint = "write `unit` for a unit that is there, or `command` for one that is made";
                faults.add("command", "it stands beside unit", hint);
            }
            (None, true) => {
                let hint = "write unit = \"pyannote.service\", or `command` and its arguments";
                faults.add("unit", "it is missing beside driver = \"systemd\"", hint);
            }
        }
    }

    fn check_names(&self, faults: &mut Faults) {
        if let Some(unit) = self.unit.as_ref().filter(|unit| !is_service(unit)) {
            let hint = "write its whole name, such as pyannote@1.service; `systemctl list-units` prints it";
            faults.add("unit", format!("`{unit}` is not the name of a service"), hint);
        }
        if let Some(name) = self.container.as_ref().filter(|name| !is_container(name)) {
            let hint = "write the name that `docker ps --all` prints";
            faults.add("container", format!("`{name}` is not the name of a container"), hint);
        }
        if !self.docker_socket.is_absolute() {
            let problem = format!("`{}` is not an absolute path", self.docker_socket.display());
            faults.add("docker_socket", problem, "write it from / on, such as /var/run/docker.sock");
        }
    }

    fn means_nothing(&self, faults: &mut Faults, driver: &str, given: &[(&str, bool)]) {
        for (key, _) in given.iter().filter(|(_, given)| *given) {
            faults.add(*key, format!("it means nothing to the driver `{driver}`"), "leave it out");
        }
    }

    fn check_command(&self, faults: &mut Faults) {
        let Some(program) = self.command.first() else {
            let hint = "write the program and its arguments, such as [\"/usr/bin/python3\", \"worker.py\"]";
            return faults.add("command", "it is empty", hint);
        };
        if self.command.iter().any(|part| part.contains('\0')) {
            faults.add("command", "it holds a NUL character", "remove it");
        }
        let path = Path::new(program);
        if !path.is_absolute() {
            let hint = "write its absolute path; `command -v` prints it";
            return faults.add("command[0]", format!("`{program}` is not an absolute path"), hint);
        }
        match std::fs::metadata(path) {
            Err(error) => faults.add(
                "command[0]",
                format!("`{program}` cannot be found: {error}"),
                "install it or correct the path",
            ),
            Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => faults.add(
                "command[0]",
                format!("`{program}` is not a program"),
                "name a file that may be executed",
            ),
            Ok(_) => {}
        }
    }
}

/// A service's name as systemd takes it.
fn is_service(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.@\\".contains(c);
    name.len() <= 255
        && name.strip_suffix(".service").is_some_and(|stem| !stem.is_empty() && stem.chars().all(fits))
}

/// A container's name as Docker takes it.
fn is_container(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.len() <= 255 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits)
}

pub(super) fn docker_socket() -> PathBuf {
    PathBuf::from("/var/run/docker.sock")
}
