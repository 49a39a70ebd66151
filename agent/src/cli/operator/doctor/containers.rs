//! Containers that would lose their GPUs at the next `systemctl daemon-reload`.
//!
//! With the systemd cgroup driver, systemd keeps a list of devices for each container's scope and puts
//! it back in force when it reloads. A GPU that the legacy hook (`--gpus`) let in behind systemd's back
//! is not on that list. So the list itself is the evidence: the drop-in `50-DeviceAllow.conf` of the
//! scope. Where it cannot be read, how the container was made has to do. Looked at: Docker's socket
//! (`/info`, `/containers/json`, `/containers/ID/json`), the drop-ins, `/dev/char`, and without the
//! socket `/etc/docker/daemon.json`. Podman and Kubernetes are not looked at.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::texts::Text;
use serde_json::Value;

use super::Facts;
use super::host::Host;
use super::report::{Finding, Verdict, word};

const SOCKET: &str = "/run/docker.sock";
const DAEMON: &str = "/etc/docker/daemon.json";
/// Bytes of one answer.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
/// For each read and write.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Running containers that are looked at.
const CONTAINERS_MAX: usize = 128;
/// Major number of NVIDIA's character devices; from this minor on it is no GPU but a control device.
const MAJOR: &str = "195";
const CONTROL_MINOR: u32 = 254;
const LINKED: &str =
    "make them again; runc 1.1.7 does without the links; until then no `systemctl daemon-reload`";
const RECREATE: &str =
    "with `--device nvidia.com/gpu=all` in place of `--gpus`; until then no `systemctl daemon-reload`";

/// How a container got its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// None were asked for.
    None,
    /// By the hook, behind the runtime's back: `--gpus`.
    Hook,
    /// By NVIDIA's runtime; its own configuration says whether that is as with the hook or by CDI.
    Runtime,
    /// Its configuration names them: `--device` or CDI.
    Named,
    /// It may use every device.
    Privileged,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It uses no GPU.
    NoGpu,
    /// It keeps them.
    Keeps,
    /// systemd's list lacks them.
    Loses,
    /// They are in its configuration, and a runc before 1.1.7 left them out of systemd's list, because
    /// they have no link below `/dev/char`.
    LeftOut,
    /// There is no list to look at; by the way they came they would be lost.
    MayLose,
}

/// `containers.daemon_reload`
pub(super) fn daemon_reload(facts: &Facts) -> Finding {
    let docker = Docker { socket: &facts.host.path(SOCKET) };
    let info = match docker.get("/info") {
        Ok(info) => info,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Finding::skip(Text::DoctorNoDocker, &[&SOCKET]);
        }
        Err(error) => return by_files(facts, &error),
    };
    // Whatever was asked of it, a container's own scope is what systemd manages.
    let driver = info.get("CgroupDriver").and_then(Value::as_str).unwrap_or("?");
    if driver != "systemd" {
        return Finding::pass(Text::DoctorCgroupDriver, &[&driver]);
    }
    let running = match docker.get("/containers/json") {
        Ok(running) => running,
        Err(error) => return by_files(facts, &error),
    };
    let ids = running.as_array().into_iter().flatten().filter_map(|container| container["Id"].as_str());
    let mut seen = Vec::new();
    for id in ids.filter(|id| id.chars().all(|letter| letter.is_ascii_alphanumeric())).take(CONTAINERS_MAX) {
        // One that ended meanwhile is no concern any more.
        let Ok(container) = docker.get(&format!("/containers/{id}/json")) else { continue };
        let name =
            container.get("Name").and_then(Value::as_str).unwrap_or(id).trim_start_matches('/').to_owned();
        let way = way(&container);
        let allowed = facts.host.read(&drop_in(id)).ok();
        seen.push((name, standing(way, allowed.as_deref(), has_links(&facts.host))));
    }
    judge(&seen)
}

fn drop_in(id: &str) -> String {
    format!("/run/systemd/transient/docker-{id}.scope.d/50-DeviceAllow.conf")
}

/// Whether `/dev/char` has links for GPUs, which some versions of runc want before they name a device.
fn has_links(host: &Host) -> bool {
    host.list("/dev/char").iter().any(|name| is_gpu(name))
}

