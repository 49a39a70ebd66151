//! Workers that live and do not work, and those that only look so.

use serde_json::json;

use super::same;
use crate::lab::Lab;
use crate::site::{CALM, QUIET, Site, WEDGED};
use crate::worker::Worker;

/// The shortest window, and no patience with what hangs.
const HASTE: &str = "[worker.supervise]\nwedge_after = \"5s\"\n[worker.stop]\nhung_grace = \"1s\"\n";
/// How long those that work are silent, in windows.
const WINDOWS: u64 = 3;

pub(super) fn a_worker_that_hangs_is_stopped_and_one_that_works_in_silence_is_not(
    lab: &Lab,
) -> Result<(), String> {
    let hasty = |worker: Worker| Worker { tables: HASTE.to_owned(), ..worker };
    // Of the last one only its use of the GPU is seen.
    let workers = [
        hasty(Worker::new("hung", 8001).on_gpu("")),
        hasty(Worker::new("cpu", 8002).with("--busy 60")),
        hasty(Worker::new("gpu", 8003).on_gpu("--busy 0 --gpu-sm 60")),
    ];
    Site::with(lab, "hang", &workers, |site| {
        let before = ["hung", "cpu", "gpu"].map(|name| site.agent.phase(name, "ready").unwrap_or_default());
        let silent = ["cpu", "gpu"];
        for name in silent {
            site.tell(name, &json!({ "busy_silent": true }))?;
        }
        site.tell("hung", &json!({ "hang": true }))?;
        let stopping = site.agent.nth("hung", "worker_stopping", 1)?;
        same("why it is stopped", &stopping["cause"], &json!("wedged"))?;
        let reason = stopping["reason"].as_str().unwrap_or_default();
        let views = ["health: ", "cpu: no ", "gpu: no "].map(|view| reason.contains(view));
        same(&format!("each view is told: {reason}"), &views, &[true; 3])?;
        site.agent.another("hung", before[0])?;
        for (name, process) in silent.iter().zip(&before[1..]) {
            let long = |agent: &crate::asked::Asked| {
                let health = &agent.why(name)["views"][0];
                let seconds = health["words"].as_str().unwrap_or_default().split(' ').rev().nth(1);
                let seconds: Option<u64> = seconds.and_then(|word| word.parse().ok());
                health["says"] == "against" && seconds.is_some_and(|seconds| seconds >= 5 * WINDOWS)
            };
            site.agent.wait(name, "it has been silent for long", long)?;
            same(&format!("{name}: its process"), &site.main(name), &process.to_string())?;
            same(&format!("{name}: stops"), &site.agent.count(name, "worker_stopping"), &0)?;
            site.tell(name, &json!({ "busy_silent": false }))?;
            same("the same process is ready again", &site.agent.phase(name, "ready")?, process)?;
        }
        Ok(())
    })
}

pub(super) fn a_wedged_driver_keeps_a_dead_gpu_worker_down_until_it_is_back(lab: &Lab) -> Result<(), String> {
    let workers = [Worker::new("gpu", 8001).on_gpu(""), Worker::new("cpu", 8002)];
    Site::with(lab, "driver", &workers, |site| {
        let wait = |state: &str| {
            site.agent.wait("gpu", &format!("the driver: {state}"), |agent| {
                agent.ask(&json!({ "ask": "status" })).is_ok_and(|status| status["driver"]["state"] == state)
            })
        };
        wait("up")?;
        let before = ["gpu", "cpu"].map(|name| site.agent.phase(name, "ready").unwrap_or_default());
        site.driver(WEDGED)?;
        wait("unresponsive")?;
        site.kill("gpu.service")?;
        site.kill("cpu.service")?;
        let trouble = site.agent.nth("gpu", "worker_trouble", 1)?;
        same("what is told", &trouble["trouble"], &json!("gpu_driver_unresponsive"))?;
        // The one that needs no GPU is not kept waiting, and shows that time passed.
        site.agent.another("cpu", before[1])?;
        std::thread::sleep(QUIET);
        same("the process of the one that does", site.main("gpu").as_str(), "0")?;
        same("its phase", &site.agent.worker("gpu")["phase"], &json!("waiting"))?;
        site.driver(CALM)?;
        site.agent.another("gpu", before[0]).map(drop)
    })
}

pub(super) fn a_worker_that_fell_to_its_cpu_counts_as_failed_and_is_started_again(
    lab: &Lab,
) -> Result<(), String> {
    Site::with(lab, "fallback", &[Worker::new("w", 8001).on_gpu("")], |site| {
        let before = site.agent.phase("w", "ready")?;
        site.tell("w", &json!({ "next_start": { "cpu_fallback": true } }))?;
        site.kill("w.service")?;
        let stopping = site.agent.nth("w", "worker_stopping", 1)?;
        same("why it is stopped", &stopping["cause"], &json!("fell_to_cpu"))?;
        same("it was never called ready", &site.agent.count("w", "worker_ready"), &1)?;
        let now = site.agent.another("w", before)?;
        same("not the process that fell", &(json!(now) == stopping["pid"]), &false)?;
        let why = site.agent.why("w");
        same("restarts of the budget", &why["restarts_in_window"], &json!(2))?;
        let memory = why["gpu_memory_bytes"].as_u64().unwrap_or_default();
        same(&format!("GPU memory ({memory})"), &(memory > 0), &true)
    })
}
