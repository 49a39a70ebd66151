//! Many values in one call: takes the caller's list of field numbers, gives each its value or its
//! own error. The numbers are those of driver 550 (`NVML_FI_DEV_*`), and 230 of driver 570.

use crate::abi::{Code, Out, device_entries};
use crate::clock;
use crate::scenario::Key;
use crate::state::Device;

/// Fields in one call.
const FIELDS_MAX: usize = 1_024;
/// NVML_VALUE_TYPE_UNSIGNED_LONG_LONG.
const UNSIGNED_LONG_LONG: u32 = 3;
/// KiB to bytes.
const KIB: u64 = 1_024;

/// `nvmlFieldValue_t`; the value is a union of eight bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct FieldValue {
    field: u32,
    scope: u32,
    timestamp_us: i64,
    latency_us: i64,
    kind: u32,
    returned: i32,
    value: u64,
}

device_entries! {
    fn nvmlDeviceGetFieldValues(device, count: i32, list: Out<FieldValue>) {
        let count = usize::try_from(count).ok().filter(|count| (1..=FIELDS_MAX).contains(count));
        list.each(count.ok_or(Code::INVALID_ARGUMENT)?, |asked| filled(device, asked))
    };
}

fn filled(device: &Device, asked: FieldValue) -> FieldValue {
    let read = value(device, asked.field);
    FieldValue {
        timestamp_us: i64::try_from(clock::unix_micros()).unwrap_or(i64::MAX),
        latency_us: 1,
        kind: UNSIGNED_LONG_LONG,
        returned: read.err().map_or(0, |code| code.0),
        value: read.unwrap_or(asked.value),
        ..asked
    }
}

fn value(device: &Device, field: u32) -> Result<u64, Code> {
    match field {
        1 => device.read(Key::EccUe).map(|_| 1),
        3 | 5 => device.whole(Key::EccCe),
        4 | 6 => device.whole(Key::EccUe),
        29..=31 => device.whole(Key::Retired),
        74..=81 => Ok(0),
        82 => device.whole(Key::MemTemp),
        83 | 191 => device.counter(Key::PowerMw),
        94 => device.whole(Key::Replay),
        142 | 143 | 145 => device.read(Key::RemapPending).map(|_| 0),
        144 => device.whole(Key::RemapPending),
        185 | 186 => device.whole(Key::PowerMw),
        190 => device.whole(Key::PowerLimitMw),
        197 => device.counter(Key::PcieTxKb).map(|kib| kib.saturating_mul(KIB)),
        198 => device.counter(Key::PcieRxKb).map(|kib| kib.saturating_mul(KIB)),
        230 => device.whole(Key::Recovery),
        _ => Err(Code::NOT_SUPPORTED),
    }
}