fn way(container: &Value) -> Way {
    let host = &container["HostConfig"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let named = list(&host["Devices"]).iter().any(|device| {
        let path = device["PathOnHost"].as_str().unwrap_or_default();
        path.strip_prefix("/dev/nvidia")
            .is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
    });
    let requests = list(&host["DeviceRequests"]);
    let is_cdi = |request: &Value| request["Driver"] == "cdi";
    let by_hook = |request: &Value| {
        let capabilities = list(&request["Capabilities"]);
        let gpu = capabilities.iter().flat_map(list).any(|capability| capability == "gpu");
        !is_cdi(request) && (gpu || request["Driver"] == "nvidia")
    };
    let hook = requests.iter().any(by_hook);
    let visible = container.pointer("/Config/Env").map(list).unwrap_or_default().iter().any(|line| {
        let value = line.as_str().and_then(|line| line.strip_prefix("NVIDIA_VISIBLE_DEVICES="));
        value.is_some_and(|value| !["", "void", "none"].contains(&value))
    });
    let runtime = host["Runtime"].as_str().is_some_and(|runtime| runtime.contains("nvidia")) && visible;
    let cdi = requests.iter().any(is_cdi);
    if host["Privileged"] == true && (hook || runtime) {
        Way::Privileged
    } else if named || cdi {
        Way::Named
    } else if hook {
        Way::Hook
    } else if runtime {
        Way::Runtime
    } else {
        Way::None
    }
}

/// `allowed` is the text of the scope's drop-in, where it can be read.
fn standing(way: Way, allowed: Option<&str>, links: bool) -> Standing {
    match (way, allowed) {
        (Way::None, _) => Standing::NoGpu,
        (Way::Privileged, _) => Standing::Keeps,
        (_, Some(allowed)) if lists_a_gpu(allowed) => Standing::Keeps,
        (Way::Named, Some(_)) => Standing::LeftOut,
        (_, Some(_)) => Standing::Loses,
        (Way::Named, None) if links => Standing::Keeps,
        // runc before 1.1.7 leaves out what has no link below /dev/char.
        (_, None) => Standing::MayLose,
    }
}

/// Whether systemd will let the scope read and write a GPU.
fn lists_a_gpu(drop_in: &str) -> bool {
    let mut listed = false;
    for rule in drop_in.lines().filter_map(|line| line.trim().strip_prefix("DeviceAllow=")) {
        let mut words = rule.split_whitespace();
        match (words.next(), words.next().unwrap_or("rwm")) {
            // An empty one takes back what was before it.
            (None, _) => listed = false,
            (Some(device), access) => {
                listed |= access.contains('r') && access.contains('w') && names_a_gpu(device);
            }
        }
    }
    listed
}

fn names_a_gpu(device: &str) -> bool {
    let group = device.strip_prefix("char-").is_some_and(|group| {
        group == "*" || group == MAJOR || group == "nvidia" || group == "nvidia-frontend"
    });
    let path = device.strip_prefix("/dev/nvidia");
    let node = path.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|digit| digit.is_ascii_digit()));
    group || node || device.strip_prefix("/dev/char/").is_some_and(is_gpu)
}

/// `195:0`, but no `195:255`.
fn is_gpu(number: &str) -> bool {
    number.split_once(':').is_some_and(|(major, minor)| {
        major == MAJOR && minor.parse::<u32>().is_ok_and(|minor| minor < CONTROL_MINOR)
    })
}

fn judge(seen: &[(String, Standing)]) -> Finding {
    let names = |standing: Standing| -> Vec<&str> {
        seen.iter().filter(|(_, found)| *found == standing).map(|(name, _)| name.as_str()).collect()
    };
    let mend = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(word).collect();
        let generate = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml";
        format!("{generate}; sudo docker inspect {}   # make them again {RECREATE}", names.join(" "))
    };
    let link = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(word).collect();
        let links = "sudo nvidia-ctk system create-dev-char-symlinks --create-all";
        format!("{links}; runc --version; sudo docker inspect {}   # {LINKED}", names.join(" "))
    };
    let (hooked, left_out) = (names(Standing::Loses), names(Standing::LeftOut));
    let loses = [hooked.as_slice(), left_out.as_slice()].concat();
    if !loses.is_empty() {
        let mend = if hooked.is_empty() { link(&left_out) } else { mend(&hooked) };
        return Finding::warn(Text::DoctorGpuContainersLose, &[&loses.join(", "), &loses.len()], mend);
    }
    let may = names(Standing::MayLose);
    if !may.is_empty() {
        return Finding::warn(Text::DoctorGpuContainersMayLose, &[&may.join(", "), &may.len()], mend(&may));
    }
    match names(Standing::Keeps).len() {
        0 => Finding::pass(Text::DoctorNoGpuContainers, &[&seen.len()]),
        keeps => Finding::pass(Text::DoctorGpuContainersKeep, &[&keeps]),
    }
}

