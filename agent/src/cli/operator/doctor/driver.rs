//! The NVIDIA driver, as the agent meets it and as the kernel shows it. Neither NVML nor a device is
//! opened here: a driver that hangs would take this command with it.

use diarwatch_shared::texts::Text;
use serde_json::Value;

use super::Facts;
use super::host::Host;
use super::report::Finding;

const MODULE: &str = "/proc/driver/nvidia/version";
const PCI: &str = "/sys/bus/pci/devices";
const NVIDIA: &str = "0x10de";
/// PCI classes of what computes: VGA and 3D controllers.
const CLASSES: [&str; 2] = ["0x0300", "0x0302"];
/// PCI devices that are looked at.
const DEVICES_MAX: usize = 4_096;

/// What the kernel shows without a question to the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kernel {
    /// The module's version.
    module: Option<String>,
    /// NVIDIA GPUs on the PCI bus.
    gpus: usize,
    /// Whether nouveau has them.
    nouveau: bool,
    /// Whether `/dev/nvidiactl` is there.
    control: bool,
}

impl Kernel {
    fn of(host: &Host) -> Self {
        let devices = host.list(PCI);
        let is = |device: &str, file: &str, wanted: &[&str]| {
            let text = host.read(&format!("{PCI}/{device}/{file}")).unwrap_or_default();
            wanted.iter().any(|start| text.starts_with(start))
        };
        let gpu = |device: &&String| is(device, "vendor", &[NVIDIA]) && is(device, "class", &CLASSES);
        let text = host.read(MODULE).ok();
        Self {
            module: text.map(|text| text.lines().next().unwrap_or_default().to_owned()),
            gpus: devices.iter().take(DEVICES_MAX).filter(gpu).count(),
            nouveau: host.path("/sys/module/nouveau").exists(),
            control: host.path("/dev/nvidiactl").exists(),
        }
    }

    /// What to type, from what is missing first.
    fn mend(&self, reason: &str) -> &'static str {
        let reason = reason.to_ascii_lowercase();
        if reason.contains("permission") {
            "ls -l /dev/nvidia*; sudo usermod -aG video,render diarwatch; sudo systemctl restart diarwatch-agent"
        } else if reason.contains("mismatch") {
            // The module in the kernel is older than the library on the disk, as after an upgrade.
            "sudo systemctl reboot"
        } else if self.nouveau {
            "echo 'blacklist nouveau' | sudo tee /etc/modprobe.d/blacklist-nouveau.conf; sudo update-initramfs -u; sudo systemctl reboot"
        } else if self.module.is_none() && self.gpus > 0 {
            "sudo modprobe nvidia; sudo dmesg | grep -i nvidia | tail   # not installed? sudo ubuntu-drivers install"
        } else if self.module.is_none() {
            "lspci -nn | grep -i nvidia   # no GPU in this host? set `enabled = false` under [gpu]"
        } else {
            "ldconfig -p | grep libnvidia-ml; nvidia-smi"
        }
    }
}

/// `driver.nvidia`
pub(super) fn nvidia(facts: &Facts) -> Finding {
    if facts.config().is_ok_and(|config| !config.gpu.enabled) {
        return Finding::skip(Text::DoctorGpuDisabled, &[]);
    }
    judge(facts.status().ok().map(|status| &status["driver"]), &Kernel::of(&facts.host))
}

/// The agent's view counts; without an agent, the kernel's.
fn judge(driver: Option<&Value>, kernel: &Kernel) -> Finding {
    let text = |key: &str| driver.and_then(|driver| driver[key].as_str());
    match text("state") {
        Some("up") => Finding::pass(Text::DoctorDriverUp, &[&text("version").unwrap_or("?")]),
        Some("disabled") => Finding::skip(Text::DoctorGpuDisabled, &[]),
        Some("starting") => Finding::skip(Text::DoctorDriverStarting, &[]),
        Some("unresponsive") => {
            let gpu = driver.and_then(|driver| driver["gpu"].as_u64());
            let gpu = gpu.map_or_else(|| "?".to_owned(), |gpu| gpu.to_string());
            let mend = "sudo dmesg | grep -iE 'nvrm|xid' | tail; sudo systemctl reboot";
            Finding::fail(Text::DoctorDriverHangs, &[&text("function").unwrap_or("?"), &gpu], mend)
        }
        Some("absent") => {
            let reason = text("reason").unwrap_or("?");
            absent(reason, kernel)
        }
        _ => match &kernel.module {
            Some(version) => Finding::pass(Text::DoctorModuleLoaded, &[version]),
            None => absent("-", kernel),
        },
    }
}

fn absent(reason: &str, kernel: &Kernel) -> Finding {
    let module = kernel.module.as_deref().unwrap_or("-");
    let nodes = if kernel.control { "/dev/nvidiactl" } else { "-" };
    let other = if kernel.nouveau { "nouveau" } else { "-" };
    Finding::fail(
        Text::DoctorDriverAbsent,
        &[&reason, &module, &nodes, &kernel.gpus, &other],
        kernel.mend(reason),
    )
}

