//! The library from its C side: every entry point exists and survives a caller that hands in
//! nothing but nulls, and a scenario that changes while the caller runs is seen.
#![expect(unsafe_code, reason = "the C ABI is what is tested")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use diarwatch_fake_nvml::{diarwatch_fake_nvml_calls, diarwatch_simulated_nvml};

const SUCCESS: i32 = 0;
const UNINITIALIZED: i32 = 1;
const NOT_SUPPORTED: i32 = 3;
const GPU_IS_LOST: i32 = 15;
const DEVICE_0: usize = 1;
/// Looks, 1 ms apart, before a test gives up on what it waits for.
const LOOKS_MAX: u32 = 30_000;

/// Declares each function with word-sized arguments, as many as it takes, and a function that
/// calls each with a first argument and zeros.
macro_rules! entry_points {
    ($with_nulls:ident: $($name:ident($first:ident: usize $(, $rest:ident: usize)*);)*) => {
        unsafe extern "C" {
            $(fn $name($first: usize $(, $rest: usize)*) -> i32;)*
        }

        /// Each function by name, with what it answers to nulls.
        fn $with_nulls(first: usize) -> Vec<(&'static str, i32)> {
            // SAFETY: nulls and zeros are what every entry point promises to survive.
            unsafe { vec![$((stringify!($name), $name(first $(, null!($rest))*)),)*] }
        }
    };
}

macro_rules! null {
    ($argument:ident) => {
        0
    };
}

entry_points! { devices_with_nulls:
    nvmlDeviceGetArchitecture(a: usize, b: usize);
    nvmlDeviceGetBAR1MemoryInfo(a: usize, b: usize);
    nvmlDeviceGetBrand(a: usize, b: usize);
    nvmlDeviceGetClockInfo(a: usize, b: usize, c: usize);
    nvmlDeviceGetComputeMode(a: usize, b: usize);
    nvmlDeviceGetComputeRunningProcesses_v2(a: usize, b: usize, c: usize);
    nvmlDeviceGetComputeRunningProcesses_v3(a: usize, b: usize, c: usize);
    nvmlDeviceGetCudaComputeCapability(a: usize, b: usize, c: usize);
    nvmlDeviceGetCurrPcieLinkGeneration(a: usize, b: usize);
    nvmlDeviceGetCurrPcieLinkWidth(a: usize, b: usize);
    nvmlDeviceGetCurrentClocksEventReasons(a: usize, b: usize);
    nvmlDeviceGetCurrentClocksThrottleReasons(a: usize, b: usize);
    nvmlDeviceGetDecoderUtilization(a: usize, b: usize, c: usize);
    nvmlDeviceGetDisplayActive(a: usize, b: usize);
    nvmlDeviceGetDisplayMode(a: usize, b: usize);
    nvmlDeviceGetEccMode(a: usize, b: usize, c: usize);
    nvmlDeviceGetEncoderUtilization(a: usize, b: usize, c: usize);
    nvmlDeviceGetEnforcedPowerLimit(a: usize, b: usize);
    nvmlDeviceGetFanSpeed(a: usize, b: usize);
    nvmlDeviceGetFanSpeed_v2(a: usize, b: usize, c: usize);
    nvmlDeviceGetFieldValues(a: usize, b: usize, c: usize);
    nvmlDeviceGetGraphicsRunningProcesses_v3(a: usize, b: usize, c: usize);
    nvmlDeviceGetIndex(a: usize, b: usize);
    nvmlDeviceGetMPSComputeRunningProcesses_v3(a: usize, b: usize, c: usize);
    nvmlDeviceGetMaxClockInfo(a: usize, b: usize, c: usize);
    nvmlDeviceGetMaxPcieLinkGeneration(a: usize, b: usize);
    nvmlDeviceGetMaxPcieLinkWidth(a: usize, b: usize);
    nvmlDeviceGetMemoryErrorCounter(a: usize, b: usize, c: usize, d: usize, e: usize);
    nvmlDeviceGetMemoryInfo(a: usize, b: usize);
    nvmlDeviceGetMemoryInfo_v2(a: usize, b: usize);
    nvmlDeviceGetMigMode(a: usize, b: usize, c: usize);
    nvmlDeviceGetMinorNumber(a: usize, b: usize);
    nvmlDeviceGetName(a: usize, b: usize, c: usize);
    nvmlDeviceGetNumFans(a: usize, b: usize);
    nvmlDeviceGetNumGpuCores(a: usize, b: usize);
    nvmlDeviceGetPciInfo_v3(a: usize, b: usize);
    nvmlDeviceGetPcieReplayCounter(a: usize, b: usize);
    nvmlDeviceGetPcieThroughput(a: usize, b: usize, c: usize);
    nvmlDeviceGetPerformanceState(a: usize, b: usize);
    nvmlDeviceGetPersistenceMode(a: usize, b: usize);
    nvmlDeviceGetPowerManagementDefaultLimit(a: usize, b: usize);
    nvmlDeviceGetPowerManagementLimit(a: usize, b: usize);
    nvmlDeviceGetPowerManagementLimitConstraints(a: usize, b: usize, c: usize);
    nvmlDeviceGetPowerState(a: usize, b: usize);
    nvmlDeviceGetPowerUsage(a: usize, b: usize);
    nvmlDeviceGetProcessUtilization(a: usize, b: usize, c: usize, d: usize);
    nvmlDeviceGetRemappedRows(a: usize, b: usize, c: usize, d: usize, e: usize);
    nvmlDeviceGetRetiredPagesPendingStatus(a: usize, b: usize);
    nvmlDeviceGetSamples(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize);
    nvmlDeviceGetSerial(a: usize, b: usize, c: usize);
    nvmlDeviceGetSupportedClocksThrottleReasons(a: usize, b: usize);
    nvmlDeviceGetSupportedEventTypes(a: usize, b: usize);
    nvmlDeviceGetTemperature(a: usize, b: usize, c: usize);
    nvmlDeviceGetTemperatureThreshold(a: usize, b: usize, c: usize);
    nvmlDeviceGetTotalEccErrors(a: usize, b: usize, c: usize, d: usize);
    nvmlDeviceGetTotalEnergyConsumption(a: usize, b: usize);
    nvmlDeviceGetUUID(a: usize, b: usize, c: usize);
    nvmlDeviceGetUtilizationRates(a: usize, b: usize);
    nvmlDeviceGetVbiosVersion(a: usize, b: usize, c: usize);
    nvmlDeviceGetViolationStatus(a: usize, b: usize, c: usize);
    nvmlDeviceRegisterEvents(a: usize, b: usize, c: usize);
}