/// Without Docker's word: whether it is set up so that it could happen.
fn by_files(facts: &Facts, error: &io::Error) -> Finding {
    let daemon = facts.host.read(DAEMON).unwrap_or_default();
    let scopes = facts.host.list("/run/systemd/transient");
    let scopes = scopes.iter().filter(|name| name.starts_with("docker-") && name.ends_with(".scope.d"));
    let lacking = scopes
        .filter_map(|name| {
            facts.host.read(&format!("/run/systemd/transient/{name}/50-DeviceAllow.conf")).ok()
        })
        .filter(|allowed| !lists_a_gpu(allowed))
        .count();
    let finding = judge_files(&daemon, lacking, error);
    if finding.verdict == Verdict::Pass { finding } else { finding.try_this(super::again("containers")) }
}

fn judge_files(daemon: &str, lacking: usize, error: &io::Error) -> Finding {
    let daemon: Value = serde_json::from_str(daemon).unwrap_or_default();
    let options = daemon.get("exec-opts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if options.iter().any(|option| option == "native.cgroupdriver=cgroupfs") {
        return Finding::pass(Text::DoctorCgroupDriver, &[&"cgroupfs"]);
    }
    let runtimes = daemon.get("runtimes").and_then(Value::as_object);
    let nvidia = runtimes.is_some_and(|runtimes| runtimes.keys().any(|name| name.contains("nvidia")));
    if nvidia && lacking > 0 {
        return Finding::warn(Text::DoctorGpuContainersPerhaps, &[&lacking, error], "");
    }
    Finding::skip(Text::DoctorDockerMute, &[error])
}

/// Docker's Engine API on its socket.
struct Docker<'a> {
    socket: &'a Path,
}

