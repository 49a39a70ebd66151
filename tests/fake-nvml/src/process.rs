//! The processes on a GPU: their memory, and what they used since the caller last asked.

use crate::abi::{Code, Out, device_entries};
use crate::clock;
use crate::state::Device;

/// How often the driver has a new sample of each process, µs.
const PERIOD_US: u64 = 1_000_000;
/// No MIG instance.
const NO_INSTANCE: u32 = u32::MAX;

/// `nvmlProcessInfo_v2_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessInfo {
    pid: u32,
    used_gpu_memory: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

/// `nvmlProcessUtilizationSample_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessSample {
    pid: u32,
    timestamp_us: u64,
    sm: u32,
    memory: u32,
    encoder: u32,
    decoder: u32,
}

device_entries! {
    fn nvmlDeviceGetComputeRunningProcesses_v2(device, count: Out<u32>, list: Out<ProcessInfo>)
        list.set_list(&processes(device)?, count);
    fn nvmlDeviceGetComputeRunningProcesses_v3(device, count: Out<u32>, list: Out<ProcessInfo>)
        list.set_list(&processes(device)?, count);
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(_device, count: Out<u32>, list: Out<ProcessInfo>)
        list.set_list(&[], count);
    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(_device, count: Out<u32>, list: Out<ProcessInfo>)
        list.set_list(&[], count);
    fn nvmlDeviceGetProcessUtilization(device, list: Out<ProcessSample>, count: Out<u32>, last: u64)
        list.set_list(&samples(device, clock::unix_micros(), last)?, count);
}

fn processes(device: &Device) -> Result<Vec<ProcessInfo>, Code> {
    let info = |process: &crate::scenario::Process| ProcessInfo {
        pid: process.pid,
        used_gpu_memory: u64::from(process.mib) << 20,
        gpu_instance: NO_INSTANCE,
        compute_instance: NO_INSTANCE,
    };
    Ok(device.processes()?.iter().map(info).collect())
}

/// As the driver does, "not found" when there is nothing newer than the caller has seen.
fn samples(device: &Device, now_us: u64, last_seen_us: u64) -> Result<Vec<ProcessSample>, Code> {
    let processes = device.processes()?;
    let timestamp_us = now_us - now_us % PERIOD_US;
    if timestamp_us <= last_seen_us || processes.is_empty() {
        return Err(Code::NOT_FOUND);
    }
    let sample = |process: &crate::scenario::Process| ProcessSample {
        pid: process.pid,
        timestamp_us,
        sm: process.sm,
        memory: process.memory,
        encoder: 0,
        decoder: 0,
    };
    Ok(processes.iter().map(sample).collect())
}