entry_points! { system_with_nulls:
    nvmlDeviceGetCount_v2(a: usize);
    nvmlDeviceGetHandleByIndex_v2(a: usize, b: usize);
    nvmlDeviceGetHandleByPciBusId_v2(a: usize, b: usize);
    nvmlDeviceGetHandleByUUID(a: usize, b: usize);
    nvmlEventSetCreate(a: usize);
    nvmlEventSetWait(a: usize, b: usize, c: usize);
    nvmlEventSetWait_v2(a: usize, b: usize, c: usize);
    nvmlSystemGetCudaDriverVersion(a: usize);
    nvmlSystemGetCudaDriverVersion_v2(a: usize);
    nvmlSystemGetDriverVersion(a: usize, b: usize);
    nvmlSystemGetNVMLVersion(a: usize, b: usize);
    nvmlSystemGetProcessName(a: usize, b: usize, c: usize);
}

unsafe extern "C" {
    fn nvmlInit() -> i32;
    fn nvmlInit_v2() -> i32;
    fn nvmlInitWithFlags(flags: u32) -> i32;
    fn nvmlShutdown() -> i32;
    fn nvmlEventSetFree(set: usize) -> i32;
    fn nvmlErrorString(code: i32) -> *const std::ffi::c_char;
}

#[test]
fn a_scenario_that_changes_while_the_caller_runs_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (scenario, stats) = (folder.path().join("scenario"), folder.path().join("stats"));
    std::fs::write(&scenario, "gpu.0.temp = 51\n").unwrap();
    in_own_process("inner_follows_the_scenario", &scenario, &stats);
    let stats = std::fs::read_to_string(stats).unwrap();
    assert!(stats.lines().any(|line| line == "1 nvmlShutdown"), "{stats}");
}

