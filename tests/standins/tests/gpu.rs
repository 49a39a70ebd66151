//! What a worker holds of a GPU is what the fake NVML says of it, while it lives and not longer.
#![expect(unsafe_code, reason = "the driver is asked through its C functions")]

mod common;

use std::process::Command;

use common::process::Standin;
use common::until;
use diarwatch_fake_nvml as _;
use serde_json::json;

const DEVICE_0: usize = 1;
/// Processes of one GPU in this test.
const PROCESSES_MAX: u32 = 4;
const CLAIMS: &str = "DIARWATCH_FAKE_NVML_CLAIMS";

/// `nvmlProcessInfo_v2_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfo {
    pid: u32,
    used_gpu_memory: u64,
    instances: [u32; 2],
}

unsafe extern "C" {
    fn nvmlInit_v2() -> i32;
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: usize, count: *mut u32, list: *mut ProcessInfo)
    -> i32;
}

#[test]
fn a_worker_holds_gpu_memory_until_it_is_gone_however_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "inner_holds_gpu_memory"])
        .env(CLAIMS, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("1 passed"), "{}: {said}", ended.status);
}

#[tokio::test]
#[ignore = "run by a_worker_holds_gpu_memory_until_it_is_gone_however_it_ends"]
async fn inner_holds_gpu_memory() {
    // SAFETY: takes nothing.
    assert_eq!(unsafe { nvmlInit_v2() }, 0);
    let folder = std::env::var(CLAIMS).unwrap();
    let arguments = ["--load", "0", "--gpu-claims", &folder, "--gpu-mib", "1500"];
    let mut killed = Standin::start("pyannote", &arguments).await;
    let other = Standin::start("pyannote", &arguments).await;
    let both = [(killed.pid(), 1_500), (other.pid(), 1_500)];
    until(async || both.iter().all(|process| holders().contains(process))).await;
    killed.last_job(json!({ "audio_seconds": 0, "poison": true })).await;
    killed.ended().await;
    until(async || holders() == [(other.pid(), 1_500)]).await;
    other.tell(json!({ "gpu_stays": "leaked" })).await;
    let pid = other.pid();
    until(async || {
        std::fs::read_to_string(format!("{folder}/{pid}")).is_ok_and(|text| text.contains("leaked"))
    })
    .await;
    drop(other);
    // Nothing else is started here: what is listed is what the driver keeps.
    until(async || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    assert_eq!(holders(), [(pid, 1_500)]);
}

fn holders() -> Vec<(u32, u64)> {
    let (mut list, mut count) = ([ProcessInfo::default(); PROCESSES_MAX as usize], PROCESSES_MAX);
    let places = list.as_mut_ptr();
    // SAFETY: as many places as the count says.
    assert_eq!(unsafe { nvmlDeviceGetComputeRunningProcesses_v3(DEVICE_0, &raw mut count, places) }, 0);
    list.iter().take(count as usize).map(|info| (info.pid, info.used_gpu_memory >> 20)).collect()
}
