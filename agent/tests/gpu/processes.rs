//! Who is on a GPU, what they hold and use.

use serde_json::{Value, json};

use super::common::{Agent, Node, diarwatch};
use super::{gpu, up, with};

fn processes(status: &Value, index: usize) -> &Value {
    &gpu(status, index)["processes"]
}

fn until_processes(agent: &Agent, index: usize, expected: &Value) {
    agent.until(&format!("GPU {index} has {expected}"), |status| {
        (processes(status, index) == expected).then_some(())
    });
}

#[test]
fn who_is_on_a_gpu_is_told_with_memory_and_use_and_one_that_leaves_is_gone() {
    let node = Node::new().with_gpus(&with("gpu.0.procs = 4242:512:3:1 4343:2048:35:10"));
    let agent = node.run();
    up(&agent);
    let mib = |mib: u32| f64::from(mib) * 1_048_576.0;
    let both = json!([
        { "pid": 4343, "memory_bytes": mib(2048), "sm_ratio": 0.35 },
        { "pid": 4242, "memory_bytes": mib(512), "sm_ratio": 0.03 },
    ]);
    until_processes(&agent, 0, &both);
    assert_eq!(processes(&agent.status(), 1), &json!([]), "the other GPU has none");
    node.scenario(&with("gpu.0.procs = 4242:512:0:0\ngpu.1.procs = 4343:64:90:10"));
    until_processes(&agent, 0, &json!([{ "pid": 4242, "memory_bytes": mib(512), "sm_ratio": 0.0 }]));
    until_processes(&agent, 1, &json!([{ "pid": 4343, "memory_bytes": mib(64), "sm_ratio": 0.9 }]));
    let socket = node.path("agent.sock").display().to_string();
    let sheet = diarwatch(&["gpu", "show", "1", "--lang", "en", "--socket", &socket]);
    let text = String::from_utf8(sheet.stdout).unwrap();
    assert!(text.contains("PID 4343 0.1 GiB 90%") && text.contains("none"), "{text}");
}

#[test]
fn what_a_driver_does_not_offer_is_absent_with_its_reason_and_never_zero() {
    let node = Node::new().with_gpus(&with(
        "gpu.*.procs = 4242:512:3:1\ngpu.0.call.nvmlDeviceGetProcessUtilization = err:3\n\
         gpu.1.call.nvmlDeviceGetComputeRunningProcesses_v3 = err:3\ngpu.1.recovery = unsupported",
    ));
    let agent = node.run();
    let status = agent.until("both GPUs are told", |status| {
        let told =
            processes(status, 0).is_array() && status["reasons"]["/gpus/1/processes"] == "not_supported";
        (told && gpu(status, 0)["recovery_action"] == "none").then(|| status.clone())
    });
    assert_eq!(processes(&status, 0)[0]["sm_ratio"], Value::Null);
    assert_eq!(status["reasons"]["/gpus/0/processes/0/sm_ratio"], "not_supported");
    assert_eq!(processes(&status, 0)[0]["memory_bytes"], 512.0 * 1_048_576.0);
    assert_eq!((processes(&status, 1), &gpu(&status, 1)["recovery_action"]), (&Value::Null, &Value::Null));
    assert_eq!(status["reasons"]["/gpus/1/recovery_action"], "not_supported");
    assert!(gpu(&status, 1)["utilization_ratio"].is_f64(), "what is missing takes nothing with it");
}

#[test]
fn a_list_is_never_used_again_when_the_driver_falls_silent() {
    let node = Node::new().with_gpus(&with("gpu.*.procs = 4242:512:3:1"));
    let agent = node.run();
    up(&agent);
    node.scenario(&with(
        "gpu.*.procs = 4242:512:3:1\ngpu.1.call.nvmlDeviceGetComputeRunningProcesses_v3 = hang",
    ));
    let status = agent.until("the driver is unresponsive", |status| {
        (status["driver"]["state"] == "unresponsive").then(|| status.clone())
    });
    assert_eq!(status["driver"]["function"], "nvmlDeviceGetComputeRunningProcesses_v3");
    for index in 0..2 {
        assert_eq!(processes(&status, index), &Value::Null);
        assert_eq!(status["reasons"][format!("/gpus/{index}/processes")], "timeout");
        assert_eq!(status["reasons"][format!("/gpus/{index}/recovery_action")], "timeout");
    }
    node.scenario(&with("gpu.*.procs = 4343:512:3:1"));
    let back = agent.until("the lists are back", |status| {
        (processes(status, 0)[0]["pid"] == 4343 && processes(status, 1)[0]["pid"] == 4343)
            .then(|| status.clone())
    });
    assert_eq!(back["driver"]["state"], "up");
}
