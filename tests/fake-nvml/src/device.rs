//! One GPU: who it is, its load, clocks, power, temperature and link. What no scenario needs to
//! move is that of an RTX 4060.

use std::ffi::c_char;

use crate::abi::{Code, Out, device_entries};
use crate::clock;
use crate::scenario::Key;

/// NVML_CLOCK_MEM; the others are clocks of the GPU itself.
const CLOCK_MEMORY: u32 = 2;
/// NVML_TEMPERATURE_THRESHOLD_SHUTDOWN; the others are met before it.
const THRESHOLD_SHUTDOWN: u32 = 0;
/// NVML_PCIE_UTIL_TX_BYTES.
const PCIE_SENT: u32 = 0;
/// How long the driver looks at encoder and decoder for one value, µs.
const SAMPLING_US: u32 = 167_000;
/// The lowest power limit that can be set, mW.
const POWER_LIMIT_MIN_MW: u32 = 90_000;
/// Highest clocks, MHz.
const CLOCKS_MAX_MHZ: [u32; 2] = [3_105, 8_501];

/// `nvmlUtilization_t`, percent.
#[repr(C)]
#[derive(Clone, Copy)]
struct Utilization {
    gpu: u32,
    memory: u32,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PciInfo {
    bus_id_legacy: [u8; 16],
    domain: u32,
    bus: u32,
    device: u32,
    pci_device_id: u32,
    pci_subsystem_id: u32,
    bus_id: [u8; 32],
}

/// `nvmlViolationTime_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ViolationTime {
    reference_us: u64,
    violation_ns: u64,
}

macro_rules! numbers {
    ($(fn $name:ident = $key:ident;)*) => {
        device_entries! { $(fn $name(device, value: Out<u32>) value.set(device.small(Key::$key)?);)* }
    };
}

macro_rules! constants {
    ($(fn $name:ident = $value:literal;)*) => {
        device_entries! { $(fn $name(_device, value: Out<u32>) value.set($value);)* }
    };
}

numbers! {
    fn nvmlDeviceGetPowerUsage = PowerMw;
    fn nvmlDeviceGetPowerManagementLimit = PowerLimitMw;
    fn nvmlDeviceGetEnforcedPowerLimit = PowerLimitMw;
    fn nvmlDeviceGetPowerManagementDefaultLimit = PowerLimitMw;
    fn nvmlDeviceGetPerformanceState = Pstate;
    fn nvmlDeviceGetPowerState = Pstate;
    fn nvmlDeviceGetFanSpeed = Fan;
    fn nvmlDeviceGetPersistenceMode = Persistence;
    fn nvmlDeviceGetComputeMode = ComputeMode;
    fn nvmlDeviceGetPcieReplayCounter = Replay;
}

constants! {
    fn nvmlDeviceGetBrand = 15; // GeForce RTX
    fn nvmlDeviceGetArchitecture = 8; // Ada
    fn nvmlDeviceGetNumGpuCores = 3_072;
    fn nvmlDeviceGetNumFans = 1;
    fn nvmlDeviceGetCurrPcieLinkGeneration = 4;
    fn nvmlDeviceGetMaxPcieLinkGeneration = 4;
    fn nvmlDeviceGetCurrPcieLinkWidth = 8;
    fn nvmlDeviceGetMaxPcieLinkWidth = 8;
    fn nvmlDeviceGetDisplayActive = 0;
    fn nvmlDeviceGetDisplayMode = 0;
}

