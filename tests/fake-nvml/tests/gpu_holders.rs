//! What the library says of processes that claim a GPU in the folder of claims, of the recovery action
//! and of XIDs, through its C functions as a driver's user calls them.
#![expect(unsafe_code, reason = "the C ABI is what is tested")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use diarwatch_fake_nvml as _;

const SUCCESS: i32 = 0;
const NOT_SUPPORTED: i32 = 3;
const TIMEOUT: i32 = 10;
const DEVICE_0: usize = 1;
const DEVICE_1: usize = 2;
const RECOVERY_ACTION: u32 = 230;
const XID: u64 = 8;
const RECOVERY_CHANGED: u64 = 0x8000;
/// Looks, 1 ms apart, before a test gives up on what it waits for.
const LOOKS_MAX: u32 = 30_000;
/// Processes of one GPU in these tests.
const PROCESSES_MAX: u32 = 8;

/// `nvmlMemory_t`, bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlUtilization_t`, percent.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Utilization {
    gpu: u32,
    memory: u32,
}

/// `nvmlProcessInfo_v2_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfo {
    pid: u32,
    used_gpu_memory: u64,
    instances: [u32; 2],
}

/// `nvmlProcessUtilizationSample_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessSample {
    pid: u32,
    timestamp_us: u64,
    sm: u32,
    others: [u32; 3],
}

/// `nvmlFieldValue_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FieldValue {
    field: u32,
    scope: u32,
    timestamp_us: i64,
    latency_us: i64,
    kind: u32,
    returned: i32,
    value: u64,
}

/// `nvmlEventData_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct EventData {
    device: usize,
    kind: u64,
    data: u64,
    instances: [u32; 2],
}

unsafe extern "C" {
    fn nvmlInit_v2() -> i32;
    fn nvmlDeviceGetMemoryInfo(device: usize, memory: *mut Memory) -> i32;
    fn nvmlDeviceGetUtilizationRates(device: usize, rates: *mut Utilization) -> i32;
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: usize, count: *mut u32, list: *mut ProcessInfo)
    -> i32;
    fn nvmlDeviceGetProcessUtilization(
        device: usize,
        list: *mut ProcessSample,
        count: *mut u32,
        last: u64,
    ) -> i32;
    fn nvmlDeviceGetFieldValues(device: usize, count: i32, list: *mut FieldValue) -> i32;
    fn nvmlDeviceGetSupportedEventTypes(device: usize, kinds: *mut u64) -> i32;
    fn nvmlEventSetCreate(set: *mut usize) -> i32;
    fn nvmlDeviceRegisterEvents(device: usize, kinds: u64, set: usize) -> i32;
    fn nvmlEventSetWait_v2(set: usize, data: *mut EventData, timeout_ms: u32) -> i32;
}

#[test]
fn a_claim_counts_for_its_gpu_until_its_process_is_gone() {
    in_own_process("inner_claims");
}

#[test]
fn the_recovery_action_and_xids_are_those_of_the_scenario() {
    in_own_process("inner_recovery_and_xids");
}

#[test]
#[ignore = "run by a_claim_counts_for_its_gpu_until_its_process_is_gone"]
fn inner_claims() {
    scenario("gpus = 2\ngpu.*.util = 50\ngpu.*.mem_used_mib = 300\n");
    // SAFETY: takes nothing.
    assert_eq!(unsafe { nvmlInit_v2() }, SUCCESS);
    assert_eq!((used_mib(DEVICE_0), util(DEVICE_0), processes(DEVICE_0)), (525, 50, vec![]));

    let mut worker = Command::new("sleep").arg("3600").spawn().unwrap();
    let pid = worker.id();
    claim(pid, "0 2000 30\nGPU-fa4e0000-0000-4000-8000-000000000002 100 5\n");
    until(|| processes(DEVICE_0) == [(pid, 2_000)]);
    assert_eq!((used_mib(DEVICE_0), util(DEVICE_0)), (2_525, 80));
    assert_eq!((used_mib(DEVICE_1), util(DEVICE_1), processes(DEVICE_1)), (625, 55, vec![(pid, 100)]));
    assert_eq!(sm_of(DEVICE_0), [(pid, 30)]);
    claim(pid, "0 2500 90\n");
    until(|| processes(DEVICE_0) == [(pid, 2_500)]);
    assert_eq!(util(DEVICE_0), 100, "no GPU is busier than this");
    claim(pid, "0 999999 0\n");
    until(|| used_mib(DEVICE_0) == 8_188);

    worker.kill().unwrap();
    until(|| processes(DEVICE_0).is_empty());
    assert_eq!((used_mib(DEVICE_0), util(DEVICE_0)), (525, 50));
    worker.wait().unwrap();
    claim(pid, "0 2000 30 leaked\n");
    until(|| processes(DEVICE_0) == [(pid, 2_000)]);
    assert_eq!((used_mib(DEVICE_0), util(DEVICE_0)), (2_525, 80));
    claim(pid, "0 2000 30 ghost\n");
    until(|| processes(DEVICE_0).is_empty());
    assert_eq!((used_mib(DEVICE_0), util(DEVICE_0)), (2_525, 80));
}