impl Docker<'_> {
    /// One question; HTTP/1.0, so that the answer ends with the connection.
    fn get(&self, path: &str) -> io::Result<Value> {
        let mut stream = UnixStream::connect(self.socket)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.lines().next().unwrap_or_default();
        if status.split_whitespace().nth(1) != Some("200") {
            return Err(io::Error::other(format!("{path}: {status}")));
        }
        serde_json::from_str(body).map_err(|error| io::Error::other(format!("{path}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As runc writes it for a container that was made with CDI.
    const NAMED: &str = "# This is a drop-in unit file extension\n[Scope]\nDeviceAllow=\nDeviceAllow=/dev/char/509:0 rwm\nDeviceAllow=/dev/char/195:255 rwm\nDeviceAllow=/dev/char/195:0 rwm\nDeviceAllow=/dev/char/1:3 rwm\nDeviceAllow=char-* m\nDeviceAllow=block-* m\n";
    /// The same container made with `--gpus`.
    const HOOKED: &str = "[Scope]\nDeviceAllow=\nDeviceAllow=char-136 rwm\nDeviceAllow=/dev/char/1:3 rwm\nDeviceAllow=char-* m\nDeviceAllow=block-* m\n";

    #[test]
    fn systemds_own_list_says_whether_a_gpu_stays() {
        assert!(lists_a_gpu(NAMED));
        assert!(!lists_a_gpu(HOOKED), "to make a node is not to use it");
        assert!(!lists_a_gpu("DeviceAllow=/dev/char/195:255 rwm\nDeviceAllow=/dev/char/195:254 rw\n"));
        assert!(!lists_a_gpu(&format!("{NAMED}DeviceAllow=\n")), "an empty one takes back what was before");
        for device in ["char-nvidia", "char-nvidia-frontend", "char-195", "/dev/nvidia3", "/dev/char/195:7"] {
            assert!(lists_a_gpu(&format!("DeviceAllow={device} rw")), "{device}");
        }
        for device in ["char-nvidia-uvm", "/dev/nvidiactl", "/dev/nvidia", "/dev/char/1950:0"] {
            assert!(!lists_a_gpu(&format!("DeviceAllow={device} rw")), "{device}");
        }
    }

    #[test]
    fn how_a_container_got_its_gpus_is_read_from_how_it_was_made() {
        let made = |host: Value, env: &[&str]| way(&json!({ "HostConfig": host, "Config": { "Env": env } }));
        let gpus = json!([{ "Driver": "", "Count": -1, "Capabilities": [["gpu"]] }]);
        assert_eq!(made(json!({ "DeviceRequests": gpus }), &[]), Way::Hook);
        assert_eq!(
            made(
                json!({ "DeviceRequests": [{ "Driver": "nvidia", "Capabilities": [["gpu", "compute"]] }] }),
                &[]
            ),
            Way::Hook
        );
        assert_eq!(
            made(
                json!({ "DeviceRequests": [{ "Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"] }] }),
                &[]
            ),
            Way::Named
        );
        assert_eq!(
            made(json!({ "DeviceRequests": gpus, "Devices": [{ "PathOnHost": "/dev/nvidia0" }] }), &[]),
            Way::Named
        );
        assert_eq!(
            made(json!({ "DeviceRequests": gpus, "Devices": [{ "PathOnHost": "/dev/nvidiactl" }] }), &[]),
            Way::Hook
        );
        assert_eq!(made(json!({ "DeviceRequests": gpus, "Privileged": true }), &[]), Way::Privileged);
        assert_eq!(made(json!({ "Runtime": "nvidia" }), &["NVIDIA_VISIBLE_DEVICES=all"]), Way::Runtime);
        assert_eq!(made(json!({ "Runtime": "nvidia" }), &["NVIDIA_VISIBLE_DEVICES=void"]), Way::None);
        assert_eq!(made(json!({ "Runtime": "runc" }), &["NVIDIA_VISIBLE_DEVICES=all"]), Way::None);
        assert_eq!(way(&json!(null)), Way::None);
    }

    #[test]
    fn the_list_decides_where_there_is_one_and_the_way_where_there_is_none() {
        assert_eq!(standing(Way::Hook, Some(HOOKED), true), Standing::Loses);
        assert_eq!(standing(Way::Named, Some(HOOKED), false), Standing::LeftOut);
        assert_eq!(standing(Way::Runtime, Some(NAMED), false), Standing::Keeps);
        assert_eq!(standing(Way::Hook, None, true), Standing::MayLose);
        assert_eq!(standing(Way::Named, None, false), Standing::MayLose);
        assert_eq!(standing(Way::Named, None, true), Standing::Keeps);
        assert_eq!(standing(Way::Privileged, Some(HOOKED), false), Standing::Keeps);
        assert_eq!(standing(Way::None, Some(HOOKED), true), Standing::NoGpu);
    }

    #[test]
    fn what_mends_a_container_follows_from_how_it_was_made() {
        let mend = |seen: &[(&str, Standing)]| {
            let seen: Vec<_> = seen.iter().map(|(name, standing)| ((*name).to_owned(), *standing)).collect();
            judge(&seen).mend.unwrap_or_default()
        };
        assert!(mend(&[("a", Standing::Loses), ("b", Standing::LeftOut)]).contains("cdi generate"));
        assert!(mend(&[("b", Standing::LeftOut)]).contains("create-dev-char-symlinks"));
        assert!(mend(&[("c", Standing::MayLose)]).contains("docker inspect c "));
        assert_eq!(mend(&[("d", Standing::Keeps), ("e", Standing::NoGpu)]), "");
    }

    #[test]
    fn without_dockers_word_only_a_setup_for_gpus_is_worth_a_look() {
        let judge = |daemon: &str, lacking| judge_files(daemon, lacking, &io::Error::other("x")).verdict;
        let nvidia = r#"{"runtimes":{"nvidia":{"path":"nvidia-container-runtime"}}}"#;
        let cgroupfs = r#"{"runtimes":{"nvidia":{}},"exec-opts":["native.cgroupdriver=cgroupfs"]}"#;
        assert_eq!(judge(nvidia, 1), Verdict::Warn);
        assert_eq!(judge(nvidia, 0), Verdict::Skip);
        assert_eq!(judge(cgroupfs, 1), Verdict::Pass);
        assert_eq!(judge("", 1), Verdict::Skip);
    }
}
