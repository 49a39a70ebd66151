//! Memory of a GPU: how much is in use, and the errors in it.

use crate::abi::{Code, Out, device_entries};
use crate::scenario::Key;
use crate::state::Device;

/// NVML_MEMORY_ERROR_TYPE_CORRECTED.
const CORRECTED: u32 = 0;
/// NVML_MEMORY_LOCATION_DEVICE_MEMORY; the scenario has errors only there.
const DEVICE_MEMORY: u32 = 2;
/// BAR1 of a card without resizable BAR, bytes: whole and in use.
const BAR1: [u64; 2] = [256 << 20, 6 << 20];

/// `nvmlMemory_t` and `nvmlBAR1Memory_t`, bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlMemory_v2_t`, bytes; what the driver keeps is told apart.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryV2 {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

device_entries! {
    fn nvmlDeviceGetMemoryInfo(device, memory: Out<Memory>) {
        let (total, reserved, used) = bytes(device)?;
        let used = used.saturating_add(reserved);
        memory.set(Memory { total, free: total.saturating_sub(used), used })
    };
    fn nvmlDeviceGetMemoryInfo_v2(device, memory: Out<MemoryV2>) {
        let (total, reserved, used) = bytes(device)?;
        let free = total.saturating_sub(used.saturating_add(reserved));
        memory.set(MemoryV2 { version: memory.get()?.version, total, reserved, free, used })
    };
    fn nvmlDeviceGetBAR1MemoryInfo(_device, memory: Out<Memory>) {
        let [total, used] = BAR1;
        memory.set(Memory { total, free: total - used, used })
    };

    fn nvmlDeviceGetTotalEccErrors(device, kind: u32, _counter: u32, count: Out<u64>)
        count.set(errors(device, kind)?);
    fn nvmlDeviceGetMemoryErrorCounter(device, kind: u32, _counter: u32, location: u32, count: Out<u64>) {
        let errors = errors(device, kind)?;
        count.set(if location == DEVICE_MEMORY { errors } else { 0 })
    };
    fn nvmlDeviceGetEccMode(device, current: Out<u32>, pending: Out<u32>) {
        device.read(Key::EccUe)?;
        current.set(1)?;
        pending.set(1)
    };
    fn nvmlDeviceGetRetiredPagesPendingStatus(device, pending: Out<u32>)
        pending.set(device.small(Key::Retired)?.min(1));
    fn nvmlDeviceGetRemappedRows(
        device, corrected: Out<u32>, uncorrected: Out<u32>, pending: Out<u32>, failed: Out<u32>,
    ) {
        let waiting = device.small(Key::RemapPending)?.min(1);
        corrected.set(0)?;
        uncorrected.set(0)?;
        pending.set(waiting)?;
        failed.set(0)
    };
}

/// Total, kept by the driver, in use.
fn bytes(device: &Device) -> Result<(u64, u64, u64), Code> {
    let of = |key| device.read(key).map(|mib| crate::state::whole(mib * 1_048_576.0));
    let (total, reserved) = (of(Key::MemTotalMib)?, of(Key::MemReservedMib)?);
    // Claims may say more than there is; no driver does.
    Ok((total, reserved, of(Key::MemUsedMib)?.min(total.saturating_sub(reserved))))
}

fn errors(device: &Device, kind: u32) -> Result<u64, Code> {
    device.whole(if kind == CORRECTED { Key::EccCe } else { Key::EccUe })
}