/// `driver.simulated`
pub(super) fn simulated(facts: &Facts) -> Finding {
    facts.status().map_or_else(|skip| skip, judge_simulated)
}

fn judge_simulated(status: &Value) -> Finding {
    match (status["simulated"].as_bool(), status["gpus"].as_array().is_some_and(|gpus| !gpus.is_empty())) {
        (Some(true), _) => Finding::warn(
            Text::SimulatedExplained,
            &[],
            "ldconfig -p | grep libnvidia-ml; systemctl cat diarwatch-agent",
        ),
        (_, false) => Finding::skip(Text::DoctorNoGpus, &[]),
        _ => Finding::pass(Text::DoctorGpusReal, &[]),
    }
}

/// `driver.gpus`
pub(super) fn gpus(facts: &Facts) -> Finding {
    facts.status().map_or_else(|skip| skip, judge_gpus)
}

fn judge_gpus(status: &Value) -> Finding {
    let gpus = status["gpus"].as_array().map(Vec::as_slice).unwrap_or_default();
    if gpus.is_empty() {
        return Finding::skip(Text::DoctorNoGpus, &[]);
    }
    // A GPU whose utilisation and memory are both lost is not there any more.
    let lost = |at: &usize| {
        let of = |key: &str| missing(status, &format!("/gpus/{at}/{key}"));
        let is_lost = |reason: Option<&str>| reason == Some("lost");
        is_lost(of("utilization_ratio")) && is_lost(of("memory_used_bytes"))
    };
    let lost: Vec<String> = (0..gpus.len())
        .filter(lost)
        .filter_map(|at| gpus.get(at))
        .map(|gpu| {
            format!("GPU {} {}", gpu["index"].as_u64().unwrap_or(0), gpu["uuid"].as_str().unwrap_or("?"))
        })
        .collect();
    if lost.is_empty() {
        return Finding::pass(Text::DoctorGpusAnswer, &[&gpus.len()]);
    }
    let mend = "sudo dmesg | grep -i xid | tail; sudo systemctl reboot   # 79: fallen off the bus";
    Finding::fail(Text::DoctorGpusLost, &[&lost.join(", "), &gpus.len()], mend)
}

/// Why a number is not there: in its place, or under its pointer in `reasons`.
fn missing<'a>(status: &'a Value, pointer: &str) -> Option<&'a str> {
    let in_place = status.pointer(pointer).and_then(|value| value["missing"].as_str());
    in_place.or_else(|| status["reasons"].get(pointer).and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_driver_that_is_not_there_is_told_with_what_the_kernel_shows_and_the_next_step() {
        let absent = json!({ "state": "absent", "reason": "libnvidia-ml.so.1: cannot open" });
        let mend = |kernel: &Kernel| judge(Some(&absent), kernel).mend.unwrap();
        assert_eq!(judge(Some(&absent), &Kernel::default()).verdict, Verdict::Fail);
        assert!(mend(&Kernel::default()).starts_with("lspci"));
        assert!(mend(&Kernel { gpus: 1, ..Kernel::default() }).starts_with("sudo modprobe"));
        assert!(mend(&Kernel { gpus: 1, nouveau: true, ..Kernel::default() }).contains("nouveau"));
        assert!(mend(&Kernel { module: Some("570".into()), ..Kernel::default() }).starts_with("ldconfig"));
        let mismatch = json!({ "state": "absent", "reason": "Driver/library version mismatch" });
        assert!(judge(Some(&mismatch), &Kernel::default()).mend.unwrap().contains("reboot"));
    }

    #[test]
    fn without_an_agent_the_kernel_is_believed() {
        let kernel = Kernel { module: Some("NVRM version: 570".into()), ..Kernel::default() };
        assert_eq!(judge(None, &kernel).verdict, Verdict::Pass);
        assert_eq!(judge(None, &Kernel::default()).verdict, Verdict::Fail);
    }

    #[test]
    fn a_lost_gpu_is_named_in_either_form_of_the_document() {
        let old = json!({ "gpus": [{ "index": 0, "uuid": "GPU-a", "utilization_ratio": { "missing": "lost" },
            "memory_used_bytes": { "missing": "lost" } }] });
        let new = json!({ "gpus": [{ "index": 0, "uuid": "GPU-a", "utilization_ratio": null, "memory_used_bytes": null }],
            "reasons": { "/gpus/0/utilization_ratio": "lost", "/gpus/0/memory_used_bytes": "lost" } });
        for status in [old, new] {
            assert!(format!("{:?}", judge_gpus(&status)).contains("GPU-a"));
        }
        let slow = json!({ "gpus": [{ "index": 0, "utilization_ratio": { "missing": "timeout" }, "memory_used_bytes": 1 }] });
        assert_eq!(judge_gpus(&slow).verdict, Verdict::Pass);
    }
}
