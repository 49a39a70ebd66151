//! A real Docker Engine: Debian's `docker.io`, unpacked by `.ci/install` and not installed, so that no
//! daemon of it ever starts on the machine. Takes the lab; gives an engine's socket within a second. When
//! it is dropped it is stopped, by force after [`STOP`], with every container.
//!
//! It runs in the lab beside the nodes, not in one: there it needs nothing of them. No bridge and no
//! iptables, so containers use `--network host`, which is the lab's network; no registry is reached, so an
//! image is a file or two. `vfs` copies layers and works on every kernel and disk; images are small here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::command::{Output, PATIENCE, run, until};
use crate::lab::{Lab, remove};
use crate::root::target;

/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(15);

/// A running engine.
pub(crate) struct Engine<'lab> {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    pub(crate) folder: PathBuf,
    lab: &'lab Lab,
    name: String,
    options: Vec<&'static str>,
    dockerd: Child,
}

/// Where `.ci/install` unpacks the engine.
pub(crate) fn tools() -> PathBuf {
    target().join("tools/docker")
}

/// What is missing for an engine.
pub(crate) fn lacks() -> Option<String> {
    let engine = tools().join("usr/sbin/dockerd");
    (!engine.exists()).then(|| format!("{} is not there (.ci/install unpacks it)", engine.display()))
}

/// The workers of containers: the stand-ins as one file that needs no library.
pub(crate) fn standins() -> Result<PathBuf, String> {
    let path = target().join("static/diarwatch-standins");
    if path.exists() { Ok(path) } else { Err(format!("{}: not there; make standins-static", path.display())) }
}

/// A program that needs no library, for images.
pub(crate) fn busybox() -> PathBuf {
    tools().join("bin/busybox")
}

impl<'lab> Engine<'lab> {
    /// Starts an engine and waits until it answers.
    pub(crate) fn start(lab: &'lab Lab) -> Result<Self, String> {
        Self::start_with(lab, &[])
    }

    /// The same with further options of dockerd.
    pub(crate) fn start_with(lab: &'lab Lab, options: &[&'static str]) -> Result<Self, String> {
        let name = format!("engine-{}", lab.number());
        let folder = lab.folder(&name)?;
        let (socket, options) = (folder.join("docker.sock"), options.to_vec());
        let dockerd = dockerd(lab, &name, &folder, &options)?;
        let mut engine = Self { socket, folder, lab, name, options, dockerd };
        engine.answers()?;
        Ok(engine)
    }

    /// Stops it as a package's upgrade does, and starts it again.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.stop();
        self.dockerd = dockerd(self.lab, &self.name, &self.folder, &self.options)?;
        self.answers()
    }

    fn answers(&mut self) -> Result<(), String> {
        until("an answer of dockerd", PATIENCE, || self.ended() || self.docker(&["version"]).code == 0)?;
        if self.ended() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            return Err(format!("dockerd ended: {}", log.lines().last().unwrap_or_default()));
        }
        Ok(())
    }

    /// Asks the engine as a person does, by its own command.
    pub(crate) fn docker(&self, words: &[&str]) -> Output {
        let variables = environment(&self.socket).map(|(key, value)| format!("{key}={value}"));
        let all = ["env"].into_iter().chain(variables.iter().map(String::as_str)).chain(["docker"]);
        let all: Vec<&str> = all.chain(words.iter().copied()).collect();
        run(&all, b"").unwrap_or_else(|error| Output { code: -1, out: String::new(), err: error })
    }

    /// The same for what has to go well; what it said.
    pub(crate) fn must(&self, words: &[&str]) -> Result<String, String> {
        self.docker(words).ok().map_err(|error| format!("docker {}: {error}", words.join(" ")))
    }

    /// Makes an image of programs that need no library: each as `/bin/NAME`. Busybox is also `sh`.
    pub(crate) fn import(&self, image: &str, programs: &[&Path]) -> Result<(), String> {
        let said = |error: std::io::Error| format!("the image {image}: {error}");
        let tree = self.folder.join(format!("image-{image}"));
        fs::create_dir_all(tree.join("bin")).map_err(said)?;
        fs::create_dir_all(tree.join("tmp")).map_err(said)?;
        for program in programs {
            let name = program.file_name().unwrap_or_default();
            fs::copy(program, tree.join("bin").join(name)).map_err(said)?;
            if name == "busybox" {
                symlink("busybox", tree.join("bin/sh")).map_err(said)?;
            }
        }
        let archive = self.folder.join(format!("{image}.tar")).display().to_string();
        crate::command::must(&["tar", "-C", &tree.display().to_string(), "-cf", &archive, "."])?;
        self.must(&["import", &archive, image]).map(drop)
    }

    /// What the engine tells of a container, by a Go template.
    pub(crate) fn inspect(&self, container: &str, template: &str) -> Result<String, String> {
        self.must(&["inspect", "--format", template, container])
    }

    fn stop(&mut self) {
        let id = i32::try_from(self.dockerd.id()).unwrap_or_default();
        if let Some(pid) = rustix::process::Pid::from_raw(id).filter(|_| !self.ended()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if until("dockerd to stop", STOP, || self.ended()).is_err() {
            eprintln!("{}: would not stop: killed", self.name);
            drop(self.dockerd.kill());
            drop(self.dockerd.wait());
        }
    }

    fn ended(&mut self) -> bool {
        !matches!(self.dockerd.try_wait(), Ok(None))
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        let running = self.docker(&["ps", "--quiet", "--no-trunc"]).out;
        // Ten seconds of patience with each container are its default, and none here needs them.
        for container in running.split_whitespace() {
            drop(self.docker(&["kill", container]));
        }
        self.stop();
        // Shims and containers of an engine that was killed.
        self.lab.kill(&self.name);
        self.lab.kill(&format!("{}-containers", self.name));
        remove(&self.folder);
    }
}

/// Runs dockerd on what lies in its folder.
fn dockerd(lab: &Lab, name: &str, folder: &Path, options: &[&str]) -> Result<Child, String> {
    let socket = folder.join("docker.sock");
    let mut command = Command::new("dockerd");
    command.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
    command.arg("--pidfile").arg(folder.join("pid")).arg(format!("--host=unix://{}", socket.display()));
    command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]);
    command.arg(format!("--cgroup-parent={}", lab.cgroup(&format!("{name}-containers"))));
    command.args(options);
    for (key, value) in environment(&socket) {
        command.env(key, value);
    }
    lab.start(name, false, &folder.join("log"), &mut command)
}

/// What its programs need: each other, their libraries, the socket, no file of the user.
fn environment(socket: &Path) -> [(&'static str, String); 4] {
    let tools = tools().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let libraries =
        ["usr/lib", "lib"].map(|folder| format!("{tools}/{folder}/{}-linux-gnu", std::env::consts::ARCH));
    [
        ("PATH", format!("{tools}/usr/sbin:{tools}/usr/bin:{path}")),
        ("LD_LIBRARY_PATH", libraries.join(":")),
        ("DOCKER_HOST", format!("unix://{}", socket.display())),
        ("DOCKER_CONFIG", socket.with_file_name("client").display().to_string()),
    ]
}