#[test]
#[ignore = "run by the_recovery_action_and_xids_are_those_of_the_scenario"]
fn inner_recovery_and_xids() {
    scenario("gpus = 2\n");
    // SAFETY: takes nothing.
    assert_eq!(unsafe { nvmlInit_v2() }, SUCCESS);
    assert_eq!(recovery(DEVICE_0), Err(NOT_SUPPORTED));
    assert_eq!(kinds(DEVICE_0) & RECOVERY_CHANGED, 0);
    let set = event_set(XID | RECOVERY_CHANGED);
    assert_eq!(next_event(set, 1), Err(TIMEOUT));

    scenario("gpus = 2\ngpu.1.recovery = 0\n");
    until(|| recovery(DEVICE_1) == Ok(0));
    assert_eq!(
        (recovery(DEVICE_0), kinds(DEVICE_1) & RECOVERY_CHANGED),
        (Err(NOT_SUPPORTED), RECOVERY_CHANGED)
    );
    scenario("gpus = 2\ngpu.1.recovery = 2\nevent.1 = 1 xid 79\nevent.2 = 1 dbe 0\nevent.3 = 1 recovery 2\n");
    assert_eq!(next_event(set, 10_000), Ok((DEVICE_1, XID, 79)));
    assert_eq!(next_event(set, 10_000), Ok((DEVICE_1, RECOVERY_CHANGED, 2)));
    assert_eq!(next_event(set, 1), Err(TIMEOUT), "each event once, and none that was not asked for");
    assert_eq!(recovery(DEVICE_1), Ok(2));
}

/// Runs one of the ignored tests in a process of its own: the library reads its environment once.
fn in_own_process(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let claims = folder.path().join("claims");
    std::fs::create_dir(&claims).unwrap();
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .env("DIARWATCH_FAKE_NVML_SCENARIO", folder.path().join("scenario"))
        .env("DIARWATCH_FAKE_NVML_CLAIMS", &claims)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("1 passed"), "{}: {said}", ended.status);
}

fn scenario(text: &str) {
    put(std::env::var_os("DIARWATCH_FAKE_NVML_SCENARIO").map(PathBuf::from).unwrap(), text);
}

fn claim(pid: u32, text: &str) {
    let folder = std::env::var_os("DIARWATCH_FAKE_NVML_CLAIMS").map(PathBuf::from).unwrap();
    put(folder.join(pid.to_string()), text);
}

/// Renamed into place, so that nobody reads half of it; its first name is no claim's.
fn put(path: PathBuf, text: &str) {
    let beside = path.with_file_name("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn until(mut reached: impl FnMut() -> bool) {
    for _ in 0..LOOKS_MAX {
        if reached() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it was not reached");
}

fn used_mib(device: usize) -> u64 {
    let mut memory = Memory::default();
    // SAFETY: a valid place for the value.
    assert_eq!(unsafe { nvmlDeviceGetMemoryInfo(device, &raw mut memory) }, SUCCESS);
    assert_eq!(memory.free + memory.used, memory.total);
    memory.used >> 20
}

fn util(device: usize) -> u32 {
    let mut rates = Utilization::default();
    // SAFETY: a valid place for the value.
    assert_eq!(unsafe { nvmlDeviceGetUtilizationRates(device, &raw mut rates) }, SUCCESS);
    rates.gpu
}

fn processes(device: usize) -> Vec<(u32, u64)> {
    let (mut list, mut count) = ([ProcessInfo::default(); PROCESSES_MAX as usize], PROCESSES_MAX);
    let places = list.as_mut_ptr();
    // SAFETY: as many places as the count says.
    assert_eq!(unsafe { nvmlDeviceGetComputeRunningProcesses_v3(device, &raw mut count, places) }, SUCCESS);
    list.iter().take(count as usize).map(|info| (info.pid, info.used_gpu_memory >> 20)).collect()
}

fn sm_of(device: usize) -> Vec<(u32, u32)> {
    let (mut list, mut count) = ([ProcessSample::default(); PROCESSES_MAX as usize], PROCESSES_MAX);
    // SAFETY: as many places as the count says.
    let code = unsafe { nvmlDeviceGetProcessUtilization(device, list.as_mut_ptr(), &raw mut count, 0) };
    assert_eq!(code, SUCCESS);
    list.iter().take(count as usize).map(|sample| (sample.pid, sample.sm)).collect()
}

fn recovery(device: usize) -> Result<u64, i32> {
    let mut field = FieldValue { field: RECOVERY_ACTION, ..FieldValue::default() };
    // SAFETY: one valid place.
    assert_eq!(unsafe { nvmlDeviceGetFieldValues(device, 1, &raw mut field) }, SUCCESS);
    if field.returned == SUCCESS { Ok(field.value) } else { Err(field.returned) }
}

fn kinds(device: usize) -> u64 {
    let mut kinds = 0;
    // SAFETY: a valid place for the value.
    assert_eq!(unsafe { nvmlDeviceGetSupportedEventTypes(device, &raw mut kinds) }, SUCCESS);
    kinds
}

/// A set of events of both GPUs.
fn event_set(kinds: u64) -> usize {
    let mut set = 0;
    // SAFETY: a valid place for the value, then only numbers.
    unsafe {
        assert_eq!(nvmlEventSetCreate(&raw mut set), SUCCESS);
        assert_eq!(nvmlDeviceRegisterEvents(DEVICE_0, kinds, set), SUCCESS);
        assert_eq!(nvmlDeviceRegisterEvents(DEVICE_1, kinds, set), SUCCESS);
    }
    set
}

fn next_event(set: usize, timeout_ms: u32) -> Result<(usize, u64, u64), i32> {
    let mut event = EventData::default();
    // SAFETY: a valid place for the event.
    let code = unsafe { nvmlEventSetWait_v2(set, &raw mut event, timeout_ms) };
    if code == SUCCESS { Ok((event.device, event.kind, event.data)) } else { Err(code) }
}