#[test]
fn no_entry_point_dies_of_nulls() {
    let folder = tempfile::tempdir().unwrap();
    in_own_process("inner_survives_nulls", &folder.path().join("none"), &folder.path().join("stats"));
}

#[test]
fn the_library_says_that_it_is_a_simulation() {
    assert_eq!(diarwatch_simulated_nvml(), 1);
}

#[test]
#[ignore = "run by a_scenario_that_changes_while_the_caller_runs_is_seen"]
fn inner_follows_the_scenario() {
    assert_eq!(temperature(), Err(UNINITIALIZED));
    // SAFETY: takes nothing.
    assert_eq!(unsafe { nvmlInit_v2() }, SUCCESS);
    assert_eq!(temperature(), Ok(51));
    change("gpu.0.temp = 97\n");
    until(|| temperature() == Ok(97));
    change("gpu.0.state = lost\n");
    until(|| temperature() == Err(GPU_IS_LOST));
    change("gpu.0.temp = unsupported\n");
    until(|| temperature() == Err(NOT_SUPPORTED));

    change("gpu.0.temp = 60\ngpu.0.fan = 77\ncall.nvmlDeviceGetTemperature = hang\n");
    until(|| fan_speed() == Ok(77));
    let calls = diarwatch_fake_nvml_calls();
    let hung = std::thread::spawn(temperature);
    until(|| diarwatch_fake_nvml_calls() > calls);
    assert_eq!(fan_speed(), Ok(77), "a hung call holds up no other");
    assert!(!hung.is_finished());
    change("gpu.0.temp = 61\n");
    assert_eq!(hung.join().unwrap(), Ok(61));

    // SAFETY: takes nothing.
    assert_eq!(unsafe { nvmlShutdown() }, SUCCESS);
    assert_eq!(temperature(), Err(UNINITIALIZED));
}

#[test]
#[ignore = "run by no_entry_point_dies_of_nulls"]
fn inner_survives_nulls() {
    let all_answers = || devices_with_nulls(DEVICE_0).into_iter().chain(system_with_nulls(0));
    assert_eq!(all_answers().count(), 73);
    assert!(all_answers().all(|(_, code)| code == UNINITIALIZED));
    // SAFETY: takes nothing that could be wrong.
    unsafe {
        assert_eq!([nvmlInit(), nvmlInit_v2(), nvmlInitWithFlags(0)], [SUCCESS; 3]);
        assert_ne!(nvmlEventSetFree(0), SUCCESS);
        assert!(!nvmlErrorString(-7).is_null());
    }
    let no_gpus = [0, 2, usize::MAX].into_iter().flat_map(devices_with_nulls);
    for (name, code) in all_answers().chain(no_gpus) {
        assert_ne!(code, SUCCESS, "{name} said that it wrote to a null pointer");
    }
    // SAFETY: takes nothing; one more than was begun.
    let ends: Vec<i32> = (0..4).map(|_| unsafe { nvmlShutdown() }).collect();
    assert_eq!(ends, [SUCCESS, SUCCESS, SUCCESS, UNINITIALIZED]);
}

/// Runs one of the ignored tests in a process of its own: the library reads its environment once.
fn in_own_process(test: &str, scenario: &Path, stats: &Path) {
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .env("DIARWATCH_FAKE_NVML_SCENARIO", scenario)
        .env("DIARWATCH_FAKE_NVML_STATS", stats)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("1 passed"), "{}: {said}", ended.status);
}

fn change(scenario: &str) {
    let path = std::env::var_os("DIARWATCH_FAKE_NVML_SCENARIO").map(PathBuf::from).unwrap();
    let beside = path.with_extension("new");
    std::fs::write(&beside, scenario).unwrap();
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

fn temperature() -> Result<u32, i32> {
    // SAFETY: a valid place for the value.
    value(|place| unsafe { nvmlDeviceGetTemperature(DEVICE_0, 0, place) })
}

fn fan_speed() -> Result<u32, i32> {
    // SAFETY: a valid place for the value.
    value(|place| unsafe { nvmlDeviceGetFanSpeed(DEVICE_0, place) })
}

fn value(read: impl FnOnce(usize) -> i32) -> Result<u32, i32> {
    let mut value = 0_u32;
    let code = read((&raw mut value).expose_provenance());
    if code == SUCCESS { Ok(value) } else { Err(code) }
}