device_entries! {
    fn nvmlDeviceGetName(device, name: Out<c_char>, room: u32) name.set_text(&device.card()?.name, room);
    fn nvmlDeviceGetUUID(device, uuid: Out<c_char>, room: u32) uuid.set_text(&device.card()?.uuid, room);
    fn nvmlDeviceGetSerial(device, serial: Out<c_char>, room: u32)
        serial.set_text(&device.card()?.serial, room);
    fn nvmlDeviceGetVbiosVersion(_device, version: Out<c_char>, room: u32)
        version.set_text("95.07.36.00.01", room);
    fn nvmlDeviceGetIndex(device, index: Out<u32>) index.set(device.index);
    fn nvmlDeviceGetMinorNumber(device, number: Out<u32>) number.set(device.index);
    fn nvmlDeviceGetPciInfo_v3(device, info: Out<PciInfo>) info.set(pci_info(device.index));
    fn nvmlDeviceGetCudaComputeCapability(_device, major: Out<i32>, minor: Out<i32>) {
        major.set(8)?;
        minor.set(9)
    };

    fn nvmlDeviceGetUtilizationRates(device, rates: Out<Utilization>)
        rates.set(Utilization { gpu: device.small(Key::Util)?, memory: device.small(Key::MemUtil)? });
    fn nvmlDeviceGetEncoderUtilization(device, percent: Out<u32>, period: Out<u32>) {
        period.set(SAMPLING_US)?;
        percent.set(device.small(Key::Enc)?)
    };
    fn nvmlDeviceGetDecoderUtilization(device, percent: Out<u32>, period: Out<u32>) {
        period.set(SAMPLING_US)?;
        percent.set(device.small(Key::Dec)?)
    };

    fn nvmlDeviceGetTemperature(device, _sensor: u32, degrees: Out<u32>)
        degrees.set(device.small(Key::Temp)?);
    fn nvmlDeviceGetTemperatureThreshold(device, kind: u32, degrees: Out<u32>) {
        let key = if kind == THRESHOLD_SHUTDOWN { Key::ShutdownC } else { Key::SlowdownC };
        degrees.set(device.small(key)?)
    };
    fn nvmlDeviceGetFanSpeed_v2(device, fan: u32, percent: Out<u32>) {
        if fan != 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        percent.set(device.small(Key::Fan)?)
    };

    fn nvmlDeviceGetPowerManagementLimitConstraints(device, low: Out<u32>, high: Out<u32>) {
        low.set(POWER_LIMIT_MIN_MW)?;
        high.set(device.small(Key::PowerLimitMw)?)
    };
    fn nvmlDeviceGetTotalEnergyConsumption(device, millijoules: Out<u64>)
        millijoules.set(device.counter(Key::PowerMw)?);

    fn nvmlDeviceGetClockInfo(device, kind: u32, mhz: Out<u32>) {
        let key = if kind == CLOCK_MEMORY { Key::MemMhz } else { Key::SmMhz };
        mhz.set(device.small(key)?)
    };
    fn nvmlDeviceGetMaxClockInfo(_device, kind: u32, mhz: Out<u32>) {
        let [own, memory] = CLOCKS_MAX_MHZ;
        mhz.set(if kind == CLOCK_MEMORY { memory } else { own })
    };
    fn nvmlDeviceGetCurrentClocksThrottleReasons(device, reasons: Out<u64>)
        reasons.set(device.whole(Key::Throttle)?);
    fn nvmlDeviceGetCurrentClocksEventReasons(device, reasons: Out<u64>)
        reasons.set(device.whole(Key::Throttle)?);
    fn nvmlDeviceGetSupportedClocksThrottleReasons(_device, reasons: Out<u64>) reasons.set(0x1ff);
    fn nvmlDeviceGetViolationStatus(_device, _policy: u32, time: Out<ViolationTime>)
        time.set(ViolationTime { reference_us: clock::unix_micros(), violation_ns: 0 });

    fn nvmlDeviceGetPcieThroughput(device, direction: u32, rate: Out<u32>) {
        let key = if direction == PCIE_SENT { Key::PcieTxKb } else { Key::PcieRxKb };
        rate.set(device.small(key)?)
    };
    fn nvmlDeviceGetMigMode(_device, _current: Out<u32>, _pending: Out<u32>) Err(Code::NOT_SUPPORTED);
}

/// The place of a GPU on the PCI bus.
pub(crate) fn bus_id(index: u32) -> String {
    format!("00000000:{:02X}:00.0", bus(index))
}

fn bus(index: u32) -> u32 {
    index.saturating_add(0x10)
}

fn pci_info(index: u32) -> PciInfo {
    let full = bus_id(index);
    let short = full.strip_prefix("0000").unwrap_or(&full);
    PciInfo {
        bus_id_legacy: padded(short),
        domain: 0,
        bus: bus(index),
        device: 0,
        pci_device_id: 0x2882_10de,
        pci_subsystem_id: 0x4116_1458,
        bus_id: padded(&full),
    }
}

/// A text in a field of fixed size, cut so that a NUL remains.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    field.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()).for_each(|(slot, byte)| *slot = byte);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legacy_bus_id_has_the_short_domain() {
        let info = pci_info(2);
        assert!(info.bus_id_legacy.starts_with(b"0000:12:00.0\0"));
        assert!(info.bus_id.starts_with(b"00000000:12:00.0\0"));
        assert_eq!(size_of::<PciInfo>(), 68);
    }
}
